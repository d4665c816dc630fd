"""DeLong's covariance against two published examples, all pairs one by one, jackknife and bootstrap."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.delong import area_difference, delong, delong_estimate, delong_test

# Albumin, total protein, Krebs-Goplerud score, success of surgery: 43 of the 49 women with ovarian cancer of
# DeLong et al. 1988, as SAS/STAT prints them (LOGISTIC procedure, "Comparing Receiver Operating Characteristic
# Curves"); the score is taken from 10 there, so that higher is better.
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1
3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0
2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1
3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0
3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1
3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""

# Patient, stenosis present, reader 1, reader 2: 65 arteries of 36 patients at MR angiography, the example of
# Obuchowski 1997 (table 3) as the Cleveland Clinic's guide to its functions for clustered ROC data prints it.
ARTERIES = """
1 1 87 87  1 1 79 83  2 1 88 94  2 1 95 93  3 1 100 100  3 1 68 79  4 1 65 61  4 1 89 91  5 1 97 97
5 1 100 100  6 1 100 99  6 1 89 88  7 1 77 77  8 1 94 89  8 0 45 44  9 1 89 92  9 0 -11 -17  10 1 95 91
10 0 30 14  11 1 95 95  11 0 10 -122  12 1 100 100  12 0 19 -3  13 1 75 75  14 0 70 73  14 1 70 81
15 0 26 27  15 1 86 93  16 0 0 8  16 1 65 70  17 0 6 23  17 1 100 100  18 0 76 79  18 1 96 95  19 0 44 55
19 1 100 100  20 0 73 67  20 1 97 94  21 1 85 86  22 0 58 60  22 1 100 99  23 0 -2 -2  23 1 100 100
24 0 -3 -14  24 0 0 -11  25 0 47 -3  25 0 -94 -90  26 0 -16 17  26 0 75 85  27 0 5 -22  27 0 -1 -14
28 0 -6 -52  29 0 37 38  29 0 47 35  30 0 42 40  30 0 4 6  31 0 55 23  31 0 55 45  32 0 4 -87
32 0 -13 -65  33 0 49 24  33 0 35 9  34 0 53 66  35 0 2 -15  36 0 -48 -78
"""


def ends(area):
    return area.difference.value, area.difference.low, area.difference.high


def brute_force(scores, targets, patients):
    """Obuchowski's formulas (1997, p. 570), pair by pair and patient by patient."""
    positives, negatives = np.flatnonzero(targets == 1), np.flatnonzero(targets == 0)
    num_models, m, n = len(scores), len(positives), len(negatives)
    wins = np.zeros((num_models, m, n))
    for k in range(num_models):
        for i, positive in enumerate(positives):
            for j, negative in enumerate(negatives):
                difference = scores[k, positive] - scores[k, negative]
                wins[k, i, j] = 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0
    aurocs = wins.mean(axis=(1, 2))
    names = sorted(set(patients.tolist()))
    x, y = np.zeros((num_models, len(names))), np.zeros((num_models, len(names)))
    for column, name in enumerate(names):
        for i in np.flatnonzero(patients[positives] == name):
            x[:, column] += wins[:, i].mean(axis=1) - aurocs
        for j in np.flatnonzero(patients[negatives] == name):
            y[:, column] += wins[:, :, j].mean(axis=1) - aurocs
    with_positive, with_negative = len(set(patients[positives])), len(set(patients[negatives]))
    s10 = with_positive / ((with_positive - 1) * m) * x @ x.T
    s01 = with_negative / ((with_negative - 1) * n) * y @ y.T
    s11 = len(names) / (len(names) - 1) * x @ y.T
    return aurocs, s10 / m + s01 / n + (s11 + s11.T) / (m * n)


def clustered(generator, *, num_patients=60, num_models=3, decimals=1):
    """Correlated models; images of a patient resemble one another, may be of both classes, and tie."""
    sizes = generator.integers(1, 6, num_patients)
    patients = np.repeat(np.arange(num_patients), sizes)
    tendency = generator.beta(0.4, 0.7, num_patients)
    targets = (generator.random(len(patients)) < tendency[patients]).astype(float)
    common = generator.normal(size=num_patients)[patients] + generator.normal(size=len(patients)) + targets
    scores = common + generator.normal(size=(num_models, len(patients)))
    return scores.round(decimals), targets, patients


def test_ovarian_cancer_example():
    table = np.array(OVARIAN.split(), dtype=float).reshape(-1, 4)
    scores, targets = table[:, :3].T.copy(), table[:, 3]
    scores[2] = 10 - scores[2]
    aurocs, covariance = delong(scores, targets, None)
    assert aurocs == pytest.approx([0.7366, 0.6478, 0.7258], abs=5e-5)
    assert np.sqrt(np.diag(covariance)) == pytest.approx([0.0927, 0.1000, 0.1028], abs=5e-5)
    albumin = area_difference(aurocs, covariance, 0, 2, 0.95)
    assert (*ends(albumin), albumin.p) == pytest.approx((0.0108, -0.1761, 0.1976, 0.9102), abs=5e-5)
    protein = delong_test(scores[1], scores[2], targets, None, 0.95)
    assert (*ends(protein), protein.p) == pytest.approx((-0.0780, -0.2830, 0.1271, 0.4561), abs=5e-5)


def test_clustered_arteries_example():
    table = np.array(ARTERIES.split(), dtype=float).reshape(-1, 4)
    patients, targets, scores = table[:, 0].astype(np.int64), table[:, 1], table[:, 2:].T
    aurocs, covariance = delong(scores, targets, patients)
    assert aurocs == pytest.approx([0.9837, 0.9852], abs=5e-5)
    # S10, S01 and S11 as they are printed, for 29 arteries with and 36 without stenosis.
    first = 0.0013151307 / 29 + 0.0022375873 / 36 + 2 * 0.0051785478 / (29 * 36)
    second = 0.0009284122 / 29 + 0.0022598583 / 36 - 2 * 0.0005015760 / (29 * 36)
    both = 0.0008484357 / 29 + 0.0019241250 / 36 + (0.0028648340 - 0.0015136931) / (29 * 36)
    np.testing.assert_allclose(covariance, [[first, both], [both, second]], rtol=0, atol=1e-11)
    assert np.sqrt(np.diag(covariance)) == pytest.approx([0.0108, 0.0097], abs=5e-5)
    difference = delong_test(scores[1], scores[0], targets, patients, 0.95)
    assert (*ends(difference), difference.p) == pytest.approx((0.0014, -0.0115, 0.0143, 0.8271), abs=5e-5)
    one = delong_estimate(scores[0], targets, patients, 0.95)
    assert one.low == pytest.approx(0.9625, abs=5e-5)
    assert one.high == 1.0  # 1.005 before it is cut off


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_all_pairs_one_by_one(seed, decimals):
    scores, targets, patients = clustered(np.random.default_rng(seed), num_patients=25, decimals=decimals)
    aurocs, covariance = delong(scores, targets, patients)
    expected_aurocs, expected_covariance = brute_force(scores, targets, patients)
    np.testing.assert_allclose(aurocs, expected_aurocs, rtol=1e-12)
    np.testing.assert_allclose(covariance, expected_covariance, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(aurocs, [roc_auc_score(targets, row) for row in scores], rtol=1e-12)


def test_plain_is_the_sample_covariance_of_the_components():
    scores, targets, _ = clustered(np.random.default_rng(5), num_patients=30)
    pairs = scores[:, targets == 1][:, :, None] - scores[:, targets == 0][:, None]
    wins = (np.sign(pairs) + 1) / 2
    s10, s01 = np.cov(wins.mean(axis=2)), np.cov(wins.mean(axis=1))
    expected = s10 / (targets == 1).sum() + s01 / (targets == 0).sum()
    np.testing.assert_allclose(delong(scores, targets, None)[1], expected, rtol=1e-10)


def test_one_image_a_patient_is_plain_without_any_factor():
    scores, targets, _ = clustered(np.random.default_rng(6))
    numbers = np.random.default_rng(0).permutation(len(targets)) * 7
    np.testing.assert_allclose(
        delong(scores, targets, numbers)[1], delong(scores, targets, None)[1], rtol=1e-12
    )


def test_images_that_stand_twice_in_a_patient_say_nothing_new():
    scores, targets, patients = clustered(np.random.default_rng(7))
    once, covariance = delong(scores, targets, patients)
    twice = np.tile(scores, 2), np.tile(targets, 2), np.tile(patients, 2)
    aurocs, repeated = delong(*twice)
    np.testing.assert_allclose(aurocs, once, rtol=1e-12)
    np.testing.assert_allclose(repeated, covariance, rtol=1e-12)
    plain = delong(scores, targets, None)[1]
    ratio = delong(twice[0], twice[1], None)[1] / plain
    assert np.all((ratio > 0.45) & (ratio < 0.5))  # taken for new images, they halve the variance


def test_jackknife_over_patients():
    scores, targets, patients = clustered(np.random.default_rng(8), num_patients=200, decimals=3)
    left_out = np.stack(
        [delong(scores[:, patients != one], targets[patients != one], None)[0] for one in range(200)], axis=1
    )
    centred = left_out - left_out.mean(axis=1, keepdims=True)
    jackknife = 199 / 200 * centred @ centred.T
    covariance = delong(scores, targets, patients)[1]
    np.testing.assert_allclose(covariance, jackknife, rtol=0.05)
    assert np.diag(delong(scores, targets, None)[1] / covariance).max() < 0.9  # patients do matter here


def test_bootstrap_of_patients():
    generator = np.random.default_rng(9)
    scores, targets, patients = clustered(generator, num_patients=150, num_models=2, decimals=3)
    rows = [np.flatnonzero(patients == one) for one in range(150)]
    drawn = []
    for _ in range(800):
        chosen = np.concatenate([rows[one] for one in generator.integers(150, size=150)])
        drawn.append(delong(scores[:, chosen], targets[chosen], None)[0])
    np.testing.assert_allclose(delong(scores, targets, patients)[1], np.cov(np.array(drawn).T), rtol=0.2)


def test_unknown_targets_are_left_out():
    scores, targets, patients = clustered(np.random.default_rng(10))
    unknown = np.where(np.arange(len(targets)) % 3 == 0, np.nan, targets)
    kept = ~np.isnan(unknown)
    for given, of_given in ((patients, patients[kept]), (None, None)):
        left, right = delong(scores, unknown, given), delong(scores[:, kept], targets[kept], of_given)
        np.testing.assert_array_equal(left[0], right[0])
        np.testing.assert_array_equal(left[1], right[1])


def test_estimate_is_cut_off_at_one():
    scores, targets = np.array([0.9, 0.8, 0.4, 0.5, 0.1, 0.2]), np.array([1.0, 1, 1, 0, 0, 0])
    aurocs, covariance = delong(scores[None], targets, None)
    one = delong_estimate(scores, targets, None, 0.9)
    assert one.high == 1.0 < aurocs[0] + 1.6449 * covariance[0, 0] ** 0.5
    assert one.low == pytest.approx(aurocs[0] - 1.644854 * covariance[0, 0] ** 0.5)
    assert delong_estimate(-scores, targets, None, 0.9).low == 0.0


@pytest.mark.parametrize(
    ("scores", "targets", "patients", "expected"),
    [
        ([0.1, 0.2], [0, 0], None, Estimate(None)),
        ([0.1, 0.2], [1, 1], None, Estimate(None)),
        ([0.1, 0.2], [np.nan, np.nan], None, Estimate(None)),
        ([0.1, 0.2, 0.15], [0, 1, 1], None, Estimate(1.0)),
        ([0.1, 0.3, 0.2, 0.4], [0, 0, 1, 1], [0, 0, 1, 2], Estimate(0.75)),
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], None, Estimate(1.0)),
        ([0.7] * 5, [0, 0, 1, 1, 1], [0, 1, 2, 3, 3], Estimate(0.5)),
    ],
    ids=["no positive", "no negative", "all unknown", "one negative", "one patient", "separated", "tied"],
)
def test_what_is_undefined_has_no_interval(scores, targets, patients, expected):
    numbers = None if patients is None else np.array(patients)
    assert delong_estimate(np.array(scores), np.array(targets, dtype=float), numbers, 0.95) == expected


def test_models_that_rank_alike_do_not_differ():
    scores, targets, patients = clustered(np.random.default_rng(11))
    same = delong_test(scores[0], 1 / (1 + np.exp(-scores[0])), targets, patients, 0.95)
    assert same.difference == Estimate(0.0)
    assert same.p == 1


def test_a_difference_that_does_not_vary_has_no_test():
    targets = np.array([0.0, 0, 1, 1])
    opposite = delong_test(np.arange(4.0), -np.arange(4.0), targets, None, 0.95)
    assert opposite.difference == Estimate(1.0)
    assert np.isnan(opposite.p)
    one_class = delong_test(np.arange(4.0), -np.arange(4.0), np.zeros(4), None, 0.95)
    assert one_class.difference == Estimate(None)
    assert np.isnan(one_class.p)


def test_the_order_of_models_is_a_sign():
    scores, targets, patients = clustered(np.random.default_rng(12))
    there = delong_test(scores[0], scores[1], targets, patients, 0.95)
    back = delong_test(scores[1], scores[0], targets, patients, 0.95)
    turned = -there.difference
    assert ends(back) == pytest.approx((turned.value, turned.low, turned.high))
    assert back.p == pytest.approx(there.p)


def test_shapes_that_do_not_fit_are_rejected():
    with pytest.raises(ValueError, match=r"scores \(5,\) must be \(K, N\) and targets \(5,\)"):
        delong(np.zeros(5), np.zeros(5), None)
    with pytest.raises(ValueError, match=r"patients \(4,\) and targets \(5,\)"):
        delong(np.zeros((1, 5)), np.zeros(5), np.zeros(4, dtype=np.int64))
