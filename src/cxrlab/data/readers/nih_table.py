"""The table of NIH ChestX-ray14: findings, patient, view, sex and age of each image."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.manifest import COVARIATE, LABEL
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


def read_table(path: Path) -> pd.DataFrame:
    """Read the table of ChestX-ray14, either edition, plain or ``.gz``; the images need not be there.

    Returns:
        One row an image: ``image`` (bare file name), ``patient``, ``covariate/view``, ``covariate/sex``,
        ``covariate/age`` (years; NaN where absent or above 120) and the 14 labels, all 0 for "No Finding".

    Raises:
        DataError: If a column is missing, a name or patient is empty, or a finding or an age is unknown.
    """
    raw = read_text_cells(path)
    missing = [name for name in _COLUMNS if name not in raw]
    if missing:
        raise DataError(f"The table {path} lacks the columns {missing}; it has {list(raw)}.")
    raw = raw.rename(columns=_COLUMNS)
    for name in ("Image Index", "Patient ID"):
        if empty := int((raw[_COLUMNS[name]] == "").sum()):
            raise DataError(f"{empty} rows of {path} have nothing in the column {name!r}.")
    columns: dict[str, object] = {"image": raw["image"], "patient": raw["patient"]}
    columns |= {COVARIATE + name: raw[name] for name in ("view", "sex")}
    columns[COVARIATE + "age"] = _parse_ages(raw["age"], path)
    findings = _parse_findings(raw["findings"], path)
    columns |= {LABEL + name: findings[:, index] for index, name in enumerate(LABELS)}
    return pd.DataFrame(columns)


def read_text_cells(path: Path, header: int | None = 0) -> pd.DataFrame:
    """Read a CSV file with every cell as text, empty ones as ``""``.

    Raises:
        DataError: If it is empty, damaged, or no CSV file.
    """
    try:
        # Rows with more commas than the header must not shift the columns (index_col) or warn (usecols).
        return pd.read_csv(
            path, header=header, dtype=str, keep_default_na=False, index_col=False, usecols=lambda _: True
        )
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"The table {path} cannot be read: {error}") from error


def _parse_findings(findings: "pd.Series[str]", path: Path) -> npt.NDArray[np.float64]:
    """Return 0 and 1, shape ``(N, 14)``; each of the some 800 combinations is taken apart once."""
    codes, combinations = pd.factorize(findings)
    rows = np.zeros((len(combinations), len(LABELS)))
    for row, combination in zip(rows, combinations, strict=True):
        if combination == "No Finding":
            continue
        for name in combination.split("|"):
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
    years = parts["number"].astype(float) * parts["unit"].map(_YEARS).astype(float)
    return years.where(years <= _OLDEST)
