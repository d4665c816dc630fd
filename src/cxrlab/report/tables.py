"""Tables of a page: what stands in each cell, before it becomes HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from cxrlab.evaluation.caveats import split_name
from cxrlab.evaluation.out_of_fold import WITHIN_FOLDS
from cxrlab.evaluation.results import EvaluationResult, LabelCounts, LabelThreshold, PublishedRow
from cxrlab.metrics import METRICS
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.margin import margin_fault
from cxrlab.report.formatting import DASH, bounds, count, counted, level, number

_MAIN = ("auroc", "average_precision", "sensitivity", "specificity", "ppv", "npv", "f1")
# The AUROC stands in the second table once more, beside its intervals by other methods.
_METHODS = {
    "auroc": "AUROC, score interval",
    "auroc_bootstrap": "AUROC, bootstrap",
    "auroc_delong_clustered": "AUROC, DeLong",
}
_AT_PREVALENCE = {"ppv_at_prevalence": "PPV at {}", "npv_at_prevalence": "NPV at {}"}
_BEFORE = "Brier score and log loss are those of the probabilities before recalibration."
_MARGIN_CAPTION = (
    "Below each threshold: from where to where it may move and lose less than a point of balanced accuracy "
    "on the images that it was chosen on. Narrow or one-sided ones are the first to fail on other images."
)


class Cell(NamedTuple):
    """A value, and below it in small what belongs to it, such as its interval."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        name: First column.
        cells: The others.
        mark: Why a reader should beware of it; empty for most.
        strong: Whether it sums up others.
    """

    name: str
    cells: Sequence[Cell]
    mark: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and lines.

    Attributes:
        columns: Headings; the first one is of the names.
        rows: The lines.
        caption: One sentence above it, may be empty.
        texts: Numbers of the columns, from 1, that hold words and are set flush left.
    """

    columns: Sequence[str]
    rows: Sequence[Row]
    caption: str = ""
    texts: frozenset[int] = field(default_factory=frozenset)


def estimate_cell(estimate: Estimate | None, digits: int = 3) -> Cell:
    """Return an estimate with its interval; a dash for None.

    Example:
        >>> estimate_cell(Estimate(0.988, 0.971, 0.996))
        Cell(text='0.988', small='0.971 to 0.996')
    """
    return Cell(DASH) if estimate is None else Cell(number(estimate.value, digits), bounds(estimate, digits))


def estimated(metrics: Mapping[str, Estimate], name: str, digits: int = 3) -> Cell:
    """Return a metric with its interval; a dash for one that is not there.

    Example:
        >>> estimated({"auroc": Estimate(0.988, 0.971, 0.996)}, "auroc")
        Cell(text='0.988', small='0.971 to 0.996')
    """
    return estimate_cell(metrics.get(name), digits)


def label_name(label: str) -> str:
    """Return what a row is called: the mean over the labels has no name of its own."""
    return "macro mean" if label == "macro" else label


def main_table(result: EvaluationResult) -> Table:
    """Return what a reader looks for first, with a person's own metrics, and the means over the labels."""
    names = [*_MAIN, *(metric.name for metric in METRICS.added)]
    titles = {name: metric_title(name) for name in names}
    if result.out_of_fold is not None:
        titles = {WITHIN_FOLDS: "AUROC within folds"} | titles | {"auroc": "AUROC, folds pooled"}
    return _metric_table(result, titles, with_positives=True)


def further_table(result: EvaluationResult) -> Table:
    """Return all other metrics, and the AUROC's intervals by three methods side by side."""
    added = {metric.name for metric in METRICS.added}
    names = [name for name in METRICS if name not in _MAIN and name not in added]
    titles = {name: metric_title(name, result.prevalence) for name in names}
    table = _metric_table(result, titles | _METHODS, with_positives=False)
    return replace(table, caption=_BEFORE) if result.calibration.method != "none" else table


def metric_title(name: str, prevalence: float | None = None) -> str:
    """Return the heading of a metric's column: its title in the registry, and the direction of an error.

    Args:
        name: Of the metric; one that the registry does not hold is called by it.
        prevalence: For which PPV and NPV are given besides the sample's own.

    Example:
        >>> metric_title("brier"), metric_title("ppv_at_prevalence", 0.1), metric_title("theirs")
        ('Brier score, lower is better', 'PPV at 10 %', 'theirs')
    """
    if name in _AT_PREVALENCE and prevalence:
        return _AT_PREVALENCE[name].format(level(prevalence))
    if name not in METRICS:
        return name
    metric = METRICS[name]
    return metric.title if metric.higher_is_better else f"{metric.title}, lower is better"


def _metric_table(result: EvaluationResult, titles: Mapping[str, str], *, with_positives: bool) -> Table:
    """Return a column for each metric that is defined for any label."""
    blocks = [*result.labels.values(), result.macro, result.micro]
    shown = [
        name for name in titles if any(name in block and block[name].value is not None for block in blocks)
    ]
    marks = _marks(result)
    rows = [
        Row(
            label,
            [
                *([_positives(result.counts[label])] if with_positives else []),
                *(estimated(metrics, name) for name in shown),
            ],
            mark=marks.get(label, ""),
        )
        for label, metrics in result.labels.items()
    ]
    columns = ["label", *(["positives"] if with_positives else []), *(titles[name] for name in shown)]
    return Table(columns, rows + _means(result, shown, with_positives=with_positives))


def _marks(result: EvaluationResult) -> dict[str, str]:
    """Return the caveats of each label that has any, as one text."""
    marks: dict[str, str] = {}
    for caveat in result.flags:
        if caveat.label is not None:
            marks[caveat.label] = f"{marks.get(caveat.label, '')} {caveat.message}".strip()
    return marks


def _positives(counts: LabelCounts) -> Cell:
    return Cell(count(counts.positives), f"of {count(counts.images)}")


def _means(result: EvaluationResult, shown: Sequence[str], *, with_positives: bool) -> list[Row]:
    """Return the macro and micro rows; one label is its own mean."""
    if len(result.labels) == 1:
        return []
    means = {f"macro mean of {result.num_macro_labels}": result.macro, "micro, all pooled": result.micro}
    blank = [Cell("")] if with_positives else []
    return [
        Row(name, [*blank, *(estimated(metrics, metric) for metric in shown)], strong=True)
        for name, metrics in means.items()
    ]


def count_table(result: EvaluationResult) -> Table:
    """Return counts and thresholds, each with its margin, and what it was chosen on."""
    columns = ["label", "threshold", "rule", "chosen on", "TP", "FP", "TN", "FN", "images", "positives",
               "negatives", "patients with it", "patients without it"]  # fmt: skip
    marks, rows = _marks(result), []
    for label, counts in result.counts.items():
        threshold = result.thresholds.get(label)
        chosen = [Cell(DASH)] * 3 if threshold is None else _threshold_cells(threshold)
        numbers = (counts.tp, counts.fp, counts.tn, counts.fn, counts.images, counts.positives,
                   counts.negatives, counts.positive_patients, counts.negative_patients)  # fmt: skip
        cells = [*chosen, *(Cell(text) for text in map(count, numbers))]
        rows.append(Row(label, cells, mark=marks.get(label, "")))
    has_margin = any(threshold.low is not None for threshold in result.thresholds.values())
    return Table(columns, rows, _MARGIN_CAPTION if has_margin else "", frozenset({2, 3}))


def _threshold_cells(threshold: LabelThreshold) -> list[Cell]:
    """Return a threshold with its margin, its rule, and where it comes from with the images behind it."""
    low, high = threshold.low, threshold.high
    margin = "" if low is None or high is None else f"{_probability(low)} to {_probability(high)}"
    fault = margin_fault(low, threshold.value, high).replace("_", "-")
    behind = ""
    if threshold.positives is not None:
        behind = counted(threshold.positives, "positive")
        if threshold.positive_patients is not None:
            behind += f" of {counted(threshold.positive_patients, 'patient')}"
    return [
        Cell(_probability(threshold.value), f"{margin}, {fault}" if fault else margin),
        Cell(threshold.rule),
        Cell(threshold.source, behind),
    ]


def _probability(value: float | None) -> str:
    """Return three digits, of what is below 0.1 the first that are not 0.

    Example:
        >>> _probability(0.41234), _probability(0.00041234), _probability(0.0)
        ('0.412', '0.00041', '0.000')
    """
    if value is None or not 0 < value < 0.01:
        return number(value)
    return np.format_float_positional(value, precision=2, fractional=False)


def class_table(result: EvaluationResult) -> Table | None:
    """Return the classification report; None where labels may be present together."""
    report = result.classification_report
    if report is None:
        return None
    rows = [
        Row(row.class_, [*map(estimate_cell, (row.precision, row.recall, row.f1)), Cell(count(row.support))])
        for row in report.classes
    ]
    accuracy = [Cell(""), Cell(""), estimate_cell(report.accuracy), Cell(count(report.macro.support))]
    rows.append(Row("accuracy", accuracy, strong=True))
    rows += [
        Row(
            mean.class_,
            [*map(estimate_cell, (mean.precision, mean.recall, mean.f1)), Cell(count(mean.support))],
            strong=True,
        )
        for mean in (report.macro, report.weighted)
    ]
    return Table(["class", "precision", "recall", "F1", "images"], rows)


def published_by_label(result: EvaluationResult) -> Table | None:
    """Return our AUROC beside those that papers give by label; None where none does."""
    published = result.published
    papers = [row for row in published.rows if row.values] if published else []
    if published is None or not papers:
        return None
    rows = [
        Row(
            "mean of all" if ours.label == "macro" else ours.label,
            [estimate_cell(ours), *(_published_cell(paper, ours.label) for paper in papers)],
            strong=ours.label == "macro",
        )
        for ours in published.ours
    ]
    return Table(["label", "ours", *(paper.name for paper in papers)], rows)


def _published_cell(paper: PublishedRow, label: str) -> Cell:
    return Cell(number(paper.macro if label == "macro" else paper.values.get(label)))


def published_means(result: EvaluationResult) -> Table | None:
    """Return our mean AUROC beside those of papers, each with its split; None where papers give none."""
    published = result.published
    if published is None or not any(paper.macro for paper in published.rows):
        return None
    mean = next((ours for ours in published.ours if ours.label == "macro"), None)
    split = split_name(result.data.name, result.data.split)
    ours = Row("ours", [estimate_cell(mean), Cell(split or DASH), Cell("this page")])
    rows = [
        Row(paper.name, [Cell(number(paper.macro)), Cell(paper.split), Cell(paper.source)])
        for paper in published.rows
    ]
    return Table(["model", "mean AUROC", "split", "source"], [ours, *rows], texts=frozenset({2, 3}))
