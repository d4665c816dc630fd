"""A classifier written as one file for other programs, and only where the file computes the same."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from torch.export import ExportedProgram

from cxrlab.deploy.backend import Backend, Pixels, TorchBackend
from cxrlab.deploy.graph import Precision, trace
from cxrlab.deploy.metadata import texts_of
from cxrlab.deploy.onnx_file import add_metadata, read_onnx, write_onnx
from cxrlab.deploy.parity import TOLERANCES, Agreement, agreement, check_agreement, check_enough
from cxrlab.deploy.program_file import read_program, write_program
from cxrlab.deploy.quantization import (
    Quantization,
    ValidationChange,
    ValidationImages,
    check_change,
    quantize_onnx,
    validation_change,
)
from cxrlab.deploy.record import ModelRecord
from cxrlab.errors import ConfigError, check_range
from cxrlab.files import replacing
from cxrlab.runs.reference import TrainingReference
from cxrlab.training.module import Classifier

Format = Literal["onnx", "torch"]


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What is written, and what is let pass.

    Attributes:
        format: ``onnx``, or ``torch`` for a program of torch.export.
        precision: Of the network's weights and arithmetic.
        quantize: ``int8`` takes the ranges of activations from training images, ``int8_dynamic`` from each
            image anew; None for no quantisation.
        max_drop: By how much the mean over the labels of AUROC, sensitivity and specificity on validation
            may fall, where weights are of fewer bits.
        batch_size: Images at a time, where several are compared.

    Raises:
        ConfigError: If a value is unknown, or two do not go together.
    """

    format: Format = "onnx"
    precision: Precision = "fp32"
    quantize: Quantization | None = None
    max_drop: float = 0.01
    batch_size: int = 16

    def __post_init__(self) -> None:
        for key, kind in (("format", Format), ("precision", Precision), ("quantize", Quantization)):
            value = getattr(self, key)
            if value not in get_args(kind) and not (key == "quantize" and value is None):
                hint = "; cxrlab share writes a folder" if value == "folder" else ""
                raise ConfigError(f"{key}={value} must be one of {', '.join(get_args(kind))}{hint}.")
        check_range("max_drop", self.max_drop, 0.0, 1.0)
        check_range("batch_size", self.batch_size, 2)
        if self.quantize is not None and self.format != "onnx":
            raise ConfigError(f"quantize={self.quantize} needs format=onnx, not {self.format}.")
        if self.quantize is not None and self.precision != "fp32":
            raise ConfigError(
                f"quantize={self.quantize} and precision={self.precision} do not go together: choose one."
            )


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """A file that was written.

    Attributes:
        path: The file.
        agreement: How far it lies from the classifier.
        change: What fewer bits cost on validation; None for a file of 32 bits, or without validation images.
    """

    path: Path
    agreement: Agreement
    change: ValidationChange | None


def export_model(
    classifier: Classifier,
    path: Path,
    *,
    record: ModelRecord,
    images: Pixels,
    reference: TrainingReference | None = None,
    calibration: Pixels | None = None,
    validation: ValidationImages | None = None,
    settings: ExportSettings | None = None,
) -> ExportedModel:
    """Write a classifier as a file, unless the file computes something else.

    The file appears under its name once it was read back, and compared; whatever stood there is replaced
    then.

    Args:
        classifier: On the CPU; left in evaluation mode.
        path: The file.
        record: What goes with the model.
        images: Real ones, decoded to its size, on which the file is compared, ``(N, C, H, W)``.
        reference: By which images are told that are unlike the training's; None for none.
        calibration: Training images, for ``quantize=int8``.
        validation: For what fewer bits cost; needed for ``quantize``.
        settings: What is written; None for ONNX of 32 bits.

    Raises:
        ExportError: If the network cannot be exported, or the file disagrees: nothing is written.
        ConfigError: If there are too few images, or some are missing.
        MissingPackageError: If a package of the extra ``export`` is not installed.
    """
    settings = settings or ExportSettings()
    check_enough(images)
    _check_images(settings, calibration, validation)
    thresholds = classifier.operating_point.threshold_values()
    own, program = TorchBackend(classifier), trace(classifier, settings.precision)
    has_fewer_bits = settings.quantize is not None or settings.precision != "fp32"
    with replacing(path) as temporary:
        _write(program, temporary, texts_of(record, reference), settings, calibration)
        exported = _read(temporary, settings.format)
        tolerance = None if settings.quantize else TOLERANCES[settings.precision]
        size = settings.batch_size
        found = agreement(own, exported, images, thresholds, tolerance=tolerance, batch_size=size)
        check_agreement(found, flips=has_fewer_bits)
        change = None
        if validation is not None and has_fewer_bits:
            change = validation_change(own, exported, validation, classifier.labels, thresholds, size)
            check_change(change, settings.max_drop)
        _rewrite_texts(program, temporary, texts_of(record, reference, found, change), settings)
    return ExportedModel(path=path, agreement=found, change=change)


def _write(
    program: ExportedProgram,
    path: Path,
    texts: Mapping[str, str],
    settings: ExportSettings,
    calibration: Pixels | None,
) -> None:
    if settings.format == "onnx":
        write_onnx(program, path)
    if settings.quantize is not None:
        quantize_onnx(path, calibration if settings.quantize == "int8" else None)
    _rewrite_texts(program, path, texts, settings)


def _rewrite_texts(
    program: ExportedProgram, path: Path, texts: Mapping[str, str], settings: ExportSettings
) -> None:
    if settings.format == "onnx":
        add_metadata(path, texts)
    else:
        write_program(program, path, texts)


def _read(path: Path, form: Format) -> Backend:
    return read_onnx(path, "cpu")[1] if form == "onnx" else read_program(path)[1]


def _check_images(
    settings: ExportSettings, calibration: Pixels | None, validation: ValidationImages | None
) -> None:
    if settings.quantize == "int8" and (calibration is None or not len(calibration)):
        raise ConfigError("quantize=int8 needs training images: set quantize=int8_dynamic, or give a run.")
    if settings.quantize is not None and validation is None:
        raise ConfigError(
            f"quantize={settings.quantize} needs the validation images of the run, on which its cost is "
            "measured: give a run whose data are at hand (root=<folder> where they were moved)."
        )
