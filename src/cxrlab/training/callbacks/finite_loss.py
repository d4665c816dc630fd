"""Stops at a loss that is not finite, and names the images of that batch."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from cxrlab.errors import TrainingError
from cxrlab.training.delayed import Delayed


class FiniteLoss(Callback):
    """Checks each step's loss one step later, so that a GPU always has a step in its queue.

    Raises:
        TrainingError: Naming epoch, step and images.
    """

    def __init__(self) -> None:
        self._pending: tuple[Delayed, Tensor, int] | None = None  # loss, rows of the manifest, step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the step before this one, and keep this one."""
        self._check(trainer)
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if not isinstance(loss, Tensor):
            return
        # The copy starts now and is waited for after the next step was queued.
        self._pending = (Delayed(loss), batch["index"], batch_idx)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the epoch's last step, before its checkpoint is written."""
        self._check(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the last step before validation."""
        self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        pending, self._pending = self._pending, None
        if pending is None:
            return
        delayed, index, batch_idx = pending
        loss = delayed.read()
        if not bool(torch.isfinite(loss)):
            manifest = trainer.datamodule.manifest  # type: ignore[attr-defined]
            raise TrainingError(
                f"The loss is {float(loss)} in epoch {trainer.current_epoch}, step {batch_idx}. The batch's "
                f"images: {manifest.named(index.tolist())}. Lower optimizer.lr, or look at these images and "
                "their labels."
            )
