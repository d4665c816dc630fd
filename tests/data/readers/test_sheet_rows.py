import logging
from pathlib import Path

import pandas as pd
import pytest

from cxrlab.data.readers.table import Layout, Sheet, rows
from cxrlab.errors import ConfigError, DataError

CELLS = pd.DataFrame(
    {
        "Path": ["set/patient7/study1/a.png", "set/patient8/study2/b.png"],
        "Who": ["7", "08"],
        "Part": ["Valid", ""],
        "Age": ["58", ""],
        "edema": ["-1", ""],
    },
    index=[2, 3],
)


def layout(**changes: object) -> Layout:
    options = {
        "image_column": "path",
        "image_folder": "",
        "path_prefix": "set/",
        "image_suffix": "",
        "patient_column": "Who",
        "patient_pattern": None,
        "split_column": None,
        "covariates": {"age": "Age"},
        "labels": {"Edema": "Edema"},
        "uncertain": {"Edema": "positive"},
        "blank": "negative",
    }
    return Layout(**options | changes)


def sheet(part: str = "", **changes: list[str]) -> Sheet:
    return Sheet(Path("x.csv"), part, CELLS.assign(**changes))


def test_rows_are_those_of_a_manifest():
    table = rows(sheet("train"), layout())
    assert table.to_dict("list") == {
        "image": ["patient7/study1/a.png", "patient8/study2/b.png"],
        "patient": ["7", "08"],
        "split": ["train", "train"],
        "covariate/age": ["58", ""],
        "label/Edema": [1.0, 0.0],
    }
    assert table.index.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("pattern", "patients"),
    [(r"patient(\d+)", ["7", "8"]), (r"patient\d", ["patient7", "patient8"]), (r"(?i)STUDY(\d)", ["1", "2"])],
)
def test_the_patient_in_the_path(pattern, patients):
    assert rows(sheet(), layout(patient_pattern=pattern))["patient"].tolist() == patients


def test_a_path_that_tells_no_patient():
    with pytest.raises(
        DataError, match=r"patient_pattern=patient7 finds no patient in 1 of 2 images, .*b\.png"
    ):
        rows(sheet(), layout(patient_pattern="patient7"))
    with pytest.raises(ConfigError, match=r"data\.reader\.patient_pattern=\( is no regular expression"):
        rows(sheet(), layout(patient_pattern="("))


def test_a_row_without_a_patient():
    with pytest.raises(DataError, match=r"'Who' of x\.csv is empty for 1 of 2 images, .* in line 3"):
        rows(sheet(Who=["7", ""]), layout())


def test_without_patients_each_image_is_one_and_that_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        table = rows(sheet(), layout(patient_column=None))
    assert table["patient"].tolist() == table["image"].tolist()
    assert "patients cannot be kept apart" in caplog.text


def test_parts_in_a_column():
    assert rows(sheet(), layout(split_column="part"))["split"].tolist() == ["val", ""]
    with pytest.raises(
        DataError, match=r"'part' of x\.csv holds 'fold 3' in line 3; parts are train, val and test"
    ):
        rows(sheet(Part=["train", "fold 3"]), layout(split_column="part"))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"image_column": "file"}, "image_column"),
        ({"patient_column": "file"}, "patient_column"),
        ({"split_column": "file"}, "split_column"),
        ({"labels": {"Edema": "file"}}, "labels"),
    ],
)
def test_a_missing_column_is_named_with_its_key_and_those_there(change, key):
    with pytest.raises(
        DataError, match=rf"x\.csv lacks the column 'file' of data\.reader\.{key}; it has \['Path'"
    ):
        rows(sheet(), layout(**change))


def test_a_covariate_that_this_table_lacks_is_unknown():
    assert rows(sheet(), layout(covariates={"sex": "Sex"}))["covariate/sex"].tolist() == ["", ""]
