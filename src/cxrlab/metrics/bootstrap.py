"""The patient bootstrap: how often each patient is drawn, and intervals of what is computed from it.

Sums over the images of each patient, times how often each was drawn, make a bootstrap one matrix product.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.stats import norm

from cxrlab.metrics.predictions import Floats

Counts = npt.NDArray[np.float32]
Names = npt.NDArray[np.object_]

MACRO = "macro"
"""The mean over groups, or labels, each of which counts alike."""

_PATIENTS_COUNT = 2
"""Images with the rarer outcome that the number of patients is worth in a proportion's effective size."""

ROUNDING = 1e-12
"""What varies by less does not vary."""


def patient_counts(num_patients: int, num_resamples: int, seed: int) -> Counts:
    """Return how often each patient stands in each resample, shape ``(P, B)``; every column sums to P.

    All images of a patient are drawn together, since they resemble one another: intervals from images drawn
    one by one are too narrow (Field and Welsh, J R Stat Soc B 69:369, 2007). A float32 holds the counts, and
    sums of them below 2**24, exactly, and matrix products with it are fast.
    """
    generator = np.random.default_rng(seed)
    counts = np.empty((num_resamples, num_patients), dtype=np.float32)
    for row in counts:
        row[:] = np.bincount(generator.integers(num_patients, size=num_patients), minlength=num_patients)
    return np.ascontiguousarray(counts.T)


@dataclass(frozen=True)
class Estimate:
    """A metric with its interval; None for what is undefined.

    Attributes:
        value: Of the whole sample.
        low: Lower end of the interval; None where no interval can be given, or no value.
        high: Upper end.
    """

    value: float | None
    low: float | None = None
    high: float | None = None

    def __neg__(self) -> "Estimate":
        """Return the estimate of the negative, such as b - a from a - b."""
        value, low, high = (None if end is None else -end for end in (self.value, self.low, self.high))
        return Estimate(value, high, low)


def estimate(
    value: float, samples: npt.ArrayLike, level: float, *, units: int = 0, signed: bool = False
) -> Estimate:
    """Return a metric with the bootstrap's percentile interval; None for the undefined.

    Resamples in which the metric is undefined (NaN) are left out. Where all others agree, nothing was seen to
    vary, which does not mean that nothing does: a proportion of 0 or 1 then gets Wilson's interval (JASA
    22:209, 1927) of ``units`` trials, and anything else none.

    Args:
        value: The metric of the whole sample.
        samples: The metric of each resample, shape ``(B,)``.
        level: Coverage, such as 0.95.
        units: Independent units behind a proportion, that is patients; 0 where the metric is no proportion.
        signed: Whether it is a difference of proportions, so that -1 is an end of its range as 1 is.
    """
    drawn = np.asarray(samples, dtype=np.float64)
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value):
        return Estimate(None)
    if signed and value < 0:
        return -estimate(-value, -drawn, level, units=units, signed=True)
    if len(drawn) and np.ptp(drawn) > ROUNDING:
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        return Estimate(float(value), float(low), float(high))
    if units and value in (0.0, 1.0):
        low, high = wilson(value, units, level)
        if signed and np.ptp(np.append(drawn, value)) <= ROUNDING:
            # A difference may have either sign: from -1 to 1 there is twice as far to go as from 0 to 1.
            low = -high if value == 0 else 2 * low - 1
        return Estimate(float(value), low, high)
    return Estimate(float(value))


def proportion(value: float, samples: npt.ArrayLike, level: float, *, units: int, trials: int) -> Estimate:
    """Return a proportion with Wilson's interval of as many independent images as its resamples show.

    How far the resamples spread tells how many independent images the sample is worth (its effective size).
    The few patients with the rarer outcome tell it badly; where there is none, not at all: each patient then
    counts as one. So the effective size moves towards the number of patients the fewer there are, and
    the interval of 59 of 60 is not far from that of 60 of 60.

    Args:
        value: Of the whole sample; NaN where undefined.
        samples: Of each resample of the patients, shape ``(B,)``; NaN where undefined.
        level: Coverage, such as 0.95.
        units: Patients behind the proportion.
        trials: Images behind it.

    References:
        Wilson, JASA 22:209, 1927; effective size: Korn and Graubard, Survey Methodology 24:193, 1998.

    Example:
        >>> drawn = np.random.default_rng(0).binomial(60, 59 / 60, 1000) / 60
        >>> near = proportion(59 / 60, drawn, 0.95, units=60, trials=60)
        >>> round(near.low, 2), round(near.high, 2)
        (0.91, 1.0)
    """
    if np.isnan(value):
        return Estimate(None)
    low, high = wilson(value, _effective_size(value, samples, units, trials), level)
    return Estimate(float(value), min(low, float(value)), max(high, float(value)))


def _effective_size(value: float, samples: npt.ArrayLike, units: int, trials: int) -> float:
    drawn = np.asarray(samples, dtype=np.float64)
    drawn = drawn[~np.isnan(drawn)]
    spread = value * (1 - value)
    if units < 2 or len(drawn) < 2 or spread <= ROUNDING:
        return float(units)
    variance = float(drawn.var()) * units / (units - 1)
    size = min(spread / variance, float(trials)) if variance > ROUNDING * spread else float(trials)
    rarer = min(value, 1 - value) * size  # independent images with the rarer outcome
    return (rarer * size + _PATIENTS_COUNT * units) / (rarer + _PATIENTS_COUNT)


def wilson(value: float, number: float, level: float) -> tuple[float, float]:
    """Return Wilson's interval of a proportion of so many independent trials.

    Example:
        >>> [round(end, 3) for end in wilson(1.0, 10, 0.95)]
        [0.722, 1.0]
    """
    z2 = float(norm.ppf((1 + level) / 2)) ** 2
    middle, scale = (number * value + z2 / 2) / (number + z2), number / (number + z2)
    half = scale * float(np.sqrt(z2 * (value * (1 - value) / number + z2 / (4 * number**2))))
    low, high = 0.0 if value == 0 else middle - half, 1.0 if value == 1 else middle + half
    return max(low, 0.0), min(high, 1.0)


def known_mean(values: Floats) -> Floats:
    """Return the mean over the first axis of what is not NaN; NaN where nothing is left.

    Example:
        >>> known_mean(np.array([[1.0, np.nan], [3.0, np.nan]]))
        array([ 2., nan])
    """
    is_known = ~np.isnan(values)
    return ratio(np.where(is_known, values, 0.0).sum(axis=0), is_known.sum(axis=0))


def macro_mean(
    values: Floats,
    samples: Floats,
    averaged: npt.NDArray[np.bool_] | None = None,
    *,
    complete: bool = False,
) -> tuple[float, Floats]:
    """Return the mean over the labels that the whole sample defines, of it and of each resample.

    All are means of the same labels. A resample that leaves one undefined, since none of its positives was
    drawn, has the value of the whole sample there; its mean would else be one of other labels, and differ for
    that reason alone.

    Args:
        values: Of each label, NaN where undefined, shape ``(L,)``.
        samples: The same of each resample, shape ``(L, B)``.
        averaged: Which labels the mean is of, shape ``(L,)``; None for all.
        complete: Whether a resample that does not define all of these labels has no mean.

    Returns:
        The mean, NaN where no label is defined; and those of the resamples, shape ``(B,)``.
    """
    defined = ~np.isnan(values) if averaged is None else ~np.isnan(values) & averaged
    chosen = samples[defined]
    undefined = np.isnan(chosen)
    means = known_mean(np.where(undefined, values[defined][:, None], chosen))
    if complete:
        means[undefined.any(axis=0)] = np.nan
    return float(known_mean(values[defined])), means


def p_value(differences: npt.ArrayLike) -> float:
    """Return the two-sided p-value of "no difference" from bootstrapped differences; NaN for none.

    It is the level at which the percentile interval begins to leave 0 out, never below 2 / (B + 1).
    """
    drawn = np.asarray(differences, dtype=np.float64)
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return float("nan")
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return float(min(1.0, 2 * (tail + 1) / (len(drawn) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number: one false finding among them all stays as rare as one.

    Args:
        p_values: NaN where there was no test; it stays NaN and does not count.

    References:
        Holm, Scandinavian Journal of Statistics 6:65, 1979.

    Example:
        >>> holm([0.01, 0.04, float("nan"), 0.03, 0.005])
        [0.03, 0.06, nan, 0.06, 0.02]
    """
    adjusted = np.array(p_values, dtype=np.float64)
    order = np.argsort(adjusted)[: np.count_nonzero(~np.isnan(adjusted))]  # NaN is sorted last
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(adjusted[order] * factors))
    return [float(p) for p in adjusted]


def patient_sums(values: npt.ArrayLike, patients: npt.NDArray[np.int64], num_patients: int) -> Floats:
    """Return the sum of each column over the images of each patient.

    Args:
        values: Shape ``(N, K)``.
        patients: Number of each image's patient, shape ``(N,)``.
        num_patients: P.

    Returns:
        Shape ``(K, P)``; 0 for a patient without images.

    Example:
        >>> patient_sums([[1.0, 5.0], [2.0, 6.0], [4.0, 7.0]], np.array([0, 0, 1]), 2)
        array([[ 3.,  4.],
               [11.,  7.]])
    """
    columns = np.asarray(values, dtype=np.float64)
    images = np.arange(len(columns))
    belongs = csr_array((np.ones(len(columns)), (patients, images)), shape=(num_patients, len(columns)))
    return np.asarray(belongs @ columns, dtype=np.float64).T


def resampled(sums: Floats, counts: Counts) -> Floats:
    """Return sums over the images of each resample, in which patients stand as often as they were drawn.

    The product runs in float32: sums of whole numbers below 2**24 are exact, others to about six digits.

    Args:
        sums: Over the images of each patient, shape ``(..., P)``.
        counts: How often each patient stands in each resample, shape ``(P, B)``.

    Returns:
        Shape ``(..., B)``.
    """
    flat = sums.reshape(-1, sums.shape[-1]).astype(np.float32)
    return (flat @ counts).astype(np.float64).reshape(*sums.shape[:-1], counts.shape[1])


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Floats:
    """Divide; NaN where the denominator is 0 or undefined.

    Args:
        numerator: Any shape.
        denominator: At least 0; a shape that broadcasts with it.

    Example:
        >>> ratio([1, 0], [2, 0])
        array([0.5, nan])
    """
    tops, bottoms = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    result: Floats = np.full(tops.shape, np.nan)
    np.divide(tops, bottoms, out=result, where=bottoms > 0)
    return result


@dataclass(frozen=True)
class CaseBootstrap:
    """How the patients of P cases are resampled.

    Attributes:
        patients: Number of each case's patient, shape ``(P,)``.
        counts: How often each patient stands in each resample.
        level: Coverage of the intervals.
    """

    patients: npt.NDArray[np.int64]
    counts: Counts
    level: float

    @classmethod
    def of(
        cls, patients: Names | Sequence[str], *, num_resamples: int, level: float, seed: int
    ) -> "CaseBootstrap":
        """Draw the resamples of the patients of some cases."""
        names, numbers = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
        return cls(numbers, patient_counts(len(names), num_resamples, seed), level)

    def by_group(self, values: Floats, groups: Names, *, signed: bool = False) -> dict[str, list[Estimate]]:
        """Return the mean of each column by group, and the mean over the groups as ``MACRO``.

        In a resample without a case of some group the mean is that of the other groups. To ask for all would
        leave a group of a single patient the same in each resample, and the interval far too narrow.

        Args:
            values: Shares, or differences of shares, shape ``(P, K)``; what is NaN is left out.
            groups: Of each case, such as its finding.
            signed: Whether the values are differences.
        """
        names = list(dict.fromkeys(groups.tolist()))
        chosen = [np.flatnonzero(groups == name) for name in names]
        means = [self._mean(values[cases], cases) for cases in chosen]
        rows = [self._estimates(*mean, cases, signed) for mean, cases in zip(means, chosen, strict=True)]
        value, samples = (known_mean(np.array(parts)) for parts in zip(*means, strict=True))
        macro = self._estimates(value, samples, np.arange(len(groups)), signed)
        return dict(zip(names, rows, strict=True)) | {MACRO: macro}

    def mean(
        self, values: Floats, chosen: npt.NDArray[np.int64] | None = None, *, signed: bool = False
    ) -> list[Estimate]:
        """Return the mean of each column of values ``(P, K)`` over all cases, or some."""
        cases = np.arange(len(values)) if chosen is None else chosen
        return self._estimates(*self._mean(values[cases], cases), cases, signed)

    def num_patients(self, chosen: npt.NDArray[np.int64]) -> int:
        """Return how many patients some cases are of."""
        return len(np.unique(self.patients[chosen]))

    def _mean(self, values: Floats, cases: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return the mean of each column, ``(K,)``, and those of the resamples, ``(K, B)``."""
        is_defined = ~np.isnan(values)
        stacked = np.concatenate([np.where(is_defined, values, 0.0), is_defined.astype(float)], axis=1)
        sums = patient_sums(stacked, self.patients[cases], len(self.counts))
        total, counts = np.split(sums, 2)
        # In float64, or rounding would look like a spread where nothing varies.
        samples = ratio(*np.split(sums @ self.counts.astype(np.float64), 2))
        return ratio(total.sum(axis=1), counts.sum(axis=1)), samples

    def _estimates(
        self, values: Floats, samples: Floats, cases: npt.NDArray[np.int64], signed: bool
    ) -> list[Estimate]:
        units = self.num_patients(cases)
        return [
            estimate(float(value), row, self.level, units=units, signed=signed)
            for value, row in zip(values, samples, strict=True)
        ]
