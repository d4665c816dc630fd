"""Thresholds and calibration of an evaluation: from the checkpoint, from validation, or given."""

from dataclasses import dataclass

import numpy as np

from cxrlab.errors import ConfigError
from cxrlab.metrics.calibration import Calibrator, fit_calibrator
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.metrics.thresholds import choose_thresholds

GIVEN = "given"


@dataclass(frozen=True)
class Thresholds:
    """Where each label is predicted positive.

    Attributes:
        values: Shape ``(L,)``; NaN where none could be chosen.
        rule: Such as ``youden``.
        source: On what they were chosen, such as ``validation``; or ``given``.
    """

    values: Floats
    rule: str
    source: str


def threshold_source(rule: str | float, chosen_on: str) -> str:
    """Return where a threshold of this rule comes from: a number is given, all else is chosen."""
    try:
        float(rule)
    except ValueError:
        return chosen_on
    return GIVEN


def from_validation(
    validation: PredictionTable, settings: EvaluationSettings
) -> tuple[Thresholds, Calibrator | None]:
    """Choose thresholds and fit the calibration on a validation part."""
    probabilities, targets = validation.probabilities, validation.targets
    values = choose_thresholds(probabilities, targets, settings.threshold)
    source = threshold_source(settings.threshold, "validation")
    calibrator = fit_calibrator(probabilities, targets, settings.calibration, "validation")
    return Thresholds(values, str(settings.threshold), source), calibrator


def given(threshold: float, num_labels: int) -> Thresholds:
    """Return one threshold for all labels that a person gave.

    Raises:
        ConfigError: If it is no probability.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold={threshold} must be a probability, from 0 to 1.")
    return Thresholds(np.full(num_labels, float(threshold)), str(threshold), GIVEN)
