"""A CSV file as cells, whatever separator, byte-order mark and line ends it was saved with; and its labels.

In tables, labels are words: present, absent, uncertain or not mentioned, as numbers, ``True`` or blanks.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cxrlab.errors import ConfigError, DataError

Uncertain = Literal["ignore", "positive", "negative"]
Blank = Literal["ignore", "negative"]

_SEPARATORS = (",", ";", "\t", "|")
_GZIP = b"\x1f\x8b"
_MEANT: Mapping[str, float] = {"ignore": np.nan, "positive": 1.0, "negative": 0.0}
_BLANKS = {"", "nan", "na", "n/a", "none", "null"}
_TRUTHS = {"true": 1.0, "false": 0.0}
_UNCERTAIN = -1.0


class _Stripped(dict[str, str]):
    """Cells by their text in the file; equal cells are one object, for most of a table's cells are alike."""

    def __missing__(self, cell: str) -> str:
        self[cell] = cell.strip()
        return self[cell]


def read_cells(path: Path, is_text: Callable[[str], bool] | None = None) -> pd.DataFrame:
    r"""Read a CSV file with every cell as text, blanks around it taken off and empty ones as ``""``.

    The separator is the one of comma, semicolon, tab and bar that divides the header most. Columns without a
    name are dropped, and so are rows of empty cells. Rows that are shorter than the header are refused, for
    a file that was cut short would otherwise give empty labels; so are rows with more cells than the header
    has, where a separator inside a cell has moved the rest.

    A file without quotes whose rows are all as long as its header, as programs write them, is parsed by
    pandas in a fraction of the time.

    Args:
        path: UTF-8 text, plain or gzip.
        is_text: Tells of a column's name that it must stay text, ``0012`` with its zeros. The other columns
            become numbers, NaN where empty, if they hold nothing else and the file is parsed by pandas. None
            keeps all as text.

    Returns:
        The index is the line that each row begins at.

    Raises:
        DataError: If the file is empty, damaged, not UTF-8, has two columns of one name, or has rows that do
            not fit its header.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels.csv"
        >>> _ = path.write_text("image; Edema\na.png;1\n")
        >>> read_cells(path).loc[2].to_dict()
        {'image': 'a.png', 'Edema': '1'}
    """
    content = _content(path)
    if (table := _parsed_fast(content, is_text or _always)) is not None:
        return table
    text = _text(content, path)
    try:
        records = _records(text, _separator(text))
        names = [name.strip() for name in next(records, (0, []))[1]]
        _check_names(names, path)
        return _table(records, names, path)
    except csv.Error as error:
        raise DataError(f"The table {path} cannot be read: {error}.") from error


def _always(_: str) -> bool:
    return True


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(_GZIP) else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"The table {path} cannot be read: {error}") from error


def _parsed_fast(content: bytes, is_text: Callable[[str], bool]) -> pd.DataFrame | None:
    """Parse a file in which nothing is doubtful; return None of any other, whose faults are to be named."""
    content = content.rstrip(b"\r\n")
    header = content.partition(b"\n")[0].decode("utf-8-sig", "replace").strip("\r")
    separator = max(_SEPARATORS, key=header.count)
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


def _text(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"The table {path} cannot be read: it is not UTF-8 text (byte {content[error.start]:#04x} in "
            f"line {line}). Save it as UTF-8; for Latin-1, iconv -f latin1 -t utf-8 does so."
        ) from error


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line that each record begins at, and its cells; empty lines are passed over."""
    # Not strict, a quote that is never closed would swallow all rows after it in silence.
    reader = csv.reader(
        io.StringIO(text, newline=None), delimiter=separator, strict=True, skipinitialspace=True
    )
    line = 1
    for row in reader:
        if row:
            yield line, row
        line = reader.line_num + 1


def _separator(text: str) -> str:
    """Return the separator that divides the header most, the comma first."""
    start = text.lstrip("\r\n")

    def cells(separator: str) -> int:
        try:
            return len(next(_records(start, separator))[1])
        except (csv.Error, StopIteration):
            return 0

    return max(_SEPARATORS, key=cells)


def _check_names(names: list[str], path: Path) -> None:
    if not any(names):
        raise DataError(f"The table {path} cannot be read: it is empty, or its first line names no column.")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(
            f"The table {path} has the columns {twice} more than once. Rename or remove all but one."
        )


def _table(records: Iterator[tuple[int, list[str]]], names: list[str], path: Path) -> pd.DataFrame:
    """Collect the rows by column as they come: to keep them all as lists takes three times as long."""
    columns: dict[str, list[str]] = {name: [] for name in names if name}
    filled = [(columns[name], position) for position, name in enumerate(names) if name]
    cells = _Stripped()
    lines = []
    for line, row in records:
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
    cells: "pd.Series[str]", *, name: str, path: Path, uncertain: Uncertain, blank: Blank
) -> "pd.Series[float]":
    """Return a column of text as 1 present, 0 absent, NaN unknown.

    1, 0 and -1 may be written as ``1.0`` or `` 1``, and 1 and 0 as ``True`` and ``false``. Cells without a
    word, or with one that stands for none such as ``NaN``, are blank.

    Args:
        cells: Text; the index is the line in the file.
        name: The column, for messages.
        path: The file, for messages.
        uncertain: What -1 becomes: "ignore" makes it NaN.
        blank: What a blank becomes: "ignore" makes it NaN.

    Raises:
        DataError: If a cell holds something else.
    """
    codes, unique = pd.factorize(cells)
    words = [str(word) for word in unique]
    values = [_value(word) for word in words]
    wrong = _unknown(words, values)
    if wrong:
        lines = cells.index[cells.isin(wrong)]
        raise DataError(
            f"The column {name!r} of {path} holds {cells.loc[lines[0]]!r} in line {lines[0]}"
            + (f", and {len(lines) - 1} other lines hold no label" if len(lines) > 1 else "")
            + ". Labels are 1 (present), 0 (absent), -1 (uncertain) or empty."
        )
    meant = {None: _MEANT[blank], _UNCERTAIN: _MEANT[uncertain]}
    numbers = np.array([meant.get(value, value) for value in values], dtype=float)
    return pd.Series(numbers[codes], index=cells.index, name=name)


def _unknown(words: Sequence[str], values: Sequence[float | None]) -> list[str]:
    meanings = (None, 0.0, 1.0, _UNCERTAIN)
    return [word for word, value in zip(words, values, strict=True) if value not in meanings]


def _value(word: str) -> float | None:
    """Return the number that a word stands for, None for a blank and NaN for anything that is no number."""
    word = word.strip().lower()
    if word in _BLANKS:
        return None
    try:
        return _TRUTHS[word] if word in _TRUTHS else float(word)
    except ValueError:
        return np.nan
