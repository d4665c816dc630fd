"""Calibration: fitted on validation, and judged before and after."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit

from cxrlab.errors import ConfigError, DataError
from cxrlab.evaluation.calibration_verdict import METHODS, calibration_verdict
from cxrlab.evaluation.logistic_fit import fit_line, fit_temperature, smoothed_targets
from cxrlab.evaluation.prediction_table import Floats, PredictionTable
from cxrlab.evaluation.reliability import reliability_numbers
from cxrlab.evaluation.resampling import Counts
from cxrlab.evaluation.settings import CalibrationMethod, EvaluationSettings

_SMALLEST = 1e-7  # what a float32 of 1 - p still tells from 1
_NOTE = (
    "A loss that weights rare findings shifts their probabilities on purpose: they are then too high before "
    "recalibration. Recalibration changes no label's AUROC and no image's call: thresholds are on the scale "
    "of the probabilities before it."
)


@dataclass(frozen=True)
class Calibrator:
    """What makes probabilities of L labels mean what they say: logit' = slope * logit + intercept.

    Attributes:
        slopes: Above 0, so that no ranking is changed, shape ``(L,)``. A temperature is 1 / slope.
        intercepts: Shape ``(L,)``.
        method: ``temperature``, ``temperature_by_label`` or ``platt``.
        source: On what it was fitted, such as ``validation``.

    Raises:
        DataError: If there are more of one than of the other, a slope is not above 0, or one is not finite.
    """

    slopes: Floats
    intercepts: Floats
    method: str
    source: str

    def __post_init__(self) -> None:
        is_finite = np.isfinite(self.slopes).all() and np.isfinite(self.intercepts).all()
        if self.slopes.shape != self.intercepts.shape or not is_finite or (self.slopes <= 0).any():
            raise DataError(
                f"The calibration fitted on {self.source} cannot be used: slopes {self.slopes.tolist()} and "
                f"intercepts {self.intercepts.tolist()} must be finite and as many, and slopes above 0."
            )

    def apply(self, probabilities: Floats) -> Floats:
        """Return calibrated probabilities.

        Args:
            probabilities: Shape ``(N, L)``; 0 and 1, whose logits are infinite, are taken as 1e-7 from there.

        Returns:
            Shape ``(N, L)``.

        Example:
            >>> softer = Calibrator(np.array([0.5]), np.array([0.0]), "temperature", "validation")
            >>> softer.apply(np.array([[0.5], [0.9]])).round(3)
            array([[0.5 ],
                   [0.75]])
        """
        logits = self.slopes * _logits(probabilities) + self.intercepts
        return np.asarray(expit(logits), dtype=np.float64)


def fit_calibrator(
    probabilities: Floats, targets: Floats, method: CalibrationMethod, source: str
) -> Calibrator | None:
    """Fit slopes and intercepts by maximum likelihood, with Platt's smoothed targets.

    ``temperature`` is one slope for all labels, ``temperature_by_label`` one for each, ``platt`` slope and
    intercept of each. A label stays as it is where only one class of it is known, or where the slope comes
    out negative: that would turn its ranking round, which is no matter of calibration.

    Args:
        probabilities: Of images that are not judged afterwards, shape ``(N, L)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
        method: ``none`` fits nothing.
        source: What the images are, such as ``validation``.

    Returns:
        None for ``none``.

    Raises:
        ConfigError: If there is no such method.

    References:
        Platt, Advances in Large Margin Classifiers, 61, 1999. Guo et al., ICML 2017.
    """
    if method == "none":
        return None
    if method not in METHODS:
        raise ConfigError(f"evaluation.calibration={method} is unknown; there are {[*METHODS, 'none']}.")
    logits, known = _logits(probabilities), ~np.isnan(targets)
    aims = np.full(targets.shape, np.nan)
    for column, mask in enumerate(known.T):
        aims[mask, column] = smoothed_targets(targets[mask, column])
    lines = np.tile([1.0, 0.0], (targets.shape[1], 1))  # of each label slope and intercept
    if method == "temperature":
        if _has_both(targets[known]):
            lines[:, 0] = fit_temperature(logits[known], aims[known])
        return Calibrator(lines[:, 0], lines[:, 1], method, source)
    for column, mask in enumerate(known.T):
        if _has_both(targets[mask, column]):
            lines[column] = _line(logits[mask, column], aims[mask, column], method)
    return Calibrator(lines[:, 0], lines[:, 1], method, source)


def calibration_numbers(
    table: PredictionTable, calibrator: Calibrator | None, counts: Counts, settings: EvaluationSettings
) -> dict[str, Any]:
    """Return how well probabilities are calibrated, before and after recalibration, with intervals.

    Both are given since a weighted loss shifts probabilities on purpose: what is wrong before says little
    against the network, and only what is left after it matters to who reads a probability.

    Args:
        table: What is judged, with the network's own probabilities.
        calibrator: Fitted on other images; None where there is none.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        settings: With the coverage, and the positives needed for a verdict.

    Returns:
        ``method``, ``source``, ``note`` (words), and by label ``slope``, ``intercept``, ``before``, ``after``
        (see :func:`~cxrlab.evaluation.reliability.reliability_numbers`; None without calibrator) and
        ``verdict`` (words, of ``after`` where there is one).
    """
    after = None if calibrator is None else calibrator.apply(table.probabilities)
    stages = [table.probabilities] if after is None else [table.probabilities, after]
    labels = {}
    for row, label in enumerate(table.labels):
        targets = table.targets[:, row]
        judged = [
            reliability_numbers(probabilities[:, row], targets, table.patients, counts, settings)
            for probabilities in stages
        ]
        classes = (int((targets == 1).sum()), int((targets == 0).sum()))
        treatment = _treatment(calibrator, row)
        verdict = calibration_verdict(judged[-1], classes, settings.min_positives, treatment)
        before_and_after = {"before": judged[0], "after": None if calibrator is None else judged[1]}
        labels[label] = _line_numbers(calibrator, row) | before_and_after | {"verdict": verdict}
    return {
        "method": "none" if calibrator is None else calibrator.method,
        "source": None if calibrator is None else calibrator.source,
        "note": _NOTE,
        "labels": labels,
    }


def _line_numbers(calibrator: Calibrator | None, row: int) -> dict[str, Any]:
    if calibrator is None:
        return {"slope": None, "intercept": None}
    return {"slope": float(calibrator.slopes[row]), "intercept": float(calibrator.intercepts[row])}


def _treatment(calibrator: Calibrator | None, row: int) -> str:
    """Return what was done to the probabilities of a label, in words."""
    if calibrator is None:
        return ""
    name = METHODS.get(calibrator.method, calibrator.method)
    if (calibrator.slopes[row], calibrator.intercepts[row]) == (1.0, 0.0):
        return f"as it is: no {name} could be fitted on {calibrator.source}"
    return f"after {name} fitted on {calibrator.source}"


def _logits(probabilities: Floats) -> Floats:
    """Return logits, finite also for 0 and 1."""
    return np.asarray(logit(np.clip(probabilities, _SMALLEST, 1 - _SMALLEST)), dtype=np.float64)


def _has_both(targets: Floats) -> bool:
    return bool((targets == 1).any() and (targets == 0).any())


def _line(logits: Floats, aims: Floats, method: CalibrationMethod) -> tuple[float, float]:
    if method == "temperature_by_label":
        return fit_temperature(logits, aims), 0.0
    slope, intercept = fit_line(logits, aims)
    return (slope, intercept) if slope > 0 else (1.0, 0.0)
