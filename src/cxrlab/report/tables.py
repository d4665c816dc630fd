"""Tables of a page: what stands in each cell, before it becomes HTML.

Tables by label: the main one, further metrics, counts and thresholds, classes, published values.

Tables of calibration and of subgroups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from cxrlab.report.formatting import DASH, MINUS, bounds, count, counted, level, number, p

Estimate = dict[str, Any]


_UNDEFINED: Estimate = {"value": None, "low": None, "high": None}


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


def estimated(metrics: Mapping[str, Any], name: str, digits: int = 3) -> Cell:
    """Return a metric with its interval; a dash for one that is not there.

    Example:
        >>> estimated({"auroc": {"value": 0.988, "low": 0.971, "high": 0.996}}, "auroc")
        Cell(text='0.988', small='0.971 to 0.996')
    """
    estimate = metrics.get(name) or _UNDEFINED
    estimate = estimate if isinstance(estimate, dict) else asdict(estimate)
    return Cell(number(estimate["value"], digits), bounds(estimate, digits))


def has_any(rows: Sequence[Mapping[str, Estimate]], name: str) -> bool:
    """Return whether a metric is defined in any of the rows."""
    return any((row.get(name) or _UNDEFINED)["value"] is not None for row in rows)


Numbers = dict[str, Any]


_MAIN = {
    "auroc": "AUROC", "average_precision": "average precision", "sensitivity": "sensitivity",
    "specificity": "specificity", "ppv": "PPV", "npv": "NPV", "f1": "F1",
}  # fmt: skip


_FURTHER = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "mcc": "MCC", "brier": "Brier score",
    "ppv_at_prevalence": "PPV at {}", "npv_at_prevalence": "NPV at {}", "auroc": "AUROC, bootstrap",
    "auroc_delong_clustered": "AUROC, DeLong by patient", "auroc_delong": "AUROC, DeLong by image",
}  # fmt: skip


def marks(numbers: Numbers) -> dict[str, str]:
    """Return the flags of each label that has any, as one text."""
    found: dict[str, str] = {}
    for flag in numbers["flags"]:
        if flag["label"] is not None:
            found[flag["label"]] = " ".join(filter(None, [found.get(flag["label"], ""), flag["message"]]))
    return found


def main_table(numbers: Numbers) -> Table:
    """Return what a reader looks for first, with intervals, and the means over the labels."""
    return _metric_table(numbers, _MAIN, "label", with_positives=True)


def further_table(numbers: Numbers) -> Table:
    """Return the other metrics, and the AUROC's intervals by three methods side by side."""
    prevalence = level(numbers["prevalence"]) if numbers["prevalence"] else ""
    names = {key: name.format(prevalence) for key, name in _FURTHER.items()}
    return _metric_table(numbers, names, "label", with_positives=False)


def _metric_table(numbers: Numbers, names: Mapping[str, str], first: str, *, with_positives: bool) -> Table:
    blocks = [*numbers["labels"].values(), numbers["macro"], numbers["micro"]]
    shown = [metric for metric in names if has_any(blocks, metric)]
    flagged = marks(numbers)
    rows = []
    for label, metrics in numbers["labels"].items():
        cells = [_positives(numbers["counts"][label])] if with_positives else []
        cells += [estimated(metrics, metric) for metric in shown]
        rows.append(Row(label, cells, mark=flagged.get(label, "")))
    columns = [first, *(["positives"] if with_positives else []), *(names[metric] for metric in shown)]
    return Table(columns, rows + _means(numbers, shown, with_positives=with_positives))


def _positives(counts: Mapping[str, Any]) -> Cell:
    return Cell(count(counts["positives"]), f"of {count(counts['images'])}")


def _means(numbers: Numbers, shown: Sequence[str], *, with_positives: bool) -> list[Row]:
    """Return the macro and micro rows; one label is its own mean."""
    if len(numbers["labels"]) == 1:
        return []
    names = {"macro": f"macro mean of {numbers['num_macro_labels']}", "micro": "micro, all pooled"}
    blank = [Cell("")] if with_positives else []
    return [
        Row(name, [*blank, *(estimated(numbers[block], metric) for metric in shown)], strong=True)
        for block, name in names.items()
    ]


def count_table(numbers: Numbers) -> Table:
    """Return counts and thresholds, with rule and source."""
    columns = ["label", "threshold", "rule", "chosen on", "TP", "FP", "TN", "FN", "images", "positives",
               "negatives", "patients with it"]  # fmt: skip
    rows = []
    for label, counts in numbers["counts"].items():
        threshold = numbers["thresholds"].get(label, {"value": None, "rule": DASH, "source": DASH})
        cells = [number(threshold["value"]), threshold["rule"], threshold["source"]]
        cells += [
            count(counts[name])
            for name in ("tp", "fp", "tn", "fn", "images", "positives", "negatives", "positive_patients")
        ]
        rows.append(Row(label, [Cell(text) for text in cells], mark=marks(numbers).get(label, "")))
    return Table(columns, rows, texts=frozenset({2, 3}))


def class_table(numbers: Numbers) -> Table | None:
    """Return the classification report; None where labels may be present together."""
    report = numbers.get("classification_report")
    if report is None:
        return None
    rows = [
        Row(
            str(one["class"]),
            [*(estimated(one, name) for name in ("precision", "recall", "f1")), Cell(count(one["support"]))],
        )
        for one in report["classes"]
    ]
    total = sum(one["support"] for one in report["classes"])
    accuracy = [Cell(""), Cell(""), estimated(report, "accuracy"), Cell(count(total))]
    rows.append(Row("accuracy", accuracy, strong=True))
    return Table(["class", "precision", "recall", "F1", "images"], rows)


def published_by_label(numbers: Numbers) -> Table | None:
    """Return our AUROC beside those that papers give by label; None where none does."""
    published = numbers.get("published")
    papers = [row for row in published["rows"] if row["values"]] if published else []
    if not published or not papers:
        return None
    rows = [
        Row(
            "mean of all" if ours["label"] == "macro" else ours["label"],
            [estimated({"auroc": ours}, "auroc"), *(_of_paper(paper, ours["label"]) for paper in papers)],
            strong=ours["label"] == "macro",
        )
        for ours in published["ours"]
    ]
    return Table(["label", "ours", *(paper["name"] for paper in papers)], rows)


def _of_paper(paper: Numbers, label: str) -> Cell:
    return Cell(number(paper["macro"] if label == "macro" else paper["values"].get(label)))


def published_means(numbers: Numbers) -> Table | None:
    """Return our mean AUROC beside those of papers, each with its split."""
    published = numbers.get("published")
    if not published or not any(paper["macro"] for paper in published["rows"]):
        return None
    mean = next((one for one in published["ours"] if one["label"] == "macro"), None)
    split = Cell(numbers["data"]["split"] or DASH)
    ours = Row("ours", [estimated({"auroc": mean} if mean else {}, "auroc"), split, Cell("this page")])
    rows = [
        Row(paper["name"], [Cell(number(paper["macro"])), Cell(paper["split"]), Cell(paper["source"])])
        for paper in published["rows"]
    ]
    return Table(["model", "mean AUROC", "split", "source"], [ours, *rows], texts=frozenset({2, 3}))


_MOST_GAPS = 6


_SHOWN = 0.05


def calibration_table(numbers: Numbers) -> Table | None:
    """Return calibration errors before and after recalibration, and verdicts in words; None without any."""
    calibration = numbers.get("calibration")
    if not calibration or not calibration["labels"]:
        return None
    labels = calibration["labels"]
    times = ["before", "after"] if any(one["after"] for one in labels.values()) else ["before"]
    names = {"ece": "calibration error", "bias": "bias", "brier": "Brier score"}
    columns = [f"{name} {time}" if len(times) > 1 else name for name in names.values() for time in times]
    rows = [
        Row(
            label,
            [
                *(estimated(one[time] or {}, name) for name in names for time in times),
                Cell(one["description"]),
            ],
        )
        for label, one in labels.items()
    ]
    return Table(["label", *columns, "in words"], rows, texts=frozenset({len(columns) + 1}))


def recalibration_table(numbers: Numbers) -> Table | None:
    """Return slope and intercept of the recalibrated logit by label, and Spiegelhalter's z."""
    calibration = numbers.get("calibration")
    if not calibration or not any(one["after"] for one in calibration["labels"].values()):
        return None
    rows = [
        Row(
            label,
            [
                Cell(number(one["slope"])),
                Cell(number(one["intercept"])),
                estimated(one["before"], "spiegelhalter", 2),
                estimated(one["after"] or {}, "spiegelhalter", 2),
            ],
        )
        for label, one in calibration["labels"].items()
    ]
    return Table(["label", "slope", "intercept", "Spiegelhalter z before", "after"], rows)


def subgroup_tables(numbers: Numbers) -> list[tuple[str, Table]]:
    """Return a table for each covariate."""
    columns = ["label", "group", "images", "patients", "positives", "AUROC", "sensitivity", "specificity"]
    tables: dict[str, list[Row]] = {}
    shared = {group["covariate"] for group in numbers["subgroups"] if group["negatives_from"] == "all"}
    for group in numbers["subgroups"]:
        counts = [count(group[name]) for name in ("images", "patients", "positives")]
        cells = [Cell(str(group["group"])), *map(Cell, counts)]
        cells += [estimated(group, name) for name in ("auroc", "sensitivity", "specificity")]
        name = "macro mean" if group["label"] == "macro" else group["label"]
        tables.setdefault(group["covariate"], []).append(Row(name, cells, strong=group["label"] == "macro"))
    caption = "The groups hold no images without the finding: those of all groups stand in for them."
    return [
        (covariate, Table(columns, rows, caption if covariate in shared else "", frozenset({1})))
        for covariate, rows in tables.items()
    ]


def gap_table(numbers: Numbers) -> Table | None:
    """Return the clearest gaps between groups, those that were shown first; None without any."""
    gaps = numbers["gaps"]
    if not gaps:
        return None
    columns = ["label", "covariate", "metric", "groups", "difference", "p, Holm", "in words"]
    chosen = sorted(gaps, key=_rank)[:_MOST_GAPS]
    caption = (
        f"The {len(chosen)} clearest of {counted(len(gaps), 'gap')} that were tested."
        if len(chosen) < len(gaps)
        else ""
    )
    return Table(columns, [_gap(gap) for gap in chosen], caption, frozenset({1, 2, 3, 6}))


def _gap(gap: dict[str, Any]) -> Row:
    cells = [
        Cell(str(gap["covariate"])),
        Cell("AUROC" if gap["metric"] == "auroc" else gap["metric"]),
        Cell(f" {MINUS} ".join(map(str, gap["groups"]))),
        estimated(gap, "difference"),
        Cell(p(gap["p_holm"])),
        Cell(gap["description"]),
    ]
    return Row("macro mean" if gap["label"] == "macro" else gap["label"], cells)


def _rank(gap: dict[str, Any]) -> tuple[float, float]:
    """Return what to sort by: gaps that were shown by their size, the others, mostly chance, by p."""
    if gap["p_holm"] is not None and gap["p_holm"] < _SHOWN:
        return (0, -abs(gap["difference"]["value"]))
    return (1, 1.0 if gap["p"] is None else gap["p"])
