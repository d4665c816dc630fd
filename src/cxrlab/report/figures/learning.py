"""Learning curves of a run."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxrlab.report.figures.style import COLOURS, LINES, Look, legend, new_figure, shown, styled
from cxrlab.report.html import save_png

# The first, which is the mean where there are several labels, is black and broad.
_LOOKS: list[Look] = [
    {"color": COLOURS[-1], "linewidth": 2.2},
    *(Look(color=colour, linestyle=line, linewidth=1.2) for line in LINES for colour in COLOURS[:-1]),
]
_MOST_NAMES = 16  # in one column of the legend


_MOST_STRENGTHS = 8  # named below the axes

_BOTH = ("training", "validation")

STRENGTH = "strength"
"""The column of a linear probe's ``metrics.csv`` that stands for the epochs of other trainings."""


def learning_curves(metrics: pd.DataFrame, path: Path) -> None:
    """Draw losses, accuracies and the validation AUROC by label over the epochs, or a probe's strengths.

    Args:
        metrics: One row an epoch, as in ``metrics.csv``.
        path: The PNG file.

    Raises:
        OutputError: If it cannot be written.
    """
    save_png(draw_learning_curves(metrics), path)


def draw_learning_curves(metrics: pd.DataFrame) -> Figure:
    """Return the figure of losses, accuracies and the validation AUROC by label over the epochs.

    Where the network adds a penalty on its weights, the losses are drawn with it as well, on axes of their
    own: at the start it is often many times the loss.

    Args:
        metrics: One row an epoch, as in ``metrics.csv``.
    """
    metrics = metrics.copy()
    panels = {"loss": ("train/loss", "val/loss"), "accuracy": ("train/accuracy", "val/accuracy")}
    if "val/loss_with_penalty" in metrics and "train/penalty" in metrics:
        metrics["train/loss_with_penalty"] = metrics["train/loss"] + metrics["train/penalty"]
        panels["loss with the penalty on weights"] = ("train/loss_with_penalty", "val/loss_with_penalty")
    panels = {title: names for title, names in panels.items() if title == "loss" or {*names} & {*metrics}}
    names = {n: n.removeprefix("val/auroc/") for n in map(str, metrics) if n.startswith("val/auroc/")}
    single = len(names) == 1
    scores = {"val/auroc": "AUROC" if single else "macro mean"} | ({} if single else names)
    with styled():
        # Two in a row; the AUROC, which may have many curves, takes what is left of the last one.
        places = [*panels, "AUROC"]
        rows: list[Any] = [places[first : first + 2] for first in range(0, len(places), 2)]
        figure = new_figure(10.5 + 1.5 * (len(scores) > _MOST_NAMES), 4.2 * len(rows))
        axes_of: dict[str, Axes] = figure.subplot_mosaic([list(row) * (3 - len(row)) for row in rows])
        for title, pair in panels.items():
            entries = _curves(axes_of[title], metrics, dict(zip(pair, _BOTH, strict=True)))
            axes_of[title].set_ylabel(title)
            legend(axes_of[title], entries)
        last = axes_of["AUROC"]
        entries = _curves(last, metrics, scores)
        last.set_ylabel("validation AUROC")
        if len(entries) > 1:
            # Beside the axes, where no curve can lie under it.
            legend(last, entries, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0,
                   ncols=1 + (len(entries) - 1) // _MOST_NAMES, fontsize=8)  # fmt: skip
        return figure


def _curves(axes: Axes, metrics: pd.DataFrame, names: dict[str, str]) -> list[tuple[Artist, str]]:
    entries: list[tuple[Artist, str]] = []
    for name in names:
        if name in metrics and metrics[name].notna().any():
            number = len(entries)
            known = metrics[metrics[name].notna()]
            look = _LOOKS[number % len(_LOOKS)]
            places = known["epoch"] + 1
            if STRENGTH in metrics:
                known = known.sort_values(STRENGTH)
                places = known[STRENGTH]
            (line,) = axes.plot(places, known[name], marker="o", markersize=3, **look)
            entries.append((line, shown(names[name], 26, 2)))
    if STRENGTH in metrics:
        strengths = sorted({*metrics[STRENGTH].dropna()})
        named = strengths[:: -(-len(strengths) // _MOST_STRENGTHS)]
        axes.set_xlim(strengths[0] / 2, strengths[-1] * 2)  # first: of one strength there are no limits
        axes.set_xscale("log")
        axes.set_xticks(named, [f"{strength:g}" for strength in named])
        axes.minorticks_off()
        axes.set_xlabel("strength C: the larger, the weaker the penalty")
    else:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return entries
