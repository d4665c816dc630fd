"""What every command shares: its errors as messages, and the table of its sweep."""

import atexit
import errno
import gc
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cxrlab.cli.config import user_error

log = logging.getLogger(__name__)

_DISK_ERRORS = {
    errno.ENOSPC,
    errno.EFBIG,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
}


class ErrorLog(Callback):
    """Logs the error that a job ended with, so that it stands in the log file too."""

    reported: tuple[BaseException, ...] = ()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Log an error, and remember it: it is not to be said twice."""
        error = job_return._return_value if job_return.status is JobStatus.FAILED else None
        if isinstance(error, BaseException):
            log.error("%s", message(error), exc_info=None if _is_users(error) else error)
            ErrorLog.reported += (error,)


class SweepTable(ErrorLog):
    """Keeps the table of a multirun, also where jobs fail."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table when the process ends: Hydra calls no later hook once a job has failed."""
        path = Path(config.hydra.sweep.dir).absolute() / "sweep.csv"
        atexit.register(_print_table, path, str(config.monitor))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Start the clock; the job's row says "running" until it ends, or for ever where it is killed."""
        self.start = time.perf_counter()
        if config.hydra.mode == RunMode.MULTIRUN:
            self._write(config, "running", None, "")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Log an error, and write the job's row."""
        super().on_job_end(config, job_return, **kwargs)
        outcome = job_return._return_value
        error = outcome if job_return.status is JobStatus.FAILED else None
        if config.hydra.mode == RunMode.MULTIRUN:
            metric = outcome if isinstance(outcome, float) else None
            status = "completed" if error is None else "failed"
            self._write(config, status, metric, "" if error is None else message(error))
            _free(error)

    def _write(self, config: DictConfig, status: str, metric: float | None, error: str) -> None:
        from cxrlab.sweeps.table import add_job

        row: dict[str, object] = {
            "job": int(config.hydra.job.num),
            "status": status,
            "metric": metric,
            "seconds": round(time.perf_counter() - self.start, 1),
            "overrides": " ".join(str(one) for one in config.hydra.overrides.task),
            "error": error,
            "monitor": str(config.monitor),
            "folder": os.path.relpath(
                config.hydra.runtime.output_dir, Path(config.hydra.sweep.dir).absolute()
            ),
        }
        row |= _seed(config) | _fold(config)
        path = Path(config.hydra.sweep.dir).absolute() / "sweep.csv"
        add_job(path, row, maximize=config.monitor_mode == "max")


def _overrides_but(config: DictConfig, key: str) -> str:
    """Return what the command line sets besides a key."""
    overrides = [str(one) for one in config.hydra.overrides.task]
    return " ".join(one for one in overrides if one.lstrip("+").split("=", 1)[0] != key)


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

        close(path)
        print(printed(path, monitor))


def _is_users(error: BaseException) -> bool:
    slips = (HydraException, OmegaConfBaseException)
    return user_error(error) is not None or isinstance(error, slips) or _is_disk_error(error)


def _is_disk_error(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


def message(error: BaseException) -> str:
    """Return what a person is told of an error: its own words, or for a full disk what to do."""
    known = user_error(error)
    if known is not None:
        return str(known)
    if _is_disk_error(error):
        return (
            f"{error}. Check space and permissions there; outputs go elsewhere with hydra.run.dir=<folder>."
        )
    if isinstance(error, HydraException):
        return _of_hydra("\n".join(str(part) for part in (error, error.__cause__) if part is not None))
    return f"{type(error).__name__}: {error}"


def _of_hydra(text: str) -> str:
    """Return Hydra's message with our advice: a misspelt key is not to be appended."""
    lines = [line for line in text.splitlines() if not line.startswith("To append to your")]
    if "Could not override" in text:
        lines.append("Is it misspelt? --help lists the groups, --cfg job every key.")
    if "override_grammar" in text:
        lines.append(
            "A value with brackets, commas or the like stands in double quotes within single ones: "
            "'key=\"value\"'."
        )
    return "\n".join(lines)


def run_command(command: Callable[[], Any]) -> None:
    """Run an entry point: a user's slip ends it with a message and status 1, a fault with its traceback."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # or Hydra prints its own shortened traceback and exits
    try:
        command()
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C.", file=sys.stderr)
        sys.exit(130)
    except SystemExit as stop:
        # Lightning answers Ctrl-C with status 1, as if it were an error.
        sys.exit(130 if isinstance(stop.__context__, KeyboardInterrupt) else stop.code)
    except Exception as error:
        if wants_traceback or not _is_users(error):
            raise
        if not any(error is known for known in ErrorLog.reported):
            print(message(error), file=sys.stderr)
        sys.exit(1)


def listed(arguments: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return arguments in which a text with commas for some keys is a list, as Hydra would not read it.

    Hydra takes commas for a sweep, and refuses signs such as ``+`` or a blank in a value without quotes.

    Args:
        arguments: Of a command line.
        keys: Whose values are lists of texts.

    Example:
        >>> listed(["method=gradcam,gradcam++", "limit=4", "labels=[A,B]"], ["method", "labels"])
        ['method=["gradcam","gradcam++"]', 'limit=4', 'labels=[A,B]']
    """
    return [_as_list(argument, keys) for argument in arguments]


def _as_list(argument: str, keys: Sequence[str]) -> str:
    key, sign, value = argument.partition("=")
    if key not in keys or not sign or not value or value == "null" or value[0] in "[\"'$":
        return argument
    escaped = (one.strip().replace("\\", "\\\\").replace('"', '\\"') for one in value.split(","))
    return f"{key}=[" + ",".join(f'"{one}"' for one in escaped) + "]"
