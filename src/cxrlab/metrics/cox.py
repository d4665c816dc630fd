"""Cox's regression of what was there on the logit of what was predicted: slope, intercept, their test.

Recalibration fits it on validation; Cox's test of calibration fits it on what is evaluated.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.predictions import Floats

Integers = npt.NDArray[np.int64]

_STEPS = 100
SMALLEST = 1e-7  # what a float32 of 1 - p still tells from 1
_LEAST_SPREAD = 1e-9  # of logits that are not all alike


@dataclass(frozen=True)
class CoxFit:
    """How far probabilities are from calibrated: logit(share present) = intercept + slope * logit(p).

    Attributes:
        slope: 1 for calibrated probabilities; below 1 they are too extreme, above 1 not extreme enough.
        intercept: 0 for calibrated probabilities.
        p: Of "slope 1 and intercept 0", two-sided; None where it cannot be tested.
    """

    slope: Estimate
    intercept: Estimate
    p: float | None


NO_FIT = CoxFit(Estimate(None), Estimate(None), None)


def logits_of(probabilities: Floats) -> Floats:
    """Return logits, finite also for 0 and 1, which are taken as 1e-7 from there.

    Example:
        >>> logits_of(np.array([0.5, 1.0])).round(2)
        array([ 0.  , 16.12])
    """
    return np.asarray(logit(np.clip(probabilities, SMALLEST, 1 - SMALLEST)), dtype=np.float64)


def fit_line(logits: Floats, targets: Floats) -> tuple[float, float]:
    """Return slope and intercept of the recalibrated logit, by Newton's method with step halving.

    Args:
        logits: Shape ``(N,)``.
        targets: Probabilities to be met, strictly between 0 and 1 on average, shape ``(N,)``.

    Returns:
        The slope may be negative; it is 1 where all logits are equal and leave it open.
    """
    spread = float(logits.std())
    if spread < _LEAST_SPREAD:
        return 1.0, float(logit(targets.mean()) - logits.mean())
    # On standardised logits the two parameters are nearly independent of each other.
    columns = np.stack([(logits - logits.mean()) / spread, np.ones_like(logits)])
    line = np.array([0.0, float(logit(targets.mean()))])
    for _ in range(_STEPS):
        fitted = expit(line @ columns)
        gradient = columns @ (fitted - targets)
        hessian = (columns * (fitted * (1 - fitted))) @ columns.T
        step = np.linalg.solve(hessian, gradient)
        line = _descend(line, step, columns, targets)
        if np.abs(step).max() < 1e-10:
            break
    slope = float(line[0]) / spread
    return slope, float(line[1]) - slope * float(logits.mean())


def _descend(line: Floats, step: Floats, columns: Floats, targets: Floats) -> Floats:
    """Go along Newton's step, or the half, the quarter… of it, to where the likelihood is no worse."""

    def loss(at: Floats) -> float:
        shifted = at @ columns
        return float((np.logaddexp(0.0, shifted) - targets * shifted).mean())

    limit, share = loss(line) + 1e-14, 1.0
    while loss(line - share * step) > limit and share > 1e-6:
        share /= 2
    return line - share * step


def cox_fit(probabilities: Floats, targets: Floats, patients: Integers, level: float) -> CoxFit:
    """Return slope and intercept on the images that are evaluated, with intervals and their joint test.

    Images of one patient are not independent: the covariance is the sandwich whose middle sums the score by
    patient (Liang and Zeger, Biometrika 73:13, 1986), times P / (P - 1). Intervals are Student's t and the
    test is Wald's with the F distribution, both of (patients of the rarer class - 1) degrees of freedom: with
    few positive patients the covariance itself is uncertain. In simulations (``benchmarks/calibration.py``)
    that rejects calibrated probabilities in 2 to 6 % at 5 %, from 8 positive patients on and with 4 images of
    each; a likelihood-ratio test that takes images for independent does so in up to 20 %.

    Args:
        probabilities: Shape ``(N,)``; 0 and 1, whose logits are infinite, are taken as 1e-7 from there.
        targets: 1 present, 0 absent, shape ``(N,)``.
        patients: Number of each image's patient, shape ``(N,)``.
        level: Coverage of the intervals.

    Returns:
        Nothing but None where no finite line fits: one class only, probabilities that are all alike, or
        classes that they separate without overlap.

    References:
        Cox, Biometrika 45:562, 1958. Van Calster et al., BMC Medicine 17:230, 2019.
    """
    logits = logits_of(probabilities)
    if not _is_fitted(logits, targets):
        return NO_FIT
    line = np.array(fit_line(logits, targets))
    # Centred columns keep the matrices well conditioned; the shift is undone at the end.
    columns = np.stack([logits - logits.mean(), np.ones_like(logits)])
    fitted = expit(line[0] * logits + line[1])
    information = (columns * (fitted * (1 - fitted))) @ columns.T
    num_patients = int(patients.max()) + 1
    scores = np.stack(
        [np.bincount(patients, values, num_patients) for values in columns * (targets - fitted)]
    )
    unit = np.array([[1.0, 0.0], [-float(logits.mean()), 1.0]])
    bread = unit @ np.linalg.inv(information)
    num_clusters = len(np.unique(patients))
    freedom = least_patients(targets, patients) - 1
    if freedom < 1:
        return CoxFit(Estimate(float(line[0])), Estimate(float(line[1])), None)
    covariance = bread @ (scores @ scores.T) @ bread.T * (num_clusters / (num_clusters - 1))
    reach = float(t_distribution.ppf((1 + level) / 2, freedom)) * np.sqrt(np.diagonal(covariance))
    slope, intercept = (
        Estimate(float(value), float(value - half), float(value + half))
        for value, half in zip(line, reach, strict=True)
    )
    return CoxFit(slope, intercept, _wald(line - [1.0, 0.0], covariance, freedom))


def least_patients(targets: Floats, patients: Integers) -> int:
    """Return of how many patients the positives, or the negatives, are: the smaller of the two.

    Args:
        targets: 1 present, 0 absent, NaN unknown, shape ``(N,)``.
        patients: Number of each image's patient, shape ``(N,)``.
    """
    return min(len(np.unique(patients[targets == present])) for present in (0.0, 1.0))


def _is_fitted(logits: Floats, targets: Floats) -> bool:
    """Return whether the likelihood has a maximum: there are both classes, and their logits overlap."""
    positives, negatives = logits[targets == 1], logits[targets == 0]
    if not len(positives) or not len(negatives) or logits.std() < _LEAST_SPREAD:
        return False
    return bool(positives.min() < negatives.max() and negatives.min() < positives.max())


def _wald(difference: Floats, covariance: Floats, freedom: int) -> float | None:
    """Return the p-value of a difference of 0 in both parameters; None for a singular covariance."""
    try:
        statistic = float(difference @ np.linalg.solve(covariance, difference)) / 2
    except np.linalg.LinAlgError:
        return None
    return float(f_distribution.sf(statistic, 2, freedom)) if statistic >= 0 else None
