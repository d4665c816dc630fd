"""Where in a file of text the table begins, and what separates its cells."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice

SEPARATORS = (",", ";", "\t", "|")
_MOST_TITLES = 8
_NAMED_SEPARATOR = re.compile(r'"?sep=(.)"?[,;\s]*', re.IGNORECASE)
_NO_NAME = re.compile(r"[-+.\d]+|.*\.[A-Za-z]{2,5}")  # a number, or a file


def records(text: str, separator: str, first_line: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Yield the line that each record begins at, and its cells; empty lines are passed over."""
    # Not strict, a quote that is never closed would swallow all rows after it in silence.
    reader = csv.reader(
        io.StringIO(text, newline=None), delimiter=separator, strict=True, skipinitialspace=True
    )
    line = first_line
    for row in reader:
        if row:
            yield line, row
        line = reader.line_num + first_line


def find_separator(text: str) -> str:
    """Return the separator that divides the header most, one that divides the next row alike before others.

    Example:
        >>> find_separator("image;patient;Edema, mild")
        ';'
    """
    start = text.lstrip("\r\n")

    def fit(separator: str) -> tuple[bool, int]:
        try:
            widths = [len(row) for _, row in islice(records(start, separator), 2)]
        except csv.Error:
            widths = [len(_cells(start, separator))]
        return len(widths) == 2 and widths[0] == widths[1] > 1, widths[0] if widths else 0

    return max(SEPARATORS, key=fit)


def find_table(content: bytes) -> tuple[int, str | None, list[str]]:
    r"""Return how many lines stand before the header, the separator if one of them names it, and the titles.

    Excel writes ``sep=;`` first where commas are decimal. Other programs write a title or comments, which are
    known by what follows: a line with more cells, all of them words, and then one with as many.

    Args:
        content: UTF-8, of the beginning of the file.

    Example:
        >>> find_table(b"Study list, exported in May\nimage,patient,Edema\na.png,1,0\n")
        (1, None, ['Study list, exported in May'])
        >>> find_table(b"sep=;\nimage;patient\n")
        (1, ';', [])
    """
    lines = content.decode("utf-8-sig", "replace").splitlines()[:_MOST_TITLES]
    if lines and (named := _NAMED_SEPARATOR.fullmatch(lines[0])):
        return 1, named[1], []
    filled = [number for number, line in enumerate(lines) if line.strip()]
    for position, number in enumerate(filled[:-1]):
        separator = find_separator(lines[number])
        names = _cells(lines[number], separator)
        below = [lines[later] for later in filled[position + 1 :]]
        if len(names) == 1:  # a table of one column, or a title: then a wider line follows
            is_even = all(len(_cells(line, find_separator(line))) == 1 for line in below)
        else:
            is_even = len(_cells(below[0], separator)) == len(names)
        above = [_cells(line, separator) for line in lines[:number] if line.strip()]
        if is_even and not above and (len(names) == 1 or sum(map(bool, names)) > 1):
            return 0, None, []
        is_wider = all(sum(map(bool, title)) < sum(map(bool, names)) for title in above)
        if is_even and above and is_wider and _are_names(names):
            return number, None, [line for line in lines[:number] if line.strip()]
    return 0, None, []


def _cells(text: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(records(text, separator))[1]]
    except (csv.Error, StopIteration):
        return []


def _are_names(cells: Sequence[str]) -> bool:
    named = [cell for cell in cells if cell]
    return len(named) > 1 and len(set(named)) == len(named) and not any(map(_NO_NAME.fullmatch, named))
