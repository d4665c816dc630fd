import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig
from sklearn.metrics import roc_auc_score

from cxrlab.compare import checked, compare
from cxrlab.errors import ConfigError


@pytest.fixture
def compared(composed: Callable[..., DictConfig], tmp_path: Path) -> Callable[..., dict]:
    """Compare into tmp_path/out."""

    def function(*overrides: str) -> dict:
        small = "evaluation.num_resamples=100"
        cfg = composed(small, f"run_dir={tmp_path / 'out'}", *overrides, config_name="compare")
        return compare(cfg).to_json()

    return function


@pytest.fixture
def runs(finished_run: Path, tmp_path: Path) -> list[Path]:
    """A finished run, and a copy whose predictions are noise."""
    first, noise = (Path(shutil.copytree(finished_run, tmp_path / name)) for name in ("first", "noise"))
    for part in ("val", "test"):
        path = noise / "predictions" / f"{part}.csv"
        table = pd.read_csv(path, dtype={"patient": str})
        columns = [name for name in table if name.startswith("probability/")]
        table[columns] = np.random.default_rng(0).random(table[columns].shape)
        table.to_csv(path, index=False)
    provenance = json.loads((noise / "provenance.json").read_text())
    del provenance["sessions"][-1]["predictions"]  # which knows the tables that the training wrote
    (noise / "provenance.json").write_text(json.dumps(provenance))
    return [noise, first]


def macro(run: Path) -> float:
    table = pd.read_csv(run / "predictions" / "test.csv")
    labels = [name.removeprefix("target/") for name in table if name.startswith("target/")]
    return float(np.mean([roc_auc_score(table[f"target/{x}"], table[f"probability/{x}"]) for x in labels]))


def test_runs_are_ranked_on_the_same_patients(
    compared: Callable[..., dict], runs: list[Path], tmp_path: Path
):
    numbers = compared(f"runs=[{runs[0]},{runs[1]}]")
    expected = sorted((macro(run) for run in runs), reverse=True)
    assert [one["macro_auroc"]["value"] for one in numbers["models"]] == pytest.approx(expected)
    (pair,) = numbers["pairs"]
    assert pair["difference"]["value"] == pytest.approx(expected[0] - expected[1])
    out = tmp_path / "out"
    assert json.loads((out / "comparison.json").read_text()) == numbers
    page = (out / "report.html").read_text()
    assert "cxrlab.compare" in page
    assert "2 models on synthetic" in page
    assert list((out / "figures").glob("*.png"))
    assert json.loads((out / "provenance.json").read_text())["sessions"][0]["versions"]["torch"]


def test_a_run_against_itself_shows_no_difference(
    compared: Callable[..., dict], runs: list[Path], tmp_path: Path
):
    copy = Path(shutil.copytree(runs[1], tmp_path / "copy"))
    (pair,) = compared(f"runs=[{runs[1]},{copy}]")["pairs"]
    assert pair["outcome"] == "unclear"


def test_another_program_may_stand_beside_a_run(
    compared: Callable[..., dict], runs: list[Path], tmp_path: Path
):
    theirs = tmp_path / "theirs.csv"
    table = pd.read_csv(runs[0] / "predictions" / "test.csv")
    table[["image", *(name for name in table if name.startswith("probability/"))]].to_csv(theirs, index=False)
    numbers = compared(f"runs={runs[1]}", f"predictions={theirs}", f"targets={runs[1]}/predictions/test.csv")
    assert {one["name"] for one in numbers["models"]} == {"first", "theirs"}


def test_one_table_alone_is_no_comparison(compared: Callable[..., dict], runs: list[Path]):
    with pytest.raises(ConfigError, match=r"There is one table only \(first\)"):
        compared(f"runs={runs[1]}")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], r"Give runs="),
        (["runs=[]"], r"Give runs="),
        (["predictions=[a,b]"], "predictions= needs targets="),
        (["runs=[a,b]", "targets=c"], "targets= has no place without predictions="),
        (["runs=[a,b]", "margin=2"], "margin=2 must be a difference of AUROC above 0 and below 0.5"),
        (["runs=[a,b]", "part=train"], "part='train' does not fit"),
    ],
)
def test_what_does_not_fit_together_is_rejected(
    overrides: list[str], words: str, composed: Callable[..., DictConfig]
):
    with pytest.raises(ConfigError, match=words):
        checked(composed("run_dir=/nowhere", *overrides, config_name="compare"))
