import math

import numpy as np
import pandas as pd
import pytest

from cxrlab.data.audit.label_checks import FEWEST, unknown


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


def test_no_finding_beside_a_finding(case):
    case.table["label/No Finding"] = (
        (case.table["label/Edema"] == 0) & (case.table["label/Mass"] == 0)
    ).astype(float)
    assert "no_finding_with_finding" not in case.found()
    case.table.loc[[2, 7], "label/No Finding"] = 1.0
    found = case.found()["no_finding_with_finding"]
    assert found.images == ["images/0002.png", "images/0007.png"]
    assert found.severity == "warning"


def test_support_devices_beside_no_finding_are_no_contradiction(case):
    case.table["label/No_Finding"] = 0.0
    case.table.loc[0, "label/No_Finding"] = 1.0
    case.table["label/Support Devices"] = (np.arange(240) % 4 < 2).astype(float)
    assert case.table.loc[0, "label/Support Devices"] == 1.0
    assert "no_finding_with_finding" not in case.found()


def test_no_finding_beside_a_finding_in_the_text_of_the_table(case):
    texts = ["No Finding", "Edema|Mass", "No Finding|Mass", "Mass|no finding"]
    case.raw = pd.DataFrame({"image": ["a", "b", "c", "d"], "findings": texts})
    assert case.found()["no_finding_with_finding"].images == ["c", "d"]


def test_ages_that_nobody_reaches(case):
    case.table.loc[[4, 5], "covariate/age"] = [110.0, 111.0]
    found = case.found()["impossible_age"]
    assert found.images == ["images/0005.png"]
    assert found.message == "1 image with an age below 0 or above 110 years (from 111 to 111)."


def test_ages_as_listed_are_seen_where_the_reader_dropped_them(case):
    case.table.loc[4, "covariate/age"] = np.nan
    case.raw = pd.DataFrame({"image": ["a", "b", "c"], "age": ["414", "40", ""]})
    found = case.found()
    assert set(found) == {"impossible_age", "unknown_covariate"}
    assert found["impossible_age"].images == ["a"]


def test_rows_that_stand_twice(case):
    case.raw = pd.DataFrame({"image": ["a", "b", "a", "c", "c", "c"], "age": [1, 2, 1, 3, 4, 3]})
    found = case.found()["duplicate_rows"]
    assert found.count == 2
    assert found.message == "2 images listed more than once, 1 of the rows with other values."


def test_a_patient_of_two_sexes(case):
    case.table["covariate/sex"] = "F"
    assert "several_sexes" not in case.found()
    case.table.loc[[1, 3], "covariate/sex"] = ["M", ""]
    found = case.found()["several_sexes"]
    assert found.patients == ["P000"]
    assert found.message == "1 patient has images of more than one sex."


def test_covariates_that_are_not_known_everywhere(case):
    case.table.loc[:2, "covariate/age"] = np.nan
    case.table.loc[0, "covariate/view"] = "Unknown"
    messages = [finding.message for finding in case.report().findings]
    assert messages == [
        "view is unknown for 1 of 240 images (0.4%).",
        "age is unknown for 3 of 240 images (1.2%).",
    ]


@pytest.mark.parametrize(
    ("values", "blank"),
    [
        ([1.0, np.nan], [False, True]),
        ([0, 1], [False, False]),
        (["PA", "", None, " nan ", "N/A"], [False, True, True, True, True]),
    ],
)
def test_what_counts_as_unknown(values, blank):
    assert unknown(pd.Series(values)).tolist() == blank
