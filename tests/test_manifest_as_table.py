"""``data=table``: the manifest.csv of a run is a data set's table again, and its parts a split."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import DictConfig

from cxrlab.cli import config
from cxrlab.data.datamodule import DataModule
from cxrlab.data.manifest import Manifest, read_table
from cxrlab.errors import DataError
from cxrlab.train import train

Options = Callable[..., list[str]]


@pytest.fixture(scope="module")
def options(finished_run: Path) -> Options:
    """Overrides that read a finished run's manifest, or another, as a table."""

    def function(*more: str, table: Path = finished_run / "manifest.csv") -> list[str]:
        root = json.loads((finished_run / "audit.json").read_text())["root"]
        words = ["data=table", f"data.root={root}", f"data.reader.tables={table}"]
        return [*words, "data.image_size=32", "data.batch_size=16", "data.num_workers=0", *more]

    return function


def data_of(composed: Callable[..., DictConfig], overrides: list[str]) -> DataModule:
    data: DataModule = config.build(composed(*overrides, "run_dir=/nowhere").data)
    data.prepare()
    return data


def by_image(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index("image").sort_index()


def fingerprint(run_dir: Path) -> Any:
    sessions = json.loads((run_dir / "provenance.json").read_text())["sessions"]
    return sessions[0]["data"]["fingerprint"]


def of_file(table: Path) -> list[str]:
    return ["data.split.method=file", f"data.split.file={table}"]


def test_a_manifest_is_read_again_as_it_was(composed, options: Options, finished_run: Path):
    table = finished_run / "manifest.csv"
    data = data_of(composed, options(*of_file(table)))
    assert data.manifest.fingerprint() == fingerprint(finished_run)
    pd.testing.assert_frame_equal(data.manifest.table, read_table(table), check_dtype=False)
    assert data.manifest.labels == ["Effusion", "Nodule", "Opacity", "Cardiomegaly"]
    assert data.manifest.covariates == ["view", "sex", "age"]


def test_the_order_of_its_rows_does_not_matter(
    composed, options: Options, finished_run: Path, tmp_path: Path
):
    """Neither where the parts are read nor where they are drawn anew: the draw is that of the run."""
    before = read_table(finished_run / "manifest.csv")
    table = tmp_path / "shuffled.csv"
    before.sample(frac=1, random_state=0).to_csv(table, index=False)
    grouped = ["data.split.method=grouped"]
    for split in (of_file(table), of_file(finished_run / "manifest.csv"), grouped):
        data = data_of(composed, options(*split, table=table))
        assert data.manifest.table["image"].tolist() != before["image"].tolist()
        assert by_image(data.manifest.table)["part"].to_dict() == by_image(before)["part"].to_dict()
        assert data.manifest.fingerprint() == fingerprint(finished_run)
    other = data_of(composed, options(*grouped, "data.split.seed=1", table=table))
    assert by_image(other.manifest.table)["part"].to_dict() != by_image(before)["part"].to_dict()


def test_a_part_that_the_table_lacks_is_asked_for(
    composed, options: Options, finished_run: Path, tmp_path: Path
):
    table = tmp_path / "fewer.csv"
    before = read_table(finished_run / "manifest.csv")
    before[before["part"] != "val"].to_csv(table, index=False)
    with pytest.raises(DataError, match=r"does not name \d+ of the \d+ images.*manifest.csv"):
        data_of(composed, options(*of_file(table)))


def test_a_network_is_trained_and_tested_on_the_same_parts(
    composed, options: Options, finished_run: Path, tmp_path: Path
):
    words = ["trainer=cpu", "trainer.precision=32-true", "trainer.max_epochs=1", "callbacks.progress=null"]
    words += ["callbacks.heatmaps=null", "logger.tensorboard=null", f"run_dir={tmp_path}"]
    train(composed(*options(*of_file(finished_run / "manifest.csv"), *words)))
    assert fingerprint(tmp_path) == fingerprint(finished_run)
    for part in ("val", "test"):
        ours, theirs = (
            read_table(folder / "predictions" / f"{part}.csv") for folder in (tmp_path, finished_run)
        )
        columns = [name for name in ours if not name.startswith(("probability/", "prediction/"))]
        assert {"image", "patient", "part", "covariate/age", "target/Effusion"} <= set(columns)
        pd.testing.assert_frame_equal(ours[columns], theirs[columns], check_dtype=False)
    again = Manifest(Path(), read_table(tmp_path / "manifest.csv"))
    assert again.fingerprint() == fingerprint(finished_run)
