from pathlib import Path

import pandas as pd

from cxrlab.training.callbacks.metrics_csv import MetricsTable


def test_values_of_an_epoch_share_a_row(tmp_path: Path):
    table = MetricsTable(path=str(tmp_path / "metrics.csv"))
    table.log_metrics({"epoch": 0, "val/auroc": 0.7}, step=10)
    table.log_metrics({"epoch": 0, "train/loss": 0.5}, step=10)
    table.log_metrics({"epoch": 1, "val/auroc": 0.8}, step=20)
    table.log_metrics({"lr": 0.1}, step=21)  # belongs to no epoch
    table.save()
    written = pd.read_csv(tmp_path / "metrics.csv")
    assert written["epoch"].tolist() == [0, 1]
    assert written["val/auroc"].tolist() == [0.7, 0.8]
    assert written["train/loss"][0] == 0.5


def test_a_resumed_table_keeps_its_rows_and_replaces_the_epoch_that_runs_again(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    first = MetricsTable(path=str(path))
    for epoch, value in enumerate([0.6, 0.7, 0.1]):
        first.log_metrics({"epoch": epoch, "val/auroc": value}, step=epoch)
    first.save()
    second = MetricsTable(path=str(path))
    second.log_metrics({"epoch": 2, "val/auroc": 0.8}, step=2)
    second.log_metrics({"epoch": 3, "val/auroc": 0.9, "val/new": 1.0}, step=3)
    second.save()
    assert pd.read_csv(path)["val/auroc"].tolist() == [0.6, 0.7, 0.8, 0.9]
    assert not path.with_name("metrics.csv.part").exists()


def test_nothing_logged_writes_nothing(tmp_path: Path):
    MetricsTable(path=str(tmp_path / "metrics.csv")).save()
    assert not (tmp_path / "metrics.csv").exists()
