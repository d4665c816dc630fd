"""Heatmaps of the same few images as training goes on, and of the final test."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from cxrlab.data.boxes import framed
from cxrlab.errors import ConfigError
from cxrlab.heatmaps.cases import case_table, choose_cases, pick_cases
from cxrlab.heatmaps.drawing import Drawn, draw_panels, write_gallery
from cxrlab.heatmaps.methods import Explainer, check_fit
from cxrlab.heatmaps.methods.layers import unexplainable_reason
from cxrlab.heatmaps.settings import METHOD_NAMES, ExplanationSettings
from cxrlab.heatmaps.task import training_images
from cxrlab.training.operating_point import OperatingPoint
from cxrlab.training.processes import gathered

log = logging.getLogger(__name__)


class Heatmaps(pl.Callback):
    """Draws heatmaps after validation and test, without any effect on training.

    Of a network without the spatial features that its method reads, nothing is drawn, and a warning says so
    once.

    The images of training are chosen at the first drawing and kept, in the checkpoint too, as rows of the
    manifest. Those of the test are chosen from the test predictions. What is an error is evaluated at the
    classifier's own thresholds. Every process keeps the same choice; the first one draws.

    Args:
        dirpath: Folder for ``val/epoch=000/*.png`` and ``test/*.png``, each with an ``index.csv``.
        every_n_epochs: Epochs from one drawing to the next; the last validation of training is always drawn.
        images_per_label: Images of each label that have it: those with a known box, then the most probable.
        errors_per_label: The most confident errors of each label beside them, false positives and false
            negatives in turn.
        batch_size: Images read and explained at once.
        explanation: How heatmaps are made; the first of its methods draws.

    Raises:
        ConfigError: If a number is out of its range.
    """

    def __init__(
        self,
        *,
        dirpath: str,
        every_n_epochs: int = 5,
        images_per_label: int = 2,
        errors_per_label: int = 2,
        batch_size: int = 8,
        explanation: ExplanationSettings,
    ) -> None:
        for name, value, least in (
            ("every_n_epochs", every_n_epochs, 1),
            ("images_per_label", images_per_label, 0),
            ("errors_per_label", errors_per_label, 0),
            ("batch_size", batch_size, 1),
        ):
            if value < least:
                raise ConfigError(f"callbacks.heatmaps.{name}={value} must be at least {least}.")
        self.dirpath = Path(dirpath)
        self.every_n_epochs = every_n_epochs
        self.images_per_label = images_per_label
        self.errors_per_label = errors_per_label
        self.batch_size = batch_size
        self.method = explanation.methods[0]
        self.explanation = explanation
        self._is_off = False
        self._outputs: list[dict[str, Tensor]] = []
        self._chosen: list[tuple[int, int]] = []
        self._undrawn: tuple[int, int, pd.DataFrame] | None = None  # epoch, step, cases

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the network can be explained as wanted, before any time is spent on it.

        Raises:
            ConfigError: If a layer of ``explanation`` does not fit, or a package is missing.
        """
        classifier = cast(Any, pl_module)
        reason = unexplainable_reason(classifier.network, [self.method])
        if reason is not None:
            if not self._is_off:
                log.warning("No heatmaps are drawn: %s.", reason)
            self._is_off = True
            return
        try:
            check_fit(classifier, replace(self.explanation, methods=[self.method]))
        except ConfigError as error:
            raise ConfigError(f"{error} Or train without heatmaps: callbacks.heatmaps=null.") from error

    def state_dict(self) -> dict[str, list[list[int]]]:
        """Return the chosen pairs of row and label; no path and no patient."""
        return {"chosen": [list(pair) for pair in self._chosen]}

    def load_state_dict(self, state_dict: dict[str, list[list[int]]]) -> None:
        """Go on with the images chosen before."""
        self._chosen = [(row, label) for row, label in state_dict["chosen"]]

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what an earlier pass left."""
        self._outputs = []

    on_test_start = on_validation_start

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the predictions of a batch; there are none where no image of it could be read."""
        if outputs is not None and not trainer.sanity_checking and not self._is_off:
            self._outputs.append(outputs)

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw when it is time."""
        if self._is_off or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        cases = self._cases(trainer, pl_module)
        self._undrawn = (trainer.current_epoch, trainer.global_step, cases)
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw_validation(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the last validation, whatever ended the training, unless the weights have moved on since."""
        if self._undrawn is not None and self._undrawn[1] == trainer.global_step:
            self._draw_validation(trainer, pl_module)
        self._undrawn = None

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw positives and errors of the test."""
        if self._is_off:
            return
        cases = self._cases(trainer, pl_module)
        self._draw(trainer, pl_module, _pick(cases, self._choose(trainer, cases)), "test")

    def _cases(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> pd.DataFrame:
        """Return the predictions of all processes, one line for each image and label."""
        labels: list[str] = cast(Any, pl_module).labels
        empty = {
            "index": torch.zeros(0, dtype=torch.int64),
            "probabilities": torch.zeros(0, len(labels)),
            "targets": torch.zeros(0, len(labels)),
        }
        own = tuple(
            torch.cat([none, *(outputs[name].to(none) for outputs in self._outputs)]).numpy()
            for name, none in empty.items()
        )
        self._outputs = []
        shares = gathered(own)
        rows, probabilities, targets = (np.concatenate(arrays) for arrays in zip(*shares, strict=True))
        return case_table(rows, probabilities, targets, labels, _thresholds(pl_module))

    def _choose(self, trainer: pl.Trainer, cases: pd.DataFrame) -> list[tuple[int, int]]:
        limits = {"images_per_label": self.images_per_label, "errors_per_label": self.errors_per_label}
        return choose_cases(cases, _datamodule(trainer).manifest, **limits)

    def _draw_validation(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._undrawn is not None:
            epoch, _, cases = self._undrawn
            self._undrawn = None
            self._chosen = self._chosen or self._choose(trainer, cases)
            self._draw(trainer, pl_module, _pick(cases, self._chosen), "val", f"epoch={epoch:03d}")

    def _draw(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        cases: pd.DataFrame,
        part: str,
        epoch: str = "",
    ) -> None:
        """Write and log the panels; only the first process does."""
        if not trainer.is_global_zero:
            return
        data = _datamodule(trainer)
        background = None
        if self.method == "gradient_shap":
            background = training_images(data, self.explanation.num_background, self.explanation.seed)
        explainer = Explainer(self.method, self.explanation, background)
        manifest = framed(data.manifest, data.images)
        panels = draw_panels(
            cases,
            manifest,
            read_image=data.image,
            explain={METHOD_NAMES[self.method]: partial(explainer, cast(Any, pl_module))},
            num_images=self.batch_size,
        )
        logged = _logged(panels, trainer, f"heatmaps/{part}")
        write_gallery(self.dirpath / part / epoch, logged, data.manifest)


def _datamodule(trainer: pl.Trainer) -> Any:
    return cast(Any, trainer).datamodule  # Lightning sets it without declaring it


def _thresholds(pl_module: pl.LightningModule) -> npt.NDArray[np.float64] | None:
    """Return the thresholds of a classifier, shape ``(L,)``; NaN where none was chosen yet; else None."""
    operating_point = getattr(pl_module, "operating_point", None)
    return operating_point.threshold_values() if isinstance(operating_point, OperatingPoint) else None


def _pick(cases: pd.DataFrame, chosen: list[tuple[int, int]]) -> pd.DataFrame:
    """Return the lines of the chosen cases, in their order."""
    picked = pick_cases(cases, chosen)
    if len(picked) < len(chosen):
        num_missing = len(chosen) - len(picked)
        log.warning("%d of %d cases chosen for heatmaps were not validated now.", num_missing, len(chosen))
    return picked


def _logged(panels: Iterable[Drawn], trainer: pl.Trainer, tag: str) -> Iterator[Drawn]:
    """Pass the panels through, and show them in TensorBoard where it is in use."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    for drawn in panels:
        for logger in loggers:
            name = f"{tag}/{drawn.case.finding}/{drawn.case.row}"
            pixels = np.asarray(drawn.picture)
            logger.experiment.add_image(name, pixels, trainer.global_step, dataformats="HWC")
        yield drawn
