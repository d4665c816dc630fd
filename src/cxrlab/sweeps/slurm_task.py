"""What SLURM starts of a sweep's job, on the nodes: the training as a process of its own.

It is asked to write its checkpoint when SLURM is about to take the machine away, and queued again.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from cxrlab.sweeps.jobs import DONE, Job, mark, outcome_of

# What SLURM sends before the time limit (submitit's choice, since NCCL may catch SIGUSR1), and a person may.
_WARNINGS = tuple(number for number in signal.Signals if number.name in ("SIGUSR1", "SIGUSR2"))

# From a signal to this process until the same one has reached those below it.
_SECONDS_TO_HEAR = 1.0

# From the end of a later process of a training to that of its task.
_SECONDS_TO_SPEAK = 30.0


@dataclass(frozen=True)
class Task:
    """What SLURM starts, once for each process of a job; it ends with success where the training did.

    SLURM warns by SIGUSR2, ``signal_delay_s`` before the time limit, and by SIGTERM where it preempts a job
    or ``scancel`` ends it. Either makes the training write its checkpoint; then the job asks to be queued
    again, unless it was cancelled. It has to: one that ends by itself while it is preempted counts as failed
    (seen with 22.05), and SLURM requeues only those that it kills. That is ``scontrol requeue`` and not
    submitit's, which overlooks SIGTERM, and would do so before the checkpoint of several processes is there.

    Args:
        sweep_dir: The sweep's folder.
        number: The job's number in it.
        max_requeues: After how many starts it is not queued again.
    """

    sweep_dir: Path
    number: int
    max_requeues: int

    def __call__(self) -> None:
        """Run the training.

        Raises:
            SystemExit: With the training's status, where that is not 0.
        """
        job = Job.load(self.sweep_dir, self.number)
        is_first = _count("SLURM_PROCID") == 0
        with _Process(job, is_first=is_first) as process:
            returncode = process.wait()
        if not is_first:
            if returncode != 0 and process.received is None:
                # SLURM ends the other tasks with this one: the first is to say first why the training failed.
                time.sleep(_SECONDS_TO_SPEAK)
            raise SystemExit(_status(returncode))
        row = outcome_of(job, returncode)
        if row["status"] in DONE:
            return
        if process.received is not None and row["status"] in ("preempted", "interrupted"):
            mark(job.sweep_dir, job.number, "preempted", self._make_room(process.received))
        raise SystemExit(_status(returncode) or 1)

    def _make_room(self, received: signal.Signals) -> str:
        """Ask to be queued again where the job is to go on, and return what was done, for the table."""
        told = f"stopped by {received.name}"
        slurm_id = _own_id()
        if received is signal.SIGTERM and (queue_states(slurm_id) or {}).get(slurm_id) != "RUNNING":
            return told  # cancelled
        if _count("SLURM_RESTART_COUNT") >= self.max_requeues:
            return f"{told}; not queued again: hydra.launcher.max_requeues={self.max_requeues}"
        problem = requeue(slurm_id)
        return f"{told}; not queued again: {problem}" if problem else f"{told}; queued again"


class _Process:
    """A job's training as a child of this process, which passes SLURM's signals on to it.

    SLURM sends to the processes that it started, or to all below them too, as the cluster is configured; the
    training is to hear it once, for a second one would end it before its checkpoint is written. SIGUSR2 it
    ignores. Whether it heard another by itself is seen at a second child, which any of them ends.
    """

    def __init__(self, job: Job, *, is_first: bool) -> None:
        self._job, self._is_first = job, is_first
        self._process: subprocess.Popen[bytes] | None = None
        self._probe: subprocess.Popen[bytes] | None = None
        self._is_asked = False
        self.received: signal.Signals | None = None

    def __enter__(self) -> "_Process":
        for number in (signal.SIGTERM, *_WARNINGS):
            signal.signal(number, self._pass_on)
        command = [
            sys.executable,
            "-m",
            "cxrlab.sweeps.jobs",
            str(self._job.sweep_dir),
            str(self._job.number),
        ]
        arguments: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "env": _environment(),
            "preexec_fn": _ignore_sigusr2,
        }
        self._probe = subprocess.Popen(["cat"], stdin=subprocess.PIPE, preexec_fn=_ignore_sigusr2)
        if not self._is_first:
            self._process = subprocess.Popen(command, **arguments)
        else:
            with self._job.log.open("ab") as file:
                self._process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **arguments)
        self._ask()  # where the signal came while it was started
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._process, self._probe):
            if process is not None and process.poll() is None:
                process.kill()
        if self._probe is not None and self._probe.stdin is not None:
            self._probe.stdin.close()
            self._probe.wait()

    def wait(self) -> int:
        """Return the training's status, negative for a signal."""
        return 0 if self._process is None else self._process.wait()

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        """Pass a signal on, once."""
        if self.received is None:
            self.received = signal.Signals(number)
            print(f"{self.received.name}: the training is asked to write its checkpoint.", flush=True)
            self._ask()

    def _ask(self) -> None:
        if self.received is not None and self._process is not None and not self._is_asked:
            self._is_asked = True
            if self.received is signal.SIGUSR2 or not self._is_heard_below():
                self._process.send_signal(signal.SIGTERM)  # which does nothing to one that has ended

    def _is_heard_below(self) -> bool:
        if self._probe is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._probe.wait(_SECONDS_TO_HEAR) < 0
        return False


def _ignore_sigusr2() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _environment() -> dict[str, str]:
    """Return the environment of a training. That of one process is to know nothing of SLURM's tasks.

    Lightning would queue it again by itself, without its row in the table.
    """
    environment = dict(os.environ)
    if _count("SLURM_NTASKS", 1) == 1:
        environment.pop("SLURM_NTASKS", None)
    return environment


def _count(name: str, default: int = 0) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else default


def _status(returncode: int) -> int:
    return 128 - returncode if returncode < 0 else returncode


def _own_id() -> str:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")


def requeue(slurm_id: str) -> str:
    """Ask SLURM to queue a job again, and return why it does not; empty where it does.

    Args:
        slurm_id: Such as ``4711_3``.
    """
    try:
        asked = subprocess.run(["scontrol", "requeue", slurm_id], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return (asked.stderr.strip() or f"scontrol ended with {asked.returncode}") if asked.returncode else ""


def queue_states(slurm_id: str | None = None) -> dict[str, str] | None:
    """Return the state of jobs that SLURM remembers, by their ids; None where it does not answer.

    Those that ended are remembered for some minutes (``MinJobAge``); one that is ending is ``COMPLETING``.

    Args:
        slurm_id: Of one job, such as ``4711_3``; None for all of this user's.
    """
    which = f"--user={os.getuid()}" if slurm_id is None else f"--jobs={slurm_id}"
    command = ["squeue", "--noheader", "--array", "--states=all", which, "--format=%i|%T"]
    try:
        lines = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=120
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    return {number.strip(): state.strip() for number, _, state in (line.partition("|") for line in lines)}
