"""The counts of a data set by part: images, labels, patients, sizes and covariates."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.audit.file_checks import sizes_of
from cxrlab.data.audit.finding import Evidence, Mask
from cxrlab.data.audit.label_checks import unknown
from cxrlab.data.manifest import COVARIATE

# More values than this, and a covariate is an identifier or free text, which no report should repeat.
MOST_CATEGORIES = 20

_NUM_SIZES = 10
_MOST_IMAGES = 20  # patients with more images are counted together


@dataclass(frozen=True)
class PartCounts:
    """Images, readable images and patients of a part."""

    part: str
    images: int
    readable: int
    patients: int


@dataclass(frozen=True)
class LabelCounts:
    """A label in a part; its prevalence is the share of positives among the known, None without any."""

    label: str
    part: str
    positive: int
    negative: int
    unknown: int
    prevalence: float | None


@dataclass(frozen=True)
class WithoutLabel:
    """Share of a part's images on which no label is present, among those where that is known."""

    part: str
    share: float | None


@dataclass(frozen=True)
class Cooccurrence:
    """How many images have both labels of each pair; the diagonal counts one label's positives."""

    labels: list[str]
    counts: list[list[int]]


@dataclass(frozen=True)
class ImagesPerPatient:
    """Distribution of images per patient in a part: number of patients by number of images, as text."""

    part: str
    mean: float
    median: float
    maximum: int
    patients: dict[str, int]


@dataclass(frozen=True)
class SizeCount:
    """How many files have a size, in pixels."""

    width: int
    height: int
    images: int


@dataclass(frozen=True)
class Sizes:
    """The ten most frequent sizes of the files, and how many sizes there are."""

    num_sizes: int
    most_frequent: list[SizeCount]


@dataclass(frozen=True)
class NumberSummary:
    """A covariate in numbers, in one part; None where none is known there."""

    covariate: str
    part: str
    unknown: int
    kind: Literal["number"] = "number"
    mean: float | None = None
    minimum: float | None = None
    q25: float | None = None
    median: float | None = None
    q75: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class TextSummary:
    """A covariate with so many values that it is an identifier or free text: only how many they are."""

    covariate: str
    part: str
    unknown: int
    kind: Literal["text"] = "text"
    num_values: int = 0


@dataclass(frozen=True)
class CategorySummary:
    """A covariate of a few values, in one part: the images of each, the most frequent first."""

    covariate: str
    part: str
    unknown: int
    kind: Literal["category"] = "category"
    counts: dict[str, int] | None = None


CovariateSummary = NumberSummary | TextSummary | CategorySummary


def parts(evidence: Evidence) -> list[PartCounts]:
    """Return images, readable images and patients of each part."""
    patients = evidence.manifest.table["patient"]
    return [
        PartCounts(
            part=part,
            images=int(rows.sum()),
            readable=int((rows & evidence.readable).sum()),
            patients=int(patients[rows].nunique()),
        )
        for part, rows in evidence.parts.items()
    ]


def labels(evidence: Evidence) -> list[LabelCounts]:
    """Return positives, negatives, unknowns and the share of positives among the known, by label and part."""
    targets, table = evidence.manifest.targets, []
    for part, rows in evidence.parts.items():
        positives, negatives = (targets[rows] == 1).sum(axis=0), (targets[rows] == 0).sum(axis=0)
        for index, label in enumerate(evidence.manifest.labels):
            positive, negative = int(positives[index]), int(negatives[index])
            num_known = positive + negative
            prevalence = positive / num_known if num_known else None
            num_unknown = int(rows.sum()) - num_known
            table.append(LabelCounts(label, part, positive, negative, num_unknown, prevalence))
    return table


def cooccurrence(evidence: Evidence) -> Cooccurrence:
    """Return how many images have both labels of each pair."""
    present = (evidence.manifest.targets == 1).astype(np.float64)
    return Cooccurrence(evidence.manifest.labels, (present.T @ present).astype(int).tolist())


def without_label(evidence: Evidence) -> list[WithoutLabel]:
    """Return the share of images on which no label is present, by part, among those where that is known."""
    table = []
    for part, rows in evidence.parts.items():
        values = absent(evidence)[rows]
        known = values[np.isfinite(values)]
        table.append(WithoutLabel(part, float(known.mean()) if len(known) else None))
    return table


def absent(evidence: Evidence) -> npt.NDArray[np.float64]:
    """Return 1 where all labels are known to be absent, 0 where one is present, NaN where that is unknown."""
    targets = evidence.manifest.targets
    none = np.where((targets == 0).all(axis=1), 1.0, np.nan)
    return np.where((targets == 1).any(axis=1), 0.0, none)


def images_per_patient(evidence: Evidence) -> list[ImagesPerPatient]:
    """Return the distribution of images per patient, by part."""
    table = []
    for part, rows in evidence.parts.items():
        numbers = num_images(evidence, rows)
        counts = np.bincount(np.minimum(numbers, _MOST_IMAGES))
        names = [f"{number}" if number < _MOST_IMAGES else f"{number}+" for number in range(len(counts))]
        patients = {name: int(count) for name, count in zip(names, counts, strict=True) if count}
        mean, median = float(numbers.mean()), float(np.median(numbers))
        table.append(ImagesPerPatient(part, mean, median, int(numbers.max()), patients))
    return table


def num_images(evidence: Evidence, rows: Mask) -> npt.NDArray[np.intp]:
    """Return the number of images of each patient among ``rows``, shape ``(P,)``."""
    return np.bincount(pd.factorize(evidence.manifest.table["patient"][rows])[0])


def sizes(evidence: Evidence) -> Sizes:
    """Return the ten most frequent sizes of the files, and how many sizes there are."""
    counts = sizes_of(evidence)
    return Sizes(len(counts), [SizeCount(*map(int, row)) for row in counts[:_NUM_SIZES]])


def modes(evidence: Evidence) -> dict[str, int]:
    """Return the number of files of each pixel mode."""
    counts = evidence.facts.loc[evidence.readable, "mode"].value_counts()
    return {str(mode): int(count) for mode, count in counts.items()}


def covariates(evidence: Evidence) -> list[CovariateSummary]:
    """Return quantiles of numeric covariates and counts of the others, by part."""
    table: list[CovariateSummary] = []
    for name in evidence.manifest.covariates:
        values = evidence.manifest.table[COVARIATE + name]
        blank = unknown(values).to_numpy()
        for part, rows in evidence.parts.items():
            num_unknown = int((rows & blank).sum())
            table.append(_summary(name, part, num_unknown, values[rows & ~blank], values[~blank]))
    return table


def _summary(
    name: str, part: str, num_unknown: int, known: "pd.Series[Any]", everywhere: "pd.Series[Any]"
) -> CovariateSummary:
    """Summarise the known values of a part; what kind a covariate is, its values in all parts tell."""
    if pd.api.types.is_numeric_dtype(everywhere):
        numbers = known.to_numpy(dtype=float)
        if not len(numbers):
            return NumberSummary(name, part, num_unknown)
        quantiles = [float(np.quantile(numbers, share)) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
        return NumberSummary(name, part, num_unknown, "number", float(numbers.mean()), *quantiles)
    if everywhere.nunique() > MOST_CATEGORIES:
        return TextSummary(name, part, num_unknown, num_values=int(known.nunique()))
    counts = {str(category): int(count) for category, count in known.value_counts().items()}
    return CategorySummary(name, part, num_unknown, counts=counts)
