import math

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from cxrlab.errors import ConfigError
from cxrlab.metrics.thresholds import check_rule, choose_thresholds

RULES = ["youden", "f1", "sensitivity@0.9", "sensitivity@0.5", "specificity@0.9", "specificity@0.25"]


def one(scores, targets, rule):
    columns = (np.asarray(values, dtype=float)[:, None] for values in (scores, targets))
    return float(choose_thresholds(*columns, rule)[0])


def outcomes(scores, targets, threshold):
    called, known = scores >= threshold, ~np.isnan(targets)
    present = targets == 1
    return tuple(
        int((known & part).sum())
        for part in (called & present, called & ~present, ~called & ~present, ~called & present)
    )


def merit(scores, targets, threshold, rule):
    """What a rule wants to be as high as possible; the threshold settles what is equal."""
    tp, fp, tn, fn = outcomes(scores, targets, threshold)
    name, _, wanted = rule.partition("@")
    sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
    if name == "npv":
        return bool(tn + fn) and tn / (tn + fn) >= float(wanted), threshold
    if name == "ppv":
        return bool(tp + fp) and tp / (tp + fp) >= float(wanted), -threshold
    if name == "youden":
        return round(sensitivity + specificity, 12), -threshold
    if name == "f1":
        return round(2 * tp / (2 * tp + fp + fn), 12), -threshold
    if name == "sensitivity":
        return sensitivity >= float(wanted), threshold
    return specificity >= float(wanted), -threshold


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(25))
def test_each_rule_equals_a_search_of_all_thresholds(rule: str, seed: int):
    generator = np.random.default_rng(seed)
    count = int(generator.integers(4, 40))
    scores = generator.integers(0, 12, count) / 11.0  # ties, and 0 and 1
    targets = (generator.random(count) < 0.2 + 0.6 * scores).astype(float)
    targets[:2] = 0, 1
    targets[generator.random(count) < 0.2] = np.nan
    targets[:2] = 0, 1
    chosen = one(scores, targets, rule)
    candidates = [*np.unique(scores[~np.isnan(targets)]), 2.0]
    best = max(candidates, key=lambda threshold: merit(scores, targets, threshold, rule))
    assert outcomes(scores, targets, chosen) == outcomes(scores, targets, best)
    assert chosen not in scores[~np.isnan(targets)] or chosen == 0.0


@pytest.mark.parametrize("rule", ["npv@0.9", "npv@0.6", "ppv@0.5", "ppv@0.9"])
@pytest.mark.parametrize("seed", range(25))
def test_rules_of_predictive_values_equal_a_search_of_all_thresholds(rule: str, seed: int):
    generator = np.random.default_rng(seed)
    count = int(generator.integers(4, 40))
    scores = generator.integers(0, 12, count) / 11.0
    targets = (generator.random(count) < 0.1 + 0.7 * scores).astype(float)
    targets[:2] = 0, 1
    chosen = one(scores, targets, rule)
    candidates = [*np.unique(scores), 2.0]
    best = max(candidates, key=lambda threshold: merit(scores, targets, threshold, rule))
    if not merit(scores, targets, best, rule)[0]:
        assert math.isnan(chosen)
    else:
        assert outcomes(scores, targets, chosen) == outcomes(scores, targets, best)


def test_a_finding_too_rare_for_its_npv_is_ruled_out_of_everybody():
    scores, targets = np.linspace(0.1, 0.9, 100), np.arange(100) == 50
    assert one(scores, targets, "npv@0.98") > 0.9
    assert math.isnan(one(scores, targets, "ppv@0.9"))


def test_youden_equals_scikit_learn():
    generator = np.random.default_rng(0)
    scores = generator.random(3000)
    targets = (generator.random(3000) < scores).astype(float)
    false_positive_rate, true_positive_rate, _ = roc_curve(targets, scores)
    tp, fp, tn, fn = outcomes(scores, targets, one(scores, targets, "youden"))
    best = (true_positive_rate - false_positive_rate).max()
    assert tp / (tp + fn) - fp / (fp + tn) == pytest.approx(best)


def test_the_threshold_lies_midway_between_images():
    assert one([0.1, 0.2, 0.6, 0.9], [0, 0, 1, 1], "youden") == pytest.approx(0.4)
    assert one([0.4, 0.4], [0, 1], "sensitivity@0.9") == pytest.approx(0.2)  # below all of them: from 0


def test_among_equals_the_most_sensitive_is_taken():
    # both 0.65 (half of the positives, no negative) and 0.35 (all, half of the negatives) have the index 0.5
    assert one([0.1, 0.4, 0.6, 0.7], [0, 1, 0, 1], "youden") == pytest.approx(0.25)


@pytest.mark.parametrize("low", [0.3, math.nextafter(0.3, 1.0)])  # the mean rounds up, or down
@pytest.mark.parametrize("rule", RULES)
def test_neighbouring_floats_are_told_apart(rule: str, low: float):
    scores = np.array([low, math.nextafter(low, 1.0)])
    assert outcomes(scores, np.array([0.0, 1.0]), one(scores, [0, 1], rule)) == (1, 0, 1, 0)


@pytest.mark.parametrize("top", [1.0, 0.7])
def test_a_specificity_that_no_image_allows_calls_nothing_present(top: float):
    scores = np.array([0.2, top, top, top])
    threshold = one(scores, [0, 0, 1, 0], "specificity@0.9")
    assert threshold > top
    assert outcomes(scores, np.array([0.0, 0.0, 1.0, 0.0]), threshold) == (0, 0, 3, 1)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("targets", [[0, 0, 0], [1, 1, np.nan], [np.nan] * 3])
def test_one_class_has_no_threshold(rule: str, targets: list[float]):
    assert math.isnan(one([0.1, 0.5, 0.9], targets, rule))


def test_a_number_is_taken_as_it_is():
    scores, targets = np.full((3, 2), 0.3), np.array([[0.0, np.nan]] * 3)
    np.testing.assert_array_equal(choose_thresholds(scores, targets, 0.5), [0.5, 0.5])
    assert choose_thresholds(scores, targets, 0).dtype == np.float64


def test_each_label_is_chosen_by_itself():
    generator = np.random.default_rng(3)
    scores = generator.random((80, 3))
    targets = (generator.random((80, 3)) < scores).astype(float)
    together = choose_thresholds(scores, targets, "f1")
    assert together.tolist() == [one(scores[:, row], targets[:, row], "f1") for row in range(3)]


@pytest.mark.parametrize("rule", [*RULES, 0, 1, 0.5])
def test_rules_are_known(rule: str | float):
    check_rule(rule)


@pytest.mark.parametrize(
    "rule",
    [
        "Youden",
        "sensitivity",
        "sensitivity@",
        "sensitivity@90",
        "specificity@1",
        "specificity@0",
        "f1@0.5",
        "",
        "sensitivity@nan",
        "0.5",
        -0.1,
        1.5,
        math.nan,
        True,
    ],
)
def test_another_rule_is_rejected_with_the_forms_that_there_are(rule: str | float):
    with pytest.raises(ConfigError, match=r"evaluation\.threshold=.*youden, f1, sensitivity@0\.9"):
        check_rule(rule)
    with pytest.raises(ConfigError, match=r"evaluation\.threshold"):
        choose_thresholds(np.array([[0.1], [0.2]]), np.array([[0.0], [1.0]]), rule)
