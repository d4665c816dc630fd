"""DeLong's intervals and paired tests of AUROC, for images that are independent or clustered in patients."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.predictions import Floats

Patients = npt.NDArray[np.int64]

_NOISE = 1e-12  # where a variance vanishes, rounding leaves this much of its terms


@dataclass(frozen=True)
class AreaDifference:
    """One AUROC minus another over the same images.

    Attributes:
        difference: With the Wald interval, which is None where nothing was seen to vary.
        p: Two-sided, of "no difference"; 1 where both rank alike, NaN where nothing can be tested.
    """

    difference: Estimate
    p: float


def delong(scores: Floats, targets: Floats, patients: Patients | None) -> tuple[Floats, Floats]:
    """Return the AUROC of K models over the same images, and the covariance of these.

    An image's component is the share of the other class's images that it is ranked rightly against, a tie
    counting one half; from midranks that takes O(N log N) a model. What varies independently is a patient, so
    the components are summed by patient first, and positive and negative images of one patient may vary
    together. Without patients, or with one image each, this is DeLong's covariance, without any factor.

    Args:
        scores: Shape ``(K, N)``; higher means present. Any monotonic scale will do.
        targets: 1 present, 0 absent, NaN unknown and left out, shape ``(N,)``.
        patients: Number of each image's patient, shape ``(N,)``; None takes each image for its own.

    Returns:
        AUROC, shape ``(K,)``, NaN where a class is absent; and covariance, shape ``(K, K)``, NaN where fewer
        than two patients have images of a class.

    Raises:
        ValueError: If the shapes do not fit.

    References:
        DeLong et al., Biometrics 44:837, 1988; Obuchowski, Biometrics 53:567, 1997; Sun and Xu, IEEE Signal
        Processing Letters 21:1389, 2014.

    Example:
        >>> scores = np.array([[0.9, 0.6, 0.6, 0.1], [0.2, 0.6, 0.7, 0.3]])
        >>> aurocs, covariance = delong(scores, np.array([1.0, 0.0, 1.0, 0.0]), None)
        >>> aurocs
        array([0.875, 0.5  ])
        >>> covariance
        array([[ 0.03125, -0.0625 ],
               [-0.0625 ,  0.25   ]])
    """
    if scores.ndim != 2 or scores.shape[1:] != targets.shape:
        raise ValueError(f"scores {scores.shape} must be (K, N) and targets {targets.shape} (N,).")
    if patients is not None and patients.shape != targets.shape:
        raise ValueError(f"patients {patients.shape} and targets {targets.shape} must both be (N,).")
    known = ~np.isnan(targets)
    positive = targets[known] == 1
    num_positives, num_negatives = int(positive.sum()), int((~positive).sum())
    num_models = len(scores)
    if not num_positives or not num_negatives:
        return np.full(num_models, np.nan), np.full((num_models, num_models), np.nan)
    clusters = np.arange(len(positive)) if patients is None else patients[known]
    above, below = placements(scores[:, known], positive)
    aurocs: Floats = above.mean(axis=1)
    centred = [(above - aurocs[:, None]) / num_positives, (below - aurocs[:, None]) / num_negatives]
    return aurocs, covariance_of(centred[0], centred[1], clusters[positive], clusters[~positive])


def placements(scores: Floats, positive: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return the structural components of the positives, ``(K, M)``, and of the negatives, ``(K, N)``.

    Args:
        scores: Of images whose target is known, shape ``(K, M + N)``.
        positive: Which of them are positive, shape ``(M + N,)``.
    """
    ranks = rankdata(scores, axis=1)
    positives, negatives = scores[:, positive], scores[:, ~positive]
    above = (ranks[:, positive] - rankdata(positives, axis=1)) / negatives.shape[1]
    below = 1 - (ranks[:, ~positive] - rankdata(negatives, axis=1)) / positives.shape[1]
    return above, below


def covariance_of(above: Floats, below: Floats, of_positives: Patients, of_negatives: Patients) -> Floats:
    """Return Obuchowski's covariance, shape ``(K, K)``, from centred components and their patients."""
    patients, numbers = np.unique(np.concatenate([of_positives, of_negatives]), return_inverse=True)
    num_positive, num_negative = len(np.unique(of_positives)), len(np.unique(of_negatives))
    if min(num_positive, num_negative) < 2:
        return np.full((len(above), len(above)), np.nan)
    s10 = _sums(above, numbers[: len(of_positives)], len(patients))  # (K, P), named as in the paper
    s01 = _sums(below, numbers[len(of_positives) :], len(patients))
    s11 = s10 @ s01.T
    covariance: Floats = (
        _unbiased(num_positive) * (s10 @ s10.T)
        + _unbiased(num_negative) * (s01 @ s01.T)
        + _unbiased(len(patients)) * (s11 + s11.T)
    )
    return covariance


def _sums(values: Floats, numbers: npt.NDArray[np.intp], num_patients: int) -> Floats:
    return np.stack([np.bincount(numbers, weights=row, minlength=num_patients) for row in values])


def _unbiased(num: int) -> float:
    return num / (num - 1)


def delong_estimate(scores: Floats, targets: Floats, patients: Patients | None, level: float) -> Estimate:
    """Return one model's AUROC with its interval, None for what is undefined.

    The Wald interval is cut off at 0 and 1. Where nothing was seen to vary, as in a perfect separation, there
    is none: an interval of no width would claim certainty.

    Args:
        scores: Shape ``(N,)``; higher means present.
        targets: 1 present, 0 absent, NaN unknown and left out, shape ``(N,)``.
        patients: Number of each image's patient, shape ``(N,)``; None takes each image for its own.
        level: Coverage, such as 0.95.

    Example:
        >>> delong_estimate(np.array([0.9, 0.6, 0.1]), np.array([1.0, 1.0, 0.0]), None, 0.95)
        Estimate(value=1.0, low=None, high=None)
    """
    aurocs, covariance = delong(scores[None], targets, patients)
    value, variance = float(aurocs[0]), float(covariance[0, 0])
    if np.isnan(value):
        return Estimate(None)
    if np.isnan(variance) or variance < _NOISE**2:
        return Estimate(value)
    reach = _quantile(level) * variance**0.5
    return Estimate(value, max(0.0, value - reach), min(1.0, value + reach))


def delong_test(
    first: Floats, second: Floats, targets: Floats, patients: Patients | None, level: float
) -> AreaDifference:
    """Return the AUROC of ``first`` minus that of ``second`` over the same images, with its paired test.

    Args:
        first: Scores of one model, shape ``(N,)``.
        second: Scores of the other.
        targets: 1 present, 0 absent, NaN unknown and left out, shape ``(N,)``.
        patients: Number of each image's patient, shape ``(N,)``; None takes each image for its own.
        level: Coverage, such as 0.95.
    """
    aurocs, covariance = delong(np.stack([first, second]), targets, patients)
    return area_difference(aurocs, covariance, 0, 1, level)


def area_difference(
    aurocs: Floats, covariance: Floats, first: int, second: int, level: float
) -> AreaDifference:
    """Return the difference of two of the K areas that :func:`delong` gave, with its paired test.

    Args:
        aurocs: Shape ``(K,)``.
        covariance: Shape ``(K, K)``.
        first: Number of the model whose area the other's is taken from.
        second: Number of the other.
        level: Coverage, such as 0.95.
    """
    value = float(aurocs[first] - aurocs[second])
    separate = float(covariance[first, first] + covariance[second, second])
    variance = separate - 2 * float(covariance[first, second])
    if np.isnan(variance):
        return AreaDifference(Estimate(None if np.isnan(value) else value), np.nan)
    if variance <= _NOISE * separate:
        return AreaDifference(Estimate(value), 1.0 if abs(value) < _NOISE else np.nan)
    deviation = variance**0.5
    reach = _quantile(level) * deviation
    p = 2 * float(norm.sf(abs(value) / deviation))
    return AreaDifference(Estimate(value, max(-1.0, value - reach), min(1.0, value + reach)), p)


def _quantile(level: float) -> float:
    return float(norm.ppf((1 + level) / 2))
