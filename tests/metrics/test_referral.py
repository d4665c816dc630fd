import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binomtest

from cxrlab.errors import ConfigError
from cxrlab.metrics.referral import ReferralTargets, _p_values, _passed, choose_referral

AIMS = ReferralTargets(ppv=0.5, npv=0.95, confidence=0.9)


def sample(generator, num_patients, *, clustered, intercept=-3.0, slope=2.0):
    """Patients with images; severity is the patient's and the image's, and so is what no score tells."""
    sizes = generator.geometric(0.3, num_patients) if clustered else np.ones(num_patients, dtype=int)
    patients = np.repeat(np.arange(num_patients), sizes)
    severity = (generator.normal(size=num_patients)[patients] + generator.normal(size=len(patients))) / 2**0.5
    hidden = generator.normal(size=num_patients)[patients]
    present = generator.random(len(patients)) < expit(intercept + slope * severity + hidden)
    return expit(severity + 0.3 * generator.normal(size=len(patients))), present, patients


def chosen(scores, present, patients, aims=AIMS):
    rule_in, rule_out = choose_referral(scores[:, None], present.astype(float)[:, None], patients, aims)
    return float(rule_in[0]), float(rule_out[0])


def shares(scores, present, patients, rule_in, rule_out):
    """PPV and NPV of one image drawn from each patient."""
    weights = 1 / np.bincount(patients)[patients]
    ruled_in, ruled_out = scores >= rule_in, scores < rule_out
    return (
        (weights * (ruled_in & present)).sum() / max((weights * ruled_in).sum(), 1e-12),
        (weights * (ruled_out & ~present)).sum() / max((weights * ruled_out).sum(), 1e-12),
    )


@pytest.mark.parametrize("target", [0.5, 0.98])
def test_with_one_image_a_patient_p_values_are_the_binomial_tests(target: float):
    generator = np.random.default_rng(0)
    present, steps = generator.random(300) < 0.7, generator.integers(0, 5, 300)
    p_values = _p_values(steps, present, np.arange(300), np.ones(300), 4, target)
    for step, p in enumerate(p_values):
        called = steps <= step
        reference = binomtest(int((called & present).sum()), int(called.sum()), target, alternative="greater")
        assert p == pytest.approx(reference.pvalue)


def test_p_values_of_bets_equal_the_formula_written_out():
    patients, present = np.array([0, 0, 1, 2, 2, 2]), np.array([1, 1, 1, 0, 1, 1], dtype=bool)
    weights, steps = 1 / np.bincount(patients)[patients], np.array([0, 1, 0, 1, 0, 1])
    gains = np.array([[0.5, 1, 1 / 3], [1, 1, 2 / 3]]) / 0.5 - np.array([[0.5, 1, 1 / 3], [1, 1, 1]])
    stakes = [np.mean([np.prod(1 + bet * row) for bet in (0.2, 0.4, 0.6, 0.8, 1.0)]) for row in gains]
    p_values = _p_values(steps, present, patients, weights, 2, 0.5)
    np.testing.assert_allclose(p_values, [1 / stake for stake in stakes])


def test_a_sequence_ends_at_the_first_that_fails_and_starts_anew_with_its_own_budget():
    p_values = np.array([0.04, 0.2, 0.01, 0.08, 0.04, 0.09])
    budgets = np.array([0.05, 0.0, 0.0, 0.05, 0.05, 0.0])
    assert _passed(p_values, budgets).tolist() == [True, False, False, False, True, False]
    assert _passed(np.array([0.04, 0.09, 0.09]), np.array([0.05, 0.05, 0.0])).tolist() == [True, True, True]


def test_a_label_of_one_class_few_patients_and_unknown_targets_have_no_rule():
    scores = np.linspace(0.01, 0.99, 200)
    for present in (np.zeros(200), np.ones(200)):
        assert np.isnan(chosen(scores, present, np.arange(200))).all()
    few = np.linspace(0.01, 0.99, 10)
    assert math.isnan(chosen(few, few > 0.5, np.arange(10))[1])
    nothing = choose_referral(scores[:, None], np.full((200, 1), np.nan), None, AIMS)
    assert np.isnan(nothing).all()


def test_a_target_that_everybody_meets_gives_no_rule():
    generator = np.random.default_rng(0)
    scores = generator.random(2000)
    present = generator.random(2000) < 0.01 * scores
    assert math.isnan(chosen(scores, present, np.arange(2000))[1])
    assert math.isnan(chosen(scores, ~present, np.arange(2000))[0])


def test_a_side_without_target_has_no_rule():
    scores, present, patients = sample(np.random.default_rng(0), 2000, clustered=True)
    assert np.isfinite(chosen(scores, present, patients)).all()
    assert math.isnan(chosen(scores, present, patients, ReferralTargets(ppv=None))[0])
    assert math.isnan(chosen(scores, present, patients, ReferralTargets(npv=None))[1])


def test_unknown_targets_are_left_out():
    scores, present, patients = sample(np.random.default_rng(1), 1500, clustered=True)
    targets = present.astype(float)
    targets[::3] = np.nan
    known = ~np.isnan(targets)
    all_of_them = choose_referral(scores[:, None], targets[:, None], patients, AIMS)
    rest = choose_referral(scores[known][:, None], targets[known][:, None], patients[known], AIMS)
    np.testing.assert_array_equal(all_of_them, rest)


@pytest.mark.parametrize("seed", range(8))
def test_rules_never_cross_and_keep_their_targets_on_validation(seed: int):
    generator = np.random.default_rng(seed)
    scores, present, patients = sample(generator, 800, clustered=seed % 2 == 0, intercept=-1.0, slope=8.0)
    scores = np.round(scores, 2)  # ties
    rule_in, rule_out = chosen(scores, present, patients, ReferralTargets(ppv=0.6, npv=0.9))
    assert rule_out <= rule_in
    ppv, npv = shares(scores, present, patients, rule_in, rule_out)
    assert ppv >= 0.6
    assert npv >= 0.9


@pytest.mark.parametrize("change", [{"ppv": 1.0}, {"npv": 0.0}, {"confidence": 1.5}, {"confidence": None}])
def test_targets_lie_between_0_and_1(change: dict):
    with pytest.raises(ConfigError, match=r"evaluation.refer_\w+=.* must lie between 0 and 1"):
        ReferralTargets(**change)


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [False, True], ids=["one image each", "clustered"])
def test_the_guarantee_holds_in_the_stated_share_of_validation_parts(clustered: bool):
    population = sample(np.random.default_rng(99), 200_000, clustered=clustered)
    generator, num_draws = np.random.default_rng(1), 300
    broken, ruled = np.zeros(2), np.zeros(2)
    for _ in range(num_draws):
        rules = chosen(*sample(generator, 1200, clustered=clustered))
        found = shares(*population, *rules)
        for side, (rule, share, target) in enumerate(zip(rules, found, (AIMS.ppv, AIMS.npv), strict=True)):
            ruled[side] += np.isfinite(rule)
            broken[side] += np.isfinite(rule) and share < target
    assert (ruled > 0.5 * num_draws).all(), ruled  # a guarantee that rules nobody in or out would be empty
    # 10 % may break it; 2.3 standard errors of 300 draws above that.
    assert (broken / num_draws <= 0.1 + 2.3 * (0.09 / num_draws) ** 0.5).all(), broken
