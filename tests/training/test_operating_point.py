import numpy as np
import pytest
import torch

from cxrlab.metrics.referral import ReferralTargets, choose_referral
from cxrlab.metrics.settings import CalibrationMethod
from cxrlab.training.operating_point import OperatingPoint

RULES: tuple[str, CalibrationMethod] = ("youden", "platt")


def part(num_images: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(num_images, 2, generator=generator) < 0.3).float()
    targets[:, 1] = 0.0  # never present
    logits = torch.randn(num_images, 2, generator=generator) + 2 * targets + 1
    return torch.sigmoid(logits), targets


def test_a_new_classifier_has_decided_nothing():
    operating_point = OperatingPoint(3)
    assert torch.isnan(operating_point.thresholds).all()
    assert np.isnan(operating_point.threshold_values()).all()
    assert operating_point.threshold_values().dtype == np.float64
    assert operating_point.calibrator("platt") is None


def test_thresholds_maximise_youdens_index_on_validation():
    probabilities, targets = part()
    operating_point = OperatingPoint(2)
    operating_point.fit(probabilities, targets, *RULES)

    def youden(threshold: float) -> float:
        called, present = probabilities[:, 0] >= threshold, targets[:, 0] == 1
        return float(called[present].float().mean() - called[~present].float().mean())

    best = max(youden(float(score)) for score in probabilities[:, 0])
    assert youden(float(operating_point.thresholds[0])) == pytest.approx(best)
    assert torch.isnan(operating_point.thresholds[1])


def test_the_calibration_brings_the_mean_to_the_prevalence():
    probabilities, targets = part()
    operating_point = OperatingPoint(2)
    operating_point.fit(probabilities, targets, *RULES)
    calibrator = operating_point.calibrator("platt")
    assert calibrator is not None
    calibrated = calibrator.apply(probabilities.double().numpy())
    assert calibrated[:, 0].mean() == pytest.approx(float(targets[:, 0].mean()), abs=0.01)
    # A label that could not be fitted keeps its probabilities.
    np.testing.assert_allclose(calibrated[:, 1], probabilities[:, 1].numpy(), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_half_precision_does_not_move_a_threshold(dtype: torch.dtype):
    operating_point = OperatingPoint(2)
    operating_point.fit(*part(), *RULES)
    before = operating_point.thresholds.clone()
    module = torch.nn.Sequential(torch.nn.Linear(1, 1), operating_point).to(dtype)
    assert module[0].weight.dtype == dtype
    torch.testing.assert_close(operating_point.thresholds, before, rtol=0, atol=0, equal_nan=True)
    assert operating_point.thresholds.dtype == torch.float32


def test_the_state_goes_through_a_checkpoint():
    operating_point, other = OperatingPoint(2), OperatingPoint(2)
    operating_point.fit(*part(), *RULES)
    other.load_state_dict(operating_point.state_dict())
    for name in ("thresholds", "slopes", "intercepts"):
        torch.testing.assert_close(getattr(other, name), getattr(operating_point, name), equal_nan=True)


def test_neighbouring_float32_scores_stay_apart():
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    probabilities = torch.tensor([[low], [low], [high], [high]])
    operating_point = OperatingPoint(1)
    operating_point.fit(probabilities, torch.tensor([[0.0], [0.0], [1.0], [1.0]]), *RULES)
    assert (probabilities >= operating_point.thresholds).squeeze().tolist() == [False, False, True, True]


AIMS = ReferralTargets(ppv=0.6, npv=0.8, confidence=0.9)


def test_rules_to_refer_are_those_of_the_validation_part_and_go_through_a_checkpoint():
    (probabilities, targets), patients = part(1200), np.arange(1200) // 2
    operating_point, other = OperatingPoint(2), OperatingPoint(2)
    operating_point.fit_referral(probabilities, targets, patients, AIMS)
    other.load_state_dict(operating_point.state_dict())
    rules = other.referral()
    assert rules is not None
    assert rules.targets == AIMS
    expected = choose_referral(probabilities.double().numpy(), targets.double().numpy(), patients, AIMS)
    assert np.isfinite(expected).all(axis=0).tolist() == [True, False]
    for values, wanted in zip((rules.rule_in, rules.rule_out), expected, strict=True):
        np.testing.assert_allclose(values, wanted, rtol=1e-6)
        scores = probabilities[:, 0].double().numpy()
        np.testing.assert_array_equal(scores >= values[0], scores >= wanted[0])
    assert other.referral([1]).rule_in.shape == (1,)


def test_a_side_that_nobody_asked_for_is_kept_as_such():
    operating_point = OperatingPoint(2)
    operating_point.fit_referral(*part(1200), None, ReferralTargets(ppv=None, npv=0.8))
    assert operating_point.referral().targets == ReferralTargets(ppv=None, npv=0.8)
    assert np.isnan(operating_point.referral().rule_in).all()


def test_the_state_of_an_earlier_version_has_no_rules_to_refer():
    operating_point, other = OperatingPoint(2), OperatingPoint(2)
    operating_point.fit(*part(), *RULES)
    operating_point.fit_referral(*part(), None, AIMS)
    state = operating_point.state_dict()
    earlier = {name: state[name] for name in ("thresholds", "slopes", "intercepts")}
    other.fit_referral(*part(), None, AIMS)
    other.load_state_dict(earlier)
    assert other.referral() is None
    assert torch.isnan(other.rule_in).all()
    torch.testing.assert_close(other.thresholds, operating_point.thresholds, equal_nan=True)
