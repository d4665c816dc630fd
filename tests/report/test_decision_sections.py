"""The sections on operating points, on whom to refer, and on net benefit."""

import re
from dataclasses import replace

import pytest

from cxrlab.metrics.bootstrap import Estimate
from cxrlab.report.decision_section import decision_section, difference_table, in_words
from cxrlab.report.model_info import ModelInfo
from cxrlab.report.operating_points_section import (
    operating_points_section,
    referral_table,
    rule_name,
    summary_table,
)
from cxrlab.report.section import PageContext

LABELS = ("Edema", "Mass", "Hernia")


@pytest.fixture
def context(evaluated):
    def function(labels=LABELS, **options):
        return PageContext(evaluated(labels, **options), ModelInfo(kind="predictions"), images=False)

    return function


def words(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_each_rule_has_a_column_and_each_label_says_on_how_many_it_was_chosen(evaluated):
    result = evaluated(LABELS)
    table = summary_table(result.operating_points.labels)
    assert table.columns[1:3] == ["validation positives", "Youden"]
    for row, (label, found) in zip(table.rows, result.operating_points.labels.items(), strict=True):
        assert row.name == label
        assert row.cells[0].text == str(found.validation.positives)
        youden = found.points[0]
        assert row.cells[1].text == f"{youden.sensitivity.value:.2f} / {youden.specificity.value:.2f}"
        assert bool(row.mark) == found.validation.is_few
    assert any(row.mark for row in table.rows)  # Hernia has 7 positives


def test_one_label_has_its_whole_table_and_sentences(context):
    page = words(operating_points_section(context(("Edema",))))
    assert "of 1,000 images" in page
    assert "sensitivity of at least 0.95" in page
    assert "Rule in, rule out, or refer" in page
    assert (
        "at least 50 % of those ruled in have the finding and at least 98 % of those ruled out have it not"
        in page
    )


def test_a_rule_that_is_not_reached_says_so(context):
    made = context(("Edema",))
    found = made.result.operating_points.labels["Edema"]
    points = [
        replace(point, threshold=None, note="no threshold reaches an NPV of 0.98 on validation")
        if point.rule == "npv@0.98"
        else point
        for point in found.points
    ]
    labels = {"Edema": replace(found, points=points)}
    result = replace(made.result, operating_points=replace(made.result.operating_points, labels=labels))
    page = words(operating_points_section(replace(made, result=result)))
    assert "NPV of at least 0.98, to rule out (no threshold reaches an NPV of 0.98 on validation)" in page


def test_without_validation_the_reason_stands_there(context):
    page = words(operating_points_section(context(validation=False)))
    assert "validation" in page
    assert "<table" not in page


def test_what_is_ruled_in_out_and_referred_adds_up(evaluated):
    result = evaluated(LABELS)
    for row, found in zip(referral_table(result.referral).rows, result.referral.labels.values(), strict=True):
        shares = [found.ruled_in.value, found.referred.value, found.ruled_out.value]
        assert sum(share or 0 for share in shares) == pytest.approx(1)
        assert row.cells[3].text == f"{1000 * found.referred.value:.0f}"


def test_a_target_that_is_missed_is_marked(evaluated):
    referral = evaluated(LABELS).referral
    low = {
        label: replace(found, npv=Estimate(0.9, 0.88, 0.92), rule_out=0.1)
        for label, found in referral.labels.items()
    }
    marks = [row.mark for row in referral_table(replace(referral, labels=low)).rows]
    assert all("NPV here is below the 0.98" in mark for mark in marks)


def test_net_benefit_is_in_words_in_a_figure_and_a_table(context):
    made = context()
    page = decision_section(made)
    assert made.figures["net_benefit"] is not None
    assert "<img" in page
    table = difference_table(made.result.decisions)
    assert [row.name for row in table.rows] == list(LABELS)
    edema = made.result.decisions.labels["Edema"]
    assert table.rows[0].cells[1].text == f"{1000 * edema.points[0].difference.value:.1f}".replace(
        "-", "\u2212"
    )
    assert "labels" in in_words(made.result.decisions)
    assert "shown to be worth more" in in_words(context(("Edema",), skill=0.01).result.decisions)


@pytest.mark.parametrize(
    ("rule", "long", "short"),
    [
        ("youden", "highest sensitivity + specificity (Youden)", "Youden"),
        ("ppv@0.5", "PPV of at least 0.5, to rule in", "PPV 0.5"),
        ("0.5", "threshold 0.5", "0.5"),
    ],
)
def test_rules_have_names(rule, long, short):
    assert (rule_name(rule), rule_name(rule, short=True)) == (long, short)
