"""What a loss refuses before training: numbers out of range, frequencies without weight, another task.

What all losses share: targets that are NaN are unknown and do not count.
"""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cxrlab.errors import ConfigError
from cxrlab.task import Task

log = logging.getLogger(__name__)


_CHOICES: dict[Task, str] = {
    "multilabel": "bce, weighted_bce, focal or asymmetric",
    "multiclass": "cross_entropy",
}


def check_range(name: str, value: float, low: float, high: float) -> float:
    """Return a value of the loss that lies between two bounds, bounds included.

    Raises:
        ConfigError: If it does not.

    Example:
        >>> check_range("clip", 1.5, 0.0, 1.0)
        Traceback (most recent call last):
        cxrlab.errors.ConfigError: loss.clip=1.5 must lie between 0 and 1.
    """
    if not low <= value <= high:
        bounds = f"lie between {low:g} and {high:g}" if high < math.inf else f"be at least {low:g}"
        raise ConfigError(f"loss.{name}={value} must {bounds}.")
    return value


def check_frequencies(frequencies: Sequence[float], loss: str) -> Tensor:
    """Return the frequencies of labels that can be weighted by them, float32, shape ``(L,)``.

    Raises:
        ConfigError: If a label is always present, never present, or never known: a weight would be zero.
    """
    positive = torch.as_tensor(frequencies, dtype=torch.float32)
    if not bool(((positive > 0) & (positive < 1)).all()):
        raise ConfigError(
            f"loss={loss} needs labels that are present in some training images and absent in "
            f"others; their frequencies are {[round(float(f), 4) for f in positive]}. Leave constant "
            "labels out with data.labels."
        )
    return positive


def check_task(loss: object, task: Task) -> None:
    """Refuse a loss, or class of losses, that names another task as its own; one that names none may do.

    Raises:
        ConfigError: Naming the loss, the task, and the losses that fit.
    """
    made_for = getattr(loss, "task", task)
    if made_for != task:
        name = loss.__name__ if isinstance(loss, type) else type(loss).__name__
        raise ConfigError(
            f"The loss {name} is made for task={made_for}, but this is task={task}: choose "
            f"loss={_CHOICES[task]}, or set task={made_for}."
        )


def warn_of_balancing_twice(loss: object, sampling: str) -> None:
    """Warn where rare findings are drawn more often and weigh more as well: together they are overdone."""
    weights = getattr(loss, "weights", getattr(loss, "positive_weights", None))
    if sampling == "balanced" and weights is not None:
        log.warning(
            "data.sampling=balanced with a loss whose weights follow the frequencies (%s) balances twice: "
            "set loss=bce, loss.is_balanced=false, or data.sampling=uniform",
            type(loss).__name__,
        )


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


def check_shapes(logits: Tensor, targets: Tensor) -> None:
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
    check_shapes(logits, targets)
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
