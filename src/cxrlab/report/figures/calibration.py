"""Whether probabilities can be taken at their word: predicted against observed, by label."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.special import expit

from cxrlab.evaluation.results import EvaluationResult
from cxrlab.metrics.calibration import LabelCalibration, ReliabilityBin
from cxrlab.metrics.cox import logits_of
from cxrlab.metrics.predictions import Floats
from cxrlab.report.figures.style import COLOURS, INK, MUTED, legend, shown, small_multiples, styled, whiskers
from cxrlab.report.formatting import level, number

_STAGES = {"before": (COLOURS[1], "s", "as the model gives them"), "after": (COLOURS[0], "o", "recalibrated")}
_LARGEST, _SMALLEST = 30.0, 5.0  # area of a marker, in square points
_RARE = 0.1  # median prevalence below which the lower left corner is drawn larger
_POINTS = 100  # of a curve
_TICKS = {True: (0, 0.05, 0.2, 0.5, 1), False: (0, 0.5, 1)}


def reliability(result: EvaluationResult) -> Figure | None:
    """Draw observed frequency against predicted probability, before and after recalibration, by label.

    Each point is a bin of images, its area their number; the curve is what slope and intercept say. Where
    findings are rare, both axes are on a square-root scale, since calibrated probabilities are then all
    small. None where there are no bins.
    """
    labels = result.calibration.labels
    if not any(_bins(calibration, stage) for calibration in labels.values() for stage in _STAGES):
        return None
    is_rare = _is_rare(result)
    with styled():
        titles = [_title(label, calibration) for label, calibration in labels.items()]
        figure, panels = small_multiples(titles, around=1.2)
        for axes, calibration in zip(panels, labels.values(), strict=True):
            _panel(axes, calibration, is_rare)
        scale = "; both axes: square-root scale" if is_rare else ""
        whisker = f"whiskers: {level(result.interval.level)} interval"
        figure.supxlabel(f"predicted probability, mean of a bin\n({whisker}{scale})")
        figure.supylabel("observed frequency")
        legend(figure, _entries(labels), loc="outside upper left", ncols=1 if len(panels) == 1 else 2)
        return figure


def _bins(calibration: LabelCalibration, stage: str) -> list[ReliabilityBin]:
    """Return the bins that can be drawn, of the probabilities ``before`` or ``after`` recalibration."""
    reliability = calibration.before if stage == "before" else calibration.after
    bins = [] if reliability is None else reliability.bins
    return [bin for bin in bins if bin.predicted is not None and bin.observed.value is not None]


def _is_rare(result: EvaluationResult) -> bool:
    shares = [counts.positives / counts.images for counts in result.counts.values() if counts.images]
    return float(np.median(shares)) < _RARE if shares else False


def _title(label: str, calibration: LabelCalibration) -> str:
    stages = [stage for stage in (calibration.before, calibration.after) if stage is not None]
    if all(stage.slope.value is None for stage in stages):
        return f"{shown(label)}\nno slope fitted"
    return f"{shown(label)}\nslope {', then '.join(number(stage.slope.value, 2) for stage in stages)}"


def _panel(axes: Axes, calibration: LabelCalibration, is_rare: bool) -> None:
    if is_rare:
        scale: Any = {"functions": (lambda x: np.sqrt(np.maximum(x, 0)), np.square)}
        axes.set_xscale("function", **scale)
        axes.set_yscale("function", **scale)
    ticks = _TICKS[is_rare]
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=0.9, zorder=1)
    most = max((bin.images for stage in _STAGES for bin in _bins(calibration, stage)), default=1)
    for stage, (colour, marker, _) in _STAGES.items():
        if bins := _bins(calibration, stage):
            x, observed = [bin.predicted for bin in bins], [bin.observed for bin in bins]
            y: Any = [estimate.value for estimate in observed]
            areas = [_SMALLEST + (_LARGEST - _SMALLEST) * bin.images / most for bin in bins]
            axes.errorbar(x, y, yerr=whiskers(observed), fmt="none", ecolor=colour, elinewidth=1, zorder=2)
            if line := _line(calibration, stage):
                axes.plot(*line, color=colour, linewidth=1, alpha=0.7, zorder=2)
            axes.scatter(x, y, areas, color=colour, marker=marker, edgecolors="white", linewidths=0.5,
                         zorder=3, clip_on=False)  # fmt: skip


def _line(calibration: LabelCalibration, stage: str) -> tuple[Floats, Floats] | None:
    """Return the curve that slope and intercept give over the range of the bins; None where no slope fits."""
    reliability = calibration.before if stage == "before" else calibration.after
    if reliability is None or reliability.slope.value is None or reliability.intercept.value is None:
        return None
    ends = [bin.predicted for bin in _bins(calibration, stage)]
    x = np.linspace(min(ends), max(ends), _POINTS)
    return x, expit(reliability.slope.value * logits_of(x) + reliability.intercept.value)


def _entries(labels: Mapping[str, LabelCalibration]) -> list[Any]:
    """Return the legend."""
    entries: list[Any] = [
        (Line2D([], [], color=colour, marker=marker, linewidth=1), f"probabilities {meaning}")
        for stage, (colour, marker, meaning) in _STAGES.items()
        if any(_bins(calibration, stage) for calibration in labels.values())
    ]
    entries.append((Line2D([], [], color=MUTED, linestyle="--", linewidth=0.9), "calibrated"))
    sizes = {bin.images for row in labels.values() for stage in _STAGES for bin in _bins(row, stage)}
    if max(sizes) > 1.5 * min(sizes):
        dots = Line2D([], [], color=INK, marker="o", linestyle="none", markersize=_LARGEST**0.5)
        entries.append((dots, "larger: more images in the bin"))
    return entries
