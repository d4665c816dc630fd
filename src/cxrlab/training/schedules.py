"""Learning-rate schedules, as Lightning takes them: a schedule, its step, and what it watches.

Each takes the optimizer and the length of the training in steps and epochs, and keeps the ratios between the
rates of the optimizer's groups.
"""

import logging
import math
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import LRSchedulerConfigType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from cxrlab.errors import ConfigError

log = logging.getLogger(__name__)


def cosine(
    optimizer: Optimizer,
    *,
    num_steps: int,
    num_epochs: int,
    warmup_fraction: float = 0.1,
    warmup_epochs: float | None = None,
    final_factor: float = 0.01,
) -> LRSchedulerConfigType:
    """Return a linear warm-up followed by half a cosine, stepped every batch.

    Args:
        optimizer: What it drives.
        num_steps: Optimizer steps of the whole training.
        num_epochs: Its epochs.
        warmup_fraction: Share of the steps in which the rate rises, from 0 to less than 1.
        warmup_epochs: The same as a number of epochs; None leaves it to ``warmup_fraction``.
        final_factor: Rate at the end as a share of the highest.

    Raises:
        ConfigError: If a value is out of its range, or the warm-up is not shorter than training.

    References:
        Loshchilov and Hutter, SGDR, ICLR 2017.
    """
    if not 0 <= final_factor <= 1:
        raise ConfigError(f"scheduler.final_factor={final_factor} must lie between 0 and 1.")
    if warmup_epochs is not None:
        if not 0 <= warmup_epochs < num_epochs:
            raise ConfigError(
                f"scheduler.warmup_epochs={warmup_epochs} does not fit into a training of {num_epochs} "
                "epochs: nothing would be left to fall. Set fewer, or a larger trainer.max_epochs."
            )
        warmup_fraction = warmup_epochs / num_epochs
    _check_fraction("warmup_fraction", warmup_fraction)
    warmup_steps = round(warmup_fraction * num_steps)

    # A function: torch would store an object's numbers, and put the old length over a resumed run's new one.
    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
        return final_factor + (1.0 - final_factor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


class OneCycle(OneCycleLR):
    """torch's schedule, but a resumed run follows its own length, not that of the checkpoint.

    At its end it stays where it is: a resume may have made the length shorter than what was trained.
    """

    def step(self, epoch: int | None = None) -> None:
        """Go on by one optimizer step."""
        if self.last_epoch < self.total_steps:
            super().step(epoch)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at the step of a checkpoint."""
        length = ("total_steps", "_schedule_phases")
        super().load_state_dict({key: value for key, value in state_dict.items() if key not in length})


def one_cycle(
    optimizer: Optimizer,
    *,
    num_steps: int,
    num_epochs: int,
    warmup_fraction: float = 0.3,
    start_divisor: float = 25.0,
    final_divisor: float = 1e4,
    cycle_momentum: bool = True,
) -> LRSchedulerConfigType:
    """Return a rise to the optimizer's rate and a longer fall far below it, stepped every batch.

    Args:
        optimizer: What it drives; its rate is the highest one.
        num_steps: Optimizer steps of the whole training.
        num_epochs: Not used.
        warmup_fraction: Share of the steps in which the rate rises, from 0 to less than 1.
        start_divisor: The highest rate divided by the first one.
        final_divisor: The first rate divided by the last one.
        cycle_momentum: Whether momentum (Adam's first beta) falls to 0.85 while the rate rises, and comes
            back to 0.95.

    Raises:
        ConfigError: If a value is out of its range, or there is no momentum to cycle.

    References:
        Smith and Topin, Super-Convergence, arXiv:1708.07120.
    """
    _check_fraction("warmup_fraction", warmup_fraction)
    for name, value in {"start_divisor": start_divisor, "final_divisor": final_divisor}.items():
        if value < 1:
            raise ConfigError(f"scheduler.{name}={value} must be at least 1.")
    if cycle_momentum and not (optimizer.defaults.get("momentum") or "betas" in optimizer.defaults):
        raise ConfigError(
            "scheduler.cycle_momentum=true, but the optimizer has no momentum. Set "
            "scheduler.cycle_momentum=false, or an optimizer.momentum."
        )
    if warmup_fraction * num_steps == 1:  # torch would divide by the length of that rise less one step
        warmup_fraction = 1.5 / num_steps
    schedule = OneCycle(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=num_steps,
        pct_start=float(warmup_fraction),
        div_factor=start_divisor,
        final_div_factor=final_divisor,
        cycle_momentum=cycle_momentum,
    )
    return {"scheduler": schedule, "interval": "step"}


def plateau(
    optimizer: Optimizer,
    *,
    num_steps: int,
    num_epochs: int,
    monitor: str = "val/auroc",
    mode: Literal["min", "max"] = "max",
    factor: float = 0.3,
    patience: int = 2,
    min_lr: float = 1e-6,
) -> LRSchedulerConfigType:
    """Return a schedule that multiplies the rate by ``factor`` after ``patience`` epochs without progress.

    Args:
        optimizer: What it drives.
        num_steps: Not used.
        num_epochs: Epochs of the training; a patience that leaves none with a lower rate is warned about.
        monitor: Metric of validation that tells progress.
        mode: Whether it is to rise (``max``) or to fall.
        factor: Between 0 and 1.
        patience: Epochs without progress, at least 1, after the last of which the rate falls, as Keras and
            early stopping count them; torch's own ``ReduceLROnPlateau`` waits for one more.
        min_lr: The rate never falls below this one; a group that starts below it stays as it is.

    Raises:
        ConfigError: If a value is out of its range.
    """
    if not 0 < factor < 1:
        raise ConfigError(f"scheduler.factor={factor} must lie between 0 and 1.")
    highest = max(group["lr"] for group in optimizer.param_groups)
    if min_lr > highest:
        raise ConfigError(f"scheduler.min_lr={min_lr} is above the optimizer's rate of {highest}.")
    if min_lr < 0:
        raise ConfigError(f"scheduler.min_lr={min_lr} must not be negative.")
    if patience < 1:
        raise ConfigError(f"scheduler.patience={patience} must be at least 1 epoch without progress.")
    # The first epoch sets the mark, and the rate after the last one is not used any more.
    if patience + 1 >= num_epochs:
        log.warning(
            "scheduler.patience=%d: in a training of %d epochs the rate never falls", patience, num_epochs
        )
    floors = [min(min_lr, group["lr"]) for group in optimizer.param_groups]
    schedule = ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience - 1, min_lr=floors)
    return {"scheduler": schedule, "interval": "epoch", "monitor": monitor}


def constant(optimizer: Optimizer, *, num_steps: int, num_epochs: int) -> LRSchedulerConfigType:
    """Return a schedule that leaves the rate as it is."""
    return {"scheduler": LambdaLR(optimizer, lambda step: 1.0), "interval": "epoch"}


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ConfigError(f"scheduler.{name}={value} must be at least 0 and below 1.")


def training_length(trainer: pl.Trainer) -> tuple[int, int]:
    """Return the optimizer steps and the epochs of the whole training.

    Lightning's ``estimated_stepping_batches`` makes the loader's first iterator before a checkpoint is
    restored, and a resumed run would then see the images of epoch 0 once more.

    Raises:
        ConfigError: If the trainer has neither a number of epochs nor one of steps.
    """
    num_batches = trainer.datamodule.num_training_batches  # type: ignore[attr-defined]
    limit = trainer.limit_train_batches
    num_batches = min(limit, num_batches) if isinstance(limit, int) else int(limit * num_batches)
    steps_per_epoch = math.ceil(num_batches / trainer.accumulate_grad_batches)
    num_steps = steps_per_epoch * max(0, trainer.max_epochs or 0)
    if trainer.max_steps > 0:
        num_steps = min(num_steps, trainer.max_steps) if num_steps > 0 else trainer.max_steps
    if num_steps <= 0:
        raise ConfigError("A schedule needs an end: set trainer.max_epochs or trainer.max_steps.")
    return num_steps, math.ceil(num_steps / steps_per_epoch)
