"""A run of MLflow, on a server or in a local database."""

import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment

from cxrlab.errors import ConfigError, MissingPackageError
from cxrlab.training.trackers.tracker import Status, Tracker, one_line

log = logging.getLogger(__name__)

_LONGEST_VALUE = 6000  # MLflow's limit for a parameter

_STATUS: Mapping[Status, str] = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class MlflowTracker(Tracker):
    """A run of MLflow.

    A resumed training continues its run. MLflow lets no parameter of a run change; what a resume changes,
    such as ``max_epochs``, is kept as a tag ``resumed/<name>``. MLflow's own report of its use to its makers
    is switched off unless ``MLFLOW_DISABLE_TELEMETRY`` says otherwise.

    Args:
        run_dir: The run directory.
        tracking_uri: A server, or a database such as ``sqlite:////data/mlflow.db``; None for what
            ``MLFLOW_TRACKING_URI`` says, else ``mlflow.db`` in the working directory.
        experiment: Of the runs; made where there is none.
        name: Of the run; None for the last two parts of its folder.
        files: Whether the run gets files.

    Raises:
        MissingPackageError: If MLflow is not installed.
        ConfigError: If the store cannot be reached.
    """

    def __init__(
        self,
        *,
        run_dir: str,
        tracking_uri: str | None = None,
        experiment: str = "cxrlab",
        name: str | None = None,
        files: bool = True,
    ) -> None:
        super().__init__("mlflow", run_dir=run_dir, title=name, files=files)
        self.experiment_name = experiment
        self._client: Any = _client(tracking_uri)
        self._experiment_id = self._find_experiment()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The ``MlflowClient``, for callbacks of one's own; the run, of the id ``version``, is started."""
        self.start()
        return self._client

    def _find_experiment(self) -> str:
        """Return the id of the experiment; this also tells early whether the store can be reached."""
        name = self.experiment_name
        try:
            found = self._client.get_experiment_by_name(name)
            return str(self._client.create_experiment(name) if found is None else found.experiment_id)
        except Exception as error:  # MLflow's own, and those of its databases and of the network
            raise ConfigError(
                f"logger.mlflow: the experiment {name} cannot be had from {self._client.tracking_uri} "
                f"({one_line(error)}). Check logger.mlflow.tracking_uri and logger.mlflow.experiment."
            ) from error

    def _start(self, run_id: str | None) -> str:
        from mlflow.exceptions import MlflowException

        if run_id is not None:
            try:
                self._client.update_run(run_id, status="RUNNING")
                return run_id
            except MlflowException as error:
                log.warning(
                    "logger.mlflow: the run %s of an earlier session is not in %s (%s). A new one starts.",
                    run_id, self._client.tracking_uri, one_line(error),
                )  # fmt: skip
        run = self._client.create_run(self._experiment_id, run_name=self.title)
        return str(run.info.run_id)

    def _log_settings(self, settings: dict[str, Any]) -> None:
        from mlflow.entities import Param, RunTag

        before = self._client.get_run(self.run_id).data.params
        values = dict(_flat(settings))
        new = [Param(name, value) for name, value in values.items() if name not in before]
        changed = [
            RunTag(f"resumed/{name}", value)
            for name, value in values.items()
            if name in before and before[name] != value
        ]
        for start in range(0, max(len(new), 1), 100):  # as many as MLflow takes at once
            self._client.log_batch(self.run_id, params=new[start : start + 100], tags=changed)

    def _log_metrics(self, metrics: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(name, float(value), now, step) for name, value in metrics.items()]
        for start in range(0, len(values), 1000):
            self._client.log_batch(self.run_id, metrics=values[start : start + 1000])

    def _add_file(self, path: Path) -> None:
        self._client.log_artifact(self.run_id, str(path))

    def _close(self, status: Status) -> None:
        self._client.set_terminated(self.run_id, _STATUS[status])


def _client(tracking_uri: str | None) -> Any:
    """Return a client of a store.

    Raises:
        MissingPackageError: If MLflow is not installed.
        ConfigError: If there is no such store.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")  # half a minute; its own 7 take four
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's mappings, which SQLAlchemy 2.1 deprecates
        try:
            from mlflow import MlflowClient

            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.WARNING)
            return MlflowClient(tracking_uri)
        except ImportError as error:
            raise MissingPackageError(
                f"logger=mlflow needs the package {error.name}: pip install 'cxrlab[mlflow]'."
            ) from error
        except Exception as error:  # MLflow's own, and those of its databases
            raise ConfigError(
                f"logger.mlflow.tracking_uri={tracking_uri} cannot be used ({one_line(error)}). Give a "
                "server such as http://localhost:5000, or a file such as sqlite:////data/mlflow.db."
            ) from error


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield settings by name, those of a dict behind its name and a slash, as MLflow keeps them."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", str(value)[:_LONGEST_VALUE]
