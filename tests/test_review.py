"""``cxrlab review``: from predictions to a page and a list, and from the list to labels that train."""

import json
from pathlib import Path

import pandas as pd
import pytest

from cxrlab.cli import config
from cxrlab.data.manifest import read_table
from cxrlab.errors import ConfigError, DataError
from cxrlab.review import checked, review


@pytest.fixture
def predictions(finished_run: Path) -> Path:
    return finished_run / "predictions" / "test.csv"


def test_a_run_s_test_part_becomes_a_list_and_a_page_with_pictures(
    composed, predictions: Path, tmp_path: Path
):
    path = review(composed(f"predictions={predictions}", f"run_dir={tmp_path}", config_name="review"))
    found = pd.read_csv(path, dtype=str, keep_default_na=False)
    table = read_table(predictions)
    page = (tmp_path / "report.html").read_text()
    assert len(found)
    assert set(found["image"]) <= set(table["image"])
    assert set(found["corrected"]) == {""}
    assert page.count('<img src="data:image/jpeg') == len(found)  # few images: all have room
    assert all(image in page for image in found["image"])
    assert "is not a wrong one" in page
    assert json.loads((tmp_path / "provenance.json").read_text())["sessions"][0]["command"]


def test_a_page_without_images_names_none(composed, predictions: Path, tmp_path: Path):
    words = ["report.images=false", f"predictions={predictions}", f"run_dir={tmp_path}"]
    found = pd.read_csv(review(composed(*words, config_name="review")), dtype=str, keep_default_na=False)
    page = (tmp_path / "report.html").read_text()
    assert "<img" not in page
    assert not any(image in page for image in found["image"])
    assert str(predictions.parent) not in page


def test_corrected_labels_are_a_data_set(composed, finished_run: Path, predictions: Path, tmp_path: Path):
    words = (f"predictions={predictions}", "report.images=false")
    path = review(composed(*words, f"run_dir={tmp_path}/list", config_name="review"))
    found = pd.read_csv(path, dtype=str, keep_default_na=False)
    found.loc[0, "corrected"] = str(1 - int(found.loc[0, "given"]))
    found.to_csv(path, index=False)
    labels = review(
        composed(*words, f"corrections={path}", f"run_dir={tmp_path}/labels", config_name="review")
    )
    root = json.loads((finished_run / "audit.json").read_text())["root"]
    data = config.build(
        composed(
            "data=table", f"data.root={root}", f"data.reader.tables={labels}", "data.image_size=32",
            "data.num_workers=0", "run_dir=/nowhere",
        ).data
    )  # fmt: skip
    data.prepare()
    before, after = read_table(predictions).set_index("image"), data.manifest.table.set_index("image")
    assert data.manifest.labels == [
        name.removeprefix("target/") for name in before if name.startswith("target/")
    ]
    assert set(after["patient"]) == set(before["patient"])
    changed = [
        (image, label)
        for label in data.manifest.labels
        for image in after.index
        if after.loc[image, f"label/{label}"] != before.loc[image, f"target/{label}"]
    ]
    assert changed == [(found.loc[0, "image"], found.loc[0, "label"])]


def test_nothing_filled_in_is_an_error(composed, predictions: Path, tmp_path: Path):
    words = (f"predictions={predictions}", f"run_dir={tmp_path}", "report.images=false")
    path = review(composed(*words, config_name="review"))
    with pytest.raises(DataError, match="corrects nothing: fill in its column corrected"):
        review(composed(*words, f"corrections={path}", config_name="review"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "Give predictions=<out_of_fold.csv"),
        (["predictions=a.csv", "per_label=0"], "per_label=0 must be at least 1"),
        (["predictions=a.csv", "root=/nowhere"], "root=/nowhere is no folder"),
    ],
)
def test_what_is_checked_before_anything_is_read(composed, overrides: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        checked(composed(*overrides, "run_dir=/nowhere", config_name="review"))
