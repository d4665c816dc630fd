"""The images of a cache, read row by row."""

import os
import threading
import weakref
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxrlab.data.cache_worker import RowLayout
from cxrlab.errors import OutputError


class PixelFile:
    """Images in a .npy file, indexed by rows as an array is.

    Where the file is cut while it is in use this is an error; in a memory map it would end the process.

    Args:
        path: The file; it stays open, so that another that is put in its place does not matter.

    Attributes:
        shape: ``(N, C, H, W)``.
    """

    def __init__(self, path: Path) -> None:
        self._layout = RowLayout.of(path)
        self._path = path
        self._number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._number)
        self._lock = threading.Lock()
        self.shape = self._layout.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Return images by their rows, uint8, shape ``(n, C, H, W)``.

        Raises:
            OutputError: If the file was cut, or cannot be read.
        """
        places = np.atleast_1d(np.asarray(rows, dtype=np.intp))
        images = np.empty((len(places), *self.shape[1:]), dtype=np.uint8)
        for row, image in zip(places.tolist(), images, strict=True):
            self._read(row, image)
        return images

    def _read(self, row: int, image: npt.NDArray[np.uint8]) -> None:
        view, start = image.data.cast("B"), self._layout.start + row * self._layout.row_bytes
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        try:
            done = 0
            while done < len(view):
                count = self._read_at(view[done:], start + done)
                if not count:
                    raise OSError("the file was cut while it was in use")
                done += count
        except OSError as error:
            raise OutputError(
                f"The cache of decoded images {self._path} cannot be read: {error.strerror or error}. Is "
                "another program cleaning up there, or the disk failing? Start again: what is missing is "
                "decoded anew."
            ) from error

    def _read_at(self, view: memoryview, start: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._number, [view], start)
        with self._lock:  # pragma: no cover - Windows
            os.lseek(self._number, start, os.SEEK_SET)
            content = os.read(self._number, len(view))
            view[: len(content)] = content
            return len(content)
