import statistics
from pathlib import Path

import pandas as pd
import pytest

from cxrlab.sweeps.seeds import COLUMNS, printed_spread, write_seed_spread
from cxrlab.sweeps.table import add_job, close, printed


def job(number: int, seed: int, metric: float | None, rest: str = "lr=0.1", **changes: object) -> dict:
    return {
        "job": number, "status": "completed" if metric is not None else "failed", "metric": metric,
        "seconds": 1.0, "overrides": f"{rest} seed={seed}", "error": "", "seed": seed, "but_seed": rest,
        "folder": str(number), "monitor": "val/auroc", **changes,
    }  # fmt: skip


def test_mean_and_spread_are_those_of_the_statistics_module(tmp_path: Path):
    values = [0.7, 0.9, 0.85]
    table = write_seed_spread([job(n, 10 + n, value) for n, value in enumerate(values)], tmp_path)
    row = table.iloc[0]
    assert len(table) == 1
    assert (row["overrides"], row["metric"], row["seeds"], row["left_out"]) == ("lr=0.1", "val/auroc", 3, "")
    assert row["mean"] == pytest.approx(statistics.mean(values))
    assert row["std_over_seeds"] == pytest.approx(statistics.stdev(values))
    assert (row["min"], row["max"]) == (0.7, 0.9)
    written = pd.read_csv(tmp_path / "sweep_seeds.csv")
    assert tuple(written) == COLUMNS
    assert written["mean"].item() == pytest.approx(statistics.mean(values), abs=1e-6)


def test_each_combination_of_the_other_overrides_has_its_own(tmp_path: Path):
    jobs = [job(0, 1, 0.5), job(1, 1, 0.8, "lr=0.2"), job(2, 2, 0.7), job(3, 2, 0.6, "lr=0.2")]
    table = write_seed_spread([*jobs, job(4, 1, 0.9, "lr=0.3")], tmp_path)
    assert table["overrides"].tolist() == ["lr=0.1", "lr=0.2"]  # of lr=0.3 there is one seed
    assert table["mean"].tolist() == pytest.approx([0.6, 0.7])
    assert table["seeds"].tolist() == [2, 2]


def test_seeds_that_failed_are_named_and_left_out(tmp_path: Path):
    table = write_seed_spread([job(0, 1, 0.5), job(1, 2, None), job(2, 3, 0.7)], tmp_path)
    assert table["left_out"].tolist() == ["seed 2 failed"]
    assert (table["seeds"].item(), table["mean"].item()) == (2, pytest.approx(0.6))


def test_one_seed_that_came_through_has_no_spread(tmp_path: Path):
    row = write_seed_spread([job(0, 1, 0.5), job(1, 2, None)], tmp_path).iloc[0]
    assert row["seeds"] == 1
    assert pd.isna(row["std_over_seeds"])
    all_failed = write_seed_spread([job(0, 1, None), job(1, 2, None)], tmp_path).iloc[0]
    assert (all_failed["metric"], all_failed["seeds"]) == ("val/auroc", 0)
    assert all_failed["left_out"] == "seed 1 failed, seed 2 failed"


def test_the_macro_means_of_the_results_are_spread_too(tmp_path: Path):
    for number, (auroc, brier) in enumerate([(0.5, 0.2), (0.7, 0.1)]):
        (tmp_path / str(number)).mkdir()
        rows = [f"val,Mass,9,4,0.1,{brier}", f"val,macro mean,9,,{auroc},{brier}"]
        rows.append(f"test,macro mean,9,,{auroc - 0.1},")
        text = "\n".join(["part,label,images,positives,auroc,brier", *rows])
        (tmp_path / str(number) / "results.csv").write_text(text)
    table = write_seed_spread([job(0, 1, 0.51), job(1, 2, 0.71)], tmp_path).set_index("metric")
    assert table.index.tolist() == ["val/auroc", "val/brier", "test/auroc", "test/brier"]
    assert table["mean"][:3].tolist() == pytest.approx([0.61, 0.15, 0.5])  # the metric itself, unrounded
    assert table.loc["test/brier", "seeds"] == 0


def test_a_sweep_without_several_seeds_has_no_such_table(tmp_path: Path):
    jobs = [job(0, 0, 0.5), job(1, 0, 0.6, "lr=0.2"), {**job(2, 0, 0.7), "seed": None}]
    assert write_seed_spread(jobs, tmp_path).empty
    assert not (tmp_path / "sweep_seeds.csv").exists()
    assert printed_spread(tmp_path / "sweep_seeds.csv", set()) == []


def test_a_sweep_writes_and_prints_it(tmp_path: Path):
    path = tmp_path / "sweep.csv"
    for number in range(3):
        add_job(path, job(number, number, 0.5 + number / 10, "data=nih lr=0.1"), maximize=True)
    text = printed(path, "val/auroc")
    row = text.split("Over seeds:\n")[1].splitlines()
    assert row[0].split() == ["metric", "seeds", "mean", "std_over_seeds", "min", "max"]
    assert row[1].split() == ["val/auroc", "3", "0.6000", "0.1000", "0.5000", "0.7000"]
    assert "no confidence interval" in text
    add_job(path, {**job(3, 3, None, "data=nih lr=0.1"), "status": "running"}, maximize=True)
    add_job(path, job(4, 0, 0.8, "data=nih lr=0.2"), maximize=True)
    close(path)
    text = printed(path, "val/auroc")
    assert "seed 3 interrupted" in text
    assert "nih" not in text
    assert "lr=0.1" in text.split("Over seeds:\n")[1]


def test_of_a_cross_validation_the_seeds_of_each_fold_are_together(tmp_path: Path):
    for number, (fold, seed) in enumerate([(0, 1), (1, 1), (0, 2), (1, 2)]):
        row = job(number, seed, 0.5 + number / 10, f"data.split.fold={fold}")
        folds = {"fold": fold, "num_folds": 2, "configuration": f"seed={seed}"}
        add_job(tmp_path / "sweep.csv", row | folds, maximize=True)
    table = pd.read_csv(tmp_path / "sweep_seeds.csv")
    assert table["overrides"].tolist() == ["data.split.fold=0", "data.split.fold=1"]
    assert table["mean"].tolist() == pytest.approx([0.6, 0.7])
