from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm

from cxrlab.evaluation.disparities import largest_gaps
from cxrlab.evaluation.groups import Group, GroupMetrics
from cxrlab.metrics.bootstrap import Estimate, p_value

B = 1000
SETTINGS = SimpleNamespace(level=0.95, min_positives=10)


def group(name, value, deviation=0.02, *, seed=0, labels=("A",), positives=50, borrows=False, units=50):
    """A group with the same value of AUROC for each label; sensitivity and specificity are undefined."""
    values, samples = np.full((3, len(labels)), np.nan), np.full((3, len(labels), B), np.nan)
    values[0] = value
    samples[0] = value + deviation * np.random.default_rng(seed).normal(size=(len(labels), B))
    size = np.full(len(labels), positives)
    return GroupMetrics(
        group=Group(name, np.ones(200, dtype=bool)),
        labels=labels,
        num_images=2 * size,
        num_positives=size,
        num_negatives=size,
        num_patients=99,
        borrows=np.full(len(labels), borrows),
        values=values,
        samples=samples,
        units=np.full((3, len(labels)), units),
    )


def test_two_groups_are_compared_on_the_same_resamples():
    first, second = group("F", 0.81, seed=1), group("M", 0.84, seed=2)
    (gap,) = largest_gaps("sex", [first, second], SETTINGS)
    differences = first.samples[0, 0] - second.samples[0, 0]
    assert gap.difference.value == pytest.approx(-0.03)
    low, high = np.quantile(differences, [0.025, 0.975])
    assert [gap.difference.low, gap.difference.high] == pytest.approx([low, high])
    assert gap.p == gap.p_holm == p_value(differences)
    assert (gap.covariate, gap.label, gap.metric) == ("sex", "A", "auroc")
    assert (gap.groups, gap.images) == (("F", "M"), (100, 100))
    assert gap.description == "F 0.810 (100 images) against M 0.840 (100 images): no difference shown"


def test_groups_that_vary_together_differ_more_surely():
    first, second = group("F", 0.81, seed=1), group("M", 0.84, seed=1)
    second.samples[0, 0] += np.random.default_rng(3).normal(size=B) * 0.002
    (gap,) = largest_gaps("sex", [first, second], SETTINGS)
    assert gap.p < 0.001
    assert gap.description.endswith("a difference is shown")


def test_all_pairs_are_corrected_together():
    groups = [
        group(name, value, seed=seed)
        for seed, (name, value) in enumerate([("a", 0.8), ("b", 0.78), ("c", 0.86)])
    ]
    (gap,) = largest_gaps("age", groups, SETTINGS)
    assert gap.groups == ("b", "c")
    pairs = [(0, 1), (0, 2), (1, 2)]
    p = [p_value(groups[a].samples[0, 0] - groups[b].samples[0, 0]) for a, b in pairs]
    assert gap.p == p[2] == min(p)
    assert gap.p_holm == pytest.approx(3 * p[2])


def test_labels_are_corrected_together_and_the_mean_by_itself():
    labels = ("A", "B", "C", "macro")
    groups = [group("F", 0.81, seed=1, labels=labels), group("M", 0.87, seed=2, labels=labels)]
    gaps = {gap.label: gap for gap in largest_gaps("sex", groups, SETTINGS)}
    assert set(gaps) == set(labels)
    assert gaps["macro"].p_holm == gaps["macro"].p
    assert min(gaps[label].p_holm for label in "ABC") == pytest.approx(
        3 * min(gaps[label].p for label in "ABC")
    )


def test_the_largest_that_is_shown_goes_before_a_larger_one():
    groups = [group("a", 0.8, 0.001), group("b", 0.83, 0.001, seed=1), group("tiny", 0.9, 0.2, seed=2)]
    (gap,) = largest_gaps("age", groups, SETTINGS)
    assert gap.groups == ("a", "b")
    assert gap.description.endswith("a difference is shown; larger ones between other groups are not")


def test_below_the_resolution_of_the_resamples_the_normal_distribution_goes_on():
    first, second = group("F", 0.7, seed=1), group("M", 0.9, seed=2)
    (gap,) = largest_gaps("sex", [first, second], SETTINGS)
    deviation = np.std(first.samples[0, 0] - second.samples[0, 0])
    assert gap.p == pytest.approx(2 * norm.sf(0.2 / deviation))
    assert gap.p < 2 / (B + 1)


def test_a_value_that_never_varied_is_not_certain():
    perfect, other = group("F", 1.0, 0.0, units=10), group("M", 0.9, 0.01, seed=1)
    (gap,) = largest_gaps("sex", [perfect, other], SETTINGS)
    z = norm.ppf(0.975)
    variance = (z / (10 + z**2)) ** 2 + np.var(other.samples[0, 0])  # Wilson's interval of 10 of 10
    assert gap.p == pytest.approx(2 * norm.sf(0.1 / np.sqrt(variance)))
    assert gap.p > 0.2
    assert gap.difference.low == pytest.approx(0.1 - z * np.sqrt(variance))


def test_what_cannot_be_tested_says_so():
    (gap,) = largest_gaps("sex", [group("F", 0.5, 0.0), group("M", 0.9)], SETTINGS)
    assert gap.p is None
    assert gap.p_holm is None
    assert gap.difference == Estimate(pytest.approx(-0.4))
    assert gap.description.endswith("cannot be tested")


def test_two_perfect_groups_do_not_differ():
    (gap,) = largest_gaps("sex", [group("F", 1.0, 0.0), group("M", 1.0, 0.0)], SETTINGS)
    assert gap.p == 1.0


@pytest.mark.parametrize(
    "others",
    [[], [group("M", 0.9, positives=9)], [group("M", 0.9, borrows=True)], [group("M", np.nan)]],
    ids=["alone", "few positives", "other negatives", "undefined"],
)
def test_groups_that_are_not_alike_are_not_compared(others):
    assert largest_gaps("sex", [group("F", 0.8), *others], SETTINGS) == []
