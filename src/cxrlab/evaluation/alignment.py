"""Predictions tables of several models cut down to the images and labels that all of them hold."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.errors import ConfigError, DataError
from cxrlab.evaluation.prediction_table import PredictionTable

Tables = Mapping[str, PredictionTable]

LEAST_COMMON = 0.9  # of the images of the largest table

_PARTS = ("train", "val", "test")  # a model judged on images of an earlier part is the more flattered


@dataclass(frozen=True)
class Alignment:
    """Tables whose images, patients, labels and targets are the same, in the order of the first table.

    Attributes:
        tables: By the name of their model. Their part is the most flattering that one of them had.
        num_images_left_out: Images that only some of the tables held.
        labels_left_out: Labels that only some of the tables held.
    """

    tables: dict[str, PredictionTable]
    num_images_left_out: int
    labels_left_out: tuple[str, ...]


def align(tables: Tables) -> Alignment:
    """Return the tables cut down to what is common to them.

    Args:
        tables: By the name of their model; patients are those of any table that knows them.

    Raises:
        ConfigError: If there are fewer than two.
        DataError: If less than 90 % of the largest table's images are common, or no label is, or targets or
            patients disagree; the message gives the counts or names images.
    """
    if len(tables) < 2:
        raise ConfigError(f"A comparison needs at least two models; it has {list(tables)}.")
    first, *others = tables.values()
    images = union = pd.Index(first.images)
    labels = all_labels = list(first.labels)
    for table in others:
        images, union = images[images.isin(table.images)], union.union(pd.Index(table.images), sort=False)
        labels = [label for label in labels if label in table.labels]
        all_labels = [*all_labels, *(label for label in table.labels if label not in all_labels)]
    _check_overlap(tables, len(images), len(labels))
    cut = {
        name: table.rows(pd.Index(table.images).get_indexer(images)).select_labels(labels)
        for name, table in tables.items()
    }
    _check_targets(cut)
    return Alignment(
        _with_common_patients(cut),
        len(union) - len(images),
        tuple(label for label in all_labels if label not in labels),
    )


def _check_overlap(tables: Tables, num_images: int, num_labels: int) -> None:
    sizes = {name: len(table) for name, table in tables.items()}
    if num_images < LEAST_COMMON * max(sizes.values()):
        raise DataError(
            f"Only {num_images} images are in all tables, which hold {sizes}: under {LEAST_COMMON:.0%} of "
            "the largest. Compare predictions for the same images, under the same names."
        )
    if not num_labels:
        labels = {name: list(table.labels) for name, table in tables.items()}
        raise DataError(f"The tables have no label in common: {labels}.")


def _check_targets(tables: Tables) -> None:
    (name, first), *others = tables.items()
    for other, table in others:
        both_unknown = np.isnan(first.targets) & np.isnan(table.targets)
        differs = (first.targets != table.targets) & ~both_unknown
        if differs.any():
            column = int(np.flatnonzero(differs.any(axis=0))[0])
            images = first.images[differs[:, column]]
            raise DataError(
                f"{len(images)} images have another target for {first.labels[column]!r} in {other!r} than in "
                f"{name!r}, such as {list(images[:3])}. Models are compared on the same targets only."
            )


def _with_common_patients(tables: Tables) -> dict[str, PredictionTable]:
    """Return the tables with the patients of the first that knows them, once all that do agree."""
    knowing = [(name, table) for name, table in tables.items() if table.patients_known]
    chosen = knowing[0][1] if knowing else next(iter(tables.values()))
    for other, table in knowing[1:]:
        images = chosen.images[_torn(chosen.patients, table.patients)]
        if len(images):
            raise DataError(
                f"{knowing[0][0]!r} and {other!r} disagree on which images are of one patient, for "
                f"{len(images)} images, such as {list(images[:3])}. Mend the patients of one."
            )
    parts = [table.part for table in tables.values()]
    part = next((part for part in _PARTS if part in parts), "")
    return {
        name: replace(table, patients=chosen.patients, patient_names=chosen.patient_names, part=part)
        for name, table in tables.items()
    }


def _torn(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which images have a patient that the other numbering splits; names of patients may differ."""
    pairs = np.unique(np.stack([first, second], axis=1), axis=0)
    splits = [np.bincount(pairs[:, side]) > 1 for side in (0, 1)]
    torn: npt.NDArray[np.bool_] = splits[0][first] | splits[1][second]
    return torn
