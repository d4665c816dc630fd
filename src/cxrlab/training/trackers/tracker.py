"""What all trackers share: when their run starts and ends, which files it gets, and that it may fail."""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger

from cxrlab.errors import ConfigError
from cxrlab.files import RunDir, read_json, write_json

log = logging.getLogger(__name__)

Status = Literal["finished", "failed", "stopped"]


class Tracker(Logger, ABC):
    """A Lightning logger whose run is in the store of a tracker.

    The run starts with the training, and its id is kept in ``trackers.json`` of the run directory, so that a
    resumed training continues it. A store that fails within a training costs what would have gone there, not
    the training: it is left out from then on, with a warning.

    Args:
        key: Of the tracker in ``conf/logger``, such as ``wandb``.
        run_dir: The run directory.
        title: Of the run; None for the last two parts of the run directory, as in ``12-00-00/3``.
        files: Whether the run gets files.
    """

    def __init__(self, key: str, *, run_dir: str, title: str | None, files: bool) -> None:
        super().__init__()
        self.key = key
        self.run_dir = RunDir(Path(run_dir))
        self.title = title or "/".join(self.run_dir.path.resolve().parts[-2:])
        self.files = files
        self.run_id: str | None = None
        self._has_failed = False

    @abstractmethod
    def _start(self, run_id: str | None) -> str:
        """Start a run, or continue the one of an id that an earlier session had; return its id."""

    @abstractmethod
    def _log_settings(self, settings: dict[str, Any]) -> None:
        """Keep the settings of a training, values or dicts of them, with the run."""

    @abstractmethod
    def _log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Keep the metrics of a step with the run."""

    @abstractmethod
    def _add_file(self, path: Path) -> None:
        """Keep a file with the run, by its own name."""

    @abstractmethod
    def _close(self, status: Status) -> None:
        """End the run."""

    @property
    def name(self) -> str:
        """Name of the logger."""
        return self.key

    @property
    def version(self) -> str:
        """Id of the tracker's run, empty before it starts."""
        return self.run_id or ""

    @rank_zero_only
    def start(self) -> None:
        """Start the run, or continue that of the run directory, unless it is started already.

        Raises:
            ConfigError: If the tracker starts no run, or trackers.json is damaged.
        """
        if self.run_id is None:
            earlier = saved_ids(self.run_dir).get(self.key)
            try:
                self.run_id = self._start(earlier)
            except Exception as error:  # of the network, a server or a disk
                raise ConfigError(
                    f"logger.{self.key}: the tracker starts no run ({one_line(error)}). Check its settings, "
                    f"or train without it: logger.{self.key}=null."
                ) from error
            write_json(self.run_dir.trackers, saved_ids(self.run_dir) | {self.key: self.run_id})

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep the settings of the training."""
        self.start()
        self._attempt(lambda: self._log_settings(dict(params)))

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keep the metrics of a step."""
        self.start()
        self._attempt(lambda: self._log_metrics(metrics, step or 0))

    @rank_zero_only
    def add_files(self, paths: Sequence[Path]) -> None:
        """Keep those files with the run that are there; nothing where ``files=false``."""
        for path in paths if self.files and self.run_id is not None else []:
            if path.is_file():
                self._attempt(lambda path=path: self._add_file(path))  # type: ignore[misc]

    @rank_zero_only
    def close(self, status: Status) -> None:
        """End the run, if it has started."""
        if self.run_id is not None:
            self._attempt(lambda: self._close(status))
            self.run_id = None

    def _attempt(self, call: Callable[[], None]) -> None:
        """Call unless an earlier call failed; the training goes on without a store that fails."""
        if self._has_failed:
            return
        try:
            call()
        except Exception as error:  # of the network, a server or a disk
            self._has_failed = True
            log.warning(
                "logger.%s: the tracker failed (%s) and gets nothing more of this run. The training goes on; "
                "all of it is kept in %s.",
                self.key, one_line(error), self.run_dir,
            )  # fmt: skip


@contextmanager
def tracked(trainer: pl.Trainer, files: RunDir, *, page: bool) -> Iterator[None]:
    """Close the runs of a trainer's trackers at the end, with the files of the run, and how it ended.

    Args:
        trainer: With trackers among its loggers, or without.
        files: The run directory.
        page: Whether the report, which then must hold no image, goes there too.
    """
    trackers = [logger for logger in trainer.loggers if isinstance(logger, Tracker)]
    status: Status = "failed"
    try:
        yield
        status = "finished"
    except (KeyboardInterrupt, SystemExit):
        status = "stopped"
        raise
    finally:
        kept = [files.resolved_config, files.results, files.evaluation, files.model_card]
        for tracker in trackers:
            tracker.add_files([*kept, files.report] if page else kept)
            tracker.close(status)


def saved_ids(files: RunDir) -> dict[str, str]:
    """Return the ids of a run directory's runs in trackers, by the tracker's key.

    Raises:
        ConfigError: If the file holds anything else.
    """
    if not files.trackers.is_file():
        return {}
    remedy = "Remove it: the training then starts a new run in the tracker."
    content = read_json(files.trackers, remedy)
    for key, run_id in content.items():
        if not isinstance(run_id, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", run_id):
            raise ConfigError(f"{files.trackers} holds {key}: {run_id!r}, which is no id of a run. {remedy}")
    return content


def one_line(error: Exception) -> str:
    """Return an error's class and the first 300 characters of its message, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
