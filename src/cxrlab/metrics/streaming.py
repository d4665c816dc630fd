"""Metrics during a training, from probabilities; a label that cannot be evaluated is NaN, never 0 or 0.5.

Which ones the registry tells. AUROC, average precision and accuracy are torchmetrics', on the device; the
function of any other is called on the processor.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torchmetrics
from torch import Tensor
from torchmetrics.functional.classification import binary_accuracy, binary_auroc, binary_average_precision
from torchmetrics.utilities.data import dim_zero_cat

from cxrlab.errors import ConfigError
from cxrlab.metrics.registry import METRICS, Metric
from cxrlab.task import Task

_ON_DEVICE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "auroc": binary_auroc,
    "average_precision": binary_average_precision,
    "accuracy": binary_accuracy,  # of what is above the probability 0.5
}


# The loss alone, or with what the network adds to it, such as an L2 penalty: Keras' val_loss is the latter.
WITH_PENALTY = "val/loss_with_penalty"
_LOSSES = ("val/loss", WITH_PENALTY)


def check_monitor(monitor: str, mode: str, labels: Sequence[str], *, keys: tuple[str, str]) -> None:
    """Check that validation gives a metric, and that its direction is the one asked for.

    Args:
        monitor: The metric.
        mode: ``min`` or ``max``.
        labels: Names of the outputs.
        keys: What the two are called in the config.

    Raises:
        ConfigError: With the metrics that there are.
    """
    metrics = {f"val/{metric.name}": metric for metric in METRICS.in_training}
    by_label = {f"{name}/{label}": metric for name, metric in metrics.items() for label in labels}
    monitored = (metrics | by_label).get(monitor)
    if monitored is None and monitor not in _LOSSES:
        name, _, label = monitor.removeprefix("val/").partition("/")
        hint = f" {name} is computed during a training with metrics=[{name}]." if name in METRICS else ""
        if label and f"val/{name}" in metrics:
            hint = f" {label} is none of the labels {list(labels)}."
        raise ConfigError(
            f"{keys[0]}={monitor} is no metric of validation; there are {[*_LOSSES, *metrics]}, and each "
            f"but the losses by label.{hint}"
        )
    right = "max" if monitored is not None and monitored.higher_is_better else "min"
    if mode != right:
        raise ConfigError(f"{keys[1]}={mode} would choose the worst {monitor}: set {keys[1]}={right}.")


class LabelMetrics(torchmetrics.Metric):
    """The registry's metrics of each label, and their macro means.

    torchmetrics' multilabel forms give 0 to a label without positives, and that pulls the mean down; here
    such a label is NaN and left out of the mean. States are gathered over processes without padding.

    Args:
        labels: Names in the order of the columns.
        task: What :func:`label_metrics` calls accuracy.
    """

    full_state_update = False
    probabilities: list[Tensor]
    targets: list[Tensor]
    index: list[Tensor]

    def __init__(self, labels: Sequence[str], task: Task = "multilabel") -> None:
        super().__init__()
        self.labels = list(labels)
        self.task = task
        self.metrics = METRICS.in_training
        self._counts: tuple[int, list[int], list[int]] = (0, [], [])
        self._predicted_images = (torch.empty(0), torch.empty(0), torch.empty(0))
        self.add_state("probabilities", default=[], dist_reduce_fx="cat")
        self.add_state("targets", default=[], dist_reduce_fx="cat")
        self.add_state("index", default=[], dist_reduce_fx="cat")

    def update(
        self,
        probabilities: Tensor,
        targets: Tensor,
        index: Tensor | None = None,
        *,
        are_checked: bool = False,
    ) -> None:
        """Add a batch.

        Args:
            probabilities: Values in [0, 1], shape ``(B, L)``.
            targets: 1 present, 0 absent, NaN unknown, shape ``(B, L)``.
            index: Rows of the images in their manifest, shape ``(B,)``; None where nobody asks for them.
            are_checked: Whether they are known to be probabilities: a look at them waits for the device.

        Raises:
            ValueError: If a value is no probability; logits want a sigmoid first.
        """
        if (
            not are_checked
            and probabilities.numel()
            and not bool(((probabilities >= 0) & (probabilities <= 1)).all())
        ):
            low, high = float(probabilities.min()), float(probabilities.max())
            raise ValueError(
                f"Values from {low:.3g} to {high:.3g} are no probabilities; apply a sigmoid to logits."
            )
        self.probabilities.append(probabilities.detach().float())
        self.targets.append(targets.detach().float())
        rows = torch.full((len(targets),), -1) if index is None else index.detach()
        self.index.append(rows.to(targets.device, torch.int64))

    def compute(self) -> dict[str, Tensor]:
        """Return ``{"auroc": ..., "auroc/Edema": ..., ...}``; the plain names are of all labels."""
        probabilities, targets = dim_zero_cat(self.probabilities), dim_zero_cat(self.targets)
        known = ~torch.isnan(targets)
        self._predicted_images = (probabilities, targets, dim_zero_cat(self.index))
        self._counts = (len(targets), known.sum(dim=0).tolist(), targets.nansum(dim=0).int().tolist())
        return label_metrics(probabilities, targets, self.labels, self.task, self.metrics)

    def counts(self) -> tuple[int, list[int], list[int]]:
        """Return the images, and by label the known targets and the positives, that ``compute`` last saw."""
        return self._counts

    def predicted(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return what ``compute`` last saw of all processes.

        Returns:
            Probabilities and targets, each ``(N, L)``, and the images' rows, ``(N,)``.
        """
        predicted = self._predicted_images
        self._predicted_images = (torch.empty(0), torch.empty(0), torch.empty(0))  # they may be large
        return predicted


def label_metrics(
    probabilities: Tensor,
    targets: Tensor,
    labels: Sequence[str],
    task: Task = "multilabel",
    metrics: Sequence[Metric] | None = None,
) -> dict[str, Tensor]:
    """Return each metric of each label, and its mean over the labels where it is defined.

    Args:
        probabilities: Values in [0, 1], shape ``(N, L)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
        labels: L names.
        task: ``multiclass`` makes ``accuracy`` the share of images whose largest probability is that of
            their class; by label it stays that of each class against all others, at the probability 0.5.
        metrics: By default those that the registry has for a training.

    Returns:
        Scalars by name: ``auroc`` is the macro mean, ``auroc/<label>`` one label's. AUROC and average
        precision are NaN for a label with one class only, accuracy for a label that is never known.

    Example:
        >>> scores = torch.tensor([[0.9, 0.1], [0.2, 0.3]])
        >>> label_metrics(scores, torch.tensor([[1.0, 0.0], [0.0, 0.0]]), ["Edema", "Mass"])["auroc"]
        tensor(1.)
    """
    results: dict[str, Tensor] = {}
    for metric in METRICS.in_training if metrics is None else metrics:
        values = [
            _label_metric(metric, probabilities[:, column], targets[:, column])
            for column in range(len(labels))
        ]
        results[metric.name] = torch.stack(values).nanmean()
        results |= {f"{metric.name}/{label}": value for label, value in zip(labels, values, strict=True)}
    if task == "multiclass":
        results["accuracy"] = _exclusive_accuracy(probabilities, targets)
    return results


def count_hits(logits: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Return how many known targets of a batch are predicted right, and how many there are.

    Args:
        logits: Shape ``(B, L)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(B, L)``.
        task: ``multiclass`` counts images, ``multilabel`` the targets of each label, as for the accuracy of
            :func:`label_metrics`.

    Returns:
        Right and known, shape ``(2, L)``, or ``(2, 1)`` for ``multiclass``.

    Example:
        >>> count_hits(torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 1.0]]), "multilabel").tolist()
        [[1.0, 0.0], [1.0, 1.0]]
    """
    known = ~torch.isnan(targets)
    if task == "multiclass":
        known = known.all(dim=1, keepdim=True)
        is_right = (logits.argmax(dim=1) == targets.argmax(dim=1))[:, None]
    else:
        is_right = (logits > 0) == (targets == 1)
    return torch.stack([(is_right & known).sum(dim=0), known.sum(dim=0)]).float()


def _exclusive_accuracy(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return the share of images whose largest probability is that of their class, where that is known."""
    known = ~torch.isnan(targets).any(dim=1)
    is_right = probabilities[known].argmax(dim=1) == targets[known].argmax(dim=1)
    return is_right.float().mean()  # NaN of none


def _label_metric(metric: Metric, probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return a metric over the known targets of one label, or NaN where they do not define it."""
    known = ~torch.isnan(targets)
    scores, wanted = probabilities[known], targets[known]
    if metric.name in _ON_DEVICE:
        return _on_device(metric.name, scores, wanted)
    predictions = (scores > 0.5).double() if metric.needs == "decisions" else scores.double()
    value = metric(predictions.cpu().numpy(), wanted.double().cpu().numpy())
    return torch.tensor(value, dtype=torch.float32, device=scores.device)


def _on_device(name: str, scores: Tensor, targets: Tensor) -> Tensor:
    """Return one of torchmetrics' metrics; of one class only there is but the accuracy."""
    positives = int(targets.sum())
    if targets.numel() == 0 or (name != "accuracy" and positives in (0, targets.numel())):
        return torch.tensor(math.nan, device=scores.device)
    return _ON_DEVICE[name](scores, targets.long()).float()


def undefined_labels(results: dict[str, Tensor], labels: Sequence[str]) -> list[str]:
    """Return the labels whose AUROC is NaN and which the macro mean therefore leaves out."""
    return [label for label in labels if math.isnan(float(results[f"auroc/{label}"]))]
