import numpy as np
import pytest

from cxrlab.evaluation.referral import evaluate_referral, referral_from_validation
from cxrlab.metrics.bootstrap import patient_counts
from cxrlab.metrics.referral import ReferralRules, ReferralTargets


@pytest.fixture
def settings(make_settings):
    return make_settings(refer_ppv=0.7, refer_npv=0.85)


def test_numbers_are_those_of_one_image_drawn_from_each_patient(make_predictions, settings):
    table = make_predictions(num_patients=400)
    table.targets[::9, 0] = np.nan
    rules = ReferralRules(np.array([0.7, 0.6]), np.array([0.4, 0.6]), settings.referral, "validation")
    counts = patient_counts(table.num_patients, 200, 0)
    found = evaluate_referral(table, rules, None, counts, settings)
    for column, label in enumerate(table.labels):
        known = table.known[:, column]
        p, y, patients = (
            table.probabilities[known, column],
            table.targets[known, column],
            table.patients[known],
        )
        weights = np.array([1 / (patients == patient).sum() for patient in patients])
        ruled_in, ruled_out = p >= rules.rule_in[column], p < rules.rule_out[column]
        result = found.labels[label]
        assert result.ppv.value == pytest.approx(np.average(y[ruled_in], weights=weights[ruled_in]))
        assert result.npv.value == pytest.approx(np.average(1 - y[ruled_out], weights=weights[ruled_out]))
        assert result.ruled_in.value == pytest.approx(np.average(ruled_in, weights=weights))
        assert result.ruled_out.value == pytest.approx(np.average(ruled_out, weights=weights))
        assert result.referred.value == pytest.approx(
            1 - result.ruled_in.value - result.ruled_out.value, abs=1e-9
        )
        assert result.ppv_by_image.value == pytest.approx(y[ruled_in].mean())
        assert result.npv_by_image.value == pytest.approx(1 - y[ruled_out].mean())
        assert result.ppv.low < result.ppv.value < result.ppv.high
        assert result.no_rule_in == result.no_rule_out == ""
    assert found.labels["Mass"].referred.value == 0.0


def test_rules_are_chosen_on_validation_and_say_why_there_is_none(make_predictions, settings, make_settings):
    table, validation = make_predictions(num_patients=300), make_predictions(num_patients=600, seed=1)
    counts = patient_counts(table.num_patients, 200, 0)
    found = evaluate_referral(table, None, validation, counts, settings)
    rules = referral_from_validation(validation, settings)
    assert [label.rule_in for label in found.labels.values()] == pytest.approx(rules.rule_in.tolist())
    for change, side, reason in (
        ({"refer_ppv": 0.2}, "no_rule_in", "met by ruling everybody in"),
        ({"refer_ppv": 0.999}, "no_rule_in", "not shown on validation"),
        ({"refer_npv": 0.2}, "no_rule_out", "met by ruling everybody out"),
        ({"refer_npv": None}, "no_rule_out", "not asked for"),
    ):
        result = evaluate_referral(table, None, validation, counts, make_settings(**change))
        assert getattr(result.labels["Edema"], side) == reason
    result = evaluate_referral(table, None, validation, counts, make_settings(refer_ppv=0.999))
    assert result.labels["Edema"].rule_in is None
    assert result.labels["Edema"].ppv.value is None
    assert result.labels["Edema"].ruled_in.value == 0.0


def test_without_validation_there_are_rules_of_a_checkpoint_or_none(
    make_predictions, settings, make_settings
):
    table = make_predictions()
    counts = patient_counts(table.num_patients, 200, 0)
    assert (
        "no predictions of a validation part"
        in evaluate_referral(table, None, None, counts, settings).left_out
    )
    nobody = make_settings(refer_ppv=None, refer_npv=None)
    assert evaluate_referral(table, None, table, counts, nobody).labels == {}
    kept = ReferralRules(
        np.array([0.6, np.nan]), np.full(2, np.nan), ReferralTargets(0.6, None), "validation"
    )
    found = evaluate_referral(table, kept, None, counts, settings)
    assert (found.ppv, found.npv) == (0.6, None)
    assert found.labels["Edema"].rule_in == 0.6
    assert found.labels["Mass"].no_rule_in == "none chosen on validation"
