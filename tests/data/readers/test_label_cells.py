from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrlab.data.readers._csv import holds_labels, parse_labels, policies
from cxrlab.errors import ConfigError, DataError

NAN = np.nan


def parse(*cells: str, uncertain: str = "ignore", blank: str = "ignore") -> list[float]:
    column = pd.Series(cells, index=range(2, 2 + len(cells)))
    return parse_labels(column, name="Edema", path=Path("x.csv"), uncertain=uncertain, blank=blank).tolist()


@pytest.mark.parametrize("word", ["1", "1.0", " 1.0", "1.00 ", "+1", "True", "TRUE", "true"])
def test_present(word):
    assert parse(word) == [1.0]


@pytest.mark.parametrize("word", ["0", "0.0", " 0", "-0", "False", "false "])
def test_absent(word):
    assert parse(word) == [0.0]


@pytest.mark.parametrize(("policy", "value"), [("ignore", NAN), ("positive", 1.0), ("negative", 0.0)])
def test_uncertain_follows_its_policy_and_touches_nothing_else(policy, value):
    found = parse("-1", "-1.0", "1", "0", "", uncertain=policy)
    np.testing.assert_array_equal(found, [value, value, 1, 0, NAN])


@pytest.mark.parametrize(("policy", "value"), [("ignore", NAN), ("negative", 0.0)])
def test_blanks_follow_theirs(policy, value):
    found = parse("", " ", "nan", "NaN", "NA", "None", "1", "0", "-1", blank=policy)
    np.testing.assert_array_equal(found, [*[value] * 6, 1, 0, NAN])


@pytest.mark.parametrize("word", ["2", "0.5", "yes", "inf", "-2", "1,0"])
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
