"""Decoded images in one uint8 file, made once and shared by every run.

What a killed process leaves behind is kept: an image's row counts once its state says so, which is written
last. Neither names nor times are trusted: a file that changed is compared with what was decoded of it, and
all that the cache holds with its checksums, once a day and whenever its files were written to.
"""

import contextlib
import errno
import hashlib
import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import cached_property
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cxrlab.data.cache_worker import (
    AT_WORK,
    DONE,
    EMPTY,
    FACTS,
    UNREADABLE,
    CacheSettings,
    RowLayout,
    bare_start,
    changed_at,
    checksum,
    decode_rows,
    num_cores,
    seals,
    start_worker,
)
from cxrlab.data.image_statistics import Appearance
from cxrlab.data.pixel_file import PixelFile
from cxrlab.errors import DataError, OutputError, UserError
from cxrlab.files import write_text

__all__ = ["DONE", "EMPTY", "UNREADABLE", "CacheSettings", "ImageCache", "fill", "open_cache"]

# Raised whenever the same file would give other pixels or facts, so that no older cache is taken for new.
_VERSION = 2

# Image files that are compared with what was decoded each time that a cache is used, whatever their times.
_NUM_CHECKED = 8
# All that a cache holds is compared with its checksums once in so many seconds.
_CHECKED_FOR = 24 * 3600
_AT_ONCE = 256
# What a cache leaves free on a disk.
_SPARE_BYTES = 2**26
# Images a worker is given at a time: few enough that all end together, many enough that asking costs nothing.
_CHUNK = 32
# To start one more worker for fewer images than this would take longer than it saves.
_FEWEST_A_WORKER = 100
# How long another process may fill the cache before that is worth a line.
_PATIENCE_SECONDS = 1.0

_HOW_TO_GO_ON = (
    "Was memory short? What is decoded is kept: start again to go on from there. Where it ends at the same "
    "image again, remove that image."
)

Rows = npt.NDArray[np.intp]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageCache:
    """A folder with the pixels and the facts of a list of image files.

    Attributes:
        folder: Where ``pixels.npy``, ``facts.npy`` and ``files.json`` lie.
        root: Folder that the files are relative to.
        files: Path of each image under the root.
        settings: How they are decoded.
        changed: When each of them last changed (ns) as it was opened, shape ``(N,)``; None to look again.
    """

    folder: Path
    root: Path
    files: tuple[str, ...]
    settings: CacheSettings
    changed: npt.NDArray[np.int64] | None = field(default=None, compare=False, repr=False)

    @property
    def lock_path(self) -> Path:
        """The file whose lock the process that fills the cache holds."""
        return self.folder.with_name(f"{self.folder.name}.lock")

    @cached_property
    def images(self) -> PixelFile:
        """The images by row."""
        return PixelFile(self.folder / "pixels.npy")

    def pixels(self, mode: str = "c") -> npt.NDArray[np.uint8]:
        """Map the images, shape ``(N, C, H, W)``; nothing is read before it is used.

        A file that is cut while it is mapped ends the process: ``images`` does not.

        Args:
            mode: ``c`` for reading; what is written then goes nowhere. ``r+`` for changing them.
        """
        return self._read_pixels if mode == "c" else self._mapped("pixels.npy", mode)

    def facts(self, mode: str = "c") -> npt.NDArray[np.void]:
        """Map what is known of each file, shape ``(N,)`` of ``FACTS``."""
        return self._read_facts if mode == "c" else self._mapped("facts.npy", mode)

    def _mapped(self, name: str, mode: str) -> npt.NDArray[Any]:
        mapped: npt.NDArray[Any] = np.load(self.folder / name, mmap_mode=mode)  # type: ignore[arg-type]
        return mapped

    # Mapped once: a training keeps what it has, should another process replace the folder.
    @cached_property
    def _read_pixels(self) -> npt.NDArray[np.uint8]:
        return self._mapped("pixels.npy", "c")

    @cached_property
    def _read_facts(self) -> npt.NDArray[np.void]:
        return self._mapped("facts.npy", "c")

    def unmap(self) -> None:
        """Forget what is mapped: the next use maps what is there then."""
        self.__dict__.pop("images", None)
        self.__dict__.pop("_read_pixels", None)
        self.__dict__.pop("_read_facts", None)

    def missing(self, rows: Rows) -> Rows:
        """Return those of ``rows`` that were not decoded yet."""
        states = self.facts()["state"][rows]
        missing: Rows = rows[(states != DONE) & (states != UNREADABLE)]
        return missing

    def damaged(self, rows: Rows) -> Rows:
        """Return those of ``rows`` whose pixels are not the ones that were decoded."""
        facts, pixels = self.facts(), self.images
        decoded = rows[facts["state"][rows] == DONE]

        def differ(start: int) -> list[bool]:
            chunk = decoded[start : start + _AT_ONCE]
            return [
                checksum(image) != facts["checksum"][row]
                for row, image in zip(chunk, pixels[chunk], strict=True)
            ]

        with ThreadPoolExecutor(num_cores()) as threads:
            found = list(threads.map(differ, range(0, len(decoded), _AT_ONCE)))
        damaged: Rows = decoded[np.array([is_one for chunk in found for is_one in chunk], dtype=bool)]
        return damaged

    def unsealed(self, rows: Rows) -> Rows:
        """Return those of ``rows`` whose facts are not the ones that were written for their files."""
        facts = self.facts()
        settled = rows[np.isin(facts["state"][rows], (DONE, UNREADABLE))]
        sealed = seals(facts[settled], [self.files[row] for row in settled], self.settings)
        unsealed: Rows = settled[sealed != facts["seal"][settled]]
        return unsealed

    def exchanged(self, rows: Rows) -> Rows:
        """Return those of ``rows`` whose file has another content than the one that was decoded.

        Args:
            rows: Those that could not be read count as exchanged, so that they are tried again.
        """
        facts = self.facts()
        paths = [self.root / self.files[row] for row in rows]
        with ThreadPoolExecutor(2 * num_cores()) as threads:  # on a network file system they wait
            digests = np.array(list(threads.map(_digest, paths)), dtype="S32")
        exchanged: Rows = rows[(digests != facts["digest"][rows]) & (digests != b"")]
        return exchanged

    def table(self, rows: Rows) -> pd.DataFrame:
        """Return what is known of the files in ``rows``: one row each, in that order.

        Returns:
            Columns ``error``, ``warning``, ``digest``, ``mode`` as text, ``width`` and ``height`` in pixels
            of the file, ``depth`` and ``levels`` (see :class:`cxrlab.data.decode.DecodedImage`), and the
            numbers of :class:`cxrlab.data.image_statistics.Appearance`.
        """
        facts = self.facts()
        is_done = facts["state"][rows] == DONE
        texts = np.array(_decoded(facts["text"], rows), dtype=object)
        text = {
            "error": np.where(is_done, "", texts),
            "warning": np.where(is_done, texts, ""),
            **{name: _decoded(facts[name], rows) for name in ("digest", "mode")},
        }
        whole = {name: facts[name][rows].astype(np.int64) for name in ("width", "height", "depth", "levels")}
        looks = {name: facts[name][rows].astype(np.float64) for name in Appearance._fields}
        return pd.DataFrame({**text, **whole, **looks})

    def hashes(self, rows: Rows) -> npt.NDArray[np.uint64]:
        """Return the perceptual hashes of ``rows``, shape ``(n, HASH_WORDS)``."""
        return np.ascontiguousarray(self.facts()["hash"][rows])


def _decoded(cells: npt.NDArray[np.bytes_], rows: Rows) -> list[str]:
    """Return texts by row; a few at a time, for their cells are wide and most are empty."""
    texts: dict[bytes, str] = {}  # few differ, but for digests
    decoded: list[str] = []
    for start in range(0, len(rows), _AT_ONCE):
        some = cells[rows[start : start + _AT_ONCE]].tolist()
        decoded += [texts.setdefault(cell, cell.decode("utf-8", errors="replace")) for cell in some]
    return decoded


def _digest(path: Path) -> bytes:
    """Return the digest of a file as a decoded image has it; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32].encode()
    except OSError:
        return b""


def open_cache(
    cache_dir: Path, root: Path, files: Sequence[str], settings: CacheSettings, name: str
) -> ImageCache:
    """Return the cache of these files, made empty where there is none.

    What it is keyed by: the files' names, sizes and modification times, the settings, and the version of the
    decoder. That the files are those that were decoded is looked at when it is filled.

    Args:
        cache_dir: Folder of all caches.
        root: Folder that the files are relative to.
        files: Path of each image under the root.
        settings: How they are decoded.
        name: What the data set is called; it begins the folder's name.

    Raises:
        OutputError: If the folder cannot be written.
    """
    folder_of_all = str(root)  # text, for a million Path objects take longer than looking at the files
    stamps = [_stamp(os.path.join(folder_of_all, file)) for file in files]  # noqa: PTH118
    described = json.dumps([_VERSION, asdict(settings), list(files), [stamp[:2] for stamp in stamps]])
    key = hashlib.sha256(described.encode()).hexdigest()[:12]
    stem = re.sub(r"[^\w.-]+", "_", name or "images")
    stem = f"{stem}-{settings.image_size}px-{settings.channels}ch-{settings.resize}"
    # The same files may be read under another name, as a folder or as a table.
    folders = [path for path in sorted(cache_dir.glob(f"*-{key}")) if path.is_dir()]
    folder = folders[0] if folders else cache_dir / f"{stem}-{key}"
    changed = np.array([stamp[2] for stamp in stamps], dtype=np.int64)
    cache = ImageCache(folder, root, tuple(files), settings, changed)
    if _is_sound(cache):
        return cache
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache.lock_path):
            if not _is_sound(cache):
                _create(cache)
    except OSError as error:
        raise _not_written(cache, len(files), error) from error
    return cache


def _stamp(path: Path | str) -> tuple[int, int, int]:
    """Return size, modification time and change time (ns) of a file; -1 each where it cannot be reached."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return -1, -1, -1
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _description(cache: ImageCache) -> dict[str, Any]:
    return {"version": _VERSION, **asdict(cache.settings), "files": list(cache.files)}


def _is_sound(cache: ImageCache) -> bool:
    """Tell whether a folder holds what a cache must: somebody may have cleaned up in it."""
    size = cache.settings.image_size
    try:
        described = json.loads((cache.folder / "files.json").read_text(encoding="utf-8"))
        described = {key: value for key, value in described.items() if key != "root"}
        shapes = cache.pixels().shape, cache.facts().shape
        is_known = cache.facts().dtype == FACTS
    except (OSError, ValueError, AttributeError):  # AttributeError: it is JSON, but no object
        cache.unmap()
        return False
    shape = (len(cache.files), cache.settings.channels, size, size)
    is_sound = is_known and described == _description(cache) and shapes == (shape, shape[:1])
    if not is_sound:
        cache.unmap()  # another will stand in its place
    return is_sound


def _create(cache: ImageCache) -> None:
    """Make an empty cache beside its place and rename it: a folder of that name is whole."""
    for rest in (cache.folder, *cache.folder.parent.glob(f".{cache.folder.name}-*")):
        shutil.rmtree(rest, ignore_errors=True)  # damaged, or cut off while it was made
    unfinished = cache.folder.with_name(f".{cache.folder.name}-{uuid.uuid4().hex[:8]}")
    size = cache.settings.image_size
    shape = (len(cache.files), cache.settings.channels, size, size)
    try:
        unfinished.mkdir()
        np.lib.format.open_memmap(unfinished / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
        np.lib.format.open_memmap(unfinished / "facts.npy", mode="w+", dtype=FACTS, shape=shape[:1])
        description = {"root": str(cache.root.resolve()), **_description(cache)}
        write_text(unfinished / "files.json", json.dumps(description))
        unfinished.rename(cache.folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _not_written(cache: ImageCache, num_images: int, error: OSError) -> OutputError:
    """Return the error of a cache that cannot be written; of a full disk, how much there must be."""
    remedy = "Check permissions there, or set data.cache_dir (of a run: cache_dir) to another folder."
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        needed, free = num_images * _image_bytes(cache), _num_free(cache.folder)
        remedy = (
            f"It needs {needed:,} bytes; {free:,} are free there. Make room, or set data.cache_dir to "
            "another folder."
        )
    return OutputError(f"The cache of decoded images cannot be written to {cache.folder}: {error}. {remedy}")


def _image_bytes(cache: ImageCache) -> int:
    return cache.settings.channels * cache.settings.image_size**2 + FACTS.itemsize


def _num_free(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def fill(cache: ImageCache, rows: Rows, *, num_workers: int | None, shows_progress: bool = True) -> int:
    """Decode those images of ``rows`` that are not in the cache yet.

    A process that comes second waits for the first and then finds nothing left to do. What is there is
    decoded again where it is damaged, or its file was exchanged for another of the same name, size and time.

    Args:
        cache: What is to be filled.
        rows: Rows of the cache.
        num_workers: Processes that decode; None for one a core, 0 to decode in this process.
        shows_progress: Draw a progress bar on standard error.

    Returns:
        Images that were decoded, or found to be unreadable, by this call.

    Raises:
        OutputError: If the cache cannot be written, or the disk has no room for the images.
        DataError: If a worker is killed while it decodes, and another after it; the message names the file.
    """
    doubtful = _doubtful(cache, rows)
    if not len(doubtful) and not len(cache.missing(rows)):
        return 0
    try:
        with _locked(cache):
            if len(doubtful):
                cache.facts("r+")["state"][doubtful] = EMPTY
            return _fill_soundly(cache, cache.missing(rows), num_workers, shows_progress)
    except UserError:  # OutputError is an OSError too
        raise
    except OSError as error:
        raise _not_written(cache, len(cache.missing(rows)), error) from error
    finally:
        cache.unmap()


def _doubtful(cache: ImageCache, rows: Rows) -> Rows:
    """Return the rows that must be decoded again: of exchanged files, and those that are damaged."""
    exchanged = _exchanged(cache, rows)
    if len(exchanged):
        _log.warning(
            "%d images below %s are others than were decoded, with the same names, sizes and times: they are "
            "decoded again.", len(exchanged), cache.root,
        )  # fmt: skip
    damaged = _damaged(cache)
    if len(damaged):
        _log.warning(
            "%d images in %s are damaged and decoded again: is the disk failing?", len(damaged), cache.folder
        )
    return np.union1d(exchanged, damaged).astype(np.intp)


def _exchanged(cache: ImageCache, rows: Rows) -> Rows:
    """Return those of ``rows`` whose file is another than was decoded.

    A file is read where its change time is another one, after a copy of the data set for instance, and some
    are whatever it says: not every file system keeps it.
    """
    facts = cache.facts()
    settled = rows[np.isin(facts["state"][rows], (DONE, UNREADABLE))]
    now = cache.changed
    if now is None:
        now = np.array([changed_at(cache.root / file) for file in cache.files], dtype=np.int64)
    is_moved = (now[settled] != facts["changed"][settled]) & (now[settled] >= 0)
    moved, still = settled[is_moved], settled[~is_moved]
    still = still[facts["state"][still] == DONE]
    if len(moved) > _NUM_CHECKED:
        _log.info("The files of %d images were copied or touched; comparing them with the cache.", len(moved))
    exchanged = cache.exchanged(moved)
    sample = cache.exchanged(still[:: max(1, len(still) // _NUM_CHECKED)])
    if len(sample):
        exchanged = np.union1d(exchanged, cache.exchanged(still)).astype(np.intp)
    same = np.setdiff1d(moved, exchanged)
    if len(same):
        with contextlib.suppress(OSError, ValueError):  # a cache that others made may be read-only
            cache.facts("r+")["changed"][same] = now[same]
    return exchanged


def _damaged(cache: ImageCache) -> Rows:
    """Return the rows whose pixels or facts are not what was written.

    Everything is looked at once a day, and whenever the files of the cache were written by somebody since.
    """
    every = np.arange(len(cache.files))
    path = cache.folder / "checked.json"
    try:
        checked = json.loads(path.read_text(encoding="utf-8"))
        is_fresh = checked["files"] == _stamps_of(cache) and 0 <= time.time() - checked["at"] < _CHECKED_FOR
    except (OSError, ValueError, KeyError, TypeError):
        is_fresh = False
    if is_fresh:
        return every[:0]
    damaged = np.union1d(cache.damaged(every), cache.unsealed(every)).astype(np.intp)
    if not len(damaged):
        _note_checked(cache)
    return damaged


def _stamps_of(cache: ImageCache) -> list[list[int]]:
    return [list(_stamp(cache.folder / name)) for name in ("pixels.npy", "facts.npy")]


def _note_checked(cache: ImageCache) -> None:
    with contextlib.suppress(OSError):  # it is only looked at again
        noted = {"files": _stamps_of(cache), "at": time.time()}
        write_text(cache.folder / "checked.json", json.dumps(noted))


@contextlib.contextmanager
def _locked(cache: ImageCache) -> Iterator[None]:
    """Hold the cache's lock; the operating system frees it when a process dies."""
    lock = FileLock(cache.lock_path)
    try:
        lock.acquire(timeout=_PATIENCE_SECONDS)
    except Timeout:
        _log.info("Another process is filling %s; waiting for it.", cache.folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fill_soundly(cache: ImageCache, rows: Rows, num_workers: int | None, shows_progress: bool) -> int:
    """Decode ``rows`` and see that they were written; the lock is held.

    A file that is cut meanwhile, or a disk that keeps no promise, leaves zeros: they are decoded once more.
    """
    count = _fill(cache, rows, num_workers, shows_progress)
    for _ in range(2):
        cache.unmap()
        _restore_lengths(cache)
        settled = cache.facts()["state"]
        lost = rows[
            (settled[rows] == AT_WORK) | (settled[rows] == EMPTY) & (cache.facts()["text"][rows] == b"")
        ]
        lost = np.union1d(lost, np.union1d(cache.damaged(rows), cache.unsealed(rows))).astype(np.intp)
        if not len(lost):
            _note_checked(cache)
            return count
        _log.warning(
            "%d images were lost while %s was written; they are decoded again.", len(lost), cache.folder
        )
        cache.facts("r+")["state"][lost] = EMPTY
        _fill(cache, lost, num_workers, shows_progress)
    raise OutputError(
        f"The cache of decoded images in {cache.folder} does not hold what is written to it. Is another "
        "program writing or cleaning up there, or the disk failing? Set data.cache_dir to another folder."
    )


def _restore_lengths(cache: ImageCache) -> None:
    """Give a file that was cut its length back; what was cut off reads as zeros, which no checksum fits."""
    for name in ("pixels.npy", "facts.npy"):
        path = cache.folder / name
        size = RowLayout.of(path).size
        if path.stat().st_size < size:
            os.truncate(path, size)


def _fill(cache: ImageCache, rows: Rows, num_workers: int | None, shows_progress: bool) -> int:
    """Decode ``rows``; the lock is held."""
    if not len(rows):
        return 0
    _restore_lengths(cache)
    states = cache.facts("r+")["state"]
    if num_kept := int((states == DONE).sum()):
        _log.info("Going on with %s, which holds %d images.", cache.folder, num_kept)
    states[np.flatnonzero(states == AT_WORK)] = EMPTY  # a killed process left them so
    if len(rows) * _image_bytes(cache) + _SPARE_BYTES > _num_free(cache.folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    count = num_cores() if num_workers is None else num_workers
    count = min(count, -(-len(rows) // _FEWEST_A_WORKER))
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    with _progress(shows_progress) as progress, _kept_when_stopped():
        task = progress.add_task("Decoding images", total=len(rows), rate="")
        decoded = _by_workers(cache, chunks, count) if count else _here(cache, chunks)
        with contextlib.closing(decoded):
            for num_decoded in decoded:
                _advance(progress, task, num_decoded)
    return len(rows)


@contextlib.contextmanager
def _kept_when_stopped() -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        _log.warning("What is decoded is kept: the same command goes on from there.")
        raise


def _progress(is_shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
        console=Console(stderr=True), disable=not is_shown,
    )  # fmt: skip


def _advance(progress: Progress, task: TaskID, count: int) -> None:
    progress.update(task, advance=count)
    speed = progress.tasks[0].finished_speed or progress.tasks[0].speed
    progress.update(task, rate=f"{speed:,.0f} images/s" if speed else "")


def _named(cache: ImageCache, rows: Rows) -> list[tuple[int, str]]:
    return [(int(row), cache.files[row]) for row in rows]


def _here(cache: ImageCache, chunks: Sequence[Rows]) -> Generator[int, None, None]:
    """Decode chunks of rows in this process; yield the length of each when it is done."""
    for chunk in chunks:
        decode_rows(cache.folder, cache.root, cache.settings, _named(cache, chunk))
        yield len(chunk)


def _by_workers(cache: ImageCache, chunks: Sequence[Rows], count: int) -> Generator[int, None, None]:
    """Decode chunks of rows in ``count`` processes; yield the length of each when it is done.

    Where one of them dies, by another's want of memory for instance, what is left is tried once more.
    """
    rows = np.concatenate(chunks)
    try:
        yield from _by_pool(cache, chunks, count)
    except _DeadWorkerError as error:
        _log.warning("%s What is left is tried once more.", error)
        cache.unmap()
        states = cache.facts("r+")["state"]
        states[rows[states[rows] == AT_WORK]] = EMPTY
        left = rows[states[rows] == EMPTY]
        try:
            yield from _by_pool(cache, np.array_split(left, -(-len(left) // _CHUNK)), count)
        except _DeadWorkerError as again:
            raise DataError(f"{again} {_HOW_TO_GO_ON}") from again


class _DeadWorkerError(Exception):
    """A process that decodes died; the message says how, and at which image."""


def _by_pool(cache: ImageCache, chunks: Sequence[Rows], count: int) -> Generator[int, None, None]:
    folder, root = cache.folder.resolve(), cache.root.resolve()
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=start_worker)
    try:
        with bare_start():
            lengths = {
                pool.submit(decode_rows, folder, root, cache.settings, _named(cache, chunk)): len(chunk)
                for chunk in chunks
            }
        workers = multiprocessing.active_children()
        try:
            for future in as_completed(lengths):
                future.result()
                yield lengths[future]
        except BrokenProcessPool as error:
            pool.shutdown(wait=True, cancel_futures=True)  # before it, a worker's exit code may be unknown
            raise _DeadWorkerError(_how_it_died(cache, np.concatenate(chunks), workers)) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _how_it_died(cache: ImageCache, rows: Rows, workers: Sequence[BaseProcess]) -> str:
    """Say which image a worker was at, and by what it ended; the other workers were ended for its sake."""
    at_work = rows[cache.facts("r+")["state"][rows] == AT_WORK]
    images = [str(cache.root / cache.files[row]) for row in at_work]
    where = {0: "before its first image", 1: f"at {images[0]}" if images else ""}.get(
        len(images), f"at one of {images}"
    )
    codes = [worker.exitcode for worker in workers]
    code = next((code for code in codes if code not in (None, 0, -signal.SIGTERM)), None)
    how = "ended" if code is None else f"ended with status {code}"
    if code is not None and code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
    return f"A process that decodes images {how} {where}."
