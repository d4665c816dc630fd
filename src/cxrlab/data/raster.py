"""PNG, JPEG, TIFF, BMP, WebP and GIF -> an image of eight bits, by Pillow.

Each is opened by its own class: `Image.open` would warn of 90 million pixels, and knows no other limit.
"""

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

# Of an image's width and height, the width and height below which it must not be reduced.
Enough = Callable[[int, int], tuple[int, int]]

# Four times the pixels of the largest detectors; a decompression bomb has more.
MAX_PIXELS = 2**27

_FAST_MODES = {"L": "mono", "RGB": "rgb", "RGBA": "rgba"}
_WHITE_IS_ZERO, _PHOTOMETRIC, _SUBFILE = 0, 262, 254
# A smaller copy of the image may stand beside it in a TIFF; more pages than this are read by nobody.
_MOST_PAGES = 64


class Opened(NamedTuple):
    """An image that is decoded.

    Attributes:
        image: Possibly smaller than the file's.
        mode: Pillow's, or a DICOM file's photometric interpretation.
        width: Of the file, in pixels.
        height: Of the file, in pixels.
        warning: Why this may be no chest radiograph, or empty.
    """

    image: Image.Image
    mode: str
    width: int
    height: int
    warning: str = ""


def check_size(width: int, height: int) -> None:
    """Refuse an image of more than ``MAX_PIXELS`` before it is decoded.

    Raises:
        ValueError: If it has more.
    """
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than the {MAX_PIXELS:,} allowed")


def _check_single(has_more: bool, what: str = "frames") -> None:
    if has_more:
        raise ValueError(f"it has several {what}, and a radiograph has one")


def open_raster(data: bytes, form: str, draft_mode: str | None, enough: Enough) -> Opened:
    """Decode an image.

    Args:
        data: The file's bytes.
        form: ``PNG``, ``JPEG``, ``TIFF``, ``BMP``, ``WEBP`` or ``GIF``.
        draft_mode: Mode that a JPEG may be decoded to, where that is less work; None for its own.
        enough: How small a JPEG may be decoded.

    Raises:
        ValueError: If it is damaged, larger than ``MAX_PIXELS``, or has several frames.
    """
    try:
        with _quiet():
            if form == "JPEG":
                return _open_jpeg(data, draft_mode, enough)
            return _OPENERS[form](data)
    except MemoryError:
        raise
    except Exception as error:  # on damaged bytes Pillow raises whatever comes: KeyError, TypeError, its own
        raise ValueError(str(error) or type(error).__name__) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's remarks on odd tags out of the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def _png_decoder() -> Callable[..., Any] | None:
    """Return a decoder of 8-bit PNG that takes half of Pillow's time, where its wheel could be installed."""
    try:
        return importlib.import_module("kornia_rs.io").decode_image_png_u8  # type: ignore[no-any-return]
    except (ImportError, AttributeError):
        return None


def _fast_png(data: bytes, image: Image.Image) -> Image.Image | None:
    """Return the decoded image, or None where Pillow must decode it or say what is wrong with it."""
    decoder = _png_decoder()
    if decoder is None or image.mode not in _FAST_MODES:
        return None
    try:
        pixels = decoder(data, (image.height, image.width), _FAST_MODES[image.mode])
    except Exception:  # other bit depths, a transparent colour, or a fault: the types differ between versions
        return None
    return Image.fromarray(pixels[..., 0] if image.mode == "L" else pixels)


def _loaded(image: Image.Image) -> Opened:
    check_size(*image.size)
    opened = Opened(image, image.mode, *image.size)
    image.load()
    return opened


def _open_png(data: bytes) -> Opened:
    image = PngImageFile(BytesIO(data))
    check_size(*image.size)
    _check_single(getattr(image, "n_frames", 1) > 1)
    if (fast := _fast_png(data, image)) is not None:
        return Opened(fast, image.mode, *image.size)
    return _loaded(image)


def _open_jpeg(data: bytes, draft_mode: str | None, enough: Enough) -> Opened:
    image = JpegImageFile(BytesIO(data))
    check_size(*image.size)
    opened = Opened(image, image.mode, *image.size)
    image.draft(draft_mode, enough(*image.size))
    image.load()
    return opened


def _open_tiff(data: bytes) -> Opened:
    image = TiffImageFile(BytesIO(data))
    check_size(*image.size)
    _check_single(_has_pages(image), "pages")
    image.seek(0)
    photometric = image.tag_v2.get(_PHOTOMETRIC)
    opened = _loaded(image)
    if photometric == _WHITE_IS_ZERO and opened.mode.startswith("I"):  # Pillow inverts eight bits only
        return opened._replace(image=Image.fromarray(65535 - np.asarray(image).astype(np.uint16)))
    return opened


def _has_pages(image: TiffImageFile) -> bool:
    """Tell whether there is a second page; a smaller copy of the first, which viewers show, is none."""
    count = 0
    for page in range(_MOST_PAGES):
        try:
            image.seek(page)
        except EOFError:
            return count > 1
        count += not int(image.tag_v2.get(_SUBFILE) or 0) & 1
        if count > 1:
            return True
    return True


def _open_bmp(data: bytes) -> Opened:
    return _loaded(BmpImageFile(BytesIO(data)))


def _open_webp(data: bytes) -> Opened:
    check_size(*_webp_size(data))  # Pillow makes room for all pixels when it opens one
    image = WebPImageFile(BytesIO(data))
    _check_single(getattr(image, "n_frames", 1) > 1)
    return _loaded(image)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return width and height as the header tells them (RFC 9649)."""
    kind, body = data[12:16], data[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF


def _open_gif(data: bytes) -> Opened:
    image = GifImageFile(BytesIO(data))
    check_size(*image.size)
    _check_single(image.is_animated)
    return _loaded(image)


_OPENERS = {"PNG": _open_png, "TIFF": _open_tiff, "BMP": _open_bmp, "WEBP": _open_webp, "GIF": _open_gif}


def to_eight_bits(image: Image.Image, channels: int) -> Image.Image:
    """Return an image of mode L, or RGB where three channels are wanted of a colour image.

    The alpha channel of a radiograph carries nothing; compositing would darken what it leaves transparent.

    Raises:
        ValueError: If its values are not of at most 16 bits.
    """
    if image.mode.startswith("I"):
        # Pillow opens a 16-bit PNG as I;16 or as I, depending on its version; the scale is the same.
        image = Image.fromarray(((_sixteen_bits(image) + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, which tell neither black nor white")
    elif image.mode not in {"L", "RGB", "RGBA"}:
        image = image.convert("L" if image.mode in {"1", "LA", "La"} else "RGB")
    return image if image.mode == "L" else image.convert("L" if channels == 1 else "RGB")


def _sixteen_bits(image: Image.Image) -> npt.NDArray[np.uint32]:
    values = np.asarray(image).astype(np.int64)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > 65535:
        raise ValueError(f"its values go from {lowest} to {highest}; 0 to 65535 can be read")
    return values.astype(np.uint32)
