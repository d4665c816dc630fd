"""What goes with a graph into an exported file: its record, its reference, and words for people, as texts."""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of

from cxrlab.deploy.parity import Agreement
from cxrlab.deploy.quantization import ValidationChange
from cxrlab.deploy.record import ModelRecord
from cxrlab.deploy.record_reading import parse_json, read_record
from cxrlab.errors import CheckpointError
from cxrlab.runs.reference import TrainingReference

RECORD, _REFERENCE = "cxrlab", "cxrlab_reference"


def texts_of(
    record: ModelRecord,
    reference: TrainingReference | None = None,
    agreement: Agreement | None = None,
    change: ValidationChange | None = None,
) -> dict[str, str]:
    """Return the metadata of an exported file, by their keys.

    Args:
        record: What is known of the model.
        reference: By which images are told that are unlike the training's; None for none.
        agreement: How far the file lies from the classifier; None where that is not known yet.
        change: What fewer bits cost on validation; None where that was not measured.
    """
    texts = {RECORD: json.dumps(record.plain(), allow_nan=False), **_for_people(record)}
    if reference is not None:
        tensors = {name: tensor.contiguous() for name, tensor in reference.tensors().items()}
        texts[_REFERENCE] = base64.b64encode(bytes_of(tensors)).decode("ascii")
    if agreement is not None:
        texts["agreement"] = json.dumps(asdict(agreement), allow_nan=False)
    if change is not None:
        texts["validation_change"] = json.dumps(asdict(change), allow_nan=False)
    return texts


def _for_people(record: ModelRecord) -> dict[str, str]:
    """Return what a viewer of ONNX files shows, by its name there; nothing reads it back."""
    thresholds = "; ".join(
        f"{label}: {'none' if value is None else format(value, '.6g')}"
        for label, value in record.thresholds.items()
    )
    start, size = record.initial_weights or {}, record.image_size
    return {
        "network": record.title,
        "task": record.task,
        "labels": "; ".join(record.labels),
        "thresholds": f"{thresholds} (of probabilities, not of calibrated; rule: {record.threshold_rule})",
        "calibration": record.calibration or "none",
        "input": f"uint8 (batch, {record.channels}, {size}, {size}), resized by {record.resize}",
        "views": ", ".join(record.views),
        "trained_on": json.dumps(record.trained_on),
        "initial_weights": str(start.get("title", "unknown")),
        "licence": record.licence or "not given",
        "checkpoint": record.checkpoint,
    }


def read_texts(texts: Mapping[str, str], path: Path) -> tuple[ModelRecord, TrainingReference | None]:
    """Return record and reference from the metadata of a file of anybody's.

    Args:
        texts: As :func:`texts_of` gives them.
        path: The file, for messages.

    Raises:
        CheckpointError: If it is another program's, or holds a value that cannot be meant.
    """
    if RECORD not in texts:
        raise CheckpointError(
            f"{path} is no model of cxrlab: its metadata have no key {RECORD}, so that neither its labels "
            "nor its preprocessing are known. Write it by cxrlab export."
        )
    record = read_record(parse_json(texts[RECORD], path, RECORD), path, RECORD)
    return record, _reference_in(texts.get(_REFERENCE), path)


def _reference_in(text: str | None, path: Path) -> TrainingReference | None:
    if text is None:
        return None
    try:
        tensors = tensors_of(base64.b64decode(text, validate=True))
    except (ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: {_REFERENCE} holds no tensors ({error}): the file is damaged."
        ) from error
    return TrainingReference.from_tensors(tensors, str(path))


def check_width(reference: TrainingReference | None, num_features: int | None, path: Path) -> None:
    """Refuse a reference of another number of features than the graph gives.

    Args:
        reference: Of the file; None for none.
        num_features: That the graph gives of an image; None where it gives none.
        path: The file, for messages.

    Raises:
        CheckpointError: With both.
    """
    width = 0 if reference is None or not len(reference.features) else int(reference.features.shape[1])
    if width and width != num_features:
        raise CheckpointError(
            f"{path}: {_REFERENCE} holds {width} features an image, and the graph gives {num_features}: the "
            "file was edited."
        )
