"""The rows of a cache, and the process that decodes images into them."""

import multiprocessing
import os
import signal
import threading
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxrlab.data.decode import DecodedImage, ImageAccessError, read_image
from cxrlab.data.duplicates.hashing import HASH_WORDS, perceptual_hash
from cxrlab.data.image_statistics import Appearance, measure
from cxrlab.errors import MissingFileError, MissingPackageError, UserError

EMPTY, AT_WORK, DONE, UNREADABLE = range(4)

_TEXT_LENGTH = 400
_TEXT = f"S{_TEXT_LENGTH}"

FACTS = np.dtype(
    [
        ("state", "u1"),
        ("checksum", "<u4"),
        ("digest", "S32"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("mode", "S16"),
        ("depth", "u1"),
        ("levels", "<u2"),
        ("warning", _TEXT),
        ("error", _TEXT),
        ("hash", "<u8", (HASH_WORDS,)),
        *((name, "<f4") for name in Appearance._fields),
    ]
)
"""What is known of a file; its row of pixels counts once ``state`` is ``DONE``, which is written last."""


@dataclass(frozen=True)
class CacheSettings:
    """How images are decoded.

    Attributes:
        image_size: Height and width in pixels.
        channels: 1 or 3.
        resize: ``stretch``, ``pad`` or ``crop``.
        bit_depth: Bits of grey values that a file gives 16 bits; None for as many as they use.
    """

    image_size: int
    channels: int
    resize: str
    bit_depth: int | None = None


def checksum(pixels: npt.NDArray[np.uint8]) -> int:
    """Return the CRC-32 of an image's bytes."""
    return zlib.crc32(np.ascontiguousarray(pixels).data)


class _RowFile:
    """Rows of a .npy file, written in place: a full disk is an error here, in a memory map it is a signal."""

    def __init__(self, path: Path) -> None:
        mapped = np.load(path, mmap_mode="r")
        self._start = mapped.offset
        self._row_bytes = mapped[:1].nbytes
        self._file = path.open("r+b")

    def write(self, row: int, values: bytes) -> None:
        self._file.seek(self._start + row * self._row_bytes)
        self._file.write(values)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def start_worker() -> None:
    """Prepare a process that decodes: the main one handles Ctrl-C for it, and it ends when that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def decode_rows(folder: Path, root: Path, settings: CacheSettings, files: Iterable[tuple[int, str]]) -> None:
    """Decode images into a cache; those that cannot be read get the reason instead.

    Args:
        folder: Of the cache.
        root: Folder that the files are relative to.
        settings: How they are decoded.
        files: Row and path of each.

    Raises:
        OSError: If the cache cannot be written: the disk is full, for instance.
    """
    pixels, facts = _RowFile(folder / "pixels.npy"), _RowFile(folder / "facts.npy")
    try:
        for row, file in files:
            record = np.zeros((), FACTS)
            record["state"] = AT_WORK
            facts.write(row, record.tobytes())
            image = _decoded(root / file, settings, record)
            if image is not None:
                pixels.write(row, image.pixels.tobytes())
            facts.write(row, record.tobytes())
    finally:
        pixels.close()
        facts.close()


def _decoded(path: Path, settings: CacheSettings, record: npt.NDArray[np.void]) -> DecodedImage | None:
    """Read an image and fill in its record; return None where it cannot be read."""
    try:
        image = read_image(
            path,
            image_size=settings.image_size,
            channels=settings.channels,
            resize=settings.resize,
            bit_depth=settings.bit_depth,
        )
    except UserError as error:
        # What is the system's fault, or that of a missing decoder, is tried again the next time.
        may_pass = isinstance(error, MissingFileError | MissingPackageError | ImageAccessError)
        record["state"] = EMPTY if may_pass else UNREADABLE
        record["error"] = str(error).encode()[:_TEXT_LENGTH]
        return None
    values = {
        "state": DONE,
        "checksum": checksum(image.pixels),
        "digest": image.digest.encode(),
        "width": image.width,
        "height": image.height,
        "mode": image.mode.encode()[:16],
        "depth": image.depth,
        "levels": image.levels,
        "warning": image.warning.encode()[:_TEXT_LENGTH],
        "hash": perceptual_hash(image.pixels),
        **measure(image.pixels)._asdict(),
    }
    for name, value in values.items():
        record[name] = value
    return image
