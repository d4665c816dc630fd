"""Seeds in a sweep: the mean of each combination over its seeds, and how far they lie apart."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlab.data.manifest import read_csv
from cxrlab.errors import ConfigError
from cxrlab.files import RunDir, reading, write_text

log = logging.getLogger(__name__)

COLUMNS = ("overrides", "metric", "seeds", "mean", "std_over_seeds", "min", "max", "left_out")

_DIGITS = 6  # as in results.csv
_MACRO = "macro mean"
_COUNTS = ("part", "label", "images", "positives")

Job = Mapping[str, Any]


@dataclass(frozen=True)
class SpreadRow:
    """A row of ``sweep_seeds.csv``: a combination of overrides and a metric, over its seeds.

    Attributes:
        overrides: All but the seed.
        metric: Its name.
        seeds: Jobs that came to their end.
        mean: Of the metric.
        std_over_seeds: The sample standard deviation, n - 1.
        min: The lowest.
        max: The highest.
        left_out: The seeds of the others, and what became of them.
    """

    overrides: str
    metric: str
    seeds: int
    mean: float
    std_over_seeds: float
    min: float
    max: float
    left_out: str


def write_seed_spread(jobs: Iterable[Job], sweep_dir: Path) -> pd.DataFrame:
    """Write ``sweep_seeds.csv`` where jobs differ in their seed alone; nothing is written of other sweeps.

    The spread says how far trainings of one recipe on the same patients lie apart. It is no confidence
    interval: of other patients it says nothing, see the intervals of ``evaluation.json`` for that.

    Args:
        jobs: Rows of the sweep's table with ``seed``, ``but_seed`` (the overrides without it), ``folder``
            (relative to the sweep's) and ``monitor`` (what ``metric`` is).
        sweep_dir: The sweep's directory.

    Returns:
        One row a combination of the other overrides and a metric: first the monitored one, then the macro
        means of each part's results. ``seeds`` counts the jobs that came to their end, ``std_over_seeds`` is
        their sample standard deviation (n - 1), and ``left_out`` names the seeds of the others.
    """
    rows: list[SpreadRow] = []
    for overrides, of_seeds in _by_overrides(jobs).items():
        rows += _summary(overrides, of_seeds, sweep_dir)
    table = pd.DataFrame([asdict(row) for row in rows], columns=COLUMNS)
    if rows:
        write_text(sweep_dir / "sweep_seeds.csv", table.round(_DIGITS).to_csv(index=False))
    return table


def printed_spread(path: Path, shared: set[str]) -> list[str]:
    """Return what the terminal shows of ``sweep_seeds.csv``: the monitored metric; nothing without the file.

    Args:
        path: The file.
        shared: Overrides of all jobs, which are not shown.
    """
    if not path.is_file():
        return []
    table = pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in COLUMNS[2:7]})
    table = table.drop_duplicates("overrides")
    differing = [" ".join(word for word in line.split() if word not in shared) for line in table["overrides"]]
    shown = table.assign(overrides=differing)
    if not any(differing):
        shown = shown.drop(columns="overrides")
    if (shown["left_out"] == "").all():
        shown = shown.drop(columns="left_out")
    text = shown.to_string(index=False, float_format=lambda value: f"{value:.4f}", na_rep="-")
    return [
        f"\nOver seeds:\n{text}",
        "std_over_seeds (n - 1) is the spread between trainings on the same patients,\n"
        f"no confidence interval for other patients. All metrics: {path}",
    ]


def _by_overrides(jobs: Iterable[Job]) -> dict[str, dict[int, Job]]:
    """Return the combinations that ran with several seeds; where a seed ran twice, the later job counts."""
    by_overrides: dict[str, dict[int, Job]] = {}
    for job in sorted(jobs, key=lambda job: int(job["job"])):
        if job.get("seed") is not None:
            by_overrides.setdefault(str(job["but_seed"]), {})[int(job["seed"])] = job
    return {overrides: dict(sorted(ran.items())) for overrides, ran in by_overrides.items() if len(ran) > 1}


def _summary(overrides: str, of_seeds: Mapping[int, Job], sweep_dir: Path) -> list[SpreadRow]:
    completed = [job for job in of_seeds.values() if job["status"] == "completed"]
    left_out = [f"seed {seed} {job['status']}" for seed, job in of_seeds.items() if job not in completed]
    monitor = str(next(iter(of_seeds.values())).get("monitor") or "metric")
    values = pd.DataFrame([{monitor: job["metric"]} | _others(sweep_dir, job, monitor) for job in completed])
    numbers = values if len(values) else pd.DataFrame(columns=[monitor])
    return [
        SpreadRow(
            overrides=overrides,
            metric=str(name),
            seeds=int(column.count()),
            mean=column.mean(),
            std_over_seeds=column.std(ddof=1),
            min=column.min(),
            max=column.max(),
            left_out=", ".join(left_out),
        )
        for name, column in numbers.astype(float).items()
    ]


def _others(sweep_dir: Path, job: Job, monitor: str) -> dict[str, float]:
    """Return the macro means of a job but that of the monitored metric."""
    return {name: value for name, value in macro_means(sweep_dir, job).items() if name != monitor}


def macro_means(sweep_dir: Path, job: Job) -> dict[str, float]:
    """Return the macro means of a job's ``results.csv``, such as ``{"val/auroc": 0.8}``; none without it.

    Args:
        sweep_dir: The sweep's directory.
        job: A row of the sweep's table with ``folder``, which is relative to it.
    """
    path = RunDir(sweep_dir / str(job.get("folder"))).results
    if not path.is_file():
        return {}
    try:
        table = read_csv(path, keep_default_na=False, na_values=[""])
        with reading(path):
            return {
                f"{row['part']}/{name}": float(value)
                for row in table[table["label"] == _MACRO].to_dict("records")
                for name, value in row.items()
                if name not in _COUNTS
            }
    except ConfigError as error:  # the table of the other jobs must not be lost with it
        log.warning("Job %s of the sweep: %s", job.get("job"), error)
        return {}
