"""Filling a cache: every image decoded once, on all cores, by worker processes that may die."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from queue import Empty, SimpleQueue

import numpy as np
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cxrlab.data.cache import AT_WORK, DONE, EMPTY, UNREADABLE, ImageCache, checksum
from cxrlab.data.cache_worker import Rows, write_rows
from cxrlab.errors import DataError, OutputError

log = logging.getLogger(__name__)

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
