import math

import numpy as np

from cxrlab.data.audit.label_checks import FEWEST


def test_a_name_that_no_data_set_uses_is_a_note(case):
    case.table = case.table.rename(columns={"label/Mass": "label/Zebra"})
    found = case.found()
    assert {k: v.severity for k, v in found.items()} == {"unknown_label": "note"}
    assert "Zebra" in found["unknown_label"].message


def test_spelling_of_a_known_name_is_free(case):
    case.table = case.table.rename(columns={"label/Mass": "label/PLEURAL_thickening"})
    assert case.found() == {}


def test_constant_labels_are_found_by_part(case):
    case.table.loc[case.table["part"] == "val", "label/Mass"] = 0.0
    case.table.loc[case.table["part"] == "test", "label/Edema"] = np.nan
    messages = [finding.message for finding in case.report().findings if finding.kind == "constant_label"]
    assert messages == [
        "1 label without a positive or a negative in val: Mass.",
        "1 label without a positive or a negative in test: Edema.",
    ]


def test_a_label_is_rare_below_ten_positives_or_negatives(case):
    test = case.table.index[case.table["part"] == "test"]
    case.table.loc[test, "label/Mass"] = 0.0
    case.table.loc[test[:FEWEST], "label/Mass"] = 1.0
    assert "rare_label" not in case.found()
    case.table.loc[test[0], "label/Mass"] = 0.0
    assert "in test: Mass." in case.found()["rare_label"].message


def test_ten_positives_leave_the_error_that_the_limit_is_explained_with():
    # Hanley and McNeil 1982, equation 1, with ten positives and many negatives.
    area, positives, negatives = 0.8, FEWEST, 100_000
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    assert math.isclose(math.sqrt(variance / (positives * negatives)), 0.08, abs_tol=0.005)


def test_a_part_of_few_patients(case):
    case.table = case.table.iloc[:238].reset_index(drop=True)
    case.facts = case.facts.iloc[:238]
    assert case.found()["small_part"].message == "test has 29 patients; below 30 intervals are wide."


def test_without_parts_the_whole_is_evaluated(case):
    case.table["part"] = ""
    assert case.found() == {}
    case.table["label/Mass"] = 1.0
    assert "in the data: Mass." in case.found()["constant_label"].message
