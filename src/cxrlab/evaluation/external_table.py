"""The CSV file of another program: whose image each row is, and what else is known of it."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.manifest import COVARIATE
from cxrlab.data.patients import named_spellings, unified
from cxrlab.data.readers._csv import read_cells
from cxrlab.errors import DataError, MissingFileError
from cxrlab.evaluation.synonyms import plain_name
from cxrlab.metrics.predictions import named_folds


def read_external_cells(path: Path, is_text: Callable[[str], bool]) -> pd.DataFrame:
    """Read a CSV file; columns that hold nothing but numbers become numbers, all others stay text.

    See :func:`cxrlab.data.readers._csv.read_cells`; columns of numbers stay text where a file has quotes.

    Args:
        path: UTF-8 text, plain or gzip; the separator is a comma, semicolon, tab or bar.
        is_text: Tells of a column's name that ``0012`` in it must keep its zeros.

    Returns:
        The index is the line in the file. Empty cells are NaN, or ``""`` in columns of text.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it is empty, damaged, no CSV file, or has two columns of one name.
    """
    if not path.is_file():
        raise MissingFileError(f"There is no table {path}.")
    return read_cells(path, is_text)


# Names as `plain_name` gives them; the first that is there is taken.
_IMAGES = ("image", "imageindex")


_FILES = ("path", "imagepath", "filename", "file", "imageid")


PATIENT_NAMES = ("patient", "patientid", "subjectid")


_PARTS = ("part", "split")


_FOLDS = ("fold",)


READER = "reader/"


_TEXT = {*_IMAGES, *_FILES, *PATIENT_NAMES, *_PARTS, "findinglabels"}


_COVARIATES = {
    "viewposition": "view",
    "ap/pa": "view",
    "view": "view",
    "frontal/lateral": "plane",
    "patientsex": "sex",
    "patientgender": "sex",
    "sex": "sex",
    "gender": "sex",
    "patientage": "age",
    "age": "age",
}


_BLANKS = ("", "nan", "na", "n/a", "none", "null")


_OLDEST = 120.0  # the first edition of NIH's table holds ages up to 414 years


_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "D": 1 / 365.25}


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExternalTable:
    """One CSV file of another program, one row an image.

    Attributes:
        path: Where it lies, for messages.
        cells: Its columns; the index is the line.
        images: Name of each row's image, with forward slashes, shape ``(N,)``; none is empty or stands twice.
    """

    path: Path
    cells: pd.DataFrame
    images: npt.NDArray[np.object_]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file and find its images.

        The column is ``image`` or ``Image Index``; where there is neither, the only one of ``Path``,
        ``filename`` and the like. Case, blanks and underscores in its name do not matter.

        Raises:
            MissingFileError: If there is no such file.
            DataError: If it cannot be read, lists nothing, or does not tell which image a row is.
        """
        cells = read_external_cells(path, lambda name: plain_name(name) in _TEXT)
        column = _image_column(cells, path)
        if cells.empty:
            raise DataError(f"The table {path} lists nothing: there is no row below its header.")
        names = [name.replace("\\", "/").removeprefix("./") for name in cells[column].tolist()]
        images = pd.Series(names, dtype=object)
        if empty := int((images == "").sum()):
            raise DataError(f"{empty} rows of {path} have nothing in the column {column!r}.")
        twice = images[images.duplicated()].unique()
        if len(twice):
            raise DataError(
                f"{len(twice)} images stand twice in {path}: {list(twice[:3])}. Keep one row of each."
            )
        return cls(path, cells, images.to_numpy(dtype=object))

    def find(self, names: Sequence[str]) -> str | None:
        """Return the first column whose plain name is one of ``names``, in their order."""
        return next(iter(_named(self.cells, names)), None)

    def label_names(self) -> list[str]:
        """Return the columns that have no known meaning other than being a label."""
        known = _TEXT | _COVARIATES.keys() | set(_FOLDS)
        names = [str(name) for name in self.cells]
        return [
            name
            for name in names
            if plain_name(name) not in known and not name.startswith((COVARIATE, READER))
        ]

    def readings(self, labels: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
        """Return what each reader says, by name: columns ``reader/<name>/<label>``, each of shape ``(N, L)``.

        Args:
            labels: L names, compared without case, blanks and underscores.

        Raises:
            DataError: If a column names another label, or holds anything but 1, 0, -1 for uncertain, or
            nothing.
        """
        place_of_label = {plain_name(label): place for place, label in enumerate(labels)}
        readings: dict[str, npt.NDArray[np.float64]] = {}
        for column in (str(name) for name in self.cells if str(name).startswith(READER)):
            reader, _, label = column.removeprefix(READER).partition("/")
            if not reader or plain_name(label) not in place_of_label:
                raise DataError(
                    f"The column {column!r} of {self.path} must be called reader/<name>/<label>, for one of "
                    "the "
                    f"labels {list(labels)[:8]}."
                )
            numbers = pd.to_numeric(self.cells[column], errors="coerce").astype(np.float64)
            wrong = self.cells[column][~(numbers.isin([0.0, 1.0, -1.0]) | self.is_blank(column))]
            if len(wrong):
                raise DataError(
                    f"Line {wrong.index[0]} of {self.path} has {str(wrong.iloc[0])!r} in {column!r}: a "
                    "reading is 1, 0, -1 for uncertain, or empty."
                )
            values = readings.setdefault(reader, np.full((len(self.cells), len(labels)), np.nan))
            values[:, place_of_label[plain_name(label)]] = numbers.where(numbers != -1).to_numpy()
        return readings

    def is_blank(self, column: str) -> "pd.Series[bool]":
        """Tell which cells of a column hold nothing, or a word for nothing."""
        values = self.cells[column]
        if pd.api.types.is_numeric_dtype(values):
            return values.isna()
        return values.isin([word for word in values.unique() if word.lower() in _BLANKS])

    def patients(self) -> list[str] | None:
        """Return the patient of each row, each in one spelling; None where no column tells them.

        See :func:`cxrlab.data.patients.unified`.

        Raises:
            DataError: If one is empty, or a word such as ``nan``.
        """
        column = self.find(PATIENT_NAMES)
        if column is None:
            return None
        patients, several = unified(self.cells[column])
        is_nobody = (patients == "").to_numpy()
        if is_nobody.any():
            words = sorted(set(self.cells[column][is_nobody].dropna().astype(str)) - {""})
            raise DataError(
                f"{int(is_nobody.sum())} rows of {self.path} have "
                f"{', '.join(map(repr, words[:3])) or 'nothing'} in the column {column!r}: "
                f"{list(self.images[is_nobody][:3])}. Fill them in, or remove the column; patients are then "
                "unknown."
            )
        if several:
            _log.warning(
                f"{'1 patient' if len(several) == 1 else f'{len(several)} patients'} of {self.path} "
                f"{'is' if len(several) == 1 else 'are'} written in more than one way, such as "
                f"{named_spellings(several)}: each counts as one"
            )
        return patients.tolist()

    def parts(self) -> "pd.Series[str] | None":
        """Return the part of each row as it is written; None where no column tells it."""
        column = self.find(_PARTS)
        return None if column is None else self.cells[column]

    def folds(self) -> npt.NDArray[np.object_] | None:
        """Return the fold of each row; None where no column tells it, or all are of one.

        Raises:
            DataError: If some rows have none.
        """
        column = self.find(_FOLDS)
        return None if column is None else named_folds(self.cells[column], str(self.path))

    def covariates(self) -> pd.DataFrame:
        """Return ``covariate/<name>`` and the usual columns of view, sex and age, by name; NaN unknown."""
        names = [str(name) for name in self.cells]
        columns = {name.removeprefix(COVARIATE): name for name in names if name.startswith(COVARIATE)}
        for plain, name in _COVARIATES.items():
            found = self.find([plain])
            if found is not None:
                columns.setdefault(name, found)
        known = {
            name: self._ages(column) if name == "age" else self._covariate(column)
            for name, column in columns.items()
        }
        return pd.DataFrame(known, index=self.cells.index)

    def _covariate(self, column: str) -> "pd.Series[float] | pd.Series[str]":
        values = self.cells[column].mask(self.is_blank(column))
        numbers = pd.to_numeric(pd.Series(values.dropna().unique()), errors="coerce")
        return values if numbers.isna().any() else values.astype(np.float64)

    def _ages(self, column: str) -> "pd.Series[float]":
        """Return years from 58, 058Y or 011M; what is no age, or above 120, is unknown."""
        words = self.cells[column]
        ages = words.map({word: _years(str(word)) for word in words.unique()}).astype(np.float64)
        wrong = words[ages.isna() & ~self.is_blank(column)]
        if len(wrong):
            _log.warning(f"{len(wrong)} ages of {self.path} are taken as unknown, such as {wrong.iloc[0]}")
        return ages


def _years(word: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d*)?)([YMD]?)", word.upper())
    years = float(match[1]) * _YEARS[match[2]] if match else np.nan
    return years if years <= _OLDEST else np.nan


def _image_column(cells: pd.DataFrame, path: Path) -> str:
    columns = _named(cells, _IMAGES) or _named(cells, _FILES)
    if len(columns) == 1:
        return columns[0]
    fault = f"it has several, {columns}" if columns else f"it has only {list(cells)[:20]}"
    raise DataError(f"{path} needs one column with the names of the images, image or 'Image Index'; {fault}.")


def _named(cells: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return the columns called so, in the order of ``names``."""
    return [str(column) for name in names for column in cells if plain_name(str(column)) == name]
