"""The CSV file of another program: columns of numbers as numbers, and quickly."""

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlab.data.readers.csv_cells import read_cells
from cxrlab.errors import DataError, MissingFileError

_SEPARATORS = (",", ";", "\t", "|")
_GZIP = b"\x1f\x8b"


def read_foreign_cells(path: Path, is_text: Callable[[str], bool]) -> pd.DataFrame:
    """Read a CSV file; columns that hold nothing but numbers become numbers, all others stay text.

    A file without quotes whose rows are all as long as its header, as programs write them, is parsed by
    pandas in a fraction of the time. Any other goes through
    :func:`~cxrlab.data.readers.csv_cells.read_cells`, which names faults with their lines and gives text.

    Args:
        path: UTF-8 text, plain or gzip; the separator is a comma, semicolon, tab or bar.
        is_text: Tells of a column's name that ``0012`` in it must keep its zeros.

    Returns:
        The index is the line in the file. Empty cells are NaN, or ``""`` in columns of text.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it is empty, damaged, no CSV file, or has two columns of one name.
    """
    if not path.is_file():
        raise MissingFileError(f"There is no table {path}.")
    content = _content(path)
    header = content.partition(b"\n")[0].decode("utf-8-sig", "replace").strip("\r")
    separator = max(_SEPARATORS, key=header.count)
    names = [name.strip() for name in header.split(separator)]
    named = [name for name in names if name]
    if len(set(named)) < len(named) or not _is_even(content, separator.encode()):
        return read_cells(path)
    try:
        table = _parsed(content, separator, names, is_text)
    except (UnicodeDecodeError, pd.errors.ParserError):
        return read_cells(path)
    return table.set_axis(pd.RangeIndex(2, len(table) + 2, name="line"), axis=0)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content.startswith(_GZIP) else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"The table {path} cannot be read: {error}") from error
    return content.rstrip(b"\r\n")


def _is_even(content: bytes, separator: bytes) -> bool:
    """Tell whether each line has as many separators as the first, and nothing makes them doubtful."""
    if not content or b'"' in content or b"\0" in content or content.count(b"\r") != content.count(b"\r\n"):
        return False
    marks = content.translate(None, bytes(set(range(256)) - {*separator, *b"\n"})) + b"\n"
    line = marks[: marks.index(b"\n") + 1]
    return marks == line * (len(marks) // len(line))


def _parsed(content: bytes, separator: str, names: list[str], is_text: Callable[[str], bool]) -> pd.DataFrame:
    table = pd.read_csv(
        io.BytesIO(content),
        sep=separator,
        header=0,
        names=[name or f"unnamed {position}" for position, name in enumerate(names)],
        usecols=[position for position, name in enumerate(names) if name],
        index_col=False,
        dtype={name: str for name in names if name and is_text(name)},
        keep_default_na=False,
        na_values={name: [""] for name in names if name and not is_text(name)},
        skip_blank_lines=False,
        skipinitialspace=True,
        encoding="utf-8-sig",
        low_memory=False,
    )
    for name in table.select_dtypes(exclude="number"):
        codes, words = pd.factorize(table[name])  # -1 where empty
        stripped = np.array([*(str(word).strip() for word in words.tolist()), ""], dtype=object)
        table[name] = pd.Series(stripped[codes], dtype=object)
    return table
