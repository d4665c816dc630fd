import math

import pytest
from torch import nn

from cxrlab.errors import ConfigError
from cxrlab.losses import BCE, AsymmetricLoss, CrossEntropy, FocalLoss, WeightedBCE
from cxrlab.losses.base import check_range, check_task, warn_of_balancing_twice


@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_a_value_out_of_range_is_named(value: float):
    with pytest.raises(ConfigError, match=rf"loss.gamma={value} must be at least 0"):
        check_range("gamma", value, 0.0, math.inf)


@pytest.mark.parametrize(
    "loss", [BCE, WeightedBCE, FocalLoss, AsymmetricLoss, BCE(label_smoothing=0.0)]
)
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
