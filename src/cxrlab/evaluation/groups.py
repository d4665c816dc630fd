"""Groups of images by the values of a covariate, and their metrics, with what each patient adds to them.

Views, sexes, bands of age, thirds of any other number; AUROC, sensitivity and specificity of each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.metrics.bootstrap import MACRO, Estimate
from cxrlab.metrics.influence import (
    Influence,
    auroc_influence,
    logit_interval,
    mean_influence,
    share_influence,
    share_interval,
)
from cxrlab.metrics.predictions import Floats, PredictionTable

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
    text = _stripped(values)
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


def _stripped(values: "pd.Series[Any]") -> "pd.Series[str]":
    """Return values as text, "" for none; where few fill many rows, each is looked at once."""
    is_plain = pd.api.types.is_string_dtype(values) or pd.api.types.is_numeric_dtype(values)
    if not is_plain:  # objects that are equal, as 1 and True, may differ as text
        return values.astype(object).where(values.notna(), "").map(lambda value: str(value).strip())
    codes, words = pd.factorize(values)
    stripped = np.array([*(str(word).strip() for word in words), ""], dtype=object)
    return pd.Series(stripped[codes], index=values.index)


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
        num_positives: Shape ``(L,)``.
        num_negatives: Shape ``(L,)``.
        num_patients: Of the group.
        positive_patients: Patients with positives, shape ``(L,)``.
        negative_patients: Patients with negatives, shape ``(L,)``.
        borrows: Where the group has no negatives, so that AUROC is against those of all, shape ``(L,)``.
        metrics: By the name of the metric, one for each label, undefined where it has no value.
        num_images: Images whose target is known, shape ``(L,)``.
        macro_of: The labels that the macro mean is of.
    """

    group: Group
    labels: tuple[str, ...]
    num_positives: Integers
    num_negatives: Integers
    num_patients: int
    positive_patients: Integers
    negative_patients: Integers
    borrows: Mask
    metrics: Mapping[str, Sequence[Influence]]
    num_images: Integers
    macro_of: tuple[str, ...] = ()

    def value(self, metric: str, label: int) -> float:
        """Return a metric of one label; NaN where undefined."""
        return self.metrics[metric][label].value

    def behind(self, metric: str, label: int) -> int:
        """Return how many images a value is of: positives, negatives, or for AUROC and a mean all."""
        if self.labels[label] == MACRO or metric == "auroc":
            return int(self.num_images[label])
        return int((self.num_positives if metric == "sensitivity" else self.num_negatives)[label])

    def estimate(self, metric: str, label: int, level: float) -> Estimate:
        """Return a metric of one label with its interval."""
        interval = logit_interval if metric == "auroc" else share_interval
        return interval(self.metrics[metric][label], level)


def group_metrics(table: PredictionTable, thresholds: Floats, group: Group) -> GroupMetrics:
    """Return the metrics of a group.

    Where a group has positives but no negative (bacteria and virus are known of pneumonias only), AUROC tells
    its positives from the negatives of the whole table.

    Args:
        table: N images, L labels, P patients.
        thresholds: Shape ``(L,)``; NaN where there is none.
        group: Some of the images.
    """
    metrics, size = counted(table, group), table.num_patients
    rows: dict[str, list[Influence]] = {name: [] for name in GROUP_METRICS}
    for label, threshold in enumerate(thresholds):
        targets, scores = table.targets[:, label], table.probabilities[:, label]
        kept = group.members | (metrics.borrows[label] & (targets == 0))
        rows["auroc"].append(auroc_influence(scores[kept], targets[kept], table.patients[kept], size))
        is_called, is_decided = scores >= threshold, group.members & ~np.isnan(threshold)
        for name, side, hits in (("sensitivity", 1, is_called), ("specificity", 0, ~is_called)):
            members = is_decided & (targets == side)
            rows[name].append(share_influence(hits, members, table.patients, size))
    return replace(metrics, metrics=rows)


def counted(table: PredictionTable, group: Group) -> GroupMetrics:
    """Return how many images and patients a group has; its metrics are undefined."""
    targets, patients = table.targets[group.members], table.patients[group.members]
    positives, negatives = targets == 1, targets == 0
    owners = [
        np.array([len(np.unique(patients[column])) for column in side.T], dtype=np.int64)
        for side in (positives, negatives)
    ]
    num_positives, num_negatives = positives.sum(axis=0), negatives.sum(axis=0)
    has_negatives = (table.targets == 0).any(axis=0)
    nothing = [Influence.undefined(table.num_patients)] * len(table.labels)
    return GroupMetrics(
        group=group,
        labels=table.labels,
        num_positives=num_positives,
        num_negatives=num_negatives,
        num_patients=len(np.unique(patients)),
        positive_patients=owners[0],
        negative_patients=owners[1],
        borrows=(num_positives > 0) & (num_negatives == 0) & has_negatives,
        metrics=dict.fromkeys(GROUP_METRICS, nothing),
        num_images=num_positives + num_negatives,
    )


def macro_labels(groups: Sequence[GroupMetrics], least: int) -> Mask:
    """Return the labels that the groups' macro means run over, shape ``(L,)``: the same for all of them.

    A mean over other labels would differ between groups for that reason alone. So a label counts where each
    group has enough patients with it, and without; a group that has less than half of the labels that the
    largest has (a handful of small children, say) has no mean, lest it take the labels from all others.

    Args:
        groups: Those that are compared.
        least: How many patients with positives, and with negatives, are enough.
    """
    if not groups:
        return np.zeros(0, dtype=bool)
    enough = np.stack([_fewest(group) >= least for group in groups])
    sizes = enough.sum(axis=1)
    return np.asarray(enough[2 * sizes >= sizes.max()].all(axis=0))


def with_macro(metrics: GroupMetrics, chosen: Mask, least: int) -> GroupMetrics:
    """Add the mean over the ``chosen`` labels, undefined unless the group has enough patients of each.

    Args:
        metrics: Of L labels.
        chosen: Of :func:`macro_labels`, shape ``(L,)``; labels without a threshold have no sensitivity and
            specificity in any group, and are left out of these means.
        least: How many patients with positives, and with negatives, are enough.
    """
    is_enough = chosen.any() and (_fewest(metrics)[chosen] >= least).all()
    num_patients = len(metrics.metrics["auroc"][0].of_patients)
    rows = {}
    for name, of_labels in metrics.metrics.items():
        parts = [part for part, is_chosen in zip(of_labels, chosen, strict=True) if is_chosen]
        defined = [part for part in parts if not np.isnan(part.value)] if is_enough else []
        rows[name] = [*of_labels, mean_influence(defined, num_patients)]
    size = int(metrics.group.members.sum())  # what there must be enough of is decided above
    return replace(
        metrics,
        labels=(*metrics.labels, MACRO),
        num_positives=np.append(metrics.num_positives, size),
        num_negatives=np.append(metrics.num_negatives, size),
        positive_patients=np.append(metrics.positive_patients, metrics.num_patients),
        negative_patients=np.append(metrics.negative_patients, metrics.num_patients),
        borrows=np.append(metrics.borrows, False),
        metrics=rows,
        num_images=np.append(metrics.num_images, size),
        macro_of=tuple(np.array(metrics.labels, dtype=object)[chosen]),
    )


def _fewest(metrics: GroupMetrics) -> Integers:
    return np.minimum(metrics.positive_patients, metrics.negative_patients)
