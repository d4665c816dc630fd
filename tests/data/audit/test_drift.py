import math
from pathlib import Path

import numpy as np
import pytest

from cxrlab.data.audit.drift import drift, drifted, standardised_difference


def test_the_difference_of_two_shares_is_the_textbook_formula():
    one, other = np.repeat([1.0, 0.0], [10, 30]), np.repeat([1.0, 0.0], [30, 20])
    p, q = 0.25, 0.6  # Austin 2009, section 2.2
    expected = (q - p) / math.sqrt((p * (1 - p) + q * (1 - q)) / 2)
    assert math.isclose(standardised_difference(one, other), expected)
    assert math.isclose(standardised_difference(other, one), -expected)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1.0, 1.0], [1.0], 0.0),
        ([0.0, 0.0], [1.0], math.nan),
        ([np.nan], [1.0], math.nan),
        ([0.0, 2.0, np.nan], [1.0, 3.0], 1.0),
    ],
)
def test_differences_without_spread_or_knowledge(one, other, expected):
    np.testing.assert_equal(standardised_difference(np.array(one), np.array(other)), expected)


def test_parts_of_one_kind_do_not_drift(case):
    table = drift(case.evidence())
    assert {(row.reference, row.part) for row in table} == {
        ("train", "val"),
        ("train", "test"),
        ("val", "test"),
    }
    assert not any(row.flagged for row in table)
    assert list(drifted(table)) == []


def test_brighter_images_in_one_part_are_found(case):
    test = (case.table["part"] == "test").to_numpy()
    case.facts["brightness"] = np.where(test, 150.0, 120.0) + np.arange(240) % 7
    found = case.found()
    assert set(found) == {"drift"}
    messages = [finding.message for finding in case.report().findings]
    assert len(messages) == 2
    assert messages[0].startswith("train and test differ in 1 variable: brightness 123")


def test_a_view_of_one_part_only_and_more_images_per_patient(case):
    case.table.loc[case.table["part"] == "test", "covariate/view"] = "AP"
    case.table.loc[case.table["part"] == "val", "patient"] = np.repeat(
        [f"V{number}" for number in range(30)], [10, *[1] * 21, *[3] * 3, *[4] * 5]
    )
    flagged = {(row.variable, row.part) for row in drift(case.evidence()) if row.flagged}
    assert ("view AP", "test") in flagged
    assert {row.variable for row in drift(case.evidence())} >= {"images per patient", "no label present"}


def test_a_small_difference_between_small_parts_is_chance(case):
    # 0.5 against 0.3 in 60 images of 30 patients: one part's share wanders by more than that.
    test = case.table.index[case.table["part"] == "test"]
    case.table.loc[test[test % 10 < 4], "label/Edema"] = 0.0
    row = next(r for r in drift(case.evidence()) if (r.variable, r.part) == ("Edema", "test"))
    assert abs(row.smd) >= 0.2
    assert not row.flagged


def test_free_text_is_no_variable(case):
    case.table["covariate/note"] = [f"note {row}" for row in range(240)]
    assert not any(row.variable.startswith("note") for row in drift(case.evidence()))


@pytest.mark.real_data
def test_the_official_parts_of_nih_are_two_populations(case, real_data: Path):
    from cxrlab.data.manifest import Manifest
    from cxrlab.data.readers.nih import read_lists, read_table

    table = read_table(real_data / "nih" / "Data_Entry_2017_v2020.csv.gz")[0]
    table.insert(2, "split", read_lists(real_data / "nih", table["image"]))
    table.insert(3, "part", table["split"])
    nih = Manifest(real_data / "nih", table, name="nih")
    case.table = nih.table
    case.facts = case.facts.iloc[np.arange(len(nih)) % 240].reset_index(drop=True)
    report = case.report()
    assert [finding.kind for finding in report.findings] == ["drift"]
    rows = {row.variable: row for row in report.drift}
    nothing, number = rows["no label present"], rows["images per patient"]
    assert (round(nothing.reference_mean, 3), round(nothing.mean, 3)) == (0.584, 0.385)
    assert (round(number.reference_mean, 2), round(number.mean, 2)) == (3.09, 9.15)
    assert nothing.flagged
    assert number.flagged
