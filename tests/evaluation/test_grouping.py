import numpy as np
import pandas as pd
import pytest

from cxrlab.evaluation.groups import covariate_groups

BANDS = [0, 18, 40, 60, 80]


def sizes(name, values, ages=BANDS):
    groups = covariate_groups(name, pd.Series(values), ages)
    assert (np.sum([group.members for group in groups], axis=0) == 1).all()
    return {group.name: (int(group.members.sum()), group.is_compared) for group in groups}


def test_text_goes_by_value_and_missing_is_named_but_not_compared():
    assert sizes("sex", ["M", "F", "M", "", " ", np.nan, None, "Unknown"]) == {
        "F": (1, True),
        "M": (2, True),
        "unknown": (5, False),
    }


def test_rare_values_are_together():
    values = [f"site {number:02}" for number in range(14) for _ in range(14 - number)]
    groups = sizes("site", values)
    assert len(groups) == 13
    assert groups["site 00"] == (14, True)
    assert groups["2 other values"] == (3, False)
    assert sizes("site", values[:-1])["1 other value"] == (2, False)


def test_ages_are_in_bands_that_include_their_lower_edge():
    assert sizes("age", [0, 17.9, 18, 59, 80, 120, np.nan]) == {
        "0-17 years": (2, True),
        "18-39 years": (1, True),
        "40-59 years": (1, True),
        "80+ years": (2, True),
        "unknown": (1, False),
    }


@pytest.mark.parametrize(
    ("edges", "names"),
    [
        ([1.5, 6], ["under 1.5 years", "1.5 to under 6 years", "6+ years"]),
        ([6], ["under 6 years", "6+ years"]),
    ],
)
def test_other_edges(edges, names):
    assert list(sizes("age", [1, 2, 7], edges)) == names


def test_other_numbers_are_in_thirds():
    groups = sizes("dose", [*range(1, 31), np.nan])
    assert list(groups.values()) == [(10, True), (10, True), (10, True), (1, False)]
    assert next(iter(groups)).startswith("up to 10.6")


def test_few_numbers_go_by_value():
    assert sizes("dose", [2, 1, 2, np.nan]) == {"1": (1, True), "2": (2, True), "unknown": (1, False)}


def test_thirds_of_numbers_with_ties_leave_no_group_empty():
    assert all(count for count, _ in sizes("dose", [0.0] * 90 + list(range(1, 14))).values())


def test_numbers_beside_text_are_text():
    assert list(sizes("age", ["58", "old"])) == ["58", "old"]


def test_nothing_known_is_one_group():
    assert sizes("age", [np.nan, np.nan]) == {"unknown": (2, False)}
