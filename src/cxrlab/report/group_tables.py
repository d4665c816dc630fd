"""Tables of calibration and of subgroups."""

from typing import Any

from cxrlab.report.formats import MINUS, count, counted, number, p
from cxrlab.report.tables import Cell, Row, Table, estimated

Numbers = dict[str, Any]

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
            [*(estimated(one[time] or {}, name) for name in names for time in times), Cell(one["verdict"])],
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
        Cell(gap["words"]),
    ]
    return Row("macro mean" if gap["label"] == "macro" else gap["label"], cells)


def _rank(gap: dict[str, Any]) -> tuple[float, float]:
    """Return what to sort by: gaps that were shown by their size, the others, mostly chance, by p."""
    if gap["p_holm"] is not None and gap["p_holm"] < _SHOWN:
        return (0, -abs(gap["difference"]["value"]))
    return (1, 1.0 if gap["p"] is None else gap["p"])
