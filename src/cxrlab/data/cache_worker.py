"""The rows of a cache, and the process that decodes images into them."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from cxrlab.data.decode import DecodedImage, ImageAccessError, read_image
from cxrlab.data.duplicates.hashing import HASH_WORDS, perceptual_hash
from cxrlab.data.image_statistics import Appearance, measure
from cxrlab.errors import MissingFileError, MissingPackageError, UserError

EMPTY, AT_WORK, DONE, UNREADABLE = range(4)

_TEXT_LENGTH = 400
# The workers are as many as the cores; threads of NumPy's libraries would only wait for one another, and make
# each image take ten times as long.
_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM")}

FACTS = np.dtype(
    [
        ("state", "u1"),
        ("seal", "<u4"),
        ("changed", "<i8"),
        ("checksum", "<u4"),
        ("digest", "S32"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("mode", "S16"),
        ("depth", "u1"),
        ("levels", "<u2"),
        ("text", f"S{_TEXT_LENGTH}"),
        ("hash", "<u8", (HASH_WORDS,)),
        *((name, "<f4") for name in Appearance._fields),
    ]
)
"""What is known of a file; its row of pixels counts once ``state`` is ``DONE``, which is written last.

``seal`` is a checksum of the others, ``changed`` when the file's content or name last did (ns), ``text`` the
warning of a file that was decoded, else the error.
"""


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


def changed_at(path: Path) -> int:
    """Return when a file's content, name or rights last changed (ns), which nobody can set; -1 if gone."""
    try:
        return path.stat().st_ctime_ns
    except OSError:
        return -1


def checksum(pixels: npt.NDArray[np.uint8]) -> int:
    """Return the CRC-32 of an image's bytes."""
    return zlib.crc32(np.ascontiguousarray(pixels).data)


def seals(
    facts: npt.NDArray[np.void], files: Sequence[str], settings: CacheSettings
) -> npt.NDArray[np.uint32]:
    """Return a checksum of each record, its file's name and how that was decoded, shape ``(N,)``."""
    records = facts.copy()
    records["seal"] = 0
    records["changed"] = 0
    start = zlib.crc32(repr(settings).encode())
    sealed = (
        zlib.crc32(record.tobytes(), zlib.crc32(file.encode("utf-8", "surrogateescape"), start))
        for record, file in zip(records, files, strict=True)
    )
    return np.fromiter(sealed, dtype=np.uint32, count=len(records))


class RowLayout(NamedTuple):
    """Where the rows of a .npy file lie; nothing is said of how long the file is.

    Attributes:
        start: Bytes before the first row.
        row_bytes: Bytes of a row.
        shape: Of the whole array.
    """

    start: int
    row_bytes: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read it from a file's header.

        Raises:
            ValueError: If it is no .npy file of version 1.
        """
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError(f"{path} is no array of version 1")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            return cls(file.tell(), int(np.prod(shape[1:], dtype=int)) * dtype.itemsize, shape)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.start + self.shape[0] * self.row_bytes


class RowFile:
    """Rows of a .npy file, written in place: a full disk is an error here, in a memory map it is a signal.

    Args:
        path: The file, of version 1.
    """

    def __init__(self, path: Path) -> None:
        self._layout = RowLayout.of(path)
        self._file = path.open("r+b")

    def write(self, row: int, values: bytes) -> None:
        """Write the bytes of one row."""
        self._file.seek(self._layout.start + row * self._layout.row_bytes)
        self._file.write(values)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextlib.contextmanager
def bare_start() -> Iterator[None]:
    """Have processes start with one thread a library, and without the main script, which they do not need.

    A spawned process imports the main script again: one without ``if __name__ == "__main__"`` would start
    itself anew in each of them.
    """
    main = sys.modules["__main__"].__dict__
    hidden: dict[str, object] = {name: main[name] for name in ("__spec__", "__file__") if name in main}
    threads = {name: os.environ.get(name) for name in _ONE_THREAD}
    main["__spec__"] = None
    main.pop("__file__", None)
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        main.update(hidden)
        for name, value in threads.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    with (
        contextlib.closing(RowFile(folder / "pixels.npy")) as pixels,
        contextlib.closing(RowFile(folder / "facts.npy")) as facts,
    ):
        for row, file in files:
            record = np.zeros(1, FACTS)
            record["state"] = AT_WORK
            facts.write(row, record.tobytes())
            image = _decoded(root / file, settings, record)
            if image is not None:
                pixels.write(row, image.pixels.tobytes())
            record["seal"] = seals(record, [file], settings)
            facts.write(row, record.tobytes())


def _decoded(path: Path, settings: CacheSettings, record: npt.NDArray[np.void]) -> DecodedImage | None:
    """Read an image and fill in its record; return None where it cannot be read."""
    record["changed"] = changed_at(path)  # before it is read: what changes meanwhile is noticed the next time
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
        record["text"] = str(error).encode()[:_TEXT_LENGTH]
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
        "text": image.warning.encode()[:_TEXT_LENGTH],
        "hash": perceptual_hash(image.pixels),
        **measure(image.pixels)._asdict(),
    }
    for name, value in values.items():
        record[name] = value
    return image
