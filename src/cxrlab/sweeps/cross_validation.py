"""Cross-validation as a sweep: its jobs by configuration, with their mean, spread and pooled metrics.

Out-of-fold predictions: the test parts of a cross-validation's folds as one table.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.manifest import read_csv
from cxrlab.errors import ConfigError, DataError, MissingFileError
from cxrlab.files import RunDir, read_json, read_yaml, reading, write_text
from cxrlab.metrics.predictions import PROBABILITY, TARGET

if TYPE_CHECKING:
    from cxrlab.task import Task


def pooled_predictions(tables: Mapping[int, Path]) -> pd.DataFrame:
    """Return the predictions of all folds as one table, each image once.

    Args:
        tables: The predictions table of each fold.

    Returns:
        The columns of the tables as text, so that no digit changes, with ``fold`` after ``part``.

    Raises:
        DataError: If an image is in two folds, or the tables differ in their columns.
    """
    parts: list[pd.DataFrame] = []
    for fold, path in tables.items():
        table = read_csv(path, dtype=str, keep_default_na=False)
        columns = list(table)
        table.insert(columns.index("part") + 1, "fold", fold)
        if parts and list(table) != list(parts[0]):
            raise DataError(f"{path} has other columns than the first fold's table: {columns}.")
        parts.append(table)
    whole: pd.DataFrame = pd.concat(parts, ignore_index=True)
    repeated = whole["image"][whole["image"].duplicated()].unique()
    if len(repeated):
        raise DataError(
            f"{len(repeated)} images were tested on in two folds, for instance {list(repeated[:3])}."
        )
    return whole


def pooled_metrics(table: pd.DataFrame, task: "Task" = "multilabel") -> dict[str, float]:
    """Return ``{"auroc": ..., "auroc/Edema": ..., ...}`` of a predictions table, see ``label_metrics``."""
    import torch

    from cxrlab.metrics.streaming import label_metrics

    names = [str(name) for name in table]
    labels = [name.removeprefix(TARGET) for name in names if name.startswith(TARGET)]
    probabilities, targets = (
        torch.tensor(_numbers(table[[prefix + label for label in labels]]))
        for prefix in (PROBABILITY, TARGET)
    )
    metrics = label_metrics(probabilities, targets, labels, task)
    return {name: float(value) for name, value in metrics.items()}


def _numbers(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    return table.replace("", "nan").to_numpy(dtype=np.float64)


# What the column ``job`` holds in the rows that sum up a configuration.
SUMMARIES = ("mean", "std", "pooled")


_DIGITS = 6  # as in results.csv


_MACRO = "macro mean"


_COUNTS = ("part", "label", "images", "positives", "fold")


_BY_LABEL = ("overrides", "label", "metric", "folds", "mean", "std", "pooled", "predictions")


@dataclass(frozen=True)
class Configuration:
    """Jobs whose overrides differ in ``data.split.fold`` alone.

    Attributes:
        overrides: What they share.
        jobs: Rows of the sweep's table, by number, with ``fold``, ``num_folds`` and ``folder``.
        sweep_dir: What ``folder`` is relative to.
        is_only: Whether the sweep has no other.
    """

    overrides: str
    jobs: tuple[Mapping[str, Any], ...]
    sweep_dir: Path
    is_only: bool

    @property
    def completed(self) -> dict[int, Mapping[str, Any]]:
        """The job of each fold that came to its end, by fold; where a fold was run twice, the later job."""
        done = {int(job["fold"]): job for job in self.jobs if job["status"] == "completed"}
        return dict(sorted(done.items()))

    @property
    def tested(self) -> dict[int, Path]:
        """The table of test predictions of each fold that has one."""
        paths = {fold: self._files(job).predictions("test") for fold, job in self.completed.items()}
        return {fold: path for fold, path in paths.items() if path.is_file()}

    @property
    def out_of_fold_path(self) -> Path:
        """Where the pooled predictions go; of several configurations the first job's number tells which."""
        suffix = "" if self.is_only else f"_{self.jobs[0]['job']}"
        return self.sweep_dir / f"out_of_fold{suffix}.csv"

    @property
    def task(self) -> Any:
        """What the folds' labels are; see :mod:`cxrlab.task`."""
        folders = [self._files(job) for job in self.completed.values()]
        for path in (path for files in folders for path in (files.config, files.resolved_config)):
            with suppress(ConfigError, MissingFileError):  # the table must not be lost with it
                if (task := read_yaml(path).get("task")) in ("multilabel", "multiclass"):
                    return task
        return "multilabel"

    def coverage(self) -> tuple[str, str]:
        """Return how many folds are there, and which are not: ``("3 of 5 folds", "fold 3 failed, ...")``."""
        completed, tested = self.completed, self.tested
        num_folds = int(self.jobs[0]["num_folds"])
        states = {int(job["fold"]): str(job["status"]) for job in self.jobs}
        gaps = [
            f"fold {fold} {states.get(fold, 'not run')}" for fold in range(num_folds) if fold not in completed
        ]
        gaps += [f"fold {fold} without predictions/test.csv" for fold in completed if fold not in tested]
        return f"{len(completed)} of {num_folds} folds", ", ".join(gaps)

    def test_results(self) -> pd.DataFrame:
        """Return the test rows of every fold's ``results.csv``, with a column ``fold``."""
        tables = []
        for fold, job in self.completed.items():
            path = self._files(job).results
            if path.is_file():
                table = read_csv(path, keep_default_na=False, na_values=[""]).assign(fold=fold)
                tables.append(table[table["part"] == "test"])
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(_COUNTS))

    def _files(self, job: Mapping[str, Any]) -> RunDir:
        return RunDir(self.sweep_dir / str(job["folder"]))


def configurations(jobs: Iterable[Mapping[str, Any]], sweep_dir: Path) -> list[Configuration]:
    """Return the configurations of a sweep, in the order of their first jobs; none where no job has a fold.

    Args:
        jobs: Rows of the sweep's table, as :func:`cxrlab.sweeps.table.add_job` takes them.
        sweep_dir: The sweep's directory.
    """
    by_overrides: dict[str, list[Mapping[str, Any]]] = {}
    for job in sorted(jobs, key=lambda job: int(job["job"])):
        if job["fold"] is not None:
            by_overrides.setdefault(str(job["configuration"]), []).append(job)
    is_only = len(by_overrides) == 1
    return [Configuration(name, tuple(rows), sweep_dir, is_only) for name, rows in by_overrides.items()]


def summarised(table: pd.DataFrame, tested: list[Configuration], *, maximize: bool) -> pd.DataFrame:
    """Add folds and test metrics to a sweep's table, and below it each configuration's mean, std and pooled.

    ``mean`` and ``std`` (the sample standard deviation, n - 1) run over the folds, ``pooled`` evaluates all
    out-of-fold predictions together. Writes these predictions, and ``cross_validation.csv`` by label.

    Args:
        table: One row a job, in order.
        tested: The configurations, at least one.
        maximize: Whether the best metric is the highest; the best configuration comes first.

    Returns:
        Rows of jobs, then three of each configuration, with the columns ``fold`` and ``test/<metric>`` more;
        in the latter ``status`` says of how many folds they are, and ``error`` which are missing.
    """
    summaries: list[_Summary] = []
    records: list[dict[str, object]] = []
    by_label: list[list[Any]] = []
    for configuration in tested:
        results = configuration.test_results()
        metrics, problem = _pooled(configuration)
        of_jobs = _of_jobs(configuration, results)
        records += of_jobs
        rows = table.merge(pd.DataFrame(of_jobs), on="job")
        summaries.append(
            _summary(configuration, rows[rows["job"].isin(_job_numbers(configuration))], metrics, problem)
        )
        by_label += _by_label(configuration, results, metrics)
    summaries.sort(key=lambda summary: _rank(summary.mean_metric, maximize))
    sweep_dir = tested[0].sweep_dir
    if not tested[0].is_only:
        (sweep_dir / "out_of_fold.csv").unlink(missing_ok=True)  # of the time when there was one only
    write_text(
        sweep_dir / "cross_validation.csv",
        pd.DataFrame(by_label, columns=_BY_LABEL).round(_DIGITS).to_csv(index=False),
    )
    whole = table.merge(pd.DataFrame(records), on="job", how="left")
    known = ["job", "status", "fold", "metric", *_tests(whole), "seconds", "overrides", "error"]
    swept = [name for name in map(str, whole) if name not in known and not name.startswith("val/")]
    columns = [*known[:-2], *swept, *known[-2:]]
    rows_of_all = [*whole.to_dict("records"), *(row for summary in summaries for row in summary.rows)]
    return pd.DataFrame(rows_of_all, columns=columns).astype({"fold": "Int64"})


def notes(table: pd.DataFrame, sweep_dir: Path) -> list[str]:
    """Return what is to be said below the printed table of a cross-validation; nothing below another's."""
    means = table[table["job"].astype(str) == "mean"]
    if means.empty:
        return []
    lines = [
        "mean, std: over the folds; std is the sample standard deviation (n - 1). pooled: all out-of-fold\n"
        "predictions together. For AUROC and average precision report the mean: pooled ranks images across\n"
        "networks that need not be calibrated alike (Forman and Scholz, SIGKDD Explorations 12(1), 2010).",
        f"By label: {sweep_dir / 'cross_validation.csv'}, which names the out-of-fold predictions: "
        + ", ".join(path.name for path in sorted(sweep_dir.glob("out_of_fold*.csv"))),
    ]
    if len(means) > 1:
        lines.append(
            "Choose a configuration by the validation metric: a test part that chooses is none any more."
        )
    lines += [
        f"WARNING: {row['overrides'] or 'the cross-validation'} has {row['status']} ({row['error']}): "
        "its mean, std and pooled are not those of the whole data set."
        for row in means[means["error"] != ""].to_dict("records")
    ]
    return lines


def _tests(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table if str(name).startswith("test/")]


def _metric_names(results: pd.DataFrame) -> list[str]:
    return [str(name) for name in results if name not in _COUNTS]


def _job_numbers(configuration: Configuration) -> list[int]:
    return [int(job["job"]) for job in configuration.completed.values()]


def _of_jobs(configuration: Configuration, results: pd.DataFrame) -> list[dict[str, object]]:
    """Return the fold of each job, and the test metrics of those that completed it."""
    names = _metric_names(results)
    macro = results[results["label"] == _MACRO].set_index("fold")[names].astype(float)
    rows: list[dict[str, object]] = []
    for job in configuration.jobs:
        fold, is_it = job["fold"], int(job["job"]) in _job_numbers(configuration)
        values = macro.loc[fold].to_dict() if is_it and fold in macro.index else {}
        rows.append({"job": job["job"], "fold": fold} | {f"test/{name}": values.get(name) for name in names})
    return rows


def _pooled(configuration: Configuration) -> tuple[dict[str, float], str]:
    """Write a configuration's out-of-fold predictions where they changed; return their metrics, or a problem.

    What was pooled last is kept, so that a job's end costs no pooling of the other configurations.
    """
    jobs = {str(fold): int(configuration.completed[fold]["job"]) for fold in configuration.tested}
    cached_path = configuration.sweep_dir / ".jobs" / "pooled" / f"{configuration.jobs[0]['job']}.json"
    if not jobs:
        return {}, ""
    if cached_path.is_file() and configuration.out_of_fold_path.is_file():
        with suppress(ConfigError), reading(cached_path):  # a damaged one is made anew
            cached = read_json(cached_path)
            if (cached["jobs"], cached["table"]) == (jobs, configuration.out_of_fold_path.name):
                return cached["metrics"], ""
    try:
        table = pooled_predictions(configuration.tested)
        write_text(configuration.out_of_fold_path, table.to_csv(index=False))
        metrics = pooled_metrics(table, configuration.task)
        cached_path.parent.mkdir(exist_ok=True)
        write_text(
            cached_path,
            json.dumps({"jobs": jobs, "table": configuration.out_of_fold_path.name, "metrics": metrics}),
        )
    except (OSError, ValueError) as error:  # the sweep's table must not be lost with it
        configuration.out_of_fold_path.unlink(missing_ok=True)  # it would be of fewer folds
        return {}, f"the predictions cannot be pooled: {error}"
    return metrics, ""


@dataclass(frozen=True)
class _Summary:
    """The rows ``SUMMARIES`` of a configuration, and the mean of the monitored metric, as it is shown."""

    mean_metric: float
    rows: Sequence[Mapping[str, object]]


def _summary(
    configuration: Configuration, rows: pd.DataFrame, metrics: Mapping[str, float], problem: str
) -> _Summary:
    """Return the rows ``SUMMARIES`` of a configuration; ``rows`` are those of its completed jobs."""
    names = ["metric", "seconds", *_tests(rows)]
    numbers = rows[names].astype(float)
    status, gaps = configuration.coverage()
    error = "; ".join(text for text in (gaps, problem) if text)
    shared = {"status": status, "overrides": configuration.overrides, "error": error}
    pooled = {name: metrics.get(name.removeprefix("test/"), math.nan) for name in names}
    values: list[dict[str, float]] = [dict(numbers.mean()), dict(numbers.std(ddof=1)), pooled]
    rounded = [{name: round(value, _DIGITS) for name, value in row.items()} for row in values]
    summed_up: list[dict[str, object]] = [
        {"job": job, **shared, **more} for job, more in zip(SUMMARIES, rounded, strict=True)
    ]
    return _Summary(rounded[0]["metric"], summed_up)


def _by_label(
    configuration: Configuration, results: pd.DataFrame, metrics: Mapping[str, float]
) -> list[list[Any]]:
    """Return ``_BY_LABEL`` for each label and metric; ``folds`` counts those where it is defined."""
    rows: list[list[Any]] = []
    for label, of_label in results.groupby("label", sort=False):
        for name in _metric_names(results):
            values = of_label[name].astype(float)
            pooled = metrics.get(name if label == _MACRO else f"{name}/{label}", math.nan)
            spread = (values.count(), values.mean(), values.std(ddof=1), pooled)
            rows.append([configuration.overrides, label, name, *spread, configuration.out_of_fold_path.name])
    return rows


def _rank(metric: float, maximize: bool) -> tuple[bool, float]:
    return math.isnan(metric), -metric if maximize else metric
