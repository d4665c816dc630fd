"""Learning-rate schedules, as Lightning takes them: a schedule, its step, and what it watches."""

import math
from typing import Any

import pytorch_lightning as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from cxrlab.errors import ConfigError


def cosine(
    optimizer: Optimizer, *, num_steps: int, monitor: str, warmup_fraction: float, final_factor: float
) -> dict[str, Any]:
    """Return a linear warm-up followed by half a cosine, stepped every batch.

    Args:
        optimizer: What it drives.
        num_steps: Optimizer steps of the whole training.
        monitor: Not used; every schedule takes the same arguments.
        warmup_fraction: Share of the steps in which the rate rises, 0 to 1.
        final_factor: Rate at the end as a share of the highest.

    Raises:
        ConfigError: If a fraction is outside [0, 1].

    References:
        Loshchilov and Hutter, SGDR, ICLR 2017.
    """
    for name, value in {"warmup_fraction": warmup_fraction, "final_factor": final_factor}.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"scheduler.{name}={value} must lie between 0 and 1.")
    warmup_steps = round(warmup_fraction * num_steps)

    # A function: torch would store an object's numbers, and put the old length over a resumed run's new one.
    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
        return final_factor + (1.0 - final_factor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))

    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


def plateau(
    optimizer: Optimizer,
    *,
    num_steps: int,
    monitor: str,
    mode: str,
    factor: float,
    patience: int,
    min_lr: float,
) -> dict[str, Any]:
    """Return a schedule that multiplies the rate by ``factor`` after ``patience`` epochs without progress."""
    schedule = ReduceLROnPlateau(
        optimizer, mode="max" if mode == "max" else "min", factor=factor, patience=patience, min_lr=min_lr
    )
    return {"scheduler": schedule, "interval": "epoch", "monitor": monitor}


def constant(optimizer: Optimizer, *, num_steps: int, monitor: str) -> dict[str, Any]:
    """Return a schedule that leaves the rate as it is."""
    return {"scheduler": LambdaLR(optimizer, lambda step: 1.0), "interval": "epoch"}


def num_training_steps(trainer: pl.Trainer) -> int:
    """Return the optimizer steps of the whole training.

    Lightning's ``estimated_stepping_batches`` makes the loader's first iterator before a checkpoint is
    restored, and a resumed run would then see the images of epoch 0 once more.

    Raises:
        ConfigError: If the trainer has neither a number of epochs nor one of steps.
    """
    num_batches = trainer.datamodule.num_training_batches  # type: ignore[attr-defined]
    limit = trainer.limit_train_batches
    num_batches = min(limit, num_batches) if isinstance(limit, int) else int(limit * num_batches)
    num_steps = math.ceil(num_batches / trainer.accumulate_grad_batches) * (trainer.max_epochs or 0)
    if trainer.max_steps > 0:
        num_steps = min(num_steps, trainer.max_steps) if num_steps > 0 else trainer.max_steps
    if num_steps <= 0:
        raise ConfigError("A schedule needs an end: set trainer.max_epochs or trainer.max_steps.")
    return num_steps
