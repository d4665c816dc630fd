"""What a training says on the terminal."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.callbacks import EarlyStopping

from cxrlab.data.datamodule import DataModule
from cxrlab.data.manifest import PARTS, read_csv
from cxrlab.errors import TrainingError
from cxrlab.files import RunDir, SolverRecord
from cxrlab.losses import class_weights
from cxrlab.models.blocks import network_blocks
from cxrlab.models.lora import lora_parameters
from cxrlab.models.timm_network import count_parameters
from cxrlab.report.audit_page import without_label
from cxrlab.report.figures.inputs import draw_inputs, seen
from cxrlab.report.figures.learning import learning_curves
from cxrlab.report.figures.network import draw_network
from cxrlab.report.html import save_png
from cxrlab.training.module import Classifier
from cxrlab.training.solvers import LogisticProbe

log = logging.getLogger(__name__)

_NUM_INPUTS = 6  # images drawn on their way to the network
_DPI = 90


@rank_zero_only
def log_start(classifier: Classifier, data: DataModule, *, weights: str, device: str) -> None:
    """Say in one sentence what is trained on what.

    Args:
        classifier: That is trained.
        data: Prepared.
        weights: What the network starts from, in words.
        device: And its precision.
    """
    network, manifest = classifier.network, data.manifest
    total = sum(parameter.numel() for parameter in network.parameters())
    images = " / ".join(f"{len(data.rows(part)):,}" for part in PARTS)
    noun = "classes" if classifier.task == "multiclass" else "findings"
    log.info(
        "Training %s (%s parameters, %s) on %s: %d %s, %s images (%s) of %s patients, on %s.",
        network.arguments().get("backbone", network.title), _short(total), weights,
        manifest.name or "images", len(manifest.labels), "finding" if len(manifest.labels) == 1 else noun,
        images, " / ".join(PARTS), f"{manifest.table['patient'].nunique():,}", device,
    )  # fmt: skip


def _short(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number:,}"


@rank_zero_only
def log_network(classifier: Classifier, layers_path: Path) -> None:
    """Say how many parameters the network has, and where its layers are listed."""
    updates = sum(parameter.numel() for parameter in lora_parameters(classifier.network))
    log.info(
        "Network: %s%s; the layers are in %s",
        count_parameters(classifier.network),
        f" ({updates:,} of LoRA)" if updates else "",
        layers_path,
    )


@rank_zero_only
def draw_start(classifier: Classifier, data: DataModule, files: RunDir, *, images: bool) -> None:
    """Draw the network, and how a few training images reach it.

    Args:
        classifier: Neither it nor the state of its random numbers changes.
        data: Prepared.
        files: The run directory.
        images: Whether radiographs may be drawn.
    """
    shape = {"image_size": classifier.preprocess.image_size, "channels": classifier.preprocess.channels}
    network = draw_network(network_blocks(classifier.network, **shape), **shape)
    save_png(network, files.network, dpi=_DPI)
    if images:
        rows = np.random.default_rng(data.seed).permutation(data.rows("train"))[:_NUM_INPUTS].tolist()
        present = [data.manifest.targets[row] == 1 for row in rows]
        names = [
            ", ".join(np.array(data.manifest.labels)[labels]) or without_label(data.manifest)
            for labels in present
        ]
        pixels = torch.stack([data.image(row) for row in rows])
        augment = data.augment if data.overfit_images is None else None
        batch = seen(names, pixels, augment, classifier.preprocess, seed=data.seed)
        save_png(draw_inputs(batch), files.inputs, dpi=_DPI)


@rank_zero_only
def log_data(data: DataModule, classifier: Classifier) -> None:
    """Say how many images, patients and positives each part has, and what each label weighs."""
    manifest = data.manifest
    log.info(
        "Data: %s, %d images of %d patients below %s; split %s, fingerprint %s",
        manifest.name or "images", len(manifest), manifest.table["patient"].nunique(), manifest.root,
        data.split.method, manifest.fingerprint(),
    )  # fmt: skip
    table = pd.DataFrame(index=["images", "patients", *manifest.labels])
    for name in PARTS:
        part = manifest.part(name)
        positives = np.nansum(part.targets, axis=0).astype(int).tolist()
        table[name] = [len(part), part.table["patient"].nunique(), *positives]
    for name, weights in class_weights(classifier.loss).items():
        table[f"{name} weight"] = ["", "", *(f"{weight:.4f}" for weight in weights.tolist())]
    log.info("Images, patients, and positives of each label by part:\n%s", table.to_string())


def log_training(trainer: pl.Trainer, monitor: str, files: RunDir) -> None:
    """Draw the learning curves, and say how many epochs ran, why they ended, and how good the best was.

    Raises:
        TrainingError: If there is no checkpoint of a best epoch.
    """
    if not files.best_checkpoint.is_file():
        raise TrainingError(_why_no_best(trainer, monitor, files))
    stoppers = [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
    stopped = any(stopper.stopped_epoch for stopper in stoppers)
    reason = f", since {monitor} got no better for {stoppers[0].patience} of them" if stopped else ""
    score = trainer.checkpoint_callback.best_model_score  # type: ignore[union-attr]
    if "train/loss" not in trainer.callback_metrics:
        log.info(
            "All %s epochs were done before: nothing was trained. trainer.max_epochs=<more> goes on.",
            trainer.max_epochs,
        )
    elif score is not None and isinstance(trainer.lightning_module, LogisticProbe):
        _log_strength(trainer.lightning_module.record(files.best_checkpoint), monitor, float(score))
    elif score is not None:
        log.info("Epochs trained: %d%s; best %s: %.4f", trainer.current_epoch, reason, monitor, float(score))
    _draw_learning_curves(files)


def _log_strength(record: SolverRecord, monitor: str, score: float) -> None:
    """Say which strength was the best on validation, and where another might be better."""
    strength, strengths = record["strength"], record["strengths"]
    log.info("Strengths tried: %d; the best by %s (%.4f): C = %g.", len(strengths), monitor, score, strength)
    if len(strengths) > 1 and strength in (min(strengths), max(strengths)):
        log.warning("C = %g is at the end of solver.strengths: one beyond it may be better.", strength)


def _why_no_best(trainer: pl.Trainer, monitor: str, files: RunDir) -> str:
    """Return why there is no checkpoint of a best epoch, and what to do."""
    if not files.last_checkpoint.is_file():
        return (
            f"No epoch was finished, so there is no checkpoint in {files}: raise trainer.max_time or "
            "trainer.max_epochs."
        )
    score = trainer.checkpoint_callback.best_model_score  # type: ignore[union-attr]
    if score is not None:
        return (
            f"{files.best_checkpoint} is gone, and no epoch since was better ({monitor} {float(score):.4f}). "
            f"Bring it back, or start a new run; {files.last_checkpoint} has the last epoch's weights."
        )
    return (
        f"No epoch was validated, so none can be called the best: {trainer.current_epoch} epochs ran, "
        f"with trainer.check_val_every_n_epoch={trainer.check_val_every_n_epoch} and "
        f"trainer.val_check_interval={trainer.val_check_interval}. Validate more often, or raise "
        f"trainer.max_epochs: cxrlab train resume={files} trainer.max_epochs=<more> goes on."
    )


@rank_zero_only
def _draw_learning_curves(files: RunDir) -> None:
    if files.metrics.is_file():
        learning_curves(read_csv(files.metrics), files.learning_curves)


def log_evaluation(table: str, part: str, data: DataModule, files: RunDir, *, page: bool) -> None:
    """Print the table of an evaluation, and say what was left out and where everything is."""
    log.info("\nThe best epoch's network on the %s part:\n%s", part, table)
    if len(data.unreadable):
        log.info(
            "%d images could not be read and were left out; they are listed in %s.",
            len(data.unreadable), files.unreadable.name,
        )  # fmt: skip
    if page:
        log.info("\nThe page: %s", files.report)
        log.info("Everything is in %s", files)
    else:
        log.info("\nEverything is in %s", files)
