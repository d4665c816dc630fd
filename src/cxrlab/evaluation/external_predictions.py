"""Predictions of any other program, with their targets, as a predictions table."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.manifest import LABEL
from cxrlab.data.patients import patient_keys, unified
from cxrlab.data.readers.table import PART_WORDS
from cxrlab.evaluation.external_matching import Rows, match_images, read_decisions, read_labels
from cxrlab.evaluation.external_table import PATIENT_NAMES, ExternalTable
from cxrlab.metrics.predictions import TARGET, PredictionTable

# How file names tell the patient: NIH's 00000013_005.png, CheXpert's folders, MIMIC-CXR's folders.
_PATIENT_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:^|/)(?=\d{8}_)0*(\d+)_\d{3}(?:\.\w+)?$",
        r"(?:^|/)patient(\d+)/",
        r"(?:^|/)p(\d{8})/",
    )
)

_log = logging.getLogger(__name__)


def holds_targets(path: Path) -> bool:
    """Tell whether a file of predictions says its targets too, in columns with a prefix.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it is no table.
    """
    return any(name.startswith((TARGET, LABEL)) for name in ExternalTable.read(path).label_names())


def read_external(
    predictions: Path, targets: Path, groups: Sequence[Sequence[str]], *, beside: Path | None = None
) -> PredictionTable:
    """Read predictions and targets of any program, each a CSV file with one row an image.

    Images are found by the column ``image`` or ``Image Index`` and labels by their names, with the prefixes
    ``probability/`` or ``prob_`` and ``target/`` or ``label/`` or without any; both may stand in one file
    where prefixes tell them apart. NIH's ``Data_Entry_2017*.csv`` is a file of targets as it is. Which images
    and labels must agree is told by :func:`~cxrlab.evaluation.external_matching.match_images` and
    :func:`~cxrlab.evaluation.external_matching.read_labels`.

    Patients are taken from a column (``patient``, ``Patient ID``, ``PatientId``, ``subject_id``) of the
    targets, else of the predictions, else from the file names of NIH, CheXpert or MIMIC-CXR; else they are
    unknown, with a warning. Covariates are ``covariate/<name>`` and the usual columns of view, sex and age.
    Columns ``reader/<name>/<label>`` of either are the readings of several people, and the column ``fold`` of
    the predictions tells which network of a cross-validation made them.

    Args:
        predictions: Probabilities.
        targets: 1, 0, empty for unknown, or -1 for uncertain, which is taken as unknown.
        groups: Lists of names that mean the same label.
        beside: Predictions of other images of the same targets, such as the validation part's.

    Returns:
        In the order of the predictions' rows and of the targets' labels, in the targets' spelling.

    Raises:
        MissingFileError: If a file does not exist.
        ConfigError: If a name stands in two groups.
        DataError: If the files cannot be used or do not belong together.
    """
    own = ExternalTable.read(predictions)
    other = own if predictions.resolve() == targets.resolve() else ExternalTable.read(targets)
    labels, probabilities, truths = read_labels(own, other, groups)
    elsewhere = np.empty(0, dtype=object) if beside is None else ExternalTable.read(beside).images
    rows = match_images(own, other, elsewhere)
    patients, names = _patients(own, other, rows)
    return PredictionTable(
        images=own.images,
        patients=patients,
        labels=labels,
        targets=truths[rows],
        probabilities=probabilities,
        covariates=_covariates(own, other, rows),
        patient_names=names,
        part=_part(own, other, rows),
        source=str(predictions),
        decisions=read_decisions(own, labels, groups),
        folds=own.folds(),
        readers=_readings(own, other, rows, labels),
    )


def _readings(
    own: ExternalTable, other: ExternalTable, rows: Rows, labels: Sequence[str]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return what readers say in the targets, and in the predictions where those lack the reader."""
    of_targets = {name: values[rows] for name, values in other.readings(labels).items()}
    return of_targets if other is own else own.readings(labels) | of_targets


def _patients(
    own: ExternalTable, other: ExternalTable, rows: Rows
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.object_] | None]:
    """Return the number of each image's patient, and the patients' names where they are known."""
    known = other.patients()
    patients: Sequence[str] | None = own.patients() if known is None else [known[row] for row in rows]
    if known is not None and other is not own:
        _warn_of_other_patients(own, other, list(patients or ()))
    if patients is None:
        patients = _named_patients(own.images.tolist()) or _named_patients(other.images[rows].tolist())
    if patients is None:
        _log.warning(
            f"{other.path} and {own.path} do not tell the patients (no column patient, 'Patient ID' or "
            "subject_id): each image counts as a patient of its own, and where patients have several images "
            "EVERY INTERVAL IS TOO NARROW"
        )
        return np.arange(len(own.images), dtype=np.int64), None
    spelt, _ = unified(pd.Series(patients))
    numbers, names = pd.factorize(spelt.to_numpy(dtype=object), sort=True)
    return numbers.astype(np.int64), np.asarray(names, dtype=object)


def _warn_of_other_patients(own: ExternalTable, other: ExternalTable, patients: Sequence[str]) -> None:
    """Warn where the predictions name other patients than the targets, whatever the spelling."""
    column = own.find(PATIENT_NAMES)
    if column is None:
        return
    pairs = zip(patient_keys(own.cells[column]), patient_keys(patients), strict=True)
    differ = [row for row, (key, target_key) in enumerate(pairs) if key and key != target_key]
    if differ:
        first = differ[0]
        _log.warning(
            f"{len(differ)} images of {own.path} have another patient than in {other.path}, such as "
            f"{own.images[first]}: {own.cells[column].iloc[first]!r} and {patients[first]!r}; the latter "
            "count. Are these the predictions of these images?"
        )


def _named_patients(images: Sequence[str]) -> list[str] | None:
    """Return the patients that the images' names tell, by the first pattern that fits all of them."""
    for pattern in _PATIENT_PATTERNS:
        matches = [pattern.search(name) for name in images]
        patients = [match[1] for match in matches if match]
        if len(patients) == len(images):
            return patients
    return None


def _covariates(own: ExternalTable, other: ExternalTable, rows: Rows) -> pd.DataFrame:
    known = other.covariates().iloc[rows].reset_index(drop=True)
    more = own.covariates().reset_index(drop=True) if other is not own else known
    return pd.concat([known, more[[name for name in more if name not in known]]], axis=1)


def _part(own: ExternalTable, other: ExternalTable, rows: Rows) -> str:
    """Return the part that all images are of; "" where they are of several, or none is given."""
    column = own.parts()
    if column is None:
        parts = other.parts()
        column = None if parts is None else parts.iloc[rows]
    words = [] if column is None else column.unique().tolist()
    return PART_WORDS.get(str(words[0]).lower(), "") if len(words) == 1 else ""
