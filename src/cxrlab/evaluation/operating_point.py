"""Thresholds and calibration of an evaluation: from the checkpoint, from validation, or given."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cxrlab.errors import ConfigError
from cxrlab.metrics.calibration import Calibrator, fit_calibrator
from cxrlab.metrics.margin import ThresholdBasis, threshold_basis
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.referral import ReferralRules
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.metrics.thresholds import choose_thresholds
from cxrlab.runs.own_predictions import read_own_predictions

if TYPE_CHECKING:
    from cxrlab.runs.run import Run

log = logging.getLogger(__name__)

GIVEN = "given"


@dataclass(frozen=True)
class Thresholds:
    """Where each label is predicted positive.

    Attributes:
        values: Shape ``(L,)``; NaN where none could be chosen.
        rule: Such as ``youden``.
        source: On what they were chosen, such as ``validation``; or ``given``.
        basis: Of each label, the images that its threshold was chosen on, and how far it may move; empty
            where they were given, or the images are not at hand.
    """

    values: Floats
    rule: str
    source: str
    basis: Sequence[ThresholdBasis] = ()


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
    basis = () if source == GIVEN else threshold_basis(validation, values)
    return Thresholds(values, str(settings.threshold), source, basis), calibrator


def given(threshold: float, num_labels: int) -> Thresholds:
    """Return one threshold for all labels that a person gave.

    Raises:
        ConfigError: If it is no probability.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold={threshold} must be a probability, from 0 to 1.")
    return Thresholds(np.full(num_labels, float(threshold)), str(threshold), GIVEN)


def run_operating_point(
    run: "Run", settings: EvaluationSettings, labels: Sequence[str], validation: PredictionTable | None
) -> tuple[Thresholds | None, Calibrator | None]:
    """Return a run's thresholds and calibration for some of its labels.

    They are those of its checkpoint; chosen anew from its validation predictions where the settings are
    others than it was trained with, and from ``validation`` where that is given, see
    :class:`cxrlab.runs.run_data.PredictedImages`.
    """
    if validation is not None:
        return from_validation(validation.select_labels(labels), settings)
    trained_with = run.config.get("evaluation", {})
    rules = (settings.threshold, settings.calibration)
    if rules != (trained_with.get("threshold"), trained_with.get("calibration")):
        path = run.files.predictions("val")
        if not path.is_file():
            log.warning(
                "%s is not there: evaluation.threshold=%s cannot be chosen.", path, settings.threshold
            )
            return None, None
        return from_validation(read_own_predictions(run.files, "val").select_labels(labels), settings)
    columns = [run.labels.index(label) for label in labels]
    values = run.model.operating_point.thresholds.double().cpu().numpy()[columns]
    source = threshold_source(settings.threshold, "validation")
    calibrator = run.model.operating_point.calibrator(settings.calibration, columns)
    chosen_on = None if source == GIVEN else run_validation(run, labels, None)
    basis = () if chosen_on is None else threshold_basis(chosen_on, values)
    return Thresholds(values, str(settings.threshold), source, basis), calibrator


def run_validation(
    run: "Run", labels: Sequence[str], validation: PredictionTable | None
) -> PredictionTable | None:
    """Return a run's predictions of its validation part for some of its labels; None where there are none.

    They are ``validation`` where that is given, see :class:`cxrlab.runs.run_data.PredictedImages`, else those
    that its training wrote, unless its weights are others now.
    """
    if validation is None:
        if not run.has_own_weights or not run.files.predictions("val").is_file():
            return None
        validation = read_own_predictions(run.files, "val")
    return validation.select_labels(labels)


def run_referral(run: "Run", settings: EvaluationSettings, labels: Sequence[str]) -> ReferralRules | None:
    """Return the rules of a run's checkpoint to rule in, rule out or refer, for some of its labels.

    None where there are none, or other targets are asked for than it was trained with: they are then chosen
    anew on its validation part.
    """
    kept = run.model.operating_point.referral([run.labels.index(label) for label in labels])
    return kept if kept is not None and kept.targets == settings.referral else None
