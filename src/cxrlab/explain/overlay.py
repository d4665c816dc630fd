"""One picture for a reader: the radiograph, the heatmap over it, and what was predicted."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Box = tuple[float, float, float, float]

_MIN_SIDE = 256  # below this the text would not fit
_GAP = 4
_FONT_SIZE = 14
_STRIP_HEIGHT = 26
_MAX_ALPHA = 0.65
# Perceptually uniform, so that no step in the colours suggests an edge that the heat does not have.
_COLOURS = "inferno"
_BOX_COLOUR = (0, 255, 255)  # cyan is not in the colour map


def _radiograph(image: Tensor) -> Image.Image:
    """Return an RGB image whose shorter side is at least 256 pixels; the aspect ratio is kept."""
    values = image.cpu().numpy()
    picture = Image.fromarray(np.repeat(values, 3 // len(values), axis=0).transpose(1, 2, 0))
    factor = max(1.0, _MIN_SIDE / min(picture.size))
    if factor == 1.0:
        return picture
    size = (round(picture.width * factor), round(picture.height * factor))
    return picture.resize(size, Image.Resampling.BICUBIC)


def _blend(radiograph: Image.Image, heatmap: Tensor) -> Image.Image:
    """Lay the heatmap over the radiograph; the colder a pixel, the more of the radiograph shows."""
    heat = Image.fromarray(heatmap.cpu().float().numpy()).resize(radiograph.size, Image.Resampling.BILINEAR)
    values: npt.NDArray[np.float32] = np.asarray(heat, dtype=np.float32).clip(0.0, 1.0)
    colours = colormaps[_COLOURS](values)[..., :3] * 255.0
    alpha = _MAX_ALPHA * values[..., None]
    mixed = (1.0 - alpha) * np.asarray(radiograph, dtype=np.float32) + alpha * colours
    return Image.fromarray(mixed.round().astype(np.uint8))


def _draw_boxes(picture: Image.Image, boxes: Sequence[Box]) -> None:
    draw = ImageDraw.Draw(picture)
    for x, y, width, height in boxes:
        left, top = x * picture.width, y * picture.height
        right, bottom = left + width * picture.width, top + height * picture.height
        draw.rectangle(
            (left, top, min(right, picture.width - 1), min(bottom, picture.height - 1)), outline=_BOX_COLOUR
        )


def _caption(finding: str, probability: float, target: float, width: int) -> Image.Image:
    """Return the strip of text; a name that is too long is cut."""
    known = "unknown" if math.isnan(target) else "present" if target else "absent"
    text = f"probability {probability:.2f}   target {known}"
    strip = Image.new("RGB", (width, _STRIP_HEIGHT), "black")
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(_FONT_SIZE)
    room = width - 4 * _GAP - draw.textlength(text, font=font)
    name = finding
    while name and draw.textlength(name, font=font) > room:
        name = name[:-2].rstrip("…") + "…" if len(name) > 2 else ""
    middle = _STRIP_HEIGHT / 2
    draw.text((_GAP, middle), name, font=font, fill="white", anchor="lm")
    draw.text((width - _GAP, middle), text, font=font, fill="white", anchor="rm")
    return strip


def panel(
    image: Tensor,
    heatmap: Tensor,
    *,
    finding: str,
    probability: float,
    target: float,
    boxes: Sequence[Box],
) -> Image.Image:
    """Return the radiograph and, to its right, the heatmap over it, under a strip of text.

    Args:
        image: Values 0 to 255, uint8, shape ``(C, H, W)`` with C 1 or 3.
        heatmap: Values in [0, 1], shape ``(h, w)``; it is stretched to the image.
        finding: Name of the label that the heatmap explains.
        probability: Its predicted probability.
        target: 1 present, 0 absent, NaN unknown.
        boxes: Known places of the finding, ``(x, y, width, height)`` as fractions of the image; they are
            outlined on both sides.

    Returns:
        An RGB image; each side is at least 256 pixels wide.
    """
    left = _radiograph(image)
    right = _blend(left, heatmap)
    is_empty = not bool((heatmap > 0).any())
    for side in (left, right):
        _draw_boxes(side, boxes)
    picture = Image.new("RGB", (left.width + _GAP + right.width, _STRIP_HEIGHT + left.height), "black")
    note = " (empty map)" if is_empty else ""
    picture.paste(_caption(finding + note, probability, target, picture.width), (0, 0))
    picture.paste(left, (0, _STRIP_HEIGHT))
    picture.paste(right, (left.width + _GAP, _STRIP_HEIGHT))
    return picture
