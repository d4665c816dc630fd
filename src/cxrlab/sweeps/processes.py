"""Runs the jobs of a sweep as processes of this machine, as many at once as are wanted."""

import logging
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from omegaconf import DictConfig

from cxrlab.cli.claims import user_of
from cxrlab.data.cache_worker import num_cores
from cxrlab.errors import ConfigError, UserError, check_range
from cxrlab.sweeps.callback import add_waiting_job
from cxrlab.sweeps.jobs import DONE, Job, check_same, describe_job, job_return, mark, outcome_of, read_row

log = logging.getLogger(__name__)

# Hydra has one config at a time, and a search starts jobs from several threads.
_COMPOSING = threading.Lock()


class JobProcesses:
    """Starts each job as ``cxrlab train`` would be started for it alone, and waits for them.

    A job may so use several devices, be killed, or run out of memory without an end of the others. Jobs that
    the sweep's table has as done are left alone, those that were cut off go on, and those that failed are
    run anew.

    Args:
        workers: Jobs that run at the same time. Where there are as many GPUs or more, each has its share of
            them; the cores are shared too, unless OMP_NUM_THREADS is set. With one, jobs print to the
            terminal, else to ``.jobs/<number>.log``.
        hydra_context: Of the sweep.
        config: Of the sweep.

    Raises:
        ConfigError: If ``workers`` is below 1.
    """

    def __init__(self, workers: int, hydra_context: HydraContext, config: DictConfig) -> None:
        check_range("hydra.launcher.workers", workers, 1)
        self.workers = workers
        self._context, self._config = hydra_context, config
        self._slots: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for share in _shares(workers):
            self._slots.put(share)
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._is_stopped = False
        self._lock = threading.Lock()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run jobs, and return once all have ended; may be called from several threads.

        Args:
            job_overrides: What each job sets.
            initial_job_idx: Number of the first.

        Returns:
            The metric of each, or why it has none.

        Raises:
            ConfigError: If one of that number has other settings in the sweep's table, or is at work still.
        """
        jobs = [
            prepared_job(self._context, self._config, list(words), initial_job_idx + n)
            for n, words in enumerate(job_overrides)
        ]
        waiting = [job for job in jobs if not is_done(job)]
        if len(jobs) > 1:
            log.info(
                "%d jobs, %d of them done before, %d at once, in %s",
                len(jobs), len(jobs) - len(waiting), self.workers, jobs[0].sweep_dir,
            )  # fmt: skip
        titles = short_titles(jobs)
        with ThreadPoolExecutor(max(1, min(self.workers, len(waiting)))) as pool:
            try:
                ended = as_completed(pool.submit(self._run, job, titles[job.number]) for job in waiting)
                for number, future in enumerate(ended, len(jobs) - len(waiting) + 1):
                    if (told := future.result()) and len(jobs) > 1:
                        log.info("%s (%d of %d)", told, number, len(jobs))
            except (KeyboardInterrupt, SystemExit) as stop:
                self.stop(signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
                raise
        return [job_return(job, read_row(job.sweep_dir, job.number) or {}) for job in jobs]

    def stop(self, number: int) -> None:
        """Ask the jobs at work to keep their state and end, and start no others."""
        with self._lock:
            self._is_stopped = True
            for process in self._running.values():
                if os.name == "nt":  # Windows has no signals to send
                    process.terminate()
                else:
                    process.send_signal(number)

    def _run(self, job: Job, title: str) -> str:
        """Run a job, and return how it ended, in words; nothing where it was not started any more."""
        share = self._slots.get()
        try:
            with self._lock:
                if self._is_stopped:
                    return ""
                mark(job.sweep_dir, job.number, "waiting")
                process = self._started(job, share)
                self._running[job.number] = process
            log.info("%s starts%s", title, "" if self.workers == 1 else f"; it prints to {job.log}")
            returncode = process.wait()
            with self._lock:
                del self._running[job.number]
            return f"{title} {ending_of(outcome_of(job, returncode))}"
        finally:
            self._slots.put(share)

    def _started(self, job: Job, share: dict[str, str]) -> "subprocess.Popen[bytes]":
        """Start a job in a group of its own: Ctrl-C reaches it by us, and once."""
        arguments: dict[str, Any] = {
            "cwd": job.cwd,
            "env": os.environ | share,
            "stdin": subprocess.DEVNULL,
            "process_group": 0,
        }
        if self.workers == 1:
            return subprocess.Popen(job.command(), **arguments)
        with job.log.open("ab") as file:
            return subprocess.Popen(job.command(), stdout=file, stderr=subprocess.STDOUT, **arguments)


def prepared_job(
    context: HydraContext, config: DictConfig, overrides: list[str], number: int, *, is_at_work: bool = False
) -> Job:
    """Return a job of a sweep, written down and with a row in the table, ready to be started or gone on with.

    Args:
        context: Of the sweep.
        config: Of the sweep.
        overrides: What the job sets.
        number: Of the job.
        is_at_work: Whether it is known to be started already, and so left as it is.

    Raises:
        ConfigError: If one of that number has other settings in the sweep's table, or is at work and not
            known to be.
    """
    with _COMPOSING:
        composed = context.config_loader.load_sweep_config(config, overrides)
        job, config = describe_job(composed, number, overrides)
    row = read_row(job.sweep_dir, number)
    if row is None:
        add_waiting_job(config, job)
    elif row["status"] != "unknown":
        check_same(job, row)
        if row["status"] not in DONE and not is_at_work:
            if (user := user_of(job.path)) is not None:
                raise ConfigError(
                    f"Job {number} of {job.sweep_dir} is at work: {job.path} is in use by {user}. Wait for "
                    "it, or stop it."
                )
            if row["status"] == "failed":
                job.set_aside()
    job = _where_it_was(job)
    job.save()
    return job


def _where_it_was(job: Job) -> Job:
    """Return a job as it is started from where the sweep was: relative paths of the config lie there."""
    try:
        before = Path(Job.load(job.sweep_dir, job.number).cwd)
    except UserError:  # there was none, or what was saved of it is damaged
        return job
    return replace(job, cwd=str(before)) if before.is_dir() else job


def is_done(job: Job) -> bool:
    """Tell whether the sweep's table has a job as one that is not run again."""
    row = read_row(job.sweep_dir, job.number)
    return row is not None and row["status"] in DONE


def short_titles(jobs: Sequence[Job]) -> dict[int, str]:
    """Return of each job, by its number, in what it differs from the others."""
    words = [set(job.overrides) for job in jobs]
    shared = set.intersection(*words) if words else set()  # of one alone, as a search starts them, all
    return {
        job.number: " ".join([f"#{job.number}", *(word for word in job.overrides if word not in shared)])
        for job in jobs
    }


def ending_of(row: Mapping[str, Any]) -> str:
    """Return how a job ended, from its row."""
    if isinstance(metric := row.get("metric"), float) and row["status"] in DONE:
        return f"{row['status']}: {row['monitor']} {metric:.4f}, {row['seconds']:.0f} s"
    return f"{row['status']}: {row['error']}"


def _shares(workers: int) -> list[dict[str, str]]:
    """Return what each of the jobs at once has of the machine, as environment variables."""
    if workers == 1:
        return [{}]
    import torch  # slow, and a sweep of one job at a time needs it not

    shares: list[dict[str, str]] = [{} for _ in range(workers)]
    if "OMP_NUM_THREADS" not in os.environ:
        shares = [{"OMP_NUM_THREADS": str(max(1, num_cores() // workers))} for _ in shares]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(n) for n in range(torch.cuda.device_count())]
    each = len(devices) // workers
    if each:
        for number, share in enumerate(shares):
            share["CUDA_VISIBLE_DEVICES"] = ",".join(devices[number * each : (number + 1) * each])
    return shares
