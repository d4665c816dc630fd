"""Binary cross-entropy, each label by itself."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrlab.losses.base import capped, check_frequencies, check_range, known_entries, masked_mean
from cxrlab.task import Task


def masked_bce(
    logits: Tensor,
    targets: Tensor,
    positive_weights: Tensor | None = None,
    negative_weights: Tensor | None = None,
) -> Tensor:
    """Return the binary cross-entropy, a mean over the known targets, each term with its label's weight.

    The two terms are computed with ``logsigmoid``, which neither overflows nor needs an epsilon.

    Args:
        logits: Raw scores, shape ``(B, L)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(B, L)``.
        positive_weights: Weight of the positive term by label, shape ``(L,)``; 1 where it is None.
        negative_weights: Weight of the negative term by label, shape ``(L,)``; 1 where it is None.

    Returns:
        Scalar; 0 where nothing in the batch is known, so that the step stays finite.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> masked_bce(torch.zeros(1, 2), torch.tensor([[1.0, torch.nan]]))
        tensor(0.6931)

    References:
        Irvin et al., CheXpert, AAAI 2019; Rajpurkar et al., CheXNet, arXiv:1711.05225, equation 2.
    """
    logits, present, known = known_entries(logits, targets)
    absent = 1.0 - present
    if positive_weights is not None:
        present = present * positive_weights
    if negative_weights is not None:
        absent = absent * negative_weights
    return masked_mean(-(present * F.logsigmoid(logits) + absent * F.logsigmoid(-logits)), known)


class BCE(nn.Module):
    """Binary cross-entropy over the known targets.

    Args:
        label_smoothing: Targets are drawn towards one half by this share: 0.1 turns 1 into 0.95, 0 into 0.05.

    Raises:
        ConfigError: If ``label_smoothing`` is outside [0, 1].
    """

    task: ClassVar[Task] = "multilabel"
    handles_unknown: ClassVar[bool] = True

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = check_range("label_smoothing", label_smoothing, 0.0, 1.0)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss of logits and targets, both ``(B, L)``."""
        return masked_bce(logits, targets * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing)


class WeightedBCE(nn.Module):
    """Binary cross-entropy in which positives and negatives of a label weigh the same in total.

    The positive term of a label is weighted by its frequency of negatives, and the negative term by its
    frequency of positives, both in the training part. The weights are no part of the checkpoint: they
    follow from the data.

    Args:
        frequencies: Share of positives by label in the training part, shape ``(L,)``.
        max_ratio: The heavier of a label's two weights is at most this many times the lighter one, so that a
            few images of a rare finding do not outweigh all others; None for no cap.

    Raises:
        ConfigError: If a label has no positives, no negatives, or is never known: its weight would be zero;
            or if ``max_ratio`` is below 1.

    References:
        Rajpurkar et al., CheXNet, arXiv:1711.05225, equation 2.
    """

    task: ClassVar[Task] = "multilabel"
    handles_unknown: ClassVar[bool] = True
    positive_weights: Tensor
    negative_weights: Tensor

    def __init__(self, *, frequencies: Sequence[float], max_ratio: float | None = None) -> None:
        super().__init__()
        if max_ratio is not None:
            check_range("max_ratio", max_ratio, 1.0, math.inf)
        positive = check_frequencies(frequencies, "weighted_bce")
        weights = capped(torch.stack([1.0 - positive, positive]), max_ratio)
        self.register_buffer("positive_weights", weights[0], persistent=False)
        self.register_buffer("negative_weights", weights[1], persistent=False)

    @property
    def class_weights(self) -> Mapping[str, Tensor]:
        """The weights of the positive and negative terms, each of shape ``(L,)``."""
        return {"positive": self.positive_weights, "negative": self.negative_weights}

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss of logits and targets, both ``(B, L)``."""
        return masked_bce(logits, targets, self.positive_weights, self.negative_weights)
