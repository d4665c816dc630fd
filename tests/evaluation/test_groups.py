import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from cxrlab.evaluation.groups import Group, counted, covariate_groups, group_metrics, macro_labels, with_macro
from cxrlab.metrics.bootstrap import patient_counts
from cxrlab.metrics.predictions import PredictionTable

BANDS = [0, 18, 40, 60, 80]


def sizes(name, values, ages=BANDS):
    groups = covariate_groups(name, pd.Series(values), ages)
    assert (np.sum([group.members for group in groups], axis=0) == 1).all()
    return {group.name: (int(group.members.sum()), group.is_compared) for group in groups}


def test_text_goes_by_value_and_missing_is_named_but_not_compared():
    assert sizes("sex", ["M", "F", "M", "", " ", np.nan, None, "Unknown"]) == {
        "F": (1, True),
        "M": (2, True),
        "unknown": (5, False),
    }


def test_rare_values_are_together():
    values = [f"site {number:02}" for number in range(14) for _ in range(14 - number)]
    groups = sizes("site", values)
    assert len(groups) == 13
    assert groups["site 00"] == (14, True)
    assert groups["2 other values"] == (3, False)
    assert sizes("site", values[:-1])["1 other value"] == (2, False)


def test_ages_are_in_bands_that_include_their_lower_edge():
    assert sizes("age", [0, 17.9, 18, 59, 80, 120, np.nan]) == {
        "0-17 years": (2, True),
        "18-39 years": (1, True),
        "40-59 years": (1, True),
        "80+ years": (2, True),
        "unknown": (1, False),
    }


@pytest.mark.parametrize(
    ("edges", "names"),
    [
        ([1.5, 6], ["under 1.5 years", "1.5 to under 6 years", "6+ years"]),
        ([6], ["under 6 years", "6+ years"]),
    ],
)
def test_other_edges(edges, names):
    assert list(sizes("age", [1, 2, 7], edges)) == names


def test_other_numbers_are_in_thirds():
    groups = sizes("dose", [*range(1, 31), np.nan])
    assert list(groups.values()) == [(10, True), (10, True), (10, True), (1, False)]
    assert next(iter(groups)).startswith("up to 10.6")


def test_few_numbers_go_by_value():
    assert sizes("dose", [2, 1, 2, np.nan]) == {"1": (1, True), "2": (2, True), "unknown": (1, False)}


def test_thirds_of_numbers_with_ties_leave_no_group_empty():
    assert all(count for count, _ in sizes("dose", [0.0] * 90 + list(range(1, 14))).values())


def test_numbers_beside_text_are_text():
    assert list(sizes("age", ["58", "old"])) == ["58", "old"]


def test_nothing_known_is_one_group():
    assert sizes("age", [np.nan, np.nan]) == {"unknown": (2, False)}


N, P = 200, 60


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    targets = (rng.random((N, 3)) < [0.5, 0.3, 0.2]).astype(float)
    probabilities = np.round(np.clip(0.3 * targets + rng.random((N, 3)) * 0.7, 0, 1), 1)  # with ties
    targets[rng.random((N, 3)) < 0.1] = np.nan
    patients = np.concatenate([np.arange(P), rng.integers(0, P, N - P)])
    images = np.array([f"{number}.png" for number in range(N)], dtype=object)
    covariates = pd.DataFrame(index=range(N))
    return PredictionTable(images, patients, ("A", "B", "C"), targets, probabilities, covariates)


@pytest.fixture
def group():
    return Group("some", np.random.default_rng(1).random(N) < 0.4)


THRESHOLDS = np.array([0.5, 0.4, np.nan])


def references(table, rows, weights, label):
    """The three metrics by scikit-learn."""
    rows = rows & ~np.isnan(table.targets[:, label])
    targets, scores, weights = table.targets[rows, label], table.probabilities[rows, label], weights[rows]
    called = scores >= THRESHOLDS[label]
    at_threshold = [
        recall_score(targets, called, sample_weight=weights, pos_label=side) for side in (1, 0)
    ]  # fmt: skip
    return [
        roc_auc_score(targets, scores, sample_weight=weights),
        *(at_threshold if not np.isnan(THRESHOLDS[label]) else [np.nan, np.nan]),
    ]


def test_values_and_resamples_are_those_of_scikit_learn(table, group):
    counts = patient_counts(P, 20, 0)
    metrics = group_metrics(table, THRESHOLDS, counts, group)
    for label in range(3):
        expected = references(table, group.members, np.ones(N), label)
        np.testing.assert_allclose(metrics.values[:, label], expected)
        for draw in range(20):
            expected = references(table, group.members, counts[table.patients, draw], label)
            np.testing.assert_allclose(metrics.samples[:, label, draw], expected)


def test_counts_are_of_the_group(table, group):
    metrics = counted(table, group, 5)
    targets, patients = table.targets[group.members], table.patients[group.members]
    assert metrics.num_positives.tolist() == (targets == 1).sum(axis=0).tolist()
    assert metrics.num_images.tolist() == (~np.isnan(targets)).sum(axis=0).tolist()
    assert metrics.num_patients == len(set(patients))
    owners = [[len(set(patients[targets[:, label] == side])) for label in range(3)] for side in (1, 0)]
    assert metrics.units[1:].tolist() == owners
    assert np.isnan(metrics.values).all()


def test_a_group_without_negatives_is_compared_with_those_of_all(table):
    rows = np.flatnonzero(table.targets[:, 0] == 1)[:30]
    group = Group("bacteria", np.isin(np.arange(N), rows))
    counts = patient_counts(P, 10, 0)
    metrics = group_metrics(table, THRESHOLDS, counts, group)
    assert metrics.borrows.tolist() == [True, False, False]
    chosen = group.members | (table.targets[:, 0] == 0)
    targets, scores = table.targets[chosen, 0], table.probabilities[chosen, 0]
    assert metrics.values[0, 0] == pytest.approx(roc_auc_score(targets, scores))
    weights = counts[table.patients[chosen], 3]
    expected = roc_auc_score(targets, scores, sample_weight=weights)
    assert metrics.samples[0, 0, 3] == pytest.approx(expected)
    assert metrics.values[1, 0] == (table.probabilities[rows, 0] >= 0.5).mean()
    assert np.isnan(metrics.values[2, 0])
    assert metrics.is_supported(10)[:, 0].tolist() == [True, True, False]


def test_a_group_without_positives_has_a_specificity_only(table):
    rows = np.flatnonzero(table.targets[:, 0] == 0)[:30]
    group = Group("well", np.isin(np.arange(N), rows))
    metrics = group_metrics(table, THRESHOLDS, patient_counts(P, 10, 0), group)
    assert not metrics.borrows[0]
    assert np.isnan(metrics.values[:2, 0]).all()
    assert metrics.values[2, 0] == (table.probabilities[rows, 0] < 0.5).mean()


def test_the_macro_mean_runs_over_the_same_labels_in_all_groups(table, group):
    counts = patient_counts(P, 10, 0)
    other = Group("others", ~group.members)
    both = [group_metrics(table, THRESHOLDS, counts, one) for one in (group, other)]
    fewest = min(int(one.num_positives[2]) for one in both)
    assert macro_labels(both, fewest).tolist() == [True, True, True]
    chosen = macro_labels(both, fewest + 1)
    assert chosen.tolist() == [True, True, False]
    for one in both:
        mean = with_macro(one, chosen, fewest + 1)
        assert mean.labels == ("A", "B", "C", "macro")
        np.testing.assert_allclose(mean.values[:, 3], one.values[:, :2].mean(axis=1))
        np.testing.assert_allclose(mean.samples[:, 3], one.samples[:, :2].mean(axis=1))
        assert mean.num_images[3] == one.group.members.sum()


def test_labels_without_threshold_are_left_out_of_the_means_that_need_one(table, group):
    metrics = group_metrics(table, THRESHOLDS, patient_counts(P, 10, 0), group)
    mean = with_macro(metrics, np.array([True, True, True]), 1).values[:, 3]
    expected = [metrics.values[0].mean(), *metrics.values[1:, :2].mean(axis=1)]
    np.testing.assert_allclose(mean, expected)


def test_a_tiny_group_has_no_mean_rather_than_take_the_labels_of_others(table, group):
    counts = patient_counts(P, 10, 0)
    tiny = Group("tiny", np.arange(N) < 8)
    groups = [group_metrics(table, THRESHOLDS, counts, one) for one in (group, tiny)]
    chosen = macro_labels(groups, 10)
    assert chosen.tolist() == [True, True, True]
    assert not np.isnan(with_macro(groups[0], chosen, 10).values[0, 3])
    assert np.isnan(with_macro(groups[1], chosen, 10).values[:, 3]).all()
    assert not macro_labels(groups, 1000).any()
