"""The largest difference between the groups of a covariate, tested on the same resamples of the patients."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import norm

from cxrlab.evaluation.comparison import holm
from cxrlab.evaluation.groups import MACRO, METRICS, GroupMetrics
from cxrlab.metrics.bootstrap import estimate, p_value
from cxrlab.metrics.settings import EvaluationSettings

Gap = dict[str, Any]


@dataclass(frozen=True)
class _Tested:
    """The difference of two groups in one metric of one label."""

    groups: tuple[GroupMetrics, GroupMetrics]
    label: int
    difference: dict[str, Any]
    p: float


def largest_gaps(covariate: str, groups: Sequence[GroupMetrics], settings: EvaluationSettings) -> list[Gap]:
    """Return, for each label and metric, the largest gap between two groups.

    A gap counts where both groups have ``settings.min_positives`` positives (for AUROC and sensitivity) and
    negatives (for AUROC and specificity). Patients with images in both groups are drawn for both together. As
    the largest of many gaps is large by chance alone, the p-values of all pairs of groups are corrected
    together by Holm's method: of the macro mean by themselves, of the labels with those of all other labels.
    The gap that is returned is the largest of those that are shown (corrected p below 1 minus the level), and
    where none is shown the largest of all.

    Args:
        covariate: Its name.
        groups: Those that can be compared.
        settings: With the level, and the least number of positives.

    Returns:
        Dicts with ``covariate, label, metric, groups, images, difference, p, p_holm, words``; the difference
        is the first group's value minus the second's.
    """
    gaps = []
    for row in range(len(METRICS)):
        tested = [
            _test(pair, row, label, settings.level)
            for pair in combinations(groups, 2)
            for label in _comparable(pair, row, settings.min_positives)
        ]
        for is_macro in (True, False):
            members = [one for one in tested if (one.groups[0].labels[one.label] == MACRO) == is_macro]
            gaps += _largest(covariate, row, members, 1 - settings.level)
    return gaps


def _comparable(pair: tuple[GroupMetrics, GroupMetrics], row: int, least: int) -> list[int]:
    """Return the labels with enough images in both groups, and with negatives of one kind for AUROC."""
    first, second = pair
    chosen = first.is_supported(least)[row] & second.is_supported(least)[row]
    if METRICS[row] == "auroc":
        chosen &= first.borrows == second.borrows
    return [int(label) for label in np.flatnonzero(chosen)]


def _test(pair: tuple[GroupMetrics, GroupMetrics], row: int, label: int, level: float) -> _Tested:
    """Test one difference.

    The bootstrap's p-value ends at 2 / (B + 1), which no correction for many pairs would leave small. Where
    not one resample reaches 0, the normal distribution with the resamples' variance goes on. A group in which
    nothing varied (all positives found) gets the variance of Wilson's interval, as it is not certain either.
    """
    values = [one.values[row, label] for one in pair]
    samples = pair[0].samples[row, label] - pair[1].samples[row, label]
    value = float(values[0] - values[1])
    unseen = sum(_unseen_variance(one, row, label, level) for one in pair)
    with np.errstate(invalid="ignore"):
        error = float(np.sqrt(np.nanvar(samples) + unseen)) if np.isfinite(samples).sum() > 1 else np.nan
    if not error > 0:
        none = estimate(value, [], level)
        return _Tested(pair, label, none, float("nan"))
    tail = float(2 * norm.sf(abs(value) / error))
    if unseen:
        half = float(norm.ppf((1 + level) / 2)) * error
        bounds = {"value": value, "low": max(-1.0, value - half), "high": min(1.0, value + half)}
        return _Tested(pair, label, bounds, tail)
    p, least = p_value(samples), 2 / (np.isfinite(samples).sum() + 1)
    return _Tested(pair, label, estimate(value, samples, level), min(p, tail) if p <= least else p)


def _unseen_variance(group: GroupMetrics, row: int, label: int, level: float) -> float:
    """Return the variance of a value that never varied; 0 where it did, NaN where none can be given."""
    samples = group.samples[row, label]
    if np.nanmax(samples, initial=-np.inf) - np.nanmin(samples, initial=np.inf) > 1e-12:
        return 0.0
    units = int(group.units[row, label])
    bounds = estimate(float(group.values[row, label]), samples, level, units=units)
    if bounds["low"] is None:
        return float("nan")
    return float((bounds["high"] - bounds["low"]) / norm.ppf((1 + level) / 2)) ** 2


def _largest(covariate: str, row: int, tested: Sequence[_Tested], alpha: float) -> list[Gap]:
    """Return one gap for each label."""
    corrected = holm([one.p for one in tested])
    gaps = []
    for label in dict.fromkeys(one.label for one in tested):
        ranked = sorted(
            ((one, p) for one, p in zip(tested, corrected, strict=True) if one.label == label),
            key=lambda item: (not item[1] < alpha, -_size(item[0])),
        )
        gap = _gap(covariate, row, *ranked[0], alpha)
        if any(_size(one) > _size(ranked[0][0]) for one, _ in ranked):
            gap["words"] += "; larger ones between other groups are not"
        gaps.append(gap)
    return gaps


def _gap(covariate: str, row: int, tested: _Tested, p: float, alpha: float) -> Gap:
    groups, label = tested.groups, tested.label
    return {
        "covariate": covariate,
        "label": groups[0].labels[label],
        "metric": METRICS[row],
        "groups": [one.group.name for one in groups],
        "images": [int(one.num_images[label]) for one in groups],
        "difference": tested.difference,
        "p": _number(tested.p),
        "p_holm": _number(p),
        "words": _words(tested, row, p, alpha),
    }


def _size(tested: _Tested) -> float:
    return abs(float(tested.difference["value"]))


def _words(tested: _Tested, row: int, p: float, alpha: float) -> str:
    told = [
        f"{one.group.name} {one.values[row, tested.label]:.3f} ({int(one.num_images[tested.label]):,} images)"
        for one in tested.groups
    ]
    verdict = "a difference is shown" if p < alpha else "no difference shown"
    return f"{' against '.join(told)}: {'cannot be tested' if np.isnan(p) else verdict}"


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
