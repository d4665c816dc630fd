"""The one place where pixels are decoded and resized: any image file -> uint8 array."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from cxrlab.errors import DataError, MissingFileError

SUFFIXES = (".png", ".jpg", ".jpeg")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return an image of mode L or RGB; 16-bit values keep their most significant byte."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        # Pillow opens a 16-bit PNG as I;16 or as I, depending on its version; the scale is the same.
        return Image.fromarray(np.clip(values / 257.0 + 0.5, 0, 255).astype(np.uint8))
    if image.mode in {"L", "RGB"}:
        return image
    # The alpha channel of a radiograph carries nothing; compositing would darken what it leaves transparent.
    return image.convert("L" if image.mode in {"1", "LA", "La"} else "RGB")


def decode(path: Path, *, image_size: int, channels: int) -> npt.NDArray[np.uint8]:
    """Read an image file, convert and resize it.

    The aspect ratio is not kept (the whole field stretches to a square), and the resize is antialiased.

    Args:
        path: A PNG or JPEG file of mode L, LA, RGB, RGBA, P, 1 or I;16.
        image_size: Height and width of the result in pixels.
        channels: 1 for grey values (ITU-R 601 luma of a colour image), 3 for RGB.

    Returns:
        Values 0 to 255, shape ``(channels, image_size, image_size)``.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If the file is empty, cut short, or no image.
    """
    try:
        with Image.open(path) as image:
            # JPEG can decode at a half, quarter or eighth of its size, at a fraction of the cost;
            # twice the size that is wanted leaves the antialiased resize something to average.
            image.draft(None, (2 * image_size, 2 * image_size))
            image.load()
            converted = _to_eight_bits(image).convert("L" if channels == 1 else "RGB")
    except FileNotFoundError as error:
        raise MissingFileError(f"There is no image {path}.") from error
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        size = path.stat().st_size
        raise DataError(f"The image {path} ({size} bytes) cannot be read: {error}.") from error
    resized = converted.resize((image_size, image_size), Image.Resampling.BILINEAR)
    array = np.array(resized, dtype=np.uint8)  # a copy: Pillow lends its memory read-only
    return np.ascontiguousarray(array[None] if channels == 1 else array.transpose(2, 0, 1))
