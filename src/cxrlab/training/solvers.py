"""How weights are found: by steps of an optimizer, or of a linear head by logistic regression.

Both train with Lightning's loop, so that checkpoints, metrics.csv, thresholds and a resume are the same.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from cxrlab.data.loader import Batch
from cxrlab.errors import ConfigError, check_range
from cxrlab.files import SolverRecord
from cxrlab.losses import BCE, CrossEntropy, WeightedBCE, class_weights
from cxrlab.training.checkpoint import read_checkpoint
from cxrlab.training.loggers import log_settings
from cxrlab.training.logistic import LinearWeights, LogisticProblem
from cxrlab.training.module import Classifier

# Seven decades: from weights that are all but 0 to those that hardly feel the penalty.
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

_LOSSES = (BCE, WeightedBCE, CrossEntropy)


class Solver(Protocol):
    """How a classifier is trained.

    Attributes:
        reads_features: Whether training and evaluation read the features of a frozen backbone, which are
            computed once, in the place of images.
    """

    @property
    def reads_features(self) -> bool:
        """See above."""

    @property
    def trainer_settings(self) -> Mapping[str, object]:
        """Arguments of the trainer that follow from it; {} where the config says them."""

    def classifier(self, **arguments: Any) -> Classifier:
        """Return the classifier that it trains; arguments are those of :class:`Classifier`."""


@dataclass(frozen=True, kw_only=True)
class GradientSolver:
    """Steps of the optimizer.

    Args:
        caches_features: Compute the features of a frozen backbone once, keep them beside the decoded images,
            and train the head on them: the same training, in seconds an epoch.
    """

    caches_features: bool = False

    @property
    def reads_features(self) -> bool:
        """Whether training and evaluation read features in the place of images."""
        return self.caches_features

    @property
    def trainer_settings(self) -> Mapping[str, object]:
        """None: the config says how long to train."""
        return {}

    def classifier(self, **arguments: Any) -> Classifier:
        """Return a classifier."""
        return Classifier(**arguments)


@dataclass(frozen=True, kw_only=True)
class LogisticSolver:
    """Logistic regression of a frozen backbone's features, by scikit-learn: a linear probe.

    Each strength of the penalty is an epoch: its solution becomes the head, is validated, and is kept where
    it is the best by ``monitor``. One strength serves all labels.

    Args:
        strengths: scikit-learn's ``C``, in the order in which they are tried.
        max_iterations: Of its solver (L-BFGS), by label and strength.

    Raises:
        ConfigError: If there is no strength, or one is not above 0.
    """

    strengths: Sequence[float] = STRENGTHS
    max_iterations: int = 1000

    def __post_init__(self) -> None:
        if not self.strengths:
            raise ConfigError("solver.strengths=[]: give one at least, such as [0.01, 1].")
        for strength in self.strengths:
            if not (strength > 0 and math.isfinite(strength)):
                raise ConfigError(f"solver.strengths={[*self.strengths]}: {strength} must be above 0.")
        check_range("solver.max_iterations", self.max_iterations, 1)

    @property
    def reads_features(self) -> bool:
        """True."""
        return True

    @property
    def trainer_settings(self) -> Mapping[str, object]:
        """An epoch a strength, each validated; there are no gradients to clip or to accumulate."""
        return {
            "max_epochs": len(self.strengths),
            "min_epochs": None,
            "check_val_every_n_epoch": 1,
            "gradient_clip_val": None,
            "accumulate_grad_batches": 1,
        }

    def classifier(self, **arguments: Any) -> Classifier:
        """Return a classifier whose head is solved for."""
        return LogisticProbe(solver=self, **arguments)


class LogisticProbe(Classifier):
    """A classifier whose linear head is solved for, by a :class:`LogisticSolver`, on features in one batch.

    Args:
        solver: Says with which strengths.
        arguments: Of :class:`Classifier`.

    Raises:
        ConfigError: If the network's head is more than one linear layer, or the loss is none that a logistic
            regression minimises.
    """

    def __init__(self, *, solver: LogisticSolver, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.automatic_optimization = False
        self.solver = solver
        check_loss(self.loss)
        if (head := self.network.linear_head) is None or head.bias is None:
            raise ConfigError(
                f"solver=logistic: the head of {self.network.title} is not one linear layer with a bias. Set "
                "model.hidden=null model.head=linear, or solver=gradient."
            )
        self._problem: LogisticProblem | None = None

    def configure_optimizers(self) -> Optimizer:
        """Return what puts a solution in place."""
        head = self.network.linear_head
        return Assignment([] if head is None else list(head.parameters()))

    def on_train_start(self) -> None:
        """Give the loggers the settings of the training."""
        settings: dict[str, object] = {
            "optimizer": "LogisticRegression",
            "strengths": [*self.solver.strengths],
        }
        log_settings(self.trainer, {**self.hparams_initial, **settings})

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Solve for the epoch's strength, and return the loss of the training part with it."""
        solution = self._solve(batch, self.solver.strengths[self.current_epoch])
        optimizer = self.optimizers()
        if not isinstance(optimizer, LightningOptimizer):
            raise TypeError(f"{type(optimizer).__name__} is not the one optimizer of this training.")
        values = [torch.from_numpy(value) for value in (solution.weights, solution.biases)]
        optimizer.step(closure=lambda: values)  # Lightning counts it, and keeps a checkpoint of each count
        with torch.no_grad():
            logits = self._logits(batch)
            loss = self._loss(logits, batch["targets"])
        self._add_to_epoch(loss, logits, batch["targets"])
        return loss

    def _solve(self, batch: Batch, strength: float) -> LinearWeights:
        if self._problem is None:
            order = torch.argsort(batch["index"])  # an epoch's own order would show in the last digits
            weights = class_weights(self.loss)
            self._problem = LogisticProblem(
                batch["features"][order].float().cpu().numpy(),
                batch["targets"][order].float().cpu().numpy(),
                self.labels,
                self.task,
                {name: values.cpu().numpy().astype(np.float32) for name, values in weights.items()},
                self.solver.max_iterations,
            )
        return self._problem.solve(strength)

    def on_train_epoch_end(self) -> None:
        """Log the strength, and loss and accuracy of the training part with its solution."""
        self._log_epoch()
        strength = self.solver.strengths[self.current_epoch]
        for logger in self.trainer.loggers:  # in float64, as it was given
            logger.log_metrics({"strength": strength, "epoch": self.current_epoch}, self.trainer.global_step)

    def on_fit_end(self) -> None:
        """Let go of the features."""
        self._problem = None

    def record(self, best_checkpoint: Path) -> SolverRecord:
        """Return how the weights of the best checkpoint were found.

        Raises:
            CheckpointError: If it cannot be read.
        """
        strengths = [float(strength) for strength in self.solver.strengths]
        strength = strengths[int(read_checkpoint(best_checkpoint)["epoch"])]
        return {"name": "logistic regression (scikit-learn)", "strength": strength, "strengths": strengths}


class Assignment(Optimizer):
    """Sets parameters to values that were solved for: ``step(closure)`` takes those of the closure."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__([{"params": [*parameters]}], {"lr": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Sequence[Tensor]]) -> None:  # type: ignore[override]
        """Copy the values."""
        for parameter, value in zip(self.param_groups[0]["params"], closure(), strict=True):
            parameter.copy_(value)


def check_loss(loss: nn.Module | None) -> None:
    """Refuse a loss that a logistic regression does not minimise.

    The weights of positives, negatives or classes that a loss has are those of the images in the regression.

    Raises:
        ConfigError: Naming it.
    """
    if loss is not None and type(loss) not in _LOSSES:
        raise ConfigError(
            f"solver=logistic minimises the cross-entropy, not {type(loss).__name__}: choose loss=bce, "
            "weighted_bce or cross_entropy, or solver=gradient."
        )
    if smoothing := getattr(loss, "label_smoothing", 0.0):
        raise ConfigError(
            f"loss.label_smoothing={smoothing}: solver=logistic takes targets as they are. Set 0, or "
            "solver=gradient."
        )
