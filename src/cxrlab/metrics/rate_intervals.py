"""Intervals of what is computed from sensitivity and specificity, by those of the two.

A bound of a sum follows from the bounds of its terms, whose distances are squared and added (Zou and Donner,
Stat Med 27:1693, 2008). Terms that are 0 or 1 have Wilson's bounds, so the sum has bounds there too.
"""

import math

from scipy.special import expit, logit

from cxrlab.metrics.bootstrap import Estimate, wilson

Bounds = tuple[float, float]


def predictive_value(
    value: float,
    sensitivity: Bounds,
    specificity: Bounds,
    rates: Bounds,
    prevalence: float,
    *,
    negative: bool,
) -> Estimate:
    """Return PPV or NPV at a stated prevalence, with the interval of its log odds.

    These are the log odds of the prevalence and the log of a likelihood ratio, a quotient of two rates.

    Args:
        value: The PPV or NPV.
        sensitivity: Its lower and upper bound.
        specificity: Its lower and upper bound.
        rates: Sensitivity and specificity themselves.
        prevalence: Share of images with the finding, between 0 and 1.
        negative: Whether it is the NPV.

    Example:
        >>> found = predictive_value(1.0, (0.9, 1.0), (0.7, 0.9), (1.0, 0.8), 0.1, negative=True)
        >>> found.value, round(found.low, 3), found.high
        (1.0, 0.986, 1.0)
    """
    (found, of_other), bounds, other = rates, sensitivity, specificity
    odds = float(logit(prevalence))
    if negative:
        (found, of_other), bounds, other, odds = (of_other, found), specificity, sensitivity, -odds
    low, high = _log_quotient((found, *bounds), (1 - of_other, 1 - other[1], 1 - other[0]))
    return Estimate(value, min(float(expit(odds + low)), value), max(float(expit(odds + high)), value))


def _log_quotient(top: tuple[float, float, float], bottom: tuple[float, float, float]) -> Bounds:
    """Return the bounds of the log of a quotient of two rates, each with its lower and upper bound."""
    if bottom[0] <= 0:
        return math.log(top[0] / bottom[2]) if top[0] > 0 else -math.inf, math.inf
    if top[0] <= 0:
        return -math.inf, math.log(top[2] / bottom[0])
    middle = math.log(top[0] / bottom[0])
    low = middle - math.hypot(math.log(top[0] / top[1]), math.log(bottom[2] / bottom[0]))
    if bottom[1] <= 0:
        return low, math.inf
    return low, middle + math.hypot(math.log(top[2] / top[0]), math.log(bottom[0] / bottom[1]))


def balanced_accuracy_at_limit(value: float, sensitivity: Bounds, specificity: Bounds) -> Estimate:
    """Return a balanced accuracy of 0 or 1, which no resample varies, with its interval.

    Example:
        >>> balanced_accuracy_at_limit(1.0, (0.7, 1.0), (0.8, 1.0)).low
        0.8197...
    """
    if value == 1.0:
        return Estimate(value, 1 - math.hypot(1 - sensitivity[0], 1 - specificity[0]) / 2, 1.0)
    return Estimate(value, 0.0, math.hypot(sensitivity[1], specificity[1]) / 2)


def f1_at_limit(value: float, units: int, level: float) -> Estimate:
    """Return an F1 score of 0 or 1, which no resample varies, with its interval.

    F1 is 2 J / (1 + J), where J is a proportion: of the true positives among these and all errors.

    Args:
        value: 0 or 1.
        units: Patients with such images.
        level: Coverage, such as 0.95.

    Example:
        >>> f1_at_limit(1.0, 10, 0.95).low
        0.8388...
    """
    low, high = (2 * share / (1 + share) for share in wilson(value, units, level))
    return Estimate(value, low, high)
