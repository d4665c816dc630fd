"""Losses over logits; targets that are NaN are unknown and do not count."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrlab.errors import ConfigError


def label_frequencies(targets: Tensor) -> Tensor:
    """Return the share of positives among the known targets of each label.

    Args:
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.

    Returns:
        Shape ``(L,)``; NaN for a label that is never known.

    Example:
        >>> label_frequencies(torch.tensor([[1.0, 0.0], [0.0, torch.nan]]))
        tensor([0.5000, 0.0000])
    """
    return torch.nanmean(targets, dim=0)


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
    if logits.shape != targets.shape:
        raise ValueError(f"Logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ in shape.")
    logits = logits.float()  # half precision would round the loss of confident predictions to zero
    known = ~torch.isnan(targets)
    present = torch.where(known, targets, 0.0).float()
    absent = torch.where(known, 1.0 - targets, 0.0).float()
    if positive_weights is not None:
        present = present * positive_weights
    if negative_weights is not None:
        absent = absent * negative_weights
    terms = present * F.logsigmoid(logits) + absent * F.logsigmoid(-logits)
    return -terms.sum() / known.sum().clamp_min(1)


class BCE(nn.Module):
    """Binary cross-entropy over the known targets."""

    def __init__(self, *, frequencies: Sequence[float]) -> None:
        super().__init__()

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss of logits and targets, both ``(B, L)``."""
        return masked_bce(logits, targets)


class WeightedBCE(nn.Module):
    """Binary cross-entropy in which positives and negatives of a label weigh the same in total.

    The positive term of a label is weighted by its frequency of negatives, and the negative term by its
    frequency of positives, both in the training part. The weights are no part of the checkpoint: they
    follow from the data.

    Args:
        frequencies: Share of positives by label in the training part, shape ``(L,)``.

    Raises:
        ConfigError: If a label has no positives, no negatives, or is never known: its weight would be zero.

    References:
        Rajpurkar et al., CheXNet, arXiv:1711.05225, equation 2.
    """

    positive_weights: Tensor
    negative_weights: Tensor

    def __init__(self, *, frequencies: Sequence[float]) -> None:
        super().__init__()
        positive = torch.as_tensor(frequencies, dtype=torch.float32)
        if not bool(((positive > 0) & (positive < 1)).all()):
            raise ConfigError(
                "loss=weighted_bce needs labels that are present in some training images and absent in "
                f"others; their frequencies are {[round(float(f), 4) for f in positive]}. Leave constant "
                "labels out with data.labels."
            )
        self.register_buffer("positive_weights", 1.0 - positive, persistent=False)
        self.register_buffer("negative_weights", positive, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss of logits and targets, both ``(B, L)``."""
        return masked_bce(logits, targets, self.positive_weights, self.negative_weights)
