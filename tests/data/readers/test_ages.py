import numpy as np
import pandas as pd
import pytest

from cxrlab.data.readers._ages import parse_ages, years


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("60", 60), ("060Y", 60), ("018M", 1.5), ("026 Y", 26), ("365D", 365 / 365.25), ("052W", 52 * 7 / 365.25),
        ("45yrs", 45), ("45 years", 45), ("58.0", 58), ("58,5", 58.5), ("0", 0),
        ("85 or more", 85), ("85 and over", 85), (">89", 89), (">=90", 90), ("≥ 90", 90), ("90+", 90), ("over 89", 89),
        ("40-50", 45), ("[40-50)", 45), ("40 to 50", 45), ("6-12 months", 0.75), ("40\u201349", 44.5), ("[40, 50)", 45),
    ],
)  # fmt: skip
def test_ages_in_years(word, expected):
    assert years(word) == pytest.approx(expected)


@pytest.mark.parametrize("word", ["", "adult", "414", "-3", "unknown", "1e5", "nan", "40-50-60", "Y"])
def test_what_is_no_age(word):
    assert np.isnan(years(word))


def test_a_column_of_ages_with_the_words_that_are_none():
    ages, wrong = parse_ages(pd.Series(["060Y", "", "old", "90+", "060Y"], index=range(2, 7)))
    np.testing.assert_array_equal(ages, [60, np.nan, np.nan, 90, 60])
    assert (ages.index.tolist(), wrong) == ([2, 3, 4, 5, 6], ["old"])
