"""Sweeps over folds, on job directories made up for the purpose."""

import csv
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrlab.sweeps.cross_validation import configurations
from cxrlab.sweeps.table import add_job, close, printed

VAL = {0: 0.70, 1: 0.80, 2: 0.75, 3: 0.85, 4: 0.72}
TEST = {0: 0.60, 1: 0.75, 2: 0.66, 3: 0.81, 4: 0.64}
PREDICTIONS = "image,patient,part,covariate/view,target/Mass,probability/Mass"


def predictions(fold: int) -> list[str]:
    """Ten images of a fold; the later the fold, the higher the network's scores are as a whole."""
    rng = np.random.default_rng(fold)
    targets = rng.permutation([1.0] * 4 + [0.0] * 5 + [np.nan])
    scores = (rng.random(10) + np.nan_to_num(targets)) / 4 + fold / 10
    names = [f'"{fold}, {i}.png",00{fold}{i},test,NA' for i in range(10)]
    return [
        f"{name},{'' if np.isnan(target) else target},{score!r}"
        for name, target, score in zip(names, targets, scores.tolist(), strict=True)
    ]


def finish(sweep_dir: Path, job: int, fold: int, configuration: str = "", **changes: object) -> pd.DataFrame:
    """Write what a job writes that tested on a fold, and add it to the table."""
    folder = sweep_dir / str(job)
    (folder / "predictions").mkdir(parents=True)
    (folder / "predictions" / "test.csv").write_text("\n".join([PREDICTIONS, *predictions(fold), ""]))
    rows = [f"val,Mass,9,4,{VAL[fold]},0.5,0.6", f"val,macro mean,10,,{VAL[fold]},0.5,0.6"]
    rows += [f"test,Mass,9,4,{TEST[fold]},0.4,0.7", f"test,macro mean,10,,{TEST[fold]},0.4,0.7"]
    header = "part,label,images,positives,auroc,average_precision,accuracy"
    (folder / "results.csv").write_text("\n".join([header, *rows, ""]))
    return add(sweep_dir, job, fold, configuration, **changes)


def add(sweep_dir: Path, job: int, fold: int, configuration: str = "", **changes: object) -> pd.DataFrame:
    overrides = f"data.split.method=folds {configuration} data.split.fold={fold}"
    row = {
        "job": job,
        "status": "completed",
        "metric": VAL[fold],
        "seconds": 2.0,
        "overrides": overrides,
        "error": "",
        "fold": fold,
        "num_folds": 5,
        "configuration": f"data.split.method=folds {configuration}".strip(),
        "folder": str(job),
    }
    return add_job(sweep_dir / "sweep.csv", row | changes, maximize=True)


@pytest.fixture
def five_folds(tmp_path: Path) -> Path:
    for fold in range(5):
        finish(tmp_path, fold, fold)
    return tmp_path


def summary(sweep_dir: Path, job: str) -> pd.Series:
    table = pd.read_csv(sweep_dir / "sweep.csv", keep_default_na=False, na_values={"metric": [""]})
    assert (table["job"] == job).sum() == 1
    return table.set_index("job").loc[job]


def test_the_table_ends_with_mean_and_spread_over_folds(five_folds: Path):
    table = pd.read_csv(five_folds / "sweep.csv")
    assert list(table)[:5] == ["job", "status", "fold", "metric", "test/auroc"]
    assert list(table)[-3:] == ["seconds", "overrides", "error"]
    assert table["job"].tolist() == ["3", "1", "2", "4", "0", "mean", "std", "pooled"]
    assert table["fold"][:5].tolist() == [3, 1, 2, 4, 0]
    assert table["test/auroc"][:5].tolist() == [TEST[fold] for fold in (3, 1, 2, 4, 0)]
    mean, std = summary(five_folds, "mean"), summary(five_folds, "std")
    assert mean["metric"] == pytest.approx(statistics.mean(VAL.values()))
    assert std["metric"] == pytest.approx(statistics.stdev(VAL.values()), abs=1e-6)
    assert float(mean["test/auroc"]) == pytest.approx(statistics.mean(TEST.values()))
    assert float(std["test/auroc"]) == pytest.approx(statistics.stdev(TEST.values()), abs=1e-6)
    assert (mean["status"], mean["overrides"], mean["error"]) == (
        "5 of 5 folds",
        "data.split.method=folds",
        "",
    )


def test_the_out_of_fold_predictions_hold_each_image_once_as_its_fold_wrote_it(five_folds: Path):
    lines = (five_folds / "out_of_fold.csv").read_text().splitlines()
    assert lines[0] == PREDICTIONS.replace("part,", "part,fold,")
    wanted = [line.replace(",test,", f",test,{fold},") for fold in range(5) for line in predictions(fold)]
    assert lines[1:] == wanted


def test_the_pooled_metric_is_that_of_all_predictions_together(five_folds: Path):
    rows = list(csv.DictReader((five_folds / "out_of_fold.csv").read_text().splitlines()))
    known = [row for row in rows if row["target/Mass"]]
    expected = roc_auc_score(
        [float(row["target/Mass"]) for row in known], [float(row["probability/Mass"]) for row in known]
    )
    by_fold = [roc_auc_score(*_known(fold)) for fold in range(5)]
    assert expected < min(by_fold)  # the folds' scores are shifted against one another
    assert float(summary(five_folds, "pooled")["test/auroc"]) == pytest.approx(expected, abs=1e-6)
    by_label = pd.read_csv(five_folds / "cross_validation.csv").set_index(["label", "metric"])
    for label in ("Mass", "macro mean"):
        row = by_label.loc[(label, "auroc")]
        assert row["pooled"] == pytest.approx(expected, abs=1e-6)
        assert row["mean"] == pytest.approx(statistics.mean(TEST.values()))
        assert row["std"] == pytest.approx(statistics.stdev(TEST.values()), abs=1e-6)
        assert row["folds"] == 5


def _known(fold: int) -> tuple[list[float], list[float]]:
    cells = [line.split(",")[-2:] for line in predictions(fold)]
    known = [(float(target), float(score)) for target, score in cells if target]
    return [target for target, _ in known], [score for _, score in known]


def test_missing_and_failed_folds_are_said(tmp_path: Path):
    finish(tmp_path, 0, 0)
    finish(tmp_path, 1, 1)
    add(tmp_path, 2, 2, status="failed", metric=None, error="the loss is nan")
    add(tmp_path, 3, 3, status="running", metric=None)
    close(tmp_path / "sweep.csv")
    mean = summary(tmp_path, "mean")
    assert mean["status"] == "2 of 5 folds"
    assert mean["error"] == "fold 2 failed, fold 3 interrupted, fold 4 not run"
    assert mean["metric"] == pytest.approx((VAL[0] + VAL[1]) / 2)
    assert len((tmp_path / "out_of_fold.csv").read_text().splitlines()) == 21
    text = printed(tmp_path / "sweep.csv", "val/auroc")
    assert "4 jobs, 2 failed or interrupted" in text
    assert (
        "WARNING: the cross-validation has 2 of 5 folds (fold 2 failed, fold 3 interrupted, fold 4 not run)"
        in text
    )
    assert "the loss is nan" in text


def test_the_spread_of_one_fold_is_unknown_and_none_is_no_mean(tmp_path: Path):
    add(tmp_path, 0, 0, status="failed", metric=None, error="no")
    assert np.isnan(summary(tmp_path, "mean")["metric"])
    assert not (tmp_path / "out_of_fold.csv").exists()
    finish(tmp_path, 1, 1)
    assert summary(tmp_path, "mean")["metric"] == VAL[1]
    assert np.isnan(summary(tmp_path, "std")["metric"])


def test_configurations_are_told_apart(tmp_path: Path):
    """Two learning rates over folds: each has its own rows and its own predictions, the best one first."""
    for fold in range(2):
        finish(tmp_path, fold, fold, "optimizer.lr=0.1", metric=0.6)
    assert (tmp_path / "out_of_fold.csv").is_file()
    for fold in range(2):
        finish(tmp_path, 2 + fold, fold, "optimizer.lr=0.2", metric=0.9 - fold / 10)
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out_of_fold_0.csv", "out_of_fold_2.csv"]
    table = pd.read_csv(tmp_path / "sweep.csv")
    assert table["job"][4:].tolist() == ["mean", "std", "pooled"] * 2
    means = table[table["job"] == "mean"]
    assert means["metric"].tolist() == pytest.approx([0.85, 0.6])
    by_label = pd.read_csv(tmp_path / "cross_validation.csv").groupby("overrides")["predictions"].unique()
    assert by_label["data.split.method=folds optimizer.lr=0.2"].tolist() == ["out_of_fold_2.csv"]
    assert means["overrides"].str.endswith(("optimizer.lr=0.2", "optimizer.lr=0.1")).all()
    text = printed(tmp_path / "sweep.csv", "val/auroc")
    assert "WARNING: optimizer.lr=0.2 has 2 of 5 folds" in text
    assert "Choose a configuration by the validation metric" in text


def test_a_loss_ranks_the_lowest_mean_first(tmp_path: Path):
    for job, (rate, loss) in enumerate([("0.1", 0.9), ("0.2", 0.4), ("0.3", None)]):
        row = {
            "job": job,
            "status": "completed",
            "metric": loss,
            "seconds": 1.0,
            "overrides": rate,
            "error": "",
        }
        row |= {"fold": 0, "num_folds": 5, "configuration": rate, "folder": str(job)}
        table = add_job(tmp_path / "sweep.csv", row, maximize=False)
    assert table["overrides"][table["job"] == "mean"].tolist() == ["0.2", "0.1", "0.3"]
    close(tmp_path / "sweep.csv")
    again = pd.read_csv(tmp_path / "sweep.csv", dtype=str)
    assert again["overrides"].tolist() == table["overrides"].tolist()


def test_a_fold_that_was_run_twice_counts_once(five_folds: Path):
    finish(five_folds, 5, 0, metric=0.9)
    mean = summary(five_folds, "mean")
    assert mean["metric"] == pytest.approx(statistics.mean([0.9, *(VAL[fold] for fold in range(1, 5))]))
    assert len((five_folds / "out_of_fold.csv").read_text().splitlines()) == 51


def test_folds_that_share_an_image_are_not_pooled(tmp_path: Path):
    finish(tmp_path, 0, 0)
    finish(tmp_path, 1, 1)
    path = tmp_path / "1" / "predictions" / "test.csv"
    path.write_text("\n".join([PREDICTIONS, *predictions(0)]))
    finish(tmp_path, 2, 2)
    error = summary(tmp_path, "mean")["error"]
    assert "the predictions cannot be pooled: 10 images were tested on in two folds" in error
    assert not (tmp_path / "out_of_fold.csv").exists()
    assert summary(tmp_path, "mean")["metric"] == pytest.approx(
        statistics.mean([VAL[0], VAL[1], VAL[2]]), abs=1e-6
    )


def test_a_fold_without_test_predictions_is_said(tmp_path: Path):
    finish(tmp_path, 0, 0)
    add(tmp_path, 1, 1)
    mean = summary(tmp_path, "mean")
    assert mean["status"] == "2 of 5 folds"
    assert "fold 1 without predictions/test.csv" in mean["error"]
    assert float(mean["test/auroc"]) == TEST[0]


def test_what_a_stale_process_wrote_is_made_good_at_the_end(five_folds: Path):
    whole = {name: (five_folds / name).read_bytes() for name in ("sweep.csv", "out_of_fold.csv")}
    (five_folds / "sweep.csv").write_text("job,status\n0,completed\n")
    (five_folds / ".jobs" / "pooled" / "0.json").write_text('{"jobs": {"0": 0}, "table": "out_of_fold.csv"}')
    (five_folds / "out_of_fold.csv").write_text(PREDICTIONS)
    close(five_folds / "sweep.csv")
    assert {name: (five_folds / name).read_bytes() for name in whole} == whole


def test_other_configurations_are_not_pooled_anew(tmp_path: Path):
    finish(tmp_path, 0, 0, "seed=0")
    finish(tmp_path, 1, 0, "seed=1")
    before = (tmp_path / "out_of_fold_0.csv").stat().st_mtime_ns
    finish(tmp_path, 2, 1, "seed=1")
    assert (tmp_path / "out_of_fold_0.csv").stat().st_mtime_ns == before
    assert len((tmp_path / "out_of_fold_1.csv").read_text().splitlines()) == 21


def test_the_printed_table_says_what_its_last_rows_are(five_folds: Path):
    text = printed(five_folds / "sweep.csv", "val/auroc")
    assert "5 jobs, 0 failed or interrupted" in text
    assert "std is the sample standard deviation (n - 1)" in text
    assert "Forman and Scholz" in text
    assert "out_of_fold.csv" in text
    assert "WARNING" not in text
    mean = next(line for line in text.splitlines() if line.split()[:1] == ["mean"])
    assert mean.split()[1:] == [
        "5",
        "of",
        "5",
        "folds",
        "-",
        "0.7640",
        "0.6920",
        "0.4000",
        "0.7000",
        "2.0000",
    ]


def test_a_label_without_positives_in_a_fold_is_left_out_of_its_mean(tmp_path: Path):
    finish(tmp_path, 0, 0)
    finish(tmp_path, 1, 1)
    results = tmp_path / "1" / "results.csv"
    results.write_text(results.read_text().replace(f"test,Mass,9,4,{TEST[1]}", "test,Mass,9,0,"))
    finish(tmp_path, 2, 2)
    row = pd.read_csv(tmp_path / "cross_validation.csv").set_index(["label", "metric"]).loc[("Mass", "auroc")]
    assert row["folds"] == 2
    assert row["mean"] == pytest.approx((TEST[0] + TEST[2]) / 2)


def test_jobs_of_other_splits_stand_in_the_same_table(tmp_path: Path):
    finish(tmp_path, 0, 0)
    row = {"job": 1, "status": "completed", "metric": 0.9, "seconds": 1.0, "overrides": "a=1", "error": ""}
    table = add_job(tmp_path / "sweep.csv", row, maximize=True)
    assert table["job"].tolist() == [1, 0, "mean", "std", "pooled"]
    assert table["fold"].isna().tolist() == [True, False, True, True, True]
    assert "2 jobs, 0 failed" in printed(tmp_path / "sweep.csv", "val/auroc")


def test_the_task_of_the_folds_decides_what_their_pooled_accuracy_is(tmp_path: Path):
    folder = tmp_path / "0" / ".hydra"
    folder.mkdir(parents=True)
    jobs = [{"job": 0, "status": "completed", "fold": 0, "folder": "0", "configuration": ""}]
    (one,) = configurations(jobs, tmp_path)
    assert one.task == "multilabel"
    (folder / "config.yaml").write_text("seed: 0\n")
    assert one.task == "multilabel"
    (folder / "config.yaml").write_text("task: multiclass\n")
    assert one.task == "multiclass"
