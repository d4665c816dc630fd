"""What all losses share: targets that are NaN are unknown and do not count."""

import torch
from torch import Tensor


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


def refuse_other_shape(logits: Tensor, targets: Tensor) -> None:
    """Refuse logits and targets that do not stand for the same entries.

    Raises:
        ValueError: If the shapes differ.
    """
    if logits.shape != targets.shape:
        raise ValueError(f"Logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ in shape.")


def known_entries(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits in float32, targets with 0 in place of NaN, and where they are known.

    Half precision would round the loss of confident predictions to zero.

    Args:
        logits: Raw scores, shape ``(B, L)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(B, L)``.

    Raises:
        ValueError: If the shapes differ.
    """
    refuse_other_shape(logits, targets)
    known = ~torch.isnan(targets)
    return logits.float(), torch.where(known, targets, 0.0).float(), known


def masked_mean(terms: Tensor, known: Tensor) -> Tensor:
    """Return the mean of the known terms, both ``(B, L)``; 0 where none is known, to keep the step finite.

    Example:
        >>> masked_mean(torch.tensor([[1.0, 5.0]]), torch.tensor([[True, False]]))
        tensor(1.)
    """
    return torch.where(known, terms, 0.0).sum() / known.sum().clamp_min(1)


def capped(weights: Tensor, max_ratio: float | None) -> Tensor:
    """Return weights of which none is more than ``max_ratio`` times the smallest one of its column.

    Args:
        weights: Positive, shape ``(K, L)`` or ``(K,)``.
        max_ratio: At least 1; None for no cap.

    Example:
        >>> capped(torch.tensor([1.0, 2.0, 30.0]), 4.0)
        tensor([1., 2., 4.])
    """
    return weights if max_ratio is None else torch.minimum(weights, weights.amin(dim=0) * max_ratio)
