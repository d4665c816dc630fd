"""The words in which tables write labels, as numbers: present, absent, uncertain and not mentioned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from cxrlab.errors import ConfigError, DataError

Uncertain = Literal["ignore", "positive", "negative"]
Blank = Literal["ignore", "negative"]

_MEANT: Mapping[str, float] = {"ignore": np.nan, "positive": 1.0, "negative": 0.0}
_BLANKS = {"", "nan", "na", "n/a", "none", "null"}
_TRUTHS = {"true": 1.0, "false": 0.0}
_UNCERTAIN = -1.0


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
    known = (None, 0.0, 1.0, _UNCERTAIN)
    return [word for word, value in zip(words, values, strict=True) if value not in known]


def _value(word: str) -> float | None:
    """Return the number that a word stands for, None for a blank and NaN for anything that is no number."""
    word = word.strip().lower()
    if word in _BLANKS:
        return None
    try:
        return _TRUTHS[word] if word in _TRUTHS else float(word)
    except ValueError:
        return np.nan
