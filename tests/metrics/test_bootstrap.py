import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import norm

from cxrlab.metrics.bootstrap import (
    Estimate,
    estimate,
    holm,
    macro_mean,
    p_value,
    patient_counts,
    patient_sums,
    proportion,
    ratio,
    resampled,
)
from cxrlab.metrics.ranking import ranking


def test_counts_are_draws_with_replacement():
    counts = patient_counts(50, 4000, seed=0)
    assert counts.shape == (50, 4000)
    assert counts.dtype == np.float32
    assert counts.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(counts, counts.round())
    np.testing.assert_array_equal(counts.sum(axis=0), 50)
    # A count is binomial of 50 draws: mean 1, variance 0.98, absent with probability 0.98 ** 50.
    np.testing.assert_allclose(counts.mean(axis=1), 1, atol=5 * np.sqrt(0.98 / 4000))
    assert counts.var() == pytest.approx(0.98, rel=0.02)
    assert (counts == 0).mean() == pytest.approx(0.98**50, rel=0.02)


def test_counts_follow_the_seed():
    counts = patient_counts(20, 10, seed=1)
    np.testing.assert_array_equal(patient_counts(20, 10, seed=1), counts)
    assert (patient_counts(20, 10, seed=2) != counts).any()
    # More resamples go on where fewer ended.
    np.testing.assert_array_equal(patient_counts(20, 30, seed=1)[:, :10], counts)


def test_one_patient_is_always_drawn():
    np.testing.assert_array_equal(patient_counts(1, 3, seed=0), [[1, 1, 1]])


def ends(interval):
    return interval.value, interval.low, interval.high


def test_the_interval_is_the_percentiles():
    samples = np.random.default_rng(0).permutation(1001) / 1000
    assert ends(estimate(0.4, samples, 0.95)) == pytest.approx((0.4, 0.025, 0.975))
    assert ends(estimate(0.4, samples, 0.8)) == pytest.approx((0.4, 0.1, 0.9))


def test_undefined_resamples_are_left_out():
    samples = np.r_[np.nan, np.arange(101) / 100, [np.nan] * 50]
    assert ends(estimate(0.5, samples, 0.9)) == pytest.approx((0.5, 0.05, 0.95))


@pytest.mark.parametrize("samples", [[], [0.2, 0.3], [np.nan, np.nan]])
def test_an_undefined_value_has_no_interval(samples):
    assert estimate(float("nan"), samples, 0.95, units=9) == Estimate(None)


@pytest.mark.parametrize("samples", [[], [np.nan] * 3, [0.8] * 5, [0.8, 0.8 + 1e-15]])
@pytest.mark.parametrize("units", [0, 12])
def test_no_interval_where_nothing_varies(samples, units):
    assert estimate(0.8, samples, 0.95, units=units) == Estimate(0.8)


def test_perfect_ranking_is_not_taken_for_certain():
    assert estimate(1.0, [1.0] * 100, 0.95) == Estimate(1.0)


def wilson(hits, trials, level):
    """Wilson's score interval in its usual form."""
    z, share = norm.ppf((1 + level) / 2), hits / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return middle - half, middle + half


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("units", [1, 10, 5000])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_proportion_at_its_limit_gets_wilsons_interval(value, units, level):
    low, high = wilson(value * units, units, level)
    found = estimate(value, [value] * 100, level, units=units)
    assert ends(found) == pytest.approx((value, low, high), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilson_of_ten_of_ten():
    # 10 / (10 + 1.959964 ** 2)
    assert estimate(1.0, [1.0] * 9, 0.95, units=10).low == pytest.approx(0.722467, abs=1e-6)


def drawn_shares(hits, counts):
    """Return the share of hits in each resample, of patients with (hits, images) in the rows of ``hits``."""
    sums = hits.T @ counts
    return sums[0] / sums[1]


@pytest.mark.parametrize("value", [0.5, 0.8, 0.95])
def test_a_proportion_of_independent_images_has_wilsons_interval(value):
    hits = np.stack([np.arange(200) < 200 * value, np.ones(200)], axis=1).astype(float)
    drawn = drawn_shares(hits, patient_counts(200, 20_000, seed=0))
    low, high = wilson(value * 200, 200, 0.95)
    found = proportion(value, drawn, 0.95, units=200, trials=200)
    assert ends(found) == pytest.approx((value, low, high), abs=0.001)


def test_images_that_stand_several_times_in_a_patient_say_nothing_new_of_a_proportion():
    hits = np.stack([4.0 * (np.arange(50) < 40), np.full(50, 4.0)], axis=1)
    drawn = drawn_shares(hits, patient_counts(50, 20_000, seed=0))
    low, high = wilson(40, 50, 0.95)
    found = proportion(0.8, drawn, 0.95, units=50, trials=200)
    assert ends(found) == pytest.approx((0.8, low, high), abs=0.005)


def test_one_error_is_not_far_from_none():
    """28 patients with 2 or 3 images each: what is known of the clusters of errors rests on that one."""
    sizes = np.array([2] * 14 + [3] * 14, dtype=float)
    lows = []
    for errors in (0, 1, 2, 3):
        hits = np.stack([sizes - (np.arange(28) < errors), sizes], axis=1)
        drawn = drawn_shares(hits, patient_counts(28, 4000, seed=0))
        lows.append(proportion(hits[:, 0].sum() / 70, drawn, 0.95, units=28, trials=70).low)
    assert lows[0] == pytest.approx(28 / (28 + 1.959964**2))
    assert lows[1] == pytest.approx(lows[0], abs=0.01)
    assert sorted(lows[1:], reverse=True) == lows[1:]


@pytest.mark.parametrize(
    ("value", "samples", "units", "trials", "expected"),
    [
        (
            0.75,
            [0.75] * 9,
            3,
            12,
            wilson(0.75 * 8.4, 8.4, 0.95),
        ),  # 9 images with the rarer outcome: no spread
        (0.25, [0.25] * 9, 1, 4, wilson(0.25, 1, 0.95)),  # one patient is one
        (0.0, [0.0] * 9, 5, 20, wilson(0, 5, 0.95)),
        (1.0, [], 5, 20, wilson(5, 5, 0.95)),
        (0.5, [np.nan], 4, 8, wilson(2, 4, 0.95)),
    ],
)
def test_proportions_whose_resamples_say_nothing(value, samples, units, trials, expected):
    found = proportion(value, samples, 0.95, units=units, trials=trials)
    assert ends(found) == pytest.approx((value, *expected), abs=1e-9)


def test_an_undefined_proportion_has_no_interval():
    assert proportion(float("nan"), [0.5], 0.95, units=0, trials=0) == Estimate(None)


def covered(generator, share, num_patients, images, num):
    """Return how often the interval of a share holds it, of images that resemble one another in a patient."""
    counts = patient_counts(num_patients, 400, seed=1)
    found = 0
    for _ in range(num):
        alike, own = generator.normal(size=(num_patients, 1)), generator.normal(size=(num_patients, images))
        hits = (np.sqrt(0.5) * (alike + own) < norm.ppf(share)).sum(axis=1)
        drawn = drawn_shares(np.stack([hits, np.full(num_patients, images)], axis=1).astype(float), counts)
        trials = num_patients * images
        one = proportion(hits.sum() / trials, drawn, 0.95, units=num_patients, trials=trials)
        found += one.low <= share <= one.high
    return found / num


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.7, 0.9, 0.97])
@pytest.mark.parametrize(("num_patients", "images"), [(30, 1), (3, 4), (8, 4), (30, 4)])
def test_the_interval_of_a_proportion_covers_with_few_patients(share, num_patients, images):
    assert 0.92 <= covered(np.random.default_rng(8), share, num_patients, images, 1000) <= 0.99


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        (np.arange(1, 100) / 100, 2 / 100),  # all above 0: as small as 99 resamples can tell
        (-np.arange(1, 100) / 100, 2 / 100),
        (np.r_[-np.ones(4), np.ones(95)], 2 * 5 / 100),
        (np.r_[np.zeros(4), np.ones(95)], 2 * 5 / 100),  # a difference of 0 speaks for neither
        (np.r_[-np.ones(50), np.ones(49)], 1.0),
        (np.zeros(99), 1.0),
        (np.r_[np.nan, -np.ones(4), np.ones(95), np.nan], 2 * 5 / 100),
    ],
)
def test_p_value(differences, expected):
    assert p_value(differences) == pytest.approx(expected)


def test_p_value_agrees_with_the_interval():
    drawn = np.random.default_rng(0).normal(1.8, 1, size=4001)
    p = p_value(drawn)
    # The interval of the level 1 - p ends close to 0, on one side or the other.
    assert abs(estimate(1.8, drawn, 1 - p).low) < 0.02


@pytest.mark.parametrize("differences", [[], [np.nan, np.nan]])
def test_p_value_of_nothing_is_undefined(differences):
    assert np.isnan(p_value(differences))


@pytest.mark.parametrize("value", [-0.4, 0.4])
def test_a_difference_and_its_negative_have_the_same_interval_turned_round(value):
    drawn = np.random.default_rng(0).normal(value, 0.1, 500)
    there, back = estimate(value, drawn, 0.95, signed=True), estimate(-value, -drawn, 0.95, signed=True)
    assert -there == back
    assert -Estimate(None) == Estimate(None)


def test_a_difference_that_never_varied_may_have_either_sign():
    share = estimate(1.0, [1.0] * 9, 0.95, units=10)
    difference = estimate(1.0, [1.0] * 9, 0.95, units=10, signed=True)
    assert (difference.value, difference.high) == (1.0, 1.0)
    assert difference.low == pytest.approx(2 * share.low - 1)  # from -1 to 1 it is twice as far
    nothing = estimate(0.0, [0.0] * 9, 0.95, units=10, signed=True)
    assert nothing.low == -nothing.high < 0
    assert estimate(-1.0, [-1.0] * 9, 0.95, units=10, signed=True) == -difference


def closed_test(p_values):
    """Holm's adjusted p-values from their definition: Bonferroni's test of every subset of hypotheses."""
    numbers = range(len(p_values))
    subsets = [subset for size in range(1, len(p_values) + 1) for subset in combinations(numbers, size)]
    bonferroni = {subset: min(1.0, len(subset) * min(p_values[one] for one in subset)) for subset in subsets}
    return [max(p for subset, p in bonferroni.items() if one in subset) for one in numbers]


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_the_closed_test(seed):
    p_values = np.random.default_rng(seed).random(7).round(1 + seed % 2) ** (
        1 + seed
    )  # ties, 0 and small ones
    assert holm(list(p_values)) == pytest.approx(closed_test(list(p_values)))


def test_holm_leaves_out_what_was_not_tested():
    # By hand: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 not below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    adjusted = holm([np.nan, 0.01, 0.04, np.nan, 0.03, 0.005])
    assert np.isnan([adjusted[0], adjusted[3]]).all()
    assert [adjusted[index] for index in (1, 2, 4, 5)] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert np.isnan(holm([np.nan])).all()


def test_the_macro_mean_is_of_the_same_labels_in_value_and_resamples():
    values = np.array([1.0, np.nan, 3.0])
    samples = np.array([[1.0, 1.0], [9.0, 9.0], [3.0, np.nan]])
    mean, drawn = macro_mean(values, samples)
    assert (mean, drawn.tolist()) == (2.0, [2.0, 2.0])  # 1 and the 3 of the whole sample
    first = macro_mean(values, samples, np.array([True, True, False]))
    assert (first[0], first[1].tolist()) == (1.0, [1.0, 1.0])
    _, complete = macro_mean(values, samples, complete=True)
    np.testing.assert_array_equal(complete, [2.0, np.nan])
    assert math.isnan(macro_mean(np.array([np.nan]), np.ones((1, 2)))[0])


def test_a_resample_sums_over_the_images_of_the_patients_drawn():
    generator = np.random.default_rng(0)
    patients = np.r_[np.arange(7), generator.integers(7, size=30)]
    values = generator.random((37, 3))
    counts = patient_counts(7, 20, seed=1)
    drawn = resampled(patient_sums(values, patients, 7), counts)
    for resample in range(20):
        images = np.repeat(np.arange(37), counts[patients, resample].astype(int))
        np.testing.assert_allclose(drawn[:, resample], values[images].sum(axis=0), rtol=1e-5)


def test_leading_axes_are_kept_and_whole_numbers_are_exact():
    sums = np.arange(24.0).reshape(2, 3, 4)
    counts = patient_counts(4, 5, seed=0)
    expected = np.einsum("abp,pr->abr", sums, counts.astype(float))
    np.testing.assert_array_equal(resampled(sums, counts), expected)


def test_a_patient_without_images_sums_to_zero():
    np.testing.assert_array_equal(patient_sums([[2.0]], np.array([1]), 3), [[0.0, 2.0, 0.0]])


def test_nothing_divided_by_nothing_is_undefined():
    result = ratio([1.0, 2.0, 0.0], [[4.0], [0.0]])
    np.testing.assert_array_equal(result, [[0.25, 0.5, 0.0], [np.nan] * 3])
    assert float(ratio(1, 2)) == 0.5
    assert float(ratio(1.0, np.nan)) == pytest.approx(np.nan, nan_ok=True)


DISTANCE = 1.0  # between the means of the positives' and the negatives' scores, in standard deviations
TRUE_AUROC = norm.cdf(DISTANCE / np.sqrt(2))  # binormal


def simulated_patients(generator, num_patients):
    """Return scores, targets and patients of 1 to 12 images each, alike in disease and in score.

    Half of the scores' variance belongs to the patient; a fifth of the images is positive, unevenly spread.
    """
    sizes = generator.integers(1, 13, size=num_patients)
    patients = np.repeat(np.arange(num_patients), sizes)
    prevalences = generator.beta(0.5, 2.0, size=num_patients)
    targets = (generator.random(len(patients)) < prevalences[patients]).astype(float)
    shared, own = generator.normal(size=num_patients), generator.normal(size=len(patients))
    scores = np.sqrt(0.5) * (shared[patients] + own) + DISTANCE * targets
    return scores, targets, patients


def holds_the_truth(scores, targets, units, num_resamples, seed):
    """Whether the 95 % interval of the true AUROC holds it, where ``units`` are drawn."""
    found = ranking(scores, targets, units, patient_counts(units[-1] + 1, num_resamples, seed))
    interval = estimate(found.auroc[0], found.auroc_samples[0], 0.95)
    return interval.low <= TRUE_AUROC <= interval.high


def coverage(*, num_replications, num_patients, num_resamples, seed):
    """Return how often the intervals hold the truth: of patients, and of images (in every fourth replication)."""
    generator = np.random.default_rng(seed)
    by_patient, by_image = [], []
    for replication in range(num_replications):
        scores, targets, patients = simulated_patients(generator, num_patients)
        drawn = {"num_resamples": num_resamples, "seed": generator.integers(2**32)}
        by_patient.append(holds_the_truth(scores, targets, patients, **drawn))
        if replication % 4 == 0:
            by_image.append(holds_the_truth(scores, targets, np.arange(len(patients)), **drawn))
    return np.mean(by_patient), np.mean(by_image)


@pytest.mark.slow
def test_the_interval_of_patients_covers_and_that_of_images_does_not():
    # The simulation's own error (one standard deviation) is 0.8 percentage points, for images 2.7.
    by_patient, by_image = coverage(num_replications=800, num_patients=400, num_resamples=400, seed=0)
    assert 0.93 <= by_patient <= 0.97
    assert by_image < 0.90
