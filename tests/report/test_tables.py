from dataclasses import replace

import numpy as np
import pytest

from cxrlab.evaluation.results import LabelThreshold
from cxrlab.metrics import METRICS, metric, register
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.report import tables
from cxrlab.report.formatting import number
from cxrlab.report.tables import Cell

LABELS = ("Edema", "Mass", "Hernia")
DASH = "\u2013"


def names(table):
    return [row.name for row in table.rows]


def column(table, title):
    place = list(table.columns).index(title) - 1
    return [row.cells[place] for row in table.rows]


def test_a_metric_that_is_not_there_or_undefined_is_a_dash():
    assert tables.estimated({}, "auroc") == Cell(DASH)
    assert tables.estimated({"auroc": Estimate(None)}, "auroc") == Cell(DASH)
    assert tables.estimated({"auroc": Estimate(0.9, 0.8, 0.95)}, "auroc", 1) == Cell("0.9", "0.8 to 0.9")


def test_the_main_table_has_labels_means_and_marks(evaluated):
    result = evaluated(LABELS)
    table = tables.main_table(result)
    assert table.columns[:4] == ["label", "positives", "AUROC", "average precision"]
    assert names(table) == [*LABELS, "macro mean of 2", "micro, all pooled"]
    assert all(len(row.cells) == len(table.columns) - 1 for row in table.rows)
    auroc = result.labels["Mass"]["auroc"]
    assert table.rows[1].cells[1] == (f"{auroc.value:.3f}", f"{auroc.low:.3f} to {auroc.high:.3f}")
    assert [bool(row.mark) for row in table.rows] == [False, False, True, False, False]
    assert "only 7 positives, of 3 patients" in table.rows[2].mark


def test_one_label_has_no_means(evaluated):
    assert names(tables.main_table(evaluated(["Edema"]))) == ["Edema"]


def test_columns_without_any_value_are_left_out(evaluated):
    result = evaluated(LABELS, validation=False)
    assert tables.main_table(result).columns == ["label", "positives", "AUROC", "average precision"]
    further = tables.further_table(result)
    assert "accuracy" not in further.columns
    assert further.columns[-3:] == ["AUROC, score interval", "AUROC, bootstrap", "AUROC, DeLong"]


@pytest.mark.parametrize(
    ("prevalence", "name"), [(0.1, "PPV at 10 %"), (0.005, "PPV at 0.5 %"), (0.025, "PPV at 2.5 %")]
)
def test_the_prevalence_stands_in_the_heading(evaluated, prevalence, name):
    assert name in tables.further_table(replace(evaluated(LABELS), prevalence=prevalence)).columns


def test_every_metric_of_the_registry_has_a_column_and_an_error_its_direction(evaluated):
    result = evaluated(LABELS)
    columns = [*tables.main_table(result).columns, *tables.further_table(result).columns]
    assert {tables.metric_title(name, 0.1) for name in METRICS} - set(columns) <= {"AUROC"}
    assert "Brier score, lower is better" in columns


def test_a_metric_of_ones_own_stands_in_the_main_table(evaluated):
    def mean_error(scores, targets):
        return float(np.abs(scores - targets).mean())

    register(metric(title="mean <error>", higher_is_better=False, needs="scores")(mean_error))
    try:
        result = evaluated(["Edema", "Mass"], notes=["with a metric of one's own"])
        cells = column(tables.main_table(result), "mean <error>, lower is better")
        further = tables.further_table(result).columns
    finally:
        METRICS.reset()
    estimate = result.labels["Edema"]["mean_error"]
    assert cells[0] == tables.estimate_cell(estimate)
    assert cells[0].small
    assert len({cell.text for cell in cells}) > 1
    assert "mean <error>, lower is better" not in further


def test_counts_and_thresholds(evaluated):
    result = evaluated(LABELS)
    row, counts = tables.count_table(result).rows[0], result.counts["Edema"]
    assert [cell.text for cell in row.cells[:7]] == [
        number(result.thresholds["Edema"].value), "youden", "validation",
        *map(str, (counts.tp, counts.fp, counts.tn, counts.fn)),
    ]  # fmt: skip
    threshold = result.thresholds["Edema"]
    assert row.cells[0].small.startswith(f"{number(threshold.low)} to {number(threshold.high)}")
    assert row.cells[2].small == f"{threshold.positives} positives of {threshold.positive_patients} patients"
    assert "a point of balanced accuracy" in tables.count_table(result).caption
    given = replace(result, thresholds={label: LabelThreshold(0.004567, "0.5", "given") for label in LABELS})
    assert tables.count_table(given).rows[0].cells[0] == tables.Cell("0.0046")
    assert tables.count_table(given).caption == ""
    without = tables.count_table(evaluated(LABELS, validation=False))
    assert [cell.text for cell in without.rows[0].cells[:4]] == [DASH] * 4


def test_the_classification_report(evaluated):
    assert tables.class_table(evaluated(LABELS)) is None
    result = evaluated(LABELS, exclusive=True)
    table = tables.class_table(result)
    assert names(table) == [*LABELS, "accuracy", "macro mean", "weighted mean"]
    assert [row.cells[-1].text for row in table.rows[-3:]] == ["240"] * 3
    assert table.rows[-3].cells[2].text == number(result.classification_report.accuracy.value)


def test_published_values_stand_beside_ours(evaluated):
    few = tables.published_by_label(evaluated())  # our mean is not of all 14 findings: Hernia has 3 patients
    assert few.rows[-1].name == "Hernia"
    result = evaluated(settings=EvaluationSettings(num_resamples=100, min_positives=1))
    assert tables.published_by_label(result).rows[0].cells[1].text == "0.809"
    assert tables.published_by_label(result).rows[-1].cells[1].text == "0.841"
    means = tables.published_means(result)
    assert names(means)[:2] == ["ours", "CheXNet"]
    assert means.rows[0].cells[0] == tables.estimate_cell(result.macro["auroc"])
    without_mean = replace(result, published=replace(result.published, ours=result.published.ours[:-1]))
    assert tables.published_means(without_mean).rows[0].cells[0].text == DASH
    elsewhere = replace(result, published=None)
    assert tables.published_means(elsewhere) is None
    assert tables.published_by_label(elsewhere) is None


def test_scores_of_probabilities_say_that_they_are_before_recalibration(evaluated):
    assert "before recalibration" in tables.further_table(evaluated(LABELS)).caption
    assert tables.further_table(evaluated(LABELS, validation=False)).caption == ""
