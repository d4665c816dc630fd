"""One style for every figure: colours that any reader can tell apart, names shown as they are, panels."""

import unicodedata
from collections.abc import Sequence
from contextlib import AbstractContextManager
from textwrap import wrap
from typing import Any, TypedDict

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.typing import LineStyleType

from cxrlab.metrics.bootstrap import Estimate

# Okabe and Ito's colours, told apart by readers with any colour vision (jfly.uni-koeln.de/color).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")  # one more than colours: no pair comes twice in 56
LINES: tuple[LineStyleType, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
INK = "#222222"
MUTED = "#6b6b6b"
SEQUENTIAL = "Blues"  # one hue, from light to dark: its order survives grey print

RC: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "figure.facecolor": "white",
    "figure.labelsize": 9.5,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 9,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,  # names come from outside: a dollar sign in one is a dollar sign
    "text.usetex": False,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}
_WIDTHS = {1: 4.8, 2: 3.4, 3: 2.9, 4: 2.35}  # of one panel, in inches, by the number of columns
_LINE = 0.16  # of a title, in inches
_AROUND = 0.75  # room for a legend above all panels and a name of the axis beneath, in inches
_UNFIT = {"Cc", "Cs", "Cn"}  # control characters, half characters and no characters, which no XML may hold


class Look(TypedDict, total=False):
    """How a line or a point is drawn, in matplotlib's words."""

    color: str
    fmt: str
    linestyle: LineStyleType
    linewidth: float
    marker: str
    markersize: float
    markeredgecolor: str
    markerfacecolor: str
    zorder: float


def styled() -> AbstractContextManager[None]:
    """Return the context in which figures are made and saved: both read the settings.

    Example:
        >>> with styled():
        ...     figure = new_figure(4, 3)
    """
    return matplotlib.rc_context(RC)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches, of no window and no global state."""
    return Figure(figsize=(width, height), layout="constrained")


def shown(name: object, width: int = 28, lines: int = 3) -> str:
    r"""Return a name from the data fit for a figure: broken into lines, its middle left out if long.

    Long names often begin alike, such as those of the jobs of a sweep, and differ at their ends.

    Args:
        name: Of a label, a group or a model.
        width: Characters a line.
        lines: At most so many.

    Example:
        >>> shown("Enlarged cardiomediastinum", width=20)
        'Enlarged\ncardiomediastinum'
        >>> shown("model=resnet50,optimizer.lr=0.001", width=24, lines=1)
        'model=resnet…er.lr=0.001'
    """
    fit = "".join("\ufffd" if unicodedata.category(sign) in _UNFIT else sign for sign in str(name))
    room, rows = min(len(fit), width * lines + 1), wrap(fit, width)
    while len(rows) > lines:
        room -= 1
        end = room // 2
        rows = wrap(f"{fit[: room - end]}…{fit[len(fit) - end :]}", width)
    return "\n".join(rows) or "(no name)"


def points(
    axes: Axes, estimates: Sequence[Estimate], places: Sequence[float], **look: Any
) -> ErrorbarContainer:
    """Draw estimates as points with their intervals, as far as there are any, from left to right.

    Args:
        axes: Where.
        estimates: All with a value, shape ``(n,)``.
        places: Heights, shape ``(n,)``.
        **look: Of matplotlib's ``errorbar``.
    """
    values: Any = [estimate.value for estimate in estimates]
    settings: Any = {"fmt": "o", "markersize": 5.5, "elinewidth": 1.4, "zorder": 3} | look
    return axes.errorbar(values, places, xerr=whiskers(estimates), **settings)


def whiskers(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Return how far the intervals reach below and above the values, shape ``(2, n)``; 0 without interval."""
    below, above = [], []
    for estimate in estimates:
        if estimate.value is None or estimate.low is None or estimate.high is None:
            below.append(0.0)
            above.append(0.0)
        else:  # a value outside its percentile interval gets no whisker of negative length
            below.append(max(estimate.value - estimate.low, 0.0))
            above.append(max(estimate.high - estimate.value, 0.0))
    return [below, above]


def legend(
    target: Axes | Figure, entries: Sequence[tuple[Artist | ErrorbarContainer, str]], **place: Any
) -> Legend:
    """Draw a legend; a name that begins with an underscore is not left out of it.

    Args:
        target: Axes, or the figure.
        entries: Artists and what they mean.
        **place: Of matplotlib's ``legend``.
    """
    # matplotlib 3.9 leaves out what begins with an underscore; a thin space before it is hardly seen.
    texts = [("\u2009" + text) if text.startswith("_") else text for _, text in entries]
    artists: list[Any] = [artist for artist, _ in entries]
    return target.legend(artists, texts, **place)


def small_multiples(
    titles: Sequence[str], *, height: float = 1.0, around: float = _AROUND
) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels of one kind, of which only the outer ones carry numbers on their axes.

    Args:
        titles: Of the panels, at least one.
        height: Of a panel, in its widths, without its title.
        around: Room for a legend above all panels and a name of the axis beneath, in inches.
    """
    columns = min(len(titles), 4)
    lines = [
        max(title.count("\n") + 1 for title in titles[start : start + columns])
        for start in range(0, len(titles), columns)
    ]
    width = _WIDTHS[columns]
    figure = new_figure(
        width * columns, around + sum((width - 0.2) * height + _LINE * num + 0.1 for num in lines)
    )
    grid = list(figure.subplots(len(lines), columns, squeeze=False).flat)
    for number, (axes, title) in enumerate(zip(grid, titles, strict=False)):
        axes.set_title(title)
        axes.tick_params(labelleft=number % columns == 0, labelbottom=number + columns >= len(titles))
    for axes in grid[len(titles) :]:
        axes.remove()
    return figure, grid[: len(titles)]
