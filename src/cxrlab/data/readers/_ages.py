"""Ages as tables write them, in years."""

import re

import numpy as np
import pandas as pd

_YEARS = {
    "": 1.0,
    "y": 1.0,
    "yr": 1.0,
    "yrs": 1.0,
    "year": 1.0,
    "years": 1.0,
    "m": 1 / 12,
    "mo": 1 / 12,
    "months": 1 / 12,
    "month": 1 / 12,
    "w": 7 / 365.25,
    "weeks": 7 / 365.25,
    "d": 1 / 365.25,
    "days": 1 / 365.25,
}
_UNITS = "|".join(sorted(filter(None, _YEARS), key=len, reverse=True))
_NUMBER = rf"(\d+(?:[.,]\d*)?)\s*({_UNITS})?"
_SINGLE = re.compile(
    rf"(?:>=?|\u2265|over|above|older than)?\s*{_NUMBER}"
    r"\s*(?:\+|or (?:more|older|over|above)|and (?:over|above|older))?"
)
_BAND = re.compile(rf"[\[(]?{_NUMBER}\s*(?:-|\u2013|to|,)\s*{_NUMBER}[\])]?")
OLDEST = 120.0  # the first edition of NIH's table holds ages up to 414 years


def years(word: str) -> float:
    """Return an age in years: of an open band its edge, of a closed one its middle; NaN for no age.

    Units are Y, M, W and D, as DICOM writes them, or words; without one they are years. Above 120 is no age.

    Example:
        >>> years("060Y"), years("018M"), years("85 or more"), years(">89"), years("90+"), years("40-50")
        (60.0, 1.5, 85.0, 89.0, 90.0, 45.0)
        >>> years("adult"), years("414")
        (nan, nan)
    """
    text = word.strip().lower()
    if match := _SINGLE.fullmatch(text):
        age = _age(match[1], match[2])
    elif match := _BAND.fullmatch(text):
        unit = match[4] or match[2]
        age = (_age(match[1], match[2] or unit) + _age(match[3], unit)) / 2
    else:
        return np.nan
    return age if age <= OLDEST else np.nan


def _age(number: str, unit: str | None) -> float:
    return float(number.replace(",", ".")) * _YEARS[unit or ""]


def parse_ages(cells: "pd.Series[str]") -> "tuple[pd.Series[float], list[str]]":
    """Return a column of ages in years, and the words in it that are none.

    Args:
        cells: Text; "" where nothing is known.
    """
    codes, unique = pd.factorize(cells)
    words = [str(word) for word in unique]
    numbers = np.array([years(word) for word in words], dtype=np.float64)
    wrong = [word for word, age in zip(words, numbers, strict=True) if np.isnan(age) and word.strip()]
    return pd.Series(numbers[codes], index=cells.index, name=cells.name), wrong
