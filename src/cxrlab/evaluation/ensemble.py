"""Several runs as one: the mean of their probabilities."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cxrlab.errors import DataError
from cxrlab.evaluation.comparison import align
from cxrlab.evaluation.external_data import SEEN, check_not_trained_on
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.runs.own_predictions import read_own_predictions
from cxrlab.runs.run import Run

log = logging.getLogger(__name__)


def ensemble(tables: Sequence[PredictionTable]) -> PredictionTable:
    """Return the mean of the probabilities, in the order of the first table.

    Args:
        tables: Two or more, over the same images and labels; the order of both is free.

    Raises:
        DataError: If images, labels, patients or targets differ; the message names some.
    """
    first = tables[0]
    for table in tables[1:]:
        if set(table.images) != set(first.images):
            others = sorted(set(table.images) ^ set(first.images))
            raise DataError(
                f"{table.source} and {first.source} are not of the same images: {len(others)} are in one of "
                f"them only, such as {others[:3]}. The members of an ensemble are evaluated on the same "
                "images: split their data alike (data.split.seed, or data.split.file)."
            )
        if set(table.labels) != set(first.labels):
            raise DataError(
                f"{table.source} has the labels {list(table.labels)}, {first.source} {list(first.labels)}: "
                "the members of an ensemble have the same."
            )
    aligned = align({f"{number} {table.source}": table for number, table in enumerate(tables, 1)}).tables
    mean = np.mean([table.probabilities for table in aligned.values()], axis=0)
    source = "the ensemble of " + ", ".join(table.source for table in tables)
    return replace(next(iter(aligned.values())), probabilities=mean, decisions=None, source=source)


def check_same_task(runs: Sequence[Run]) -> None:
    """Refuse to average labels evaluated one by one with classes of which each image has one.

    Raises:
        DataError: Naming a run of each task.
    """
    by_task = {run.model.task: run.run_dir for run in runs}
    if len(by_task) > 1:
        named = ", ".join(f"{run_dir} is task={task}" for task, run_dir in by_task.items())
        raise DataError(
            f"{named}: their probabilities do not mean the same. The members of an ensemble share their task."
        )


def shared_images(tables: Sequence[PredictionTable]) -> list[PredictionTable]:
    """Return each table's rows of the images that all have.

    Members may have left out different images of another data set, being trained on them.

    Raises:
        DataError: If there is none.
    """
    common = set.intersection(*(set(table.images) for table in tables))
    if not common:
        raise DataError("There is no image that no member of the ensemble was trained on.")
    return [table.rows(np.array([image in common for image in table.images])) for table in tables]


def check_no_training_patients(runs: Sequence[Run], table: PredictionTable) -> None:
    """Refuse patients that any member was trained on: another split made them its training patients.

    Where the validation or training part itself is evaluated, only earlier parts count; it is flagged anyway.

    Raises:
        DataError: Naming some of them.
    """
    seen = SEEN[: SEEN.index(table.part)] if table.part in SEEN else SEEN
    if table.patient_names is not None:
        for run in runs:
            check_not_trained_on(run, table.patient_names[table.patients].tolist(), seen)


def ensemble_validation(
    runs: Sequence[Run], labels: Sequence[str], recompute: Sequence[PredictionTable | None]
) -> PredictionTable | None:
    """Return the members' mean on their validation part; None where they have not the same one.

    Args:
        runs: The members.
        labels: Those that are evaluated.
        recompute: The validation part of each as it is predicted now; None where its own are valid.
    """
    paths = [run.files.predictions("val") for run in runs]
    if not all(table is not None or path.is_file() for table, path in zip(recompute, paths, strict=True)):
        log.warning("Not every member has predictions/val.csv: no threshold can be chosen for the ensemble.")
        return None
    try:
        members = [
            read_own_predictions(run.files, "val") if table is None else table
            for table, run in zip(recompute, runs, strict=True)
        ]
        mean = ensemble(members)
    except DataError as error:
        log.warning("No threshold can be chosen for the ensemble: %s", error)
        return None
    return mean.select_labels(labels)
