"""What goes with a model wherever it goes: labels, thresholds, what it takes, what it was made of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cxrlab
from cxrlab.models.weights import plain_seen
from cxrlab.task import Task
from cxrlab.training.checkpoint import checkpoint_hash

if TYPE_CHECKING:
    from cxrlab.training.module import Classifier


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """What is known of a model without its weights: plain values, no name of a patient, no path.

    Attributes:
        title: Of its network: timm's name of it, such as ``densenet121``, or that of its class.
        task: Whether labels are by themselves, or classes of which each image has one.
        labels: Names of its outputs, L of them.
        thresholds: Where each label is predicted positive, on the scale of the probabilities before
            calibration; None where none was chosen.
        threshold_rule: How they were chosen on validation, such as ``youden``; "" where that is not known.
        calibration: How probabilities are calibrated, such as ``platt``; "" where they are not, or it is not
            known.
        image_size: Height and width in pixels of what the network sees.
        channels: 1 or 3.
        resize: ``stretch``, ``pad`` or ``crop``, see :func:`cxrlab.data.decode.read_image`.
        views: Of an image, whose probabilities are averaged.
        trained_on: Its training data with their fingerprint, as :func:`cxrlab.models.weights.plain_seen` has
            them; None where they are not known.
        initial_weights: What it started from, as :meth:`cxrlab.models.weights.InitialWeights.plain` has it;
            None where that is not known.
        licence: Of the weights, SPDX identifier or in words; "" where none was given.
        version: Of the cxrlab that wrote this.
        checkpoint: Digits of its weights and description, see
            :func:`cxrlab.training.checkpoint.checkpoint_hash`; "" where they were never in a file.
        caveats: What a user must know, sentences.
    """

    title: str
    task: Task
    labels: Sequence[str]
    thresholds: Mapping[str, float | None]
    threshold_rule: str = ""
    calibration: str = ""
    image_size: int
    channels: int
    resize: str
    views: Sequence[str] = ("identity",)
    trained_on: Mapping[str, Any] | None = None
    initial_weights: Mapping[str, Any] | None = None
    licence: str = ""
    version: str = cxrlab.__version__
    checkpoint: str = ""
    caveats: Sequence[str] = field(default=())

    def plain(self) -> dict[str, Any]:
        """Return the same as plain values, for JSON."""
        return asdict(self)


def record_of(classifier: "Classifier", path: Path | None = None, *, licence: str = "") -> ModelRecord:
    """Return the record of a classifier.

    Args:
        classifier: Such as a checkpoint gives.
        path: The checkpoint that it was loaded from; None where there is none.
        licence: Of its weights, where somebody gave one.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
    """
    shape, point = classifier.preprocess, classifier.operating_point
    values = point.thresholds.tolist()
    return ModelRecord(
        title=network_title(classifier),
        task=classifier.task,
        labels=tuple(classifier.labels),
        thresholds={
            label: None if isnan(value) else value
            for label, value in zip(classifier.labels, values, strict=True)
        },
        threshold_rule=str(classifier.threshold_rule),
        calibration="" if point.calibrator(classifier.calibration) is None else classifier.calibration,
        image_size=shape.image_size,
        channels=shape.channels,
        resize=shape.resize,
        views=tuple(classifier.views),
        trained_on=None if classifier.trained_on is None else plain_seen(classifier.trained_on),
        initial_weights=None if classifier.initial_weights is None else classifier.initial_weights.plain(),
        licence=licence,
        checkpoint="" if path is None else checkpoint_hash(path),
    )


def network_title(classifier: "Classifier") -> str:
    """Return what a classifier's network is called: timm's name of it, or that of its class."""
    return str(classifier.network.arguments().get("backbone", classifier.network.title))
