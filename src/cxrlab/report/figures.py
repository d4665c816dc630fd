"""Figures of a run, in one style that colour-blind readers can read."""

from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colours, told apart by readers with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", ":")


def learning_curves(metrics: pd.DataFrame, path: Path) -> None:
    """Draw the losses and the validation AUROC by label over the epochs.

    Args:
        metrics: One row an epoch, as in ``metrics.csv``.
        path: The PNG file.
    """
    with matplotlib.rc_context({"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
                                "grid.alpha": 0.3, "font.size": 10}):  # fmt: skip
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        losses, scores = figure.subplots(1, 2)
        _curves(losses, metrics, {"train/loss": "training", "val/loss": "validation"})
        losses.set_ylabel("loss")
        labels = {n: n.removeprefix("val/auroc/") for n in map(str, metrics) if n.startswith("val/auroc/")}
        single = len(labels) == 1
        _curves(
            scores, metrics, {"val/auroc": "AUROC" if single else "macro mean"} | ({} if single else labels)
        )
        scores.set_ylabel("validation AUROC")
        figure.savefig(path, dpi=150)


def _curves(axes: Axes, metrics: pd.DataFrame, names: dict[str, str]) -> None:
    drawn = [name for name in names if name in metrics and metrics[name].notna().any()]
    for number, name in enumerate(drawn):
        known = metrics[metrics[name].notna()]
        axes.plot(
            known["epoch"] + 1, known[name], label=names[name], marker="o", markersize=3,
            color=COLOURS[number % len(COLOURS)], linestyle=_STYLES[number // len(COLOURS) % len(_STYLES)],
            linewidth=2.2 if number == 0 else 1.2,
        )  # fmt: skip
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if drawn:
        axes.legend(fontsize=8, frameon=False, ncols=1 + len(drawn) // 8)
