import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrlab.data.readers.nih import LABELS, read_table
from cxrlab.errors import DataError

HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"


def write(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "Data_Entry_2017.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_ages_are_years_in_both_editions(tmp_path):
    rows = [
        f"{i}.png,No Finding,0,{i},{age},M,PA"
        for i, age in enumerate(["58", "058Y", "018M", "146D", "414", ""])
    ]
    ages = read_table(write(tmp_path, *rows))[0]["covariate/age"]
    np.testing.assert_allclose(ages, [58, 58, 1.5, 0.4, np.nan, np.nan], atol=0.001)


def test_an_age_that_is_none_is_rejected(tmp_path):
    with pytest.raises(DataError, match=r"'Patient Age' of .* holds \['old'\]"):
        read_table(write(tmp_path, "1.png,No Finding,0,1,old,M,PA"))


def test_patients_stay_text(tmp_path):
    assert read_table(write(tmp_path, "1.png,No Finding,0,0007,58,M,PA"))[0]["patient"].tolist() == ["0007"]


@pytest.mark.parametrize("findings", ["Mass|Cold", "mass", ""])
def test_an_unknown_finding_is_named(tmp_path, findings):
    path = write(tmp_path, "1.png,Mass,0,1,58,M,PA", f"2.png,{findings},0,1,58,M,PA")
    with pytest.raises(DataError, match=r"'Finding Labels' of .* is none of the 14") as error:
        read_table(path)
    assert repr(findings) in str(error.value)


def test_a_missing_column_is_named_with_those_there(tmp_path):
    path = write(tmp_path, "1.png,Mass,1", header="Image Index,Finding Labels,Patient")
    with pytest.raises(
        DataError, match=r"lacks the columns \['Patient ID', .*it has \['Image Index', .*'Patient'\]"
    ):
        read_table(path)


@pytest.mark.parametrize(
    ("row", "column"), [(",Mass,0,1,58,M,PA", "Image Index"), ("1.png,Mass,0,,58,M,PA", "Patient ID")]
)
def test_an_empty_name_or_patient_is_rejected(tmp_path, row, column):
    with pytest.raises(DataError, match=f"1 rows of .* nothing in the column '{column}'"):
        read_table(write(tmp_path, row))


@pytest.mark.parametrize("header", [HEADER, HEADER + ",", "\ufeff" + HEADER])
def test_commas_at_the_end_of_rows_shift_nothing(tmp_path, header):
    table, _ = read_table(write(tmp_path, "1.png,Mass,0,7,58,M,PA,", header=header))
    assert table.iloc[0, :5].tolist() == ["1.png", "7", "PA", "M", 58.0]


@pytest.mark.parametrize(
    "content", [b"", b"\x1f\x8b broken", gzip.compress(b"Image Index\n1.png\n" * 99)[:-9]]
)
def test_a_damaged_table_is_rejected(tmp_path, content):
    path = tmp_path / "Data_Entry_2017.csv.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"Data_Entry_2017\.csv\.gz cannot be read"):
        read_table(path)


def test_what_was_listed_is_kept_for_the_audit(tmp_path):
    path = write(tmp_path, "1.png,No Finding|Mass,0,7,412,M,PA", "2.png,No Finding,0,8,058Y,F,AP")
    table, raw = read_table(path)
    assert table["covariate/age"].isna().tolist() == [True, False]
    assert table["label/Mass"].tolist() == [1.0, 0.0]
    assert raw.to_dict("list") == {
        "image": ["1.png", "2.png"], "findings": ["No Finding|Mass", "No Finding"], "age": [412.0, 58.0],
    }  # fmt: skip


@pytest.mark.real_data
def test_real_table(real_data: Path):
    table, _ = read_table(real_data / "nih/Data_Entry_2017_v2020.csv.gz")
    assert (len(table), table["patient"].nunique()) == (112120, 30805)
    labels = table[[f"label/{name}" for name in LABELS]]
    # Counts of the findings as Wang et al. publish them with the data.
    published = [11559, 2776, 13317, 19894, 5782, 6331, 1431, 5302, 4667, 2303, 2516, 1686, 3385, 227]
    assert labels.sum().astype(int).tolist() == published
    assert (labels.sum(axis=1) == 0).sum() == 60361
    assert pd.api.types.is_float_dtype(table["covariate/age"])
