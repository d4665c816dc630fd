import logging

import numpy as np
import pandas as pd
import pytest

from cxrlab.data.datamodule import DataModule
from cxrlab.data.manifest import Manifest
from cxrlab.data.patients import (
    dominant_patient,
    patient_key,
    patient_keys,
    rounded_patients,
    shared_patients,
    unified,
    warn_of_patients,
)
from cxrlab.data.readers import table
from cxrlab.data.splits import Split
from cxrlab.errors import DataError


@pytest.mark.parametrize(
    "spellings",
    [
        ["13", "13.0", "13.00", "13.", "0013", "00000013", "+13", " 13 ", "\t13", 13, 13.0, np.int64(13)],
        ["13", "\uff11\uff13", "\u0661\u0663", "13\u00a0", "\ufeff13", "13,0", '="0013"', "'13", '"13"'],
        ["P001", "p001", " P001", "\uff30\uff10\uff10\uff11", "P\u200b001"],
        ["Straße 7", "STRASSE  7", "straße\u00a07"],
        ["0", "000", "0.0", "-0", 0],
        ["José", "Jose\u0301"],
        ["-4", "-04", "-4.0"],
    ],
)
def test_one_patient_whatever_the_spelling(spellings):
    assert len(set(patient_keys(spellings))) == 1


def test_what_is_not_plainly_the_same_stays_apart():
    names = ["1e5", "100000", "0x1F", "31", "1_000", "1,000", "1000", "1.5", "15", "-4", "4", "P1", "P01", "True",
             "inf", "1-2", "12", "12a", "a.png", "b.png"]  # fmt: skip
    assert len(set(patient_keys(names))) == len(names)
    names_kept, several = unified(pd.Series(names))
    assert names_kept.tolist() == names
    assert several == ()


@pytest.mark.parametrize(
    "word",
    [
        "",
        " ",
        "nan",
        "NaN",
        "None",
        "NULL",
        "N/A",
        "na",
        "<NA>",
        "Unknown",
        "-",
        "?",
        "NaT",
        "-1",
        "\u2014",
        "N / A",
        None,
        np.nan,
    ],
)
def test_words_for_nothing_are_nobody(tmp_path, word, caplog):
    assert patient_key(word) == ""
    rows = pd.DataFrame({"image": ["a.png", "b.png", "c.png"], "patient": ["1", word, "2"], "split": ""})
    with pytest.raises(DataError, match=r"1 images of .* have no patient, for instance \['b\.png'\]"):
        Manifest(tmp_path, rows)


def test_the_word_for_nobody_is_named(tmp_path):
    rows = pd.DataFrame({"image": ["a.png", "b.png"], "patient": ["n/a", "2"], "split": ""})
    with pytest.raises(DataError, match=r"'n/a' names nobody"):
        Manifest(tmp_path, rows)


def test_the_most_frequent_spelling_is_kept():
    names, several = unified(
        pd.Series(["0013", "13", "13.0", "13.0", "P1", "p1", "7"], index=list("abcdefg"))
    )
    assert names.tolist() == ["13.0", "13.0", "13.0", "13.0", "P1", "P1", "7"]
    assert names.index.tolist() == list("abcdefg")
    assert several == (("13.0", "13", "0013"), ("P1", "p1"))


@pytest.mark.parametrize("values", [[13, 13, 7], [13.0, 13.0, 7.0], np.array([13, 13, 7], dtype=np.uint8)])
def test_numbers_become_text(tmp_path, values):
    rows = pd.DataFrame({"image": ["a.png", "b.png", "c.png"], "patient": values, "split": ""})
    assert Manifest(tmp_path, rows).table["patient"].tolist() == ["13", "13", "7"]


@pytest.mark.parametrize("seed", range(3))
def test_the_quick_way_and_the_slow_one_agree(seed):
    rng = np.random.default_rng(seed)
    pieces = ["0", "1", "01", ".0", "P", "p", " ", "a b", "'", "-", "é", "\n", ",0", "x"]
    for _ in range(300):
        names = ["".join(rng.choice(pieces, rng.integers(1, 4))) for _ in range(rng.integers(1, 6))]
        names_kept, several = unified(pd.Series(names))
        keys = patient_keys(names)
        assert patient_keys(names_kept) == keys
        assert (names_kept.nunique() - ("" in set(names_kept))) == len(set(keys) - {""})
        assert len(several) == sum(
            len({name for name, own in zip(names, keys, strict=True) if own == key}) > 1
            for key in set(keys) - {""}
        )


def test_shared_patients_are_those_of_the_first_in_their_spelling():
    assert shared_patients(["0013", "7", "P1", "13", "nan"], ["p1 ", "13.0", "nan", "8"]) == ["0013", "P1"]


def test_a_patient_with_a_third_of_all_images():
    few = pd.Series(["x"] * 4 + ["y"] * 4)
    assert dominant_patient(few) is None
    assert dominant_patient(pd.Series(["x"] * 30 + [str(number) for number in range(60)])) == ("x", 30)
    assert dominant_patient(pd.Series(["x"] * 29 + [str(number) for number in range(61)])) is None


def test_ids_that_a_spreadsheet_rounded():
    assert rounded_patients(pd.Series(["1.23457E+11", "1E+05", "1,2E+10", "1e5", "123", "2e+a"])) == [
        "1.23457E+11",
        "1E+05",
        "1,2E+10",
    ]


def test_an_id_with_an_exponent_is_doubtful_beside_the_number_itself():
    assert rounded_patients(pd.Series(["1e5", "100000", "2E4", "12e999"])) == ["1e5"]
    assert rounded_patients(pd.Series(["12e4", "0120000.0"])) == ["12e4"]


def two_tables(root, make_images, spellings):
    """Write two tables of the same 20 people, whose ids are written in two ways."""
    images = make_images(60)
    for part, spelling, numbers in zip(("train", "test"), spellings, (range(40), range(40, 60)), strict=True):
        lines = [f"{number:03d}.png,{spelling(number % 20)},{number % 2}" for number in numbers]
        (images / f"{part}.csv").write_text("\n".join(["image,patient,Opacity", *lines]))
    return images


@pytest.mark.parametrize(
    "spellings",
    [
        (lambda n: f"{n}.0", lambda n: f"{n}"),
        (lambda n: f"{n:08d}", lambda n: f"{n}"),
        (lambda n: f"PAT{n:03d}", lambda n: f"pat{n:03d}"),
        (lambda n: f"{n}.00", lambda n: f"{n}.0"),
    ],
)
@pytest.mark.parametrize("method", ["official", "grouped", "file"])
def test_two_spellings_in_two_tables_are_one_patient_in_every_split(
    tmp_path, make_images, spellings, method, caplog
):
    root = two_tables(tmp_path, make_images, spellings)
    with caplog.at_level(logging.WARNING):
        manifest = table.read(root, tables={"train": "train.csv", "test": "test.csv"})
    assert manifest.table["patient"].nunique() == 20
    assert len(manifest.spellings) == 20
    assert "20 patients of" in caplog.text
    assert "written in more than one way" in caplog.text
    if method == "grouped":
        parts = Split()(manifest).table.groupby("patient")["part"].nunique()
        assert (parts == 1).all()
        return
    file = None
    if method == "file":
        file = str(tmp_path / "parts.csv")
        manifest.table[["image", "split"]].rename(columns={"split": "part"}).to_csv(file, index=False)
    with pytest.raises(DataError, match=r"patients are in both train and test.*data\.split\.method=grouped"):
        Split(method, file=file)(manifest)


def test_spellings_stay_with_the_manifest_and_are_told_once(tmp_path, caplog):
    rows = pd.DataFrame({"image": ["a.png", "b.png", "c.png"], "patient": ["1", "01", "2"], "split": ""})
    manifest = Manifest(tmp_path, rows)
    assert manifest.rows(manifest.table["image"] != "b.png").spellings == (("1", "01"),)
    assert len(caplog.records) == 1
    assert f"1 patient of {tmp_path} is written in more than one way" in caplog.text
    assert rows["patient"].tolist() == ["1", "01", "2"]


def test_a_dominant_patient_is_warned_of_where_data_are_read(make_images, caplog, tmp_path):
    root = make_images(40)

    def reader(root):
        names = [f"{number:03d}.png" for number in range(40)]
        patients = ["anonymous"] * 20 + names[20:]
        rows = pd.DataFrame({"image": names, "patient": patients, "split": "", "label/Opacity": 1.0})
        return Manifest(root, rows)

    DataModule(root, reader=reader, image_size=16, cache_dir=tmp_path / "cache", num_workers=0).gather()
    assert "20 of the 40 images of" in caplog.text
    assert "'anonymous'" in caplog.text


def test_ids_that_differ_in_zeros_only_are_mentioned(caplog):
    warn_of_patients(pd.Series(["P1", "P2", "P3", "P001", "Q5", "R5"]), "/data")
    assert "1 patients of /data have ids that differ in zeros only, such as 'P1' and 'P001'" in caplog.text
    caplog.clear()
    warn_of_patients(pd.Series(["P001", "P010", "P100", "1.05", "1.5", "1.005"]), "/data")
    assert caplog.text == ""
