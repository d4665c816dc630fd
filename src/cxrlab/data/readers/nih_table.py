"""The table of NIH ChestX-ray14: findings, patient, view, sex and age of each image."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.manifest import COVARIATE, LABEL
from cxrlab.data.readers.csv_cells import read_cells
from cxrlab.errors import DataError

LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)

_OLDEST = 120.0  # the first edition of the table holds ages up to 414 years
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "D": 1 / 365.25}
_COLUMNS = {
    "Image Index": "image",
    "Finding Labels": "findings",
    "Patient ID": "patient",
    "Patient Age": "age",
    "Patient Gender": "sex",
    "View Position": "view",
}


def read_table(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the table of ChestX-ray14, either edition, plain or ``.gz``; the images need not be there.

    Returns:
        One row an image: ``image`` (bare file name), ``patient``, ``covariate/view``, ``covariate/sex``,
        ``covariate/age`` (years; NaN where absent or above 120) and the 14 labels, all 0 for "No Finding".
        And the columns ``image``, ``findings`` and ``age`` as they are listed, ages in years, for the audit.

    Raises:
        DataError: If a column is missing, a name or patient is empty, or a finding or an age is unknown.
    """
    raw = read_cells(path)
    missing = [name for name in _COLUMNS if name not in raw]
    if missing:
        raise DataError(f"The table {path} lacks the columns {missing}; it has {list(raw)}.")
    raw = raw.rename(columns=_COLUMNS)
    for name in ("Image Index", "Patient ID"):
        if empty := int((raw[_COLUMNS[name]] == "").sum()):
            raise DataError(f"{empty} rows of {path} have nothing in the column {name!r}.")
    columns: dict[str, object] = {"image": raw["image"], "patient": raw["patient"]}
    columns |= {COVARIATE + name: raw[name] for name in ("view", "sex")}
    ages = _parse_ages(raw["age"], path)
    columns[COVARIATE + "age"] = ages.where(ages <= _OLDEST)
    findings = _parse_findings(raw["findings"], path)
    columns |= {LABEL + name: findings[:, index] for index, name in enumerate(LABELS)}
    return pd.DataFrame(columns), raw[["image", "findings"]].assign(age=ages)


def _parse_findings(findings: "pd.Series[str]", path: Path) -> npt.NDArray[np.float64]:
    """Return 0 and 1, shape ``(N, 14)``; each of the some 800 combinations is taken apart once."""
    codes, combinations = pd.factorize(findings)
    rows = np.zeros((len(combinations), len(LABELS)))
    for row, combination in zip(rows, combinations, strict=True):
        # "No Finding" beside a finding is a contradiction that the audit names; the finding counts.
        for name in set(combination.split("|")) - {"No Finding"}:
            if name not in LABELS:
                raise DataError(
                    f"The column 'Finding Labels' of {path} holds {combination!r}; {name!r} is none of "
                    f"the 14 findings {list(LABELS)}."
                )
            row[LABELS.index(name)] = 1.0
    return rows[codes]


def _parse_ages(ages: "pd.Series[str]", path: Path) -> "pd.Series[float]":
    """Return years from ``58``, ``058Y`` or ``011M``: the two editions of the table differ."""
    parts = ages.str.extract(r"^(?P<number>\d+)(?P<unit>[YMD]?)$")
    wrong = ages[parts["number"].isna() & (ages != "")].unique()
    if len(wrong):
        raise DataError(
            f"The column 'Patient Age' of {path} holds {list(wrong[:3])}; ages look like 58 or 058Y."
        )
    return parts["number"].astype(float) * parts["unit"].map(_YEARS).astype(float)
