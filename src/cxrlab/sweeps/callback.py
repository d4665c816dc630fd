"""Hydra's callback that keeps the table of a multirun."""

import atexit
import contextlib
import gc
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from cxrlab.cli.config import is_job_of_sweep
from cxrlab.cli.console import stop_reason
from cxrlab.cli.overrides import key_of
from cxrlab.cli.processes import is_later
from cxrlab.errors import UserError

if TYPE_CHECKING:
    from cxrlab.sweeps.jobs import Job


class SweepTable(Callback):
    """Keeps the table of a multirun, also where jobs fail.

    Attributes:
        is_open: Whether jobs may be at work still when this process ends.
    """

    is_open = False

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table when the process ends: Hydra calls no later hook once a job has failed.

        What the table needs is imported now. Launchers that run jobs elsewhere (joblib, submitit) import none
        of it in this process, and while Python ends, modules that start threads cannot be imported any more.
        """
        import cxrlab.sweeps.table  # noqa: F401

        path = Path(config.hydra.sweep.dir).absolute() / "sweep.csv"
        atexit.register(_print_table, path, str(config.monitor))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Start the clock; the job's row says "running" until it ends, or for ever where it is killed."""
        self.start = time.perf_counter()
        if _writes_row(config):
            self._write(config, "running", None, "")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Write the job's row."""
        outcome = job_return._return_value
        error = outcome if job_return.status is JobStatus.FAILED else None
        if _writes_row(config):
            from cxrlab.sweeps.jobs import JobPruned

            metric = outcome if isinstance(outcome, float) else getattr(error, "metric", None)
            status = "completed" if error is None else "pruned" if isinstance(error, JobPruned) else "failed"
            self._write(config, status, metric, "" if error is None else _reason(error))
            _free(error)

    def _write(self, config: DictConfig, status: str, metric: float | None, error: str) -> None:
        folder = os.path.relpath(config.hydra.runtime.output_dir, Path(config.hydra.sweep.dir).absolute())
        _add_row(config, folder, status, metric, round(time.perf_counter() - self.start, 1), error)


def add_waiting_job(config: DictConfig, job: "Job") -> None:
    """Add a job to the sweep's table that is yet to be started."""
    _add_row(config, job.folder, "waiting", None, None, "")


@contextlib.contextmanager
def ending_is_told() -> Iterator[None]:
    """Write down, of a job of a sweep, that a signal ended it: it is cut off, and no success."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        reason = stop_reason(stop)
        if reason is not None and HydraConfig.initialized():
            config: Any = HydraConfig.instance().cfg
            if config is not None and _writes_row(config):
                from cxrlab.sweeps.jobs import mark

                status = "interrupted" if reason == "Ctrl-C" else "preempted"
                sweep_dir = Path(config.hydra.sweep.dir).absolute()
                mark(sweep_dir, int(config.hydra.job.num), status, f"stopped by {reason}")
        raise


def _writes_row(config: DictConfig) -> bool:
    """Tell whether this process has a row in a sweep's table: the first one of a job."""
    return is_job_of_sweep(config) and not is_later()


def _add_row(
    config: DictConfig, folder: str, status: str, metric: float | None, seconds: float | None, error: str
) -> None:
    from cxrlab.sweeps.jobs import of_sweep
    from cxrlab.sweeps.table import add_job, without_pruning  # pandas is not needed to answer --help

    task = of_sweep(config.hydra.overrides.task)
    row: dict[str, object] = {
        "job": int(config.hydra.job.num),
        "status": status,
        "metric": metric,
        "seconds": seconds,
        "overrides": " ".join(without_pruning(task)),
        "error": error,
        "task": task,
        "monitor": str(config.monitor),
        "folder": folder,
    }
    row |= _seed(config) | _fold(config)
    path = Path(config.hydra.sweep.dir).absolute() / "sweep.csv"
    add_job(path, row, maximize=config.monitor_mode == "max")


def _overrides_but(config: DictConfig, key: str) -> str:
    """Return what the command line sets besides a key."""
    from cxrlab.sweeps.jobs import of_sweep
    from cxrlab.sweeps.table import without_pruning

    overrides = without_pruning(of_sweep(config.hydra.overrides.task))
    return " ".join(override for override in overrides if key_of(override) != key)


def _seed(config: DictConfig) -> dict[str, object]:
    """Return a job's seed, and what else the command line sets; nothing where there is no seed."""
    seed = OmegaConf.select(config, "seed")
    return {"seed": seed, "but_seed": _overrides_but(config, "seed")} if isinstance(seed, int) else {}


def _fold(config: DictConfig) -> dict[str, object]:
    """Return which fold a job of a cross-validation has; nothing of another job."""
    fold, num_folds, method = (
        OmegaConf.select(config, f"data.split.{key}") for key in ("fold", "num_folds", "method")
    )
    if method != "folds" or not isinstance(fold, int) or not isinstance(num_folds, int):
        return {}
    configuration = _overrides_but(config, "data.split.fold")
    return {"fold": fold, "num_folds": num_folds, "configuration": configuration}


def _free(error: BaseException | None) -> None:
    """Let go of what a failed job built: its error holds the frames, and they the network."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()


def _print_table(path: Path, monitor: str) -> None:
    if path.is_file():
        from cxrlab.sweeps.table import close, printed

        if not SweepTable.is_open:
            close(path)
        print(printed(path, monitor, is_open=SweepTable.is_open))


def _reason(error: BaseException) -> str:
    """Return why a job failed: in our own words where the error, or one that it was raised for, is ours."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__ or cause.__context__
    return f"{type(error).__name__}: {error}" if cause is None else str(cause)
