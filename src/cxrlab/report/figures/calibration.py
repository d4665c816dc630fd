"""Whether probabilities can be taken at their word: predicted against observed, by label."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cxrlab.report.figures.style import COLOURS, INK, MUTED, legend, shown, small_multiples, styled, whiskers
from cxrlab.report.formatting import level, number

Numbers = dict[str, Any]

_STAGES = {"before": (COLOURS[1], "s", "as the model gives them"), "after": (COLOURS[0], "o", "recalibrated")}
_LARGEST, _SMALLEST = 30.0, 5.0  # area of a marker, in square points
_RARE = 0.1  # median prevalence below which the lower left corner is drawn larger
_TICKS = {True: (0, 0.05, 0.2, 0.5, 1), False: (0, 0.5, 1)}


def reliability(numbers: Numbers) -> Figure | None:
    """Draw observed frequency against predicted probability, before and after recalibration, by label.

    Each point is a bin of images, its area their number. Where findings are rare, both axes are on a
    square-root scale, since calibrated probabilities are then all small. None where there are no bins.

    Args:
        numbers: Content of ``evaluation.json``.
    """
    found = (numbers["calibration"] or {"labels": {}})["labels"]
    if not any(_bins(row, stage) for row in found.values() for stage in _STAGES):
        return None
    is_rare = _is_rare(numbers)
    with styled():
        figure, panels = small_multiples([_title(label, row) for label, row in found.items()], around=1.2)
        for axes, row in zip(panels, found.values(), strict=True):
            _panel(axes, row, is_rare)
        scale = "; both axes: square-root scale" if is_rare else ""
        whisker = f"whiskers: {level(numbers['interval']['level'])} interval"
        figure.supxlabel(f"predicted probability, mean of a bin\n({whisker}{scale})")
        figure.supylabel("observed frequency")
        legend(figure, _entries(found), loc="outside upper left", ncols=1 if len(panels) == 1 else 2)
        return figure


def _bins(row: Numbers, stage: str) -> list[Numbers]:
    bins = row[stage]["bins"] if row[stage] is not None else []
    return [one for one in bins if one["predicted"] is not None and one["observed"]["value"] is not None]


def _is_rare(numbers: Numbers) -> bool:
    shares = [row["positives"] / row["images"] for row in numbers["counts"].values() if row["images"]]
    return float(np.median(shares)) < _RARE if shares else False


def _title(label: str, row: Numbers) -> str:
    errors = [number(row[stage]["ece"]["value"]) if row[stage] is not None else None for stage in _STAGES]
    return f"{shown(label)}\nECE {errors[0]}" + (f", then {errors[1]}" if errors[1] is not None else "")


def _panel(axes: Axes, row: Numbers, is_rare: bool) -> None:
    if is_rare:
        scale: Any = {"functions": (lambda x: np.sqrt(np.maximum(x, 0)), np.square)}
        axes.set_xscale("function", **scale)
        axes.set_yscale("function", **scale)
    ticks = _TICKS[is_rare]
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=0.9, zorder=1)
    most = max((one["images"] for stage in _STAGES for one in _bins(row, stage)), default=1)
    for stage, (colour, marker, _) in _STAGES.items():
        if bins := _bins(row, stage):
            x, observed = [one["predicted"] for one in bins], [one["observed"] for one in bins]
            y = [one["value"] for one in observed]
            areas = [_SMALLEST + (_LARGEST - _SMALLEST) * one["images"] / most for one in bins]
            axes.errorbar(x, y, yerr=whiskers(observed), fmt="none", ecolor=colour, elinewidth=1, zorder=2)
            axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.6, zorder=2)
            axes.scatter(x, y, areas, color=colour, marker=marker, edgecolors="white", linewidths=0.5,
                         zorder=3, clip_on=False)  # fmt: skip


def _entries(found: dict[str, Numbers]) -> list[Any]:
    """Return the legend."""
    entries: list[Any] = [
        (Line2D([], [], color=colour, marker=marker, linewidth=1), f"probabilities {meaning}")
        for stage, (colour, marker, meaning) in _STAGES.items()
        if any(_bins(row, stage) for row in found.values())
    ]
    entries.append((Line2D([], [], color=MUTED, linestyle="--", linewidth=0.9), "calibrated"))
    sizes = {one["images"] for row in found.values() for stage in _STAGES for one in _bins(row, stage)}
    if max(sizes) > 1.5 * min(sizes):
        dots = Line2D([], [], color=INK, marker="o", linestyle="none", markersize=_LARGEST**0.5)
        entries.append((dots, "larger: more images in the bin"))
    return entries
