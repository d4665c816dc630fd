"""What a training writes to its run directory beside the files of its callbacks."""

import json
import shutil
from dataclasses import asdict, replace

import pandas as pd
import pytorch_lightning as pl
from lightning_utilities.core.rank_zero import rank_zero_only

from cxrlab.data.audit import AuditReport
from cxrlab.data.datamodule import DataModule
from cxrlab.data.manifest import read_table
from cxrlab.errors import DataError, MissingFileError
from cxrlab.files import RunDir, replacing, write_text
from cxrlab.metrics.registry import METRICS
from cxrlab.models.timm_network import layer_table
from cxrlab.models.weights import check_weights_fit
from cxrlab.runs.run import check_noted
from cxrlab.training.checkpoint import check_checkpoint, check_resumable, checkpoint_hash, read_checkpoint
from cxrlab.training.module import Classifier

_NEW_RUN = "weights that you changed start a new run by model.checkpoint_path"


def check_same_run(data: DataModule, classifier: Classifier, files: RunDir) -> None:
    """Compare what a resumed run reads with what it was started on.

    Raises:
        DataError: If an image, its content, a label or a part differs: a patient could cross from training to
            test.
        CheckpointError: If the last checkpoint does not fit the network, or cannot be read.
    """
    if not files.manifest.is_file():
        raise MissingFileError(f"resume={files}: there is no manifest.csv, which says what was trained on.")
    manifest = data.manifest
    before = replace(manifest, table=read_table(files.manifest))
    if before.fingerprint() != manifest.fingerprint():
        different = set(before.table["image"]) ^ set(manifest.table["image"])
        if not different:
            raise DataError(
                f"resume={files}: the labels or parts of its manifest.csv are not those of the config "
                f"(fingerprint {manifest.fingerprint()} for {before.fingerprint()}): was either edited?"
            )
        raise DataError(
            f"resume={files}: the data below {manifest.root} are not those that the run was started on "
            f"(fingerprint {manifest.fingerprint()} for {before.fingerprint()}; {len(different)} images "
            f"differ, such as {sorted(different)[:3]}). A new split would put patients of training into "
            "the test part: bring the data back as they were, or start a new run."
        )
    content = files.data_record().get("content")
    if content is not None and content != data.dataset.content:
        raise DataError(
            f"resume={files}: images below {manifest.root} have another content than those that the run "
            f"was started on, under the same names (fingerprint {data.dataset.content} for {content}). Bring "
            "them back as they were, or start a new run."
        )
    check_resumable(files.last_checkpoint)
    check_weights_fit(classifier, files.last_checkpoint)
    check_noted(files, files.last_checkpoint, _NEW_RUN)
    _check_best(files)


def _check_best(files: RunDir) -> None:
    """Refuse to go on where the best epoch so far is gone: the run would end without a network to test.

    Raises:
        MissingFileError: If it is.
        CheckpointError: If another file took its place, or it cannot be read.
    """
    if files.best_checkpoint.is_file():
        check_checkpoint(files.best_checkpoint)
        if checkpoint_hash(files.best_checkpoint) != checkpoint_hash(files.last_checkpoint):  # see below
            check_noted(files, files.best_checkpoint, _NEW_RUN)
        return
    callbacks = read_checkpoint(files.last_checkpoint).get("callbacks")
    states = callbacks.values() if isinstance(callbacks, dict) else []
    had_best = any(isinstance(s, dict) and s.get("monitor") and s.get("best_model_path") for s in states)
    if had_best:
        raise MissingFileError(
            f"resume={files}: {files.best_checkpoint.name}, the checkpoint of its best epoch, is gone from "
            f"{files.checkpoints}. Bring it back; or copy {files.last_checkpoint.name} to its place, so that "
            "the last epoch stands for the best until one is better."
        )


@rank_zero_only
def remove_evaluation(files: RunDir) -> None:
    """Remove what was predicted and computed with the weights that a resumed training is about to replace.

    Else, were it stopped, an earlier network's predictions would stand beside a later one's thresholds.
    """
    for path in (
        files.predictions("val"), files.predictions("test"), files.results, files.evaluation, files.curves,
        files.explanation, files.report, files.model_card,
        files.checklist_claim, files.checklist_tripod_ai,
    ):  # fmt: skip
        path.unlink(missing_ok=True)
    for folder in (files.test_heatmaps, files.flagged_heatmaps):
        shutil.rmtree(folder, ignore_errors=True)


@rank_zero_only
def save_data(data: DataModule, report: AuditReport, files: RunDir) -> None:
    """Write which image is in which part, what the audit found, and what could not be read."""
    with replacing(files.manifest) as temporary:
        data.manifest.to_csv(temporary)
    save_audit(report, files)
    if len(data.unreadable):
        write_text(files.unreadable, data.unreadable.report.to_csv(index=False))


def save_audit(report: AuditReport, files: RunDir) -> None:
    """Write what the audit found of data: a run's own, or those of a later evaluation."""
    write_text(files.audit, json.dumps(asdict(report), indent=1) + "\n")


@rank_zero_only
def save_layers(classifier: Classifier, files: RunDir) -> None:
    """Write the table of the network's layers."""
    shape = classifier.preprocess
    write_text(files.layers, layer_table(classifier.network, shape.image_size, shape.channels))


def result_rows(trainer: pl.Trainer, classifier: Classifier, part: str) -> list[dict[str, object]]:
    """Return the metrics of the part that was just evaluated: one row a label, and the macro mean.

    The latter has the loss of the training too, without what the network adds for the size of its weights.
    """
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    num_images, num_known, num_positives = classifier.evaluated
    metrics = [metric.name for metric in METRICS.in_training]
    rows: list[dict[str, object]] = []
    for label, images, positives in zip(classifier.labels, num_known, num_positives, strict=True):
        counts = {"part": part, "label": label, "images": images, "positives": positives}
        rows.append({**counts, **{metric: values.get(f"{part}/{metric}/{label}") for metric in metrics}})
    macro = {"part": part, "label": "macro mean", "images": num_images, "positives": None}
    return [*rows, {**macro, **{metric: values.get(f"{part}/{metric}") for metric in [*metrics, "loss"]}}]


@rank_zero_only
def save_results(rows: list[dict[str, object]], files: RunDir) -> None:
    """Write results.csv."""
    table = pd.DataFrame(rows).astype({"positives": "Int64"}).round(6)
    write_text(files.results, table.to_csv(index=False))
