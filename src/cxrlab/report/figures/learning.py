"""Learning curves of a run."""

from pathlib import Path

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


def learning_curves(metrics: pd.DataFrame, path: Path) -> None:
    """Draw the losses and the validation AUROC by label over the epochs.

    Args:
        metrics: One row an epoch, as in ``metrics.csv``.
        path: The PNG file.

    Raises:
        OutputError: If it cannot be written.
    """
    save_png(draw_learning_curves(metrics), path)


def draw_learning_curves(metrics: pd.DataFrame) -> Figure:
    """Return the figure of the losses and the validation AUROC by label over the epochs.

    Args:
        metrics: One row an epoch, as in ``metrics.csv``.
    """
    names = {n: n.removeprefix("val/auroc/") for n in map(str, metrics) if n.startswith("val/auroc/")}
    single = len(names) == 1
    scores = {"val/auroc": "AUROC" if single else "macro mean"} | ({} if single else names)
    with styled():
        figure = new_figure(10.5 + 1.5 * (len(scores) > _MOST_NAMES), 4.2)
        left, right = figure.subplots(1, 2)
        entries = _curves(left, metrics, {"train/loss": "training", "val/loss": "validation"})
        left.set_ylabel("loss")
        legend(left, entries)
        entries = _curves(right, metrics, scores)
        right.set_ylabel("validation AUROC")
        if len(entries) > 1:
            # Beside the axes, where no curve can lie under it.
            legend(right, entries, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0,
                   ncols=1 + (len(entries) - 1) // _MOST_NAMES, fontsize=8)  # fmt: skip
        return figure


def _curves(axes: Axes, metrics: pd.DataFrame, names: dict[str, str]) -> list[tuple[Artist, str]]:
    entries: list[tuple[Artist, str]] = []
    for name in names:
        if name in metrics and metrics[name].notna().any():
            number = len(entries)
            known = metrics[metrics[name].notna()]
            look = _LOOKS[number % len(_LOOKS)]
            (line,) = axes.plot(known["epoch"] + 1, known[name], marker="o", markersize=3, **look)
            entries.append((line, shown(names[name], 26, 2)))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return entries
