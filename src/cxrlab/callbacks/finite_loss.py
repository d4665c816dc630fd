"""Stops at a loss that is not finite, and names the images of that batch."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from cxrlab.errors import TrainingError


class FiniteLoss(Callback):
    """Checks each step's loss one step later, when it is known anyway: a GPU is not made to wait.

    Raises:
        TrainingError: Naming epoch, step and up to eight of the batch's images.
    """

    def __init__(self) -> None:
        self._pending: tuple[Tensor, list[int], int] | None = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Check the step before this one, and keep this one."""
        self._check(trainer)
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if isinstance(loss, Tensor):
            self._pending = (loss.detach(), batch["index"], batch_idx)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the epoch's last step, before its checkpoint is written."""
        self._check(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the last step before validation, which would fail on such a network with a worse message."""
        self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        pending, self._pending = self._pending, None
        if pending is None or bool(torch.isfinite(pending[0])):
            return
        loss, index, batch_idx = pending
        table = trainer.datamodule.manifest.table  # type: ignore[attr-defined]
        images = table["image"].iloc[[int(row) for row in index]]
        shown = ", ".join(images.head(8)) + (f" and {len(images) - 8} more" if len(images) > 8 else "")
        raise TrainingError(
            f"The loss is {float(loss)} in epoch {trainer.current_epoch}, step {batch_idx}. "
            f"The batch's images: {shown}. "
            "Lower optimizer.lr, or look at these images and their labels."
        )
