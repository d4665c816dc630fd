"""Influences against derivatives of scikit-learn's metrics, the bootstrap, DeLong's variance and all pairs."""

from itertools import product

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binomtest, norm, t
from sklearn.metrics import recall_score, roc_auc_score

from cxrlab.metrics.bootstrap import Estimate, patient_counts
from cxrlab.metrics.delong import delong
from cxrlab.metrics.influence import (
    Influence,
    auroc_influence,
    influence_difference,
    logit_interval,
    mean_influence,
    paired_difference,
    share_influence,
    share_interval,
)

N, P = 240, 60


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    patients = np.concatenate([np.arange(P), rng.integers(P, size=N - P)])
    targets = (rng.random(N) < 0.3).astype(float)
    scores = np.round(expit(targets + rng.normal(size=N) + rng.normal(size=P)[patients]), 1)  # with ties
    return scores, targets, patients


def derivatives(metric, patients, step=1e-4):
    """Return the derivative of a metric of weighted images by the weight of each patient."""
    result = np.zeros(P)
    for patient in range(P):
        up, down = np.ones(N), np.ones(N)
        up[patients == patient] += step
        down[patients == patient] -= step
        result[patient] = (metric(up) - metric(down)) / (2 * step)
    return result


def test_auroc_is_that_of_scikit_learn_and_its_influence_the_derivative(data):
    scores, targets, patients = data
    area = auroc_influence(scores, targets, patients, P)
    assert area.value == pytest.approx(roc_auc_score(targets, scores))
    expected = derivatives(lambda weights: roc_auc_score(targets, scores, sample_weight=weights), patients)
    np.testing.assert_allclose(area.of_patients, expected, atol=1e-8)
    assert area.of_patients.sum() == pytest.approx(0, abs=1e-12)
    owners = [len(set(patients[targets == side])) for side in (0, 1)]
    assert area.units == min(owners)


def test_a_share_is_that_of_scikit_learn_and_its_influence_the_derivative(data):
    scores, targets, patients = data
    called = scores >= 0.5
    share = share_influence(called, targets == 1, patients, P)
    assert share.value == pytest.approx(recall_score(targets, called))
    expected = derivatives(lambda weights: recall_score(targets, called, sample_weight=weights), patients)
    np.testing.assert_allclose(share.of_patients, expected, atol=1e-8)
    assert (share.units, share.images) == (len(set(patients[targets == 1])), int(targets.sum()))


def test_unknown_targets_are_left_out(data):
    scores, targets, patients = data
    targets[::5] = np.nan
    known = ~np.isnan(targets)
    area = auroc_influence(scores, targets, patients, P)
    assert area.value == pytest.approx(roc_auc_score(targets[known], scores[known]))


def test_the_variance_is_that_of_delong_and_of_the_bootstrap(data):
    scores, targets, patients = data
    area = auroc_influence(scores, targets, patients, P)
    _, covariance = delong(scores[None], targets, patients)
    assert area.variance == pytest.approx(covariance[0, 0], rel=0.05)
    weights = patient_counts(P, 1000, 0)[patients].T
    drawn = [roc_auc_score(targets, scores, sample_weight=row) for row in weights]
    assert area.variance == pytest.approx(np.var(drawn), rel=0.15)


def test_within_strata_every_pair_of_a_stratum_counts(data):
    scores, targets, patients = data
    strata = np.random.default_rng(1).integers(-1, 3, N)
    area = auroc_influence(scores, targets, patients, P, strata)
    won = [
        float(scores[i] > scores[j]) + 0.5 * float(scores[i] == scores[j])
        for i, j in product(np.flatnonzero(targets == 1), np.flatnonzero(targets == 0))
        if strata[i] == strata[j] >= 0
    ]
    assert area.value == pytest.approx(np.mean(won))

    def weighted(weights):
        top = bottom = 0.0
        for stratum in range(3):
            own = strata == stratum
            pairs = weights[own & (targets == 1)].sum() * weights[own & (targets == 0)].sum()
            top += pairs * roc_auc_score(targets[own], scores[own], sample_weight=weights[own])
            bottom += pairs
        return top / bottom

    np.testing.assert_allclose(area.of_patients, derivatives(weighted, patients), atol=1e-8)


def test_one_stratum_is_no_stratum_and_one_without_pairs_adds_nothing(data):
    scores, targets, patients = data
    whole = auroc_influence(scores, targets, patients, P)
    one = auroc_influence(scores, targets, patients, P, np.zeros(N, dtype=int))
    np.testing.assert_allclose(one.of_patients, whole.of_patients)
    strata = np.where(targets == 1, 1, 2)  # each of one class
    assert np.isnan(auroc_influence(scores, targets, patients, P, strata).value)
    strata[: N // 2] = 0
    half = auroc_influence(scores, targets, patients, P, strata)
    assert half.value == pytest.approx(roc_auc_score(targets[: N // 2], scores[: N // 2]))
    assert half.units < whole.units


def test_what_is_undefined_stays_so():
    nothing = share_influence(np.ones(3, bool), np.zeros(3, bool), np.arange(3), 3)
    area = auroc_influence(np.ones(3), np.ones(3), np.arange(3), 3)
    assert np.isnan([nothing.value, area.value]).all()
    assert share_interval(nothing, 0.95) == logit_interval(area, 0.95) == Estimate(None)
    assert np.isnan(mean_influence([nothing], 3).value)
    assert np.isnan(mean_influence([], 3).value)
    assert np.isnan(influence_difference(area, area).p)


def test_a_mean_moves_with_its_parts(data):
    scores, targets, patients = data
    parts = [
        auroc_influence(scores, targets, patients, P),
        auroc_influence(-scores, np.roll(targets, 7), patients, P),
    ]
    mean = mean_influence(parts, P)
    assert mean.value == pytest.approx((parts[0].value + parts[1].value) / 2)
    np.testing.assert_allclose(mean.of_patients, (parts[0].of_patients + parts[1].of_patients) / 2)
    variances, freedom = [part.variance for part in parts], [part.units - 1 for part in parts]
    satterthwaite = sum(variances) ** 2 / sum(v**2 / f for v, f in zip(variances, freedom, strict=True))
    assert mean.units == 1 + int(satterthwaite)


def test_shares_of_independent_images_have_wilsons_interval():
    hits, patients = np.arange(5000) < 4200, np.arange(5000)
    interval = share_interval(share_influence(hits, np.ones(5000, bool), patients, 5000), 0.95)
    expected = binomtest(4200, 5000).proportion_ci(method="wilson")
    assert [interval.low, interval.high] == pytest.approx([expected.low, expected.high], abs=1e-5)


def test_shares_of_0_and_1_have_an_interval_of_their_patients():
    patients = np.repeat(np.arange(30), 3)
    whole = share_influence(np.ones(90, bool), np.ones(90, bool), patients, 30)
    low = 30 / (30 + t.ppf(0.975, 29) ** 2)
    assert share_interval(whole, 0.95) == Estimate(1.0, pytest.approx(low), 1.0)
    none = share_influence(np.zeros(90, bool), np.ones(90, bool), patients, 30)
    assert share_interval(none, 0.95) == Estimate(0.0, 0.0, pytest.approx(1 - low))


def test_images_of_one_patient_who_agree_count_once():
    patients, hits = np.repeat(np.arange(40), 5), np.repeat(np.arange(40) < 30, 5)
    clustered = share_influence(hits, np.ones(200, bool), patients, 40)
    alone = share_influence(np.arange(40) < 30, np.ones(40, bool), np.arange(40), 40)
    ours, theirs = share_interval(clustered, 0.95), share_interval(alone, 0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_intervals_of_areas_are_within_0_and_1(data):
    scores, targets, patients = data
    area = auroc_influence(scores + 0.6 * targets, targets, patients, P)
    interval = logit_interval(area, 0.95)
    assert 0 < interval.low < area.value < interval.high <= 1
    perfect = auroc_influence(targets, targets, patients, P)
    assert logit_interval(perfect, 0.95).high == 1.0
    assert 0.8 < logit_interval(perfect, 0.95).low < 1.0
    constant = auroc_influence(np.ones(N), targets, patients, P)
    assert logit_interval(constant, 0.95) == Estimate(0.5)
    assert np.isnan(influence_difference(constant, area).p)


def shares(found, total, *, start=0):
    """Return a share of independent images, of patients ``start`` and on."""
    patients = start + np.arange(total)
    return share_influence(np.arange(total) < found, np.ones(total, bool), patients, 2000)


def test_two_large_groups_are_compared_as_two_proportions_are():
    test = influence_difference(shares(675, 900), shares(600, 900, start=900))
    together = (675 + 600 + 1) / (900 + 900 + 2)
    error = np.sqrt(together * (1 - together) * 2 / 899)  # of no difference, which is the larger variance
    assert test.p == pytest.approx(2 * t.sf((75 / 900) / error, 899), rel=1e-4)
    interval = test.estimate(0.95)
    assert [interval.low, interval.high] == pytest.approx(
        [75 / 900 - t.ppf(0.975, 899) * error, 75 / 900 + t.ppf(0.975, 899) * error], rel=1e-4
    )


@pytest.mark.parametrize("found", [20, 19])
def test_a_small_group_near_1_is_not_certain(found):
    """Where 86 % are found, all of 20 are with a probability of 0.05; the group itself hardly varies."""
    test = influence_difference(shares(found, 20), shares(1700, 1980, start=20))
    assert test.p > 0.05
    assert test.freedom == 19


def test_a_small_group_below_one_near_1_is_not_certain_either():
    """Where 1 % are missed, 3 of 20 are with p = 0.001; the share of the others alone would give 1e-9."""
    test = influence_difference(shares(17, 20), shares(1960, 1980, start=20))
    assert 0.01 < test.p < 0.2


def test_two_perfect_groups_do_not_differ():
    test = influence_difference(shares(20, 20), shares(30, 30, start=20))
    assert test.p == 1.0
    assert test.estimate(0.95).low < 0 < test.estimate(0.95).high


def test_the_same_patients_in_both_groups_make_a_difference_surer(data):
    _, _, patients = data
    rng = np.random.default_rng(3)
    ease = rng.random(P) < 0.6
    hits = ease[patients] ^ (rng.random(N) < 0.05)
    first = np.arange(N) % 2 == 0
    paired = [share_influence(hits, members, patients, P) for members in (first, ~first)]
    apart = [Influence(one.value, np.roll(one.of_patients, k), one.units, one.images)
             for k, one in enumerate(paired)]  # fmt: skip
    assert influence_difference(*paired).error < 0.7 * influence_difference(*apart).error


def test_paired_differences_have_the_bootstraps_spread(data):
    scores, targets, patients = data
    strata = (targets + scores + np.random.default_rng(1).normal(size=N) > 1).astype(int)
    whole = auroc_influence(scores, targets, patients, P)
    within = auroc_influence(scores, targets, patients, P, strata)
    test = paired_difference(whole, within)
    drawn = []
    for weights in patient_counts(P, 500, 0)[patients].T:
        areas = [roc_auc_score(targets, scores, sample_weight=weights)]
        pairs = []
        for stratum in (0, 1):
            own = strata == stratum
            areas.append(roc_auc_score(targets[own], scores[own], sample_weight=weights[own]))
            pairs.append(weights[own & (targets == 1)].sum() * weights[own & (targets == 0)].sum())
        drawn.append(areas[0] - np.average(areas[1:], weights=pairs))
    assert test.difference == pytest.approx(whole.value - within.value)
    assert test.error == pytest.approx(np.std(drawn), rel=0.15)
    assert np.isnan(paired_difference(whole, whole).p)


@pytest.mark.slow
@pytest.mark.parametrize("truth", [0.7, 0.9, 0.97])
@pytest.mark.parametrize("num_patients", [10, 25])
def test_intervals_of_shares_of_few_patients_hold_the_truth(truth, num_patients):
    rng, images, held = np.random.default_rng(0), 4, 0
    patients = np.repeat(np.arange(num_patients), images)
    for _ in range(1000):
        own = rng.normal(size=num_patients)[patients]
        scores = np.sqrt(0.5) * (own + rng.normal(size=len(patients)))
        share = share_influence(
            scores < norm.ppf(truth), np.ones(len(patients), bool), patients, num_patients
        )
        interval = share_interval(share, 0.95)
        held += interval.low <= truth <= interval.high
    assert 925 <= held <= 995
