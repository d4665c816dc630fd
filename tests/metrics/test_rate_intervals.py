import math

import numpy as np
import pytest

from cxrlab.metrics.confusion import ppv_npv_at
from cxrlab.metrics.rate_intervals import balanced_accuracy_at_limit, f1_at_limit, predictive_value


def wilson(hits, trials):
    z2, share = 1.959964**2, hits / trials
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = math.sqrt(z2) / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def both(hits, positives, rejections, negatives, prevalence=0.1):
    """Return PPV and NPV with their intervals from counts."""
    rates = hits / positives, rejections / negatives
    bounds = wilson(hits, positives), wilson(rejections, negatives)
    values = (float(value) for value in ppv_npv_at(*map(np.array, rates), prevalence))
    return [
        predictive_value(value, *bounds, rates, prevalence, negative=negative)
        for value, negative in zip(values, (False, True), strict=True)
    ]


def test_only_the_sensitivity_matters_where_the_specificity_is_known():
    """Of a specificity without width, the NPV's ends are those that the sensitivity's ends give."""
    low, high = wilson(45, 50)
    found = predictive_value(0.986, (low, high), (0.8, 0.8), (0.9, 0.8), 0.1, negative=True)
    expected = [float(ppv_npv_at(np.array(end), np.array(0.8), 0.1)[1]) for end in (low, high)]
    assert (found.low, found.high) == pytest.approx(expected)


def test_predictive_values_of_large_samples_have_the_intervals_of_the_delta_method():
    ppv, npv = both(900, 1000, 3200, 4000)
    sensitivity, specificity = (0.9, 0.1 / 1000), (0.8, 0.2 / 4000)
    for found, first, second in (
        (ppv, sensitivity[1] / sensitivity[0], 0.8 * 0.2 / 4000 / 0.2**2),
        (npv, specificity[1] / specificity[0], 0.9 * 0.1 / 1000 / 0.1**2),
    ):
        error = math.sqrt(first + second)
        odds = math.log(found.value / (1 - found.value))
        expected = [1 / (1 + math.exp(-odds + sign * 1.959964 * error)) for sign in (1, -1)]
        assert (found.low, found.high) == pytest.approx(expected, abs=0.002)


def test_an_npv_of_1_is_not_taken_for_certain_and_one_miss_is_not_far_from_it():
    lows = [both(hits, 60, 160, 200)[1].low for hits in (60, 59, 58)]
    assert lows == pytest.approx([0.992, 0.989, 0.985], abs=0.0015)
    perfect = both(60, 60, 160, 200)[1]
    assert (perfect.value, perfect.high) == (1.0, 1.0)


@pytest.mark.parametrize("hits", [0, 1, 30, 59, 60])
@pytest.mark.parametrize("rejections", [0, 1, 100, 199, 200])
def test_ends_are_in_order_and_hold_the_value(hits, rejections):
    for found in both(hits, 60, rejections, 200):
        if not math.isnan(found.value):
            assert 0 <= found.low <= found.value <= found.high <= 1
            assert found.high - found.low > 0.001


@pytest.mark.slow
@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.9, 0.8), (0.97, 0.7), (0.8, 0.98)])
def test_predictive_values_are_covered(sensitivity, specificity):
    generator = np.random.default_rng(0)
    truth = [float(value) for value in ppv_npv_at(np.array(sensitivity), np.array(specificity), 0.1)]
    found = np.array(
        [
            [
                one.low <= value <= one.high
                for one, value in zip(
                    both(generator.binomial(40, sensitivity), 40, generator.binomial(200, specificity), 200),
                    truth,
                    strict=True,
                )
            ]
            for _ in range(3000)
        ]
    )
    assert found.mean(axis=0) == pytest.approx(0.95, abs=0.03)


def test_a_perfect_balanced_accuracy_is_less_certain_than_either_rate():
    found = balanced_accuracy_at_limit(1.0, (0.9, 1.0), (0.8, 1.0))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(1 - math.sqrt(0.05**2 + 0.1**2))
    none = balanced_accuracy_at_limit(0.0, (0.0, 0.1), (0.0, 0.2))
    assert (none.low, none.high) == pytest.approx((0.0, math.sqrt(0.05**2 + 0.1**2)))


def test_an_f1_of_0_or_1_has_the_interval_of_its_proportion():
    share = 10 / (10 + 1.959964**2)
    perfect, none = f1_at_limit(1.0, 10, 0.95), f1_at_limit(0.0, 10, 0.95)
    assert perfect.low == pytest.approx(2 * share / (1 + share))
    assert (perfect.high, none.low) == (1.0, 0.0)
    assert none.high == pytest.approx(2 * (1 - share) / (2 - share))
