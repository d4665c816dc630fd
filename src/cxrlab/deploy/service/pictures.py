"""Heatmaps as pictures that a page lays over a radiograph."""

import base64
import io

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

# As of the panels of cxrlab explain: no step in the colours suggests an edge that the heat does not have.
_COLOURS = "inferno"
_MOST_OPAQUE = 0.85


def heat_png(heatmap: npt.NDArray[np.float32]) -> bytes:
    """Return a PNG of a heatmap: the colder a pixel, the more of what lies under it shows.

    Args:
        heatmap: Values 0 to 1, shape ``(H, W)``.
    """
    values = heatmap.clip(0.0, 1.0)
    colours = colormaps[_COLOURS](values)
    colours[..., 3] = _MOST_OPAQUE * values
    memory = io.BytesIO()
    Image.fromarray((colours * 255).round().astype(np.uint8)).save(memory, "PNG")
    return memory.getvalue()


def data_url(data: bytes, kind: str) -> str:
    """Return a picture as an address that holds all of it.

    Example:
        >>> data_url(b"abc", "png")
        'data:image/png;base64,YWJj'
    """
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
