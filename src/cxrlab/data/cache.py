"""Decoded images in one memory-mapped uint8 file, made once and shared by every run."""

import logging
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.audit.appearance import Appearance
from cxrlab.data.duplicates import HASH_WORDS

log = logging.getLogger(__name__)

EMPTY, AT_WORK, DONE, UNREADABLE = range(4)
_TEXT = "S400"
FACTS = np.dtype(
    [
        ("state", "u1"),
        ("checksum", "<u4"),
        ("digest", "S32"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("mode", "S16"),
        ("warning", _TEXT),
        ("error", _TEXT),
        ("hash", "<u8", (HASH_WORDS,)),
        *((name, "<f4") for name in Appearance._fields),
    ]
)


@dataclass(frozen=True)
class CacheSettings:
    """How images are decoded.

    Attributes:
        image_size: Height and width in pixels.
        channels: 1 or 3.
        resize: ``stretch``, ``pad`` or ``crop``.
    """

    image_size: int
    channels: int
    resize: str


@dataclass(frozen=True)
class ImageCache:
    """A folder with the pixels and the facts of a list of image files.

    A file's row holds its pixels once its state is ``DONE``; the state is written last, so that a process
    killed at any moment leaves no half-written image behind that counts as one.

    Attributes:
        folder: Where ``pixels.npy``, ``facts.npy`` and ``files.json`` lie.
        root: Folder that the files are relative to.
        files: Path of each image under the root.
        settings: How they are decoded.
    """

    folder: Path
    root: Path
    files: tuple[str, ...]
    settings: CacheSettings

    @property
    def lock_path(self) -> Path:
        """The file whose lock the process that fills the cache holds."""
        return self.folder.with_name(f"{self.folder.name}.lock")

    @property
    def used_path(self) -> Path:
        """A file whose time says when the cache was used last."""
        return self.folder / "used"

    @property
    def unfinished_path(self) -> Path:
        """A file that is there while the cache is being filled, and stays where that was cut off."""
        return self.folder / "unfinished"

    def pixels(self, mode: str = "c") -> npt.NDArray[np.uint8]:
        """Map the images, shape ``(N, C, H, W)``; nothing is read before it is used.

        Args:
            mode: ``c`` for reading; what is written then goes nowhere. ``r+`` for filling.
        """
        return self._kept_pixels if mode == "c" else self._mapped("pixels.npy", mode)

    def facts(self, mode: str = "c") -> npt.NDArray[np.void]:
        """Map what is known of each file, shape ``(N,)`` of ``FACTS``."""
        return self._kept_facts if mode == "c" else self._mapped("facts.npy", mode)

    def _mapped(self, name: str, mode: str) -> npt.NDArray[Any]:
        mapped: npt.NDArray[Any] = np.load(self.folder / name, mmap_mode=mode)  # type: ignore[arg-type]
        return mapped

    # Mapped once: a training keeps what it has, should another process replace the folder.
    @cached_property
    def _kept_pixels(self) -> npt.NDArray[np.uint8]:
        return self._mapped("pixels.npy", "c")

    @cached_property
    def _kept_facts(self) -> npt.NDArray[np.void]:
        return self._mapped("facts.npy", "c")

    def missing(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Return those of ``rows`` that were not decoded yet."""
        states = self.facts()["state"][rows]
        left: npt.NDArray[np.intp] = rows[(states != DONE) & (states != UNREADABLE)]
        return left

    def table(self, rows: npt.NDArray[np.intp]) -> pd.DataFrame:
        """Return what is known of the files in ``rows``: one row each, in that order.

        Returns:
            Columns ``error``, ``warning``, ``digest``, ``mode`` as text, ``width`` and ``height`` in pixels
            of the file, and the numbers of :class:`cxrlab.data.audit.appearance.Appearance`.
        """
        facts = self.facts()[rows]
        text = {name: _decoded(facts[name]) for name in ("error", "warning", "digest", "mode")}
        names = ("width", "height", *Appearance._fields)
        return pd.DataFrame({**text, **{name: facts[name].astype(np.float64) for name in names}}).astype(
            {"width": int, "height": int}
        )

    def hashes(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
        """Return the perceptual hashes of ``rows``, shape ``(n, HASH_WORDS)``."""
        return np.ascontiguousarray(self.facts()["hash"][rows])


def _decoded(cells: npt.NDArray[np.bytes_]) -> list[str]:
    return [cell.decode("utf-8", errors="replace") for cell in cells.tolist()]


def checksum(pixels: npt.NDArray[np.uint8]) -> int:
    """Return the CRC-32 of an image's bytes."""
    return zlib.crc32(pixels.data)
