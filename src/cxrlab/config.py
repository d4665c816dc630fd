"""The only file that knows Hydra: where conf/ lies, following its references, building from it."""

import atexit
import errno
import functools
import gc
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException, InstantiationException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cxrlab.errors import ConfigError, MissingFileError, UserError

log = logging.getLogger(__name__)

# What a resumed run may change; all else would make it another run.
_RESUMABLE = ("trainer", "callbacks", "logger", "data.root", "data.num_workers", "test")
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


def config_dir() -> Path:
    """Return the folder of the YAML files: inside an installed package, or beside a checkout's src."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if (installed / "train.yaml").is_file() else package.parents[1] / "conf"


def _user_cache() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return str(Path(base) / "cxrlab")


def _run_or_resumed(resume: str | None, fresh: str) -> str:
    if resume is None:
        return fresh
    if not (Path(resume) / ".hydra" / "config.yaml").is_file():
        raise MissingFileError(f"resume={resume} is no run directory: it holds no .hydra/config.yaml.")
    return str(resume)


def register_resolvers() -> None:
    """Make the functions that the YAML files call known to OmegaConf."""
    OmegaConf.register_new_resolver("user_cache", _user_cache, replace=True)
    OmegaConf.register_new_resolver("run_or_resumed", _run_or_resumed, replace=True)
    # A resumed run keeps the config it was started with.
    OmegaConf.register_new_resolver(
        "config_subdir", lambda resume: ".hydra" if resume is None else None, replace=True
    )


register_resolvers()


def is_multirun() -> bool:
    """Tell whether this is a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def task_overrides() -> list[str]:
    """Return what the command line set, such as ``optimizer.lr=0.1``."""
    return [str(one) for one in HydraConfig.get().overrides.task] if HydraConfig.initialized() else []


def resolved(cfg: DictConfig) -> DictConfig:
    """Return a copy with every reference followed.

    Raises:
        ConfigError: If a value that the user must give is not given, or a reference leads nowhere.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise ConfigError(f"{missing[0]} is not set. Give it on the command line: {missing[0]}=...")
    copy = cfg.copy()
    try:
        OmegaConf.resolve(copy)
    except OmegaConfBaseException as error:
        raise ConfigError(f"The config cannot be resolved: {error}") from error
    return copy


def plain(node: DictConfig | ListConfig) -> Any:
    """Return a node as dicts, lists and values."""
    return OmegaConf.to_container(node, resolve=True)


def build(node: DictConfig, **arguments: Any) -> Any:
    """Build what a node's ``_target_`` names; errors of the code come through as they are.

    Raises:
        ConfigError: If it cannot be called so.
        UserError: Whatever the code itself raises.
    """
    from hydra.utils import instantiate

    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        known = _user_error(error)
        if known is not None:
            raise known from None
        raise ConfigError(str(error)) from error


def guarded(node: DictConfig, key: str) -> Callable[..., Any]:
    """Build a node that waits for arguments of the code; what it then refuses is told as the key's fault."""
    function = build(node)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UserError:
            raise
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{key} does not fit: {error}") from error

    return call


def resumed_config(cfg: DictConfig) -> DictConfig:
    """Return the config that a run was started with, changed by what the resuming command may change.

    Raises:
        ConfigError: If the command changes anything else, or is a multirun.
        MissingFileError: If the run never finished an epoch.
    """
    run_dir = Path(cfg.resume)
    if is_multirun():
        raise ConfigError("resume= continues one run; it cannot be part of a multirun.")
    if not (run_dir / "checkpoints" / "last.ckpt").is_file():
        raise MissingFileError(
            f"resume={run_dir}: there is no checkpoints/last.ckpt, so no epoch was finished."
        )
    saved = OmegaConf.load(run_dir / ".hydra" / "config.yaml")
    for override in task_overrides():
        key = override.split("=", 1)[0].lstrip("+~")
        if key == "resume":
            continue
        if not any(key == known or key.startswith(f"{known}.") for known in _RESUMABLE):
            raise ConfigError(
                f"{override} cannot change a run that is resumed; only {', '.join(_RESUMABLE)} can. "
                "Start a new run."
            )
        OmegaConf.update(saved, key, OmegaConf.select(cfg, key), merge=False, force_add=True)
    saved.resume = str(run_dir)
    saved.run_dir = str(run_dir.resolve())
    if not isinstance(saved, DictConfig):
        raise ConfigError(f"{run_dir}/.hydra/config.yaml holds no config.")
    return saved


class SweepTable(Callback):
    """Logs how each job ended, and keeps the table of a multirun, also where jobs fail."""

    reported: tuple[BaseException, ...] = ()

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
        outcome = job_return._return_value
        error = outcome if job_return.status is JobStatus.FAILED else None
        if isinstance(error, BaseException):
            log.error("%s", message(error), exc_info=None if _is_users(error) else error)
            SweepTable.reported += (error,)
        if config.hydra.mode == RunMode.MULTIRUN:
            metric = outcome if isinstance(outcome, float) else None
            status = "completed" if error is None else "failed"
            self._write(config, status, metric, "" if error is None else message(error))
            _free(error)

    def _write(self, config: DictConfig, status: str, metric: float | None, error: str) -> None:
        from cxrlab.sweep import add_job

        row: dict[str, object] = {
            "job": int(config.hydra.job.num),
            "status": status,
            "metric": metric,
            "seconds": round(time.perf_counter() - self.start, 1),
            "overrides": " ".join(str(one) for one in config.hydra.overrides.task),
            "error": error,
        }
        path = Path(config.hydra.sweep.dir).absolute() / "sweep.csv"
        add_job(path, row, maximize=config.monitor_mode == "max")


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
        from cxrlab.sweep import printed

        print(printed(path, monitor))


def _user_error(error: BaseException) -> UserError | None:
    """Return the error of our own that a library's error was raised for, or the error itself."""
    cause: BaseException | None = error
    while isinstance(cause, (OmegaConfBaseException, InstantiationException)):
        cause = cause.__cause__ or cause.__context__
    return cause if isinstance(cause, UserError) else None


def _is_users(error: BaseException) -> bool:
    slips = (HydraException, OmegaConfBaseException)
    return _user_error(error) is not None or isinstance(error, slips) or _is_disk_error(error)


def _is_disk_error(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


def message(error: BaseException) -> str:
    """Return what a person is told of an error: its own words, or for a full disk what to do."""
    known = _user_error(error)
    if known is not None:
        return str(known)
    if _is_disk_error(error):
        return (
            f"{error}. Check space and permissions there; outputs go elsewhere with hydra.run.dir=<folder>."
        )
    if isinstance(error, HydraException):
        return "\n".join(str(part) for part in (error, error.__cause__) if part is not None)
    return f"{type(error).__name__}: {error}"


def run_command(command: Callable[[], Any]) -> None:
    """Run an entry point: a user's slip ends it with a message and status 1, a fault with its traceback."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # or Hydra prints its own shortened traceback and exits
    try:
        command()
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if wants_traceback or not _is_users(error):
            raise
        if not any(error is known for known in SweepTable.reported):
            print(message(error), file=sys.stderr)
        sys.exit(1)
