"""The largest difference between the groups of a covariate, tested on the same resamples of the patients."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import norm

from cxrlab.evaluation.groups import GROUP_METRICS, GroupMetrics
from cxrlab.evaluation.results import Gap, Outcome
from cxrlab.metrics.bootstrap import MACRO, ROUNDING, Estimate, estimate, holm, p_value
from cxrlab.metrics.settings import EvaluationSettings


@dataclass(frozen=True)
class _Tested:
    """The difference of two groups in one metric of one label; ``value`` is that of ``difference``."""

    groups: tuple[GroupMetrics, GroupMetrics]
    label: int
    value: float
    difference: Estimate
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
    """
    gaps = []
    for row in range(len(GROUP_METRICS)):
        tested = [
            _test(pair, row, label, settings.level)
            for pair in combinations(groups, 2)
            for label in _comparable(pair, row, settings.min_positives)
        ]
        for is_macro in (True, False):
            members = [gap for gap in tested if (gap.groups[0].labels[gap.label] == MACRO) == is_macro]
            gaps += _largest(covariate, row, members, 1 - settings.level)
    return gaps


def _comparable(pair: tuple[GroupMetrics, GroupMetrics], row: int, least: int) -> list[int]:
    """Return the labels with enough images in both groups, and with negatives of one kind for AUROC."""
    first, second = pair
    chosen = first.is_supported(least)[row] & second.is_supported(least)[row]
    if GROUP_METRICS[row] == "auroc":
        chosen &= first.borrows == second.borrows
    return [int(label) for label in np.flatnonzero(chosen)]


def _test(pair: tuple[GroupMetrics, GroupMetrics], row: int, label: int, level: float) -> _Tested:
    """Test one difference.

    The bootstrap's p-value ends at 2 / (B + 1), which no correction for many pairs would leave small. Where
    not one resample reaches 0, the normal distribution with the resamples' variance goes on. A group in which
    nothing varied (all positives found) gets the variance of Wilson's interval, as it is not certain either.
    """
    first, second = pair
    samples = first.samples[row, label] - second.samples[row, label]
    value = float(first.values[row, label] - second.values[row, label])
    unseen = sum(_unseen_variance(group, row, label, level) for group in pair)
    with np.errstate(invalid="ignore"):
        error = float(np.sqrt(np.nanvar(samples) + unseen)) if np.isfinite(samples).sum() > 1 else np.nan
    if not error > 0:
        return _Tested(pair, label, value, estimate(value, [], level), float("nan"))
    tail = float(2 * norm.sf(abs(value) / error))
    if unseen:
        half = float(norm.ppf((1 + level) / 2)) * error
        interval = Estimate(value, max(-1.0, value - half), min(1.0, value + half))
        return _Tested(pair, label, value, interval, tail)
    p, least = p_value(samples), 2 / (np.isfinite(samples).sum() + 1)
    p = min(p, tail) if p <= least else p
    return _Tested(pair, label, value, estimate(value, samples, level), p)


def _unseen_variance(group: GroupMetrics, row: int, label: int, level: float) -> float:
    """Return the variance of a value that never varied; 0 where it did, NaN where none can be given."""
    samples = group.samples[row, label]
    if np.nanmax(samples, initial=-np.inf) - np.nanmin(samples, initial=np.inf) > ROUNDING:
        return 0.0
    units = int(group.units[row, label])
    interval = estimate(float(group.values[row, label]), samples, level, units=units)
    if interval.low is None or interval.high is None:
        return float("nan")
    return float((interval.high - interval.low) / norm.ppf((1 + level) / 2)) ** 2


def _largest(covariate: str, row: int, tested: Sequence[_Tested], alpha: float) -> list[Gap]:
    """Return one gap for each label."""
    corrected = holm([gap.p for gap in tested])
    gaps = []
    for label in dict.fromkeys(gap.label for gap in tested):
        ranked = sorted(
            ((gap, p) for gap, p in zip(tested, corrected, strict=True) if gap.label == label),
            key=lambda item: (not item[1] < alpha, -abs(item[0].value)),
        )
        chosen, p = ranked[0]
        is_outdone = any(abs(gap.value) > abs(chosen.value) for gap, _ in ranked)
        gaps.append(_gap(covariate, row, chosen, p, alpha, is_outdone=is_outdone))
    return gaps


def _gap(covariate: str, row: int, tested: _Tested, p: float, alpha: float, *, is_outdone: bool) -> Gap:
    """Return the gap; ``is_outdone`` where larger ones between other groups are not shown."""
    (first, second), label = tested.groups, tested.label
    outcome = _outcome(tested.value, p, alpha)
    return Gap(
        covariate=covariate,
        label=first.labels[label],
        metric=GROUP_METRICS[row],
        groups=(first.group.name, second.group.name),
        images=(int(first.num_images[label]), int(second.num_images[label])),
        difference=tested.difference,
        p=None if np.isnan(tested.p) else float(tested.p),
        p_holm=None if np.isnan(p) else float(p),
        outcome=outcome,
        description=_description(tested, row, outcome, is_outdone),
    )


def _outcome(value: float, p: float, alpha: float) -> Outcome:
    if np.isnan(p):
        return "not_compared"
    if p < alpha:
        return "better" if value > 0 else "worse"
    return "unclear"


def _description(tested: _Tested, row: int, outcome: Outcome, is_outdone: bool) -> str:
    values = [
        f"{group.group.name} {group.values[row, tested.label]:.3f} "
        f"({int(group.num_images[tested.label]):,} images)"
        for group in tested.groups
    ]
    conclusions = {"not_compared": "cannot be tested", "unclear": "no difference shown"}
    description = f"{' against '.join(values)}: {conclusions.get(outcome, 'a difference is shown')}"
    return description + ("; larger ones between other groups are not" if is_outdone else "")
