"""What the outputs mean: labels evaluated one by one, or classes of which each image has exactly one."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from cxrlab.errors import DataError

Task = Literal["multilabel", "multiclass"]


def activate(logits: Tensor, task: Task) -> Tensor:
    """Return probabilities in float32, NaN where a logit is not finite: no such finding is certain.

    Args:
        logits: Raw scores, shape ``(B, L)``.
        task: ``multilabel`` gives each label a probability of its own (sigmoid), ``multiclass`` gives all
            labels together 1 (softmax).

    Example:
        >>> activate(torch.zeros(1, 2), "multilabel")
        tensor([[0.5000, 0.5000]])
        >>> activate(torch.tensor([[1.0, 1.0, 2.0]]).log(), "multiclass")
        tensor([[0.2500, 0.2500, 0.5000]])
    """
    logits = logits.float()
    probabilities = torch.softmax(logits, dim=1) if task == "multiclass" else torch.sigmoid(logits)
    return torch.where(torch.isfinite(logits), probabilities, torch.nan)


def check_exclusive(targets: Tensor, labels: Sequence[str]) -> None:
    """Refuse targets that are no exclusive classes.

    Args:
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
        labels: Their names.

    Raises:
        DataError: If there is one label only, or an image whose labels are known has none of them, or
            several.

    Example:
        >>> check_exclusive(torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]]), ["Normal", "Pneumonia"])
    """
    if len(labels) < 2:
        raise DataError(
            f"task=multiclass needs two labels or more, one for each class; there is {list(labels)}. "
            "Set task=multilabel."
        )
    unknown = torch.isnan(targets).all(dim=1)
    is_wrong = ~unknown & ~((targets == 1).sum(dim=1).eq(1) & (targets == 0).sum(dim=1).eq(len(labels) - 1))
    if bool(is_wrong.any()):
        raise DataError(
            f"task=multiclass needs images with exactly one of {list(labels)}; {int(is_wrong.sum())} of "
            f"{len(targets)} images have none or several, or are partly unknown. Choose other data.labels, "
            "or task=multilabel."
        )
