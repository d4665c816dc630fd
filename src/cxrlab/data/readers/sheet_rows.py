"""The rows of one table as rows of a manifest: paths, patients, parts, covariates and labels."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from cxrlab.data.manifest import COVARIATE, LABEL
from cxrlab.data.readers.label_cells import Blank, Uncertain, parse_labels
from cxrlab.data.readers.listed_images import compiled, paths_under_root
from cxrlab.data.readers.sheets import PART_WORDS, Sheet
from cxrlab.errors import DataError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """Where in a table what is found: the arguments of :func:`cxrlab.data.readers.table.read`, resolved."""

    image_column: str
    image_folder: str
    path_prefix: str | None
    image_suffix: str
    patient_column: str | None
    patient_pattern: str | None
    split_column: str | None
    covariates: Mapping[str, str]
    labels: Mapping[str, str]
    uncertain: Mapping[str, Uncertain]
    blank: Blank


def rows(sheet: Sheet, layout: Layout) -> pd.DataFrame:
    """Return the rows of one table as a manifest has them, but for the covariates, which are still text.

    Returns:
        Columns ``image``, ``patient``, ``split``, ``covariate/<name>`` and ``label/<name>``; the index is the
        line in the file. A covariate whose column this table lacks is "".

    Raises:
        ConfigError: If a regular expression of the layout is none.
        DataError: If a column is missing, or a cell cannot be used.
    """
    images = paths_under_root(
        sheet.column(layout.image_column, "data.reader.image_column"),
        folder=layout.image_folder,
        prefix=layout.path_prefix,
        suffix=layout.image_suffix,
        path=sheet.path,
    )
    columns: dict[str, object] = {
        "image": images,
        "patient": _patients(sheet, images, layout),
        "split": _splits(sheet, layout),
    }
    for name, column in layout.covariates.items():
        found = sheet.find(column)
        columns[COVARIATE + name] = sheet.cells[found] if found else pd.Series("", index=images.index)
    for name, column in layout.labels.items():
        columns[LABEL + name] = parse_labels(
            sheet.column(column, "data.reader.labels"),
            name=column,
            path=sheet.path,
            uncertain=layout.uncertain[name],
            blank=layout.blank,
        )
    return pd.DataFrame(columns)


def _patients(sheet: Sheet, images: "pd.Series[str]", layout: Layout) -> "pd.Series[str]":
    if layout.patient_pattern is not None:
        pattern = compiled(layout.patient_pattern, "data.reader.patient_pattern")
        group = min(pattern.groups, 1)
        matches = [pattern.search(image) for image in images]
        patients = pd.Series([match[group] or "" if match else "" for match in matches], index=images.index)
        source = f"data.reader.patient_pattern={layout.patient_pattern} finds no patient in"
    elif layout.patient_column is not None:
        patients = sheet.column(layout.patient_column, "data.reader.patient_column")
        source = f"The column {layout.patient_column!r} of {sheet.path} is empty for"
    else:
        _log.warning(
            f"data.reader.patient_column is null: every image of {sheet.path} counts as a patient of its "
            "own, so that patients cannot be kept apart, and images of one may be in both train and test"
        )
        return images
    missed = images[patients == ""]
    if len(missed):
        raise DataError(
            f"{source} {len(missed)} of {len(images)} images, for instance {list(missed[:3])}, "
            f"the first in line {missed.index[0]}."
        )
    return patients


def _splits(sheet: Sheet, layout: Layout) -> "pd.Series[str]":
    if layout.split_column is None:
        return pd.Series(sheet.part, index=sheet.cells.index)
    words = sheet.column(layout.split_column, "data.reader.split_column")
    parts = words.str.lower().map(PART_WORDS | {"": ""})
    wrong = words[parts.isna()]
    if len(wrong):
        raise DataError(
            f"The column {layout.split_column!r} of {sheet.path} holds {wrong.iloc[0]!r} in line "
            f"{wrong.index[0]}; parts are train, val and test. To read none: data.reader.split_column=null."
        )
    return parts
