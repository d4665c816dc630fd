"""How well findings are told apart: ROC and precision-recall curves, AUROC by label, confusion matrices."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from cxrlab.evaluation.results import EvaluationResult, LabelCounts
from cxrlab.report.figures.style import (
    COLOURS,
    MARKERS,
    MUTED,
    SEQUENTIAL,
    Look,
    legend,
    new_figure,
    points,
    shown,
    small_multiples,
    styled,
)
from cxrlab.report.formatting import interval, level

Counts = npt.NDArray[np.float64]

_BAND = 0.22  # opacity
_BASELINE: Look = {"color": MUTED, "linestyle": "--", "linewidth": 0.9, "zorder": 1}
_OPERATING: Look = {"marker": "o", "markersize": 6, "color": COLOURS[1], "markeredgecolor": "white",
                              "linestyle": "none"}  # fmt: skip
_MOST_CLASSES_WITH_COUNTS = 12  # beyond, the cells hold the share alone
_FEW_CLASSES = 5  # with room for their names beneath
_NAME = 24  # characters a line beside a matrix


def roc(result: EvaluationResult) -> Figure | None:
    """Draw the ROC curve of each label with its band, and where the threshold lies; None without a curve."""

    def diagonal(axes: Axes, counts: LabelCounts) -> None:
        axes.plot([0, 1], [0, 1], **_BASELINE)

    return _panels(
        result, _Kind("roc", "auroc", "AUROC", "1 - specificity", "sensitivity", "chance", diagonal)
    )


def precision_recall(result: EvaluationResult) -> Figure | None:
    """Draw the precision-recall curve of each label with its band, and its prevalence; None without a curve.

    Precision is drawn in steps: no threshold gives what a sloping line between two points would promise.
    """

    def prevalence(axes: Axes, counts: LabelCounts) -> None:
        axes.plot([0, 1], 2 * [counts.positives / counts.images], **_BASELINE)

    kind = _Kind("pr", "average_precision", "AP", "recall (sensitivity)", "precision (PPV)",
                 "prevalence (chance)", prevalence)  # fmt: skip
    return _panels(result, kind)


class _Kind(NamedTuple):
    """What differs between the two curves."""

    curve: str
    metric: str
    short: str
    x: str
    y: str
    baseline: str
    draw_baseline: Callable[[Axes, LabelCounts], None]


def _panels(result: EvaluationResult, kind: _Kind) -> Figure | None:
    """Draw a panel a label, in the order of the result."""
    curves = result.curves[result.curves["curve"] == kind.curve]
    names = curves["label"].astype(str)  # a table that was read takes names like 1 and 2 for numbers
    if curves.empty:
        return None
    titles = [
        f"{shown(label)}\n{kind.short} {interval(metrics[kind.metric])}"
        for label, metrics in result.labels.items()
    ]
    with styled():
        figure, panels = small_multiples(titles)
        for axes, (label, counts) in zip(panels, result.counts.items(), strict=True):
            _panel(axes, curves[names == label], counts, kind)
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        figure.supxlabel(kind.x)
        figure.supylabel(kind.y)
        entries = _entries(result, kind)
        legend(figure, entries, loc="outside upper left", ncols=2 if len(panels) < 3 else 4)
        return figure


def _panel(axes: Axes, curve: pd.DataFrame, counts: LabelCounts, kind: _Kind) -> None:
    if curve.empty:
        axes.text(0.5, 0.5, "one class only", ha="center", va="center", color=MUTED)
        return
    kind.draw_baseline(axes, counts)
    x, y = curve["x"], curve["y"]
    step: Any = "pre" if kind.curve == "pr" else None
    axes.plot(x, y, color=COLOURS[0], linewidth=1.5, drawstyle="steps-pre" if step else "default")
    axes.fill_between(x, curve["low"].fillna(y), curve["high"].fillna(y), step=step, color=COLOURS[0],
                      alpha=_BAND, linewidth=0)  # fmt: skip
    if (point := _operating_point(counts, kind.curve)) is not None:
        axes.plot(*point, **_OPERATING, zorder=4)


def _operating_point(counts: LabelCounts, curve: str) -> tuple[float, float] | None:
    """Return where the threshold puts a label on the curve; None where that is not defined."""
    tp, fp, tn, fn = counts.tp, counts.fp, counts.tn, counts.fn
    if tp is None or fp is None or tn is None or fn is None or not tp + fn:
        return None
    if curve == "roc":
        return (fp / (fp + tn), tp / (tp + fn)) if fp + tn else None
    return (tp / (tp + fn), tp / (tp + fp)) if tp + fp else None


def _entries(result: EvaluationResult, kind: _Kind) -> list[Any]:
    """Return the legend."""
    band = Patch(color=COLOURS[0], alpha=_BAND, linewidth=0)
    entries: list[Any] = [
        (Line2D([], [], color=COLOURS[0]), "curve"),
        (band, f"{level(result.interval.level)} interval, point by point"),
        (Line2D([], [], **_BASELINE), kind.baseline),
    ]
    if any(_operating_point(counts, kind.curve) for counts in result.counts.values()):
        entries.append((Line2D([], [], **_OPERATING), "at the threshold"))
    return entries


def auroc_by_label(result: EvaluationResult) -> Figure | None:
    """Draw the AUROC of each label, the best first, beside published values where there are any.

    Labels with few positives are hollow. None where no AUROC is defined.
    """
    aurocs = {label: metrics[result.main_auroc] for label, metrics in result.labels.items()}
    order = sorted(aurocs, key=lambda label: -(aurocs[label].value or 0.0))
    if all(estimate.value is None for estimate in aurocs.values()):
        return None
    with styled():
        figure = new_figure(7.2, 1.3 + 0.3 * len(order))
        axes = figure.subplots()
        entries = _macro_line(axes, result) + _dots(axes, result, order)
        entries += _published(axes, result, order)
        axes.set_yticks(range(len(order)), [shown(label, 32, 2) for label in order])
        axes.set_ylim(len(order) - 0.4, -0.6)
        within = "" if result.out_of_fold is None else " within folds"
        figure.supxlabel(f"AUROC{within} ({level(result.interval.level)} interval); 0.5 is chance")
        axes.grid(axis="y", visible=False)
        axes.set_xlim(min(0.5, axes.get_xlim()[0]), max(1.0, axes.get_xlim()[1]))
        legend(figure, entries, loc="outside upper left", ncols=2)
        return figure


def _dots(axes: Axes, result: EvaluationResult, order: Sequence[str]) -> list[Any]:
    few = {caveat.label for caveat in result.flags if caveat.kind == "few_positives"}
    rows = [(place, label, result.labels[label][result.main_auroc]) for place, label in enumerate(order)]
    entries = []
    for is_few, meaning in ((False, "this evaluation"), (True, "this evaluation, few positives")):
        chosen = [
            (place, estimate)
            for place, label, estimate in rows
            if estimate.value is not None and (label in few) == is_few
        ]
        if chosen:
            places, estimates = zip(*chosen, strict=True)
            fill = "white" if is_few else COLOURS[0]
            dots = points(axes, estimates, places, color=COLOURS[0], markerfacecolor=fill)
            entries.append((dots, meaning))
    for place, _, estimate in rows:
        if estimate.value is None:
            axes.text(0.505, place, "not defined: one class only", va="center", color=MUTED, fontsize=8)
    return entries


def _macro_line(axes: Axes, result: EvaluationResult) -> list[Any]:
    macro, num_labels = result.macro[result.main_auroc], result.num_main_labels
    if macro.value is None or num_labels < 2:
        return []
    line = axes.axvline(macro.value, color=COLOURS[0], linestyle="--", linewidth=1, zorder=1)
    if macro.low is not None and macro.high is not None:
        axes.axvspan(macro.low, macro.high, color=COLOURS[0], alpha=0.1, linewidth=0, zorder=0)
    return [(line, f"mean of {num_labels} labels")]


def _published(axes: Axes, result: EvaluationResult, order: Sequence[str]) -> list[Any]:
    papers = [paper for paper in result.published.rows if paper.values] if result.published else []
    entries = []
    for number, paper in enumerate(papers):
        values = [(paper.values[label], place) for place, label in enumerate(order) if label in paper.values]
        marker, colour = MARKERS[1 + number % (len(MARKERS) - 1)], COLOURS[1 + number % (len(COLOURS) - 1)]
        x, y = np.array(values, dtype=float).reshape(-1, 2).T
        (drawn,) = axes.plot(x, y, linestyle="none", marker=marker, color=colour, markersize=5, alpha=0.85)
        entries.append((drawn, shown(f"{paper.name} (split: {paper.split})", 44)))
    return entries


def confusion(result: EvaluationResult) -> Figure | None:
    """Draw the confusion matrix of classes that exclude one another, else one of each label.

    Colour is the share of a row, that is of the images that truly are so. None without thresholds.
    """
    report = result.classification_report
    if report is not None and report.kind == "exclusive":
        matrix = np.array(report.matrix, dtype=np.float64)
        return _of_classes(matrix, [row.class_ for row in report.classes]) if matrix.sum() else None
    return _of_labels(result.counts)


def _of_classes(matrix: Counts, classes: Sequence[str]) -> Figure:
    names = [shown(name, _NAME, 2) for name in classes]
    side = len(names) * (1.2 if len(names) <= _FEW_CLASSES else 0.62)
    with_counts = len(names) <= _MOST_CLASSES_WITH_COUNTS
    slanted: Any = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    with styled():
        figure = new_figure(side + 2.4, side * 0.75 + 1.8)
        axes = figure.subplots()
        _cells(axes, matrix, with_counts=with_counts)
        if len(names) <= _FEW_CLASSES:
            axes.set_xticks(range(len(names)), [shown(name, 16) for name in classes])
        else:
            axes.set_xticks(range(len(names)), names, **slanted)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.set_title("share of the true class" + (" and images" if with_counts else " (%)"))
        return figure


def _of_labels(counts: Mapping[str, LabelCounts]) -> Figure | None:
    outcomes = {label: _outcomes(row) for label, row in counts.items()}
    if all(matrix is None for matrix in outcomes.values()):
        return None
    with styled():
        figure, panels = small_multiples([shown(label) for label in counts], height=0.75)
        for axes, matrix in zip(panels, outcomes.values(), strict=True):
            axes.set(xticks=[0, 1], yticks=[0, 1])
            axes.set_xticklabels(["absent", "present"])
            axes.set_yticklabels(["absent", "present"], rotation=90, va="center")
            if matrix is None:
                axes.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5))
                axes.text(0.5, 0.5, "no threshold", ha="center", va="center", color=MUTED)
                axes.grid(visible=False)
            else:
                _cells(axes, matrix)
        figure.supxlabel("predicted at the threshold (share of the row, and images)")
        figure.supylabel("true")
        return figure


def _outcomes(counts: LabelCounts) -> Counts | None:
    """Return truth by prediction, absent before present; None without a threshold."""
    if counts.tp is None:
        return None
    return np.array([[counts.tn, counts.fp], [counts.fn, counts.tp]], dtype=np.float64)


def _cells(axes: Axes, matrix: Counts, *, with_counts: bool = True) -> None:
    """Draw rows of true and columns of predicted classes, each cell with its number of images and share."""
    sums = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.maximum(sums, 1)
    edges = np.arange(len(matrix) + 1) - 0.5
    axes.pcolormesh(edges, edges, shares, cmap=SEQUENTIAL, vmin=0, vmax=1, edgecolors="white", linewidth=1)
    axes.set(xlim=(-0.5, len(matrix) - 0.5), ylim=(len(matrix) - 0.5, -0.5))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    for row in np.flatnonzero(sums[:, 0] == 0).tolist():
        axes.text((len(matrix) - 1) / 2, row, "no images", ha="center", va="center", color=MUTED)
    for (row, column), share in np.ndenumerate(shares):
        if sums[row, 0] and (with_counts or share >= 0.005):
            text = f"{share:.0%}\n{int(matrix[row, column]):,}" if with_counts else f"{100 * share:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=readable_on(share), fontsize=8.5)


def readable_on(share: float) -> str:
    """Return the colour of text on a cell: black or white, whichever has the higher contrast.

    References:
        WCAG 2.2, "relative luminance" and "contrast ratio".
    """
    colour = np.array(matplotlib.colormaps[SEQUENTIAL](float(share))[:3])
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"
