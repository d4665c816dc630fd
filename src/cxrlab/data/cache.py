"""Decoded images in one memory-mapped uint8 file, made once and shared by every run.

Finding the cache of a list of files, or making it, empty but for what an older one can give.

Filling a cache: every image decoded once, on all cores, by worker processes that may die.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cxrlab.data.duplicates.search import HASH_WORDS
from cxrlab.data.image_statistics import Appearance
from cxrlab.errors import DataError, OutputError
from cxrlab.files import write_text

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


Rows = npt.NDArray[np.intp]


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
            of the file, and the numbers of :class:`cxrlab.data.image_statistics.Appearance`.
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


# Raised whenever the same file would give other pixels or facts, so that no older cache is taken for new.
_VERSION = 1


# A cache that is out of date stays for a week after its last use.
_KEPT_SECONDS = 7 * 24 * 3600


def open_cache(
    cache_dir: Path, root: Path, files: Sequence[str], settings: CacheSettings, name: str
) -> ImageCache:
    """Return the cache of these files, made empty where there is none.

    What it is keyed by: the files' names, sizes and modification times, the settings, and the version of
    the decoder. Images of an older cache of the same folder whose files have not changed are taken over, and
    a cache whose files have changed or are gone is removed a week after its last use.

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
    stem = re.sub(r"[^\w.-]+", "_", name or "images")
    stem = f"{stem}-{settings.image_size}px-{settings.channels}ch-{settings.resize}"
    # The same files may be read under another name, as a folder or as a table.
    named = [path for path in sorted(cache_dir.glob(f"*-{key}")) if path.is_dir()]
    folder = named[0] if named else cache_dir / f"{stem}-{key}"
    cache = ImageCache(folder, root, tuple(files), settings)
    if _is_sound(cache):
        with contextlib.suppress(OSError):  # others' caches may be read-only
            cache.used_path.touch()
        return cache
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache.lock_path):
            if not _is_sound(cache):
                _create(cache, stamps)
        _is_sound(cache)  # maps it: what is mapped stays, whatever becomes of the folder
    except OSError as error:
        remedy = "Set data.cache_dir to another folder."
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            needed, free = _num_bytes(cache), _num_free(cache_dir)
            remedy = f"It needs {needed:,} bytes; {free:,} are free there. Make room, or {remedy.lower()}"
        raise OutputError(
            f"The cache of decoded images cannot be written to {cache.folder}: {error}. {remedy}"
        ) from error
    return cache


def _is_sound(cache: ImageCache) -> bool:
    """Tell whether a folder holds what a cache must: somebody may have cleaned up in it."""
    size = cache.settings.image_size
    try:
        json.loads((cache.folder / "files.json").read_text(encoding="utf-8"))
        shapes = cache.pixels().shape, cache.facts().shape
        is_known = cache.facts().dtype == FACTS
    except (OSError, ValueError):
        cache.__dict__.pop("_kept_pixels", None)
        cache.__dict__.pop("_kept_facts", None)
        return False
    count = len(cache.files)
    return is_known and shapes == ((count, cache.settings.channels, size, size), (count,))


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
    for left in (cache.folder, *cache.folder.parent.glob(f".{cache.folder.name}-*")):
        shutil.rmtree(left, ignore_errors=True)  # damaged, or cut off while it was made
    unfinished = cache.folder.with_name(f".{cache.folder.name}-{uuid.uuid4().hex[:8]}")
    size = cache.settings.image_size
    try:
        unfinished.mkdir()
        shape = (len(cache.files), cache.settings.channels, size, size)
        _allocate(unfinished / "pixels.npy", np.dtype("u1"), shape)
        _allocate(unfinished / "facts.npy", FACTS, shape[:1])
        description = {"version": _VERSION, "root": str(cache.root.resolve()), **asdict(cache.settings)}
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
    description = {"version": _VERSION, "root": str(cache.root.resolve()), **asdict(cache.settings)}
    for path in sorted(cache.folder.parent.glob("[!.]*/files.json")):
        try:
            older = json.loads(path.read_text(encoding="utf-8"))
            if any(older.get(key) != value for key, value in description.items()):
                continue
            keys = [(file, *one) for file, one in zip(older["files"], older["stamps"], strict=True)]
            _copy(path.parent, keys, unfinished, wanted)
        except (OSError, ValueError, KeyError, AttributeError) as error:
            log.debug("Nothing is taken from %s: %s", path.parent, error)
            continue
        if any(stamp(cache.root / file) != (size, changed) for file, size, changed in keys):
            _remove(path.parent)


def _copy(
    source: Path, keys: list[tuple[str, int, int]], target: Path, wanted: dict[tuple[str, int, int], int]
) -> None:
    facts = np.load(source / "facts.npy", mmap_mode="r")
    shared = [
        (row, wanted[key]) for row, key in enumerate(keys) if key in wanted and facts["state"][row] == DONE
    ]
    if not shared:
        return
    new_facts, new_pixels = (np.load(target / name, mmap_mode="r+") for name in ("facts.npy", "pixels.npy"))
    pixels = np.load(source / "pixels.npy", mmap_mode="r")
    is_whole = not (source / "unfinished").exists()
    for old, new in shared:
        if not is_whole and checksum(pixels[old]) != facts["checksum"][old]:
            continue
        new_pixels[new] = pixels[old]
        new_facts[new] = facts[old]
    log.info("%d of %d images are taken over from an older cache.", len(shared), len(wanted))


def _remove(folder: Path) -> None:
    """Delete a cache that is out of date, unless it was used of late: a training may be at work on it."""
    used = folder / "used"
    if time.time() - (used if used.exists() else folder).stat().st_mtime < _KEPT_SECONDS:
        return
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        with lock.acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
    except Timeout:
        return
    Path(lock.lock_file).unlink(missing_ok=True)


# Images a worker is given at a time: few enough that all end together, many enough that asking costs nothing.
_CHUNK = 32


# To start one more worker for fewer images than this would take longer than it saves.
_FEWEST_A_WORKER = 100


# A decoder that is killed by one of these was so by the file; by any other, by something else.
_CRASHES = {
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE")
    if hasattr(signal, name)
}


_PATIENCE_SECONDS = 1.0


# The workers are as many as the cores; threads of NumPy's libraries would only wait for one another, and make
# each image take ten times as long.
_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM")}


def fill(cache: ImageCache, rows: Rows, *, num_workers: int | None, shows_progress: bool = True) -> int:
    """Decode those images of ``rows`` that are not in the cache yet.

    A process that comes second waits for the first and then finds nothing left to do. What a killed process
    left is checked against its checksums and kept.

    Args:
        cache: What is to be filled.
        rows: Rows of the cache.
        num_workers: Processes that decode; None for one a core, 0 to decode in this process.
        shows_progress: Draw a progress bar on standard error.

    Returns:
        Images that were decoded, or found to be unreadable, by this call.

    Raises:
        OutputError: If the cache cannot be written.
        DataError: If a worker is killed while it decodes; the message names the file.
    """
    if not cache.unfinished_path.exists() and not len(cache.missing(rows)):
        return 0
    try:
        with _locked(cache):
            return _fill(cache, rows, num_workers, shows_progress)
    except OSError as error:
        raise OutputError(
            f"The cache {cache.folder} cannot be written: {error}. Check space and permissions there, or set "
            "data.cache_dir to another folder."
        ) from error


@contextlib.contextmanager
def _locked(cache: ImageCache) -> Iterator[None]:
    """Hold the cache's lock; the operating system frees it when a process dies."""
    lock = FileLock(cache.lock_path)
    try:
        lock.acquire(timeout=_PATIENCE_SECONDS)
    except Timeout:
        log.info("Another process is filling %s; waiting for it.", cache.folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fill(cache: ImageCache, rows: Rows, num_workers: int | None, shows_progress: bool) -> int:
    if cache.unfinished_path.exists():
        _check_what_is_there(cache)
    todo = cache.missing(rows)
    if not len(todo):
        cache.unfinished_path.unlink(missing_ok=True)
        return 0
    cache.unfinished_path.touch()
    count = _num_cores() if num_workers is None else num_workers
    count = min(count, -(-len(todo) // _FEWEST_A_WORKER))
    with _progress(shows_progress) as progress, _kept_when_stopped():
        task = progress.add_task("Decoding images", total=len(todo), rate="")
        if count:
            _fill_by_workers(cache, todo, count, progress, task)
        else:
            for chunk in _chunks(todo):
                from cxrlab.data.cache_worker import write_rows

                write_rows(cache, chunk)
                _advance(progress, task, len(chunk))
    for array in (cache.pixels("r+"), cache.facts("r+")):
        getattr(array, "flush")()  # noqa: B009 - a memory map, which the annotation hides
    cache.unfinished_path.unlink()
    return len(todo)


@contextlib.contextmanager
def _kept_when_stopped() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        log.warning("What is decoded is kept: the same command goes on from there.")
        raise


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chunks(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))


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


def _check_what_is_there(cache: ImageCache) -> None:
    """Empty the rows whose pixels are not those that were decoded: a power cut may have lost pages."""
    pixels, facts = cache.pixels(), cache.facts("r+")
    done = np.flatnonzero(facts["state"] == DONE)
    lost = [row for row in done if checksum(pixels[row]) != facts["checksum"][row]]
    facts["state"][np.flatnonzero(facts["state"] == AT_WORK)] = EMPTY
    facts["state"][lost] = EMPTY
    log.info("Going on with %s, which holds %d images.", cache.folder, len(done) - len(lost))


def _fill_by_workers(cache: ImageCache, rows: Rows, count: int, progress: Progress, task: TaskID) -> None:
    """Hand chunks to ``count`` processes, each driven by a thread of this one."""
    queue: SimpleQueue[Rows] = SimpleQueue()
    for chunk in _chunks(rows):
        queue.put(chunk)
    stop: list[bool] = []

    def drive() -> None:
        with _Worker(cache) as worker:
            while not stop:
                try:
                    chunk = queue.get_nowait()
                except Empty:
                    return
                worker.decode(chunk)
                _advance(progress, task, len(chunk))

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(drive) for _ in range(count)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.append(True)
    for future in futures:
        future.result()


class _Worker:
    """A process that decodes chunks; where it crashes on a file, another takes over."""

    def __init__(self, cache: ImageCache) -> None:
        self.cache = cache

    def __enter__(self) -> "_Worker":
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()
        self.messages.close()

    def _start(self) -> None:
        self.messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        folder, root = str(self.cache.folder.resolve()), str(self.cache.root.resolve())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cxrlab.data.cache_worker", folder, root],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.messages, text=True,
            env={**os.environ, **_ONE_THREAD},
            # Ctrl-C is for the main process, which then ends its workers.
            start_new_session=True,
        )  # fmt: skip

    def decode(self, rows: Rows) -> None:
        """Have a chunk decoded.

        Raises:
            DataError: If the process was killed, or failed by a fault of its own.
        """
        left = rows
        while len(left):
            if self._answers(left):
                return
            self._mark_the_culprit(left)
            self._end()
            self._start()
            left = self.cache.missing(left)

    def _answers(self, rows: Rows) -> bool:
        if self.process.stdin is None or self.process.stdout is None:
            return False
        try:
            self.process.stdin.write(json.dumps(rows.tolist()) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        return self.process.stdout.readline() == "done\n"

    def _mark_the_culprit(self, rows: Rows) -> None:
        code = self.process.wait()
        facts = self.cache.facts("r+")
        at_work = rows[facts["state"][rows] == AT_WORK]
        names = (
            ", ".join(str(self.cache.root / self.cache.files[row]) for row in at_work[:1])
            or "its first image"
        )
        if -code not in _CRASHES or not len(at_work):
            self.messages.seek(0)
            said = self.messages.read().decode("utf-8", errors="replace").strip().splitlines()
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            raise DataError(
                f"A process that decodes images was {how} at {names}. "
                f"{said[-1] if said else 'Was memory short?'} Start again to go on where it stopped."
            )
        reason = f"the decoder crashed on it ({signal.Signals(-code).name})"
        facts["error"][at_work] = f"The image {names} cannot be read: {reason}.".encode()[:400]
        facts["state"][at_work] = UNREADABLE
