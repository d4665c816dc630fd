"""Thresholds from validation: the probability from which on a finding is predicted positive."""

import math

import numpy as np

from cxrlab.errors import ConfigError
from cxrlab.metrics.margin import middle_of_medians, middle_of_plateau
from cxrlab.metrics.predictions import Floats

_FORMS = (
    "youden, f1, sensitivity@0.9, specificity@0.9, npv@0.98, ppv@0.5 (any value between 0 and 1), plateau, "
    "midpoint, or a number in [0, 1]"
)
_SMOOTH = {"plateau": middle_of_plateau, "midpoint": middle_of_medians}
_AT_LEAST = ("sensitivity", "specificity", "npv", "ppv")


def check_rule(rule: str | float, key: str = "evaluation.threshold") -> None:
    """Check that a threshold can be chosen by a rule.

    Args:
        rule: The value of ``evaluation.threshold``.
        key: Whose value it is, for the message.

    Raises:
        ConfigError: With the forms that there are.

    Example:
        >>> check_rule("sensitivity@0.9")
        >>> check_rule("sensitivity@90")
        Traceback (most recent call last):
        ...
        cxrlab.errors.ConfigError: evaluation.threshold='sensitivity@90' must be one of youden, ...
    """
    if isinstance(rule, str):
        name, _, wanted = rule.partition("@")
        is_allowed = rule in (*_SMOOTH, "youden", "f1") or (name in _AT_LEAST and 0 < _number(wanted) < 1)
    else:
        is_allowed = not isinstance(rule, bool) and 0 <= rule <= 1
    if not is_allowed:
        raise ConfigError(f"{key}={rule!r} must be one of {_FORMS}.")


def choose_thresholds(probabilities: Floats, targets: Floats, rule: str | float) -> Floats:
    """Return the threshold of each label by a rule.

    A label is predicted positive where its probability is at least the threshold. Candidates are the observed
    probabilities, and images of equal probability go together. What is returned lies midway between the
    chosen one and the next lower one: on these images it decides the same, on others it does not hang on the
    last digit of one image. ``youden`` maximises sensitivity + specificity - 1 and ``f1`` the F1 score; among
    equals the lowest is taken, since they lose nothing by the rule and a missed finding is the worse error,
    and since this choice, unlike one by the width of gaps, is the same after any recalibration.
    ``sensitivity@s`` takes the highest threshold with a sensitivity of at least s, ``specificity@s`` the
    lowest with a specificity of at least s; where that many negatives share the highest probability, it lies
    above all of them and nothing is predicted positive. ``npv@s`` takes the highest threshold with an NPV of
    at least s, for ruling out, and lies above all of them where the finding is that rare; ``ppv@s`` the
    lowest with a PPV of at least s, for ruling in. Either may be reached by no threshold. ``plateau``
    (:func:`~cxrlab.metrics.margin.middle_of_plateau`) and ``midpoint``
    (:func:`~cxrlab.metrics.margin.middle_of_medians`) do not hang on single images.

    Args:
        probabilities: Values in [0, 1], shape ``(N, L)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
        rule: See :func:`check_rule`; a number is taken as it is, for every label.

    Returns:
        Shape ``(L,)``; NaN where a rule finds one class only, or no threshold reaches it.

    Raises:
        ConfigError: If there is no such rule.

    Example:
        >>> scores = np.array([[0.1], [0.2], [0.6], [0.9]])
        >>> choose_thresholds(scores, np.array([[0.0], [0.0], [1.0], [1.0]]), "youden")
        array([0.4])

    References:
        Youden, Cancer 3:32, 1950.
    """
    check_rule(rule)
    if not isinstance(rule, str):
        return np.full(probabilities.shape[1], float(rule))
    columns = zip(probabilities.T, targets.T, strict=True)
    if rule in _SMOOTH:
        return np.array([_SMOOTH[rule](*column) for column in columns], dtype=np.float64)
    return np.array([_choose(scores, wanted, rule) for scores, wanted in columns], dtype=np.float64)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _choose(scores: Floats, targets: Floats, rule: str) -> float:
    """Return the threshold of one label."""
    known = ~np.isnan(targets)
    wanted = targets[known] == 1
    if not wanted.any() or wanted.all():
        return math.nan
    # Candidates descend; at row i, true_positives[i] and false_positives[i] are predicted positive.
    candidates, groups = np.unique(-scores[known], return_inverse=True)
    candidates = -candidates
    true_positives = np.bincount(groups, weights=wanted).cumsum()
    false_positives = np.bincount(groups, weights=~wanted).cumsum()
    row = _row(true_positives, false_positives, rule)
    if row is None:
        return math.nan
    lower = candidates[row + 1] if row + 1 < len(candidates) else 0.0
    if row < 0:
        return _above(float(candidates[0]))
    return _midway(float(lower), float(candidates[row]))


def _row(true_positives: Floats, false_positives: Floats, rule: str) -> int | None:
    """Return which candidate a rule takes; -1 for one above all, None where none reaches it."""
    positives, negatives = true_positives[-1], false_positives[-1]
    name, _, wanted = rule.partition("@")
    if name == "sensitivity":
        return int(np.argmax(true_positives / positives >= float(wanted)))
    if name == "specificity":
        return int(np.sum((negatives - false_positives) / negatives >= float(wanted))) - 1
    if name == "npv":
        right = negatives - np.append(0, false_positives)  # among the predicted negatives, from row -1 on
        called = right + positives - np.append(0, true_positives)
        rows = np.flatnonzero(right / np.maximum(called, 1) >= float(wanted)) - 1
        return int(rows[0]) if len(rows) else None
    if name == "ppv":
        rows = np.flatnonzero(true_positives / (true_positives + false_positives) >= float(wanted))
        return int(rows[-1]) if len(rows) else None
    if name == "f1":
        merit = 2 * true_positives / (true_positives + false_positives + positives)
    else:
        merit = true_positives * negatives - false_positives * positives  # whole numbers: ties are exact
    return int(np.flatnonzero(merit == merit.max())[-1])


def _midway(lower: float, chosen: float) -> float:
    middle = lower + (chosen - lower) / 2
    return middle if lower < middle else chosen  # between neighbours among the floats there is nothing


def _above(highest: float) -> float:
    middle = highest + (1.0 - highest) / 2
    return middle if highest < middle else math.nextafter(highest, math.inf)
