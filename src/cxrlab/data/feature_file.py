"""Features of cached images, computed once by a frozen network and kept beside the images."""

import contextlib
import logging
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from cxrlab.data.cache import ImageCache
from cxrlab.data.cache_worker import RowFile
from cxrlab.files import replacing

Features = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

# How long another process may be at work before that is worth a line.
_PATIENCE_SECONDS = 1.0

_log = logging.getLogger(__name__)


class FeatureFile:
    """A file with one row an image of a cache, which every run with the same network shares.

    A row counts where its checksum fits its numbers and what the cache knows of its image: rows that a killed
    process left, that were damaged, or are of an image that was decoded anew are computed again.

    Args:
        cache: Of the images; the file lies in its folder.
        key: What else the features depend on: hexadecimal digits of the network, its weights, its
            preprocessing and its precision.
        num_features: F.

    Attributes:
        path: The file.
    """

    def __init__(self, cache: ImageCache, key: str, num_features: int) -> None:
        self.path = cache.folder / f"features-{key}.npy"
        self._seals = cache.facts()["seal"].copy()
        self._record = np.dtype([("seal", "<u4"), ("checksum", "<u4"), ("values", "<f4", (num_features,))])

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from computing the same; one that comes second waits and finds them there."""
        lock = FileLock(self.path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=_PATIENCE_SECONDS)
        except Timeout:
            _log.info("Another process is computing %s; waiting for it.", self.path)
            lock.acquire()
        except OSError as error:  # a cache that others made may be read-only
            _log.debug("%s is not locked: %s", self.path, error)
        try:
            yield
        finally:
            lock.release()

    def read(self, positions: Rows) -> tuple[Features, npt.NDArray[np.bool_]]:
        """Return what is kept of some images.

        Args:
            positions: Rows of the cache, n of them.

        Returns:
            Features, shape ``(n, F)``, and which of the rows are to be believed, shape ``(n,)``.
        """
        records = self._records()
        if records is None:
            shape = (len(positions), *self._record["values"].shape)
            return np.zeros(shape, np.float32), np.zeros(len(positions), dtype=bool)
        chosen = records[positions]
        seals = self._seals[positions]
        sums = [
            _checksum(values, seal) for values, seal in zip(chosen["values"], seals.tolist(), strict=True)
        ]
        is_kept = (chosen["seal"] == seals) & (chosen["checksum"] == np.array(sums, dtype=np.uint32))
        return np.ascontiguousarray(chosen["values"]), is_kept

    def write(self, positions: Rows, features: Features) -> None:
        """Keep the features of some images.

        Args:
            positions: Rows of the cache, n of them.
            features: Shape ``(n, F)``.

        Raises:
            OSError: If the file cannot be written.
        """
        if self._records(is_mapped=True) is None:
            with replacing(self.path) as temporary:
                shape = (len(self._seals),)
                np.lib.format.open_memmap(temporary, mode="w+", dtype=self._record, shape=shape)
        records = np.zeros(len(positions), self._record)
        records["seal"] = self._seals[positions]
        records["values"] = features
        with contextlib.closing(RowFile(self.path)) as file:
            for position, record in zip(positions.tolist(), records, strict=True):
                record["checksum"] = _checksum(record["values"], int(record["seal"]))
                file.write(position, record.tobytes())

    def _records(self, *, is_mapped: bool = False) -> npt.NDArray[np.void] | None:
        """Return the whole file, or its map; None where there is none, or it is of another shape or cut."""
        try:
            records: npt.NDArray[np.void] = np.load(self.path, mmap_mode="r" if is_mapped else None)
        except (OSError, ValueError, EOFError):
            return None
        fits = records.dtype == self._record and records.shape == self._seals.shape
        return records if fits else None


def _checksum(values: Features, seal: int) -> int:
    """Return the CRC-32 of an image's features, begun with what the cache knows of the image."""
    return zlib.crc32(np.ascontiguousarray(values).data, seal)
