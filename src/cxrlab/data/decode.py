"""The one place where pixels are decoded and resized: any image file -> uint8 array."""

import hashlib
import importlib
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from cxrlab.data.dicom import is_dicom, read_dicom
from cxrlab.errors import ConfigError, DataError, MissingFileError, MissingPackageError

Resize = Literal["stretch", "pad", "crop"]
RESIZES = ("stretch", "pad", "crop")
SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
# Four times the pixels of the largest detectors; a decompression bomb has more.
MAX_PIXELS = 2**27
# Whole pixels are averaged first, down to no less than twice the size that is wanted, as JPEG's own reduction
# does: half the time, and on average a quarter of a grey level from a single step (5 NIH originals, 224 px).
_GAP = 2.0
_FAST_MODES = {"L": "mono", "RGB": "rgb", "RGBA": "rgba"}


@dataclass(frozen=True)
class DecodedImage:
    """An image as the network sees it, and what is known of its file.

    Attributes:
        pixels: Values 0 to 255, shape ``(channels, image_size, image_size)``.
        width: Of the file, in pixels.
        height: Of the file, in pixels.
        mode: Pillow's mode (``L``, ``RGBA``, ``I;16``), or a DICOM file's photometric interpretation.
        digest: the first 32 hexadecimal digits of the SHA-256 of the file's bytes.
        warning: Why this may be no chest radiograph, or empty.
    """

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    mode: str
    digest: str
    warning: str


class ImageAccessError(DataError):
    """The bytes of an image cannot be had: the system's fault, which may pass, and not the file's."""


class _Opened(NamedTuple):
    image: Image.Image  # possibly smaller than the file's
    mode: str
    width: int
    height: int
    warning: str = ""


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


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than the {MAX_PIXELS:,} allowed")


def _scaled(width: int, height: int, image_size: int, resize: str) -> tuple[int, int]:
    """Return the width and height of the whole image at the scale of the result."""
    if resize == "stretch":
        return image_size, image_size
    side = max(width, height) if resize == "pad" else min(width, height)
    return max(1, round(width * image_size / side)), max(1, round(height * image_size / side))


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


def _open_png(data: bytes) -> _Opened:
    image = PngImageFile(BytesIO(data))  # Image.open would warn of 90 million pixels
    _check_size(*image.size)
    opened = _Opened(image, image.mode, *image.size)
    if (fast := _fast_png(data, image)) is not None:
        return opened._replace(image=fast)
    image.load()
    return opened


def _open_jpeg(data: bytes, image_size: int, channels: int, resize: str) -> _Opened:
    image = JpegImageFile(BytesIO(data))
    _check_size(*image.size)
    opened = _Opened(image, image.mode, *image.size)
    # JPEG can decode at a half, quarter or eighth of its size, at a fraction of the cost; twice the size that
    # is wanted leaves the antialiased resize something to average. Its luma is stored apart: it is the grey.
    width, height = _scaled(*image.size, image_size, resize)
    image.draft("L" if channels == 1 else None, (2 * width, 2 * height))
    image.load()
    return opened


def _open_dicom(data: bytes) -> _Opened:
    pixels, mode, warning = read_dicom(data, max_pixels=MAX_PIXELS)
    return _Opened(Image.fromarray(pixels), mode, pixels.shape[1], pixels.shape[0], warning)


def _open(data: bytes, image_size: int, channels: int, resize: str) -> _Opened:
    """Decode by what the bytes are; the file's name says nothing."""
    if not data:
        raise ValueError("it is empty")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _open_png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _open_jpeg(data, image_size, channels, resize)
    if is_dicom(data):
        return _open_dicom(data)
    raise ValueError("its content is neither PNG, JPEG nor DICOM")


def _to_eight_bits(image: Image.Image, channels: int) -> Image.Image:
    """Return an image of mode L, or RGB where three channels are wanted of a colour image.

    The alpha channel of a radiograph carries nothing; compositing would darken what it leaves transparent.
    """
    if image.mode.startswith("I"):
        # Pillow opens a 16-bit PNG as I;16 or as I, depending on its version; the scale is the same.
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.mode not in {"L", "RGB", "RGBA"}:
        image = image.convert("L" if image.mode in {"1", "LA", "La"} else "RGB")
    return image if image.mode == "L" else image.convert("L" if channels == 1 else "RGB")


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


def read_image(path: Path, *, image_size: int, channels: int, resize: str) -> DecodedImage:
    """Read an image file once, decode, convert and resize it.

    An orientation tag is not applied: scanners do not write it, and labels follow the pixels.

    Args:
        path: A PNG, JPEG or DICOM file, told by its content. PNG and JPEG of any mode, 1 to 16 bits.
        image_size: Height and width of the result in pixels.
        channels: 1 for grey values (ITU-R 601 luma of a colour image), 3 for RGB.
        resize: ``stretch`` takes the whole field to a square, ``pad`` keeps the aspect and fills with black,
            ``crop`` keeps the aspect and cuts the central square. All are antialiased.

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
    data = _bytes_of(path)
    try:
        opened = _open(data, image_size, channels, resize)
        image = _to_eight_bits(opened.image, channels)
    except MissingPackageError as error:
        raise MissingPackageError(f"The image {path} cannot be read: {error}.") from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
        reason = str(error).rstrip(".")
        raise DataError(f"The image {path} ({len(data)} bytes) cannot be read: {reason}.") from error
    array = np.atleast_3d(np.asarray(_resized(image, image_size, resize))).transpose(2, 0, 1)
    pixels = np.array(np.broadcast_to(array, (channels, image_size, image_size)), dtype=np.uint8, order="C")
    digest = hashlib.sha256(data).hexdigest()[:32]
    return DecodedImage(pixels, opened.width, opened.height, opened.mode, digest, opened.warning)


def decode(path: Path, *, image_size: int, channels: int, resize: str) -> npt.NDArray[np.uint8]:
    """Return the pixels alone; see `read_image`, whose arguments and errors these are.

    Returns:
        Values 0 to 255, shape ``(channels, image_size, image_size)``.
    """
    return read_image(path, image_size=image_size, channels=channels, resize=resize).pixels
