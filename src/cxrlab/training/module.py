"""The one LightningModule: preprocessing, network, loss and metrics; callbacks own every file."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import LRSchedulerConfigType
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cxrlab.data.loader import Batch
from cxrlab.errors import DataError, TrainingError
from cxrlab.losses import BCE, CrossEntropy, known_loss
from cxrlab.metrics.referral import ReferralTargets
from cxrlab.metrics.settings import CalibrationMethod
from cxrlab.metrics.streaming import WITH_PENALTY, LabelMetrics, count_hits, undefined_labels
from cxrlab.models.lora import lora_parameters, merged
from cxrlab.models.network import Network, build_network, describe, wrap
from cxrlab.models.preprocess import Preprocess
from cxrlab.models.views import check_views, view
from cxrlab.models.weights import plain_seen, read_initial_weights, read_seen
from cxrlab.task import Task, activate
from cxrlab.training.checkpoint import check_checkpoint
from cxrlab.training.delayed import Delayed
from cxrlab.training.loggers import is_table, log_by_label, log_settings, log_test
from cxrlab.training.operating_point import OperatingPoint
from cxrlab.training.optim import ParameterGroup, allow_clipping
from cxrlab.training.processes import summed, take_buffers_of_first, weight_of_mean
from cxrlab.training.schedules import training_length

log = logging.getLogger(__name__)

Outputs = dict[str, Tensor]

_ARGUMENTS = Path("Classifier")  # where a record stands that is not read from a file


class Classifier(pl.LightningModule):
    """Images in, one probability a label out.

    What describes the classifier is plain text and numbers and is kept in the checkpoint. What only training
    needs (loss, optimizer, schedule) is not, so that a checkpoint loads anywhere with ``weights_only``.

    Args:
        labels: Names of the outputs.
        network: Any module of images ``(B, C, H, W)`` and logits ``(B, L)``, or its plain description: its
            class (``_target_``), ``num_labels``, ``channels``, ``image_size`` and its other arguments.
        module: The network that ``network`` describes, if it was built already.
        preprocess: Arguments of :class:`cxrlab.models.Preprocess`; None normalises each image by itself, in
            the size that the network is made for.
        loss: Of logits and targets, see :func:`cxrlab.losses.known_loss`; None for the plain cross-entropy of
            the task.
        optimizer: Makes the optimizer from parameters; None for AdamW with a rate of 1e-3.
        scheduler: Makes a Lightning schedule from the optimizer, ``num_steps`` and ``num_epochs``; None for a
            constant rate.
        monitor: Metric that chooses the best epoch, and must not be NaN.
        channels_last: Keep weights and images in the channels-last memory format.
        threshold: How thresholds are chosen on validation while training, see
            :func:`cxrlab.metrics.thresholds.choose_thresholds`.
        calibration: How probabilities are calibrated there, see
            :func:`cxrlab.metrics.calibration.fit_calibrator`.
        referral: Which PPV and NPV ruling in and out must keep there; None for the default targets.
        task: Whether labels are evaluated one by one, or are classes of which each image has one.
        views: Views of an image whose probabilities are averaged, see :func:`cxrlab.models.views.view`.
        grouping: Makes groups of the network's parameters for the optimizer; None for a single one.
        trust: Packages whose networks may be built from a description, such as ``["my_lab"]``.
        initial_weights: What the network started from, plain, see
            :meth:`cxrlab.models.weights.InitialWeights.plain`; None for what a network that is given says
            itself.
        trained_on: The data that it is trained on, plain, see :func:`cxrlab.models.weights.plain_seen`; None
            where they are not known.

    Attributes:
        network: The network; a module that is no :class:`cxrlab.models.Network` stands in an adapter.
        initial_weights: What it started from; None where that is not known.
        trained_on: The data that it is trained on; None where they are not known.
        threshold_rule: How thresholds are chosen on validation.
        calibration: How probabilities are calibrated there.

    Raises:
        ConfigError: If a view is unknown, the network does not take such images, or its description names a
            class that is neither cxrlab's nor trusted.
        CheckpointError: If the description is of no network.

    Example:
        >>> from cxrlab.models import TimmNetwork
        >>> classifier = Classifier(
        ...     labels=["Edema", "Mass"], network=TimmNetwork("resnet10t", num_labels=2, image_size=64)
        ... )
        >>> classifier.predict_probabilities(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        *,
        labels: Sequence[str],
        network: nn.Module | Mapping[str, Any],
        module: nn.Module | None = None,
        preprocess: Mapping[str, Any] | None = None,
        loss: nn.Module | None = None,
        optimizer: Callable[..., Optimizer] | None = None,
        scheduler: Callable[..., LRSchedulerConfigType] | None = None,
        monitor: str = "val/auroc",
        channels_last: bool = False,
        threshold: str | float = "youden",
        calibration: CalibrationMethod = "platt",
        referral: ReferralTargets | None = None,
        task: Task = "multilabel",
        views: Sequence[str] = ("identity",),
        grouping: Callable[[Network], list[ParameterGroup]] | None = None,
        trust: Sequence[str] = (),
        initial_weights: Mapping[str, Any] | None = None,
        trained_on: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.views = check_views(views)
        self.task = task
        self.labels = list(labels)
        self.trust = tuple(trust)
        given = network if isinstance(network, nn.Module) else module
        if isinstance(network, nn.Module):
            module = network
        elif module is None:
            module = build_network(network, trust)
        self.trained_on = read_seen(trained_on, _ARGUMENTS, "trained_on")
        self.initial_weights = read_initial_weights(initial_weights, _ARGUMENTS, "initial_weights")
        if initial_weights is None and isinstance(given, Network):
            self.initial_weights = given.initial_weights
        if preprocess is None:
            preprocess = {"normalize": "image"}
            if isinstance(module, Network):
                preprocess |= {"image_size": module.image_size, "channels": module.channels}
        self.preprocess = Preprocess(**preprocess)
        self.network = wrap(module, self.preprocess.image_size, self.preprocess.channels)
        self.save_hyperparameters(
            {
                "labels": self.labels,
                "preprocess": dict(preprocess),
                "network": dict(network)
                if isinstance(network, Mapping)
                else describe(self.network, len(self.labels)),
                "task": task,
                "views": self.views,
                "threshold": threshold,
                "calibration": calibration,
                "initial_weights": self.initial_weights and self.initial_weights.plain(),
                "trained_on": self.trained_on and plain_seen(self.trained_on),
            },
            logger=False,  # they go there with those of the training
        )
        self.operating_point = OperatingPoint(len(self.labels))
        self.loss = loss
        self.val_metrics = LabelMetrics(self.labels, task)
        self.test_metrics = LabelMetrics(self.labels, task)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._monitor = monitor
        self.threshold_rule, self.calibration = threshold, calibration
        self._referral = referral or ReferralTargets()
        self._grouping = grouping
        self._warned: set[str] = set()
        self._epoch_loss: tuple[Tensor, int] = (torch.zeros(()), 0)  # sum, images
        # Right predictions and known targets of the epoch: by label, or of exclusive classes one.
        self._epoch_hits: Tensor = torch.zeros(2, 1)
        self._unchecked: tuple[Delayed, Tensor] | None = None  # if outputs are finite, and their rows
        self._evaluation_loss: tuple[Tensor, int] = (torch.zeros(()), 0)  # of a part; sum, images
        # Images, and by label known targets and positives, of the part that was evaluated last.
        self.evaluated: tuple[int, list[int], list[int]] = (0, [], [])

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        *args: Any,
        module: nn.Module | None = None,
        trust: Sequence[str] = (),
        labels: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a checkpoint without running any code in it.

        Args:
            checkpoint_path: The file.
            args: As Lightning has them.
            module: The network, built by yourself; needed where its class is neither cxrlab's nor trusted.
            trust: Packages whose networks may be built, such as ``["my_lab"]``.
            labels: What its labels must be, where another file says it; None where none does.
            kwargs: As Lightning has them, and what ``Classifier`` takes.

        Returns:
            The classifier in eval mode, on the CPU unless ``map_location`` says otherwise.

        Raises:
            ConfigError: If the network's class is neither cxrlab's nor trusted, naming it.
            CheckpointError: If the file cannot be read, or holds a value that cannot be meant: its key is
                named.
        """
        path = Path(checkpoint_path)
        check_checkpoint(path, labels=None if labels is None else list(labels))
        kwargs = {"weights_only": True, "map_location": "cpu", **kwargs}
        classifier: Self = super().load_from_checkpoint(path, *args, module=module, trust=trust, **kwargs)
        return classifier.eval()

    def setup(self, stage: str) -> None:
        """Take the plain loss of the task for a training that was given none; compare labels with the data's.

        Raises:
            DataError: If the data have other labels, or in another order.
        """
        manifest = getattr(getattr(self.trainer, "datamodule", None), "manifest", None)
        if manifest is not None and stage != "predict" and list(manifest.labels) != self.labels:
            raise DataError(
                f"The classifier's labels are {self.labels}, those of the data {list(manifest.labels)}: its "
                "outputs would be compared with other findings. Read the data with labels=<the classifier's>."
            )
        if stage == "fit" and self.loss is None:
            self.loss = BCE() if self.task == "multilabel" else CrossEntropy()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, L)`` of images ``(B, C, H, W)`` with values 0 to 255."""
        logits: Tensor = self.network(self._preprocessed(images))
        return logits

    def embed(self, images: Tensor) -> Tensor:
        """Return the pooled features ``(B, F)`` in float32 of images ``(B, C, H, W)`` with values 0 to 255.

        Raises:
            ConfigError: If the network does not tell its features from its head.
        """
        return self.network.embed(self._preprocessed(images)).float()

    def _preprocessed(self, images: Tensor) -> Tensor:
        scaled: Tensor = self.preprocess(images)
        return scaled.to(self.dtype, memory_format=self.memory_format)

    def _logits(self, batch: Batch) -> Tensor:
        """Return the logits of a batch of images, or of the features of images."""
        if "features" in batch:
            return self.network.classify(batch["features"].to(self.dtype))
        logits: Tensor = self(batch["images"])
        return logits

    def predict_probabilities(self, images: Tensor) -> Tensor:
        """Return probabilities ``(B, L)`` in float32 of images ``(B, C, H, W)`` with values 0 to 255.

        They are the mean over the classifier's views.
        """
        return self.mean_probabilities(images, {})

    def mean_probabilities(self, images: Tensor, logits_of_view: Mapping[str, Tensor]) -> Tensor:
        """Return the mean of the probabilities over the views, ``(B, L)``.

        Args:
            images: Values 0 to 255, shape ``(B, C, H, W)``.
            logits_of_view: Logits that are there already, by the name of their view, each ``(B, L)``.
        """
        total = torch.zeros((), device=images.device)
        for name in self.views:
            logits = logits_of_view[name] if name in logits_of_view else self(view(images, name))
            total = total + activate(logits, self.task)
        return total / len(self.views)

    def on_train_start(self) -> None:
        """Give the loggers the settings of the training; warn of a network that is in evaluation mode."""
        log_settings(self.trainer, self.hparams_initial)
        # Lightning keeps the mode of each layer. Frozen layers are in evaluation mode on purpose.
        if not any(layer.training for layer in self.network.modules() if not list(layer.children())):
            log.warning(
                "Every layer of the network is in evaluation mode, as after loading a checkpoint, and the "
                "training leaves it so: dropout is off, and batch normalization keeps its statistics. "
                "Call classifier.train() before trainer.fit() unless you mean it."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, and what the network adds for the size of its weights."""
        self.network.at_epoch(self.current_epoch)
        logits = self._logits(batch)
        loss = self._loss(logits, batch["targets"]) * weight_of_mean(batch["targets"])
        self._add_to_epoch(loss, logits, batch["targets"])
        if self.trainer.loggers:  # those that have a value for every step; metrics.csv has rows of epochs
            size = len(batch["index"])
            self.log("train/loss_step", loss.detach(), on_step=True, on_epoch=False, batch_size=size)
        return loss + self.network.penalty()

    def _add_to_epoch(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a batch to what is reported of the epoch.

        Summed on the device: a value read at every step would wait for it every step. Lightning's own sum is
        not in its checkpoints, and a training resumed within an epoch would report the rest of it only.
        """
        size = len(targets)
        self._epoch_loss = (self._epoch_loss[0] + loss.detach().float() * size, self._epoch_loss[1] + size)
        hits = count_hits(logits.detach(), targets, self.task)
        self._epoch_hits = self._epoch_hits.to(hits.device) + hits

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the sums over the epoch so far, those of all processes."""
        loss, size, hits = self._epoch_sums()
        checkpoint["epoch_loss"] = [float(loss), size]
        checkpoint["epoch_hits"] = hits.tolist()

    def _epoch_sums(self) -> tuple[Tensor, int, Tensor]:
        """Return the sum of the losses, the images, and the hits of the epoch so far, over all processes."""
        loss, size = self._over_processes(*self._epoch_loss)
        return loss, size, summed(self._epoch_hits.to(self.device))

    @property
    def _is_of_several(self) -> bool:
        return self._trainer is not None and self._trainer.world_size > 1

    def _over_processes(self, total: Tensor, count: int) -> tuple[Tensor, int]:
        """Return a sum and a number of images over all processes."""
        if not self._is_of_several:
            return total, count
        together = summed(torch.tensor([float(total), count], dtype=torch.float64, device=self.device))
        return together[0], int(together[1])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with these sums; a classifier without a loss leaves out what a loss has kept of its own.

        One without LoRA takes weights that a training with it kept apart, as last.ckpt has them, merged.
        """
        if not lora_parameters(self.network):
            checkpoint["state_dict"] = merged(checkpoint["state_dict"], "The checkpoint's weights")
        if self.loss is None:
            weights = checkpoint["state_dict"]
            for name in [name for name in weights if name.startswith("loss.")]:
                del weights[name]
        loss, size = checkpoint.get("epoch_loss", (0.0, 0))  # a checkpoint for use has none
        self._epoch_loss = (torch.tensor(loss, device=self.device), size)
        hits = checkpoint.get("epoch_hits", [[0.0], [0.0]])  # not in those of earlier versions
        self._epoch_hits = torch.tensor(hits, device=self.device)
        if self._trainer is not None and self._trainer.global_rank > 0:  # the first process has those of all
            self._epoch_loss = (torch.zeros((), device=self.device), 0)
            self._epoch_hits = torch.zeros_like(self._epoch_hits)

    def on_validation_epoch_start(self) -> None:
        """Evaluate the network that a checkpoint keeps, in all processes."""
        take_buffers_of_first(self.network)
        self._evaluation_loss = (torch.zeros((), device=self.device), 0)

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: Batch, batch_idx: int) -> Outputs:
        """Return index, probabilities and targets of a batch, for the callbacks."""
        return self._evaluation_step(batch, self.val_metrics, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> Outputs:
        """Return index, probabilities and targets of a batch, for the callbacks."""
        return self._evaluation_step(batch, self.test_metrics, "test")

    def predict_step(self, batch: Batch | Sequence[Tensor] | Tensor, batch_idx: int) -> Tensor:
        """Return the probabilities ``(B, L)`` of a batch, as :meth:`predict_probabilities` gives them.

        Args:
            batch: Of :class:`cxrlab.DataModule`, or of a loader of your own: images ``(B, C, H, W)`` with
                values 0 to 255, alone or first of several.
            batch_idx: Its number.

        Raises:
            TrainingError: If they are not finite.
        """
        if isinstance(batch, Tensor):
            images = batch
        else:
            images = batch["images"] if isinstance(batch, Mapping) else batch[0]
        probabilities = self.predict_probabilities(images)
        if not bool(torch.isfinite(probabilities).all()):
            raise TrainingError(f"The network's outputs are not finite on images of batch {batch_idx}.")
        return probabilities

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.loss is None:
            raise ValueError("This classifier has no loss: give it loss=..., or train it with a Trainer.")
        return known_loss(self.loss, logits, targets)

    def _evaluation_step(self, batch: Batch, metrics: LabelMetrics, part: str) -> Outputs:
        logits = self._logits(batch)
        if "features" in batch:
            probabilities = activate(logits, self.task)
        else:
            probabilities = self.mean_probabilities(batch["images"], {"identity": logits})
        self._check_outputs(part)  # of the batch before this one, so that a GPU always has one to work on
        is_finite = torch.isfinite(logits).all() & torch.isfinite(probabilities).all()
        self._unchecked = (Delayed(is_finite), batch["index"])
        if not logits.is_cuda:
            self._check_outputs(part)
        if self.loss is not None:
            loss, size = self._loss(logits, batch["targets"]), len(batch["index"])
            if self._is_of_several:
                total, images = self._evaluation_loss
                self._evaluation_loss = (total + loss.detach().float() * size, images + size)
            else:
                self.log(f"{part}/loss", loss, batch_size=size, logger=self._is_logged)
        metrics.update(probabilities, batch["targets"], batch["index"], are_checked=True)
        return {"index": batch["index"], "probabilities": probabilities, "targets": batch["targets"]}

    def _check_outputs(self, part: str) -> None:
        """Stop where the outputs of the last evaluated batch are not finite, naming its images."""
        unchecked, self._unchecked = self._unchecked, None
        if unchecked is None or bool(unchecked[0].read()):
            return
        manifest = getattr(getattr(self.trainer, "datamodule", None), "manifest", None)
        rows = unchecked[1].tolist()
        images = manifest.named(rows) if manifest is not None else f"rows {rows}"
        raise TrainingError(
            f"The network's outputs are not finite on these images of the {part} part: {images}. "
            "Training has broken the weights: lower optimizer.lr."
        )

    def on_validation_epoch_end(self) -> None:
        """Log ``val/auroc`` and the rest; step a plateau schedule."""
        gathered = self._log_metrics(self.val_metrics, "val")
        self._log_penalty()
        if self._is_fitting and not self.trainer.sanity_checking:
            # Before the epoch's checkpoint is written.
            probabilities, targets, index = gathered
            self.operating_point.fit(probabilities, targets, self.threshold_rule, self.calibration)
            self.operating_point.fit_referral(probabilities, targets, self._patients(index), self._referral)
        # Lightning steps schedules after the epoch's checkpoint is written, so a resumed run would miss one
        # step; a plateau schedule is stepped here instead, and saved with it.
        if self._is_fitting and not self.trainer.sanity_checking:
            self._check_defined(self._monitor)
            for config in self.trainer.lr_scheduler_configs:
                if isinstance(config.scheduler, ReduceLROnPlateau):
                    monitor = config.monitor or self._monitor
                    self._check_defined(monitor)
                    config.scheduler.step(float(self.trainer.callback_metrics[monitor]))

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss, accuracy, and the highest learning rate that it ended with.

        Both are of the images as they were augmented, while the network changed and dropped out.
        """
        self._log_epoch()
        rate = max(group["lr"] for group in self.trainer.optimizers[0].param_groups)
        self.log("lr", rate, sync_dist=True)

    def _log_epoch(self) -> None:
        """Log loss and accuracy of the epoch's training images, and forget them."""
        loss, size, (hits, known) = self._epoch_sums()
        self.log("train/loss", loss / max(size, 1), prog_bar=True, sync_dist=True)
        self.log("train/accuracy", (hits / known).nanmean(), sync_dist=True)
        self._epoch_loss = (torch.zeros((), device=self.device), 0)
        self._epoch_hits = torch.zeros(2, 1, device=self.device)

    def _log_penalty(self) -> None:
        """Log what the network adds to the loss of training, and the validation loss with it, if it adds any.

        The latter is what Keras calls ``val_loss``.
        """
        with torch.no_grad():
            penalty = float(self.network.penalty())
        if penalty and "val/loss" in self.trainer.callback_metrics:
            loss = float(self.trainer.callback_metrics["val/loss"])
            if self._is_fitting:
                self.log("train/penalty", penalty, logger=self._is_logged)
            self.log(WITH_PENALTY, loss + penalty, logger=self._is_logged)

    def _check_defined(self, monitor: str) -> None:
        """Stop where a metric that decides something is NaN, unless few batches are validated."""
        value, limit = self.trainer.callback_metrics[monitor], self.trainer.limit_val_batches
        is_whole = isinstance(limit, float) and limit == 1.0  # 1 is one batch, 1.0 all of them
        if math.isnan(float(value)) and is_whole:
            raise DataError(
                f"{monitor} is NaN: the validation part lacks images with or without the finding, so "
                "that no epoch can be called the best. Use more data, or monitor=val/loss monitor_mode=min."
            )

    def on_test_epoch_end(self) -> None:
        """Log ``test/auroc`` and the rest."""
        self._log_metrics(self.test_metrics, "test")

    @property
    def _is_fitting(self) -> bool:
        return self.trainer.state.fn == "fit"

    @property
    def _is_logged(self) -> bool | None:
        """False outside a training whose table has rows of epochs only; None is Lightning's default.

        That is: values go to the loggers, if there are any, and ``validate`` and ``test`` return them.
        """
        has_table = any(is_table(logger) for logger in self.trainer.loggers)
        return None if self._is_fitting or not has_table else False

    def _patients(self, index: Tensor) -> npt.NDArray[np.int64] | None:
        """Return the number of each image's patient; None where the data have no manifest."""
        manifest = getattr(getattr(self.trainer, "datamodule", None), "manifest", None)
        if manifest is None:
            return None
        names = manifest.table["patient"].to_numpy()[index.cpu().numpy()]
        return np.unique(names, return_inverse=True)[1].astype(np.int64)

    def _log_evaluation_loss(self, part: str) -> None:
        """Log the mean loss of a part's images, of several processes together.

        Lightning's own mean over processes rounds their mean number of images down.
        """
        total, images = self._over_processes(*self._evaluation_loss)
        self._evaluation_loss = (torch.zeros((), device=self.device), 0)
        if images:
            self.log(f"{part}/loss", total / images, sync_dist=True, logger=self._is_logged)

    def _log_metrics(self, metrics: LabelMetrics, part: str) -> tuple[Tensor, Tensor, Tensor]:
        """Log the metrics of a part, and return probabilities, targets and rows of all processes' images."""
        self._check_outputs(part)
        self._log_evaluation_loss(part)
        # Every process takes part in the gathering, also one that had no image to evaluate.
        nothing = torch.empty(0, len(self.labels), device=self.device)
        metrics.update(nothing, nothing)
        results = metrics.compute()
        self.evaluated, predicted = metrics.counts(), metrics.predicted()
        metrics.reset()
        if not self.evaluated[0]:
            raise DataError(f"No image of the {part} part could be read: there is nothing to evaluate.")
        undefined = undefined_labels(results, self.labels)
        if undefined and part not in self._warned:
            self._warned.add(part)
            log.warning(
                "The %s part holds only one class of %s: their AUROC is NaN, and the macro mean "
                "covers %d of %d labels.",
                part, ", ".join(undefined), len(self.labels) - len(undefined), len(self.labels),
            )  # fmt: skip
        values = {f"{part}/{name}": value for name, value in results.items()}
        of_all = {name: value for name, value in values.items() if name.count("/") == 1}
        by_label = {name: value for name, value in values.items() if name not in of_all}
        # All processes have the same values; their mean is taken, or Lightning warns of each.
        shown = f"{part}/auroc"
        self.log(shown, of_all[shown], prog_bar=True, logger=self._is_logged, sync_dist=True)
        others = {name: value for name, value in of_all.items() if name != shown}
        self.log_dict(others, logger=self._is_logged, sync_dist=True)
        self.log_dict(by_label, logger=False, sync_dist=True)
        if self._is_fitting and self.trainer.loggers and not self.trainer.sanity_checking:
            log_by_label(self.trainer, _floats(by_label))
        elif self.trainer.state.fn == "test" and self.trainer.loggers:
            log_test(self.trainer, _floats(of_all) if self._is_logged is False else {}, _floats(by_label))
        return predicted

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule."""
        make_optimizer = self._optimizer or AdamW
        network = self.network
        optimizer = make_optimizer(
            [dict(group) for group in self._grouping(network)] if self._grouping else network.parameters()
        )
        allow_clipping(optimizer)
        if self._scheduler is None:
            return optimizer
        num_steps, num_epochs = training_length(self.trainer)
        schedule = self._scheduler(optimizer, num_steps=num_steps, num_epochs=num_epochs)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a schedule, but for those that follow the validation metric: they are stepped with it."""
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()


def _floats(values: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}
