import math

import pytest
import torch
from timm.loss import AsymmetricLossMultiLabel

from cxrlab.errors import ConfigError
from cxrlab.losses import BCE, AsymmetricLoss


def draw() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(32, 4, generator=generator) * 3
    return logits, (torch.rand(32, 4, generator=generator) < 0.3).float()


@pytest.mark.parametrize(("gamma_pos", "gamma_neg", "clip"), [(1, 4, 0.05), (0, 2, 0.2), (0, 0, 0.05)])
def test_it_is_timm_s_loss_but_for_the_mean(gamma_pos: float, gamma_neg: float, clip: float):
    """By its gradient and up to a factor: timm's versions differ in what they take the mean over."""
    logits, targets = draw()
    logits.requires_grad_()
    options = {"gamma_pos": gamma_pos, "gamma_neg": gamma_neg, "clip": clip}
    losses = AsymmetricLoss(**options), AsymmetricLossMultiLabel(**options)
    values = [loss(logits, targets) for loss in losses]
    found, expected = (torch.autograd.grad(value / value.detach(), logits)[0] for value in values)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_two_entries_by_hand():
    loss = AsymmetricLoss(gamma_pos=1.0, gamma_neg=4.0, clip=0.05)
    logits = torch.logit(torch.tensor([[0.7, 0.7]]))
    expected = (-0.3 * math.log(0.7) - 0.65**4 * math.log(0.35)) / 2
    assert float(loss(logits, torch.tensor([[1.0, 0.0]]))) == pytest.approx(expected)


def test_a_negative_below_the_margin_has_neither_loss_nor_gradient():
    logits = torch.logit(torch.tensor([[0.04, 0.5]])).requires_grad_()
    loss = AsymmetricLoss(gamma_pos=0.0, gamma_neg=4.0, clip=0.05)
    loss(logits, torch.zeros(1, 2)).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] == 0
    assert logits.grad[0, 1] > 0


def test_without_focus_and_margin_it_is_cross_entropy():
    loss = AsymmetricLoss(gamma_pos=0.0, gamma_neg=0.0, clip=0.0)
    torch.testing.assert_close(loss(*draw()), BCE(label_smoothing=0.0)(*draw()))


def test_unknown_targets_do_not_count():
    logits, targets = draw()
    loss = AsymmetricLoss(gamma_pos=0.0, gamma_neg=4.0, clip=0.05)
    holed = torch.where(torch.arange(32)[:, None] < 8, torch.nan, targets)
    torch.testing.assert_close(loss(logits, holed), loss(logits[8:], targets[8:]))


@pytest.mark.parametrize("targets", [torch.full((2, 2), torch.nan), torch.eye(2)])
@pytest.mark.parametrize(("gamma", "clip"), [(0.5, 0.05), (4.0, 0.0), (0.0, 0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_and_unknown_batches_give_finite_gradients(
    targets: torch.Tensor, gamma: float, clip: float, dtype: torch.dtype, stays_finite_at_extremes
):
    loss = AsymmetricLoss(gamma_pos=gamma, gamma_neg=gamma, clip=clip)
    stays_finite_at_extremes(loss, targets, dtype)


@pytest.mark.parametrize(("name", "value"), [("gamma_pos", -1), ("gamma_neg", -1), ("clip", 1.0)])
def test_numbers_out_of_range_are_rejected(name: str, value: float):
    options = {"gamma_pos": 0.0, "gamma_neg": 4.0, "clip": 0.05, name: value}
    with pytest.raises(ConfigError, match=rf"loss.{name}={value} must"):
        AsymmetricLoss(**options)
