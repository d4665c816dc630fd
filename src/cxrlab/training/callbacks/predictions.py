"""Predictions tables: one row an image, what every later evaluation of a run starts from.

What the processes of one training saw, brought together.
"""

from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from cxrlab.data.manifest import COVARIATE, Manifest

T = TypeVar("T")


def gathered(trainer: pl.Trainer, own: T) -> list[T]:
    """Return what each process holds, in the order of their ranks; each image is evaluated by one of them."""
    if trainer.world_size == 1:
        return [own]
    shares: list[T | None] = [None] * trainer.world_size
    torch.distributed.all_gather_object(shares, own)
    return [share for share in shares if share is not None]


def predictions_table(
    manifest: Manifest, index: Tensor, probabilities: Tensor, targets: Tensor, thresholds: Tensor
) -> pd.DataFrame:
    """Return a table of predictions.

    Args:
        manifest: The data set that ``index`` counts the rows of.
        index: Shape ``(N,)``.
        probabilities: Shape ``(N, L)``.
        targets: Shape ``(N, L)``; NaN unknown.
        thresholds: A label is predicted where its probability is at least this, shape ``(L,)``; NaN for none.

    Returns:
        Columns ``image, patient, part, covariate/<name>…, target/<label>…, probability/<label>…`` and
        ``prediction/<label>…``, in the order of the manifest.
    """
    order = torch.argsort(index)
    known = ["image", "patient", "part", *(COVARIATE + name for name in manifest.covariates)]
    table = manifest.table.iloc[index[order].tolist()][known].reset_index(drop=True)
    called = (probabilities >= thresholds).double()
    predictions = torch.where(torch.isnan(thresholds), torch.nan, called)
    blocks = (("target/", targets), ("probability/", probabilities), ("prediction/", predictions))
    for prefix, values in blocks:
        columns = [prefix + label for label in manifest.labels]
        block = pd.DataFrame(values[order].double().numpy(), columns=columns)
        table = pd.concat([table, block], axis=1)
    return table


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
        outputs = [batch for share in gathered(trainer, self._outputs) for batch in share]
        self._outputs = []
        if not outputs or not trainer.is_global_zero:
            return
        columns = {
            name: torch.cat([one[name] for one in outputs]) for name in ("index", "probabilities", "targets")
        }
        self.dirpath.mkdir(parents=True, exist_ok=True)
        manifest = trainer.datamodule.manifest  # type: ignore[attr-defined]
        thresholds = pl_module.operating_point.thresholds.cpu()
        table = predictions_table(manifest, **columns, thresholds=thresholds)
        table.to_csv(self.dirpath / f"{part}.csv", index=False)
