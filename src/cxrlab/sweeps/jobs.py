"""A sweep's jobs as processes of their own: what each is, the command that runs it, and how it ended.

``python -m cxrlab.sweeps.jobs <sweep directory> <number>`` starts a job, or goes on with it where it was cut
off, and does nothing where it is done; so a cluster may run the same line again.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from cxrlab.cli.overrides import key_of
from cxrlab.errors import ConfigError, MissingFileError, UserError, quoted
from cxrlab.files import RunDir, read_json, reading, sweep_jobs, write_text
from cxrlab.sweeps.table import change_job, without_pruning

log = logging.getLogger(__name__)

DONE = ("completed", "pruned")
"""Statuses of jobs that are not run again."""

# What the job's own command line says, or what is of the sweep and not of its jobs.
_NOT_OF_JOBS = (
    "hydra.mode", "hydra.sweep.", "hydra.run.", "hydra.job.num", "hydra.job.id",
    "hydra/launcher", "hydra.launcher.", "hydra/sweeper", "hydra.sweeper.",
)  # fmt: skip


class JobPruned(UserError):
    """A search ended this training before its last epoch, since others were better at this point.

    Attributes:
        metric: The best value of the monitored metric so far; None before the first validation.
    """

    def __init__(self, message: str, metric: float | None = None) -> None:
        super().__init__(message)
        self.metric = metric
        self.is_explained = True  # its checkpoint is not to be gone on from


@dataclass(frozen=True)
class Job:
    """One training of a sweep.

    Attributes:
        sweep_dir: The sweep's folder.
        number: Its number in the sweep.
        overrides: What it sets, such as ``optimizer.lr=0.1``.
        folder: Its own folder, relative to the sweep's.
        options: Words of the command line that are not the config's: Hydra's settings, ``--config-dir``.
        cwd: Where it is started: relative paths of the config lie there.
    """

    sweep_dir: Path
    number: int
    overrides: tuple[str, ...]
    folder: str
    options: tuple[str, ...] = ()
    cwd: str = "."

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.sweep_dir / self.folder

    @property
    def log(self) -> Path:
        """What it printed, where it did not print to the terminal."""
        return self.sweep_dir / ".jobs" / f"{self.number}.log"

    def save(self) -> None:
        """Write it down for :meth:`load`."""
        _path(self.sweep_dir, self.number).parent.mkdir(parents=True, exist_ok=True)
        node = asdict(self) | {"sweep_dir": str(self.sweep_dir)}
        write_text(_path(self.sweep_dir, self.number), json.dumps(node))

    @classmethod
    def load(cls, sweep_dir: Path, number: int) -> "Job":
        """Read a job that was saved.

        Raises:
            MissingFileError: If there is none of that number.
            ConfigError: If the file is damaged.
        """
        path = _path(sweep_dir, number)
        if not path.is_file():
            raise MissingFileError(
                f"{sweep_dir} has no job {number}: {path} is missing. It is written anew by cxrlab train -m "
                f"resume_sweep={sweep_dir}"
            )
        with reading(path):
            node = read_json(path)
            return cls(
                sweep_dir=sweep_dir.absolute(),
                number=number,
                overrides=tuple(node["overrides"]),
                folder=str(node["folder"]),
                options=tuple(node["options"]),
                cwd=str(node["cwd"]),
            )

    def command(self) -> list[str]:
        """Return the command that runs it now: from its last checkpoint where it has one."""
        files = RunDir(self.path)
        is_begun = files.last_checkpoint.is_file() or files.best_checkpoint.is_file()
        where = "resume" if is_begun and files.config.is_file() else "hydra.run.dir"
        return [
            sys.executable, "-m", "cxrlab.train", *self.overrides, *self.options,
            f"hydra.sweep.dir={quoted(str(self.sweep_dir))}", f"{where}={quoted(str(self.path))}",
            f"hydra.job.num={self.number}",
        ]  # fmt: skip

    def set_aside(self) -> None:
        """Rename the folder of an attempt that failed, so that the job starts anew and nothing is lost."""
        if not any(RunDir(self.path).checkpoints.glob("*.ckpt")):
            return
        attempt = 1
        while (other := self.path.with_name(f"{self.path.name}.failed-{attempt}")).exists():
            attempt += 1
        self.path.rename(other)
        log.info("#%d failed before: what it wrote is kept in %s", self.number, other)


def _path(sweep_dir: Path, number: int) -> Path:
    return sweep_dir / ".jobs" / f"{number}.command.json"


def describe_job(config: DictConfig, number: int, overrides: Sequence[str]) -> tuple[Job, DictConfig]:
    """Return a job of a sweep, and its composed config.

    Args:
        config: The config of the job as Hydra's loader composes it for a sweep, ``hydra`` included.
        number: Of the job.
        overrides: What it sets.

    Returns:
        The job; and the config with the job's number in it.
    """
    with read_write(config), open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    instance = HydraConfig.instance()
    before = instance.cfg
    instance.set_config(config)
    try:
        folder = str(OmegaConf.select(config, "hydra.sweep.subdir"))
    finally:
        instance.cfg = before
    options = [
        str(one) for one in config.hydra.overrides.hydra if not str(one).lstrip("+~").startswith(_NOT_OF_JOBS)
    ]
    job = Job(
        sweep_dir=Path(str(config.hydra.sweep.dir)).absolute(),
        number=number,
        overrides=tuple(of_sweep(overrides)),
        folder=folder,
        options=(*options, *_flags(config)),
        cwd=str(config.hydra.runtime.cwd),
    )
    return job, config


def of_sweep(overrides: Sequence[str]) -> list[str]:
    """Return overrides without those that say where a job goes on, which are not of what it computes."""
    return [str(one) for one in overrides if key_of(str(one)) not in ("resume", "resume_sweep")]


def _flags(config: DictConfig) -> list[str]:
    """Return the flags of the command line that its jobs need too."""
    folders = [
        str(source.path)
        for source in config.hydra.runtime.config_sources
        if source.provider == "command-line"
    ]
    name = config.hydra.job.config_name
    return [word for folder in folders for word in ("--config-dir", folder)] + (
        ["--config-name", str(name)] if name not in (None, "train") else []
    )


def read_row(sweep_dir: Path, number: int) -> dict[str, Any] | None:
    """Return what the sweep's table knows of a job; None where it has no row yet."""
    return next((row for row in sweep_jobs(sweep_dir) if row["job"] == number), None)


def mark(sweep_dir: Path, number: int, status: str, error: str = "") -> None:
    """Change the status of a job in the sweep's table."""
    change_job(sweep_dir / "sweep.csv", number, status=status, error=error)


def outcome_of(job: Job, returncode: int) -> dict[str, Any]:
    """Return the row of a job whose process has ended; where that could not write it, it is written now.

    Args:
        job: Whose process it was.
        returncode: As ``subprocess`` has it: negative for a signal.

    Returns:
        Its row; ``status`` is never ``running``.
    """
    row = read_row(job.sweep_dir, job.number)
    if row is not None and row["status"] not in ("running", "waiting"):
        return row
    name = _signal_name(-returncode if returncode < 0 else returncode - 128)
    if name in ("SIGTERM", "SIGUSR1"):
        status, error = "preempted", f"stopped by {name}"
    elif name == "SIGINT":
        status, error = "interrupted", "stopped by Ctrl-C"
    elif returncode < 0:
        status, error = "interrupted", f"killed by {name}"
    else:
        status, error = "failed", f"ended with status {returncode} and no result; see {job.log}"
    mark(job.sweep_dir, job.number, status, error)
    return read_row(job.sweep_dir, job.number) or {"job": job.number, "status": status, "error": error}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name  # which signals there are, the system decides
    except ValueError:
        return f"signal {number}"


def job_return(job: Job, row: Mapping[str, Any]) -> JobReturn:
    """Return a job's row as Hydra wants it: the metric of one that is done, or an error that says why not."""
    result = JobReturn(overrides=job.overrides, working_dir=str(job.path))
    if row.get("status") == "completed":
        result.status, result._return_value = JobStatus.COMPLETED, row["metric"]
    else:
        result.status = JobStatus.FAILED
        if row.get("status") == "pruned":
            result._return_value = JobPruned(str(row["error"]), row["metric"])
        else:
            result._return_value = UserError(f"Job {job.number} {row.get('status')}: {row.get('error')}")
    return result


def check_same(job: Job, row: Mapping[str, Any]) -> None:
    """Refuse to go on with a job under settings that are not its own.

    Raises:
        ConfigError: Naming both.
    """
    before = without_pruning(of_sweep(row.get("task") or str(row["overrides"]).split()))
    now = without_pruning(job.overrides)
    if before != now:
        raise ConfigError(
            f"Job {job.number} of {job.sweep_dir} has the settings {' '.join(before)}, not {' '.join(now)}: "
            "start a new sweep for those."
        )


def main(arguments: Sequence[str]) -> int:
    """Become the process of a job, or end at once where it is done.

    Args:
        arguments: The sweep's directory and the job's number.

    Returns:
        0 where the job is done; else this process is replaced.
    """
    job = Job.load(Path(arguments[0]), int(arguments[1]))
    row = read_row(job.sweep_dir, job.number)
    if row is not None and row["status"] in DONE:
        return 0
    os.chdir(job.cwd)
    command = job.command()
    os.execv(command[0], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
