"""The table of a sweep: one row a job, failures included, rewritten after every job."""

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlab.cli.claims import user_of
from cxrlab.cli.overrides import key_of
from cxrlab.files import sweep_jobs, write_text
from cxrlab.metrics.registry import IN_TRAINING
from cxrlab.sweeps.cross_validation import SUMMARIES, configurations, notes, summarised
from cxrlab.sweeps.seeds import macro_means, printed_spread, write_seed_spread

COLUMNS = ("job", "status", "metric", "seconds", "overrides", "error")
FOLD_COLUMNS = ("fold", "num_folds", "configuration")
SEED_COLUMNS = ("seed", "but_seed")
_KEPT = (*FOLD_COLUMNS, *SEED_COLUMNS, "folder", "monitor", "task")
# Threads of one process would write the same temporary file.
_WRITING = threading.RLock()
PRUNING = "callbacks.pruning"
"""The key by which a search tells a trial's training of the study."""
_HAS_COLUMN = ("data.split.fold",)  # as ``fold``


def add_job(path: Path, row: dict[str, object], *, maximize: bool) -> pd.DataFrame:
    """Add a job to the table, sort it by the metric, and replace the file in one step.

    Each job's row also stands in a file of its own beside the table, so that jobs which end at the same
    moment in several processes cannot lose one another's. Where jobs test on folds, the table also has their
    test metrics, and ends with those of each configuration, see
    :func:`cxrlab.sweeps.cross_validation.summarised`. Where jobs differ in their seed alone, the spread is
    written beside it, see :func:`cxrlab.sweeps.seeds.write_seed_spread`.

    The table has a column for each key that the jobs differ in, such as ``optimizer.lr``.

    Args:
        path: ``sweep.csv`` in the sweep's directory.
        row: Values of ``COLUMNS``; and where they are known ``monitor``, what ``metric`` is, ``folder``, the
            job's directory, relative to the sweep's, ``task``, its overrides as a list, and of
            ``SEED_COLUMNS`` the seed and the overrides without it. A job of a cross-validation gives those of
            ``FOLD_COLUMNS`` too: its fold and their number, and the overrides without the fold.
        maximize: Whether the best metric is the highest.

    Returns:
        The whole table, failed jobs after the others, summaries last.
    """
    job = {name: row[name] for name in COLUMNS} | {name: row.get(name) for name in _KEPT}
    (path.parent / ".jobs").mkdir(parents=True, exist_ok=True)
    with _WRITING:
        _write_job(path, job | {"maximize": maximize})
        return _rewrite(path, maximize=maximize)


def change_job(path: Path, number: int, **changes: object) -> None:
    """Change values of a job that the table has, and rewrite the table.

    Args:
        path: ``sweep.csv`` in the sweep's directory.
        number: The job's; of one that has no row, nothing happens.
        changes: Such as ``status="preempted"``.
    """
    with _WRITING:
        for job in _read_jobs(path):
            if job["job"] == number:
                _write_job(path, job | changes)
                _rewrite(path, maximize=bool(job["maximize"]))


def without_pruning(overrides: Iterable[str]) -> list[str]:
    """Return overrides without that by which a search tells a job which trial it is."""
    return [word for word in overrides if key_of(word) != PRUNING]


def swept_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns of a sweep's table that hold what the jobs differ in, such as ``optimizer.lr``."""
    others = {*COLUMNS, "fold"}
    return [name for name in map(str, table) if name not in others and not name.startswith(("test/", "val/"))]


def _swept(jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return of each job the values in which the jobs differ, by key; empty where a job does not set it."""
    values = [_values(job) for job in jobs]
    keys = dict.fromkeys(key for of_job in values for key in of_job if key not in _HAS_COLUMN)
    differing = [key for key in keys if len({of_job.get(key) for of_job in values}) > 1]
    return [{key: of_job.get(key, "") for key in differing} for of_job in values]


def _values(job: Mapping[str, Any]) -> dict[str, str]:
    overrides = without_pruning(job.get("task") or str(job["overrides"]).split())
    pairs = (str(override).partition("=") for override in overrides)
    return {key.lstrip("+~"): value for key, sign, value in pairs if sign}


def close(path: Path) -> None:
    """Call jobs that did not come to an end interrupted, when their sweep is over.

    One that is at work still is of another process of the same search.
    """
    jobs = _read_jobs(path)
    for job in jobs:
        if job["status"] == "running" and user_of(path.parent / str(job.get("folder"))) is None:
            _write_job(path, job | {"status": "interrupted"})
    _rewrite(path, maximize=all(job["maximize"] for job in jobs if job["status"] != "unknown"))


def printed(path: Path, monitor: str, *, is_open: bool = False) -> str:
    """Return the table as text for the terminal; of the overrides it shows those in which the jobs differ.

    Args:
        path: ``sweep.csv`` in the sweep's directory.
        monitor: What the metric is.
        is_open: Whether jobs are at work still, elsewhere; else those without an end have none to come.
    """
    columns = [str(name) for name in pd.read_csv(path, nrows=0)]
    numbers = [
        name
        for name in columns
        if name in ("metric", "seconds", "fold") or name.startswith(("test/", "val/"))
    ]
    table = pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in numbers})
    is_job = ~table["job"].isin(SUMMARIES)
    status = table["status"][is_job]
    num_open = int(status.isin(("waiting", "running")).sum()) if is_open else 0
    num_left = int((~status.isin(("completed", "pruned"))).sum())
    words = [str(overrides).split() for overrides in table["overrides"]]
    of_jobs = [set(line) for line, is_shown in zip(words, is_job, strict=True) if is_shown]
    shared = set.intersection(*of_jobs) if len(of_jobs) > 1 else set()
    differing = [" ".join(word for word in line if word not in shared) for line in words]
    shown = table.drop(columns=swept_columns(table))
    shown = shown.assign(overrides=differing, error=table["error"].astype(str).str.slice(0, 70))
    if "fold" in shown:
        folds = ["-" if np.isnan(fold) else f"{fold:.0f}" for fold in shown["fold"]]
        shown = shown.assign(fold=folds)
    if (shown["error"][is_job] == "").all():
        shown = shown.drop(columns="error")
    shown = shown.rename(columns={"metric": monitor})
    lines = shown.to_string(index=False, float_format=lambda value: f"{value:.4f}", na_rep="-")
    end = f"{is_job.sum()} jobs, {num_left - num_open} failed or interrupted"
    end += f", {num_open} waiting or at work" if num_open else ""
    end += f". The table: {path}"
    if num_left:
        end += f"\nGo on with them: cxrlab train -m resume_sweep={path.parent}"
    below = notes(table.assign(overrides=differing), path.parent)
    return "\n".join(["", lines, end, *below, *printed_spread(path.parent / "sweep_seeds.csv", shared)])


def _added_metrics(sweep_dir: Path, job: Mapping[str, Any]) -> dict[str, float]:
    """Return the macro means of what a job's training computed beside the usual metrics, on validation."""
    if job["status"] != "completed":
        return {}
    usual = {f"val/{name}" for name in IN_TRAINING}
    means = macro_means(sweep_dir, job)
    return {name: value for name, value in means.items() if name.startswith("val/") and name not in usual}


def _write_job(path: Path, job: Mapping[str, object]) -> None:
    write_text(path.parent / ".jobs" / f"{job['job']}.json", json.dumps(job))


def _read_jobs(path: Path) -> list[dict[str, object]]:
    return sweep_jobs(path.parent)


def _rewrite(path: Path, *, maximize: bool) -> pd.DataFrame:
    jobs = _read_jobs(path)
    added = [_added_metrics(path.parent, job) for job in jobs]
    names = list(dict.fromkeys(name for values in added for name in values))
    swept = _swept(jobs)
    rows = [job | of_job | values for job, of_job, values in zip(jobs, swept, added, strict=True)]
    position = COLUMNS.index("overrides")
    keys = list(swept[0]) if swept else []
    table = pd.DataFrame(rows, columns=[*COLUMNS[:position], *keys, *COLUMNS[position:], *names])
    table["metric"] = pd.to_numeric(table["metric"])
    table = table.sort_values(["metric", "job"], ascending=[not maximize, True], na_position="last")
    cross_validated = configurations(jobs, path.parent)
    if cross_validated:
        table = summarised(table, cross_validated, maximize=maximize)
    write_text(path, table.to_csv(index=False))
    write_seed_spread(jobs, path.parent)
    return table
