from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, t
from sklearn.metrics import average_precision_score, brier_score_loss, recall_score

from cxrlab.errors import ConfigError
from cxrlab.evaluation.comparison import compare
from cxrlab.evaluation.paired_tests import (
    FURTHER,
    MarginTest,
    area_margin_test,
    bootstrap_margin_test,
    not_inferior,
)
from cxrlab.metrics.bootstrap import Estimate, holm, patient_counts
from cxrlab.metrics.delong import delong


def decided(table, threshold=0.5):
    return replace(table, decisions=(table.probabilities >= threshold).astype(float))


@pytest.fixture
def models(make_predictions):
    """Three models of the same images, with decisions; each has noise of its own."""
    table = make_predictions(num_patients=150)
    logits = np.log(table.probabilities / (1 - table.probabilities))
    generator = np.random.default_rng(3)
    noisy = [logits + scale * generator.normal(size=logits.shape) for scale in (0.3, 0.8, 1.5)]
    return {
        name: decided(replace(table, probabilities=1 / (1 + np.exp(-scores))))
        for name, scores in zip("abc", noisy, strict=True)
    }


REFERENCES = {
    "sensitivity": lambda y, p, w: recall_score(y, p >= 0.5, sample_weight=w),
    "specificity": lambda y, p, w: recall_score(1 - y, p < 0.5, sample_weight=w),
    "average_precision": lambda y, p, w: average_precision_score(y, p, sample_weight=w),
    "brier": lambda y, p, w: brier_score_loss(y, p, sample_weight=w),
}


def differences(name, first, second, weights=None):
    return np.array(
        [
            REFERENCES[name](first.targets[:, column], first.probabilities[:, column], weights)
            - REFERENCES[name](second.targets[:, column], second.probabilities[:, column], weights)
            for column in range(len(first.labels))
        ]
    )


def test_further_metrics_are_tested_on_paired_resamples(models, make_settings):
    result = compare(models, make_settings(num_resamples=100))
    table = models["a"]
    counts = patient_counts(table.num_patients, 100, 0)
    pair = result.pairs[0]
    assert set(pair.further) == set(FURTHER)
    first, second = (models[name] for name in pair.models)
    for name, tests in pair.further.items():
        values = differences(name, first, second)
        drawn = np.array([differences(name, first, second, w[table.patients]) for w in counts.T])
        for column, label in enumerate(table.labels):
            test = tests.labels[label]
            assert test.difference.value == pytest.approx(values[column], abs=1e-6)
            side = table.targets[:, column] == (name != "specificity")
            fewest = len(np.unique(table.patients[side]))
            if name in ("average_precision", "brier"):
                fewest = min(
                    len(np.unique(table.patients[table.targets[:, column] == one])) for one in (0, 1)
                )
            deviation = drawn[:, column].std(ddof=1)
            assert test.p == pytest.approx(2 * t.sf(abs(values[column]) / deviation, fewest - 1), rel=1e-3)
            reach = t.ppf(0.975, fewest - 1) * deviation
            assert test.difference.low == pytest.approx(values[column] - reach, abs=1e-5)
            assert (test.difference.low * test.difference.high > 0) == (test.p < 0.05)
        assert tests.macro.difference.value == pytest.approx(values.mean(), abs=1e-6)


def test_the_families_of_the_correction(models, make_settings):
    result = compare(models, make_settings(), margin=0.02)
    means = [tests.macro for pair in result.pairs for tests in pair.further.values()]
    assert [test.p_holm for test in means] == pytest.approx(holm([test.p for test in means]))
    assert len(means) == 3 * 4
    for pair in result.pairs:
        labels = [test for tests in pair.further.values() for test in tests.labels.values()]
        assert [test.p_holm for test in labels] == pytest.approx(holm([test.p for test in labels]))
    assert result.corrections == {
        "auroc": "means: the 3 pairs; labels: the 2 of a pair",
        "further": "means: the 12 tests of all metrics and pairs; labels: the 8 tests of all metrics and labels of a "
        "pair",
        "non_inferiority": "means: both directions of the 3 pairs; labels: both directions of the 2 labels of a pair",
    }


def test_a_brier_score_is_better_where_it_is_lower(models, make_settings):
    result = compare(models, make_settings())
    pair = next(pair for pair in result.pairs if set(pair.models) == {"a", "c"})
    test = pair.further["brier"].macro
    assert test.outcome == "better"
    assert test.difference.value < 0
    assert test.description.startswith("a is better by 0.")


def test_sensitivity_agrees_with_mcnemar_where_each_patient_has_one_image(make_predictions, make_settings):
    table = make_predictions(num_patients=3000)
    table = table.rows(np.unique(table.patients, return_index=True)[1])
    generator = np.random.default_rng(1)
    logits = np.log(table.probabilities / (1 - table.probabilities))
    tables = {
        name: decided(replace(table, probabilities=1 / (1 + np.exp(-(logits + scale * generator.normal(size=logits.shape))))))
        for name, scale in (("a", 0.5), ("b", 0.9))
    }  # fmt: skip
    result = compare(tables, make_settings(num_resamples=2000))
    first, second = (tables[name] for name in result.pairs[0].models)
    for column, label in enumerate(table.labels):
        for name, present in (("sensitivity", 1.0), ("specificity", 0.0)):
            rows = table.targets[:, column] == present
            right = [one.decisions[rows, column] == present for one in (first, second)]
            only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
            z = (only_first - only_second) / (only_first + only_second) ** 0.5
            test = result.pairs[0].further[name].labels[label]
            assert norm.isf(test.p / 2) == pytest.approx(abs(z), rel=0.06, abs=0.05)


def test_sensitivity_agrees_with_mcnemar_clustered_by_patient(models, make_settings):
    """Obuchowski (Stat Med 17:1495, 1998): the patients' sums of differences, over the root of their squares."""
    result = compare(models, make_settings(num_resamples=2000))
    for pair in result.pairs:
        first, second = (models[name] for name in pair.models)
        for column, label in enumerate(first.labels):
            rows = first.targets[:, column] == 1
            per_image = first.decisions[rows, column] - second.decisions[rows, column]
            sums = np.bincount(first.patients[rows], weights=per_image)
            z = sums.sum() / (sums**2).sum() ** 0.5
            patients = len(np.unique(first.patients[rows]))
            test = pair.further["sensitivity"].labels[label]
            assert t.isf(test.p / 2, patients - 1) == pytest.approx(abs(z), rel=0.12, abs=0.1)


def test_without_decisions_the_reason_is_given(models, make_settings):
    result = compare(models | {"c": replace(models["c"], decisions=None)}, make_settings())
    assert result.untested == "1 of 3 tables have no columns prediction/<label>"
    assert set(result.pairs[0].further) == {"average_precision", "brier"}


def test_non_inferiority_is_shown_where_the_lower_end_lies_above_the_margin(models, make_settings):
    result = compare(models, make_settings(), margin=0.05)
    for pair in result.pairs:
        for label, tests in pair.label_non_inferiority.items():
            column = models["a"].labels.index(label)
            scores = np.stack([models[name].probabilities[:, column] for name in pair.models])
            aurocs, covariance = delong(scores, models["a"].targets[:, column], models["a"].patients)
            deviation = (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) ** 0.5
            for test, sign in zip(tests, (1, -1), strict=True):
                value = sign * (aurocs[0] - aurocs[1])
                assert test.difference.low == pytest.approx(value - norm.ppf(0.975) * deviation)
                assert test.p == pytest.approx(norm.sf((value + 0.05) / deviation))
                assert (test.difference.low > -0.05) == (test.p < 0.025)
        assert [test.models for test in pair.non_inferiority] == [pair.models, pair.models[::-1]]
        assert pair.non_inferiority[0].difference == pair.difference
    family = [test for pair in result.pairs for test in pair.non_inferiority]
    assert [test.p_holm for test in family] == pytest.approx(holm([test.p for test in family]))
    assert all(test.is_shown == (test.p_holm < 0.025) for test in family)
    assert {test.one_sided_level for test in family} == {0.025}
    # The best of three is not inferior to any; the noisiest is inferior to it by more than 0.05.
    assert family[0].description.startswith("not inferior by more than 0.05 (lower end ")
    worst = next(test for test in family if test.models == ("c", "a"))
    assert not worst.is_shown
    assert worst.description.startswith("not shown (lower end \u22120.")


def test_words_of_a_margin():
    tests = [
        MarginTest(Estimate(-0.001, -0.011, 0.009), 0.0001, 0.00005),
        MarginTest(Estimate(-0.001, -0.019, 0.017), 0.024, 0.02),
        MarginTest(Estimate(None), float("nan"), float("nan")),
    ]
    shown = not_inferior([("a", "b")] * 3, tests, 0.02, 0.95)
    assert shown[0][0].description == "not inferior by more than 0.02 (lower end \u22120.011)"
    assert shown[1][0].description == "not shown after correction for several tests (lower end \u22120.019)"
    assert shown[1][1].models == ("b", "a")
    assert shown[2][0].description == "cannot be tested: too little varies, or one class only"
    assert shown[2][0].p is None


def test_the_bootstrap_of_a_margin_is_that_of_its_interval():
    drawn = np.random.default_rng(0).normal(-0.01, 0.006, 1999)
    test = bootstrap_margin_test(-0.01, drawn, 0.02, 50, 0.95)
    assert test.p == pytest.approx((np.sum(drawn <= -0.02) + 1) / 2000)
    far = bootstrap_margin_test(0.03, drawn + 0.04, 0.02, 50, 0.95)
    assert far.p == pytest.approx(t.sf(0.05 / drawn.std(ddof=1), 49))
    assert np.isnan(bootstrap_margin_test(0.0, np.zeros(10), 0.02, 50, 0.95).p)
    assert np.isnan(area_margin_test(np.full(2, np.nan), np.full((2, 2), np.nan), (0, 1), 0.02, 0.95).p)


@pytest.mark.parametrize("margin", [0.0, -0.02, 0.5, 2.0])
def test_a_margin_out_of_its_range_is_refused(models, make_settings, margin):
    with pytest.raises(
        ConfigError, match=f"margin={margin} must be a difference of AUROC above 0 and below 0.5"
    ):
        compare(models, make_settings(), margin=margin)


def test_equally_good_models_differ_in_one_of_twenty(make_settings):
    """Of 300 comparisons of two equally good models, how many show a sensitivity to differ at 5 %."""
    from cxrlab.evaluation.paired_tests import _student

    generator = np.random.default_rng(7)
    shown = 0
    for _ in range(300):
        patients = 30
        hard = generator.normal(size=patients)
        calls = [0.7 * hard + 0.7 * generator.normal(size=patients) < 0.6 for _ in range(2)]
        sums = calls[0].astype(float) - calls[1]
        drawn = generator.multinomial(patients, np.full(patients, 1 / patients), size=500)
        shown += _student(float(sums.mean()), drawn @ sums / patients, patients, 0.95)[1] < 0.05
    assert shown / 300 < 0.09
