"""How far the parts of a data set are apart."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.audit.finding import Evidence, Finding, counted
from cxrlab.data.audit.label_checks import NORMAL_NAMES, standard_name, unknown
from cxrlab.data.audit.tables import MOST_CATEGORIES, absent, num_images
from cxrlab.data.manifest import COVARIATE

Numbers = npt.NDArray[np.float64]
Kind = Literal["label", "covariate", "image", "patient"]

# Cohen's "small" effect; below 0.1 groups are commonly called balanced (Austin, Stat Med 28:3083, 2009).
LARGEST = 0.2
# Small parts differ by chance. The standard error of a standardised mean difference near 0 is
# sqrt(1/n + 1/m) for n and m independent patients, and three of them hold a whole table of differences.
_ERRORS = 3.0
_PIXELS = ("brightness", "contrast")


@dataclass(frozen=True)
class Drift:
    """How far one variable is apart in two parts.

    Attributes:
        variable: Its name; of a category, with the category.
        kind: Of what it is.
        reference: The part that is compared with.
        part: The other part.
        reference_mean: Mean in the first; of a label or category a share; None where nothing is known.
        mean: Mean in the second.
        smd: The standardised mean difference, positive where ``part`` has the larger mean; None unknown.
        flagged: Whether it is large, and more than chance.
    """

    variable: str
    kind: Kind
    reference: str
    part: str
    reference_mean: float | None
    mean: float | None
    smd: float | None
    flagged: bool


def standardised_difference(reference: Numbers, other: Numbers) -> float:
    """Return the difference of two means in units of the common standard deviation; NaN is left out.

    For values of 0 and 1 it is the difference of two proportions in the same units.

    Returns:
        Positive where ``other`` has the larger mean; NaN where one side knows nothing, or neither varies
        although the means differ; 0 where all values are one and the same.

    Example:
        >>> standardised_difference(np.array([0.0, 2.0]), np.array([1.0, 3.0]))
        1.0

    References:
        Austin, Statistics in Medicine 28:3083-3107, 2009.
    """
    reference, other = reference[np.isfinite(reference)], other[np.isfinite(other)]
    if not len(reference) or not len(other):
        return float("nan")
    difference = float(other.mean() - reference.mean())
    spread = float(np.sqrt((reference.var() + other.var()) / 2))
    if spread < 1e-12:
        return 0.0 if abs(difference) < 1e-12 else float("nan")
    return difference / spread


def drift(evidence: Evidence) -> list[Drift]:
    """Return the standardised mean difference of everything known between each two parts."""
    patients = evidence.manifest.table["patient"]
    numbers = {part: int(patients[rows].nunique()) for part, rows in evidence.parts.items()}
    variables = list(_variables(evidence))
    table = []
    for reference, part in combinations(evidence.parts, 2):
        error = _ERRORS * (1 / numbers[reference] + 1 / numbers[part]) ** 0.5
        for kind, name, values in variables:
            smd = standardised_difference(values[reference], values[part])
            entry = Drift(
                variable=name,
                kind=kind,
                reference=reference,
                part=part,
                reference_mean=_mean(values[reference]),
                mean=_mean(values[part]),
                smd=smd if np.isfinite(smd) else None,
                flagged=bool(abs(smd) >= max(LARGEST, error)),
            )
            table.append(entry)
    return table


def _mean(values: Numbers) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _variables(evidence: Evidence) -> Iterator[tuple[Kind, str, dict[str, Numbers]]]:
    def by_part(values: Numbers) -> dict[str, Numbers]:
        return {part: values[rows] for part, rows in evidence.parts.items()}

    manifest = evidence.manifest
    per_patient = {p: num_images(evidence, rows).astype(float) for p, rows in evidence.parts.items()}
    yield "patient", "images per patient", per_patient
    targets = manifest.targets.astype(float)
    if len(manifest.labels) > 1 and not NORMAL_NAMES & set(map(standard_name, manifest.labels)):
        yield "label", "no label present", by_part(absent(evidence))
    for index, label in enumerate(manifest.labels):
        yield "label", label, by_part(targets[:, index])
    for name in manifest.covariates:
        for level, values in _levels(manifest.table[COVARIATE + name]):
            yield "covariate", f"{name}{level}", by_part(values)
    for name in _PIXELS:
        seen = np.where(evidence.readable, evidence.facts[name].to_numpy(dtype=float), np.nan)
        yield "image", name, by_part(seen)


def _levels(values: "pd.Series[Any]") -> Iterator[tuple[str, Numbers]]:
    """Give a number as it is, and one share for each category; free text gives nothing."""
    if pd.api.types.is_numeric_dtype(values):
        yield "", values.to_numpy(dtype=float)
        return
    blank = unknown(values).to_numpy()
    levels = sorted(map(str, values[~blank].unique()))
    if len(levels) > MOST_CATEGORIES:
        return
    text = values.astype(str).to_numpy()
    # The second of two categories mirrors the first, and would stand in the table twice.
    for level in levels[:1] if len(levels) == 2 else levels:
        yield f" {level}", np.where(blank, np.nan, text == level)


def drifted(table: list[Drift]) -> Iterator[Finding]:
    """Find pairs of parts that are different populations."""
    for reference, part in sorted({(entry.reference, entry.part) for entry in table}):
        pair = [entry for entry in table if (entry.reference, entry.part) == (reference, part)]
        flagged = sorted((entry for entry in pair if entry.flagged), key=lambda entry: -abs(entry.smd or 0.0))
        if flagged:
            shown = "; ".join(_described(entry) for entry in flagged[:3])
            message = f"{reference} and {part} differ in {counted(len(flagged), 'variable')}: {shown}."
            yield Finding("drift", "warning", message, len(flagged))


def _described(entry: Drift) -> str:
    is_share = entry.kind == "label" or (entry.kind == "covariate" and " " in entry.variable)
    form = ".1%" if is_share else ".4g"
    return f"{entry.variable} {entry.reference_mean:{form}} against {entry.mean:{form}}"
