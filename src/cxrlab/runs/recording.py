"""What a run writes beside its callbacks' files, and what it says on the terminal."""

import json
import logging
import shutil
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import EarlyStopping

from cxrlab.data.audit import AuditReport, summary
from cxrlab.data.datamodule import DataModule
from cxrlab.data.manifest import PARTS, Manifest, read_table
from cxrlab.errors import ConfigError, DataError, MissingFileError, TrainingError
from cxrlab.files import replacing, write_text
from cxrlab.heatmaps.settings import ExplanationSettings
from cxrlab.losses import class_weights
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.metrics.streaming import METRICS
from cxrlab.models.timm_network import layer_table
from cxrlab.models.weights import check_weights_fit
from cxrlab.training.module import Classifier

log = logging.getLogger(__name__)


def configure_logging() -> None:
    """Keep other libraries' advice off the terminal: advertisements, and deprecations inside Lightning."""
    if getattr(rank_zero_only, "rank", 0):  # the first process speaks for all
        logging.getLogger("cxrlab").setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\).*")
    warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
    # model.freeze keeps them there.
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training")
    # A resumed run writes where it wrote before.
    warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")


@rank_zero_only
def save_config(cfg: DictConfig, resolved: DictConfig, run_dir: Path) -> None:
    """Write the config as composed, for a resume, and with everything settled, for reading."""
    folder = run_dir / ".hydra"
    folder.mkdir(exist_ok=True)
    OmegaConf.save(cfg, folder / "config.yaml")
    OmegaConf.save(resolved, folder / "resolved.yaml")


def check_same_run(manifest: Manifest, classifier: Classifier, run_dir: Path) -> None:
    """Compare what a resumed run reads with what it was started on.

    Raises:
        DataError: If an image, a label or a part differs: a patient could cross from training to test.
        CheckpointError: If the last checkpoint does not fit the network, or cannot be read.
    """
    path = run_dir / "manifest.csv"
    if not path.is_file():
        raise MissingFileError(f"resume={run_dir}: there is no manifest.csv, which says what was trained on.")
    before = replace(manifest, table=read_table(path))
    if before.fingerprint() != manifest.fingerprint():
        others = set(before.table["image"]) ^ set(manifest.table["image"])
        if not others:
            raise DataError(
                f"resume={run_dir}: the labels or parts of its manifest.csv are not those of the config "
                f"(fingerprint {manifest.fingerprint()} for {before.fingerprint()}): was either edited?"
            )
        raise DataError(
            f"resume={run_dir}: the data below {manifest.root} are not those that the run was started on "
            f"(fingerprint {manifest.fingerprint()} for {before.fingerprint()}; {len(others)} images differ, "
            f"such as {sorted(others)[:3]}). A new split would put patients of training into the test part: "
            "bring the data back as they were, or start a new run."
        )
    check_weights_fit(classifier, run_dir / "checkpoints" / "last.ckpt")


@rank_zero_only
def remove_evaluation(run_dir: Path) -> None:
    """Remove what was predicted and computed with the weights that a resumed training is about to replace.

    Else, were it stopped, an earlier network's predictions would stand beside a later one's thresholds.
    """
    names = ("predictions/val.csv", "predictions/test.csv", "results.csv", "evaluation.json", "curves.csv")
    for name in (*names, "explanation.json", "report.html", "model_card.md"):
        (run_dir / name).unlink(missing_ok=True)
    for folder in ("test", "flagged"):
        shutil.rmtree(run_dir / "heatmaps" / folder, ignore_errors=True)


@rank_zero_only
def save_data(data: DataModule, report: AuditReport, run_dir: Path) -> None:
    """Write which image is in which part, what the audit found, and what could not be read."""
    with replacing(run_dir / "manifest.csv") as temporary:
        data.manifest.to_csv(temporary)
    write_text(run_dir / "audit.json", json.dumps(asdict(report), indent=1) + "\n")
    if len(data.unreadable):
        write_text(run_dir / "unreadable.csv", data.unreadable.report.to_csv(index=False))


@rank_zero_only
def log_audit(report: AuditReport) -> None:
    """Say in a few lines what the audit found."""
    log.info("%s", summary(report.findings))


@rank_zero_only
def save_layers(data: DataModule, classifier: Classifier, run_dir: Path) -> None:
    """Write the table of layers; log it and the data in short."""
    shape = classifier.preprocess
    table = layer_table(classifier.network, shape.image_size, shape.channels)
    write_text(run_dir / "layers.txt", table)
    log.info("Network: %s; the layers are in %s", table.strip().splitlines()[-1], run_dir / "layers.txt")
    _log_data(data, classifier)


def _log_data(data: DataModule, classifier: Classifier) -> None:
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


def results(trainer: pl.Trainer, classifier: Classifier, part: str) -> list[dict[str, object]]:
    """Return the metrics of the part that was just evaluated: one row a label, and the macro mean."""
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    num_images, num_known, num_positives = classifier.evaluated
    rows: list[dict[str, object]] = []
    for label, images, positives in zip(classifier.labels, num_known, num_positives, strict=True):
        counts = {"part": part, "label": label, "images": images, "positives": positives}
        rows.append({**counts, **{metric: values.get(f"{part}/{metric}/{label}") for metric in METRICS}})
    macro = {"part": part, "label": "macro mean", "images": num_images, "positives": None}
    return [*rows, {**macro, **{metric: values.get(f"{part}/{metric}") for metric in METRICS}}]


@rank_zero_only
def save_results(rows: list[dict[str, object]], run_dir: Path) -> None:
    """Write results.csv."""
    table = pd.DataFrame(rows).astype({"positives": "Int64"}).round(6)
    write_text(run_dir / "results.csv", table.to_csv(index=False))


@rank_zero_only
def check_explainable(classifier: Classifier, explanation: ExplanationSettings) -> None:
    """Warn before a training where its heatmaps cannot be checked at its end."""
    from cxrlab.heatmaps.methods import check_fit

    try:
        check_fit(classifier, explanation)
    except ConfigError as error:
        log.warning("Heatmaps will not be checked at the end (report.check_heatmaps): %s", error)


@rank_zero_only
def save_evaluation(
    data: DataModule,
    classifier: Classifier,
    run_dir: Path,
    *,
    part: str,
    config: dict[str, Any],
    settings: EvaluationSettings,
    page: bool,
    images: bool,
    explanation: ExplanationSettings | None,
) -> None:
    """Evaluate the best epoch's network, write the page, print the table, and say where everything is.

    With ``explanation``, where there is a page and the test part was read, its heatmaps are checked first.
    """
    from cxrlab.evaluation.evaluate import DataFacts
    from cxrlab.evaluation.terminal import terminal_table
    from cxrlab.report.evaluation_page import write_results
    from cxrlab.report.run_evaluation import evaluation_of_training

    facts = DataFacts(data.manifest.name, data.split.method, data.manifest.fingerprint())
    if explanation is not None and page and part == "test":
        from cxrlab.heatmaps.checks import explain_training

        explain_training(run_dir, classifier, data, facts, part=part, settings=explanation)
    evaluation = evaluation_of_training(run_dir, classifier, part, facts, config, settings)
    result = write_results(evaluation, settings, run_dir, page=page, images=images)
    log.info("\nThe best epoch's network on the %s part:\n%s", part, terminal_table(result))
    if len(data.unreadable):
        log.info(
            "%d images could not be read and were left out; they are listed in unreadable.csv.",
            len(data.unreadable),
        )
    if page:
        log.info("\nThe page: %s", run_dir / "report.html")
    log.info("Everything is in %s" if page else "\nEverything is in %s", run_dir)


def log_training(trainer: pl.Trainer, monitor: str, run_dir: Path) -> None:
    """Draw the learning curves, and say how many epochs ran, why they ended, and how good the best was.

    Raises:
        TrainingError: If no epoch was finished, so that there is no checkpoint.
    """
    if not (run_dir / "checkpoints" / "best.ckpt").is_file():
        raise TrainingError(
            f"No epoch was finished, so there is no checkpoint in {run_dir}: raise trainer.max_time or "
            "trainer.max_epochs."
        )
    stoppers = [one for one in trainer.callbacks if isinstance(one, EarlyStopping)]  # type: ignore[attr-defined]
    stopped = any(one.stopped_epoch for one in stoppers)
    reason = f", since {monitor} got no better for {stoppers[0].patience} of them" if stopped else ""
    score = trainer.checkpoint_callback.best_model_score  # type: ignore[union-attr]
    if "train/loss" not in trainer.callback_metrics:
        log.info(
            "All %s epochs were done before: nothing was trained. trainer.max_epochs=<more> goes on.",
            trainer.max_epochs,
        )
    elif score is not None:
        log.info("Epochs trained: %d%s; best %s: %.4f", trainer.current_epoch, reason, monitor, float(score))
    _draw_learning_curves(run_dir)


@rank_zero_only
def _draw_learning_curves(run_dir: Path) -> None:
    from cxrlab.report.figures.learning import learning_curves

    if (run_dir / "metrics.csv").is_file():
        learning_curves(pd.read_csv(run_dir / "metrics.csv"), run_dir / "learning_curves.png")
