from dataclasses import replace

import pytest

from cxrlab.report import calibration_section as section
from cxrlab.report.formatting import DASH, number, p
from cxrlab.report.model_info import ModelInfo
from cxrlab.report.section import PageContext
from cxrlab.report.tables import Cell, estimate_cell

LABELS = ("Edema", "Mass")


def test_what_is_shown_is_the_recalibrated_and_before_it_is_folded(evaluated):
    result = evaluated(LABELS)
    edema = result.calibration.labels["Edema"]
    table = section.calibration_table(result, "after")
    after = edema.after
    assert table.columns[1:4] == ("slope", "expected/observed", "p of both")
    assert list(table.rows[0].cells) == [
        estimate_cell(after.slope, 2),
        estimate_cell(after.expected_observed, 2),
        Cell(p(after.p)),
        estimate_cell(after.ece),
        Cell(number(after.ece_by_chance.mean), f"up to {number(after.ece_by_chance.high)}"),
        estimate_cell(after.scaled_brier),
        Cell(after.description),
    ]
    assert table.caption.startswith(
        "Probabilities are those after Platt scaling fitted on validation. Each label is tested by itself at 5 %"
    )
    before = section.recalibration_table(result)
    assert before.rows[0].cells[0] == estimate_cell(edema.before.slope, 2)
    assert [cell.text for cell in before.rows[0].cells[-2:]] == [number(edema.slope), number(edema.intercept)]


def test_without_validation_there_is_one_table(evaluated):
    result = evaluated(LABELS, validation=False)
    table = section.calibration_table(result, "before")
    assert table.rows[0].cells[-1].text == result.calibration.labels["Edema"].before.description
    assert "After" not in table.caption
    assert section.recalibration_table(result) is None
    empty = replace(result, calibration=replace(result.calibration, labels={}))
    assert section.calibration_table(empty, "before") is None


def test_probabilities_that_are_too_extreme_are_seen_before_and_mended_after(evaluated):
    result = evaluated(["Edema"], steepness=4.0)
    edema = result.calibration.labels["Edema"]
    assert edema.before.departs
    assert "too extreme" in edema.before.description
    assert edema.before.slope.high < 0.5
    assert edema.before.p < 1e-6 < edema.after.p
    assert edema.before.scaled_brier.value < edema.after.scaled_brier.value


def test_few_positives_are_said_and_have_dashes(evaluated):
    result = evaluated(LABELS)  # the last label has 7 positives
    row = section.calibration_table(result, "after").rows[1]
    assert row.cells[0].text == row.cells[2].text == DASH
    assert row.cells[1].text != DASH
    assert row.cells[-1].text == "not tested: fewer than 10 patients with the finding"


@pytest.mark.parametrize(
    ("loss", "is_weighted"),
    [
        ({"_target_": "cxrlab.losses.WeightedBCE"}, True),
        ({"_target_": "cxrlab.losses.AsymmetricLoss"}, True),
        ({"_target_": "cxrlab.losses.CrossEntropy", "is_balanced": True}, True),
        ({"_target_": "cxrlab.losses.CrossEntropy", "is_balanced": False}, False),
        ({"_target_": "cxrlab.losses.BCE"}, False),
        (None, False),
    ],
)
def test_a_weighted_loss_is_mentioned_where_it_is_known(evaluated, loss, is_weighted):
    for config in ({"loss": loss}, None):
        words = section.weighted_loss(config, evaluated(LABELS))
        assert bool(words) == (is_weighted and config is not None)
    words = section.weighted_loss({"loss": loss}, evaluated(LABELS, validation=False))
    assert ("as they are given here" in words) == is_weighted


def test_the_section_says_nothing_of_recalibration_where_there_was_none(evaluated):
    result = evaluated(LABELS, validation=False)
    body = section.calibration_section(PageContext(result, ModelInfo(), images=True))
    assert "changes no label" not in body
    assert "before recalibration" not in body
    assert "nothing was fitted to correct them" in body
    recalibrated = section.calibration_section(PageContext(evaluated(LABELS), ModelInfo(), images=True))
    assert "Recalibration changes no label" in recalibrated
    assert "what was fitted" in recalibrated
