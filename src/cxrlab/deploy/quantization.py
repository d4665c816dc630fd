"""ONNX files whose convolutions and matrix products are of 8 bits, and what that costs on validation."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cxrlab.deploy.backend import Backend, BatchOutput, Pixels
from cxrlab.deploy.graph import INPUT
from cxrlab.deploy.parity import num_flipped
from cxrlab.errors import ExportError
from cxrlab.metrics import METRICS
from cxrlab.metrics.predictions import decisions_at
from cxrlab.runs.predict import ImageRows

Floats = npt.NDArray[np.float64]
Quantization = Literal["int8", "int8_dynamic"]

_OPERATORS = ("Conv", "MatMul", "Gemm")
_METRICS = ("auroc", "sensitivity", "specificity")
_CALIBRATION_BATCH = 16


def quantize_onnx(path: Path, calibration: Pixels | None) -> None:
    """Turn an ONNX file into one of 8-bit weights, in place; its metadata are lost.

    Args:
        path: As :func:`cxrlab.deploy.onnx_file.write_onnx` wrote it; onnxruntime must be installed.
        calibration: Training images ``(N, C, H, W)``, from which the ranges of all activations are taken
            beforehand; None takes them from each image anew, which needs no images and is slower.

    Raises:
        ExportError: If onnxruntime cannot do so, naming what it says.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    whole = path.with_name(f"{path.name}.whole")
    level = logging.root.manager.disable
    try:
        logging.disable(logging.INFO)  # a line for every tensor
        quant_pre_process(path, whole, skip_symbolic_shape=True)
        if calibration is None:
            # ConvInteger takes weights without a sign only.
            quantize_dynamic(whole, path, op_types_to_quantize=list(_OPERATORS), weight_type=QuantType.QUInt8)
        else:
            quantize_static(
                whole,
                path,
                _CalibrationImages(calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_OPERATORS),
                per_channel=True,
            )
    except OSError:  # a full disk says so itself
        raise
    except Exception as error:  # of classes that onnxruntime keeps to itself
        reason = " ".join(str(error).split())[:200]
        raise ExportError(
            f"onnxruntime cannot quantise this network: {type(error).__name__}: {reason} Leave out "
            "quantize=, or set precision=fp16."
        ) from error
    finally:
        logging.disable(level)
        whole.unlink(missing_ok=True)


class _CalibrationImages:
    """Batches of images by the graph's input, as onnxruntime takes them: None at the end."""

    def __init__(self, images: Pixels) -> None:
        starts = range(0, len(images), _CALIBRATION_BATCH)
        self._batches: Iterator[Pixels] = (images[start : start + _CALIBRATION_BATCH] for start in starts)

    def get_next(self) -> dict[str, Pixels] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


@dataclass(frozen=True)
class ValidationImages:
    """Images that thresholds were chosen on, with their targets.

    Attributes:
        images: By row.
        rows: N of them.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
    """

    images: ImageRows
    rows: Sequence[int]
    targets: Floats


@dataclass(frozen=True, kw_only=True)
class MetricChange:
    """What became of a metric.

    Attributes:
        metric: Its name.
        before: Mean over the labels that have it.
        after: The same of the exported file.
        worst_label: The label that lost most.
        worst: By how much it changed; below 0 is a loss.
    """

    metric: str
    before: float
    after: float
    worst_label: str
    worst: float

    def __str__(self) -> str:
        return (
            f"{self.metric} {self.before:.4f} -> {self.after:.4f} ({self.after - self.before:+.4f}; "
            f"{self.worst_label} {self.worst:+.4f})"
        )


@dataclass(frozen=True, kw_only=True)
class ValidationChange:
    """What an exported file of fewer bits costs on validation.

    Attributes:
        num_images: Of the validation part.
        num_flipped: Decisions that are others, of images times labels.
        metrics: AUROC, sensitivity and specificity, where they are defined.
    """

    num_images: int
    num_flipped: int
    metrics: Sequence[MetricChange]

    def __str__(self) -> str:
        metrics = "; ".join(map(str, self.metrics))
        return f"on {self.num_images} validation images: {metrics}; {self.num_flipped} decisions are others"


def validation_change(
    classifier: Backend,
    exported: Backend,
    validation: ValidationImages,
    labels: Sequence[str],
    thresholds: Floats,
    batch_size: int,
) -> ValidationChange:
    """Compare two backends by their metrics on validation images.

    Args:
        classifier: What is exported.
        exported: What was made of it.
        validation: N images.
        labels: L names.
        thresholds: Of probabilities before calibration, shape ``(L,)``; NaN where none was chosen.
        batch_size: Images at a time.
    """
    before, after = (
        _probabilities(backend, validation, batch_size, len(labels)) for backend in (classifier, exported)
    )
    decided = [decisions_at(scores, thresholds) for scores in (before, after)]
    changes = []
    for name in _METRICS:
        pairs = decided if METRICS[name].needs == "decisions" else [before, after]
        values = np.array([_by_label(name, scores, validation.targets) for scores in pairs])
        if not np.isnan(values).all():
            changes.append(_change(name, values, labels))
    return ValidationChange(
        num_images=len(validation.rows), num_flipped=num_flipped(decided[0], decided[1]), metrics=changes
    )


def check_change(change: ValidationChange, max_drop: float) -> None:
    """Refuse a file that costs too much.

    Args:
        change: As :func:`validation_change` gives it.
        max_drop: By how much the mean over the labels of each metric may fall.

    Raises:
        ExportError: Naming the metric.
    """
    drops = {metric.metric: metric.before - metric.after for metric in change.metrics}
    too_many = {name: drop for name, drop in drops.items() if not drop <= max_drop}
    if too_many:
        worst = max(too_many, key=lambda name: np.nan_to_num(too_many[name], nan=np.inf))
        raise ExportError(
            f"The exported file loses {too_many[worst]:.4f} of the {worst}, and max_drop={max_drop:g} allows "
            f"less: {change}. Nothing was written. quantize=int8 with more calibration_images=, "
            "precision=fp16 or a larger max_drop= would be other ways."
        )


def _probabilities(backend: Backend, validation: ValidationImages, size: int, num_labels: int) -> Floats:
    scores = np.empty((len(validation.rows), num_labels))
    for start in range(0, len(scores), size):
        batch: BatchOutput = backend(validation.images[list(validation.rows[start : start + size])])
        scores[start : start + size] = batch.probabilities
    return scores


def _by_label(name: str, predictions: Floats, targets: Floats) -> list[float]:
    known = ~np.isnan(targets) & ~np.isnan(predictions)
    columns = zip(predictions.T, targets.T, known.T, strict=True)
    return [METRICS[name](column[mask], wanted[mask]) for column, wanted, mask in columns]


def _change(name: str, values: Floats, labels: Sequence[str]) -> MetricChange:
    """Return the change of a metric by label, ``(2, L)``."""
    differences = values[1] - values[0]
    worst = int(np.nanargmin(differences))
    return MetricChange(
        metric=name,
        before=float(np.nanmean(values[0])),
        after=float(np.nanmean(values[1])),
        worst_label=labels[worst],
        worst=float(differences[worst]),
    )
