import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from cxrlab.metrics.calibration import fit_line, fit_temperature, smoothed_targets


def draw(count: int = 2000, slope: float = 0.6, intercept: float = -1.5, seed: int = 0):
    generator = np.random.default_rng(seed)
    logits = generator.normal(-1, 2, count)
    targets = (generator.random(count) < expit(slope * logits + intercept)).astype(float)
    return logits, targets


def loss(logits, aims):
    return lambda line: (
        np.logaddexp(0, line[0] * logits + line[1]) - aims * (line[0] * logits + line[1])
    ).mean()


@pytest.mark.parametrize("seed", range(5))
def test_slope_and_intercept_equal_scikit_learn(seed: int):
    logits, targets = draw(slope=0.3 + seed / 2, seed=seed)
    aims = smoothed_targets(targets)
    # an image with the target 0.9 is nine tenths of a positive and one of a negative
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.r_[logits, logits][:, None],
        np.r_[np.ones_like(aims), np.zeros_like(aims)],
        sample_weight=np.r_[aims, 1 - aims],
    )
    expected = (reference.coef_[0, 0], reference.intercept_[0])
    assert fit_line(logits, aims) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0, 3.0])
def test_a_temperature_equals_a_search(scale: float):
    logits, targets = draw(slope=scale, intercept=0.0)
    aims = smoothed_targets(targets)
    expected = minimize(lambda x: loss(logits, aims)([x[0], 0.0]), [1.0], method="Nelder-Mead", tol=1e-10).x[
        0
    ]
    assert fit_temperature(logits, aims) == pytest.approx(expected, abs=1e-5)
    assert fit_temperature(logits, targets) == pytest.approx(scale, rel=0.15)


def test_what_was_distorted_is_found_again():
    logits, targets = draw(count=200_000)
    assert fit_line(logits, smoothed_targets(targets)) == pytest.approx((0.6, -1.5), abs=0.03)


def test_separable_data_stay_finite():
    logits = np.array([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0])
    targets = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    aims = smoothed_targets(targets)
    expected = minimize(loss(logits, aims), [1.0, 0.0], tol=1e-12).x
    assert fit_line(logits, aims) == pytest.approx(tuple(expected), abs=1e-4)
    assert fit_temperature(logits, aims) < 20
    assert fit_temperature(logits, targets) == 20.0  # without smoothing only the bound holds it


def test_one_outlier_and_a_rare_finding_converge():
    logits = np.r_[np.full(50_000, -16.1), np.linspace(-16, -10, 300), 16.1]
    targets = np.r_[np.zeros(50_290), np.ones(11)]
    aims = smoothed_targets(targets)
    slope, intercept = fit_line(logits, aims)
    fitted = expit(slope * logits + intercept)
    assert abs((fitted - aims).mean()) < 1e-9  # at the maximum both derivatives are 0
    assert abs(((fitted - aims) * logits).mean()) < 1e-8


def test_no_ranking_leaves_a_bounded_temperature_and_a_negative_slope():
    logits, targets = draw(slope=-1.0, intercept=0.0)
    assert fit_temperature(logits, smoothed_targets(targets)) == pytest.approx(1 / 20)
    assert fit_line(logits, smoothed_targets(targets))[0] < 0


def test_equal_logits_leave_the_slope_at_1():
    aims = smoothed_targets([1, 0, 0, 0])
    slope, intercept = fit_line(np.full(4, 2.0), aims)
    assert slope == 1.0
    assert expit(2.0 + intercept) == pytest.approx(aims.mean())
    assert fit_temperature(np.zeros(4), aims) == 1.0


def test_smoothing_is_platts():
    np.testing.assert_allclose(smoothed_targets([0, 1, 1, 1]), [1 / 3, 0.8, 0.8, 0.8])
    assert np.isfinite(smoothed_targets([0, 0])).all()
