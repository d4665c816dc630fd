import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from cxrlab.metrics import auroc_interval
from cxrlab.metrics.auroc_interval import auroc_estimate
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.delong import delong, delong_estimate


def binormal(generator, sizes, auroc, *, spread=1.0, alike=0.5):
    """Return scores, targets and patients: of ``sizes`` ((positive patients, images each), (negative, ...))."""
    sides = []
    for num_patients, images in sizes:
        shared, own = generator.normal(size=(num_patients, 1)), generator.normal(size=(num_patients, images))
        sides.append((np.sqrt(alike) * shared + np.sqrt(1 - alike) * own).ravel())
    positives = spread * sides[0] + norm.ppf(auroc) * (1 + spread**2) ** 0.5
    scores = np.concatenate([positives, sides[1]])
    targets = np.repeat([1.0, 0.0], [len(side) for side in sides])
    each = np.repeat([size[1] for size in sizes], [size[0] for size in sizes])
    return scores, targets, np.repeat(np.arange(len(each)), each)


@pytest.mark.parametrize("auroc", [0.2, 0.5, 0.75, 0.97])
def test_the_models_variance_is_that_of_two_normal_distributions(auroc):
    deviate = norm.ppf(auroc)
    both = multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]]).cdf([deviate, deviate])
    expected = (auroc * (1 - auroc) + (9 + 299) * (both - auroc**2)) / (10 * 300)
    assert auroc_interval._variance(auroc, 10, 300) == pytest.approx(expected, rel=1e-4)


def test_the_ends_lie_as_many_standard_errors_away_as_the_level_says():
    scores, targets, _ = binormal(np.random.default_rng(0), ((40, 1), (200, 1)), 0.8)
    found = auroc_estimate(scores, targets, None, 0.9)
    aurocs, covariance = delong(scores[None], targets, None)
    ratio = covariance[0, 0] / auroc_interval._variance(aurocs[0], 40, 200)
    factor = max(ratio, (39 * ratio + 100) / 139)
    for end in (found.low, found.high):
        error = (factor * auroc_interval._variance(end, 40, 200)) ** 0.5
        assert abs(end - found.value) / error == pytest.approx(1.657982, abs=1e-5)  # t of 117 degrees


def test_of_many_patients_it_is_delongs():
    for spread in (0.7, 1.0, 1.6):
        drawn = binormal(np.random.default_rng(1), ((4000, 2), (9000, 2)), 0.85, spread=spread)
        ours, theirs = auroc_estimate(*drawn, 0.95), delong_estimate(*drawn, 0.95)
        assert ours.value == theirs.value
        width = theirs.high - theirs.low
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)


def test_the_other_class_and_the_other_direction_mirror_it():
    scores, targets, patients = binormal(np.random.default_rng(2), ((12, 3), (30, 2)), 0.9)
    found = auroc_estimate(scores, targets, patients, 0.95)
    mirrored = auroc_estimate(-scores, 1 - targets, patients, 0.95)
    assert (mirrored.low, mirrored.high) == pytest.approx((found.low, found.high))
    turned = auroc_estimate(-scores, targets, patients, 0.95)
    assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low))


def test_images_that_stand_twice_in_a_patient_say_nothing_new():
    scores, targets, patients = binormal(np.random.default_rng(3), ((12, 1), (40, 1)), 0.85)
    once = auroc_estimate(scores, targets, patients, 0.95)
    twice = auroc_estimate(np.tile(scores, 2), np.tile(targets, 2), np.tile(patients, 2), 0.95)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    narrower = auroc_estimate(np.tile(scores, 2), np.tile(targets, 2), None, 0.95)
    assert narrower.high - narrower.low < 0.8 * (once.high - once.low)


def test_unknown_targets_are_left_out():
    scores, targets, patients = binormal(np.random.default_rng(4), ((30, 2), (60, 2)), 0.8)
    unknown = np.where(np.arange(len(targets)) % 5 < 2, np.nan, targets)
    known = ~np.isnan(unknown)
    assert auroc_estimate(scores, unknown, patients, 0.95) == auroc_estimate(
        scores[known], targets[known], patients[known], 0.95
    )


@pytest.mark.parametrize("num", [2, 3, 10, 100])
def test_a_perfect_separation_has_a_lower_end_that_rises_with_the_patients(num):
    scores = np.arange(2 * num + 50.0)
    targets = (scores >= num + 50).astype(float)
    found = auroc_estimate(scores, targets, None, 0.95)
    assert (found.value, found.high) == (1.0, 1.0)
    fewer = auroc_estimate(scores[:-1], targets[:-1], None, 0.95)
    assert 0 < (fewer.low or 0.0) < found.low < 1 or num == 2
    inverse = auroc_estimate(-scores, targets, None, 0.95)
    assert (inverse.value, inverse.low) == (0.0, 0.0)
    assert inverse.high == pytest.approx(1 - found.low)


@pytest.mark.parametrize(
    ("scores", "targets", "patients", "expected"),
    [
        ([0.1, 0.2], [0, 0], None, Estimate(None)),
        ([0.1, 0.2], [1, 1], None, Estimate(None)),
        ([0.1, 0.2], [np.nan, np.nan], None, Estimate(None)),
        ([0.1, 0.2, 0.15], [0, 1, 1], None, Estimate(1.0)),
        ([0.1, 0.3, 0.2, 0.4], [0, 0, 1, 1], [0, 0, 1, 2], Estimate(0.75)),
    ],
    ids=["no positive", "no negative", "all unknown", "one negative", "one patient"],
)
def test_nothing_is_said_of_other_patients_from_one(scores, targets, patients, expected):
    numbers = None if patients is None else np.array(patients)
    assert auroc_estimate(np.array(scores), np.array(targets, dtype=float), numbers, 0.95) == expected


def edge_cases():
    generator = np.random.default_rng(5)
    scores, targets, patients = binormal(generator, ((20, 3), (60, 3)), 0.85)
    yield "40 % unknown", (scores, np.where(generator.random(len(scores)) < 0.4, np.nan, targets), patients)
    yield "ties", (np.round(scores), targets, patients)
    yield "constant", (np.full(len(scores), 0.3), targets, patients)
    yield "separated", (targets, targets, patients)
    yield "inverse", (-targets, targets, patients)
    yield "two patients", binormal(generator, ((2, 4), (60, 2)), 0.9)
    yield "two of each", binormal(generator, ((2, 1), (2, 1)), 0.9)
    yield "one pair wrong", (np.r_[np.arange(49.0), 50, 49, np.arange(51.0, 60)], np.arange(60) >= 50.0, None)
    yield "both in a patient", (scores, targets, np.arange(len(scores)) % 20)
    yield "huge", (1e300 * scores, targets, patients)


@pytest.mark.parametrize("name", list(dict(edge_cases())))
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_ends_are_finite_and_hold_the_value(name, level):
    scores, targets, patients = dict(edge_cases())[name]
    found = auroc_estimate(scores, targets.astype(float), patients, level)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 1e-6


def coverage(generator, sizes, auroc, num, **options):
    """Return how often the 95 % interval holds the true AUROC."""
    found = [auroc_estimate(*binormal(generator, sizes, auroc, **options), 0.95) for _ in range(num)]
    return np.mean([one.low <= auroc <= one.high for one in found])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "auroc", "least", "most"),
    [
        (((10, 1), (300, 1)), 0.75, 0.93, 0.98),
        (((10, 1), (300, 1)), 0.97, 0.93, 0.985),
        (((20, 1), (300, 1)), 0.90, 0.93, 0.98),
        (((30, 1), (300, 1)), 0.97, 0.93, 0.98),
        (((3, 4), (75, 4)), 0.75, 0.93, 0.99),
        (((8, 4), (75, 4)), 0.90, 0.93, 0.98),
        (((15, 4), (75, 4)), 0.97, 0.93, 0.98),
    ],
)
def test_the_interval_covers_with_few_positives_and_few_patients(sizes, auroc, least, most):
    """The simulation's own error (one standard deviation) is 0.7 points; all cells: benchmarks/coverage.py."""
    assert least <= coverage(np.random.default_rng(6), sizes, auroc, 1000) <= most


@pytest.mark.slow
def test_positives_that_spread_more_than_negatives_do_not_break_it():
    generator = np.random.default_rng(7)
    assert coverage(generator, ((20, 1), (300, 1)), 0.9, 1000, spread=1.5) > 0.915
    assert coverage(generator, ((10, 1), (300, 1)), 0.97, 1000, spread=1.5) > 0.92
