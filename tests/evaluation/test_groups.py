import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from cxrlab.evaluation.groups import (
    GROUP_METRICS,
    Group,
    counted,
    covariate_groups,
    group_metrics,
    macro_labels,
    with_macro,
)
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


def values(metrics, label):
    return [metrics.value(name, label) for name in GROUP_METRICS]


def test_values_and_influences_are_those_of_scikit_learn(table, group):
    metrics = group_metrics(table, THRESHOLDS, group)
    for label in range(3):
        np.testing.assert_allclose(
            values(metrics, label), references(table, group.members, np.ones(N), label)
        )
        for patient in range(0, P, 7):  # the influence is the derivative by the patient's weight
            ends = [
                references(table, group.members, 1 + step * (table.patients == patient), label)
                for step in (1e-4, -1e-4)
            ]
            moves = [metrics.metrics[name][label].of_patients[patient] for name in GROUP_METRICS]
            expected = np.nan_to_num(np.subtract(*ends) / 2e-4)
            np.testing.assert_allclose(moves, expected, atol=1e-7)


def test_counts_are_of_the_group(table, group):
    metrics = counted(table, group)
    targets, patients = table.targets[group.members], table.patients[group.members]
    assert metrics.num_positives.tolist() == (targets == 1).sum(axis=0).tolist()
    assert metrics.num_images.tolist() == (~np.isnan(targets)).sum(axis=0).tolist()
    assert metrics.num_patients == len(set(patients))
    owners = [[len(set(patients[targets[:, label] == side])) for label in range(3)] for side in (1, 0)]
    assert [metrics.positive_patients.tolist(), metrics.negative_patients.tolist()] == owners
    assert np.isnan(values(metrics, 0)).all()


def test_behind_a_value_stand_the_images_that_it_is_of(table, group):
    metrics = group_metrics(table, THRESHOLDS, group)
    targets = table.targets[group.members, 1]
    sizes = [metrics.behind(name, 1) for name in GROUP_METRICS]
    assert sizes == [int((~np.isnan(targets)).sum()), int((targets == 1).sum()), int((targets == 0).sum())]
    patients = table.patients[group.members]
    owners = [len(set(patients[targets == side])) for side in (1, 0)]
    units = [metrics.metrics[name][1].units for name in GROUP_METRICS]
    assert units == [min(owners), *owners]


def test_a_group_without_negatives_is_compared_with_those_of_all(table):
    rows = np.flatnonzero(table.targets[:, 0] == 1)[:30]
    group = Group("bacteria", np.isin(np.arange(N), rows))
    metrics = group_metrics(table, THRESHOLDS, group)
    assert metrics.borrows.tolist() == [True, False, False]
    chosen = group.members | (table.targets[:, 0] == 0)
    targets, scores = table.targets[chosen, 0], table.probabilities[chosen, 0]
    auroc, sensitivity, specificity = values(metrics, 0)
    assert auroc == pytest.approx(roc_auc_score(targets, scores))
    weights = [(1 + step * (table.patients == table.patients[rows[0]]))[chosen] for step in (1e-4, -1e-4)]
    ends = [roc_auc_score(targets, scores, sample_weight=weight) for weight in weights]
    moved = metrics.metrics["auroc"][0].of_patients[table.patients[rows[0]]]
    assert moved == pytest.approx((ends[0] - ends[1]) / 2e-4, abs=1e-7)
    assert sensitivity == (table.probabilities[rows, 0] >= 0.5).mean()
    assert np.isnan(specificity)


def test_a_group_without_positives_has_a_specificity_only(table):
    rows = np.flatnonzero(table.targets[:, 0] == 0)[:30]
    group = Group("well", np.isin(np.arange(N), rows))
    metrics = group_metrics(table, THRESHOLDS, group)
    assert not metrics.borrows[0]
    auroc, sensitivity, specificity = values(metrics, 0)
    assert np.isnan([auroc, sensitivity]).all()
    assert specificity == (table.probabilities[rows, 0] < 0.5).mean()


def fewest_patients(metrics, label):
    return int(min(metrics.positive_patients[label], metrics.negative_patients[label]))


def test_the_macro_mean_runs_over_the_same_labels_in_all_groups(table, group):
    other = Group("others", ~group.members)
    both = [group_metrics(table, THRESHOLDS, one) for one in (group, other)]
    fewest = min(fewest_patients(one, 2) for one in both)
    assert macro_labels(both, fewest).tolist() == [True, True, True]
    chosen = macro_labels(both, fewest + 1)
    assert chosen.tolist() == [True, True, False]
    for one in both:
        mean = with_macro(one, chosen, fewest + 1)
        assert mean.labels == ("A", "B", "C", "macro")
        assert mean.macro_of == ("A", "B")
        np.testing.assert_allclose(values(mean, 3), np.mean([values(one, 0), values(one, 1)], axis=0))
        for name in GROUP_METRICS:
            parts = [one.metrics[name][label].of_patients for label in range(2)]
            np.testing.assert_allclose(mean.metrics[name][3].of_patients, np.mean(parts, axis=0))
        assert mean.num_images[3] == one.group.members.sum()


def test_labels_without_threshold_are_left_out_of_the_means_that_need_one(table, group):
    metrics = group_metrics(table, THRESHOLDS, group)
    mean = with_macro(metrics, np.array([True, True, True]), 1)
    of_labels = np.array([values(metrics, label) for label in range(3)])
    np.testing.assert_allclose(values(mean, 3), [of_labels[:, 0].mean(), *of_labels[:2, 1:].mean(axis=0)])


def test_a_tiny_group_has_no_mean_rather_than_take_the_labels_of_others(table, group):
    tiny = Group("tiny", np.arange(N) < 8)
    groups = [group_metrics(table, THRESHOLDS, one) for one in (group, tiny)]
    chosen = macro_labels(groups, 9)
    assert chosen.tolist() == [True, True, True]
    assert not np.isnan(with_macro(groups[0], chosen, 9).value("auroc", 3))
    assert np.isnan(values(with_macro(groups[1], chosen, 9), 3)).all()
    assert not macro_labels(groups, 1000).any()
