"""Labels that are probably wrong, from predictions of networks that did not train on the images.

Confident learning (Northcutt, Jiang and Chuang, J Artif Intell Res 70:1373, 2021) by the package
cleanlab, label by label: each finding is present or absent for itself, and unknown labels are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlab.data.manifest import COVARIATE, LABEL
from cxrlab.data.readers._csv import read_cells
from cxrlab.errors import DataError, MissingFileError, MissingPackageError
from cxrlab.metrics.predictions import Floats, PredictionTable

COLUMNS = ("image", "patient", "label", "given", "probability", "corrected")
"""Of the list of :func:`suspects_frame`; a person fills in the last one."""

_WORDS = {"0": 0.0, "1": 1.0, "unknown": np.nan}


@dataclass(frozen=True)
class LabelError:
    """A label that is probably wrong.

    Attributes:
        row: Of the predictions table.
        label: The finding.
        given: 1 where it is labelled present, 0 absent.
        probability: That it is present, by a network that has not seen the image.
    """

    row: int
    label: str
    given: int
    probability: float


def label_errors(table: PredictionTable) -> list[LabelError]:
    """Return the labels that are probably wrong, of each label the most doubtful first.

    A label is doubtful where the network is surer of the contrary than it is, on average, of images that are
    labelled so, and as many are taken as this makes likely.

    Args:
        table: Predictions of images that the networks did not train on, as ``out_of_fold.csv`` of a
            cross-validation holds them. Labels with fewer than two images of a class are passed over.

    Raises:
        DataError: If the images were trained on: a network repeats the errors that it has learnt.
        MissingPackageError: If cleanlab is not installed.
    """
    if table.part == "train":
        raise DataError(
            f"{table.source} holds predictions of training images: a network repeats the errors that it has "
            "learnt. Take those of images that it has not seen, such as out_of_fold.csv of a "
            "cross-validation."
        )
    errors: list[LabelError] = []
    for column, label in enumerate(table.labels):
        known = np.flatnonzero(table.known[:, column])
        targets = table.targets[known, column].astype(np.int64)
        probabilities = table.probabilities[known, column]
        found = [
            LabelError(int(known[place]), label, int(targets[place]), float(probabilities[place]))
            for place in _ranked(targets, probabilities)
        ]
        errors += found
    return errors


def _ranked(targets: "np.typing.NDArray[np.int64]", probabilities: Floats) -> list[int]:
    """Return the places of doubtful labels, the most doubtful first."""
    if np.bincount(targets, minlength=2).min() < 2:
        return []
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise MissingPackageError(
            "Finding label errors needs the package cleanlab: pip install 'cxrlab[review]'."
        ) from error
    by_class = np.column_stack([1 - probabilities, probabilities])
    places = find_label_issues(targets, by_class, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [int(place) for place in places]


def suspects_frame(table: PredictionTable, errors: Sequence[LabelError]) -> pd.DataFrame:
    """Return the list of doubtful labels with an empty column ``corrected``, see :data:`COLUMNS`."""
    rows = [error.row for error in errors]
    names = table.patient_names
    return pd.DataFrame(
        {
            "image": table.images[rows],
            "patient": "" if names is None else names[table.patients[rows]],
            "label": [error.label for error in errors],
            "given": [error.given for error in errors],
            "probability": [round(error.probability, 4) for error in errors],
            "corrected": "",
        },
        columns=list(COLUMNS),
    )


def read_corrections(path: Path, table: PredictionTable) -> list[tuple[int, int, float]]:
    """Read the list of :func:`suspects_frame` with its last column filled in.

    Args:
        path: Columns ``image``, ``label`` and ``corrected``: 1, 0, ``unknown``, or empty for a label
            that is kept.
        table: Whose images and labels they are.

    Returns:
        Row and column in the table, and the value: 1, 0 or NaN; those that are empty are left out.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If a column is missing, an image or a label is not in the table, a value is another word,
            or two rows correct one label.
    """
    if not path.is_file():
        raise MissingFileError(f"There is no list of corrections {path}.")
    cells = read_cells(path, lambda _: True).fillna("").astype(str)
    missing = [name for name in ("image", "label", "corrected") if name not in cells]
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]!r}: corrections are the list label_errors.csv, filled in."
        )
    row_of_image = {image: row for row, image in enumerate(table.images)}
    corrections: dict[tuple[int, int], float] = {}
    for line, image, label, word in cells[["image", "label", "corrected"]].itertuples():
        text = word.strip().lower().removesuffix(".0")
        if not text:
            continue
        where = f"Line {line} of {path}"
        if text not in _WORDS:
            raise DataError(
                f"{where} has corrected={word!r}: write 1, 0, unknown, or nothing to keep the label."
            )
        if image not in row_of_image or label not in table.labels:
            wrong = f"the image {image!r}" if image not in row_of_image else f"the label {label!r}"
            raise DataError(f"{where} names {wrong}, which {table.source} does not hold.")
        key = (row_of_image[image], table.labels.index(label))
        if key in corrections:
            raise DataError(f"{where} corrects {label} of {image} a second time: keep one of both lines.")
        corrections[key] = _WORDS[text]
    return [(row, column, value) for (row, column), value in corrections.items()]


def corrected_labels(table: PredictionTable, corrections: Sequence[tuple[int, int, float]]) -> pd.DataFrame:
    """Return the labels of all images after correction, as a table that ``data=table`` reads.

    Columns are those of ``manifest.csv`` without parts: ``image``, ``patient``, ``covariate/<name>``,
    ``label/<name>``; unknown labels are empty.

    Args:
        table: The images with the labels as they were.
        corrections: Of :func:`read_corrections`.
    """
    targets = table.targets.copy()
    for row, column, value in corrections:
        targets[row, column] = value
    columns: dict[str, object] = {"image": table.images}
    if table.patient_names is not None:
        columns["patient"] = table.patient_names[table.patients]
    columns |= {COVARIATE + str(name): table.covariates[name].to_numpy() for name in table.covariates}
    numbers = pd.DataFrame(targets, columns=[LABEL + label for label in table.labels]).astype("Int64")
    return pd.concat([pd.DataFrame(columns), numbers], axis=1)
