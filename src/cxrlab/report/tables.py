"""Tables of a page: what stands in each cell, before it becomes HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cxrlab.report.formats import bounds, number

Estimate = dict[str, Any]
_UNDEFINED: Estimate = {"value": None, "low": None, "high": None}


class Cell(NamedTuple):
    """A value, and below it in small what belongs to it, such as its interval."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        name: First column.
        cells: The others.
        mark: Why a reader should beware of it; empty for most.
        strong: Whether it sums up others.
    """

    name: str
    cells: Sequence[Cell]
    mark: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and lines.

    Attributes:
        columns: Headings; the first one is of the names.
        rows: The lines.
        caption: One sentence above it, may be empty.
        texts: Numbers of the columns, from 1, that hold words and are set flush left.
    """

    columns: Sequence[str]
    rows: Sequence[Row]
    caption: str = ""
    texts: frozenset[int] = field(default_factory=frozenset)


def estimated(metrics: Mapping[str, Estimate], name: str, digits: int = 3) -> Cell:
    """Return a metric with its interval; a dash for one that is not there.

    Example:
        >>> estimated({"auroc": {"value": 0.988, "low": 0.971, "high": 0.996}}, "auroc")
        Cell(text='0.988', small='0.971 to 0.996')
    """
    estimate = metrics.get(name) or _UNDEFINED
    return Cell(number(estimate["value"], digits), bounds(estimate, digits))


def has_any(rows: Sequence[Mapping[str, Estimate]], name: str) -> bool:
    """Return whether a metric is defined in any of the rows."""
    return any((row.get(name) or _UNDEFINED)["value"] is not None for row in rows)
