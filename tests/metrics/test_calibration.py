import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import t
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from cxrlab.errors import ConfigError, DataError
from cxrlab.metrics.bootstrap import Estimate, patient_counts
from cxrlab.metrics.calibration import (
    Calibrator,
    ChanceError,
    _what_is_shown,
    describe_calibration,
    equal_mass_bins,
    evaluate_calibration,
    fit_calibrator,
    fit_temperature,
    recalibration_in_the_large,
    reliability,
    smoothed_targets,
)
from cxrlab.metrics.cox import CoxFit, cox_fit, fit_line
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

SETTINGS = EvaluationSettings(num_resamples=200)

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
        assert one.before.departs is True
        assert one.before.bias.value > 0.1
        assert one.before.description == "departs from calibration: probabilities too extreme and too high"
        assert one.after.departs is False
        assert one.after.ece.value < one.before.ece.value / 3
        assert one.after.brier.value < one.before.brier.value
        assert one.after.scaled_brier.value > 0 > one.before.scaled_brier.value
        assert one.description.startswith("no departure from calibration shown (slope ")
        assert one.description.endswith(", after Platt scaling fitted on validation")
    assert (numbers.method, numbers.source) == ("platt", "validation")
    assert numbers.note.startswith("Recalibration changes no label's AUROC")
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
    assert "probabilities too extreme and too high (slope 0." in verdict
    assert verdict.endswith(", as they came, since no Platt scaling could be fitted on validation")


def test_without_calibrator_only_before_is_evaluated():
    assert fit_calibrator(*draw(50), "none", "validation") is None
    numbers = evaluate_calibration(table_of(*draw()), None, patient_counts(1500, 200, 0), SETTINGS)
    assert (numbers.method, numbers.source, numbers.note) == ("none", None, "")
    for one in numbers.labels.values():
        assert one.slope is one.intercept is one.after is None
        assert one.description == describe_calibration(one.before)


def test_a_label_that_is_nowhere_known_gives_plain_json():
    probabilities, targets = draw(40)
    targets[:, 0] = np.nan
    targets[:, 1] = 0.0
    calibrator = Calibrator(np.ones(2), np.zeros(2), "platt", "validation")
    numbers = evaluate_calibration(
        table_of(probabilities, targets), calibrator, patient_counts(20, 100, 0), SETTINGS
    )
    assert {one.description for one in numbers.labels.values()} == {
        "not tested: fewer than 10 images with the finding, as they came, since no Platt scaling could be "
        "fitted on validation"
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


# Reliability


def draw_label(count: int = 3000, slope: float = 1.0, shift: float = 0.0, seed: int = 0):
    """Return probabilities, and targets whose log odds are ``slope`` times theirs, plus ``shift``."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(-1, 1.5, count)
    return expit(logits), (generator.random(count) < expit(slope * logits + shift)).astype(float)


def assess(p, y, patients=None, resamples: int = 200):
    patients = np.arange(len(p)) if patients is None else patients
    return reliability(p, y, patients, patient_counts(int(patients.max()) + 1, resamples, 0), SETTINGS)


def test_bins_without_ties_are_quantiles():
    p, y = draw_label(3000)
    observed, predicted = calibration_curve(y, p, n_bins=15, strategy="quantile")
    bins = assess(p, y).bins
    assert [one.images for one in bins] == [200] * 15
    assert [one.observed.value for one in bins] == pytest.approx(observed.tolist())
    assert [one.predicted for one in bins] == pytest.approx(predicted.tolist())


def test_equal_probabilities_share_a_bin():
    generator = np.random.default_rng(1)
    p = generator.integers(0, 30, 500) / 30
    p[:250] = 0.0
    bins = equal_mass_bins(p)
    for value in np.unique(p):
        assert len(np.unique(bins[p == value])) == 1
    order = np.argsort(p)
    assert (np.diff(bins[order]) >= 0).all()
    assert set(bins) == set(range(bins.max() + 1))


def test_ties_lie_at_their_mean_rank():
    assert equal_mass_bins(np.array([0.2, 0.1, 0.2, 0.2, 0.9, 0.2]), 3).tolist() == [1, 0, 1, 1, 2, 1]


def test_few_images_have_few_bins():
    assert equal_mass_bins(np.array([0.3, 0.1, 0.2])).tolist() == [2, 0, 1]
    assert equal_mass_bins(np.full(50, 0.4)).tolist() == [0] * 50
    assert equal_mass_bins(np.empty(0)).tolist() == []


def test_numbers_equal_plain_formulas_of_the_known_images():
    p, y = draw_label(500, slope=0.5)
    generator = np.random.default_rng(2)
    patients = np.r_[np.arange(100), generator.integers(100, size=400)]
    y[generator.random(500) < 0.2] = np.nan
    numbers = assess(p, y, patients)
    known = ~np.isnan(y)
    p, y, patients = p[known], y[known], patients[known]
    bins = equal_mass_bins(p)
    ece = sum(abs(p[bins == one].sum() - y[bins == one].sum()) for one in range(15)) / len(p)
    assert numbers.ece.value == pytest.approx(ece)
    assert numbers.brier.value == pytest.approx(brier_score_loss(y, p))
    assert numbers.bias.value == pytest.approx(p.mean() - y.mean())
    assert numbers.expected_observed.value == pytest.approx(p.sum() / y.sum())
    prevalence = brier_score_loss(y, np.full_like(y, y.mean()))
    assert numbers.scaled_brier.value == pytest.approx(1 - brier_score_loss(y, p) / prevalence)
    fit = cox_fit(p, y, patients, 0.95)
    assert (numbers.slope, numbers.intercept, numbers.p) == (fit.slope, fit.intercept, fit.p)
    weights = patient_counts(100, 200, 0)[patients]
    biases = ((p - y) @ weights) / weights.sum(axis=0)
    expected = tuple(np.quantile(biases, [0.025, 0.975]))
    assert (numbers.bias.low, numbers.bias.high) == pytest.approx(expected, abs=1e-6)
    in_last = bins == 14
    shares = (y[in_last] @ weights[in_last]) / weights[in_last].sum(axis=0)
    last = numbers.bins[14].observed
    assert (last.low, last.high) == pytest.approx(tuple(np.quantile(shares, [0.025, 0.975])), abs=1e-6)


def test_calibrated_probabilities_are_told_from_distorted_ones():
    assert assess(*draw_label()).departs is False
    shifted = assess(*draw_label(shift=-1.0))
    assert shifted.departs is True
    assert shifted.expected_observed.low > 1
    assert shifted.bias.low > 0
    extreme = assess(*draw_label(6000, slope=0.4, shift=-0.5))
    assert extreme.departs is True
    assert extreme.slope.high < 0.5
    timid = assess(*draw_label(6000, slope=2.5, shift=0.9))
    assert timid.departs is True
    assert timid.slope.low > 2


def test_the_level_of_the_test_is_that_of_the_intervals():
    p, y = draw_label(1500, slope=0.85, seed=4)
    counts = patient_counts(len(p), 100, 0)
    found = {
        level: reliability(p, y, np.arange(len(p)), counts, replace(SETTINGS, level=level))
        for level in (0.9, 0.999)
    }
    assert found[0.9].p == found[0.999].p
    assert 0.001 < found[0.9].p < 0.1
    assert (found[0.9].departs, found[0.999].departs) == (True, False)


def test_the_interval_of_expected_to_observed_is_that_of_a_ratio_on_the_log_scale():
    p, y = draw_label(300, shift=-0.7, seed=2)
    patients = np.arange(300) // 3
    found = assess(p, y, patients).expected_observed
    ratio = p.sum() / y.sum()
    excess = [(p - ratio * y)[patients == patient].sum() for patient in range(100)]
    deviation = (100 / 99 * np.square(excess).sum()) ** 0.5 / p.sum()
    reach = t.ppf(0.975, len(set(patients[y == 1])) - 1) * deviation
    expected = (ratio, ratio * np.exp(-reach), ratio * np.exp(reach))
    assert (found.value, found.low, found.high) == pytest.approx(expected)


def test_brier_is_scaled_by_that_of_the_prevalence():
    p, y = draw_label(3000)
    assert assess(np.full(3000, y.mean()), y).scaled_brier.value == pytest.approx(0.0, abs=1e-12)
    assert assess(np.clip(y, 1e-6, 1 - 1e-6), y).scaled_brier.value == pytest.approx(1.0, abs=1e-6)
    found = assess(p, y).scaled_brier
    assert 0 < found.low < found.value < found.high < 1


def test_the_interval_of_the_calibration_error_holds_its_value():
    for seed in range(20):
        ece = assess(*draw_label(400, seed=seed)).ece
        assert 0 <= ece.low <= ece.value <= ece.high


@pytest.mark.slow
@pytest.mark.parametrize(("slope", "tolerated"), [(1.0, 0.92), (0.6, 0.93)])
def test_the_interval_of_the_calibration_error_covers_the_true_one(slope: float, tolerated: float):
    everyone = expit(np.random.default_rng(9).normal(-1, 1.5, 300_000))
    logits = np.log(everyone / (1 - everyone))
    edges = np.quantile(everyone, np.arange(1, 15) / 15)
    truth = (
        np.abs(np.bincount(np.digitize(everyone, edges), everyone - expit(slope * logits))).sum() / 300_000
    )
    found = [assess(*draw_label(600, slope, seed=seed), resamples=300).ece for seed in range(300)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert covered >= tolerated


@pytest.mark.parametrize("present", [0.0, 1.0])
def test_one_class_cannot_be_evaluated(present: float):
    numbers = assess(np.linspace(0.1, 0.9, 50), np.full(50, present))
    assert numbers.departs is numbers.p is None
    assert numbers.description.startswith("not tested: fewer than 10 patients with")
    assert numbers.bias.value == pytest.approx(0.5 - present)
    assert (numbers.expected_observed.value is None) == (present == 0)
    assert numbers.scaled_brier == Estimate(None)


def test_few_patients_with_a_finding_are_not_tested():
    p, y = draw_label(300)
    few = y.copy()
    few[np.flatnonzero(y == 1)[9:]] = np.nan
    assert assess(p, few).departs is None
    assert assess(p, few).description == "not tested: fewer than 10 patients with the finding"
    together = np.where(y == 1, 0, np.arange(300))  # many images, but of one patient
    assert assess(p, y, together).description == "not tested: fewer than 10 patients with the finding"
    assert assess(p, 1 - few).description == "not tested: fewer than 10 patients without the finding"


def test_what_no_slope_fits_is_not_tested_but_still_counted():
    p = np.r_[np.linspace(0.1, 0.4, 30), np.linspace(0.5, 0.6, 20)]
    separated = assess(p, np.r_[np.zeros(30), np.ones(20)])
    assert separated.description == (
        "not tested: the probabilities separate the classes without overlap, so that no slope fits"
    )
    assert separated.slope == Estimate(None)
    assert separated.expected_observed.value == pytest.approx(p.sum() / 20)
    alike = assess(np.full(50, 0.4), np.r_[np.zeros(30), np.ones(20)])
    assert alike.description == "not tested: all probabilities are alike"
    assert (alike.departs, alike.ece.value) == (None, pytest.approx(0.0, abs=1e-12))


def test_nothing_known_is_undefined():
    numbers = assess(np.array([0.2, 0.3]), np.array([np.nan, np.nan]))
    assert numbers.ece == numbers.brier == numbers.bias == Estimate(None)
    assert numbers.bins == []
    assert numbers.departs is None
    assert numbers.ece_by_chance == ChanceError(None, None)
    assert numbers.expected_observed == numbers.slope == Estimate(None)


def test_nothing_that_varies_has_no_interval():
    numbers = assess(np.full(60, 0.5), np.r_[np.zeros(30), np.ones(30)], np.zeros(60, dtype=np.int64))
    assert numbers.ece == Estimate(0.0)
    assert numbers.departs is None


# Chance


@pytest.mark.parametrize("prevalence", [0.5, 0.1])
def test_the_error_by_chance_is_that_of_drawn_outcomes(prevalence: float):
    generator = np.random.default_rng(1)
    p = expit(generator.normal(logit(prevalence), 1.0, 600))
    bins = equal_mass_bins(p)
    drawn = [np.abs(np.bincount(bins, p - (generator.random(600) < p))).sum() / 600 for _ in range(2000)]
    found = assess(p, (generator.random(600) < p).astype(float)).ece_by_chance
    assert found.mean == pytest.approx(np.mean(drawn), rel=0.05)
    assert found.high == pytest.approx(np.quantile(drawn, 0.95), rel=0.08)


def test_the_error_by_chance_grows_where_images_of_a_patient_are_alike():
    p, y = draw_label(240, seed=6)
    alone = assess(p, y).ece_by_chance
    fourfold = assess(np.repeat(p, 4), np.repeat(y, 4), np.repeat(np.arange(240), 4)).ece_by_chance
    # four copies of each image are 240 images, not 960
    assert fourfold.mean == pytest.approx(alone.mean, rel=0.1)
    assert fourfold.high > fourfold.mean


@pytest.mark.slow
@pytest.mark.parametrize(("images", "shift"), [(240, 0.0), (2000, -3.0)])
def test_a_calibrated_model_has_the_error_that_chance_gives(images: int, shift: float):
    found = []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        p = expit(generator.normal(shift, 1.0, images))
        found.append(assess(p, (generator.random(images) < p).astype(float), resamples=100))
    mean = np.mean([one.ece.value for one in found])
    assert np.mean([one.ece_by_chance.mean for one in found]) == pytest.approx(mean, rel=0.05)
    beyond = np.mean([one.ece.value > one.ece_by_chance.high for one in found])
    assert 0.02 <= beyond <= 0.09


# Descriptions


def estimate_around(value: float, reach: float) -> Estimate:
    return Estimate(value, value - reach, value + reach)


@pytest.mark.parametrize(
    ("slope", "ratio", "p", "words"),
    [
        (0.97, 1.02, 0.4, "no departure from calibration shown"),
        (0.7, 1.02, 0.2, "no departure from calibration shown"),
        (0.7, 1.02, 0.01, "departs from calibration: probabilities too extreme"),
        (1.7, 1.02, 0.01, "departs from calibration: probabilities not extreme enough"),
        (-0.7, 1.0, 0.01, "departs from calibration: probabilities in the wrong order"),
        (1.0, 1.3, 0.01, "departs from calibration: probabilities too high"),
        (1.7, 0.8, 0.01, "departs from calibration: probabilities not extreme enough and too low"),
        (0.95, 1.05, 0.04, "departs from calibration"),
    ],
)
def test_the_words_say_what_is_shown(slope, ratio, p, words):
    fit = CoxFit(estimate_around(slope, 0.1), Estimate(0.0), p)
    assert _what_is_shown(fit, estimate_around(ratio, 0.1), 0.95) == words


def test_a_description_holds_the_numbers_of_the_test():
    p, y = draw_label(800)
    found = assess(p, y)
    slope, ratio = found.slope, found.expected_observed
    assert describe_calibration(found) == (
        f"no departure from calibration shown (slope {slope.value:.2f}, {slope.low:.2f} to {slope.high:.2f}; "
        f"expected/observed {ratio.value:.2f}, {ratio.low:.2f} to {ratio.high:.2f})"
    )
    assert "slope \N{MINUS SIGN}" in describe_calibration(assess(1 - p, y))


# Fits


def draw_logits(count: int = 2000, slope: float = 0.6, intercept: float = -1.5, seed: int = 0):
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
    logits, targets = draw_logits(slope=0.3 + seed / 2, seed=seed)
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
    logits, targets = draw_logits(slope=scale, intercept=0.0)
    aims = smoothed_targets(targets)
    expected = minimize(lambda x: loss(logits, aims)([x[0], 0.0]), [1.0], method="Nelder-Mead", tol=1e-10).x[
        0
    ]
    assert fit_temperature(logits, aims) == pytest.approx(expected, abs=1e-5)
    assert fit_temperature(logits, targets) == pytest.approx(scale, rel=0.15)


def test_what_was_distorted_is_found_again():
    logits, targets = draw_logits(count=200_000)
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
    logits, targets = draw_logits(slope=-1.0, intercept=0.0)
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


# Recalibration in the large


@pytest.mark.parametrize(("shift", "seed"), [(0.0, 0), (1.5, 1), (-2.0, 2)])
def test_the_shift_equals_an_intercept_with_the_slope_held_at_1(shift: float, seed: int):
    p, y = draw_label(800, shift=shift, seed=seed)
    y[::7] = np.nan
    known = ~np.isnan(y)
    logits, present = logit(p[known]), y[known]
    expected = minimize(
        lambda x: (np.logaddexp(0, logits + x[0]) - present * (logits + x[0])).mean(),
        [0.0], method="Nelder-Mead", tol=1e-12,
    ).x[0]  # fmt: skip
    found = recalibration_in_the_large(p, y)
    assert found == pytest.approx(expected, abs=1e-6)
    assert expit(logits + found).mean() == pytest.approx(present.mean())
    assert found == pytest.approx(shift, abs=0.3)


def test_the_shift_is_finite_for_certain_probabilities_and_undefined_for_one_class():
    assert np.isfinite(recalibration_in_the_large(np.array([0.0, 1.0]), np.array([1.0, 0.0])))
    half = np.array([1.0, 1.0, 0.0, 0.0])
    assert recalibration_in_the_large(np.full(4, 0.2), half) == pytest.approx(np.log(4))
    assert np.isnan(recalibration_in_the_large(np.array([0.2, 0.3]), np.array([0.0, np.nan])))
