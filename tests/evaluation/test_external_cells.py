import gzip

import pytest

from cxrlab.data.readers import _csv
from cxrlab.errors import DataError, MissingFileError
from cxrlab.evaluation.external_table import read_external_cells

EVEN = "image;Edema;note\n0012;0.5; a \n0013;;\n"


def is_text(name):
    return name == "image"


@pytest.fixture
def no_slow_reader(monkeypatch):
    def refuse(records, names, path):
        raise AssertionError(f"{path} should be read by pandas")

    monkeypatch.setattr(_csv, "_table", refuse)


@pytest.mark.parametrize(
    "content",
    [
        EVEN.encode(),
        EVEN.replace(";", ",").encode(),
        EVEN.replace(";", "\t").replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + EVEN.replace(";", "|").encode(),
        gzip.compress(EVEN.rstrip().encode(), mtime=0),
        (b"image; Edema ;note;\n0012; 0.5 ; a ;\n0013; ;;\n\n"),
    ],
    ids=["semicolon", "comma", "tab, CRLF", "bar, BOM", "gzip", "blanks, nameless column"],
)
def test_an_even_file_is_read_quickly(tmp_path, content, no_slow_reader):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    cells = read_external_cells(path, is_text)
    assert list(cells) == ["image", "Edema", "note"]
    assert cells["image"].tolist() == ["0012", "0013"]
    assert cells["Edema"].iloc[0] == 0.5
    assert cells["Edema"].isna().tolist() == [False, True]
    assert cells["note"].tolist()[0] == "a"
    assert cells.index.tolist() == [2, 3]


def test_quotes_give_the_same_in_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('"image","Edema"\n"a,b.png",0.5\n')
    assert read_external_cells(path, is_text).loc[2].to_dict() == {"image": "a,b.png", "Edema": "0.5"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"image,Edema\na.png,0.5\nb.png\n", "Line 3 of .* has 1 cells where the header has 2"),
        (b"image,Edema\na.png,0.5\nb.png,0.5,0.6\n", "Line 3 of .* has 3 cells where the header has 2"),
        (b"image,Edema,Edema\na.png,0.5,0.6\n", r"the columns \['Edema'\] more than once"),
        (b"image,Edema\na\xff.png,0.5\n", "not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff", "it is an image"),
        (b'image,Edema\n"a.png,0.5\n', "cannot be read"),
        (gzip.compress(b"image,Edema\n" * 9, mtime=0)[:-9], "cannot be read"),
    ],
    ids=["empty", "blank lines", "cut", "long", "twice", "latin", "png", "open quote", "cut gzip"],
)
def test_a_file_that_is_no_table_is_rejected(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_external_cells(path, is_text)


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(MissingFileError, match=str(path)):
            read_external_cells(path, is_text)
