import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from cxrlab.errors import ConfigError, DataError
from cxrlab.metrics.bootstrap import patient_counts
from cxrlab.metrics.calibration import Calibrator, evaluate_calibration, fit_calibrator
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

SETTINGS = EvaluationSettings(
    threshold="youden",
    calibration="platt",
    num_resamples=200,
    level=0.95,
    prevalence=0.1,
    age_bands=[],
    min_positives=10,
    min_group_images=20,
    seed=0,
)
METHODS = ["temperature", "temperature_by_label", "platt"]


def draw(count: int = 3000, slope: float = 0.5, shift: float = -1.0, seed: int = 0):
    """Probabilities of two labels that are too extreme, and too high as after a weighted loss."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (count, 2))
    targets = (generator.random((count, 2)) < expit(slope * logits + shift)).astype(float)
    targets[generator.random((count, 2)) < 0.1] = np.nan
    return expit(logits), targets


def table_of(probabilities, targets) -> PredictionTable:
    count = len(targets)
    return PredictionTable(
        images=np.array([str(row) for row in range(count)], dtype=object),
        patients=np.arange(count) // 2,
        labels=("Edema", "Mass"),
        targets=targets,
        probabilities=probabilities,
    )


def test_platt_scaling_finds_the_distortion_and_mends_unseen_images():
    calibrator = fit_calibrator(*draw(20_000, seed=1), "platt", "validation")
    assert calibrator is not None
    np.testing.assert_allclose(calibrator.slopes, 0.5, atol=0.05)
    np.testing.assert_allclose(calibrator.intercepts, -1.0, atol=0.06)
    numbers = evaluate_calibration(table_of(*draw()), calibrator, patient_counts(1500, 300, 0), SETTINGS)
    for one in numbers.labels.values():
        assert one.before.is_calibrated is False
        assert one.before.bias.value > 0.1
        assert one.after.is_calibrated is True
        assert one.after.ece.value < one.before.ece.value / 3
        assert one.after.brier.value < one.before.brier.value
        assert one.description == "calibrated after Platt scaling fitted on validation"
    assert (numbers.method, numbers.source) == ("platt", "validation")
    assert "weights rare findings" in numbers.note
    assert numbers.labels["Mass"].slope == calibrator.slopes[1]
    json.dumps(asdict(numbers), allow_nan=False)


def test_one_temperature_is_shared_and_one_by_label_is_not():
    probabilities, targets = draw(shift=0.0, seed=1)
    targets[:, 1] = np.where(np.isnan(targets[:, 1]), np.nan, probabilities[:, 1] > 0.5)
    shared = fit_calibrator(probabilities, targets, "temperature", "validation")
    own = fit_calibrator(probabilities, targets, "temperature_by_label", "validation")
    assert shared is not None
    assert own is not None
    assert shared.slopes[0] == shared.slopes[1]
    assert own.slopes[0] < shared.slopes[0] < own.slopes[1] <= 20
    assert own.slopes[0] == pytest.approx(0.5, abs=0.05)
    assert not shared.intercepts.any()
    assert not own.intercepts.any()


@pytest.mark.parametrize("method", METHODS)
def test_unknown_targets_do_not_matter(method):
    probabilities, targets = draw(500)
    known = ~np.isnan(targets).any(axis=1)
    targets[~known] = np.nan
    fitted = fit_calibrator(probabilities, targets, method, "validation")
    alone = fit_calibrator(probabilities[known], targets[known], method, "validation")
    assert fitted is not None
    assert alone is not None
    np.testing.assert_allclose(fitted.slopes, alone.slopes)
    np.testing.assert_allclose(fitted.intercepts, alone.intercepts)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "case", ["one class", "separable", "certain", "all certain", "unknown", "two images"]
)
def test_what_can_hardly_be_fitted_stays_finite_and_keeps_the_ranking(method, case):
    probabilities, targets = draw(60, seed=3)
    targets[np.isnan(targets)] = 0.0
    if case == "one class":
        targets[:, 0] = 0.0
    elif case == "separable":
        targets = (probabilities > 0.5).astype(float)
    elif case == "certain":
        probabilities[:, 0] = targets[:, 0]
    elif case == "all certain":
        probabilities = 1 - targets
    elif case == "unknown":
        targets[:, 0] = np.nan
    else:
        probabilities, targets = np.array([[0.4, 0.9], [0.4, 0.2]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    calibrator = fit_calibrator(probabilities, targets, method, "validation")
    assert calibrator is not None
    assert np.isfinite(calibrator.intercepts).all()
    mended = calibrator.apply(probabilities)
    assert ((mended > 0) & (mended < 1)).all()
    for before, after in zip(probabilities.T, mended.T, strict=True):
        assert (np.diff(after[np.argsort(before)]) >= 0).all()
    if case in ("one class", "unknown") and method != "temperature":
        assert (calibrator.slopes[0], calibrator.intercepts[0]) == (1.0, 0.0)


def test_a_slope_that_would_turn_the_ranking_round_is_rejected():
    calibrator = fit_calibrator(*draw(slope=-1.0), "platt", "validation")
    assert calibrator is not None
    assert (calibrator.slopes.tolist(), calibrator.intercepts.tolist()) == ([1.0, 1.0], [0.0, 0.0])
    numbers = evaluate_calibration(table_of(*draw()), calibrator, patient_counts(1500, 200, 0), SETTINGS)
    verdict = numbers.labels["Edema"].description
    assert verdict.startswith("too high by 0.")
    assert verdict.endswith("on average, as it is: no Platt scaling could be fitted on validation")


def test_without_calibrator_only_before_is_evaluated():
    assert fit_calibrator(*draw(50), "none", "validation") is None
    numbers = evaluate_calibration(table_of(*draw()), None, patient_counts(1500, 200, 0), SETTINGS)
    assert (numbers.method, numbers.source) == ("none", None)
    for one in numbers.labels.values():
        assert one.slope is one.intercept is one.after is None
        assert one.description.startswith("too high by 0.")
        assert one.description.endswith("on average")


def test_a_label_that_is_nowhere_known_gives_plain_json():
    probabilities, targets = draw(40)
    targets[:, 0] = np.nan
    targets[:, 1] = 0.0
    calibrator = Calibrator(np.ones(2), np.zeros(2), "platt", "validation")
    numbers = evaluate_calibration(
        table_of(probabilities, targets), calibrator, patient_counts(20, 100, 0), SETTINGS
    )
    assert {one.description for one in numbers.labels.values()} == {
        "cannot be evaluated: fewer than 10 positives"
    }
    json.dumps(asdict(numbers), allow_nan=False)


def test_applying_is_linear_on_the_logit_and_keeps_auroc():
    calibrator = Calibrator(np.array([0.5, 2.0]), np.array([-1.0, 0.3]), "platt", "validation")
    probabilities, targets = draw(200)
    mended = calibrator.apply(probabilities)
    np.testing.assert_allclose(logit(mended[:, 1]), 2 * logit(probabilities[:, 1]) + 0.3, rtol=1e-9)
    known = ~np.isnan(targets[:, 0])
    assert roc_auc_score(targets[known, 0], mended[known, 0]) == pytest.approx(
        roc_auc_score(targets[known, 0], probabilities[known, 0])
    )
    ends = calibrator.apply(np.array([[0.0, 1.0]]))
    assert 0 < ends[0, 0] < ends[0, 1] < 1


@pytest.mark.parametrize(
    ("slopes", "intercepts"), [([1.0], [0.0, 0.0]), ([np.nan], [0.0]), ([1.0], [np.inf]), ([-1.0], [0.0])]
)
def test_numbers_that_are_no_calibration_are_rejected(slopes, intercepts):
    with pytest.raises(DataError, match="fitted on validation cannot be used"):
        Calibrator(np.array(slopes), np.array(intercepts), "platt", "validation")


def test_an_unknown_method_is_rejected():
    with pytest.raises(ConfigError, match="evaluation.calibration=isotonic.*platt"):
        fit_calibrator(*draw(20), "isotonic", "validation")
