from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import t

from cxrlab.evaluation.disparities import equalised_odds, group_tests, largest_gaps, num_tested
from cxrlab.evaluation.groups import GROUP_METRICS, Group, GroupMetrics
from cxrlab.metrics.bootstrap import Estimate, holm
from cxrlab.metrics.influence import Influence

P = 4000
SETTINGS = SimpleNamespace(level=0.95, min_gap_patients=20)


def influence(value, deviation, units, *, seed=0):
    """Return a metric with a standard error, of ``units`` patients chosen by the seed."""
    rng = np.random.default_rng(seed)
    moves = np.zeros(P)
    if deviation:
        own = rng.normal(size=units)
        own -= own.mean()
        moves[rng.permutation(P)[:units]] = own * deviation / np.sqrt(own @ own * units / (units - 1))
    return Influence(value, moves, units)


def group(
    name, value, deviation=0.02, *, seed=0, labels=("A",), positives=50, borrows=False, units=50, metrics=()
):
    """A group with the same AUROC for each label; other metrics have it too where they are named."""
    size = np.full(len(labels), positives)
    nothing = [Influence.undefined(P)] * len(labels)
    values = [influence(value, deviation, units, seed=100 * seed + k) for k in range(len(labels))]
    return GroupMetrics(
        group=Group(name, np.ones(200, dtype=bool)),
        labels=labels,
        num_positives=size,
        num_negatives=3 * size,
        num_patients=99,
        positive_patients=size,
        negative_patients=3 * size,
        borrows=np.full(len(labels), borrows),
        metrics={name: values if name in ("auroc", *metrics) else nothing for name in GROUP_METRICS},
        num_images=4 * size,
    )


def gaps_of(covariate, groups, settings=SETTINGS):
    return largest_gaps(group_tests(covariate, groups, settings), settings.level)


def test_two_groups_are_compared_by_students_t_of_the_fewer_patients():
    first, second = group("F", 0.81, seed=1, units=30), group("M", 0.84, seed=2, units=900)
    (gap,) = gaps_of("sex", [first, second])
    together = first.metrics["auroc"][0].of_patients @ second.metrics["auroc"][0].of_patients
    error = np.sqrt(2 * 0.02**2 - 2 * together)
    assert gap.difference.value == pytest.approx(-0.03)
    reach = t.ppf(0.975, 29) * error
    assert [gap.difference.low, gap.difference.high] == pytest.approx(
        [-0.03 - reach, -0.03 + reach], rel=0.02
    )
    assert gap.p == gap.p_holm == pytest.approx(2 * t.sf(0.03 / error, 29), rel=0.02)
    assert (gap.covariate, gap.label, gap.metric) == ("sex", "A", "auroc")
    assert (gap.groups, gap.images, gap.patients) == (("F", "M"), (200, 200), (30, 900))
    assert gap.description == (
        "F 0.810 of 50 positives in 200 images against M 0.840 of 50 positives in 200 images: "
        "no difference shown"
    )


def test_sensitivity_is_of_the_positives_and_specificity_of_the_negatives():
    groups = [group("F", 0.4, seed=1, metrics=GROUP_METRICS), group("M", 0.41, metrics=GROUP_METRICS)]
    gaps = {gap.metric: gap for gap in gaps_of("sex", groups)}
    assert gaps["sensitivity"].images == (50, 50)
    assert gaps["sensitivity"].description.startswith("F 0.400 of 50 positives against M 0.410")
    assert gaps["specificity"].images == (150, 150)
    assert gaps["specificity"].description.startswith("F 0.400 of 150 negatives against M 0.410")


def test_groups_that_vary_together_differ_more_surely():
    first, second = group("F", 0.81, seed=1), group("M", 0.84, seed=1)
    second.metrics["auroc"][0].of_patients[:] += influence(0, 0.002, 50, seed=3).of_patients
    (gap,) = gaps_of("sex", [first, second])
    assert gap.p < 0.001
    assert gap.description.endswith("a difference is shown")


def test_all_pairs_are_corrected_together():
    groups = [
        group(name, value, seed=seed)
        for seed, (name, value) in enumerate([("a", 0.8), ("b", 0.78), ("c", 0.86)])
    ]
    tests = group_tests("age", groups, SETTINGS)
    (gap,) = largest_gaps(tests, 0.95)
    assert gap.groups == ("b", "c")
    p = [test.test.p for test in tests]
    assert gap.p == min(p)
    assert gap.p_holm == pytest.approx(3 * min(p))
    assert num_tested(tests) == 3


def test_all_covariates_metrics_and_labels_and_the_mean_are_one_family():
    labels = ("A", "B", "C", "macro")
    tests = []
    for number, covariate in enumerate(("sex", "view")):
        groups = [
            group(name, value, seed=10 * number + seed, labels=labels, metrics=("specificity",))
            for seed, (name, value) in enumerate([("x", 0.81), ("y", 0.87)])
        ]
        tests += group_tests(covariate, groups, SETTINGS)
    gaps = largest_gaps(tests, 0.95)
    assert len(tests) == num_tested(tests) == len(gaps) == 2 * 2 * 4
    assert [gap.p_holm for gap in gaps] == holm([gap.p for gap in gaps])
    assert min(gap.p_holm for gap in gaps) == pytest.approx(16 * min(gap.p for gap in gaps))


def test_the_largest_that_is_shown_goes_before_a_larger_one():
    groups = [
        group("a", 0.8, 0.001, units=3000),
        group("b", 0.83, 0.001, seed=1, units=3000),
        group("tiny", 0.9, 0.2, seed=2),
    ]
    (gap,) = gaps_of("age", groups)
    assert gap.groups == ("a", "b")
    assert gap.description.endswith("a difference is shown; larger ones between other groups are not")


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_shown_is_what_lies_below_1_minus_the_level(level):
    settings = SimpleNamespace(level=level, min_gap_patients=20)
    for value in np.linspace(0.8, 0.9, 21):
        groups = [group("F", 0.8, seed=1), group("M", value, seed=2)]
        (gap,) = gaps_of("sex", groups, settings)
        is_shown = gap.outcome in ("better", "worse")
        assert is_shown == (gap.p_holm < 1 - level)
        assert gap.description.endswith("a difference is shown" if is_shown else "no difference shown")
        assert is_shown == (not gap.difference.low <= 0 <= gap.difference.high)


def test_a_value_that_never_varied_is_not_certain():
    perfect, other = group("F", 1.0, 0.0, units=20), group("M", 0.9, 0.01, seed=1)
    (gap,) = gaps_of("sex", [perfect, other])
    assert gap.p > 0.05
    assert gap.difference.low < 0


def test_what_cannot_be_tested_says_so_and_is_not_counted():
    tests = group_tests("sex", [group("F", 0.5, 0.0), group("M", 0.9)], SETTINGS)
    (gap,) = largest_gaps(tests, 0.95)
    assert gap.p is None
    assert gap.p_holm is None
    assert gap.difference == Estimate(pytest.approx(-0.4))
    assert gap.description.endswith("cannot be tested")
    assert num_tested(tests) == 0


def test_two_perfect_groups_do_not_differ():
    (gap,) = gaps_of("sex", [group("F", 1.0, 0.0), group("M", 1.0, 0.0)])
    assert gap.p == 1.0


@pytest.mark.parametrize(
    "others",
    [[], [group("M", 0.9, units=19)], [group("M", 0.9, borrows=True)], [group("M", np.nan)]],
    ids=["alone", "few patients", "other negatives", "undefined"],
)
def test_groups_that_are_not_alike_are_not_compared(others):
    assert group_tests("sex", [group("F", 0.8), *others], SETTINGS) == []


def odds_of(groups, level=0.95):
    tests = group_tests("age", groups, SETTINGS)
    return equalised_odds(tests, largest_gaps(tests, level), level)


def test_equalised_odds_give_the_largest_gap_of_both_rates_with_intervals_that_hold_together():
    groups = [
        group(name, value, seed=seed, metrics=GROUP_METRICS)
        for seed, (name, value) in enumerate([("a", 0.8), ("b", 0.78), ("c", 0.86)])
    ]
    (odds,) = odds_of(groups)
    assert (odds.covariate, odds.label) == ("age", "A")
    assert odds.sensitivity_groups == odds.false_positive_rate_groups == ("b", "c")
    assert odds.sensitivity.value == pytest.approx(-0.08)
    assert odds.false_positive_rate.value == pytest.approx(0.08)
    by_metric = {gap.metric: gap.difference for gap in gaps_of("age", groups)}
    widths = [one.high - one.low for one in (odds.sensitivity, by_metric["sensitivity"])]
    assert widths[0] / widths[1] == pytest.approx(t.ppf(1 - 0.025 / 6, 49) / t.ppf(0.975, 49))
    assert not odds.is_difference_shown


def test_equalised_odds_say_which_gaps_are_shown():
    labels = ("A", "B", "macro")
    groups = [
        group("F", 0.6, 0.01, seed=1, labels=labels, metrics=("sensitivity", "specificity")),
        group("M", 0.8, 0.01, seed=2, labels=labels, metrics=("sensitivity", "specificity")),
    ]
    (odds,) = odds_of(groups)
    assert odds.label == "macro"
    assert odds.is_difference_shown
    assert ("macro", "sensitivity") in odds.shown
    assert len(odds.shown) == 6


def test_without_both_rates_nothing_is_said_of_equalised_odds():
    assert (
        odds_of([group("F", 0.8, metrics=("sensitivity",)), group("M", 0.9, metrics=("sensitivity",))]) == []
    )
    assert odds_of([group("F", 0.8)]) == []
