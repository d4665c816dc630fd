import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrlab.metrics import ranking as module
from cxrlab.metrics.bootstrap import patient_counts
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.ranking import label_rankings, micro_ranking, ranking

EXACT = {"rtol": 0, "atol": 1e-12}


def reference(scores, targets, weights):
    """Both metrics by scikit-learn; images that are not drawn are taken out."""
    drawn = weights > 0
    scores, targets, weights = scores[drawn], targets[drawn], weights[drawn]
    if len(np.unique(targets)) < 2:
        return np.nan, np.nan
    areas = (roc_auc_score, average_precision_score)
    return tuple(area(targets, scores, sample_weight=weights) for area in areas)


def check(found, row, scores, targets, patients, counts):
    """Compare one label, the sample and each resample."""
    whole = reference(scores, targets, np.ones(len(scores)))
    np.testing.assert_allclose([found.auroc[row], found.average_precision[row]], whole, **EXACT)
    samples = [reference(scores, targets, weights[patients]) for weights in counts.T.astype(float)]
    both = np.stack([found.auroc_samples[row], found.average_precision_samples[row]], axis=1)
    np.testing.assert_allclose(both, np.reshape(samples, (-1, 2)), **EXACT)


def made_table(*, decimals, num_images=400, num_patients=90, seed=0):
    """Images of repeated patients: five labels, one of them rare, one half unknown, one without positives."""
    generator = np.random.default_rng(seed)
    patients = np.concatenate(
        [np.arange(num_patients), generator.integers(num_patients, size=num_images - num_patients)]
    )
    prevalences = np.array([0.3, 0.7, 0.0, 0.2, 0.0])
    targets = (generator.random((num_images, 5)) < prevalences).astype(float)
    targets[:, 2] = np.arange(num_images) < 2
    scores = 1 / (1 + np.exp(-generator.normal(size=targets.shape) - targets))
    targets[generator.random(num_images) < 0.5, 3] = np.nan
    images = np.array([f"{index}.png" for index in range(num_images)], dtype=object)
    return PredictionTable(images, patients, tuple("abcde"), targets, scores.round(decimals))


@pytest.mark.parametrize("decimals", [0, 1, 2, 16])
def test_each_label_and_resample_is_what_scikit_learn_gives(decimals):
    table = made_table(decimals=decimals)
    counts = patient_counts(table.num_patients, 20, seed=1)
    found = label_rankings(table, counts)
    assert found.auroc.shape == found.average_precision.shape == (5,)
    assert found.auroc_samples.shape == found.average_precision_samples.shape == (5, 20)
    for row in range(5):
        known = table.known[:, row]
        scores, targets = table.probabilities[known, row], table.targets[known, row]
        check(found, row, scores, targets, table.patients[known], counts)
    assert np.isnan(found.auroc_samples[4]).all()
    assert 0 < np.isnan(found.auroc_samples[2]).sum() < 20  # two positives: some resamples have none


@pytest.mark.parametrize("decimals", [1, 16])
def test_micro_pools_the_known_pairs(decimals):
    table = made_table(decimals=decimals)
    counts = patient_counts(table.num_patients, 20, seed=2)
    known = table.known
    patients = np.repeat(table.patients, 5).reshape(known.shape)[known]
    found = micro_ranking(table, counts)
    assert found.auroc_samples.shape == (1, 20)
    check(found, 0, table.probabilities[known], table.targets[known], patients, counts)


@given(
    images=st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 5)), min_size=1, max_size=25),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=40)
def test_few_images_with_many_ties(images, seed):
    scores, targets, patients = (np.array(column) for column in zip(*images, strict=True))
    counts = patient_counts(6, 5, seed)
    found = ranking(scores / 4, targets.astype(float), patients, counts)
    check(found, 0, scores / 4, targets, patients, counts)
    # A monotonic change of the scores changes nothing, and the opposite of scores and targets no AUROC.
    monotonic = ranking(np.exp(scores), targets.astype(float), patients, counts)
    np.testing.assert_array_equal(monotonic.auroc_samples, found.auroc_samples)
    opposite = ranking(-scores / 4, 1.0 - targets, patients, counts)
    np.testing.assert_allclose(opposite.auroc_samples, found.auroc_samples, **EXACT)


def test_weights_may_be_fractions():
    table = made_table(decimals=1)
    counts = np.random.default_rng(0).random((table.num_patients, 9))
    scores, targets = table.probabilities[:, 0], table.targets[:, 0]
    check(ranking(scores, targets, table.patients, counts), 0, scores, targets, table.patients, counts)


@pytest.mark.parametrize(
    "limits", [{"MAX_BLOCK": 1}, {"MAX_BLOCK": 7}, {"MAX_CELLS": 300}, {"MAX_THREADS": 1}]
)
def test_blocks_and_threads_change_nothing(limits, monkeypatch):
    table = made_table(decimals=2)
    counts = patient_counts(table.num_patients, 50, seed=3)
    expected = label_rankings(table, counts)
    for name, value in limits.items():
        monkeypatch.setattr(module, name, value)
    found = label_rankings(table, counts)
    np.testing.assert_allclose(found.auroc_samples, expected.auroc_samples, **EXACT)
    precision, expected_precision = found.average_precision_samples, expected.average_precision_samples
    np.testing.assert_allclose(precision, expected_precision, **EXACT)


def test_known_extremes():
    patients, counts = np.array([0, 1, 2, 3]), np.array([[1.0, 1], [1, 1], [1, 0], [1, 0]])
    scores = np.array([0.9, 0.8, 0.2, 0.1])
    perfect = ranking(scores, np.array([1.0, 1, 0, 0]), patients, counts)
    np.testing.assert_array_equal(perfect.auroc_samples, [[1, np.nan]])
    np.testing.assert_array_equal(perfect.average_precision_samples, [[1, np.nan]])
    worst = ranking(scores, np.array([0.0, 0, 1, 1]), patients, counts)
    np.testing.assert_array_equal(worst.auroc_samples, [[0, np.nan]])
    np.testing.assert_allclose(worst.average_precision, [(1 / 3 + 2 / 4) / 2])
    constant = ranking(np.full(4, 0.5), np.array([1.0, 0, 0, 0]), patients, counts)
    np.testing.assert_array_equal(constant.auroc_samples, [[0.5, 0.5]])
    np.testing.assert_array_equal(constant.average_precision_samples, [[0.25, 0.5]])


@pytest.mark.parametrize("targets", [[], [0.0], [1.0, 1.0, 1.0]])
def test_one_class_or_none_is_undefined(targets):
    patients = np.arange(len(targets))
    found = ranking(
        np.linspace(0, 1, len(targets)), np.array(targets), patients, patient_counts(3, 8, seed=0)
    )
    assert np.isnan([found.auroc, found.average_precision]).all()
    assert np.isnan([found.auroc_samples, found.average_precision_samples]).all()


def test_no_resamples():
    table = made_table(decimals=2)
    found = label_rankings(table, np.empty((table.num_patients, 0), dtype=np.float32))
    assert found.auroc_samples.shape == (5, 0)
    assert not np.isnan(found.auroc[:4]).any()


def test_sums_beyond_float32_stay_exact():
    # 3e4 positives and as many negatives make 9e8 pairs, 3e7 of them tied, more than float32 counts.
    generator = np.random.default_rng(0)
    targets = np.repeat([0.0, 1.0], 30_000)
    scores = (generator.normal(size=60_000) + targets).round(1)
    patients = generator.integers(500, size=60_000)
    counts = patient_counts(500, 2, seed=0)
    check(ranking(scores, targets, patients, counts), 0, scores, targets, patients, counts)


def test_nan_is_rejected():
    scores, targets = np.array([0.5, 0.2]), np.array([1.0, np.nan])
    with pytest.raises(ValueError, match="1 scores or targets are NaN"):
        ranking(scores, targets, np.array([0, 1]), patient_counts(2, 2, seed=0))
