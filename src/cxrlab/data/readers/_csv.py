"""A CSV file as cells, whatever separator, byte-order mark and line ends it was saved with; and its labels.

In tables, labels are words: present, absent, uncertain or not mentioned, as numbers, ``True`` or blanks.
"""

import csv
import io
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cxrlab.data.readers._content import as_text, as_utf8, content_of
from cxrlab.data.readers._header import SEPARATORS, find_separator, find_table, records
from cxrlab.errors import ConfigError, DataError

Uncertain = Literal["ignore", "positive", "negative"]
Blank = Literal["ignore", "negative"]
BadLabel = Literal["raise", "ignore"]

_LONGEST_CELL = 2**24
_HEAD = 2**16
_MEANT: Mapping[str, float] = {"ignore": np.nan, "positive": 1.0, "negative": 0.0}
BLANKS = {"", "nan", "na", "n/a", "none", "null"}
_TRUTHS = {word: 1.0 for word in ("true", "t", "yes", "y", "positive", "pos", "present")} | {
    word: 0.0 for word in ("false", "f", "no", "n", "negative", "neg", "absent")
}
_UNCERTAIN = -1.0
_DOUBTS = ("u", "uncertain", "unclear", "equivocal")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,0+")  # 1,0 for 1: a whole number, whatever the comma means elsewhere

_log = logging.getLogger(__name__)


class _Stripped(dict[str, str]):
    """Cells by their text in the file; equal cells are one object, for most of a table's cells are alike."""

    def __missing__(self, cell: str) -> str:
        self[cell] = cell.strip()
        return self[cell]


def read_cells(
    path: Path,
    is_text: Callable[[str], bool] | None = None,
    *,
    columns: Sequence[str] | None = None,
    separator: str | None = None,
) -> pd.DataFrame:
    r"""Read a CSV file with every cell as text, blanks around it taken off and empty ones as ``""``.

    The separator is the one that a first line ``sep=;`` names, or that of comma, semicolon, tab and bar which
    divides the header most. A title above the header is passed over with a warning. Columns without a name
    are dropped, and so are rows of empty cells. Rows that are shorter than the header are refused, for a file
    that was cut short would otherwise give empty labels; so are rows with more cells than the header has,
    where a separator inside a cell has moved the rest.

    A file without quotes whose rows are all as long as its header, as programs write them, is parsed by
    pandas in a fraction of the time.

    Args:
        path: Text in UTF-8, or in UTF-16 or 32 with its mark; plain or gzip.
        is_text: Tells of a column's name that it must stay text, ``0012`` with its zeros. The other columns
            become numbers, NaN where empty, if they hold nothing else and the file is parsed by pandas. None
            keeps all as text.
        columns: Names of the columns of a file without a header; None where its first line holds them.
        separator: One character, where " " stands for any number of blanks; None to find it.

    Returns:
        The index is the line that each row begins at.

    Raises:
        DataError: If the file is empty, damaged, no text, has two columns of one name, or has rows that do
            not fit its header.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels.csv"
        >>> _ = path.write_text("image; Edema\na.png;1\n")
        >>> read_cells(path).loc[2].to_dict()
        {'image': 'a.png', 'Edema': '1'}
    """
    content = as_utf8(content_of(path), path)
    first_line = 1
    if columns is None:
        above, named, titles = find_table(content[:_HEAD])
        separator = separator or named
        content, first_line = _without_lines(content, above), 1 + above
        if titles:
            _log.warning(f"{path}: taken for a title above the table and passed over: {titles}")
        if (table := _parsed_fast(content, is_text or _always, separator)) is not None:
            table.index += above
            return table
    text = as_text(content, path, first_line)
    if separator == " ":
        text = "\n".join(" ".join(line.split()) for line in text.splitlines())
    with _long_cells():
        try:
            rows = records(text, separator or find_separator(text), first_line)
            return table_of(rows, path, columns)
        except csv.Error as error:
            raise DataError(_explained(error, path)) from error


def table_of(
    rows: Iterator[tuple[int, list[str]]], path: Path, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return rows of text as a table, checked as those of :func:`read_cells` are.

    Args:
        rows: The line of each, and its cells.
        path: The file, for messages.
        columns: Names of the columns; None where the first row holds them.

    Raises:
        DataError: If two columns have one name, or a row does not fit the header.
    """
    names = [str(name).strip() for name in (next(rows, (0, []))[1] if columns is None else columns)]
    _check_names(names, path)
    return _table(rows, names, path)


def _without_lines(content: bytes, number: int) -> bytes:
    for _ in range(number):
        end = re.search(rb"\r\n|\n|\r", content)
        content = content[end.end() :] if end else b""
    return content


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let a cell be as long as all reports of a patient; the csv module allows 128 KiB."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _explained(error: csv.Error, path: Path) -> str:
    if "field larger" in str(error):
        return (
            f"The table {path} cannot be read: a cell has more than {_LONGEST_CELL:,} characters. A quote "
            "that is never closed makes such cells: close or remove it."
        )
    return f"The table {path} cannot be read: {error}."


def _always(_: str) -> bool:
    return True


def _parsed_fast(
    content: bytes, is_text: Callable[[str], bool], separator: str | None = None
) -> pd.DataFrame | None:
    """Parse a file in which nothing is doubtful; return None of any other, whose faults are to be named."""
    content = content.rstrip(b"\r\n")
    header = content.partition(b"\n")[0].decode("utf-8-sig", "replace").strip("\r")
    ranked = sorted(SEPARATORS, key=header.count, reverse=True) if separator is None else [separator]
    separator = next(
        (mark for mark in ranked if mark in header and _is_even(content, mark.encode())), ranked[0]
    )
    names = [name.strip() for name in header.split(separator)]
    named = [name for name in names if name]
    if not named or len(set(named)) < len(named) or not _is_even(content, separator.encode()):
        return None
    try:
        table = pd.read_csv(
            io.BytesIO(content),
            sep=separator,
            header=0,
            names=[name or f"\0{position}" for position, name in enumerate(names)],
            index_col=False,
            dtype={name: object for name in named if is_text(name)},
            keep_default_na=False,
            na_values={name: [""] for name in named if not is_text(name)},
            skip_blank_lines=False,
            skipinitialspace=True,
            encoding="utf-8-sig",
            low_memory=False,
        )
    except (UnicodeDecodeError, pd.errors.ParserError):
        return None
    is_empty = np.ones(len(table), dtype=bool)
    for name in table:
        if pd.api.types.is_numeric_dtype(table[name]) and not pd.api.types.is_bool_dtype(table[name]):
            is_empty &= table[name].isna().to_numpy()
            continue
        codes, words = pd.factorize(table[name])  # -1 where empty
        stripped = np.array([*(str(word).strip() for word in words.tolist()), ""], dtype=object)
        is_empty &= (stripped == "")[codes]
        table[name] = pd.Series(stripped[codes], dtype=str)
    table.index = pd.RangeIndex(2, len(table) + 2, name="line")
    return table.loc[~is_empty, named]


def _is_even(content: bytes, separator: bytes) -> bool:
    """Tell whether each line has as many separators as the first, and nothing makes them doubtful."""
    if not content or b'"' in content or b"\0" in content or content.count(b"\r") != content.count(b"\r\n"):
        return False
    marks = content.translate(None, bytes(set(range(256)) - {*separator, *b"\n"})) + b"\n"
    line = marks[: marks.index(b"\n") + 1]
    return marks == line * (len(marks) // len(line))


def _check_names(names: list[str], path: Path) -> None:
    if not any(names):
        raise DataError(f"The table {path} cannot be read: it is empty, or its first line names no column.")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(
            f"The table {path} has the columns {twice} more than once. Rename or remove all but one."
        )


def _table(rows: Iterator[tuple[int, list[str]]], names: list[str], path: Path) -> pd.DataFrame:
    """Collect the rows by column as they come: to keep them all as lists takes three times as long."""
    columns: dict[str, list[str]] = {name: [] for name in names if name}
    filled = [(columns[name], position) for position, name in enumerate(names) if name]
    cells = _Stripped()
    lines = []
    for line, row in rows:
        if len(row) != len(names):
            _check_width(line, row, len(names), filled[-1][1] + 1, path)
        if any(map(str.strip, row)):
            lines.append(line)
            for column, position in filled:
                column.append(cells[row[position]])
    return pd.DataFrame(columns, index=pd.Index(lines, name="line"), dtype=str)


def _check_width(line: int, row: list[str], header: int, least: int, path: Path) -> None:
    """Refuse a row that ends before the last named column, or holds something beyond the header."""
    if len(row) < least:
        raise DataError(
            f"Line {line} of {path} has {len(row)} cells where the header has {header}: the file may be cut "
            "short. Complete or remove that line."
        )
    if any(map(str.strip, row[header:])):
        raise DataError(
            f"Line {line} of {path} has {len(row)} cells where the header has {header}. "
            "Put quotes around a cell that holds the separator."
        )


def policies(uncertain: Uncertain | Mapping[str, Uncertain], labels: Sequence[str]) -> dict[str, Uncertain]:
    """Return what -1 means for each of ``labels``; "ignore" for those that a mapping does not name.

    Raises:
        ConfigError: If a mapping names something else than a label.
    """
    if isinstance(uncertain, str):
        return dict.fromkeys(labels, uncertain)
    unknown = [name for name in uncertain if name not in labels]
    if unknown:
        raise ConfigError(
            f"data.reader.uncertain names {unknown}, which are no labels; the labels are {list(labels)}."
        )
    return {name: uncertain.get(name, "ignore") for name in labels}


def holds_labels(cells: "pd.Series[str]") -> bool:
    """Tell whether there is at least one label in a column of text, and nothing else but blanks.

    Example:
        >>> holds_labels(pd.Series(["1", "", "0.0"])), holds_labels(pd.Series(["1", "2"]))
        (True, False)
    """
    words = [str(word) for word in cells.unique()]
    values = [_value(word) for word in words]
    return any(value is not None for value in values) and not _unknown(words, values)


def parse_labels(
    cells: "pd.Series[str]",
    *,
    name: str,
    path: Path,
    uncertain: Uncertain,
    blank: Blank,
    on_bad_label: BadLabel = "raise",
    advice: str = "",
) -> "pd.Series[float]":
    """Return a column of text as 1 present, 0 absent, NaN unknown.

    1, 0 and -1 may be written as ``1.0`` or `` 1``; 1 and 0 as ``True`` and ``false``, ``yes`` and ``no``,
    ``Y`` and ``N``, ``positive`` and ``negative``, ``present`` and ``absent``; -1 as ``u``, ``uncertain``,
    ``unclear`` and ``equivocal``. Cells without a word, or with one for none such as ``NaN``, are blank.

    Args:
        cells: Text; the index is the line in the file.
        name: The column, for messages.
        path: The file, for messages.
        uncertain: What -1 becomes: "ignore" makes it NaN.
        blank: What a blank becomes: "ignore" makes it NaN.
        on_bad_label: What a cell with something else is: "raise" an error, "ignore" unknown, with a warning.
        advice: Put at the end of the error.

    Raises:
        DataError: If a cell holds something else.
    """
    codes, unique = pd.factorize(cells)
    words = [str(word) for word in unique]
    values = [_value(word) for word in words]
    wrong = _unknown(words, values)
    if wrong:
        lines = cells.index[cells.isin(wrong)]
        fault = f"The column {name!r} of {path} holds {cells.loc[lines[0]]!r} in line {lines[0]}" + (
            f", and {len(lines) - 1} other lines hold no label" if len(lines) > 1 else ""
        )
        if on_bad_label == "raise":
            raise DataError(f"{fault}. {_LABELS_ARE}{advice}")
        _log.warning(f"{fault}; they are taken as unknown")
        values = [np.nan if word in wrong else value for word, value in zip(words, values, strict=True)]
    meant = {None: _MEANT[blank], _UNCERTAIN: _MEANT[uncertain]}
    numbers = np.array([meant.get(value, value) for value in values], dtype=float)
    return pd.Series(numbers[codes], index=cells.index, name=name)


_LABELS_ARE = (
    "Labels are 1 (present), 0 (absent), -1 (uncertain), empty, or yes and no, positive and negative."
)


def values_of(cells: "pd.Series[str]") -> set[float | None]:
    """Return the values that occur in a column of text: None for a blank, NaN for what is no number."""
    return {_value(str(word)) for word in cells.unique()}


def is_word(cell: str) -> bool:
    """Tell whether a cell holds text that is neither a label nor a number."""
    value = _value(cell)
    if value is None or value == value:
        return False
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return True
    return False


def bad_labels(cells: "pd.Series[str]") -> "pd.Series[str]":
    """Return the cells that are no labels, with their lines, of a column that otherwise holds labels.

    It does so where both present and absent are among the labels, and no more than two other words or
    numbers, in at most one of ten cells that hold anything. Of any other column, nothing is returned.

    Example:
        >>> bad_labels(pd.Series(["0", "1"] * 10 + ["2"], index=range(2, 23))).to_dict()
        {22: '2'}
        >>> len(bad_labels(pd.Series(["0", "1", "2"])))
        0
    """
    counts = cells.value_counts()
    words = [str(word) for word in counts.index]
    values = [_value(word) for word in words]
    wrong = _unknown(words, values)
    filled = sum(int(n) for n, value in zip(counts, values, strict=True) if value is not None)
    share = sum(int(counts[word]) for word in wrong) / max(filled, 1)
    is_label = {0.0, 1.0} <= set(values) and 0 < len(wrong) <= 2 and share <= 0.1
    return cells[cells.isin(wrong if is_label else [])]


def _unknown(words: Sequence[str], values: Sequence[float | None]) -> list[str]:
    meanings = (None, 0.0, 1.0, _UNCERTAIN)
    return [word for word, value in zip(words, values, strict=True) if value not in meanings]


def _value(word: str) -> float | None:
    """Return the number that a word stands for, None for a blank and NaN for anything that is no number."""
    word = word.strip().lower()
    if word in BLANKS:
        return None
    if word in _DOUBTS:
        return _UNCERTAIN
    try:
        if _DECIMAL_COMMA.fullmatch(word):
            return float(word.partition(",")[0])
        return _TRUTHS[word] if word in _TRUTHS else float(word)
    except ValueError:
        return np.nan
