"""How much each patient moves AUROC, a share, or a mean of them, and intervals and tests made of that.

The influence of a patient is the derivative of the metric by how often the patient is drawn: the first order
of the bootstrap, without drawing. Its sum of squares is the variance, and that of AUROC is DeLong's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import t as student

from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.predictions import Floats

Patients = npt.NDArray[np.integer]
Mask = npt.NDArray[np.bool_]

_NOISE = 1e-12  # what rounding leaves of a variance that vanishes


@dataclass(frozen=True)
class Influence:
    """A metric between 0 and 1 with the influence of each of P patients.

    Attributes:
        value: NaN where the metric is undefined.
        of_patients: Shape ``(P,)``; they sum to 0.
        units: Patients behind the value: Student's t has one degree of freedom less.
        images: Images behind it; 0 where that is not said.
    """

    value: float
    of_patients: Floats
    units: int
    images: int = 0

    @classmethod
    def undefined(cls, num_patients: int) -> Self:
        """Return a metric that has no value."""
        return cls(float("nan"), np.zeros(num_patients), 0)

    @property
    def variance(self) -> float:
        """Sum of the squared influences, times n / (n - 1) of the n patients behind the value."""
        return float(self.of_patients @ self.of_patients) * _unbiased(self.units)

    @property
    def effective_size(self) -> float:
        """Independent trials that a share of this value and variance would be of.

        No more than there are images, and the patients where nothing was seen to vary; 0 for a metric that
        is constant between 0 and 1, of which nothing can be said.
        """
        if np.isnan(self.value):
            return 0.0
        spread = self.value * (1 - self.value)
        if spread <= _NOISE:
            return float(self.units)
        if self.variance <= _NOISE * spread:
            return 0.0
        size = spread / self.variance
        return min(size, float(self.images)) if self.images else size


def share_influence(hits: Mask, members: Mask, patients: Patients, num_patients: int) -> Influence:
    """Return the share of some images that are hits.

    Args:
        hits: Shape ``(N,)``.
        members: Of which images, shape ``(N,)``.
        patients: Number of each image's patient, below P, shape ``(N,)``.
        num_patients: P.

    Example:
        >>> hits, members = np.array([True, False, True]), np.array([True, True, False])
        >>> share_influence(hits, members, np.array([0, 1, 1]), 2).of_patients
        array([ 0.25, -0.25])
    """
    owners = patients[members]
    images = len(owners)
    if not images:
        return Influence.undefined(num_patients)
    totals = np.bincount(owners, minlength=num_patients)
    found = np.bincount(patients[members & hits], minlength=num_patients)
    value = float(found.sum() / images)
    return Influence(value, (found - value * totals) / images, int(np.count_nonzero(totals)), images)


def auroc_influence(
    scores: Floats,
    targets: Floats,
    patients: Patients,
    num_patients: int,
    strata: npt.NDArray[np.integer] | None = None,
) -> Influence:
    """Return AUROC; with strata, over the pairs of images within one stratum, each pair counting alike.

    Args:
        scores: Shape ``(N,)``; higher means present.
        targets: 1 present, 0 absent, NaN unknown and left out, shape ``(N,)``.
        patients: Number of each image's patient, below P, shape ``(N,)``.
        num_patients: P.
        strata: Number of each image's stratum, shape ``(N,)``; negative for images in none.

    Returns:
        Its units are the patients with positives or those with negatives, whichever are fewer, of the strata
        that have both.

    References:
        DeLong et al., Biometrics 44:837, 1988; Obuchowski, Biometrics 53:567, 1997; of pairs within strata,
        Janes and Pepe, Biometrika 96:371, 2009.

    Example:
        >>> scores, targets = np.array([0.9, 0.6, 0.6, 0.1]), np.array([1.0, 0.0, 1.0, 0.0])
        >>> auroc_influence(scores, targets, np.arange(4), 4).of_patients
        array([ 0.0625, -0.0625, -0.0625,  0.0625])
    """
    numbers = np.zeros(len(scores), dtype=np.int64) if strata is None else strata
    gains, sizes = np.zeros(len(scores)), np.zeros(len(scores))
    is_positive, is_used = targets == 1, np.zeros(len(scores), dtype=bool)
    num_pairs = won = 0.0
    for stratum in np.unique(numbers[numbers >= 0]):
        positives = np.flatnonzero(is_positive & (numbers == stratum))
        negatives = np.flatnonzero((targets == 0) & (numbers == stratum))
        if not len(positives) or not len(negatives):
            continue
        gains[positives] = _below(np.sort(scores[negatives]), scores[positives])
        gains[negatives] = len(positives) - _below(np.sort(scores[positives]), scores[negatives])
        sizes[positives], sizes[negatives] = len(negatives), len(positives)
        is_used[positives] = is_used[negatives] = True
        num_pairs += len(positives) * len(negatives)
        won += float(gains[positives].sum())
    if not num_pairs:
        return Influence.undefined(num_patients)
    value = won / num_pairs
    moves = (gains - value * sizes) / num_pairs
    of_patients = np.bincount(patients, weights=moves, minlength=num_patients).astype(np.float64)
    sides = (is_used & is_positive, is_used & ~is_positive)
    return Influence(value, of_patients, min(len(np.unique(patients[side])) for side in sides))


def _below(ascending: Floats, values: Floats) -> Floats:
    """Return how many lie below each value, those that equal it counting half."""
    lower = np.searchsorted(ascending, values, side="left")
    return np.asarray((lower + np.searchsorted(ascending, values, side="right")) / 2)


def mean_influence(parts: Sequence[Influence], num_patients: int) -> Influence:
    """Return the mean of metrics.

    Its degrees of freedom are Satterthwaite's (Biometrics Bulletin 2:110, 1946): a mean of twelve labels
    rests on more than the rarest of them.
    """
    if not parts or any(np.isnan(part.value) for part in parts):
        return Influence.undefined(num_patients)
    variances = np.array([part.variance for part in parts])
    freedom = np.array([max(part.units - 1, 1) for part in parts])
    total = float(variances.sum())
    units = min(part.units for part in parts)
    if total > 0:
        units = max(units, 1 + int(total**2 / float((variances**2 / freedom).sum())))
    of_patients = np.mean([part.of_patients for part in parts], axis=0)
    return Influence(float(np.mean([part.value for part in parts])), of_patients, units)


def share_interval(metric: Influence, level: float) -> Estimate:
    """Return a share with Wilson's interval of its effective size, with Student's t in place of the normal.

    References:
        Wilson, JASA 22:209, 1927; Korn and Graubard, Survey Methodology 24:193, 1998.

    Example:
        >>> share = share_influence(np.ones(9, bool), np.ones(9, bool), np.arange(9), 9)
        >>> share_interval(share, 0.95)
        Estimate(value=1.0, low=0.628..., high=1.0)
    """
    size, value = metric.effective_size, metric.value
    if np.isnan(value):
        return Estimate(None)
    if not size or metric.units < 2:
        return Estimate(value)
    z2 = _quantile(metric.units, level) ** 2
    centre = (value + z2 / (2 * size)) / (1 + z2 / size)
    reach = np.sqrt(z2 * value * (1 - value) / size + (z2 / size) ** 2 / 4) / (1 + z2 / size)
    low = 0.0 if value == 0 else max(0.0, centre - reach)
    high = 1.0 if value == 1 else min(1.0, centre + reach)
    return Estimate(value, float(low), float(high))


def logit_interval(metric: Influence, level: float) -> Estimate:
    """Return an area, or a mean of areas, with an interval on the logit scale; Wilson's at 0 and 1."""
    value, variance = metric.value, metric.variance
    if np.isnan(value) or value <= 0 or value >= 1 or not metric.effective_size or metric.units < 2:
        return share_interval(metric, level)
    reach = _quantile(metric.units, level) * np.sqrt(variance) / (value * (1 - value))
    low, high = expit([logit(value) - reach, logit(value) + reach])
    return Estimate(value, float(low), float(high))


@dataclass(frozen=True)
class InfluenceDifference:
    """One metric minus another of other images, with its test.

    Attributes:
        difference: The first value minus the second.
        error: Its standard error; NaN where nothing can be tested.
        freedom: Degrees of freedom of Student's t.
        p: Two-sided, of "no difference"; NaN where nothing can be tested.
    """

    difference: float
    error: float
    freedom: int
    p: float

    def estimate(self, level: float) -> Estimate:
        """Return the difference with its interval, within -1 and 1."""
        if np.isnan(self.error):
            return Estimate(None if np.isnan(self.difference) else self.difference)
        reach = _quantile(self.freedom + 1, level) * self.error
        return Estimate(
            self.difference, max(-1.0, self.difference - reach), min(1.0, self.difference + reach)
        )


def influence_difference(first: Influence, second: Influence) -> InfluenceDifference:
    """Test the difference of a metric between two groups, whose patients may be the same.

    A small group whose value lies near 1 seems to vary less than it does: where 20 of 20 are found nothing
    varies. So the variance is no smaller than what the groups' sizes would give it at the value of both
    together, that is without a difference; and Student's t has the fewer patients less one.

    Args:
        first: Of one group, with the influence of all P patients.
        second: Of the other.
    """
    difference, freedom = first.value - second.value, min(first.units, second.units) - 1
    sizes = np.array([first.effective_size, second.effective_size])
    if np.isnan(difference) or not sizes.all() or freedom < 1:
        return InfluenceDifference(difference, float("nan"), freedom, float("nan"))
    # One found and one not found are added, as by Agresti and Caffo (Am Stat 54:280, 2000).
    together = (sizes @ [first.value, second.value] + 1) / (sizes.sum() + 2)
    without_difference = together * (1 - together) * float((1 / sizes).sum())
    apart = max(first.variance + second.variance, without_difference)
    variance = apart - 2 * float(first.of_patients @ second.of_patients)
    if not variance > 0:
        return InfluenceDifference(difference, float("nan"), freedom, float("nan"))
    error = variance**0.5
    p = float(2 * student.sf(abs(difference) / error, freedom))
    return InfluenceDifference(difference, error, freedom, p)


def paired_difference(first: Influence, second: Influence) -> InfluenceDifference:
    """Test the difference of two metrics of the same images, such as AUROC over all pairs and within strata.

    Args:
        first: With the influence of all P patients.
        second: Of the same patients; Student's t has as many degrees of freedom as it has.
    """
    difference, moved = first.value - second.value, first.of_patients - second.of_patients
    variance = float(moved @ moved) * _unbiased(second.units)
    if np.isnan(difference) or variance <= _NOISE**2 or second.units < 2:
        return InfluenceDifference(difference, float("nan"), second.units - 1, float("nan"))
    p = float(2 * student.sf(abs(difference) / variance**0.5, second.units - 1))
    return InfluenceDifference(difference, variance**0.5, second.units - 1, p)


def _unbiased(units: int) -> float:
    return units / (units - 1) if units > 1 else 1.0


def _quantile(units: int, level: float) -> float:
    return float(student.ppf((1 + level) / 2, units - 1))
