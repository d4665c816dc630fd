"""Figures of what the checks of heatmaps measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrlab.heatmaps.checks import RANDOM, RANDOM_ORDER
from cxrlab.heatmaps.results import ExplanationResult, FaithfulnessResult, PointingResult, RandomizationResult
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.report.explanation_tables import (
    PRIOR_NAMES,
    boxed_pointing,
    finding_name,
    findings_of,
    source_names,
)
from cxrlab.report.figures.style import (
    COLOURS,
    LINES,
    MARKERS,
    MUTED,
    Look,
    legend,
    new_figure,
    points,
    shown,
    styled,
)
from cxrlab.report.formatting import level

DESCRIPTIONS = {
    "pointing": "How often heatmaps point at each finding, beside random weights, usual places and chance",
    "randomization": "How alike heatmaps stay as the network gets random weights, from the head to the stem",
    "faithfulness": "Probability as pixels are taken away or brought back in the order of the heatmaps",
}
_SPREAD = 0.8  # of the points within the row of a finding
_MUTED = {"box_frequency": "D", "image_centre": "P", "uniform_chance": "X"}


def explanation_figures(result: ExplanationResult) -> dict[str, Figure]:
    """Return the figures for which there is something to draw, by name."""
    drawn = {}
    if (boxed := boxed_pointing(result)) is not None:
        drawn["pointing"] = pointing(result, boxed)
    if result.randomization is not None:
        drawn["randomization"] = randomization(result.randomization, result.methods)
    if result.faithfulness is not None:
        drawn["faithfulness"] = faithfulness(result.faithfulness, result.methods)
    return drawn


def pointing(result: ExplanationResult, boxed: PointingResult) -> Figure:
    """Draw how often each source points at each finding."""
    names, findings = source_names(result), findings_of(boxed)
    methods = list(result.methods)
    sources = [*methods, *(RANDOM + method for method in methods), *PRIOR_NAMES]
    with styled():
        figure = new_figure(8.2, 1.5 + len(findings) * (0.16 + 0.11 * len(sources)) + 0.16 * len(sources) / 3)
        axes, entries = figure.subplots(), []
        for number, source in enumerate(sources):
            shift = _SPREAD * ((number + 0.5) / len(sources) - 0.5)
            rows = [
                (place + shift, boxed.findings[finding][source]["pointing"])
                for place, finding in enumerate(findings)
            ]
            defined = [(place, estimate) for place, estimate in rows if estimate.value is not None]
            if defined:
                places, estimates = zip(*defined, strict=True)
                entries.append((points(axes, estimates, places, **_look(methods, source)), names[source]))
        axes.set_yticks(range(len(findings)), [shown(finding_name(finding)) for finding in findings])
        axes.set(ylim=(len(findings) - 0.5, -0.5), xlim=(-0.02, 1.02))
        axes.grid(axis="y", visible=False)
        for place in range(1, len(findings)):
            axes.axhline(place - 0.5, color="#dddddd", linewidth=0.8, zorder=0)
        coverage = level(result.interval.level)
        axes.set_xlabel(
            f"share of cases in which the point lies in a box of the finding ({coverage} interval)"
        )
        legend(figure, entries, loc="outside upper left", ncols=3)
        return figure


def _look(methods: Sequence[str], source: str) -> Look:
    if source in _MUTED:
        return {"fmt": _MUTED[source], "color": MUTED, "markersize": 5}
    method = source.removeprefix(RANDOM)
    number = methods.index(method)
    look: Look = {"fmt": MARKERS[number % len(MARKERS)], "color": COLOURS[number % len(COLOURS)]}
    return look if method == source else {**look, "markerfacecolor": "white"}


def randomization(measured: RandomizationResult, names: Mapping[str, str]) -> Figure:
    """Draw how alike maps stay to those of the trained network, by rank correlation and SSIM."""
    steps = ["trained", *measured.steps]
    with styled():
        figure = new_figure(8.6, 3.5)
        ranks, similarity = figure.subplots(1, 2)
        entries: list[Any] = []
        for number, (method, likeness) in enumerate(measured.methods.items()):
            look: Look = {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number % len(LINES)]}
            _curve(ranks, [Estimate(1.0), *likeness.rank_correlation], look)
            line = _curve(similarity, [Estimate(1.0), *likeness.ssim], look)
            entries.append((line, names[method]))
        for axes, title in ((ranks, "rank correlation"), (similarity, "SSIM")):
            axes.axhline(0, color=MUTED, linewidth=0.8)
            axes.set_xticks(
                range(len(steps)), [shown(step, 14, 2) for step in steps], rotation=40, ha="right"
            )
            axes.set_title(f"{title} with the trained network's maps")
            axes.set_ylim(min(-0.1, axes.get_ylim()[0]), 1.05)
        figure.supxlabel("weights made random, from the head to here")
        legend(figure, entries, loc="outside upper left", ncols=4)
        return figure


def _curve(axes: Axes, estimates: Sequence[Estimate], look: Look) -> Any:
    defined = [
        (place, entry, entry.value) for place, entry in enumerate(estimates) if entry.value is not None
    ]
    places = [place for place, _, _ in defined]
    (line,) = axes.plot(places, [value for _, _, value in defined], marker="o", markersize=4, **look)
    lows = [value if estimate.low is None else estimate.low for _, estimate, value in defined]
    highs = [value if estimate.high is None else estimate.high for _, estimate, value in defined]
    axes.fill_between(places, lows, highs, color=look["color"], alpha=0.15, linewidth=0)
    return line


def faithfulness(measured: FaithfulnessResult, names: Mapping[str, str]) -> Figure:
    """Draw the mean probability as pixels are taken away, and as they are brought back."""
    with styled():
        figure = new_figure(8.6, 3.4)
        deletion, insertion = figure.subplots(1, 2, sharey=True)
        entries: list[Any] = []
        for number, (method, curves) in enumerate(measured.methods.items()):
            look: Look = {
                "color": COLOURS[number % len(COLOURS)],
                "linestyle": LINES[number % len(LINES)],
            }
            if method == RANDOM_ORDER:
                look = {"color": MUTED, "linestyle": "--"}
            deletion.plot(measured.shares, curves.deletion.curve, **look)
            (line,) = insertion.plot(measured.shares, curves.insertion.curve, **look)
            entries.append((line, names.get(method, method)))
        deletion.set_title("deletion: the hottest pixels go first")
        insertion.set_title("insertion: the hottest pixels come first")
        for axes in (deletion, insertion):
            axes.set(xlim=(0, 1), ylim=(0, 1))
        deletion.set_ylabel("mean probability of the finding")
        figure.supxlabel("share of the pixels")
        legend(figure, entries, loc="outside upper left", ncols=4)
        return figure
