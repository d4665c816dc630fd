"""Losses in which the easy counts less: focal, and asymmetric for the many easy negatives of rare labels."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrlab.losses.base import check_range, known_entries, masked_mean
from cxrlab.task import Task

# A power below 1 has an infinite gradient at 0.
_LEAST = 1e-8


def focal_terms(logits: Tensor, present: Tensor, gamma: float, alpha: float | None) -> Tensor:
    """Return ``-alpha_t (1 - p_t)^gamma log p_t`` of each entry, p_t being the probability of what is true.

    Args:
        logits: Raw scores, float32, shape ``(B, L)``.
        present: 1 present, 0 absent, shape ``(B, L)``.
        gamma: How fast the weight falls as p_t rises; 0 is cross-entropy.
        alpha: Weight of positives, ``1 - alpha`` that of negatives; None leaves both at 1.

    Example:
        >>> focal_terms(torch.zeros(1, 1), torch.ones(1, 1), 2.0, None)  # 0.25 log 2
        tensor([[0.1733]])

    References:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, equation 5.
    """
    signed = logits * (2.0 * present - 1.0)  # p_t is its sigmoid
    # As an exponential: the power's own gradient is infinite at p_t = 1 where gamma is below 1.
    terms = -torch.exp(gamma * F.logsigmoid(-signed)) * F.logsigmoid(signed)
    return terms if alpha is None else terms * (alpha * present + (1.0 - alpha) * (1.0 - present))


class FocalLoss(nn.Module):
    """Focal loss, a mean over the known targets.

    Args:
        gamma: At least 0, see :func:`focal_terms`.
        alpha: Between 0 and 1, or None.

    Raises:
        ConfigError: If a value is out of its range.

    References:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """

    task: ClassVar[Task] = "multilabel"
    handles_unknown: ClassVar[bool] = True

    def __init__(self, *, gamma: float = 2.0, alpha: float | None = 0.25) -> None:
        super().__init__()
        self.gamma = check_range("gamma", gamma, 0.0, math.inf)
        self.alpha = None if alpha is None else check_range("alpha", alpha, 0.0, 1.0)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss of logits and targets, both ``(B, L)``."""
        logits, present, known = known_entries(logits, targets)
        return masked_mean(focal_terms(logits, present, self.gamma, self.alpha), known)


def asymmetric_terms(
    logits: Tensor, present: Tensor, gamma_pos: float, gamma_neg: float, clip: float
) -> Tensor:
    """Return the loss of each entry.

    ``-(1 - p)^gamma_pos log p`` of positives, and ``-q^gamma_neg log(1 - q)`` of negatives, where q is p
    lowered by ``clip`` and no less than 0.

    Args:
        logits: Raw scores, float32, shape ``(B, L)``; p is their sigmoid.
        present: 1 present, 0 absent, shape ``(B, L)``.
        gamma_pos: Focusing of positives.
        gamma_neg: Focusing of negatives.
        clip: Probability margin: negatives below it have no loss.

    Example:
        >>> asymmetric_terms(torch.zeros(1, 1), torch.zeros(1, 1), 0.0, 2.0, 0.0)  # 0.25 log 2
        tensor([[0.1733]])

    References:
        Ridnik et al., Asymmetric Loss For Multi-Label Classification, ICCV 2021, equation 7.
    """
    positive = -torch.exp(gamma_pos * F.logsigmoid(-logits)) * F.logsigmoid(logits)
    shifted = (torch.sigmoid(logits) - clip).clamp_min(_LEAST)
    # Without a margin 1 - q may be 0, whose logarithm only logsigmoid can tell.
    surprise = F.logsigmoid(-logits) if clip == 0 else torch.log1p(-shifted)
    return present * positive - (1.0 - present) * shifted**gamma_neg * surprise


class AsymmetricLoss(nn.Module):
    """Asymmetric loss, a mean over the known targets; the authors take the sum.

    Args:
        gamma_pos: At least 0, see :func:`asymmetric_terms`.
        gamma_neg: At least 0.
        clip: Between 0 and 0.99.

    Raises:
        ConfigError: If a value is out of its range.

    References:
        Ridnik et al., Asymmetric Loss For Multi-Label Classification, ICCV 2021.
    """

    task: ClassVar[Task] = "multilabel"
    handles_unknown: ClassVar[bool] = True

    def __init__(self, *, gamma_pos: float = 0.0, gamma_neg: float = 4.0, clip: float = 0.05) -> None:
        super().__init__()
        self.gamma_pos = check_range("gamma_pos", gamma_pos, 0.0, math.inf)
        self.gamma_neg = check_range("gamma_neg", gamma_neg, 0.0, math.inf)
        self.clip = check_range("clip", clip, 0.0, 0.99)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss of logits and targets, both ``(B, L)``."""
        logits, present, known = known_entries(logits, targets)
        return masked_mean(
            asymmetric_terms(logits, present, self.gamma_pos, self.gamma_neg, self.clip), known
        )
