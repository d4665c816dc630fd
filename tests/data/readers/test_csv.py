import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxrlab.data.readers import _csv
from cxrlab.data.readers._csv import bad_labels, holds_labels, parse_labels, policies, read_cells
from cxrlab.errors import ConfigError, DataError

ROWS = [["a.png", "Smith, Jo", "1"], ["b.png", "", "0"]]


def write(tmp_path: Path, content: str | bytes, name: str = "labels.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("packed", [False, True])
def test_however_it_was_saved(tmp_path, separator, start, end, packed):
    lines = ['"image",patient, Edema ', 'a.png, "Smith, Jo",1', "", " b.png , ,0", ",,"]
    text = start + end.join(lines).replace(",", separator).replace(f"h{separator} J", "h, J")
    content = gzip.compress(text.encode()) if packed else text.encode()
    cells = read_cells(write(tmp_path, content))
    assert list(cells) == ["image", "patient", "Edema"]
    assert cells.to_numpy().tolist() == ROWS
    first = 2 + (start == "\n")
    assert cells.index.tolist() == [first, first + 2]


def test_words_for_nothing_and_numbers_stay_text(tmp_path):
    cells = read_cells(write(tmp_path, "image,patient,x\n1.png,NA,0012\n2.png,nan,1e5\n"))
    assert cells["patient"].tolist() == ["NA", "nan"]
    assert cells["x"].tolist() == ["0012", "1e5"]


def test_a_quoted_line_end_moves_the_numbers_of_later_lines(tmp_path):
    cells = read_cells(write(tmp_path, 'image,note\na.png,"two\nlines"\nb.png,one\n'))
    assert cells.index.tolist() == [2, 4]
    assert cells.loc[2, "note"] == "two\nlines"


def test_columns_without_a_name_are_dropped(tmp_path):
    cells = read_cells(write(tmp_path, ",image,Edema,\n0,a.png,1,\n1,b.png,0\n"))
    assert cells.to_dict("list") == {"image": ["a.png", "b.png"], "Edema": ["1", "0"]}


def test_a_header_alone_has_no_rows(tmp_path):
    assert read_cells(write(tmp_path, "image,Edema\n")).shape == (0, 2)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", b",,\n1,2,3\n"])
def test_nothing_in_it(tmp_path, content):
    with pytest.raises(DataError, match=r"labels\.csv cannot be read: it is empty, or its first line"):
        read_cells(write(tmp_path, content))


@pytest.mark.parametrize("content", [b"\x1f\x8b broken", gzip.compress(b"image\n1.png\n" * 99, mtime=0)[:-9]])
def test_a_damaged_archive(tmp_path, content):
    with pytest.raises(DataError, match=r"labels\.csv\.gz cannot be read"):
        read_cells(write(tmp_path, content, "labels.csv.gz"))


def test_a_table_that_is_not_utf8(tmp_path):
    content = "image,patient\na.png,Müller\n".encode("latin-1")
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 0xfc in line 2\).*iconv"):
        read_cells(write(tmp_path, content))


@pytest.mark.parametrize("header", ["image,Edema,Edema", "image,Edema, Edema "])
def test_a_duplicate_header(tmp_path, header):
    with pytest.raises(DataError, match=r"labels\.csv has the columns \['Edema'\] more than once"):
        read_cells(write(tmp_path, f"{header}\na.png,1,0\n"))


def test_a_table_cut_short(tmp_path):
    with pytest.raises(DataError, match=r"Line 3 of .* has 2 cells where the header has 3: .*cut short"):
        read_cells(write(tmp_path, "image,Edema,Mass\na.png,1,0\nb.png,1"))


def test_a_separator_that_is_not_quoted(tmp_path):
    with pytest.raises(DataError, match=r"Line 2 of .* has 4 cells where the header has 3\. Put quotes"):
        read_cells(write(tmp_path, "image,patient,Edema\na.png,Smith, Jo,1\n"))


def test_a_quote_that_is_never_closed_does_not_swallow_the_rest(tmp_path):
    with pytest.raises(DataError, match="cannot be read: unexpected end of data"):
        read_cells(write(tmp_path, 'image,Edema\n"a.png,1\nb.png,0\n'))


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_cells(tmp_path)


CELLS = st.sampled_from(
    ["", " ", "1", "0012", "-1", " 0.5 ", "True", "a.png", "NA", "é", "x y", "1e5", "nan"]
)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=8), st.sampled_from(";,|"))
def test_pandas_reads_an_even_file_as_the_careful_parser_does(rows, separator):
    text = "\r\n".join(separator.join(row) for row in [["image", " Edema", ""], *rows])
    with TemporaryDirectory() as folder:
        path = write(Path(folder), text)
        fast = _csv._parsed_fast(text.encode(), lambda _: True)
        assert fast is not None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_csv, "_parsed_fast", lambda *_: None)
            careful = read_cells(path)
    assert fast.to_dict("list") == careful.to_dict("list")
    assert fast.index.tolist() == careful.index.tolist()
    assert (fast.dtypes == careful.dtypes).all()


NAN = np.nan


def parse(*cells: str, uncertain: str = "ignore", blank: str = "ignore") -> list[float]:
    column = pd.Series(cells, index=range(2, 2 + len(cells)))
    return parse_labels(column, name="Edema", path=Path("x.csv"), uncertain=uncertain, blank=blank).tolist()


@pytest.mark.parametrize(
    "word", ["1", "1.0", " 1.0", "1.00 ", "+1", "True", "TRUE", "true", "Yes", "y", "POSITIVE", "present"]
)
def test_present(word):
    assert parse(word) == [1.0]


@pytest.mark.parametrize(
    "word", ["0", "0.0", " 0", "-0", "False", "false ", "NO", "n", "negative", " Absent", "0,0"]
)
def test_absent(word):
    assert parse(word) == [0.0]


@pytest.mark.parametrize(("policy", "value"), [("ignore", NAN), ("positive", 1.0), ("negative", 0.0)])
def test_uncertain_follows_its_policy_and_touches_nothing_else(policy, value):
    found = parse("-1", "-1.0", "U", "uncertain", "1", "0", "", uncertain=policy)
    np.testing.assert_array_equal(found, [*[value] * 4, 1, 0, NAN])


@pytest.mark.parametrize(("policy", "value"), [("ignore", NAN), ("negative", 0.0)])
def test_blanks_follow_theirs(policy, value):
    found = parse("", " ", "nan", "NaN", "NA", "None", "1", "0", "-1", blank=policy)
    np.testing.assert_array_equal(found, [*[value] * 6, 1, 0, NAN])


@pytest.mark.parametrize("word", ["2", "0.5", "maybe", "inf", "-2", "1,5"])
def test_an_unknown_value_is_named_with_line_and_column(word):
    with pytest.raises(DataError, match=r"column 'Edema' of x\.csv holds .* in line 3\. Labels are") as error:
        parse("1", word, "0")
    assert repr(word) in str(error.value)


def test_other_unknown_values_are_counted():
    with pytest.raises(DataError, match=r"holds '7' in line 3, and 2 other lines hold no label"):
        parse("1", "7", "0", "8", "7")


def test_policies_by_label():
    assert policies("positive", ["A", "B"]) == {"A": "positive", "B": "positive"}
    assert policies({"B": "negative"}, ["A", "B"]) == {"A": "ignore", "B": "negative"}
    with pytest.raises(ConfigError, match=r"uncertain names \['C'\], .* the labels are \['A', 'B'\]"):
        policies({"C": "negative"}, ["A", "B"])


@pytest.mark.parametrize(
    ("cells", "expected"),
    [(["1", ""], True), (["-1"], True), (["0.0", "True"], True), (["", "nan"], False), (["1", "2"], False)],
)
def test_what_counts_as_a_column_of_labels(cells, expected):
    assert holds_labels(pd.Series(cells)) == expected


TEXT = "image,patient,Edema\na.png,Müller,1\nb.png,7,0\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_unicode_encoding(tmp_path, encoding, packed):
    content = TEXT.replace(",", "\t").encode(encoding)
    cells = read_cells(write(tmp_path, gzip.compress(content) if packed else content))
    assert cells.to_dict("list") == {
        "image": ["a.png", "b.png"],
        "patient": ["Müller", "7"],
        "Edema": ["1", "0"],
    }
    assert cells.index.tolist() == [2, 3]


def test_a_comma_in_the_header_of_a_table_with_tabs(tmp_path):
    for text in ("image\tMass, right\na.png\t1\n", 'image\t"Mass, right"\na.png\t"1"\n'):
        assert read_cells(write(tmp_path, text)).to_dict("list") == {"image": ["a.png"], "Mass, right": ["1"]}


def test_damaged_utf16(tmp_path):
    with pytest.raises(DataError, match="it is damaged UTF-16 text"):
        read_cells(write(tmp_path, "\ufeffimage".encode("utf-16-le")[:-1]))


@pytest.mark.parametrize(
    ("above", "lines"),
    [
        ("sep=;\n", 1),
        ('"sep=;"\n', 1),
        ("Study list\n", 1),
        ("Study list, exported 2026-01-01\n\n", 2),
        ("# made by x\n# on Monday\n", 2),
        ("Study list;;\n", 1),
    ],
)
@pytest.mark.parametrize("row", ["a.png;1;0\n", '"a.png";"1";0\n'])
def test_what_stands_above_the_header_is_passed_over(tmp_path, caplog, above, lines, row):
    cells = read_cells(write(tmp_path, f"{above}image;patient;Edema\n{row}b.png;2;1\n"))
    assert cells.to_dict("list") == {"image": ["a.png", "b.png"], "patient": ["1", "2"], "Edema": ["0", "1"]}
    assert cells.index.tolist() == [lines + 2, lines + 3]
    assert ("taken for a title" in caplog.text) == ("sep=" not in above)


@pytest.mark.parametrize(
    "text", ["image\na.png\nb.png\n", "image,Edema\na.png,1\n", ",image,Edema\n0,a.png,1\n1,b.png,0\n"]
)
def test_a_header_is_not_taken_for_a_title(tmp_path, caplog, text):
    assert "image" in read_cells(write(tmp_path, text))
    assert not caplog.text


def test_no_header_and_blanks(tmp_path):
    path = write(tmp_path, "1 a.png  positive\n2\tb.png negative \n")
    cells = read_cells(path, columns=["patient", "image", "class"], separator=" ")
    assert cells.to_dict("list") == {
        "patient": ["1", "2"],
        "image": ["a.png", "b.png"],
        "class": ["positive", "negative"],
    }
    assert cells.index.tolist() == [1, 2]
    with pytest.raises(DataError, match=r"Line 1 of .* has 3 cells where the header has 2"):
        read_cells(path, columns=["patient", "image"], separator=" ")


@pytest.mark.parametrize("length", [200_000, 1_000_000])
def test_a_report_of_any_length_in_a_cell(tmp_path, length):
    report = "a, b" * (length // 4)
    assert read_cells(write(tmp_path, f'image,report\na.png,"{report}"\n'))["report"].tolist() == [report]


def test_a_cell_beyond_all_measure(tmp_path, monkeypatch):
    monkeypatch.setattr(_csv, "_LONGEST_CELL", 1000)
    with pytest.raises(
        DataError, match="a cell has more than 1,000 characters. A quote that is never closed"
    ):
        read_cells(write(tmp_path, 'image,report\na.png,"' + "x" * 2000 + "\n"))


@pytest.mark.parametrize("unit", [b"\n", b" ", b"a,1\n"])
def test_a_small_file_that_unpacks_to_a_huge_one_is_refused_early(tmp_path, unit):
    path = write(tmp_path, b"", "labels.csv.gz")
    with gzip.open(path, "wb") as file:
        file.write(b"image,Edema\n")
        for _ in range(6):
            file.write(unit * (10**7 // len(unit)))
    with pytest.raises(
        DataError, match=r"labels\.csv\.gz cannot be read: its [\d,]+ bytes unpack to .* gunzip -k"
    ):
        read_cells(path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PK\x03\x04 ... xl/workbook.xml", r"an Excel file \(\.xlsx\)"),
        (b"PK\x03\x04 ... train_images.npy", r"a file of NumPy arrays \(\.npz\)"),
        (b"PK\x03\x04 ...", "a ZIP archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Excel file"),
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"\x89PNG\r\n", "an image"),
        (b"\x80\x04\x95", "a pickle, which is never opened"),
        (b"%PDF-1.7", "a PDF"),
    ],
)
def test_a_file_of_another_kind_is_told_as_what_it_is(tmp_path, content, kind):
    with pytest.raises(DataError, match=rf"labels\.csv cannot be read as text: it is {kind}"):
        read_cells(write(tmp_path, content))


def test_bad_cells_among_labels():
    assert bad_labels(pd.Series(["0", "1"] * 20 + ["2", "x"], index=range(2, 44))).to_dict() == {
        42: "2",
        43: "x",
    }
    for cells in (
        ["0", "1"] * 20,
        ["0", "1", "2"] * 9,
        ["M", "F"] * 9,
        ["1"] * 20 + ["2"],
        ["0", "1"] * 20 + ["2", "3", "4"],
    ):
        assert not len(bad_labels(pd.Series(cells)))
