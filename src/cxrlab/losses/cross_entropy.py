"""Cross-entropy of exclusive classes, of which each image has exactly one."""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrlab.errors import ConfigError
from cxrlab.losses.base import capped, check_frequencies, check_range, check_shapes
from cxrlab.task import Task

_UNKNOWN = -100  # cross_entropy leaves these rows out


def masked_cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the cross-entropy of a softmax, a mean over the images whose class is known.

    Args:
        logits: Raw scores, shape ``(B, L)``.
        targets: 1 for the image's class and 0 for the others; a row of NaN where it is unknown; ``(B, L)``.
        weights: Of an image, by its class, shape ``(L,)``; the mean is the weighted one, as torch has it.
        label_smoothing: Share of each target that is spread evenly over all classes.

    Returns:
        Scalar; 0 where nothing in the batch is known.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> masked_cross_entropy(torch.zeros(2, 2), torch.tensor([[0.0, 1.0], [torch.nan, torch.nan]]))
        tensor(0.6931)

    References:
        Szegedy et al., Rethinking the Inception Architecture, CVPR 2016 (label smoothing).
    """
    check_shapes(logits, targets)
    known = ~torch.isnan(targets).any(dim=1)
    classes = targets.nan_to_num().argmax(dim=1)
    total = F.cross_entropy(
        logits.float(),
        torch.where(known, classes, _UNKNOWN),
        weight=weights,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    weight = known.float() if weights is None else weights[classes] * known
    return total / weight.sum().clamp_min(torch.finfo(torch.float32).tiny)


class CrossEntropy(nn.Module):
    """Cross-entropy of a softmax over exclusive classes, for ``task=multiclass``.

    Args:
        frequencies: Share of each class in the training part, shape ``(L,)``; needed with ``is_balanced``.
        is_balanced: Weigh images by ``1 / (L f)``, f being their class's frequency, so that each class weighs
            the same in total. The weights are no part of the checkpoint: they follow from the data.
        max_ratio: No class weighs more than this many times the lightest one; None for no cap.
        label_smoothing: Share of each target that is spread evenly over all classes.

    Raises:
        ConfigError: If a class to be weighted is missing from the training part, or a value is out of range.
    """

    task: ClassVar[Task] = "multiclass"
    handles_unknown: ClassVar[bool] = True
    weights: Tensor | None

    def __init__(
        self,
        *,
        frequencies: Sequence[float] = (),
        is_balanced: bool = False,
        max_ratio: float | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.label_smoothing = check_range("label_smoothing", label_smoothing, 0.0, 1.0)
        if max_ratio is not None:
            check_range("max_ratio", max_ratio, 1.0, math.inf)
        weights = None
        if is_balanced:
            if not len(frequencies):
                raise ConfigError(
                    "loss.is_balanced=true needs the frequencies of the classes: none are given."
                )
            shares = check_frequencies(frequencies, "cross_entropy loss.is_balanced=true")
            weights = capped(1.0 / (len(shares) * shares), max_ratio)
        self.register_buffer("weights", weights, persistent=False)

    @property
    def class_weights(self) -> Mapping[str, Tensor]:
        """The weights of the classes, shape ``(L,)``; empty where they weigh alike."""
        return {} if self.weights is None else {"class": self.weights}

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss of logits and targets, both ``(B, L)``."""
        return masked_cross_entropy(logits, targets, self.weights, self.label_smoothing)
