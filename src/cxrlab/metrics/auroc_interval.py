"""The interval of an AUROC that holds with few positives, few patients, and where classes are separated."""

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri, owens_t
from scipy.stats import t as student

from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.delong import Patients, covariance_of, placements
from cxrlab.metrics.predictions import Floats

PATIENTS_OF_MODEL = 100
"""How many patients of the rarer class the model's variance counts for, where DeLong's is smaller."""

FREEDOM = 3
"""Degrees of freedom of Student's t for each patient of the rarer class but one."""

_EDGE = 1e-12


def auroc_estimate(scores: Floats, targets: Floats, patients: Patients | None, level: float) -> Estimate:
    """Return an AUROC with its score interval: the values that the sample does not speak against.

    A value is inside where the AUROC found lies within Student's t standard errors of it, and the standard
    error is that of the *value*, not of the sample. So the interval is wide where the sample happens to vary
    little, never leaves 0 to 1, and exists for a perfect separation. The variance is that of two normal
    distributions with as many independent images as the patients are worth, times the factor by which
    DeLong's variance, clustered by patient, exceeds it. Where DeLong's is smaller, which with few patients is
    chance more often than not, it counts with the number of patients of the rarer class, and the model with
    ``PATIENTS_OF_MODEL``. That number and the degrees of freedom were chosen among others so that it holds
    for normal scores (``benchmarks/coverage.py``); where some positives score like negatives and the AUROC is
    near 1 it holds less often. With many patients the interval becomes DeLong's.

    Args:
        scores: Shape ``(N,)``; higher means present. Any monotonic scale will do.
        targets: 1 present, 0 absent, NaN unknown and left out, shape ``(N,)``.
        patients: Number of each image's patient, shape ``(N,)``; None takes each image for its own.
        level: Coverage, such as 0.95.

    Returns:
        Without a value where a class is absent; without an interval where all images of a class are of one
        patient, which says nothing of other patients.

    References:
        Newcombe, Stat Med 25:559, 2006 (score intervals of the AUROC); DeLong et al., Biometrics 44:837,
        1988; Obuchowski, Biometrics 53:567, 1997.

    Example:
        >>> found = auroc_estimate(np.arange(30.0), (np.arange(30) >= 20).astype(float), None, 0.95)
        >>> found.value, round(found.low, 2), found.high
        (1.0, 0.84, 1.0)
    """
    known = ~np.isnan(targets)
    positive = targets[known] == 1
    if positive.all() or not positive.any():
        return Estimate(None)
    clusters = np.arange(len(positive)) if patients is None else patients[known]
    above, below = placements(scores[known][None], positive)
    value = float(above.mean())
    sides = [(above[0], clusters[positive]), (below[0], clusters[~positive])]
    fewest = min(len(np.unique(owners)) for _, owners in sides)
    if fewest < 2:
        return Estimate(value)
    sizes = [_effective_size(placed - value, owners) for placed, owners in sides]
    centred = ((above - value) / above.shape[1], (below - value) / below.shape[1])
    variance = float(covariance_of(*centred, clusters[positive], clusters[~positive])[0, 0])
    factor = _factor(variance, _variance(value, *sizes), fewest - 1)
    reach = float(student.ppf((1 + level) / 2, FREEDOM * (fewest - 1))) ** 2 * factor

    def excess(candidate: float) -> float:
        return (candidate - value) ** 2 - reach * _variance(candidate, *sizes)

    low = brentq(excess, _EDGE, min(value, 1 - _EDGE)) if value > _EDGE else 0.0
    high = brentq(excess, max(value, _EDGE), 1 - _EDGE) if value < 1 - _EDGE else 1.0
    return Estimate(value, min(low, value), max(high, value))


def _effective_size(centred: Floats, owners: Patients) -> float:
    """Return how many independent images the images of one class are worth: at least one a patient."""
    _, numbers = np.unique(owners, return_inverse=True)
    sums = np.bincount(numbers, weights=centred)
    num_images, num_patients = len(centred), len(sums)
    alone = float((centred**2).sum()) * num_images / (num_images - 1)
    together = float((sums**2).sum()) * num_patients / (num_patients - 1)
    most = num_images / num_patients
    return num_images / (float(np.clip(together / alone, 1, most)) if alone > _EDGE else most)


def _variance(auroc: float, num_positives: float, num_negatives: float) -> float:
    """Return the variance of an AUROC where the scores of both classes are normal and spread alike."""
    half = auroc * (1 - auroc)
    deviate = float(ndtri(auroc))
    # Two positives rank above one negative with probability both: a bivariate normal of correlation 1/2.
    both = auroc - 2 * float(owens_t(deviate, 3**-0.5))
    shared = min(max(both - auroc**2, 0.0), half / 2)
    pair = (half - 2 * shared) / (num_positives * num_negatives)
    return pair + shared / num_positives + shared / num_negatives


def _factor(variance: float, of_model: float, freedom: int) -> float:
    """Return what the model's variance is multiplied by."""
    ratio = variance / of_model if of_model > 0 else 1.0
    return max(ratio, (freedom * ratio + PATIENTS_OF_MODEL) / (freedom + PATIENTS_OF_MODEL))
