"""Paired tests: what the difference of two models over the same images says, in numbers and in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t

from cxrlab.evaluation.results import Difference, NonInferiority, Outcome, PairedTests
from cxrlab.metrics.bootstrap import (
    ROUNDING,
    Counts,
    Estimate,
    estimate,
    holm,
    macro_mean,
    p_value,
    ratio,
    resampled,
)
from cxrlab.metrics.confusion import threshold_metrics
from cxrlab.metrics.delong import area_difference
from cxrlab.metrics.estimates import sums_by_patient
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.ranking import Ranking
from cxrlab.metrics.registry import METRICS

FURTHER = ("sensitivity", "specificity", "average_precision", "brier")
"""Metrics that are tested besides AUROC."""

Pair = tuple[str, str]
Macro = tuple[float, Floats]


@dataclass(frozen=True)
class MarginTest:
    """A difference against a margin, in both directions.

    Attributes:
        difference: The first model's value minus the second's.
        p: One-sided, of "the first is inferior by the margin or more"; NaN where nothing can be tested.
        p_reverse: The same of the second against the first.
    """

    difference: Estimate
    p: float
    p_reverse: float

    def __neg__(self) -> "MarginTest":
        """Return the test of the second model against the first."""
        return MarginTest(-self.difference, self.p_reverse, self.p)


@dataclass(frozen=True)
class Resampled:
    """A metric of L labels and of their resamples.

    Attributes:
        values: NaN where undefined, shape ``(L,)``.
        samples: Shape ``(L, B)``.
        patients: Patients behind each value, the fewest where there are two classes, shape ``(L,)``.
        averaged: Which labels the mean is of, shape ``(L,)``; None for all.
    """

    values: Floats
    samples: Floats
    patients: npt.NDArray[np.int64]
    averaged: npt.NDArray[np.bool_] | None = None

    def minus(self, other: "Resampled") -> "Resampled":
        """Return the differences from another model's."""
        return replace(self, values=self.values - other.values, samples=self.samples - other.samples)

    def macro(self) -> "Resampled":
        """Return the mean over the averaged labels that the whole sample defines, as one label."""
        value, samples = macro_mean(self.values, self.samples, self.averaged)
        defined = ~np.isnan(self.values)
        if self.averaged is not None:
            defined &= self.averaged
        fewest = self.patients[defined].min() if defined.any() else 0
        return Resampled(np.array([value]), samples[None], np.array([fewest]))


def further_metrics(
    table: PredictionTable,
    decisions: Floats | None,
    ranking: Ranking,
    counts: Counts,
    averaged: npt.NDArray[np.bool_] | None = None,
) -> dict[str, Resampled]:
    """Return the metrics ``FURTHER`` of one model.

    Args:
        table: Its predictions.
        decisions: 1, 0, or NaN where there is none, shape ``(N, L)``; None leaves sensitivity and specificity
            out.
        ranking: Of the table, on the same resamples.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        averaged: Which labels the mean is of, shape ``(L,)``; None for all.
    """
    present = table.targets == 1
    absent = table.targets == 0
    sides = (sums_by_patient(table, np.stack([present, absent])) > 0).sum(axis=2)
    fewest = sides.min(axis=0)
    targets = np.where(table.known, table.targets, 0.0)
    errors = np.where(table.known, (table.probabilities - targets) ** 2, 0.0)
    squares = sums_by_patient(table, np.stack([errors, table.known.astype(float)]))
    result = {
        "average_precision": Resampled(
            ranking.average_precision, ranking.average_precision_samples, fewest, averaged
        ),
        "brier": Resampled(ratio(*squares.sum(axis=2)), ratio(*resampled(squares, counts)), fewest, averaged),
    }
    if decisions is None:
        return result
    called, decided = decisions == 1, ~np.isnan(decisions)
    outcomes = np.stack([called & present, called & absent, ~called & absent, ~called & present]) & decided
    sums = sums_by_patient(table, outcomes)
    values, samples = threshold_metrics(*sums.sum(axis=2)), threshold_metrics(*resampled(sums, counts))
    behind = {"sensitivity": sums[0] + sums[3], "specificity": sums[1] + sums[2]}
    return {
        name: Resampled(values[name], samples[name], (images > 0).sum(axis=1), averaged)
        for name, images in behind.items()
    } | result


def further_tests(
    pairs: Sequence[Pair],
    num_shown: int,
    metrics: Mapping[str, Mapping[str, Resampled]],
    labels: Sequence[str],
    level: float,
) -> tuple[list[dict[str, PairedTests]], tuple[int, int]]:
    """Return the paired tests of the metrics ``FURTHER`` for each pair.

    The standard error is that of the paired patient bootstrap; test and interval are Student's t with one
    degree of freedom less than there are patients behind the rarer side. Holm's correction runs over all
    metrics and pairs for the means, and over all metrics and labels of a pair for the labels.

    Args:
        pairs: Of models; the first minus the second.
        num_shown: Pairs, the first ones, that are returned; the correction counts all.
        metrics: By the name of the model, then of the metric.
        labels: L names.
        level: Coverage.

    Returns:
        By the name of the metric for each pair; and how many tests of means, and of labels of the first pair,
        are corrected together.
    """
    differences = [
        {name: metric.minus(metrics[second][name]) for name, metric in metrics[first].items()}
        for first, second in pairs
    ]
    means = _tested(
        [(pair, name, metric.macro()) for pair, by_name in zip(pairs, differences, strict=True)
         for name, metric in by_name.items()], level
    )  # fmt: skip
    names = list(differences[0])
    result, num_label_tests = [], 0
    for row in range(num_shown):
        tests = _tested([(pairs[row], name, metric) for name, metric in differences[row].items()], level)
        if row == 0:
            num_label_tests = sum(test.p is not None for test in tests)
        result.append(
            {
                name: PairedTests(
                    macro=means[row * len(names) + place],
                    labels=dict(
                        zip(labels, tests[place * len(labels) : (place + 1) * len(labels)], strict=True)
                    ),
                )
                for place, name in enumerate(names)
            }
        )
    return result, (sum(test.p is not None for test in means), num_label_tests)


def _tested(family: Sequence[tuple[Pair, str, Resampled]], level: float) -> list[Difference]:
    """Return the tests of one family, each label of each metric in turn."""
    rows: list[tuple[Pair, str, Estimate, float]] = []
    for pair, name, metric in family:
        for value, samples, patients in zip(metric.values, metric.samples, metric.patients, strict=True):
            rows.append((pair, name, *_student(float(value), samples, int(patients), level)))
    corrected = holm([p for *_, p in rows])
    return [
        difference_of(pair, value, p, p_holm, level, higher_is_better=METRICS[name].higher_is_better)
        for (pair, name, value, p), p_holm in zip(rows, corrected, strict=True)
    ]


def _student(value: float, samples: Floats, patients: int, level: float) -> tuple[Estimate, float]:
    """Return a difference with its interval and p-value, by Student's t and the spread of the resamples."""
    drawn = samples[~np.isnan(samples)]
    if np.isnan(value):
        return Estimate(None), float("nan")
    if patients < 2 or len(drawn) < 2:
        return Estimate(value), float("nan")
    deviation = float(drawn.std(ddof=1))
    if deviation < ROUNDING:
        return Estimate(value), 1.0 if abs(value) < ROUNDING else float("nan")
    reach = float(t.ppf((1 + level) / 2, patients - 1)) * deviation
    p = 2 * float(t.sf(abs(value) / deviation, patients - 1))
    return Estimate(value, max(-1.0, value - reach), min(1.0, value + reach)), p


def bootstrapped_differences(
    pairs: Sequence[Pair],
    macros: Mapping[str, Macro],
    level: float,
    *,
    patients: int,
    higher_is_better: bool = True,
) -> list[Difference]:
    """Return the paired test of a macro mean for each pair, corrected for all of them.

    Args:
        pairs: Of models; the first minus the second.
        macros: Value and resamples by the name of the model.
        level: Coverage.
        patients: Behind the label with the fewest, in its rarer class.
        higher_is_better: Of the metric.
    """
    values = [macros[first][0] - macros[second][0] for first, second in pairs]
    drawn = [macros[first][1] - macros[second][1] for first, second in pairs]
    raw = [_bootstrap_p(value, samples, patients) for value, samples in zip(values, drawn, strict=True)]
    return [
        difference_of(
            pair, estimate(value, samples, level), p, p_holm, level, higher_is_better=higher_is_better
        )
        for pair, value, samples, p, p_holm in zip(pairs, values, drawn, raw, holm(raw), strict=True)
    ]


def _bootstrap_p(value: float, samples: Floats, patients: int) -> float:
    """Return the p-value of a bootstrapped difference.

    B resamples tell none below 2 / (B + 1), which Holm's correction over many pairs would turn into no
    difference at all, whatever the models. Down there Student's t of the same spread tells it.
    """
    drawn = samples[~np.isnan(samples)]
    p = p_value(drawn)
    if not len(drawn) or p > 2 / (len(drawn) + 1) or np.ptp(drawn) < ROUNDING:
        return p
    return min(p, 2 * float(t.sf(abs(value) / drawn.std(), max(patients - 1, 1))))


def not_inferior(
    pairs: Sequence[Pair], tests: Sequence[MarginTest], margin: float, level: float
) -> list[tuple[NonInferiority, NonInferiority]]:
    """Return of each pair whether the first is shown not to be inferior to the second, and the reverse.

    All tests are one family for Holm's correction, both directions of each pair.

    Args:
        pairs: Two models for each test.
        tests: Of the first against the second.
        margin: How much worse still counts as not inferior.
        level: Coverage of the intervals; the tests are one-sided at half of what it leaves.
    """
    both = [test for one in tests for test in (one, -one)]
    names = [models for pair in pairs for models in (pair, pair[::-1])]
    corrected = holm([test.p for test in both])
    alpha = (1 - level) / 2
    rows = []
    for models, test, p_holm in zip(names, both, corrected, strict=True):
        is_shown = bool(p_holm < alpha)  # False for NaN
        rows.append(
            NonInferiority(
                models=models,
                margin=margin,
                one_sided_level=round(alpha, 6),
                difference=test.difference,
                p=None if np.isnan(test.p) else test.p,
                p_holm=None if np.isnan(p_holm) else p_holm,
                is_shown=is_shown,
                description=_describe_margin(test, margin, is_shown=is_shown),
            )
        )
    return list(zip(rows[::2], rows[1::2], strict=True))


def _describe_margin(test: MarginTest, margin: float, *, is_shown: bool) -> str:
    low = test.difference.low
    if low is None:
        return "cannot be tested: too little varies, or one class only"
    end = f"lower end {_signed(low)}"
    if is_shown:
        return f"not inferior by more than {margin:g} ({end})"
    corrected = " after correction for several tests" if low > -margin else ""
    return f"not shown{corrected} ({end})"


def bootstrap_margin_test(
    value: float, samples: Floats, margin: float, patients: int, level: float
) -> MarginTest:
    """Return the test of a mean's difference against a margin, on paired resamples.

    The p-value is the level at which the lower end of the percentile interval reaches the margin; below what
    the resamples tell, Student's t of their spread tells it.
    """
    drawn = samples[~np.isnan(samples)]
    if np.isnan(value) or not len(drawn) or np.ptp(drawn) < ROUNDING:
        return MarginTest(estimate(value, samples, level), float("nan"), float("nan"))
    deviation = float(drawn.std(ddof=1))
    p_values = []
    for sign in (1, -1):
        p = (int((sign * drawn <= -margin).sum()) + 1) / (len(drawn) + 1)
        if p <= 1 / (len(drawn) + 1):
            p = min(p, float(t.sf((sign * value + margin) / deviation, max(patients - 1, 1))))
        p_values.append(p)
    return MarginTest(estimate(value, samples, level), *p_values)


def area_margin_test(
    aurocs: Floats, covariance: Floats, rows: tuple[int, int], margin: float, level: float
) -> MarginTest:
    """Return the test of a difference of two AUROC against a margin, by DeLong's standard error.

    Args:
        aurocs: Of K models, as :func:`cxrlab.metrics.delong.delong` gives them.
        covariance: Shape ``(K, K)``.
        rows: Of the two models.
        margin: How much worse still counts as not inferior.
        level: Coverage.
    """
    first, second = rows
    test = area_difference(aurocs, covariance, first, second, level)
    if test.difference.value is None or test.difference.low is None:
        return MarginTest(test.difference, float("nan"), float("nan"))
    variance = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
    p_values = [
        float(norm.sf((sign * test.difference.value + margin) / float(variance) ** 0.5)) for sign in (1, -1)
    ]
    return MarginTest(test.difference, *p_values)


def outcome(difference: Estimate, p_holm: float, level: float, *, higher_is_better: bool = True) -> Outcome:
    """Return what a difference says of the first model; it is shown where ``p_holm`` is below 1 - level."""
    if difference.value is None or np.isnan(p_holm):
        return "not_compared"
    if p_holm + level < 1:
        return "worse" if (difference.value < 0) == higher_is_better else "better"
    return "unclear"


def describe(models: Pair, difference: Estimate, result: Outcome, *, higher_is_better: bool = True) -> str:
    r"""Return what a difference says, in words.

    Args:
        models: Whose difference it is: the first minus the second.
        difference: With its interval.
        result: Of :func:`outcome`.
        higher_is_better: Of the metric.

    Example:
        >>> describe(("a", "b"), Estimate(-0.021, -0.032, -0.010), "worse")
        'b is better by 0.021 (0.010 to 0.032)'
        >>> print(ascii(describe(("a", "b"), Estimate(0.004, -0.010, 0.018), "unclear")))
        'no difference shown: 0.004 (\u22120.010 to 0.018)'
    """
    if result == "worse":
        return describe((models[1], models[0]), -difference, "better", higher_is_better=higher_is_better)
    if result == "better" and not higher_is_better:
        difference = -difference
    value, low, high = difference.value, difference.low, difference.high
    if value is None:
        return "cannot be compared: one class only"
    amount = _signed(value)
    is_apart = False
    if low is not None and high is not None:
        amount += f" ({_signed(low)} to {_signed(high)})"
        is_apart = low * high > 0
    if result == "not_compared":
        return f"cannot be tested: {amount}, too little varies"
    if result == "better":
        return f"{models[0]} is better by {amount}"
    corrected = " after correction for several tests" if is_apart else ""
    return f"no difference shown{corrected}: {amount}"


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}".replace("-", "\u2212")  # a true minus, and never before 0.000


def difference_of(
    pair: Pair,
    difference: Estimate,
    p: float,
    p_holm: float,
    level: float,
    *,
    higher_is_better: bool = True,
) -> Difference:
    """Return a tested difference, with its words."""
    result = outcome(difference, p_holm, level, higher_is_better=higher_is_better)
    return Difference(
        difference=difference,
        p=None if np.isnan(p) else p,
        p_holm=None if np.isnan(p_holm) else p_holm,
        outcome=result,
        description=describe(pair, difference, result, higher_is_better=higher_is_better),
    )
