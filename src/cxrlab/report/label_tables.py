"""Tables by label: the main one, further metrics, counts and thresholds, classes, published values."""

from collections.abc import Mapping, Sequence
from typing import Any

from cxrlab.report.formats import DASH, count, level, number
from cxrlab.report.tables import Cell, Row, Table, estimated, has_any

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
