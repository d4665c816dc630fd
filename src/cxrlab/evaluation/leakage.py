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

SEEN = ("train", "val")
_UNCHECKED = (
    "Whether the network was trained on some of these images could not be checked in full: {} of its own "
    "images are there to be compared."
)


def refuse_trained_on(run: Run, patients: Sequence[str], seen: Sequence[str] = SEEN) -> None:
    """Refuse patients that a run was trained or validated on.

    Args:
        run: The run.
        patients: Patient of each image that it is to be judged on, of the run's own data set: those of
            another have other numbers.
        seen: Parts of the run whose patients are refused.

    Raises:
        DataError: Naming some of them.
    """
    known = set(run.manifest.loc[run.manifest["part"].isin(seen), "patient"])
    shared = [patient for patient in patients if patient in known]
    if shared:
        raise DataError(
            f"{len(shared)} of the {len(patients)} images are of {len(set(shared))} patients that "
            f"{run.run_dir} was trained or validated on, such as {sorted(set(shared))[:3]}: no judgement of "
            "it could be believed. Its own test part is judged by run=<the run> alone."
        )


def without_shared(run: Run, data: "DataModule", rows: Sequence[int]) -> tuple[list[int], str, bool]:
    """Leave out the images that a run was trained on, found by their content, and all of their patients.

    Args:
        run: The run.
        data: The data set to judge it on, its ``manifest`` and ``images`` there.
        rows: Those of its rows that are judged.

    Returns:
        The rows that are left, what the reader must be told, and whether all of the run's images were there
        to be compared.

    Raises:
        DataError: If none is left.
    """
    try:
        other = read_other(run.run_dir, None)
    except (MissingFileError, DataError) as error:
        log.warning("Whether the run was trained on some of these images cannot be told: %s", error)
        return list(rows), _UNCHECKED.format("none"), False
    known = other.table.loc[other.table["part"].isin(SEEN), "image"]
    num_there = sum((other.root / image).is_file() for image in known)
    is_complete = num_there == len(known)
    shared = find_shared(data, other)
    shared = shared[shared["other_part"].isin(SEEN)]
    table = data.manifest.table
    patients = set(table.loc[table["image"].isin(shared["image"]), "patient"])
    judged = zip(rows, table["patient"].iloc[list(rows)], strict=True)
    left = [row for row, patient in judged if patient not in patients]
    if not left:
        raise DataError(f"{run.run_dir} was trained on these very images: nothing is left to judge it on.")
    if len(left) < len(rows):
        note = (
            f"{len(rows) - len(left)} images of {len(patients)} patients are left out: the network was "
            "trained on images of them (found by content)."
        )
        log.warning("%s", note)
    else:
        note = "None of these images is among those that the network was trained on (compared by content)."
    return left, note if is_complete else f"{note} {_UNCHECKED.format(num_there)}", is_complete


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
    ours, theirs = list(validation.images), list(table.images)
    if not (_have_folders(ours) and _have_folders(theirs)):  # one is written without: files tell
        ours, theirs = ([str(name).rpartition("/")[2] for name in names] for names in (ours, theirs))
    shared = sorted(set(ours) & set(theirs))
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


def _have_folders(names: Sequence[str]) -> bool:
    return any("/" in name for name in names)
