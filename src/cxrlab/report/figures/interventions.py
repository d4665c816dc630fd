"""One radiograph as it is, and as interventions change it."""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from cxrlab.report.figures.style import new_figure, shown, styled

_COLUMNS = 5


def changed_images(images: Mapping[str, npt.NDArray[np.uint8]]) -> Figure | None:
    """Return the images side by side; None without any.

    Args:
        images: Values 0 to 255, shapes ``(C, H, W)``, by title.
    """
    if not images:
        return None
    num_rows = math.ceil(len(images) / _COLUMNS)
    with styled():
        figure = new_figure(1.7 * _COLUMNS, 2.0 * num_rows)
        grid = figure.subplots(num_rows, _COLUMNS, squeeze=False).ravel()
        for axes in grid:
            axes.axis("off")
        for axes, (title, image) in zip(grid, images.items(), strict=False):
            pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
            axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
            axes.set_title(shown(title, 18, 2), fontsize=9)
        return figure
