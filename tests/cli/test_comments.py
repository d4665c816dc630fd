"""``cxrlab config``: the composed config with the comments of its keys."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from cxrlab.cli.comments import commented_config, comments_of, keys_of

Compose = Callable[..., DictConfig]


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "compare", "explain", "prepare", "review", "serve", "export"]
)
def test_it_is_the_config_that_the_command_has(command: str, composed: Compose):
    without_data = ("compare", "review", "serve", "export")
    overrides = [] if command in without_data else ["data=nih", "data.root=/nih"]
    text = commented_config(command, overrides)
    expected = OmegaConf.to_container(composed(*overrides, config_name=command), resolve=False)
    assert yaml.safe_load(text) == expected


def test_comments_come_from_the_chosen_files_and_those_they_start_from():
    lines = commented_config("train", ["data=nih", "optimizer=sgd", "optimizer.lr=0.5"]).splitlines()

    def above(line: str) -> str:
        return lines[lines.index(line) - 1].strip()

    assert (
        above("  image_size: 224") == "# Height and width in pixels: the only size there is."
    )  # base.yaml's
    assert above("data:") == "# Wang et al., CVPR 2017."
    assert above("resume: null") == "# Continue this run directory where it stopped."
    assert above("      images: 112120") == "published:"
    assert "  lr: 0.5" in lines


def test_files_of_ones_own_have_their_comments_too(tmp_path: Path):
    for name, text in {
        "experiment/mine": "# @package _global_\n# Our study.\ndefaults:\n- override /loss: mine\n\n"
        "# As in the paper.\nseed: 3  # of five\ntrainer:\n  # Enough.\n  max_epochs: 2\n",
        "loss/mine": "# Our loss.\n_target_: torch.nn.BCEWithLogitsLoss\n_partial_: true\n",
    }.items():
        (tmp_path / f"{name}.yaml").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    text = commented_config("train", ["--config-dir", str(tmp_path), "experiment=mine"])
    assert "# Our study.\n" in text.partition("data:")[0]
    assert "# As in the paper.\n# of five\nseed: 3\n" in text
    assert "  # Enough.\n  max_epochs: 2\n" in text
    assert "# Our loss.\nloss:\n" in text


def test_values_of_several_lines_lists_and_quotes_are_no_keys_and_no_comments():
    text = (
        "a: |\n  b: 1\n  # no comment\nc: {d: 1,\n  e: 2}\n# Of the list.\nf:\n  - g: 1\n    h: 2\n"
        "\"i, j\": 'x # y'  # behind\nk: a#b\n"
    )
    assert [key for _, key in keys_of(text)] == ["a", "c", "f", "i, j", "k"]
    assert comments_of(text) == {"f": ["Of the list."], "i, j": ["behind"]}


def test_it_is_quick_and_says_what_is_misspelt(tmp_path: Path):
    code = (
        "import sys\nfrom cxrlab.cli.comments import show\nshow(['evaluate', 'part=val'])\n"
        "print('IMPORTED', [name for name in ('torch', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "\npart: val\n" in done.stdout
    assert "IMPORTED []" in done.stdout
    wrong = subprocess.run(
        [sys.executable, "-m", "cxrlab", "config", "optimizer.lrr=1"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert wrong.returncode == 1
    assert "Did you mean optimizer.lr=1?" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert not list(tmp_path.iterdir())
