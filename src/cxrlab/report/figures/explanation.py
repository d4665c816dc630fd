"""Figures of what the checks of heatmaps found."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrlab.heatmaps.checks.case_bootstrap import MACRO
from cxrlab.heatmaps.checks.pointing import RANDOM
from cxrlab.heatmaps.checks.randomization import RANDOM_ORDER
from cxrlab.report.explanation_tables import PRIOR_NAMES, finding_name, source_names
from cxrlab.report.figures.style import (
    COLOURS,
    LINES,
    MARKERS,
    MUTED,
    legend,
    new_figure,
    points,
    shown,
    styled,
)
from cxrlab.report.formatting import level

Numbers = dict[str, Any]

DESCRIPTIONS = {
    "pointing": "How often heatmaps point at each finding, beside random weights, usual places and chance",
    "randomization": "How alike heatmaps stay as the network gets random weights, from the head to the stem",
    "faithfulness": "Probability as pixels are taken away or brought back in the order of the heatmaps",
}
_SPREAD = 0.8  # of the points within the row of a finding
_MUTED = {"box_frequency": "D", "image_centre": "P", "uniform_chance": "X"}


def explanation_figures(numbers: Numbers) -> dict[str, Figure]:
    """Return the figures for which there is something to draw, by name.

    Args:
        numbers: As in ``explanation.json``.
    """
    drawn = {
        "pointing": pointing(numbers) if numbers["pointing"]["cases"] else None,
        "randomization": randomization(numbers),
        "faithfulness": faithfulness(numbers),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def pointing(numbers: Numbers) -> Figure:
    """Draw how often each source points at each finding."""
    found, names = numbers["pointing"]["findings"], source_names(numbers)
    findings = [*numbers["pointing"]["cases"], *([MACRO] if len(found) > 2 else [])]
    sources = [*numbers["methods"], *(RANDOM + method for method in numbers["methods"]), *PRIOR_NAMES]
    with styled():
        figure = new_figure(8.2, 1.5 + len(findings) * (0.16 + 0.11 * len(sources)) + 0.16 * len(sources) / 3)
        axes, entries = figure.subplots(), []
        for number, source in enumerate(sources):
            shift = _SPREAD * ((number + 0.5) / len(sources) - 0.5)
            rows = [
                (place + shift, found[finding][source]["pointing"]) for place, finding in enumerate(findings)
            ]
            known = [(place, one) for place, one in rows if one["value"] is not None]
            if known:
                places, estimates = zip(*known, strict=True)
                entries.append((points(axes, estimates, places, **_look(numbers, source)), names[source]))
        axes.set_yticks(range(len(findings)), [shown(finding_name(one)) for one in findings])
        axes.set(ylim=(len(findings) - 0.5, -0.5), xlim=(-0.02, 1.02))
        axes.grid(axis="y", visible=False)
        for place in range(1, len(findings)):
            axes.axhline(place - 0.5, color="#dddddd", linewidth=0.8, zorder=0)
        interval = level(numbers["interval"]["level"])
        axes.set_xlabel(
            f"share of cases in which the point lies in a box of the finding ({interval} interval)"
        )
        legend(figure, entries, loc="outside upper left", ncols=3)
        return figure


def _look(numbers: Numbers, source: str) -> dict[str, Any]:
    if source in _MUTED:
        return {"fmt": _MUTED[source], "color": MUTED, "markersize": 5}
    method = source.removeprefix(RANDOM)
    number = list(numbers["methods"]).index(method)
    look = {"fmt": MARKERS[number % len(MARKERS)], "color": COLOURS[number % len(COLOURS)]}
    return look if method == source else {**look, "markerfacecolor": "white"}


def randomization(numbers: Numbers) -> Figure:
    """Draw how alike maps stay to those of the trained network, by rank correlation and SSIM."""
    found = numbers["randomization"]
    steps = ["trained", *found["steps"]]
    with styled():
        figure = new_figure(8.6, 3.5)
        panels = figure.subplots(1, 2)
        entries: list[Any] = []
        for axes, (key, title) in zip(
            panels, (("rank_correlation", "rank correlation"), ("ssim", "SSIM")), strict=True
        ):
            entries = []
            for number, (method, one) in enumerate(found["methods"].items()):
                same = {"value": 1.0, "low": None, "high": None}
                look = {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number % len(LINES)]}
                line = _curve(axes, [same, *one[key]], look)
                entries.append((line, numbers["methods"][method]))
            axes.axhline(0, color=MUTED, linewidth=0.8)
            axes.set_xticks(
                range(len(steps)), [shown(step, 14, 2) for step in steps], rotation=40, ha="right"
            )
            axes.set_title(f"{title} with the trained network's maps")
            axes.set_ylim(min(-0.1, axes.get_ylim()[0]), 1.05)
        figure.supxlabel("weights made random, from the head to here")
        legend(figure, entries, loc="outside upper left", ncols=4)
        return figure


def _curve(axes: Axes, estimates: list[Numbers], look: dict[str, Any]) -> Any:
    known = [(place, one) for place, one in enumerate(estimates) if one["value"] is not None]
    places = [place for place, _ in known]
    (line,) = axes.plot(places, [one["value"] for _, one in known], marker="o", markersize=4, **look)
    lows, highs = (
        [one["value"] if one[end] is None else one[end] for _, one in known] for end in ("low", "high")
    )
    axes.fill_between(places, lows, highs, color=look["color"], alpha=0.15, linewidth=0)
    return line


def faithfulness(numbers: Numbers) -> Figure:
    """Draw the mean probability as pixels are taken away, and as they are brought back."""
    found = numbers["faithfulness"]
    with styled():
        figure = new_figure(8.6, 3.4)
        panels = figure.subplots(1, 2, sharey=True)
        entries: list[Any] = []
        for axes, kind in zip(panels, ("deletion", "insertion"), strict=True):
            entries = []
            for number, (method, one) in enumerate(found["methods"].items()):
                look: dict[str, Any] = {
                    "color": COLOURS[number % len(COLOURS)],
                    "linestyle": LINES[number % len(LINES)],
                }
                if method == RANDOM_ORDER:
                    look = {"color": MUTED, "linestyle": "--"}
                (line,) = axes.plot(found["shares"], one[kind]["curve"], **look)
                entries.append((line, numbers["methods"].get(method, method)))
            axes.set_title(f"{kind}: the hottest pixels {'go' if kind == 'deletion' else 'come'} first")
            axes.set(xlim=(0, 1), ylim=(0, 1))
        panels[0].set_ylabel("mean probability of the finding")
        figure.supxlabel("share of the pixels")
        legend(figure, entries, loc="outside upper left", ncols=4)
        return figure
