"""An exponential moving average of the weights, which is what is validated, saved, drawn and tested."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from cxrlab.errors import ConfigError
from cxrlab.training.module import Classifier

# TensorFlow's and timm's warm-up: the average must forget the random weights that it starts from.
_WARMUP = (1.0, 10.0)


class WeightAveraging(EMAWeightAveraging):
    """Averages weights and batch-norm statistics after every optimizer step.

    The average is what validation evaluates and what checkpoints keep as the model; training goes on with the
    current weights, which a checkpoint holds beside it. Thresholds and calibration are no weights: they
    belong to the average that they were chosen for, and are handed on as they are.

    Give it last among the callbacks, so that the others see the average until validation is over.

    Args:
        decay: Share of the average that is kept at a step, 0 to 1; at step n no more than (1 + n) / (10 + n).

    Raises:
        ConfigError: If ``decay`` is outside [0, 1).

    References:
        Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017.
    """

    def __init__(self, *, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"callbacks.ema.decay={decay} must be at least 0 and below 1.")
        super().__init__(decay=decay)
        self._decay = decay
        self._kwargs["avg_fn"] = self._averaged

    def _averaged(self, average: Tensor, current: Tensor, num_averaged: Tensor) -> Tensor:
        if not average.is_floating_point():
            return current
        step = num_averaged.double()  # as a number it would have to be waited for, once a parameter
        decay = ((_WARMUP[0] + step) / (_WARMUP[1] + step)).clamp_max(self._decay)
        return average.lerp(current.to(average), (1.0 - decay).to(average.dtype))

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start an average for training; evaluating a checkpoint needs none, for it holds the average."""
        self._average_model: AveragedModel | None = None
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average, after an optimizer step."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._average_model is not None:
            _copy_operating_point(pl_module, self._average_model.module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the average in place: the module has yet to choose its thresholds."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the module its current weights back, and the average's thresholds."""
        if self._average_model is not None:
            self._swap_models(pl_module)
            _copy_operating_point(self._average_model.module, pl_module)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with both sets of weights, when training is resumed."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


def _copy_operating_point(source: Any, target: Any) -> None:
    """Copy thresholds and calibration from one module to another, where they are classifiers."""
    if isinstance(source, Classifier):
        target.operating_point.load_state_dict(source.operating_point.state_dict())
