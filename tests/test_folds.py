"""Cross-validation as a user starts it: one command, a job for each fold, and one table of them all."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrlab.data.manifest import read_table

LABELS = ("Effusion", "Nodule", "Opacity", "Cardiomegaly")


class Sweep(NamedTuple):
    """What a cross-validation of two folds said and wrote."""

    output: str
    folder: Path
    table: pd.DataFrame

    def job(self, fold: int) -> Path:
        (row,) = self.table[self.table["fold"] == fold]["job"]
        return self.folder / str(row)


@pytest.fixture(scope="module")
def sweep(tiny_command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("folds")
    words = ["data.split.method=folds", "data.split.num_folds=2", "data.split.fold=0,1"]
    done = subprocess.run(
        [sys.executable, "-m", "cxrlab.train", "-m", *tiny_command, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"},
    )
    assert done.returncode == 0, done.stderr
    (sweep_dir,) = folder.glob("outputs/multirun/*/*")
    return Sweep(done.stdout, sweep_dir, pd.read_csv(sweep_dir / "sweep.csv"))


def results(run_dir: Path, part: str, label: str = "macro mean") -> pd.Series:
    table = pd.read_csv(run_dir / "results.csv")
    return table[(table["part"] == part) & (table["label"] == label)].iloc[0]


def test_the_table_ends_with_mean_and_spread_over_the_folds(sweep: Sweep):
    table = sweep.table
    assert sorted(table["job"][:2]) == ["0", "1"]
    assert table["job"][2:].tolist() == ["mean", "std", "pooled"]
    assert table["status"].tolist() == ["completed"] * 2 + ["2 of 2 folds"] * 3
    jobs, mean, std = table[:2], table.iloc[2], table.iloc[3]
    assert table["metric"][:2].is_monotonic_decreasing
    for column in ("metric", "test/auroc", "test/average_precision"):
        one, other = jobs[column].astype(float)
        assert one != other
        assert mean[column] == pytest.approx((one + other) / 2, abs=1e-6)
        assert std[column] == pytest.approx(abs(one - other) / 2**0.5, abs=1e-6)
    assert sorted(jobs["fold"]) == [0, 1]
    for fold in (0, 1):
        row = jobs[jobs["fold"] == fold].iloc[0]
        assert row["metric"] == pytest.approx(results(sweep.job(fold), "val")["auroc"], abs=1e-6)
        assert row["test/auroc"] == pytest.approx(results(sweep.job(fold), "test")["auroc"], abs=1e-6)


def test_the_table_is_printed(sweep: Sweep):
    assert "2 jobs, 0 failed or interrupted" in sweep.output
    for word in ("val/auroc", "test/auroc", "mean", "std", "pooled"):
        assert word in sweep.output
    assert "WARNING" not in sweep.output


def test_each_job_tests_on_its_own_fold(sweep: Sweep):
    manifests = {fold: read_table(sweep.job(fold) / "manifest.csv") for fold in (0, 1)}
    tested = {}
    for fold, manifest in manifests.items():
        assert manifest.groupby("patient")["part"].nunique().max() == 1
        assert set(manifest["part"]) == {"train", "val", "test"}
        predictions = read_table(sweep.job(fold) / "predictions" / "test.csv")
        part = manifest[manifest["part"] == "test"]
        assert predictions["image"].tolist() == part["image"].tolist()
        tested[fold] = set(part["patient"])
    assert not tested[0] & tested[1]
    assert tested[0] | tested[1] == set(manifests[0]["patient"]) == set(manifests[1]["patient"])
    assert 0.4 < len(tested[0]) / len(tested[0] | tested[1]) < 0.6


def test_the_predictions_out_of_fold_hold_every_image_once(sweep: Sweep):
    pooled = read_table(sweep.folder / "out_of_fold.csv")
    images = read_table(sweep.job(0) / "manifest.csv")["image"]
    assert pooled["image"].is_unique
    assert set(pooled["image"]) == set(images)
    for fold in (0, 1):
        one = pooled[pooled["fold"] == fold].drop(columns="fold").reset_index(drop=True)
        pd.testing.assert_frame_equal(one, read_table(sweep.job(fold) / "predictions" / "test.csv"))


def test_the_pooled_numbers_are_those_of_the_pooled_predictions(sweep: Sweep):
    pooled = read_table(sweep.folder / "out_of_fold.csv")
    by_label = pd.read_csv(sweep.folder / "cross_validation.csv")
    by_label = by_label[by_label["metric"] == "auroc"].set_index("label")
    values = {
        label: roc_auc_score(pooled[f"target/{label}"], pooled[f"probability/{label}"]) for label in LABELS
    }
    assert by_label["pooled"][list(LABELS)].to_dict() == pytest.approx(values, abs=1e-5)
    assert by_label["pooled"]["macro mean"] == pytest.approx(sum(values.values()) / 4, abs=1e-5)
    assert sweep.table["test/auroc"].iloc[4] == pytest.approx(sum(values.values()) / 4, abs=1e-5)
    for label in LABELS:
        of_folds = [results(sweep.job(fold), "test", label)["auroc"] for fold in (0, 1)]
        assert by_label["mean"][label] == pytest.approx(sum(of_folds) / 2, abs=1e-5)
