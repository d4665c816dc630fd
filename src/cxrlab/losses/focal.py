"""Focal loss: what is judged well already counts less."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrlab.losses.checks import check_range
from cxrlab.losses.masking import known_entries, masked_mean
from cxrlab.models.task import Task


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
        frequencies: Not used.
        gamma: At least 0, see :func:`focal_terms`.
        alpha: Between 0 and 1, or None.

    Raises:
        ConfigError: If a value is out of its range.

    References:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """

    task: ClassVar[Task] = "multilabel"

    def __init__(self, *, frequencies: Sequence[float], gamma: float, alpha: float | None) -> None:
        super().__init__()
        self.gamma = check_range("gamma", gamma, 0.0, math.inf)
        self.alpha = None if alpha is None else check_range("alpha", alpha, 0.0, 1.0)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss of logits and targets, both ``(B, L)``."""
        logits, present, known = known_entries(logits, targets)
        return masked_mean(focal_terms(logits, present, self.gamma, self.alpha), known)
