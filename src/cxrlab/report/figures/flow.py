"""The flow of images and patients into the parts, as papers draw it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from cxrlab.data.flow import FlowStep
from cxrlab.evaluation.cohort import EVALUATED, Cohort, CohortPart
from cxrlab.report.figures.style import COLOURS, INK, MUTED, new_figure, shown, styled
from cxrlab.report.formatting import counted

PART_NAMES = {"train": "Training", "val": "Validation", "test": "Test", EVALUATED: "Evaluated"}

_REASONS = {
    "missing": "not on disk",
    "reader": "left out as the table was read",
    "filter": "filtered out",
    "unreadable": "could not be read",
    "sample": "not drawn for training",
    "part": "of another part",
    "trained_on": "of patients in the training",
    "other": "for reasons that were not recorded",
}
_WIDTH = 7.6  # of the figure, in inches
_LINE, _MARGIN, _GAP = 0.175, 0.2, 0.38  # of a text, around it, and between two boxes, in inches
_INDENT = "\u00a0" * 4  # blanks of an SVG's text are closed up
_SIDE = 36  # characters a line of what was left out


class _Box(NamedTuple):
    """A rectangle with its lines, the first in bold; x is its middle, y its upper edge, in inches."""

    x: float
    y: float
    width: float
    lines: Sequence[str]
    strong: bool = False

    @property
    def height(self) -> float:
        return _LINE * len(self.lines) + _MARGIN


def flow(cohort: Cohort) -> Figure | None:
    """Draw which images were listed, why some were left out, and what the parts hold.

    Args:
        cohort: Images and patients by part.

    Returns:
        The figure; None where nothing but one part is known.
    """
    if cohort.listed is None and len(cohort.parts) < 2:
        return None
    boxes, arrows = _boxes(cohort)
    depth = max(box.y + box.height for box in boxes)
    with styled():
        figure = new_figure(_WIDTH, depth + 0.1)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(0, _WIDTH)
        axes.set_ylim(depth + 0.05, -0.05)
        axes.set_axis_off()
        for start, end in arrows:
            _arrow(axes, start, end)
        for box in boxes:
            _draw(axes, box)
        figure.set_layout_engine(None)
        return figure


def _boxes(cohort: Cohort) -> tuple[list[_Box], list[tuple[tuple[float, float], tuple[float, float]]]]:
    """Return the boxes, and the arrows from one to the other."""
    boxes: list[_Box] = []
    arrows = []
    middle, y = _WIDTH / 2, 0.0
    if cohort.listed is not None:
        listed = _Box(1.9, y, 3.2, ["In the data set", counted(cohort.listed, "image")])
        side = _Box(5.65, 0.0, 3.7, _left_out_lines(cohort.steps))
        boxes += [listed, side]
        y = max(listed.height, side.height) + _GAP
        arrows.append(((listed.x, listed.height), (listed.x, y)))
        turn = min(listed.height + 0.12, y - 0.1) if side.height > listed.height else listed.height / 2
        if side.height <= listed.height + 0.2:
            turn = side.height / 2
            arrows.append(((listed.x + listed.width / 2, turn), (side.x - side.width / 2, turn)))
        else:
            arrows.append(((listed.x, turn), (side.x - side.width / 2, turn)))
        middle = listed.x
    if len(cohort.parts) > 1:
        used = _Box(middle, y, 3.2, ["Used", _images(cohort.images, _num_patients(cohort))])
        boxes.append(used)
        below = y + used.height
        y = below + _GAP
        arrows += [((middle, below), (x, y)) for x in _columns(len(cohort.parts))]
    columns = _columns(len(cohort.parts)) if len(cohort.parts) > 1 else [middle]
    width = 2.4 if len(cohort.parts) > 1 else 3.2
    boxes += [_part_box(part, x, y, width) for part, x in zip(cohort.parts, columns, strict=True)]
    return boxes, arrows


def _columns(count: int) -> list[float]:
    """Return the middles of so many boxes side by side."""
    return [_WIDTH * (2 * number + 1) / (2 * count) for number in range(count)]


def _num_patients(cohort: Cohort) -> int | None:
    """Return the patients of all parts; None where they are unknown, or some are in several."""
    numbers = [part.patients for part in cohort.parts]
    if cohort.shared_patients != 0:
        return None
    return sum(number for number in numbers if number is not None)


def _images(images: int, patients: int | None) -> str:
    return counted(images, "image") + ("" if patients is None else f" of {counted(patients, 'patient')}")


def _part_box(part: CohortPart, x: float, y: float, width: float) -> _Box:
    lines = [PART_NAMES[part.part], counted(part.images, "image")]
    if part.patients is not None:
        lines.append(counted(part.patients, "patient"))
    if part.without_label:
        lines.append(f"{part.without_label:,} without a known label")
    if part.evaluated and part.part != EVALUATED:
        lines.append(
            "evaluated here" if part.evaluated == part.images else f"{part.evaluated:,} evaluated here"
        )
    return _Box(x, y, width, lines, strong=part.evaluated > 0)


def _left_out_lines(steps: Sequence[FlowStep]) -> list[str]:
    """Return how many images were left out, and of these how many for each reason."""
    if not steps:
        return ["Left out", "not recorded"]
    lines = [f"Left out: {counted(sum(step.images for step in steps), 'image')}"]
    for step in steps:
        lines.append(f"{step.images:,} {_REASONS[step.reason]}")
        details = shown(step.detail, _SIDE, 2).split("\n") if step.images and step.detail else []
        if step.patients:
            verb = "has" if step.patients == 1 else "have"
            details.append(f"{counted(step.patients, 'patient')} {verb} none left")
        lines += [_INDENT + line for line in details]
    return lines


def _draw(axes: Axes, box: _Box) -> None:
    left, colour = box.x - box.width / 2, COLOURS[0] if box.strong else MUTED
    frame: Any = FancyBboxPatch(
        (left, box.y),
        box.width,
        box.height,
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor="#eaf2f8" if box.strong else "white",
        edgecolor=colour,
        linewidth=1.6 if box.strong else 1.0,
        zorder=2,
    )
    axes.add_patch(frame)
    is_list = len(box.lines) > 0 and box.lines[0].startswith("Left out")
    for number, line in enumerate(box.lines):
        axes.text(
            left + 0.12 if is_list else box.x,
            box.y + _MARGIN / 2 + _LINE * (number + 0.5),
            line,
            ha="left" if is_list else "center",
            va="center",
            fontweight="bold" if number == 0 else "normal",
            color=INK,
            zorder=3,
        )


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow: straight, or down, aside and down again."""
    if start[0] != end[0] and start[1] != end[1]:
        between = (start[1] + end[1]) / 2
        axes.plot(
            [start[0], start[0], end[0]], [start[1], between, between], color=MUTED, linewidth=1.0, zorder=1
        )
        start = (end[0], between)
    axes.annotate(
        "", end, start, zorder=1,
        arrowprops={"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip
