"""What all losses share: how they are built, what they may declare, and how unknown targets are left out.

A loss is a ``torch.nn.Module`` of logits and targets, both ``(B, L)``, that gives a scalar. Three attributes
are optional: ``task`` (``multilabel`` or ``multiclass``, where it fits one only), ``handles_unknown = True``
(it leaves out targets that are NaN by itself) and ``class_weights`` (its weights by name, for the log).
"""

import copy
import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from cxrlab.errors import ConfigError
from cxrlab.task import Task

log = logging.getLogger(__name__)

_CHOICES: dict[Task, str] = {
    "multilabel": "bce, weighted_bce, focal or asymmetric",
    "multiclass": "cross_entropy",
}


def build_loss(factory: nn.Module | Callable[..., nn.Module], frequencies: Sequence[float]) -> nn.Module:
    """Make a loss, with the class frequencies if its constructor has a parameter ``frequencies``.

    Args:
        factory: A class, a ``functools.partial`` of one, or a loss that is made already.
        frequencies: Share of positives by label in the training part, shape ``(L,)``.

    Raises:
        ConfigError: If what is made is no ``nn.Module``.

    Example:
        >>> build_loss(nn.BCEWithLogitsLoss, [0.5, 0.1])
        BCEWithLogitsLoss()
    """
    made = inspect.unwrap(factory)
    if isinstance(made, nn.Module):  # a config without _partial_
        return made
    takes_them = "frequencies" in inspect.signature(factory).parameters
    loss = factory(frequencies=list(frequencies)) if takes_them else factory()
    if not isinstance(loss, nn.Module):
        raise ConfigError(f"loss gives a {type(loss).__name__}, not a torch.nn.Module of logits and targets.")
    return loss


def class_weights(loss: object) -> Mapping[str, Tensor]:
    """Return the weights by label that a loss declares, such as ``positive``, each ``(L,)``; {} for none."""
    weights: Mapping[str, Tensor] = getattr(loss, "class_weights", {})
    return weights


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
    if sampling == "balanced" and class_weights(loss):
        log.warning(
            "data.sampling=balanced with a loss whose weights follow the frequencies (%s) balances twice: "
            "set loss=bce, loss.is_balanced=false, or data.sampling=uniform",
            type(loss).__name__,
        )


def known_loss(loss: nn.Module, logits: Tensor, targets: Tensor) -> Tensor:
    """Return a loss over the known targets, whether or not it can leave out the others by itself.

    A loss that declares ``handles_unknown = True`` gets everything as it is. Another one gets logits in
    float32, and

    - where nothing is unknown, or whole images are, the images that are known;
    - else, if it has a ``reduction`` (torch's and MONAI's losses) and gives a term for each entry without it,
      the mean or sum of the known terms, which is exact whatever weights it has;
    - else each label by itself, its known images as ``(n, 1)``, averaged by the number of known images.

    Args:
        loss: Of logits and targets, a scalar.
        logits: Raw scores, shape ``(B, L)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(B, L)``.

    Returns:
        Scalar; 0 where nothing in the batch is known.

    Raises:
        ValueError: If the shapes differ.
        ConfigError: If the loss gives no scalar, or has values of its own by label, so that it cannot be
            applied label by label.

    Example:
        >>> targets = torch.tensor([[1.0, torch.nan]])
        >>> known_loss(nn.BCEWithLogitsLoss(), torch.zeros(1, 2), targets)
        tensor(0.6931)
    """
    if getattr(loss, "handles_unknown", False):
        return _scalar(loss, logits, targets)
    check_shapes(logits, targets)
    logits, targets = logits.float(), targets.float()
    known = ~torch.isnan(targets)
    rows = known.all(dim=1)
    if not bool(known.any()):
        return torch.where(known, logits, 0.0).sum()
    if bool((rows == known.any(dim=1)).all()):
        return _scalar(loss, logits[rows], targets[rows])
    reduction = getattr(loss, "reduction", None)
    if reduction in ("mean", "sum"):
        unreduced = copy.copy(loss)
        unreduced.reduction = "none"  # type: ignore[assignment]
        terms = unreduced(logits, torch.where(known, targets, 0.0))
        if terms.shape == targets.shape:
            return masked_mean(terms, known) if reduction == "mean" else torch.where(known, terms, 0.0).sum()
    return _label_by_label(loss, logits, targets, known)


def _label_by_label(loss: nn.Module, logits: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    num_labels = targets.shape[1]
    values = [*loss.parameters(), *loss.buffers(), *(v for v in vars(loss).values() if isinstance(v, Tensor))]
    if num_labels > 1 and any(value.shape[-1:] == (num_labels,) for value in values):
        raise ConfigError(
            f"The loss {type(loss).__name__} has values of its own for {num_labels} labels, and some targets "
            "are unknown: it cannot be applied to one label at a time. Leave NaN targets out in its forward "
            "and declare handles_unknown = True, or give it a reduction as torch's losses have."
        )
    total = torch.where(known, logits, 0.0).sum() * 0.0
    for label in range(num_labels):
        rows = known[:, label]
        if bool(rows.any()):
            column = slice(label, label + 1)
            total = total + _scalar(loss, logits[rows, column], targets[rows, column]) * rows.sum()
    return total / known.sum()


def _scalar(loss: nn.Module, logits: Tensor, targets: Tensor) -> Tensor:
    value: Tensor = loss(logits, targets)
    if not isinstance(value, Tensor):
        raise ConfigError(
            f"The loss {type(loss).__name__} gives a {type(value).__name__}, not a torch.Tensor."
        )
    if value.ndim:
        raise ConfigError(
            f"The loss {type(loss).__name__} gives {tuple(value.shape)} numbers for a batch, not one: set "
            "its reduction=mean, or return the mean."
        )
    return value


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
