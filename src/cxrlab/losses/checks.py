"""What a loss refuses before training: numbers out of range, frequencies without weight, another task."""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cxrlab.errors import ConfigError
from cxrlab.models.task import Task

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


def refuse_other_task(loss: object, task: Task) -> None:
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
            "set loss=bce, loss.is_balanced=false, or data.sampling=even",
            type(loss).__name__,
        )
