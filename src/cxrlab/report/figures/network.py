"""A network drawn: its blocks from the image to the logits, with shapes and parameters."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from cxrlab.models.blocks import Block, Kind
from cxrlab.report.figures.style import COLOURS, new_figure, shown, styled

_COLOURS: dict[Kind, str] = {
    "convolution": COLOURS[0],
    "stage": COLOURS[0],
    "pooling": COLOURS[2],
    "normalisation": COLOURS[5],
    "dense": COLOURS[1],
    "dropout": COLOURS[3],
    "other": "0.6",
}
_INCHES = 0.42  # of a row
_TINT = 0.25
_BOX = (2.6, 6.3)  # from left to right, as what follows
_LEFT, _SHAPE, _RIGHT = 2.4, 6.6, 9.0


def draw_network(blocks: Sequence[Block], *, image_size: int, channels: int) -> Figure:
    """Return a figure of blocks below one another, each with the shape of its output and its parameters.

    Args:
        blocks: As of :func:`cxrlab.models.blocks.network_blocks`.
        image_size: Height and width of the images in pixels.
        channels: Their channels.
    """
    image = Block("", "image", "other", (channels, image_size, image_size), 0)
    rows = [image, *blocks]
    with styled():
        figure = new_figure(9.0, _INCHES * (len(rows) + 1.5))
        axes = figure.subplots()
        axes.set_xlim(0, _RIGHT)
        axes.set_ylim(len(rows) + 0.6, -1.0)
        axes.axis("off")
        for x, heading, side in ((_LEFT, "layer", "right"), (_SHAPE, "output", "left")):
            axes.text(x, -0.6, heading, ha=side, va="center", fontsize=9, color="0.4")
        axes.text(_RIGHT, -0.6, "parameters", ha="right", va="center", fontsize=9, color="0.4")
        for row, block in enumerate(rows):
            _draw_block(axes, row, block)
        total = f"{sum(block.parameters for block in blocks):,} in all"
        axes.text(_RIGHT, len(rows) + 0.1, total, ha="right", va="center", fontsize=9, weight="bold")
        return figure


def _draw_block(axes: Axes, row: int, block: Block) -> None:
    middle, colour = (_BOX[0] + _BOX[1]) / 2, _COLOURS[block.kind]
    if row and block.name:
        arrow = {"arrowstyle": "->", "color": "0.4"}
        axes.annotate("", (middle, row - 0.32), (middle, row - 0.68), arrowprops=arrow)
    box = FancyBboxPatch(
        (_BOX[0], row - 0.3), _BOX[1] - _BOX[0], 0.6, boxstyle="round,pad=0,rounding_size=0.1",
        edgecolor=colour, facecolor=(colour, _TINT), linewidth=2 if block.kind == "stage" else 1,
    )  # fmt: skip
    axes.add_patch(box)
    axes.text(middle, row, shown(block.title, 40, 1), ha="center", va="center", fontsize=9)
    if block.name:  # its last two parts tell it from the others
        name = shown(".".join(block.name.split(".")[-2:]), 28, 1)
        axes.text(_LEFT, row, name, ha="right", va="center", fontsize=8, color="0.3")
    shape = " \u00d7 ".join(map(str, block.shape))
    axes.text(_SHAPE, row, shape, ha="left", va="center", fontsize=9)
    if block.parameters:
        axes.text(_RIGHT, row, f"{block.parameters:,}", ha="right", va="center", fontsize=9)
