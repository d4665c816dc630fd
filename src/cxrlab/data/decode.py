"""The one place where pixels are decoded and resized: any image file -> uint8 array."""

import hashlib
import stat
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from cxrlab.data.dicom import is_dicom, read_dicom
from cxrlab.data.raster import MAX_PIXELS, Opened, open_raster, to_eight_bits
from cxrlab.errors import ConfigError, DataError, MissingFileError, MissingPackageError

Resize = Literal["stretch", "pad", "crop"]
RESIZES = ("stretch", "pad", "crop")
FORMATS = ("PNG", "JPEG", "DICOM", "TIFF", "BMP", "WEBP", "GIF")
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".dcm", ".dicom", ".tif", ".tiff", ".bmp", ".webp", ".gif",
)  # fmt: skip
# Whole pixels are averaged first, down to no less than twice the size that is wanted, as JPEG's own reduction
# does: half the time, and on average a quarter of a grey level from a single step (5 NIH originals, 224 px).
_GAP = 2.0
# By the first bytes; TIFF in either byte order, and as BigTIFF.
_STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
    b"GIF87a": "GIF", b"GIF89a": "GIF",
}  # fmt: skip
# The size of the header that follows, of which there are seven kinds.
_BMP_HEADERS = {size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124)}
_NUM_FIRST = 512
# Side of the grid of pixels whose grey levels are counted.
_SAMPLED = 256


@dataclass(frozen=True)
class DecodedImage:
    """An image as the network sees it, and what is known of its file.

    Attributes:
        pixels: Values 0 to 255, shape ``(channels, image_size, image_size)``.
        width: Of the file, in pixels.
        height: Of the file, in pixels.
        mode: Pillow's mode (``L``, ``RGBA``, ``I;16``), or a DICOM file's photometric interpretation.
        digest: the first 32 hexadecimal digits of the SHA-256 of the file's bytes.
        warning: Why this may be no chest radiograph, what its header says wrongly, or empty.
        depth: Bits by which its values were scaled, 8 to 16; see :func:`cxrlab.data.raster.to_eight_bits`.
        levels: Grey levels of the picture before it is resized, among 65,536 of its pixels, up to 256; in
            colour, of the channel that has most.
        doubt: Why this may be no chest radiograph, or empty: the part of the warning that is of the image.
    """

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    mode: str
    digest: str
    warning: str
    depth: int
    levels: int
    doubt: str = ""


class ImageAccessError(DataError):
    """The bytes of an image cannot be had: the system's fault, which may pass, and not the file's."""


def _bytes_of(path: Path) -> bytes:
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):  # to open a pipe would wait for ever
            what = "a folder" if stat.S_ISDIR(kind) else "a device or a pipe"
            raise DataError(f"The image {path} cannot be read: it is {what}, not a file.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingFileError(f"There is no image {path}.") from error
    except OSError as error:
        raise ImageAccessError(f"The image {path} cannot be read: {error.strerror or error}.") from error


def _scaled(width: int, height: int, image_size: int, resize: str) -> tuple[int, int]:
    """Return the width and height of the whole image at the scale of the result."""
    if resize == "stretch":
        return image_size, image_size
    side = max(width, height) if resize == "pad" else min(width, height)
    return max(1, round(width * image_size / side)), max(1, round(height * image_size / side))


def _open(data: bytes, image_size: int, channels: int, resize: str, max_pixels: int) -> Opened:
    """Decode by what the bytes are; the file's name says nothing."""
    if not data:
        raise ValueError("it is empty")
    form = format_of(data)
    if form is None:
        raise ValueError(f"its content is none of {', '.join(FORMATS)}")
    if form == "DICOM":
        shown = read_dicom(data, max_pixels=max_pixels)
        height, width = shown.pixels.shape[:2]
        picture = Image.fromarray(shown.pixels)
        return Opened(picture, shown.mode, width, height, shown.warning, doubt=shown.doubt)
    # JPEG can decode at a half, quarter or eighth of its size, at a fraction of the cost; twice the size that
    # is wanted leaves the antialiased resize something to average. Its luma is stored apart: it is the grey.
    scale = partial(_scaled, image_size=2 * image_size, resize=resize)
    return open_raster(data, form, "L" if channels == 1 else None, scale, max_pixels)


def format_of(data: bytes) -> str | None:
    """Tell by its first bytes which of ``FORMATS`` a file is; None where it is none of them."""
    if is_dicom(data):  # its first 128 bytes may be those of a TIFF
        return "DICOM"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM") and data[14:18] in _BMP_HEADERS:
        return "BMP"
    return next((form for start, form in _STARTS.items() if data.startswith(start)), None)


def image_format(path: Path) -> str | None:
    """Tell by the first bytes of a file which image it is; its name says nothing.

    Returns:
        One of ``FORMATS``, or None where it is no such image, no file, or cannot be opened. Whether the rest
        of it can be decoded is not known yet.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would wait for ever
            return None
        with path.open("rb") as file:
            return format_of(file.read(_NUM_FIRST))
    except OSError:
        return None


def _resized(image: Image.Image, image_size: int, resize: str) -> Image.Image:
    """Return an image of ``image_size`` squared; bilinear with a filter as wide as the reduction."""
    square, filter_ = (image_size, image_size), Image.Resampling.BILINEAR
    if resize == "crop":
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        return image.resize(square, filter_, box=(left, top, left + side, top + side), reducing_gap=_GAP)
    scaled = image.resize(_scaled(*image.size, image_size, resize), filter_, reducing_gap=_GAP)
    if scaled.size == square:
        return scaled
    canvas = Image.new(image.mode, square)
    canvas.paste(scaled, ((image_size - scaled.width) // 2, (image_size - scaled.height) // 2))
    return canvas


def read_image(
    path: Path, *, image_size: int, channels: int, resize: str, bit_depth: int | None = None
) -> DecodedImage:
    """Read an image file once, decode, convert and resize it.

    An orientation tag is not applied: scanners do not write it, and labels follow the pixels.

    Args:
        path: A file in one of ``FORMATS``, told by its content; of any mode, 1 to 16 bits, and of one frame.
        image_size: Height and width of the result in pixels.
        channels: 1 for grey values (ITU-R 601 luma of a colour image), 3 for RGB.
        resize: ``stretch`` takes the whole field to a square, ``pad`` keeps the aspect and fills with black,
            ``crop`` keeps the aspect and cuts the central square. All are antialiased.
        bit_depth: Bits of the grey values of PNG and TIFF files of 16 bits, which often hold 12; None for the
            smallest of 8, 10, 12, 14 and 16 that holds those of the file.

    Returns:
        The pixels and what is known of the file.

    Raises:
        ConfigError: If there is no such rule.
        MissingFileError: If there is no such file.
        MissingPackageError: If the package that decodes its format is not installed.
        ImageAccessError: If the system does not give its bytes.
        DataError: If the file is empty, truncated or no image, or exceeds ``MAX_PIXELS``.
    """
    if resize not in RESIZES:
        raise ConfigError(f"data.resize={resize} is unknown; choose one of {', '.join(RESIZES)}.")
    return read_image_bytes(
        _bytes_of(path),
        str(path),
        image_size=image_size,
        channels=channels,
        resize=resize,
        bit_depth=bit_depth,
    )


def read_image_bytes(
    data: bytes,
    name: str,
    *,
    image_size: int,
    channels: int,
    resize: str,
    bit_depth: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> DecodedImage:
    """Decode the bytes of an image file, wherever they came from; see `read_image`.

    Args:
        data: The whole file.
        name: What the file is called, for messages.
        image_size: Height and width of the result in pixels.
        channels: 1 for grey values, 3 for RGB.
        resize: One of ``RESIZES``.
        bit_depth: Bits of the grey values of PNG and TIFF files of 16 bits; None for as many as they use.
        max_pixels: Width times height that is allowed; more is refused before it is decoded.

    Raises:
        MissingPackageError: If the package that decodes its format is not installed.
        DataError: If it is empty, truncated or no image, or has more pixels.
    """
    try:
        opened = _open(data, image_size, channels, resize, max_pixels)
        image, depth = to_eight_bits(opened, channels, bit_depth)
    except MissingPackageError as error:
        raise MissingPackageError(f"The image {name} cannot be read: {error}.") from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
        reason = str(error).rstrip(".")
        raise DataError(f"The image {name} ({len(data)} bytes) cannot be read: {reason}.") from error
    array = np.atleast_3d(np.asarray(_resized(image, image_size, resize))).transpose(2, 0, 1)
    pixels = np.array(np.broadcast_to(array, (channels, image_size, image_size)), dtype=np.uint8, order="C")
    digest = hashlib.sha256(data).hexdigest()[:32]
    sample = image if max(image.size) <= _SAMPLED else image.resize((_SAMPLED,) * 2, Image.Resampling.NEAREST)
    levels = max(np.count_nonzero(band) for band in np.array(sample.histogram()).reshape(-1, 256))
    return DecodedImage(
        pixels,
        opened.width,
        opened.height,
        opened.mode,
        digest,
        opened.warning,
        depth,
        int(levels),
        opened.doubt,
    )


def decode(
    path: Path, *, image_size: int, channels: int, resize: str, bit_depth: int | None = None
) -> npt.NDArray[np.uint8]:
    """Return the pixels alone; see `read_image`, whose arguments and errors these are.

    Returns:
        Values 0 to 255, shape ``(channels, image_size, image_size)``.
    """
    return read_image(
        path, image_size=image_size, channels=channels, resize=resize, bit_depth=bit_depth
    ).pixels
