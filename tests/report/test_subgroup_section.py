from dataclasses import replace

import numpy as np
import pytest

from cxrlab.evaluation.results import EqualisedOdds, Gap
from cxrlab.evaluation.stratified import StratifiedAuroc
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.report import subgroup_section, text
from cxrlab.report.model_card import model_card
from cxrlab.report.model_info import ModelInfo
from cxrlab.report.section import PageContext
from cxrlab.report.subgroup_section import (
    equalised_odds,
    gap_table,
    stratified_table,
    subgroup_tables,
)

LABELS = ["Edema", "Mass", "Hernia"]


def test_each_covariate_has_a_table(evaluated):
    result = evaluated(LABELS)
    by_covariate = dict(subgroup_tables(result.subgroups))
    assert list(by_covariate) == ["view", "sex", "age"]
    assert by_covariate["view"].rows[0].name == "macro mean of 2"
    assert by_covariate["view"].caption == ""
    borrowing = [replace(row, negatives_from="all") for row in result.subgroups]
    assert "those of all groups" in dict(subgroup_tables(borrowing))["view"].caption


def test_rows_of_few_patients_are_flagged_with_the_patients_beside_the_positives(evaluated):
    result = evaluated(LABELS)
    table = dict(subgroup_tables(result.subgroups))["sex"]
    rare = [row for row in table.rows if row.name == "Hernia"]
    assert rare
    assert all(row.mark.startswith("Only ") for row in rare)
    assert not any(row.mark for row in table.rows if row.name == "Edema")
    edema = next(row for row in result.subgroups if (row.covariate, row.label) == ("sex", "Edema"))
    cell = next(row for row in table.rows if row.name == "Edema").cells[3]
    assert cell.text == str(edema.positives)
    assert cell.small == f"of {edema.positive_patients} patients"


def gap(label, difference, p, outcome):
    return Gap("sex", label, "auroc", ("F", "M"), (10, 1200), Estimate(difference), p, p, outcome, "in words")


def test_the_gaps_that_are_shown_come_first_then_the_least_likely_by_chance():
    gaps = [gap("a", 0.3, 0.9, "unclear"), gap("b", -0.01, 0.001, "worse"), gap("c", -0.2, 0.04, "worse"),
            gap("d", None, None, "not_compared")]  # fmt: skip
    table = gap_table(gaps, 3)
    assert [row.name for row in table.rows] == ["c", "b", "a", "d"]
    assert [cell.text for cell in table.rows[1].cells[2:]] == [
        "F \u2212 M",
        "\u22120.010",
        "0.001",
        "in words",
    ]
    assert table.caption.startswith("3 differences between two groups were tested: ")
    assert table.caption.endswith("corrected for all of them.")
    assert len(gap_table(gaps * 3, 1404).rows) == 6
    caption = gap_table(gaps * 3, 1404).caption
    assert caption.startswith("1,404 differences between two groups were tested")
    assert caption.endswith("The 6 clearest:")
    assert gap_table([], 0) is None


def test_the_number_of_tests_on_the_page_is_that_of_the_result(evaluated):
    result = evaluated(LABELS)
    table = gap_table(result.gaps, result.num_gap_tests)
    assert table.caption.startswith(f"{result.num_gap_tests} differences between two groups were tested")
    tested = [gap for gap in result.gaps if gap.p is not None]
    assert result.num_gap_tests >= len(tested)
    clearest = min(tested, key=lambda gap: gap.p)
    assert clearest.p_holm == pytest.approx(min(1.0, result.num_gap_tests * clearest.p))


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_page_and_card_show_the_same_gaps_at_every_level(evaluated, level):
    settings = EvaluationSettings(num_resamples=100, age_bands=(0, 40, 60), level=level)
    result = evaluated(LABELS, settings=settings)
    p = np.array([gap.p_holm for gap in result.gaps], dtype=float)
    shown = [gap for gap in result.gaps if gap.outcome in ("better", "worse")]
    assert len(shown) == (p < 1 - level).sum()
    assert all(("a difference is shown" in gap.description) == (gap in shown) for gap in result.gaps)
    lines = dict(model_card(result, ModelInfo()))["Quantitative analyses"]
    assert [line for line in lines if line.startswith("Gap by ")] == [text.gap(gap) for gap in shown]
    borderline = [
        replace(gap, p_holm=value, outcome="better" if value < 1 - level else "unclear")
        for gap, value in zip(result.gaps, (0.005, 0.02, 0.07), strict=False)
    ]
    lines = dict(model_card(replace(result, gaps=borderline), ModelInfo()))["Quantitative analyses"]
    wanted = {0.9: 3, 0.95: 2, 0.99: 1}[level]
    assert sum(line.startswith("Gap by ") for line in lines) == wanted


ODDS = EqualisedOdds(
    covariate="sex",
    label="macro",
    sensitivity=Estimate(-0.04, -0.1, 0.02),
    sensitivity_groups=("F", "M"),
    false_positive_rate=Estimate(0.02, -0.01, 0.05),
    false_positive_rate_groups=("F", "M"),
    is_difference_shown=False,
    shown=[],
)


def test_equalised_odds_in_one_line():
    assert equalised_odds(ODDS) == (
        "Equalised odds by sex (mean of the labels): largest gap in sensitivity 0.040 (\u22120.020 to 0.100; "
        "M above F), in false-positive rate 0.020 (\u22120.010 to 0.050; F above M); no difference shown."
    )
    shown = replace(
        ODDS, label="Edema", is_difference_shown=True,
        shown=[("macro", "sensitivity"), ("Edema", "sensitivity"), ("Mass", "specificity")],
    )  # fmt: skip
    assert equalised_odds(shown).startswith("Equalised odds by sex (Edema): ")
    assert equalised_odds(shown).endswith(
        "; a difference is shown in sensitivity (the mean, Edema) and false-positive rate (Mass)."
    )


def stratified(label, difference, *, is_shown):
    share = None if label == "macro" else 0.45
    return StratifiedAuroc(
        "view", label, 2, share, 40, Estimate(0.9), Estimate(0.9 - difference), Estimate(difference), 0.001, 0.01,
        is_shown,
    )  # fmt: skip


def test_auroc_within_groups():
    table = stratified_table(
        [stratified("macro", 0.01, is_shown=True), stratified("Edema", 0.05, is_shown=True)]
    )
    assert [row.name for row in table.rows] == ["macro mean", "Edema"]
    assert [cell.text for cell in table.rows[1].cells] == [
        "view", "0.900", "0.850", "0.050", "0.010", "45 %", "40"
    ]  # fmt: skip


@pytest.fixture
def section(evaluated, monkeypatch):
    monkeypatch.setattr(subgroup_section.groups, "forest", lambda *_: None)

    def build(**changes):
        result = replace(evaluated(LABELS), **changes)
        return subgroup_section.subgroup_section(PageContext(result, ModelInfo(), images=True))

    return build


def test_labels_whose_auroc_differs_within_groups_stand_on_the_page_largest_first(section):
    rows = [stratified("Mass", 0.01, is_shown=True), stratified("Edema", 0.05, is_shown=True),
            stratified("Hernia", 0.2, is_shown=False)]  # fmt: skip
    page, _, folded = section(stratified=rows, subgroups=[], subgroup_pairs=[], gaps=[]) or "", "", ""
    assert page == ""  # without groups there is no section
    page = section(stratified=rows)
    before, folded = page.split("AUROC within groups of every label")
    table = before.split("<h3>AUROC within groups</h3>")[1]
    assert table.index("Edema") < table.index("Mass")
    assert "Hernia" not in table
    assert "Hernia" in folded
    page = section(stratified=[rows[2]])
    assert "Within groups of the same view, no difference of AUROC is shown." in page


def test_the_section_has_odds_and_groups_by_two_covariates(section):
    page = section()
    assert page.count("Equalised odds by ") == 3
    assert "Groups by sex and view" in page
    assert "They are described, not tested" in page
    assert "They are described, not tested" not in section(subgroup_pairs=[])
    assert section(subgroups=[]) is None
