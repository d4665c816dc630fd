"""What was called what at the threshold: confusion matrices."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrlab.report.style import MUTED, SEQUENTIAL, new_figure, shown, small_multiples, styled

Numbers = dict[str, Any]
Counts = npt.NDArray[np.float64]

_MOST_CLASSES_WITH_COUNTS = 12  # beyond, the cells hold the share alone
_FEW_CLASSES = 5  # with room for their names beneath
_NAME = 24  # characters a line beside a matrix


def confusion(numbers: Numbers) -> Figure | None:
    """Draw the confusion matrix of classes that exclude one another, else one of each label.

    Colour is the share of a row, that is of the images that truly are so. None without thresholds.

    Args:
        numbers: Content of ``evaluation.json``.
    """
    found = numbers["classification_report"]
    if found is not None and found["kind"] == "exclusive":
        matrix = np.array(found["matrix"], dtype=np.float64)
        return _of_classes(matrix, [row["class"] for row in found["classes"]]) if matrix.sum() else None
    return _of_labels(numbers["counts"])


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


def _of_labels(counts: dict[str, Numbers]) -> Figure | None:
    if all(row["tp"] is None for row in counts.values()):
        return None
    with styled():
        figure, panels = small_multiples([shown(label) for label in counts], height=0.75)
        for axes, row in zip(panels, counts.values(), strict=True):
            axes.set(xticks=[0, 1], yticks=[0, 1])
            axes.set_xticklabels(["absent", "present"])
            axes.set_yticklabels(["absent", "present"], rotation=90, va="center")
            if row["tp"] is None:
                axes.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5))
                axes.text(0.5, 0.5, "no threshold", ha="center", va="center", color=MUTED)
                axes.grid(visible=False)
            else:
                _cells(axes, np.array([[row["tn"], row["fp"]], [row["fn"], row["tp"]]], dtype=np.float64))
        figure.supxlabel("predicted at the threshold (share of the row, and images)")
        figure.supylabel("true")
        return figure


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
