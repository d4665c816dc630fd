"""What all losses share, and how a loss from elsewhere is made and masked."""

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrlab.errors import ConfigError
from cxrlab.losses import (
    BCE,
    AsymmetricLoss,
    CrossEntropy,
    FocalLoss,
    WeightedBCE,
    build_loss,
    class_weights,
    known_loss,
    masked_bce,
)
from cxrlab.losses.base import (
    capped,
    check_range,
    check_task,
    known_entries,
    label_frequencies,
    masked_mean,
    warn_of_balancing_twice,
)


@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_a_value_out_of_range_is_named(value: float):
    with pytest.raises(ConfigError, match=rf"loss.gamma={value} must be at least 0"):
        check_range("gamma", value, 0.0, math.inf)


@pytest.mark.parametrize("loss", [BCE, WeightedBCE, FocalLoss, AsymmetricLoss, BCE(label_smoothing=0.0)])
def test_a_loss_of_single_labels_does_not_fit_exclusive_classes(loss: object):
    check_task(loss, "multilabel")
    with pytest.raises(
        ConfigError,
        match=r"\w+ is made for task=multilabel, but this is task=multiclass: choose loss=cross_entropy",
    ):
        check_task(loss, "multiclass")


def test_cross_entropy_does_not_fit_single_labels():
    check_task(CrossEntropy, "multiclass")
    with pytest.raises(
        ConfigError,
        match=r"CrossEntropy .*task=multilabel: choose loss=bce, weighted_bce, focal or asymmetric, or set",
    ):
        check_task(CrossEntropy, "multilabel")


def test_a_loss_from_elsewhere_that_names_no_task_is_taken():
    check_task(nn.MSELoss(), "multilabel")
    check_task(nn.MSELoss, "multiclass")


@pytest.mark.parametrize(
    ("loss", "is_weighted"),
    [
        (BCE(label_smoothing=0.0), False),
        (WeightedBCE(frequencies=[0.1], max_ratio=None), True),
        (CrossEntropy(frequencies=[0.1, 0.9], is_balanced=False, max_ratio=None, label_smoothing=0.0), False),
        (CrossEntropy(frequencies=[0.1, 0.9], is_balanced=True, max_ratio=None, label_smoothing=0.0), True),
    ],
)
def test_balancing_by_sampling_and_by_weights_is_warned_about(loss: nn.Module, is_weighted: bool, caplog):
    warn_of_balancing_twice(loss, "uniform")
    assert not caplog.text
    warn_of_balancing_twice(loss, "balanced")
    assert ("balances twice" in caplog.text) == is_weighted


def test_frequencies_are_those_of_the_known_targets():
    targets = torch.tensor([[1.0, torch.nan], [0.0, torch.nan], [torch.nan, torch.nan]])
    frequencies = label_frequencies(targets)
    assert frequencies[0] == 0.5
    assert torch.isnan(frequencies[1])


def test_half_precision_becomes_float32_and_unknown_becomes_zero():
    logits, present, known = known_entries(
        torch.ones(1, 2, dtype=torch.bfloat16), torch.tensor([[1.0, torch.nan]])
    )
    assert logits.dtype == present.dtype == torch.float32
    assert present.tolist() == [[1.0, 0.0]]
    assert known.tolist() == [[True, False]]


def test_the_mean_does_not_see_a_term_that_is_unknown():
    terms = torch.tensor([[1.0, torch.inf, 3.0]])
    assert float(masked_mean(terms, torch.tensor([[True, False, True]]))) == 2.0
    assert float(masked_mean(terms, torch.zeros(1, 3, dtype=torch.bool))) == 0.0


@pytest.mark.parametrize(("max_ratio", "expected"), [(None, [1.0, 2.0, 30.0]), (1.0, [1.0, 1.0, 1.0])])
def test_a_cap_goes_from_none_to_equal_weights(max_ratio: float | None, expected: list[float]):
    assert capped(torch.tensor([1.0, 2.0, 30.0]), max_ratio).tolist() == expected


def draw(unknown: float = 0.3) -> tuple[Tensor, Tensor]:
    """Logits and targets (16, 4), of which some are unknown, and one label is in every image."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 4, generator=generator) * 2
    targets = (torch.rand(16, 4, generator=generator) < 0.4).float()
    hidden = torch.rand(16, 4, generator=generator) < unknown
    hidden[:, 3] = unknown > 0
    return logits.requires_grad_(), torch.where(hidden, torch.nan, targets)


class Weighted(nn.Module):
    """A loss of a person's own that asks for the frequencies."""

    def __init__(self, frequencies: list[float], power: float = 1.0) -> None:
        super().__init__()
        self.weights = torch.tensor(frequencies) ** power

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (self.weights * (torch.sigmoid(logits) - targets) ** 2).mean()


class Brier(nn.Module):
    """One that does not, and that has no reduction."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return ((torch.sigmoid(logits) - targets) ** 2).mean()


def test_frequencies_are_passed_to_a_constructor_that_asks_for_them():
    assert build_loss(functools.partial(Weighted, power=2.0), [0.5, 0.1]).weights.tolist() == pytest.approx(
        [0.25, 0.01]
    )
    assert isinstance(build_loss(functools.partial(nn.BCEWithLogitsLoss, reduction="sum"), [0.5]), nn.Module)
    assert isinstance(build_loss(Brier, [0.5]), Brier)
    made = nn.BCEWithLogitsLoss()
    assert build_loss(made, [0.5]) is made
    assert build_loss(functools.wraps(made)(lambda: None), [0.5]) is made  # as the config hands it on
    with pytest.raises(ConfigError, match="loss gives a float"):
        build_loss(lambda: 0.5, [0.5])


def test_weights_are_told_by_those_that_have_some():
    weights = class_weights(WeightedBCE(frequencies=[0.1, 0.4]))
    assert {name: values.tolist() for name, values in weights.items()} == {
        "positive": pytest.approx([0.9, 0.6]), "negative": pytest.approx([0.1, 0.4]),
    }  # fmt: skip
    assert class_weights(nn.BCEWithLogitsLoss()) == class_weights(None) == {}


@pytest.mark.parametrize("unknown", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 2.0, 8.0])])
def test_torchs_loss_is_masked_as_ours_is(unknown: float, weights: Tensor | None):
    logits, targets = draw(unknown)
    value = known_loss(nn.BCEWithLogitsLoss(pos_weight=weights), logits, targets)
    expected = masked_bce(logits, targets, weights)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (value, expected))
    )
    assert value.isfinite()


def test_the_loss_is_as_it_was_after_it_was_masked():
    loss = nn.BCEWithLogitsLoss()
    known_loss(loss, *draw())
    assert loss.reduction == "mean"


def test_a_sum_is_the_sum_of_what_is_known():
    logits, targets = draw()
    known = ~targets.isnan()
    expected = F.binary_cross_entropy_with_logits(logits[known], targets[known], reduction="sum")
    torch.testing.assert_close(known_loss(nn.BCEWithLogitsLoss(reduction="sum"), logits, targets), expected)


def test_a_loss_without_a_reduction_is_applied_label_by_label():
    logits, targets = draw()
    known = ~targets.isnan()
    value = known_loss(Brier(), logits, targets)
    torch.testing.assert_close(value, ((torch.sigmoid(logits) - targets)[known] ** 2).mean())
    value.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[~known] == 0).all()


def test_images_of_which_nothing_is_known_are_left_out_whole():
    logits, targets = draw(0.0)
    holed = targets.clone()
    holed[:4] = torch.nan
    for loss in (
        Brier(),
        Weighted([0.1, 0.2, 0.3, 0.4]),
        nn.CrossEntropyLoss(),
        nn.MultiLabelSoftMarginLoss(),
    ):
        torch.testing.assert_close(known_loss(loss, logits, holed), loss(logits[4:], targets[4:]))


class Registered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.ones(4))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (self.weights * (logits - targets) ** 2).mean()


@pytest.mark.parametrize("loss", [Registered(), Weighted([0.1, 0.2, 0.3, 0.4])])
def test_values_by_label_cannot_be_applied_to_one_label(loss: nn.Module):
    with pytest.raises(ConfigError, match=r"has values of its own for 4 labels.*handles_unknown = True"):
        known_loss(loss, *draw())


class Aware(nn.Module):
    handles_unknown = True

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return targets.isnan().float().sum() + 0.0 * logits.sum()


def test_a_loss_that_handles_unknown_targets_sees_them():
    logits, targets = draw()
    assert known_loss(Aware(), logits, targets) == targets.isnan().sum()


def test_half_precision_does_not_reach_a_loss_from_elsewhere():
    logits, targets = draw(0.0)
    value = known_loss(nn.BCEWithLogitsLoss(), logits.bfloat16(), targets)
    assert value.dtype == torch.float32


def test_more_than_one_number_is_no_loss():
    with pytest.raises(ConfigError, match=r"BCEWithLogitsLoss gives \(16, 4\) numbers.*reduction=mean"):
        known_loss(nn.BCEWithLogitsLoss(reduction="none"), *draw(0.0))


def test_logits_and_targets_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"Logits \(16, 4\) and targets \(16, 3\)"):
        known_loss(nn.BCEWithLogitsLoss(), draw()[0], draw()[1][:, :3])
