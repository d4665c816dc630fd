"""Groups of images by the values of a covariate, and their metrics, of the sample and of every resample.

Views, sexes, bands of age, thirds of any other number; AUROC, sensitivity and specificity of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.metrics.bootstrap import MACRO, Counts, macro_mean, ratio
from cxrlab.metrics.confusion import confusion_counts, resampled_confusion_counts
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.ranking import label_rankings, ranking

UNKNOWN = "unknown"
GROUP_METRICS = ("auroc", "sensitivity", "specificity")
MAX_VALUES = 12

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Some of the images.

    Attributes:
        name: What they have in common.
        members: Shape ``(N,)``.
        is_compared: False where the images need not have anything in common: unknown and rare values.
    """

    name: str
    members: Mask
    is_compared: bool = True


def covariate_groups(name: str, values: "pd.Series[Any]", ages: Sequence[float]) -> list[Group]:
    """Return the groups of one covariate; each image is in one of them, and none is empty.

    ``age`` is cut into bands, any other number of more than 12 values into thirds. All else goes by value:
    the 12 most frequent ones and the others together. Images without a value are "unknown".

    Args:
        name: Of the covariate.
        values: Shape ``(N,)``; NaN or empty text where unknown.
        ages: Edges of the bands in years, ascending; a band includes its lower edge.

    Example:
        >>> groups = covariate_groups("age", pd.Series([17.9, 18.0, 95.0, np.nan]), [0, 18, 80])
        >>> [(group.name, int(group.members.sum())) for group in groups]
        [('0-17 years', 1), ('18-79 years', 1), ('80+ years', 1), ('unknown', 1)]
    """
    text = values.astype(object).where(values.notna(), "").map(lambda value: str(value).strip())
    is_unknown = text.str.lower().isin(["", UNKNOWN]).to_numpy(dtype=bool)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
    is_number = bool((~np.isnan(numbers) == ~is_unknown).all()) and not is_unknown.all()
    if is_number and name == "age" and len(ages):
        groups = _bands(numbers, ages)
    elif is_number and len(np.unique(numbers[~is_unknown])) > MAX_VALUES:
        groups = _thirds(numbers)
    elif is_number:
        groups = [Group(f"{value:.12g}", numbers == value) for value in np.unique(numbers[~is_unknown])]
    else:
        groups = _values(text, is_unknown)
    groups.append(Group(UNKNOWN, is_unknown, is_compared=False))
    return [group for group in groups if group.members.any()]


def _bands(ages: npt.NDArray[np.float64], edges: Sequence[float]) -> list[Group]:
    """Return images by age; who is younger than the first edge has a band too."""
    names = [f"under {edges[0]:g} years"]
    for lower, upper in pairwise(edges):
        is_whole = float(lower).is_integer() and float(upper).is_integer()
        last = f"{upper - 1:g}" if is_whole else f"under {upper:g}"
        names.append(f"{lower:g}-{last} years" if is_whole else f"{lower:g} to {last} years")
    names.append(f"{edges[-1]:g}+ years")
    places = np.where(np.isnan(ages), -1, np.digitize(ages, edges))
    return [Group(name, places == place) for place, name in enumerate(names)]


def _thirds(numbers: npt.NDArray[np.float64]) -> list[Group]:
    low, high = np.nanquantile(numbers, [1 / 3, 2 / 3])
    with np.errstate(invalid="ignore"):
        return [
            Group(f"up to {low:.4g}", numbers <= low),
            Group(f"above {low:.4g} to {high:.4g}", (numbers > low) & (numbers <= high)),
            Group(f"above {high:.4g}", numbers > high),
        ]


def _values(text: "pd.Series[str]", is_unknown: Mask) -> list[Group]:
    counts = text[~is_unknown].value_counts()
    frequent = sorted(counts.index[:MAX_VALUES])
    groups = [Group(value, (text == value).to_numpy(dtype=bool)) for value in frequent]
    rest = len(counts) - len(frequent)
    rare = ~text.isin(frequent).to_numpy(dtype=bool) & ~is_unknown
    rest_name = f"{rest} other value{'s' if rest > 1 else ''}"
    return [*groups, Group(rest_name, rare, is_compared=False)]


@dataclass(frozen=True)
class GroupMetrics:
    """The :data:`GROUP_METRICS` of L labels in one group; the macro mean may follow as one more label.

    Attributes:
        group: The images.
        labels: L names.
        num_images: Images whose target is known, shape ``(L,)``.
        num_positives: Shape ``(L,)``.
        num_negatives: Shape ``(L,)``.
        num_patients: Of the group.
        borrows: Where the group has no negatives, so that AUROC is against those of all, shape ``(L,)``.
        values: NaN where undefined, shape ``(3, L)``.
        samples: The same of each resample, shape ``(3, L, B)``.
        units: Patients behind each value, shape ``(3, L)``: those with positives, those with negatives, and
            for AUROC the fewer of both.
    """

    group: Group
    labels: tuple[str, ...]
    num_images: Integers
    num_positives: Integers
    num_negatives: Integers
    num_patients: int
    borrows: Mask
    values: Floats
    samples: Floats
    units: Integers

    def is_supported(self, least: int) -> Mask:
        """Tell which values rest on at least ``least`` positives or negatives or both, shape ``(3, L)``."""
        positives, negatives = self.num_positives >= least, self.num_negatives >= least
        both = positives & (negatives | self.borrows)
        return np.stack([both, positives, negatives]) & ~np.isnan(self.values)


def group_metrics(table: PredictionTable, thresholds: Floats, counts: Counts, group: Group) -> GroupMetrics:
    """Return the metrics of a group.

    Where a group has positives but no negative (bacteria and virus are known of pneumonias only), AUROC tells
    its positives from the negatives of the whole table.

    Args:
        table: N images, L labels, P patients.
        thresholds: Shape ``(L,)``; NaN where there is none.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        group: Some of the images.
    """
    metrics = counted(table, group, counts.shape[1])
    part, drawn = table.rows(group.members), counts[np.unique(table.patients[group.members])]
    ranked = label_rankings(part, drawn)
    tp, fp, tn, fn = confusion_counts(part, thresholds)
    values = np.stack([ranked.auroc, ratio(tp, tp + fn), ratio(tn, tn + fp)])
    tps, fps, tns, fns = resampled_confusion_counts(part, thresholds, drawn)
    samples = np.stack([ranked.auroc_samples, ratio(tps, tps + fns), ratio(tns, tns + fps)])
    for label in np.flatnonzero(metrics.borrows):
        targets = table.targets[:, label]
        rows = np.where(group.members, targets == 1, targets == 0)
        scores = table.probabilities[rows, label]
        borrowed = ranking(scores, targets[rows], table.patients[rows], counts)
        values[0, label], samples[0, label] = borrowed.auroc[0], borrowed.auroc_samples[0]
    return replace(metrics, values=values, samples=samples)


def counted(table: PredictionTable, group: Group, num_resamples: int) -> GroupMetrics:
    """Return how many images and patients a group has; its values are NaN."""
    targets, patients = table.targets[group.members], table.patients[group.members]
    positives, negatives = targets == 1, targets == 0
    owners = np.array(
        [[len(np.unique(patients[column])) for column in side.T] for side in (positives, negatives)],
        dtype=np.int64,
    )
    num_positives, num_negatives = positives.sum(axis=0), negatives.sum(axis=0)
    has_negatives = (table.targets == 0).any(axis=0)
    return GroupMetrics(
        group=group,
        labels=table.labels,
        num_images=num_positives + num_negatives,
        num_positives=num_positives,
        num_negatives=num_negatives,
        num_patients=len(np.unique(patients)),
        borrows=(num_positives > 0) & (num_negatives == 0) & has_negatives,
        values=np.full((3, len(table.labels)), np.nan),
        samples=np.full((3, len(table.labels), num_resamples), np.nan),
        units=np.stack([owners.min(axis=0), *owners]),
    )


def macro_labels(groups: Sequence[GroupMetrics], least: int) -> Mask:
    """Return the labels that the groups' macro means run over, shape ``(L,)``: the same for all of them.

    A mean over other labels would differ between groups for that reason alone. So a label counts where each
    group has enough positives and negatives of it; a group that has less than half of the labels that the
    largest has (a handful of small children, say) has no mean, lest it take the labels from all others.

    Args:
        groups: Those that are compared.
        least: How many positives, and negatives, are enough.
    """
    if not groups:
        return np.zeros(0, dtype=bool)
    enough = np.stack([np.minimum(group.num_positives, group.num_negatives) >= least for group in groups])
    sizes = enough.sum(axis=1)
    return np.asarray(enough[2 * sizes >= sizes.max()].all(axis=0))


def with_macro(metrics: GroupMetrics, chosen: Mask, least: int) -> GroupMetrics:
    """Add the mean over the ``chosen`` labels, undefined unless the group has enough images of each.

    Args:
        metrics: Of L labels.
        chosen: Of :func:`macro_labels`, shape ``(L,)``; labels without a threshold have no sensitivity and
            specificity in any group, and are left out of these means.
        least: How many positives, and negatives, are enough.
    """
    fewest = np.minimum(metrics.num_positives, metrics.num_negatives)
    mean, samples = np.full(3, np.nan), np.full((3, metrics.samples.shape[2]), np.nan)
    if (fewest[chosen] >= least).all():
        for row in range(3):
            values = np.where(chosen, metrics.values[row], np.nan)
            mean[row], samples[row] = macro_mean(values, metrics.samples[row], complete=True)
    size = int(metrics.group.members.sum())  # what there must be enough of is decided above
    return replace(
        metrics,
        labels=(*metrics.labels, MACRO),
        num_images=np.append(metrics.num_images, size),
        num_positives=np.append(metrics.num_positives, size),
        num_negatives=np.append(metrics.num_negatives, size),
        borrows=np.append(metrics.borrows, False),
        values=np.column_stack([metrics.values, mean]),
        samples=np.concatenate([metrics.samples, samples[:, None]], axis=1),
        units=np.column_stack([metrics.units, np.zeros(3, dtype=np.int64)]),
    )
