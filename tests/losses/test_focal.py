import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from cxrlab.errors import ConfigError
from cxrlab.losses import BCE, FocalLoss


def draw() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(32, 4, generator=generator) * 4
    return logits, (torch.rand(32, 4, generator=generator) < 0.3).float()


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.5, None), (5.0, 0.9), (0.0, 0.5)])
def test_it_is_torchvision_s_focal_loss(gamma: float, alpha: float | None):
    logits, targets = draw()
    logits.requires_grad_()
    found = FocalLoss(gamma=gamma, alpha=alpha)(logits, targets)
    expected = sigmoid_focal_loss(
        logits, targets, alpha=-1 if alpha is None else alpha, gamma=gamma, reduction="mean"
    )
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_a_gamma_of_zero_is_cross_entropy():
    loss = FocalLoss(gamma=0.0, alpha=None)
    torch.testing.assert_close(loss(*draw()), BCE(label_smoothing=0.0)(*draw()))


def test_unknown_targets_do_not_count():
    logits, targets = draw()
    loss = FocalLoss(gamma=2.0, alpha=0.25)
    holed = torch.where(torch.arange(32)[:, None] < 8, torch.nan, targets)
    torch.testing.assert_close(loss(logits, holed), loss(logits[8:], targets[8:]))


@pytest.mark.parametrize("targets", [torch.full((2, 2), torch.nan), torch.eye(2)])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_and_unknown_batches_give_finite_gradients(
    targets: torch.Tensor, gamma: float, dtype: torch.dtype, stays_finite_at_extremes
):
    loss = FocalLoss(gamma=gamma, alpha=0.25)
    stays_finite_at_extremes(loss, targets, dtype)


def test_numbers_out_of_range_are_rejected():
    with pytest.raises(ConfigError, match=r"loss.gamma=-1 must be at least 0"):
        FocalLoss(gamma=-1, alpha=None)
    with pytest.raises(ConfigError, match=r"loss.alpha=2 must lie between 0 and 1"):
        FocalLoss(gamma=2, alpha=2)
