"""Differences between the groups of a covariate, all tested together, and what they say of equalised odds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cxrlab.evaluation.groups import GROUP_METRICS, GroupMetrics
from cxrlab.evaluation.results import EqualisedOdds, Gap, Outcome
from cxrlab.metrics.bootstrap import MACRO, holm
from cxrlab.metrics.influence import InfluenceDifference, influence_difference
from cxrlab.metrics.settings import EvaluationSettings

_ODDS = ("sensitivity", "specificity")


@dataclass(frozen=True)
class Side:
    """One of the two groups of a test.

    Attributes:
        group: Its name.
        value: Of the metric.
        images: Behind the value: positives of a sensitivity, negatives of a specificity.
        patients: Behind the value.
        text: All that in words.
    """

    group: str
    value: float
    images: int
    patients: int
    text: str


@dataclass(frozen=True)
class GroupTest:
    """The test of the difference of two groups in one metric of one label.

    Attributes:
        covariate: What the groups are by.
        metric: Of :data:`~cxrlab.evaluation.groups.GROUP_METRICS`.
        label: Or ``macro`` for the mean.
        sides: The two groups.
        test: The first minus the second.
    """

    covariate: str
    metric: str
    label: str
    sides: tuple[Side, Side]
    test: InfluenceDifference


def group_tests(
    covariate: str, groups: Sequence[GroupMetrics], settings: EvaluationSettings
) -> list[GroupTest]:
    """Test each pair of groups of a covariate in each metric of each label, the macro mean among them.

    A value is tested where ``settings.min_gap_patients`` patients are behind it: those with positives for
    sensitivity, with negatives for specificity, and for AUROC the fewer of both. Two AUROCs are compared
    where both are against negatives of their own group, or both against those of all.

    Args:
        covariate: Its name.
        groups: Those that can be compared.
        settings: With the least number of patients.
    """
    return [
        GroupTest(covariate, metric, label, (_side(first, metric, row), _side(second, metric, row)), test)
        for metric in GROUP_METRICS
        for first, second in combinations(groups, 2)
        for row, label in enumerate(first.labels)
        if _is_tested(first, second, metric, row, settings.min_gap_patients)
        for test in [influence_difference(first.metrics[metric][row], second.metrics[metric][row])]
    ]


def _is_tested(first: GroupMetrics, second: GroupMetrics, metric: str, row: int, least: int) -> bool:
    sides = (first.metrics[metric][row], second.metrics[metric][row])
    is_alike = metric != "auroc" or first.borrows[row] == second.borrows[row]
    return bool(is_alike) and all(side.units >= least and not np.isnan(side.value) for side in sides)


def _side(group: GroupMetrics, metric: str, row: int) -> Side:
    value, images = group.value(metric, row), group.behind(metric, row)
    size = f"{images:,} images"
    if group.labels[row] != MACRO:
        size = {
            "auroc": f"{int(group.num_positives[row]):,} positives in {size}",
            "sensitivity": f"{images:,} positives",
            "specificity": f"{images:,} negatives",
        }[metric]
    text = f"{group.group.name} {value:.3f} of {size}"
    return Side(group.group.name, value, images, group.metrics[metric][row].units, text)


def num_tested(tests: Iterable[GroupTest]) -> int:
    """Return how many tests have a p-value, which is how many the correction counts."""
    return sum(not np.isnan(test.test.p) for test in tests)


def largest_gaps(tests: Sequence[GroupTest], level: float) -> list[Gap]:
    """Return, for each covariate, metric and label, the largest gap between two groups.

    The largest of many gaps is large by chance alone. So the p-values of all tests, of every covariate,
    metric, label and pair of groups, are corrected together by Holm's method: where no group differs, a
    report shows a difference with a probability of at most 1 minus the level. The gap that is returned is the
    largest of those that are shown (corrected p below that), and where none is shown the largest of all.

    Args:
        tests: All that were made.
        level: Coverage of the intervals.
    """
    corrected = holm([test.test.p for test in tests])
    alike: dict[tuple[str, str, str], list[tuple[GroupTest, float]]] = {}
    for test, p in zip(tests, corrected, strict=True):
        alike.setdefault((test.covariate, test.metric, test.label), []).append((test, p))
    return [_largest(members, level) for members in alike.values()]


def _largest(tests: Sequence[tuple[GroupTest, float]], level: float) -> Gap:
    """Return the gap of one metric of one label, from tests with their corrected p."""
    alpha = _alpha(level)
    chosen, p = min(tests, key=lambda item: (not item[1] < alpha, -abs(item[0].test.difference)))
    is_outdone = any(abs(test.test.difference) > abs(chosen.test.difference) for test, _ in tests)
    outcome = _outcome(chosen.test.difference, p, alpha)
    first, second = chosen.sides
    return Gap(
        covariate=chosen.covariate,
        label=chosen.label,
        metric=chosen.metric,
        groups=(first.group, second.group),
        images=(first.images, second.images),
        patients=(first.patients, second.patients),
        difference=chosen.test.estimate(level),
        p=None if np.isnan(chosen.test.p) else chosen.test.p,
        p_holm=None if np.isnan(p) else p,
        outcome=outcome,
        description=_description(chosen, outcome, is_outdone=is_outdone),
    )


def _alpha(level: float) -> float:
    return round(1 - level, 12)  # 1 - 0.9 is a little less than 0.1


def _outcome(value: float, p: float, alpha: float) -> Outcome:
    if np.isnan(p):
        return "not_compared"
    if p < alpha:
        return "better" if value > 0 else "worse"
    return "unclear"


def _description(test: GroupTest, outcome: Outcome, *, is_outdone: bool) -> str:
    """Return the gap in words; ``is_outdone`` where larger ones between other groups are not shown."""
    conclusions = {"not_compared": "cannot be tested", "unclear": "no difference shown"}
    sides = " against ".join(side.text for side in test.sides)
    description = f"{sides}: {conclusions.get(outcome, 'a difference is shown')}"
    return description + ("; larger ones between other groups are not" if is_outdone else "")


def equalised_odds(tests: Sequence[GroupTest], gaps: Sequence[Gap], level: float) -> list[EqualisedOdds]:
    """Return, for each covariate, whether sensitivity and false-positive rate are alike in its groups.

    Both are those of the only label or of the macro mean. The intervals hold together: with the probability
    of the level all gaps of the covariate, between any two groups and in both rates, lie in theirs
    (Bonferroni), and so does the largest.

    Args:
        tests: All that were made.
        gaps: Of :func:`largest_gaps`.
        level: Coverage.

    References:
        Hardt et al., Equality of opportunity in supervised learning, NeurIPS 2016.
    """
    result = []
    for covariate in dict.fromkeys(test.covariate for test in tests):
        labels = {test.label for test in tests if test.covariate == covariate}
        label = MACRO if MACRO in labels else next(iter(labels))
        own = [
            test for test in tests
            if (test.covariate, test.label) == (covariate, label) and test.metric in _ODDS
        ]  # fmt: skip
        if (MACRO in labels or len(labels) == 1) and {test.metric for test in own} == set(_ODDS):
            shown = [
                gap for gap in gaps
                if gap.covariate == covariate and gap.metric in _ODDS and gap.outcome in ("better", "worse")
            ]  # fmt: skip
            result.append(_odds(own, shown, level))
    return result


def _odds(tests: Sequence[GroupTest], shown: Sequence[Gap], level: float) -> EqualisedOdds:
    """Return equalised odds from the tests of one label of a covariate, and the gaps that are shown."""
    together = 1 - (1 - level) / len(tests)
    largest = {
        metric: max(
            (test for test in tests if test.metric == metric), key=lambda test: abs(test.test.difference)
        )
        for metric in _ODDS
    }
    sensitivity, specificity = largest["sensitivity"], largest["specificity"]
    return EqualisedOdds(
        covariate=sensitivity.covariate,
        label=sensitivity.label,
        sensitivity=sensitivity.test.estimate(together),
        sensitivity_groups=_names(sensitivity),
        false_positive_rate=-specificity.test.estimate(together),
        false_positive_rate_groups=_names(specificity),
        is_difference_shown=bool(shown),
        shown=[(gap.label, gap.metric) for gap in shown],
    )


def _names(test: GroupTest) -> tuple[str, str]:
    return (test.sides[0].group, test.sides[1].group)
