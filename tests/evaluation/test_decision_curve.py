from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from cxrlab.evaluation.decision_curve import ACT_ON_ALL, NET_BENEFIT, _Sums, decisions
from cxrlab.metrics.bootstrap import patient_counts
from cxrlab.metrics.calibration import Calibrator


def by_formula(scores, targets, threshold):
    """Vickers and Elkin, image by image."""
    total = 0.0
    for score, target in zip(scores, targets, strict=True):
        if score >= threshold:
            total += 1 if target == 1 else -threshold / (1 - threshold)
    return total / len(targets)


@pytest.mark.parametrize("calibrated", [False, True])
def test_net_benefit_equals_the_formula(make_predictions, make_settings, calibrated: bool):
    table = make_predictions()
    table.targets[::7, 0] = np.nan
    settings = make_settings(decision_thresholds=(0.4, 0.1))
    calibrator = Calibrator(np.array([0.8, 1.0]), np.array([-1.0, 0.0]), "platt", "validation")
    counts = patient_counts(table.num_patients, 200, 0)
    result, curves = decisions(table, calibrator if calibrated else None, counts, settings)
    scores = calibrator.apply(table.probabilities) if calibrated else table.probabilities
    assert ("Platt scaling" in result.probabilities) == calibrated
    for column, (label, found) in enumerate(result.labels.items()):
        known = table.known[:, column]
        p, y = scores[known, column], table.targets[known, column]
        assert found.prevalence == pytest.approx(y.mean())
        assert [point.threshold for point in found.points] == [0.1, 0.4]
        for point in found.points:
            model, everybody = (
                by_formula(p, y, point.threshold),
                by_formula(np.ones_like(y), y, point.threshold),
            )
            assert point.net_benefit.value == pytest.approx(model)
            assert point.act_on_all.value == pytest.approx(everybody)
            assert point.difference.value == pytest.approx(model - max(everybody, 0))
            assert point.net_benefit.low < model < point.net_benefit.high
        for name, values in ((NET_BENEFIT, p), (ACT_ON_ALL, np.ones_like(p))):
            curve = curves[(curves["label"] == label) & (curves["curve"] == name)]
            assert len(curve) == 50
            for x, height, low, high in curve[["x", "y", "low", "high"]].to_numpy()[::10]:
                assert height == pytest.approx(by_formula(values, y, x))
                assert low <= height <= high


def test_intervals_are_those_of_patients_drawn_by_hand(make_predictions, make_settings):
    table = make_predictions(("Edema",))
    settings, counts = make_settings(decision_thresholds=(0.3,)), patient_counts(table.num_patients, 200, 0)
    (point,) = decisions(table, None, counts, settings)[0].labels["Edema"].points
    drawn: list[list[float]] = []  # beside acting on all, and on none
    for times in counts.T:
        rows = np.repeat(np.arange(len(table)), times[table.patients].astype(int))
        p, y = table.probabilities[rows, 0], table.targets[rows, 0]
        model = by_formula(p, y, 0.3)
        drawn.append([model - by_formula(np.ones_like(y), y, 0.3), model])
    wanted = np.quantile(drawn, [0.025, 0.975], axis=0).min(axis=1)
    np.testing.assert_allclose([point.difference.low, point.difference.high], wanted)


def test_a_perfect_model_gains_the_prevalence_and_a_constant_one_nothing(make_predictions, make_settings):
    table = make_predictions(("Edema",))
    counts = patient_counts(table.num_patients, 200, 0)
    settings = make_settings(decision_thresholds=(0.2, 0.9))
    perfect = decisions(replace(table, probabilities=table.targets), None, counts, settings)[0].labels[
        "Edema"
    ]
    assert [point.net_benefit.value for point in perfect.points] == pytest.approx([table.targets.mean()] * 2)
    half = np.full_like(table.targets, 0.5)
    constant = decisions(replace(table, probabilities=half), None, counts, settings)[0].labels["Edema"]
    assert constant.points[0].net_benefit == constant.points[0].act_on_all
    assert constant.points[1].net_benefit.value == 0.0
    assert constant.points[1].net_benefit.low is None


def test_a_label_that_is_never_known_is_left_out(make_predictions, make_settings):
    table = make_predictions()
    table.targets[:, 1] = np.nan
    result, curves = decisions(table, None, patient_counts(table.num_patients, 200, 0), make_settings())
    assert list(result.labels) == ["Edema"]
    assert set(curves["label"]) == {"Edema"}


@pytest.mark.slow
def test_the_interval_of_the_difference_holds_where_all_and_none_are_worth_the_same():
    def sample(generator, num_patients):
        patients = np.repeat(np.arange(num_patients), generator.geometric(0.4, num_patients))
        x = 0.7 * (generator.normal(size=num_patients)[patients] + generator.normal(size=len(patients)))
        scores = expit(-2.6 + 1.3 * x)
        return scores, generator.random(len(x)) < scores, patients, num_patients

    population = sample(np.random.default_rng(9), 300_000)
    at = np.array([population[1].mean()])  # there acting on all is worth nothing, as acting on none is
    (truth,) = _Sums.of(*population, at).points(np.ones((300_000, 2), dtype=np.float32), 0.95)
    generator, held = np.random.default_rng(1), 0
    for seed in range(300):
        (point,) = _Sums.of(*sample(generator, 800), at).points(patient_counts(800, 400, seed), 0.95)
        held += point.difference.low <= truth.difference.value <= point.difference.high
    assert held / 300 >= 0.91
