"""Decision curves: the net benefit of acting on the model beside acting on all images, or on none."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cxrlab.evaluation.decision_curve import ACT_ON_ALL, NET_BENEFIT, LabelDecisions
from cxrlab.evaluation.results import EvaluationResult
from cxrlab.report.figures.style import COLOURS, MUTED, Look, legend, shown, small_multiples, styled
from cxrlab.report.formatting import level, percent

_BAND = 0.22
_ALL: Look = {"color": COLOURS[1], "linestyle": "--", "linewidth": 1.2, "zorder": 2}
_NONE: Look = {"color": MUTED, "linestyle": "-", "linewidth": 0.9, "zorder": 1}
_DEPTH = 0.25  # how far below 0 a panel reaches, in prevalences


def decision_curves(result: EvaluationResult) -> Figure | None:
    """Draw the net benefit of each label with its band; None where there is none.

    Each panel has axes of its own: to five times the label's prevalence, and as high as acting on nobody but
    those with the finding would reach.
    """
    if result.decisions is None or not result.decisions.labels:
        return None
    labels = result.decisions.labels
    curves = {
        str(label): frame
        for label, frame in result.curves[result.curves["curve"].isin([NET_BENEFIT, ACT_ON_ALL])].groupby(
            "label"
        )
    }
    titles = [f"{shown(label)}\n{percent(found.prevalence)} have it" for label, found in labels.items()]
    with styled():
        figure, panels = small_multiples(titles, height=0.8)
        for axes, (label, found) in zip(panels, labels.items(), strict=True):
            _panel(axes, curves[label], found)
        figure.supxlabel("threshold probability: from which one would act")
        figure.supylabel("net benefit per 1,000 images")
        entries: list[Any] = [
            (Line2D([], [], color=COLOURS[0]), "acting on the model"),
            (
                Patch(color=COLOURS[0], alpha=_BAND, linewidth=0),
                f"{level(result.interval.level)} interval, point by point",
            ),
            (Line2D([], [], **_ALL), "acting on everybody"),
            (Line2D([], [], **_NONE), "acting on nobody"),
        ]
        legend(figure, entries, loc="outside upper left", ncols=2 if len(panels) < 3 else 4)
        return figure


def _panel(axes: Axes, curves: pd.DataFrame, found: LabelDecisions) -> None:
    top = 1000 * max(found.prevalence, 1e-4)
    model, everybody = (curves[curves["curve"] == name] for name in (NET_BENEFIT, ACT_ON_ALL))
    x, y = model["x"], 1000 * model["y"]
    axes.axhline(0, **_NONE)
    axes.plot(everybody["x"], 1000 * everybody["y"], **_ALL)
    axes.plot(x, y, color=COLOURS[0], linewidth=1.5, zorder=3)
    axes.fill_between(
        x,
        (1000 * model["low"]).fillna(y),
        (1000 * model["high"]).fillna(y),
        color=COLOURS[0],
        alpha=_BAND,
        linewidth=0,
    )
    axes.set(xlim=(0, float(x.max())), ylim=(-_DEPTH * top, 1.12 * top))
    axes.tick_params(labelleft=True, labelbottom=True)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
