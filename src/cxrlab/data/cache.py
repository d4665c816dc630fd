"""Decoded images in one memory-mapped uint8 file, made once and shared by every run."""

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from filelock import FileLock, Timeout

from cxrlab.atomic import write_text
from cxrlab.data.audit.appearance import Appearance
from cxrlab.data.duplicates import HASH_WORDS
from cxrlab.errors import OutputError

log = logging.getLogger(__name__)

# Raised whenever the same file would give other pixels or facts, so that no older cache is taken for new.
_VERSION = 1
EMPTY, AT_WORK, DONE, UNREADABLE = range(4)
_TEXT = "S240"
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
    def unfinished_path(self) -> Path:
        """A file that is there while the cache is being filled, and stays where that was cut off."""
        return self.folder / "unfinished"

    def pixels(self, mode: str = "c") -> npt.NDArray[np.uint8]:
        """Map the images, shape ``(N, C, H, W)``; nothing is read before it is used.

        Args:
            mode: ``c`` for reading; what is written then goes nowhere. ``r+`` for filling.
        """
        mapped: npt.NDArray[np.uint8] = np.load(self.folder / "pixels.npy", mmap_mode=mode)  # type: ignore[arg-type]
        return mapped

    def facts(self, mode: str = "c") -> npt.NDArray[np.void]:
        """Map what is known of each file, shape ``(N,)`` of ``FACTS``."""
        mapped: npt.NDArray[np.void] = np.load(self.folder / "facts.npy", mmap_mode=mode)  # type: ignore[arg-type]
        return mapped

    def missing(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Return those of ``rows`` that have no pixels yet, or could not be read when they were tried."""
        left: npt.NDArray[np.intp] = rows[self.facts()["state"][rows] != DONE]
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


def open_cache(
    cache_dir: Path, root: Path, files: Sequence[str], settings: CacheSettings, name: str
) -> ImageCache:
    """Return the cache of these files, made empty where there is none.

    What it is keyed by: the files' names, sizes and modification times, the settings, and the version of
    the decoder. Images of an older cache of the same folder whose files have not changed are taken over, and
    a cache whose files have changed or are gone is removed.

    Args:
        cache_dir: Folder of all caches.
        root: Folder that the files are relative to.
        files: Path of each image under the root.
        settings: How they are decoded.
        name: What the data set is called; it begins the folder's name.

    Raises:
        OutputError: If the folder cannot be written, or the disk has no room for the pixels.
    """
    stamps = [stamp(root / file) for file in files]
    key = hashlib.sha256(json.dumps([_VERSION, asdict(settings), list(files), stamps]).encode()).hexdigest()[
        :12
    ]
    stem = f"{name or 'images'}-{settings.image_size}px-{settings.channels}ch-{settings.resize}"
    cache = ImageCache(cache_dir / f"{stem}-{key}", root, tuple(files), settings)
    if cache.folder.is_dir():
        return cache
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache.lock_path):
            if not cache.folder.is_dir():
                _create(cache, stamps)
    except OSError as error:
        needed = _num_bytes(cache)
        raise OutputError(
            f"The cache of decoded images cannot be written to {cache.folder}: {error}. It needs "
            f"{needed:,} bytes; {_num_free(cache_dir):,} are free there. Make room, or set data.cache_dir to "
            "another folder."
        ) from error
    return cache


def stamp(path: Path) -> tuple[int, int]:
    """Return size and modification time (ns) of a file; (-1, -1) where it cannot be reached."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _num_bytes(cache: ImageCache) -> int:
    settings = cache.settings
    return len(cache.files) * (settings.channels * settings.image_size**2 + FACTS.itemsize)


def _num_free(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _create(cache: ImageCache, stamps: list[tuple[int, int]]) -> None:
    """Make an empty cache beside its place and rename it, with the images that an older one can give."""
    unfinished = cache.folder.with_name(f".{cache.folder.name}-{uuid.uuid4().hex[:8]}")
    size = cache.settings.image_size
    try:
        unfinished.mkdir()
        shape = (len(cache.files), cache.settings.channels, size, size)
        _allocate(unfinished / "pixels.npy", np.dtype("u1"), shape)
        _allocate(unfinished / "facts.npy", FACTS, shape[:1])
        description = {"version": _VERSION, "root": str(cache.root), **asdict(cache.settings)}
        write_text(
            unfinished / "files.json", json.dumps({**description, "files": cache.files, "stamps": stamps})
        )
        _take_over(cache, stamps, unfinished)
        unfinished.rename(cache.folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _allocate(path: Path, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> None:
    """Write zeros whose bytes are really there: a full disk is told now, not by a signal later."""
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    num_bytes = path.stat().st_size
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        else:
            header = num_bytes - int(np.prod(shape)) * dtype.itemsize
            file.seek(header)
            for start in range(header, num_bytes, 1 << 24):
                file.write(bytes(min(1 << 24, num_bytes - start)))


def _take_over(cache: ImageCache, stamps: list[tuple[int, int]], unfinished: Path) -> None:
    """Copy unchanged images from other caches of the same root, and remove those that are out of date."""
    wanted = {(file, *one): row for row, (file, one) in enumerate(zip(cache.files, stamps, strict=True))}
    description = {"version": _VERSION, "root": str(cache.root), **asdict(cache.settings)}
    for path in sorted(cache.folder.parent.glob("*/files.json")):
        older = json.loads(path.read_text(encoding="utf-8"))
        if path.parent == unfinished or any(older.get(key) != value for key, value in description.items()):
            continue
        keys = [(file, *one) for file, one in zip(older["files"], older["stamps"], strict=True)]
        _copy(path.parent, keys, unfinished, wanted)
        if any(stamp(cache.root / file) != (size, changed) for file, size, changed in keys):
            _remove(path.parent)


def _copy(
    source: Path, keys: list[tuple[str, int, int]], target: Path, wanted: dict[tuple[str, int, int], int]
) -> None:
    facts = np.load(source / "facts.npy", mmap_mode="r")
    shared = [
        (row, wanted[key]) for row, key in enumerate(keys) if key in wanted and facts["state"][row] == DONE
    ]
    if not shared or (source / "unfinished").exists():
        return
    new_facts, new_pixels = (np.load(target / name, mmap_mode="r+") for name in ("facts.npy", "pixels.npy"))
    pixels = np.load(source / "pixels.npy", mmap_mode="r")
    for old, new in shared:
        new_pixels[new] = pixels[old]
        new_facts[new] = facts[old]
    log.info("%d of %d images are taken over from an older cache.", len(shared), len(wanted))


def _remove(folder: Path) -> None:
    """Delete a cache that is out of date, unless a process is filling it; readers keep what they mapped."""
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        with lock.acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
    except Timeout:
        return
    Path(lock.lock_file).unlink(missing_ok=True)
