"""How far a threshold may move, on cases whose answer is known."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import norm

from cxrlab.metrics.margin import (
    MARGIN_LOSS,
    margin_fault,
    middle_of_medians,
    middle_of_plateau,
    smoothed_accuracy,
    threshold_margin,
)
from cxrlab.metrics.thresholds import choose_thresholds


def two_normals(distance: float, num: int, *, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles of two normal classes on the logit scale: a sample without chance."""
    quantiles = norm.ppf((np.arange(num) + 0.5) / num)
    logits = np.concatenate([quantiles - distance / 2, spread * quantiles + distance / 2])
    return expit(logits), np.repeat([0.0, 1.0], num)


def accuracy(threshold: float, distance: float, spread: float = 1.0) -> float:
    """Of the population of two_normals, balanced, at a threshold on the logit scale."""
    missed = norm.cdf((threshold - distance / 2) / spread)
    return float(norm.cdf(threshold + distance / 2) + 1 - missed) / 2


@pytest.mark.parametrize("distance", [1.2, 2.3, 4.0])
def test_of_two_normals_the_plateau_is_that_of_the_population(distance: float):
    probabilities, targets = two_normals(distance, 20_000)
    least = accuracy(0.0, distance) - MARGIN_LOSS
    edge = brentq(lambda place: accuracy(place, distance) - least, 0.0, 5.0)
    threshold = middle_of_plateau(probabilities, targets)
    low, high = threshold_margin(probabilities, targets, threshold)
    assert logit(threshold) == pytest.approx(0.0, abs=0.02)
    assert logit([low, high]) == pytest.approx([-edge, edge], abs=0.06)


def test_of_unequal_normals_the_middle_lies_near_the_crossing():
    probabilities, targets = two_normals(4.0, 20_000, spread=2.0)
    grid = np.linspace(-3, 3, 6001)
    values = np.array([accuracy(place, 4.0, 2.0) for place in grid])
    within = grid[values > values.max() - MARGIN_LOSS]
    assert logit(middle_of_plateau(probabilities, targets)) == pytest.approx(
        (within[0] + within[-1]) / 2, abs=0.05
    )


def test_the_curve_equals_a_sum_of_kernels_written_out():
    generator = np.random.default_rng(0)
    logits = np.concatenate([generator.normal(-1, 1, 60), generator.normal(1, 2, 25)])
    targets = np.repeat([0.0, 1.0], [60, 25])
    places, smoothed = smoothed_accuracy(expit(logits), targets)
    shares = []
    for scores in (logits[:60], logits[60:]):
        quartiles = np.subtract(*np.quantile(scores, [0.75, 0.25])) / 1.349
        width = 0.9 * min(scores.std(ddof=1), quartiles) * len(scores) ** -0.2
        shares.append(norm.cdf((places[:, None] - scores) / width).mean(axis=1))
    np.testing.assert_allclose(smoothed, (shares[0] + 1 - shares[1]) / 2, atol=1e-3)


def test_of_separable_classes_the_middle_lies_between_them_and_not_at_the_edge_of_one():
    generator = np.random.default_rng(0)
    negatives, positives = generator.uniform(-9, -4, 100), generator.uniform(3, 9, 300)
    probabilities = expit(np.concatenate([negatives, positives]))
    targets = np.repeat([0.0, 1.0], [100, 300])
    youden, plateau = (
        logit(choose_thresholds(probabilities[:, None], targets[:, None], rule)[0])
        for rule in ("youden", "plateau")
    )
    assert plateau == pytest.approx(-0.5, abs=0.4)
    low, high = threshold_margin(probabilities, targets, float(expit(plateau)))
    assert low < expit(-3.5)
    assert high > expit(2.5)
    assert margin_fault(low, float(expit(plateau)), high) == ""
    assert youden == pytest.approx(logit((probabilities[:100].max() + probabilities[100:].min()) / 2))


def test_a_recalibration_moves_the_threshold_with_the_probabilities():
    generator = np.random.default_rng(1)
    targets = (generator.random(400) < 0.3).astype(float)
    logits = generator.normal(size=400) + 2 * targets
    before = logit(middle_of_plateau(expit(logits), targets))
    after = logit(middle_of_plateau(expit(0.5 * logits - 1.5), targets))
    assert after == pytest.approx(0.5 * before - 1.5, abs=1e-6)


def test_unknown_targets_have_no_say():
    generator = np.random.default_rng(2)
    probabilities, targets = generator.random(100), (np.arange(100) % 3 == 0).astype(float)
    more = np.concatenate([probabilities, [0.99, 0.98]]), np.concatenate([targets, [np.nan, np.nan]])
    assert middle_of_plateau(*more) == middle_of_plateau(probabilities, targets)
    assert threshold_margin(*more, 0.4) == threshold_margin(probabilities, targets, 0.4)


@pytest.mark.parametrize("targets", [[0.0, 0.0], [1.0, np.nan], [np.nan, np.nan]])
def test_one_class_has_neither_threshold_nor_margin(targets: list[float]):
    values = np.array([0.2, 0.8]), np.array(targets)
    assert smoothed_accuracy(*values) is None
    assert math.isnan(middle_of_plateau(*values))
    assert threshold_margin(*values, 0.5) == (None, None)
    assert threshold_margin(np.array([0.2, 0.8]), np.array([0.0, 1.0]), math.nan) == (None, None)


@pytest.mark.parametrize(
    ("scores", "targets", "expected"),
    [
        ([0.0, 1.0], [0, 1], 0.5),  # one of each class, at the ends
        ([0.0, 0.0, 1.0, 1.0], [0, 0, 1, 1], 0.5),  # decisions rather than probabilities
        ([0.3, 0.3, 0.8, 0.8], [0, 0, 1, 1], float(expit(logit([0.3, 0.8]).mean()))),
    ],
)
def test_ties_and_few_images_have_a_threshold(scores: list[float], targets: list[float], expected: float):
    assert middle_of_plateau(np.array(scores), np.array(targets, dtype=float)) == pytest.approx(
        expected, abs=0.01
    )


def test_classes_that_cannot_be_told_apart_have_a_threshold_all_the_same():
    threshold = middle_of_plateau(np.full(10, 0.4), np.tile([0.0, 1.0], 5))
    assert 0 < threshold < 1


def test_a_threshold_of_another_merit_may_gain_by_moving():
    probabilities, targets = two_normals(3.0, 2000)
    low, high = threshold_margin(probabilities, targets, float(expit(1.5)))  # specificity of 0.999
    assert margin_fault(low, float(expit(1.5)), high) == "one_sided"
    assert low < 0.2
    assert logit(high) == pytest.approx(1.55, abs=0.06)


def test_a_threshold_above_all_has_a_margin_up_to_1():
    probabilities, targets = np.array([0.1, 0.2, 0.3, 0.25]), np.array([0.0, 0.0, 1.0, 0.0])
    assert threshold_margin(probabilities, targets, 0.99)[1] == 1.0


@pytest.mark.parametrize(
    ("margin", "fault"),
    [
        ((-0.24, 0.0, 0.24), "narrow"),
        ((-0.26, 0.0, 0.26), ""),
        ((-0.19, 0.0, 1.8), "one_sided"),
        ((-0.21, 0.0, 1.8), ""),
        ((-1.8, 0.0, 0.19), "one_sided"),
    ],
)
def test_limits_are_on_the_logit_scale_wherever_the_threshold_lies(margin: tuple[float, ...], fault: str):
    for shift in (-6.0, 0.0, 4.0):
        assert margin_fault(*(float(expit(end + shift)) for end in margin)) == fault


def test_few_positives_choose_a_better_threshold_than_the_counts_do():
    generator = np.random.default_rng(3)
    losses = {"youden": 0.0, "plateau": 0.0}
    for _ in range(40):
        logits = np.concatenate([generator.normal(-1, 1, 300), generator.normal(1, 1, 10)])
        targets = np.repeat([0.0, 1.0], [300, 10])
        for rule in losses:
            threshold = float(logit(choose_thresholds(expit(logits)[:, None], targets[:, None], rule)[0]))
            losses[rule] += (accuracy(0.0, 2.0) - accuracy(threshold, 2.0)) / 40
    assert losses["plateau"] < 0.6 * losses["youden"]


def test_the_midpoint_is_as_far_from_either_median_and_edges_do_not_move_it():
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(-4, 1, 4001), rng.normal(2, 1, 1001)])
    targets = np.repeat([0.0, 1.0], [4001, 1001])
    assert logit(middle_of_medians(expit(logits), targets)) == pytest.approx(-1, abs=0.06)
    moved = np.where(logits < -5, -9, logits)  # the lower edge of one class
    assert middle_of_medians(expit(moved), targets) == pytest.approx(
        middle_of_medians(expit(logits), targets)
    )
    assert np.isnan(middle_of_medians(expit(logits), np.zeros_like(targets)))
    unknown = np.where(np.arange(len(targets)) % 2, np.nan, targets)
    assert np.isfinite(middle_of_medians(expit(logits), unknown))
