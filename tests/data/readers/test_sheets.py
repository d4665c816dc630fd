from pathlib import Path

import pytest

from cxrlab.data.readers.table import open_sheets
from cxrlab.errors import ConfigError, DataError, MissingFileError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("train.csv", "valid.csv", "sub/test.csv"):
        (tmp_path / name).write_text(f"image, edema\n{Path(name).stem}.png,1\n")
    return tmp_path


def parts(root: Path, tables: object) -> list[tuple[str, str]]:
    return [(sheet.part, sheet.path.name) for sheet in open_sheets(root, tables)]


def test_one_table_or_several_by_part(root):
    assert parts(root, "train.csv") == [("", "train.csv")]
    assert parts(root, str(root / "sub/test.csv")) == [("", "test.csv")]
    tables = {"Train": ["train.csv", "valid.csv"], "val": None, "test": "sub/test.csv"}
    assert parts(root, tables) == [("train", "train.csv"), ("train", "valid.csv"), ("test", "test.csv")]
    assert parts(root, {"validation": "valid.csv"}) == [("val", "valid.csv")]


def test_the_only_table_needs_no_name(root):
    assert parts(root / "sub", None) == [("", "test.csv")]
    with pytest.raises(
        ConfigError, match=r"holds 2 CSV files, \['train\.csv', 'valid\.csv'\]: set data\.reader"
    ):
        open_sheets(root, None)
    (root / "empty").mkdir()
    with pytest.raises(MissingFileError, match=r"holds no CSV file; it holds nothing"):
        open_sheets(root / "empty", None)


def test_a_missing_table_is_named_with_what_is_there(root, monkeypatch):
    with pytest.raises(
        MissingFileError, match=r"no table .*/tests\.csv, which .*; .* holds sub/, train\.csv"
    ):
        open_sheets(root, "tests.csv")
    monkeypatch.chdir(root / "sub")
    with pytest.raises(MissingFileError, match=rf"working directory write {root}/sub/test\.csv"):
        open_sheets(root, "test.csv")


def test_a_part_that_is_none(root):
    with pytest.raises(ConfigError, match=r"the part 'holdout'; parts are train, val and test"):
        open_sheets(root, {"holdout": "train.csv"})


@pytest.mark.parametrize("tables", [{}, {"train": None}, {"train": []}])
def test_no_table_at_all(root, tables):
    with pytest.raises(ConfigError, match="names no table"):
        open_sheets(root, tables)


def test_a_table_without_rows(root):
    (root / "train.csv").write_text("image,Edema\n,\n")
    with pytest.raises(DataError, match=r"train\.csv lists nothing: below its header \['image', 'Edema'\]"):
        open_sheets(root, "train.csv")


def test_columns_are_found_in_any_case(root):
    (sheet,) = open_sheets(root, "train.csv")
    assert sheet.column("Edema", "some.key").tolist() == ["1"]
    assert sheet.find(" IMAGE ") == "image"
    assert sheet.find("Mass") is None
    with pytest.raises(DataError, match=r"lacks the column 'Mass' of some\.key; it has \['image', 'edema'\]"):
        sheet.column("Mass", "some.key")


def test_columns_that_differ_in_case_only_are_told_apart(root):
    (root / "train.csv").write_text("image,Edema,EDEMA\na.png,1,0\n")
    (sheet,) = open_sheets(root, "train.csv")
    assert sheet.column("EDEMA", "some.key").tolist() == ["0"]
    with pytest.raises(DataError, match=r"has the columns \['Edema', 'EDEMA'\]: write 'edema' as one"):
        sheet.find("edema")
