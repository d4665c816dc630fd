from pathlib import Path

import pandas as pd

from cxrlab.sweeps.table import add_job, close, printed, swept_columns


def row(job: int, metric: float | None, error: str = "") -> dict[str, object]:
    status = "failed" if error else "completed"
    return {
        "job": job,
        "status": status,
        "metric": metric,
        "seconds": 1.5,
        "overrides": f"seed={job}",
        "error": error,
    }


def test_the_table_is_sorted_by_the_metric_with_failures_last(tmp_path: Path):
    path = tmp_path / "sweep.csv"
    add_job(path, row(0, 0.7), maximize=True)
    add_job(path, row(1, None, "no such model"), maximize=True)
    add_job(path, row(2, 0.9), maximize=True)
    table = pd.read_csv(path)
    assert table["job"].tolist() == [2, 0, 1]
    assert table["error"].tolist()[-1] == "no such model"
    assert add_job(path, row(3, 0.8), maximize=False)["job"].tolist() == [0, 3, 2, 1]


def test_rows_of_other_processes_are_kept(tmp_path: Path):
    """A table that another process wrote in the meantime loses nothing: each job has a file of its own."""
    path = tmp_path / "sweep.csv"
    add_job(path, row(0, 0.5), maximize=True)
    stale = path.read_bytes()
    add_job(path, row(1, 0.6), maximize=True)
    path.write_bytes(stale)  # a process that had not seen job 1 wrote last
    assert add_job(path, row(2, 0.7), maximize=True)["job"].tolist() == [2, 1, 0]


def test_the_printed_table_shows_in_what_the_jobs_differ(tmp_path: Path):
    for job in range(2):
        overrides = f"model=resnet50 data=nih seed={job}"
        add_job(tmp_path / "sweep.csv", {**row(job, 0.5), "overrides": overrides}, maximize=True)
    text = printed(tmp_path / "sweep.csv", "val/auroc")
    assert "seed=1" in text
    assert "resnet50" not in text
    assert "resnet50" in (tmp_path / "sweep.csv").read_text()


def test_each_swept_value_has_a_column_of_its_own(tmp_path: Path):
    path = tmp_path / "sweep.csv"
    shared = ["data=table", "data.root='/my data/x'", "data.labels=[Effusion,Lung Opacity]"]
    of_jobs = [
        ["optimizer.lr=0.1", "+optimizer.eps=1e-7"],
        ["optimizer.lr=0.01", "model=resnet 50"],
        ["optimizer.lr=0.1"],
    ]
    for job, overrides in enumerate(of_jobs):
        task = [*shared, *overrides]
        add_job(path, {**row(job, 0.5 + job), "overrides": " ".join(task), "task": task}, maximize=True)
    table = pd.read_csv(path, keep_default_na=False, dtype=str)
    assert swept_columns(table) == ["optimizer.lr", "optimizer.eps", "model"]
    assert table.set_index("job")["optimizer.lr"].to_dict() == {"0": "0.1", "1": "0.01", "2": "0.1"}
    assert table.set_index("job")["model"].to_dict() == {"0": "", "1": "resnet 50", "2": ""}
    assert "optimizer.lr " not in printed(path, "val/auroc")  # the overrides say it there


def test_a_sweep_that_is_over_has_no_running_job(tmp_path: Path):
    path = tmp_path / "sweep.csv"
    add_job(path, row(0, 0.5), maximize=True)
    add_job(path, {**row(1, None), "status": "running"}, maximize=True)
    close(path)
    assert pd.read_csv(path)["status"].tolist() == ["completed", "interrupted"]
    assert add_job(path, row(2, 0.4), maximize=True)["status"].tolist() == [
        "completed",
        "completed",
        "interrupted",
    ]


def test_a_job_that_ends_replaces_its_running_row(tmp_path: Path):
    path = tmp_path / "sweep.csv"
    add_job(path, {**row(0, None), "status": "running"}, maximize=True)
    assert "1 jobs, 1 failed" in printed(path, "val/auroc")
    add_job(path, row(0, 0.5), maximize=True)
    assert pd.read_csv(path)["status"].tolist() == ["completed"]


def test_the_printed_table_counts_failures_and_names_the_file(tmp_path: Path):
    path = tmp_path / "sweep.csv"
    add_job(path, row(0, 0.75), maximize=True)
    assert "1 jobs, 0 failed or interrupted" in printed(path, "val/auroc")
    assert "error" not in printed(path, "val/auroc")
    add_job(path, row(1, None, "the loss is nan"), maximize=True)
    text = printed(path, "val/auroc")
    assert "2 jobs, 1 failed" in text
    assert "the loss is nan" in text
    assert "0.7500" in text
    assert str(path) in text


def test_metrics_of_ones_own_have_columns(tmp_path: Path):
    path = tmp_path / "sweep.csv"
    for job in (0, 1):
        (tmp_path / str(job)).mkdir()
        (tmp_path / str(job) / "results.csv").write_text(
            "part,label,images,positives,auroc,average_precision,accuracy,squared_error\n"
            f"val,Edema,9,4,0.8,0.7,0.6,0.3\nval,macro mean,9,,0.8,0.7,0.6,0.{job + 1}\n"
        )
        add_job(path, row(job, 0.5 + job / 10) | {"folder": str(job)}, maximize=True)
    add_job(path, row(2, None, "no such model") | {"folder": "2"}, maximize=True)
    table = pd.read_csv(path)
    assert list(table.columns)[:5] == ["job", "status", "metric", "seconds", "seed"]
    assert list(table.columns)[5:] == ["overrides", "error", "val/squared_error"]
    assert table["val/squared_error"].tolist()[:2] == [0.2, 0.1]
    assert "val/squared_error" in printed(path, "val/auroc")


def test_a_sweep_that_goes_on_elsewhere_has_jobs_at_work(tmp_path: Path):
    path = tmp_path / "sweep.csv"
    for job, status in enumerate(("completed", "running", "waiting", "failed")):
        add_job(path, {**row(job, 0.5 if job == 0 else None), "status": status}, maximize=True)
    text = printed(path, "val/auroc", is_open=True)
    assert "4 jobs, 1 failed or interrupted, 2 waiting or at work." in text
