import numpy as np
import pandas as pd
import pytest

from cxrlab.data.audit.label_checks import unknown


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
