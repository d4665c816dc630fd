"""Which row of the targets each row of another program's predictions belongs to."""

import logging

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.errors import DataError
from cxrlab.evaluation.foreign_table import ForeignTable

_MOST_MISSING = 0.1
_NUM_NIH_IMAGES = 112_120

_log = logging.getLogger(__name__)

Names = npt.NDArray[np.object_]
Rows = npt.NDArray[np.intp]


def match_images(predictions: ForeignTable, targets: ForeignTable, elsewhere: Names) -> Rows:
    """Return the row of ``targets`` that belongs to each row of ``predictions``, shape ``(N,)``.

    Names are compared as they are written. Where one of the files gives no folders, and no file name stands
    twice in either, the file names decide. Names that differ in more, such as their endings, are refused: it
    would be a guess.

    Images of the targets without a prediction are left out with a warning, and refused where they are more
    than a tenth. Of targets with a column ``part`` or ``split`` only the parts that the predictions touch are
    meant to be complete; and NIH's whole table names all its images, whichever part is judged.

    Args:
        predictions: The predictions.
        targets: Their targets, and perhaps others.
        elsewhere: Images that other predictions are of, shape ``(M,)``: they are not missed here.

    Raises:
        DataError: If an image has a prediction but no target, or more than a tenth have none.
    """
    rows = _rows(predictions.images, targets.images)
    if (rows < 0).any() and (by_file := _rows_by_file(predictions.images, targets.images)) is not None:
        _log.info(f"{predictions.path} and {targets.path} are matched by file name, whatever their folders")
        rows = by_file
    if (rows < 0).any():
        lacking = predictions.images[rows < 0]
        raise DataError(
            f"{len(lacking)} of {len(rows)} images of {predictions.path} have no target in {targets.path}: "
            f"{list(lacking[:3])}, where the targets name {list(targets.images[:3])}."
            + _hint(lacking, targets.images)
        )
    _check_complete(predictions, targets, rows, elsewhere)
    return rows


def _rows(wanted: Names, there: Names) -> Rows:
    return pd.Index(there).get_indexer(pd.Index(wanted))


def _rows_by_file(wanted: Names, there: Names) -> Rows | None:
    files, other_files = _files(wanted), _files(there)
    if (files != wanted).any() and (other_files != there).any():
        return None  # two folders that differ may hold two images of one file name
    if pd.Index(files).has_duplicates or pd.Index(other_files).has_duplicates:
        return None
    return _rows(files, other_files)


def _files(names: Names) -> Names:
    return np.array([name.rpartition("/")[2] for name in names], dtype=object)


def _stems(files: Names) -> Names:
    return np.array([name.rpartition(".")[0] or name for name in files], dtype=object)


def _hint(lacking: Names, there: Names) -> str:
    """Return what would make the names agree."""
    files, other_files = _files(lacking), _files(there)
    if np.isin(files, other_files).all():
        return " They differ in their folders only: write them alike, or without folders if no name repeats."
    if np.isin(_stems(files), _stems(other_files)).all():
        return " They differ in their ending, such as .png, only: write them alike."
    return " Remove those images, or give the targets that belong to these predictions."


def _check_complete(predictions: ForeignTable, targets: ForeignTable, rows: Rows, elsewhere: Names) -> None:
    parts = targets.parts()
    meant = np.ones(len(targets.images), dtype=bool)
    if parts is not None:
        touched = parts.iloc[rows].unique()
        meant = parts.isin(touched).to_numpy(copy=True)
        if len(touched) > 1:
            _log.warning(f"{predictions.path} mixes the parts {list(touched[:5])} of {targets.path}")
    meant[rows] = False
    known = _rows(elsewhere, targets.images)
    if (known < 0).any() and (by_file := _rows_by_file(elsewhere, targets.images)) is not None:
        known = by_file
    meant[known[known >= 0]] = False
    missing = targets.images[meant]
    if not len(missing):
        return
    told = (
        f"{len(missing)} of {len(missing) + len(rows)} images of {targets.path} have no prediction in "
        f"{predictions.path}, for instance {list(missing[:3])}"
    )
    if targets.find(["findinglabels"]) is not None and len(targets.images) >= _NUM_NIH_IMAGES:
        _log.info(f"{told}; {targets.path.name} names all images of NIH, so only those predicted are judged")
    elif len(missing) > _MOST_MISSING * (len(missing) + len(rows)):
        raise DataError(
            f"{told}. Numbers of the rest would not be those of the data set: predict all, or give the "
            "targets of the part that was predicted (a column part or split tells it too)."
        )
    else:
        _log.warning(f"{told}; they are left out")
