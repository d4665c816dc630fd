"""Which tables are compared: of runs, of the jobs of a sweep, of other programs; and what each is called."""

import logging
from collections.abc import Sequence
from pathlib import Path

import yaml

from cxrlab.errors import ConfigError, MissingFileError
from cxrlab.evaluation.foreign import read_foreign
from cxrlab.evaluation.prediction_table import PredictionTable, read_predictions

log = logging.getLogger(__name__)


def run_dirs(runs: Sequence[Path]) -> list[Path]:
    """Return the run directories: those given, or the jobs of the sweep whose directory is given.

    Raises:
        MissingFileError: If a folder does not exist or is no run, or a sweep has no finished job.
        ConfigError: If one stands twice.
    """
    if len(runs) == 1 and (runs[0] / "sweep.csv").is_file():
        jobs = sorted(
            (path for path in runs[0].iterdir() if path.name.isdecimal()), key=lambda job: int(job.name)
        )
        finished = [job for job in jobs if list((job / "predictions").glob("*.csv"))]
        if len(finished) < len(jobs):
            log.warning(
                "%d of %d jobs of %s have no predictions: left out.",
                len(jobs) - len(finished),
                len(jobs),
                runs[0],
            )
        if not finished:
            raise MissingFileError(f"No job of the sweep {runs[0]} has predictions: did any finish?")
        return finished
    for run in runs:
        if not list((run / "predictions").glob("*.csv")):
            raise MissingFileError(f"runs={run} holds no predictions: it is no directory of a finished run.")
    if len({run.resolve() for run in runs}) < len(runs):
        raise ConfigError(f"runs={[str(run) for run in runs]} names one run twice.")
    return list(runs)


def run_tables(runs: Sequence[Path], part: str | None) -> dict[str, PredictionTable]:
    """Return the predictions of runs by name, all of the same part.

    Args:
        runs: Their directories.
        part: ``val`` or ``test``; None for test, or val where one of them has not read the test part.

    Raises:
        MissingFileError: If one lacks the predictions of the part.
    """
    without = [run for run in runs if not (run / "predictions" / "test.csv").is_file()]
    if part is None:
        part = "val" if without else "test"
        if without:
            log.warning(
                "%s has no predictions of the test part, so the validation parts are compared: optimistic, "
                "the epochs were chosen on them.",
                without[0],
            )
    names = _names(runs)
    return {names[run]: read_predictions(run / "predictions" / f"{part}.csv") for run in runs}


def foreign_tables(
    predictions: Sequence[Path], targets: Path, groups: Sequence[Sequence[str]]
) -> dict[str, PredictionTable]:
    """Return the predictions of other programs by the name of their file.

    Raises:
        UserError: If a file cannot be used; see :func:`cxrlab.evaluation.foreign.read_foreign`.
    """
    stems = [path.stem for path in predictions]
    names = stems if len(set(stems)) == len(stems) else [str(path) for path in predictions]
    if len(set(names)) < len(names):
        raise ConfigError(f"predictions={names} names one file twice.")
    return {name: read_foreign(path, targets, groups) for name, path in zip(names, predictions, strict=True)}


def _names(runs: Sequence[Path]) -> dict[Path, str]:
    """Name runs by their folder, and by the overrides in which they differ."""
    overrides = {run: _overrides(run) for run in runs}
    shared = set.intersection(*map(set, overrides.values()))
    lasts = [run.name for run in runs]
    folders = lasts if len(set(lasts)) == len(runs) else [str(run) for run in runs]
    return {
        run: " ".join([folder, *(one for one in overrides[run] if one not in shared)])
        for run, folder in zip(runs, folders, strict=True)
    }


def _overrides(run: Path) -> list[str]:
    path = run / ".hydra" / "overrides.yaml"
    loaded = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return [str(one) for one in loaded] if isinstance(loaded, list) else []
