"""Each experiment opens with what was run and seen, and is a short diff of the defaults."""

import re
from pathlib import Path

import pytest

from cxrlab.cli.config import config_dir

EXPERIMENTS = sorted((config_dir() / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_says_its_command_hardware_time_and_score(path: Path):
    text = path.read_text(encoding="utf-8")
    comment = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    assert text.startswith("# @package _global_\n")
    assert f"cxrlab train experiment={path.stem}" in comment
    for word in (
        r"\bcores?\b|\bGPU\b",
        r"\bminutes?\b|\bhours?\b",
        r"20\d\d-\d\d-\d\d",
        r"AUROC 0\.\d+|accuracy 0\.\d+",
    ):
        assert re.search(word, comment), word
    assert len(text.splitlines()) < 40
