"""Images and patients that a network was trained on, among those it is to be judged on."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cxrlab.data.crossing import find_shared, read_other
from cxrlab.errors import DataError, MissingFileError
from cxrlab.evaluation.prediction_table import PredictionTable
from cxrlab.run import Run

if TYPE_CHECKING:
    from cxrlab.data.datamodule import DataModule

log = logging.getLogger(__name__)

_SEEN = ("train", "val")


def refuse_trained_on(run: Run, patients: Sequence[str]) -> None:
    """Refuse patients that a run was trained or validated on.

    Args:
        run: The run.
        patients: Patient of each image that it is to be judged on, of the run's own data set: those of
            another have other numbers.

    Raises:
        DataError: Naming some of them.
    """
    seen = set(run.manifest.loc[run.manifest["part"].isin(_SEEN), "patient"])
    shared = [patient for patient in patients if patient in seen]
    if shared:
        raise DataError(
            f"{len(shared)} of the {len(patients)} images are of {len(set(shared))} patients that "
            f"{run.run_dir} was trained or validated on, such as {sorted(set(shared))[:3]}: no judgement of "
            "it could be believed. Its own test part is judged by run=<the run> alone."
        )


def without_shared(run: Run, data: "DataModule", rows: Sequence[int]) -> tuple[list[int], tuple[str, ...]]:
    """Leave out the images that a run was trained on, found by their content, and all of their patients.

    Args:
        run: The run.
        data: The data set to judge it on, its ``manifest`` and ``images`` there.
        rows: Those of its rows that are judged.

    Returns:
        The rows that are left, and what the reader must be told.

    Raises:
        DataError: If none is left.
    """
    try:
        other = read_other(run.run_dir, None)
    except (MissingFileError, DataError) as error:
        log.warning("Whether the run was trained on some of these images cannot be told: %s", error)
        return list(rows), (
            "Whether the network was trained on some of these images could not be checked: its own images "
            "are not there.",
        )
    shared = find_shared(data, other)
    shared = shared[shared["other_part"].isin(_SEEN)]
    table = data.manifest.table
    patients = set(table.loc[table["image"].isin(shared["image"]), "patient"])
    left = [
        row
        for row, patient in zip(rows, table["patient"].iloc[list(rows)], strict=True)
        if patient not in patients
    ]
    if not left:
        raise DataError(f"{run.run_dir} was trained on these very images: nothing is left to judge it on.")
    if len(left) == len(rows):
        return left, (
            "None of these images is among those that the network was trained on (compared by content).",
        )
    note = (
        f"{len(rows) - len(left)} images of {len(patients)} patients are left out: the network was trained "
        "on images of them (found by content)."
    )
    log.warning("%s", note)
    return left, (note,)


def refuse_judged(validation: PredictionTable, table: PredictionTable) -> tuple[str, ...]:
    """Refuse to choose thresholds on images that are then judged by them.

    Args:
        validation: What thresholds and calibration are chosen on.
        table: What is judged.

    Returns:
        What the reader must be told: that patients are in both, where they are.

    Raises:
        DataError: Naming some of the images that are in both.
    """
    shared = sorted(set(validation.images) & set(table.images))
    if shared:
        raise DataError(
            f"{len(shared)} images are in {validation.source} and in {table.source}, such as {shared[:3]}: a "
            "threshold chosen on the images that it is judged on flatters. Give another validation part, or "
            "threshold=<a number>."
        )
    if validation.patient_names is None or table.patient_names is None:
        return ()
    patients = set(validation.patient_names) & set(table.patient_names)
    if not patients:
        return ()
    return (
        f"{len(patients)} patients are in the validation part and among those judged: thresholds and "
        "calibration are flattered.",
    )
