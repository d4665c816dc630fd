"""Predictions tables: one row an image, what every later evaluation of a run starts from."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from cxrlab.files import replacing
from cxrlab.metrics.predictions import predictions_frame
from cxrlab.training.processes import gathered


class Predictions(Callback):
    """Writes ``val.csv`` and ``test.csv`` when a trained network is evaluated, not during training.

    Args:
        dirpath: Folder of the tables.
    """

    def __init__(self, *, dirpath: str) -> None:
        self.dirpath = Path(dirpath)
        self._outputs: list[dict[str, Tensor]] = []

    def _keep(self, trainer: pl.Trainer, outputs: Any) -> None:
        if isinstance(outputs, dict) and trainer.state.fn != "fit":
            self._outputs.append({name: value.detach().cpu() for name, value in outputs.items()})

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Keep a batch's outputs."""
        self._keep(trainer, outputs)

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write ``val.csv``."""
        self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write ``test.csv``."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: pl.Trainer, pl_module: Any, part: str) -> None:
        if trainer.state.fn == "fit":
            return
        outputs = [batch for share in gathered(self._outputs) for batch in share]
        self._outputs = []
        if not outputs or not trainer.is_global_zero:
            return
        index, probabilities, targets = (
            torch.cat([batch[name] for batch in outputs]) for name in ("index", "probabilities", "targets")
        )
        order = torch.argsort(index)
        manifest = trainer.datamodule.manifest  # type: ignore[attr-defined]
        table = predictions_frame(
            manifest,
            index[order].tolist(),
            manifest.labels,
            probabilities[order].double().numpy(),
            targets=targets[order].double().numpy(),
            thresholds=pl_module.operating_point.thresholds.double().cpu().numpy(),
        )
        self.dirpath.mkdir(parents=True, exist_ok=True)
        with replacing(self.dirpath / f"{part}.csv") as temporary:
            table.to_csv(temporary, index=False)
