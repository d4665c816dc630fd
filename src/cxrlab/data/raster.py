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
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from cxrlab.data.grey_values import depth_of, picture_range

# Of an image's width and height, the width and height below which it must not be reduced.
Enough = Callable[[int, int], tuple[int, int]]

# Four times the pixels of the largest detectors; a decompression bomb has more.
MAX_PIXELS = 2**27

_FAST_MODES = {"L": "mono", "RGB": "rgb", "RGBA": "rgba"}
_SUBFILE, _BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 254, 258, 262, 0
_PNG_DEPTH = 24  # the byte
# A smaller copy of the image may stand beside it in a TIFF; more pages than this are read by nobody.
_MOST_PAGES = 64


class Opened(NamedTuple):
    """An image that is decoded.

    Attributes:
        image: Possibly smaller than the file's.
        mode: Pillow's, or a DICOM file's photometric interpretation.
        width: Of the file, in pixels.
        height: Of the file, in pixels.
        warning: Why this may be no chest radiograph, what its header says wrongly, or empty.
        depth: Bits that a value may take, as far as the format says; 16 says little.
        is_inverted: Whether 0 is white.
        doubt: Why this may be no chest radiograph, or empty.
    """

    image: Image.Image
    mode: str
    width: int
    height: int
    warning: str = ""
    depth: int = 8
    is_inverted: bool = False
    doubt: str = ""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image of more than ``max_pixels`` before it is decoded.

    Raises:
        ValueError: If it has more.
    """
    if width * height > max_pixels:
        raise ValueError(f"{width} x {height} pixels are more than the {max_pixels:,} allowed")


def _check_single(has_more: bool, what: str = "frames") -> None:
    if has_more:
        raise ValueError(f"it has several {what}, and a radiograph has one")


def open_raster(
    data: bytes, form: str, draft_mode: str | None, enough: Enough, max_pixels: int = MAX_PIXELS
) -> Opened:
    """Decode an image.

    Args:
        data: The file's bytes.
        form: ``PNG``, ``JPEG``, ``TIFF``, ``BMP``, ``WEBP`` or ``GIF``.
        draft_mode: Mode that a JPEG may be decoded to, where that is less work; None for its own.
        enough: How small a JPEG may be decoded.
        max_pixels: Width times height that is allowed; more is refused before it is decoded.

    Raises:
        ValueError: If it is damaged, larger than ``max_pixels``, or has several frames.
    """
    try:
        with _quiet():
            if form == "JPEG":
                return _open_jpeg(data, draft_mode, enough, max_pixels)
            return _OPENERS[form](data, max_pixels)
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


def _loaded(image: Image.Image, max_pixels: int) -> Opened:
    check_size(*image.size, max_pixels)
    opened = Opened(image, image.mode, *image.size)
    image.load()
    return opened


def _open_png(data: bytes, max_pixels: int) -> Opened:
    image = PngImageFile(BytesIO(data))
    check_size(*image.size, max_pixels)
    _check_single(getattr(image, "n_frames", 1) > 1)
    if data[_PNG_DEPTH] == 16:
        return _loaded(image, max_pixels)._replace(depth=16)
    if (fast := _fast_png(data, image)) is not None:
        return Opened(fast, image.mode, *image.size)
    return _loaded(image, max_pixels)


def _open_jpeg(data: bytes, draft_mode: str | None, enough: Enough, max_pixels: int) -> Opened:
    image = JpegImageFile(BytesIO(data))
    check_size(*image.size, max_pixels)
    opened = Opened(image, image.mode, *image.size)
    image.draft(draft_mode, enough(*image.size))
    image.load()
    return opened


def _open_tiff(data: bytes, max_pixels: int) -> Opened:
    image = TiffImageFile(BytesIO(data))
    check_size(*image.size, max_pixels)
    _check_single(_has_pages(image), "pages")
    image.seek(0)
    depth, photometric = max(image.tag_v2.get(_BITS) or (1,)), image.tag_v2.get(_PHOTOMETRIC)
    opened = _loaded(image, max_pixels)
    # Pillow inverts eight bits and fewer only.
    is_inverted = photometric == _WHITE_IS_ZERO and opened.mode.startswith("I")
    return opened._replace(depth=max(8, depth), is_inverted=is_inverted)


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


def _open_bmp(data: bytes, max_pixels: int) -> Opened:
    return _loaded(BmpImageFile(BytesIO(data)), max_pixels)


def _open_webp(data: bytes, max_pixels: int) -> Opened:
    check_size(*_webp_size(data), max_pixels)  # Pillow makes room for all pixels when it opens one
    image = WebPImageFile(BytesIO(data))
    _check_single(getattr(image, "n_frames", 1) > 1)
    return _loaded(image, max_pixels)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return width and height as the header tells them (RFC 9649)."""
    kind, body = data[12:16], data[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF


def _open_gif(data: bytes, max_pixels: int) -> Opened:
    image = GifImageFile(BytesIO(data))
    check_size(*image.size, max_pixels)
    _check_single(image.is_animated)
    return _loaded(image, max_pixels)


_OPENERS = {"PNG": _open_png, "TIFF": _open_tiff, "BMP": _open_bmp, "WEBP": _open_webp, "GIF": _open_gif}


class EightBits(NamedTuple):
    """An image of mode L or RGB.

    Attributes:
        image: The image.
        depth: Bits by which its values were scaled: of grey values that the format gives 16 bits, the
            smallest of 8, 10, 12, 14 and 16 that holds them.
    """

    image: Image.Image
    depth: int


def to_eight_bits(opened: Opened, channels: int, bit_depth: int | None) -> EightBits:
    """Return an image of mode L, or RGB where three channels are wanted of a colour image.

    The alpha channel of a radiograph carries nothing; compositing would darken what it leaves transparent.

    Args:
        opened: What was decoded.
        channels: 1 or 3.
        bit_depth: Bits of grey values that the format gives 16 bits; None for as many as they use.

    Raises:
        ValueError: If its values are not of at most 16 bits, or colours of 16 bits use too few of them.
    """
    image = opened.image
    if image.mode.startswith("I"):
        return _grey(opened, bit_depth)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, which tell neither black nor white")
    if opened.depth > 8:
        _check_colours(image, bit_depth)
    if image.mode not in {"L", "RGB", "RGBA"}:
        image = image.convert("L" if image.mode in {"1", "LA", "La"} else "RGB")
    return EightBits(
        image if image.mode == "L" else image.convert("L" if channels == 1 else "RGB"), opened.depth
    )


def _grey(opened: Opened, bit_depth: int | None) -> EightBits:
    # Pillow opens a 16-bit PNG as I;16 or as I, depending on its version; the values are the same.
    values = np.asarray(opened.image).astype(np.int64)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > 65535:
        raise ValueError(f"its values go from {lowest} to {highest}; 0 to 65535 can be read")
    depth = bit_depth if opened.depth == 16 and bit_depth is not None else opened.depth
    if opened.depth not in range(9, 16) and bit_depth is None:
        counts = np.bincount(values.ravel(), minlength=1)
        depth = depth_of(picture_range(np.flatnonzero(counts))[1])
    brightest = 2**depth - 1
    scaled = (np.minimum(np.arange(highest + 1), brightest) * 510 + brightest) // (2 * brightest)
    table = (255 - scaled if opened.is_inverted else scaled).astype(np.uint8)
    return EightBits(Image.fromarray(table[values]), depth)


def _check_colours(image: Image.Image, bit_depth: int | None) -> None:
    """Refuse colours of 16 bits of which Pillow, which gives the upper 8, leaves a few levels."""
    extrema = image.getextrema()
    bands = [extrema] if isinstance(extrema[0], int | float) else list(extrema)
    bands = bands[: len(bands) - (image.mode in {"LA", "RGBA"})]
    brightest = max(int(high) for _, high in bands)
    if brightest < 64 or (bit_depth is not None and bit_depth < 16):
        raise ValueError(
            "its colours are stored in 16 bits and fill less than 14 of them; save it as grey, or in 8 bits"
        )
