"""A trained model, ready for new images: one network, or several whose probabilities are averaged."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import nan
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cxrlab.data.cache_worker import CacheSettings
from cxrlab.data.decode import DecodedImage
from cxrlab.data.decode_files import DecodedFile, decode_files
from cxrlab.data.inputs import ImageFile
from cxrlab.deploy.backend import Backend, BatchOutput, Pixels
from cxrlab.deploy.record import ModelRecord
from cxrlab.errors import ConfigError, DataError
from cxrlab.heatmaps.methods import Explainer, check_fit
from cxrlab.heatmaps.settings import ExplanationSettings, check_methods
from cxrlab.metrics.calibration import Calibrator
from cxrlab.metrics.predictions import decisions_at
from cxrlab.runs.reference import TrainingReference
from cxrlab.training.module import Classifier

Status = Literal["ok", "warned", "rejected", "unreadable"]
OnUnlike = Literal["warn", "reject", "ignore"]
"""What is done with an image that is unlike those of the training."""
ON_UNLIKE: tuple[OnUnlike, ...] = ("warn", "reject", "ignore")


@dataclass(frozen=True)
class ImagePrediction:
    """What a model says of one image file.

    Attributes:
        file: Its name.
        status: ``ok``; ``warned`` where the prediction may mean little; ``rejected`` and ``unreadable`` where
            there is none.
        reason: Of any status but ``ok``, a sentence.
        probabilities: Of each label, before calibration, shape ``(L,)``; NaN without a prediction.
        calibrated: The same after calibration.
        decisions: 1 where a label is predicted positive, 0 where not, NaN where nothing can be said.
        features: Pooled, shape ``(F,)``; None where there are none.
    """

    file: str
    status: Status
    reason: str
    probabilities: npt.NDArray[np.float64]
    calibrated: npt.NDArray[np.float64]
    decisions: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Member:
    """One of the networks of a model.

    Attributes:
        record: What is known of it.
        backend: What computes.
        reference: What the images of its training look like; None where that was not kept.
        classifier: Its classifier; None for an exported file.
        digest: Digits that no other network has, nor the same one in fewer bits; "" for those of its
            checkpoint.
    """

    record: ModelRecord
    backend: Backend
    reference: TrainingReference | None = None
    classifier: Classifier | None = None
    digest: str = ""

    @property
    def num_features(self) -> int | None:
        """Pooled features that it tells of an image; None where it tells none."""
        size = self.record.image_size
        features = self.backend(np.zeros((1, self.record.channels, size, size), np.uint8)).features
        return None if features is None else int(features.shape[1])

    @property
    def decoding(self) -> CacheSettings:
        """How it wants images."""
        return CacheSettings(self.record.image_size, self.record.channels, self.record.resize)


class Model:
    """One network, or several whose probabilities are averaged.

    Args:
        members: At least one; all have the same labels, in the same order.
        record: Of the whole; None for that of the only member.
        calibrator: Of the mean of several; None to average what each calibrates itself.

    Attributes:
        members: The networks.
        record: What is known of the model.

    Raises:
        DataError: If labels or tasks differ.
    """

    def __init__(
        self,
        members: Sequence[Member],
        record: ModelRecord | None = None,
        calibrator: Calibrator | None = None,
    ) -> None:
        self.members = list(members)
        self.record = members[0].record if record is None else record
        self._calibrator = calibrator
        for member in members:
            if (member.record.labels, member.record.task) != (self.record.labels, self.record.task):
                raise DataError(
                    f"{member.record.title} has the labels {list(member.record.labels)} "
                    f"(task={member.record.task}), {self.record.title} {list(self.record.labels)} "
                    f"(task={self.record.task}): the members of an ensemble have the same, in the same order."
                )

    def __repr__(self) -> str:
        return f"Model({self.record.title!r}, labels={self.labels})"

    @property
    def labels(self) -> list[str]:
        """Names of the outputs."""
        return list(self.record.labels)

    @property
    def thresholds(self) -> dict[str, float]:
        """Where each label is predicted positive, before calibration; NaN where none was chosen."""
        known = self.record.thresholds
        return {label: nan if (value := known[label]) is None else value for label in self.labels}

    @property
    def digest(self) -> str:
        """Digits by which this model's predictions are told from any other's."""
        return "+".join(member.digest or member.record.checkpoint for member in self.members)

    @property
    def card(self) -> ModelRecord:
        """What is known of the model."""
        return self.record

    @property
    def knows_its_images(self) -> bool:
        """Whether images that are unlike those of the training can be told."""
        return any(member.reference is not None for member in self.members)

    def predict_decoded(
        self, files: Sequence[DecodedFile], *, on_unlike: OnUnlike = "warn"
    ) -> list[ImagePrediction]:
        """Return what the model says of files that were decoded, in their order.

        Args:
            files: Decoded in each of the ways of :attr:`decoding`.
            on_unlike: What is done with images that are unlike those of the training, or whose DICOM header
                names no chest radiograph.

        Raises:
            ConfigError: If there is no such way to treat them.
        """
        check_on_unlike(on_unlike, "on_unlike")
        readable = [file for file in files if file.images]
        predictions = self._predicted(readable, on_unlike) if readable else iter(())
        return [
            next(predictions) if file.images else self._nothing(file, "unreadable", file.error)
            for file in files
        ]

    def _nothing(self, file: DecodedFile, status: Status, reason: str) -> ImagePrediction:
        unknown = np.full(len(self.labels), np.nan)
        return ImagePrediction(file.file.name, status, reason, unknown, unknown, unknown)

    @property
    def decoding(self) -> list[CacheSettings]:
        """The ways in which the members want images, each once."""
        return list(dict.fromkeys(member.decoding for member in self.members))

    def _predicted(self, files: Sequence[DecodedFile], on_unlike: OnUnlike) -> Iterator[ImagePrediction]:
        ways = self.decoding
        pixels = [np.stack([file.images[way].pixels for file in files]) for way in range(len(ways))]
        outputs = [member.backend(pixels[ways.index(member.decoding)]) for member in self.members]
        probabilities, calibrated = self._combined(outputs)
        decisions = decisions_at(probabilities, np.array(list(self.thresholds.values())))
        doubts = self._doubts(files, pixels, outputs) if on_unlike != "ignore" else [""] * len(files)
        features = outputs[0].features
        for row, (file, doubt) in enumerate(zip(files, doubts, strict=True)):
            if not np.isfinite(probabilities[row]).all():
                yield self._nothing(file, "rejected", _NOT_FINITE)
                continue
            if doubt and on_unlike == "reject":
                yield self._nothing(file, "rejected", doubt)
                continue
            reason = _joined([doubt, *(_remark(image) for image in file.images)])
            yield ImagePrediction(
                file.file.name,
                "warned" if reason else "ok",
                reason,
                probabilities[row],
                calibrated[row],
                decisions[row],
                None if features is None else features[row],
            )

    def _combined(
        self, outputs: Sequence[BatchOutput]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return probabilities before and after calibration, each ``(B, L)``."""
        if len(outputs) == 1:
            return outputs[0].probabilities, outputs[0].calibrated
        probabilities = np.mean([output.probabilities for output in outputs], axis=0)
        if self._calibrator is not None:
            return probabilities, self._calibrator.apply(probabilities)
        return probabilities, np.mean([output.calibrated for output in outputs], axis=0)

    def _doubts(
        self, files: Sequence[DecodedFile], pixels: Sequence[Pixels], outputs: Sequence[BatchOutput]
    ) -> list[str]:
        """Return of each file why it may be no image for this model; "" where nothing says so."""
        doubts = [[file.images[0].doubt for file in files]]
        ways = self.decoding
        for member, output in zip(self.members, outputs, strict=True):
            if member.reference is not None:
                unlike = member.reference.reasons(pixels[ways.index(member.decoding)], output.features)
                doubts.append(unlike)
        return [_joined(of_file) for of_file in zip(*doubts, strict=True)]

    def predict_files(
        self,
        files: Iterable[ImageFile],
        *,
        batch_size: int = 32,
        num_workers: int = 0,
        on_unlike: OnUnlike = "warn",
    ) -> Iterator[ImagePrediction]:
        """Yield what the model says of each file, in their order; decoding goes on beside the network.

        Args:
            files: As many as there are; memory holds a few batches of them.
            batch_size: Images at a time.
            num_workers: Processes that decode; 0 for none but this one.
            on_unlike: As :meth:`predict_decoded`.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1.")
        decoded = decode_files(files, self.decoding, num_workers=num_workers)
        while batch := list(islice(decoded, batch_size)):
            yield from self.predict_decoded(batch, on_unlike=on_unlike)

    def predict(
        self,
        paths: Iterable[Path | str] | Path | str,
        *,
        batch_size: int = 32,
        num_workers: int = 0,
        on_unlike: OnUnlike = "warn",
    ) -> pd.DataFrame:
        """Return one row an image file, as ``predictions.csv`` of ``cxrlab predict`` has it.

        Args:
            paths: Image files of any size.
            batch_size: Images at a time.
            num_workers: Processes that decode; 0 for none but this one.
            on_unlike: As :meth:`predict_decoded`.

        Example:
            >>> model = load_model("outputs/2026-01-31/12-00-00")  # doctest: +SKIP
            >>> model.predict(["a.png", "b.dcm"])[["file", "status"]]  # doctest: +SKIP
        """
        files = [ImageFile(str(path), path) for path in _paths(paths)]
        predictions = self.predict_files(
            files, batch_size=batch_size, num_workers=num_workers, on_unlike=on_unlike
        )
        return pd.DataFrame([self.row(prediction) for prediction in predictions], columns=self.columns)

    @property
    def columns(self) -> list[str]:
        """The columns of a table of predictions."""
        kinds = ("probability", "calibrated", "threshold", "prediction")
        return ["file", "status", "reason", *(f"{kind}/{label}" for kind in kinds for label in self.labels)]

    def row(self, prediction: ImagePrediction) -> list[str | float]:
        """Return what :attr:`columns` have of an image."""
        values = (
            prediction.probabilities,
            prediction.calibrated,
            list(self.thresholds.values()),
            prediction.decisions,
        )
        numbers = [float(value) for block in values for value in block]
        return [prediction.file, prediction.status, prediction.reason, *numbers]

    def embed(
        self, paths: Iterable[Path | str] | Path | str, *, batch_size: int = 32
    ) -> npt.NDArray[np.float32]:
        """Return the pooled features of image files, of the first member, shape ``(N, F)``.

        Raises:
            DataError: If a file cannot be read.
            ConfigError: If the network does not tell its features from its head.
        """
        files = [ImageFile(str(path), path) for path in _paths(paths)]
        rows = []
        for prediction in self.predict_files(files, batch_size=batch_size, on_unlike="ignore"):
            if prediction.status == "unreadable":
                raise DataError(prediction.reason)
            if prediction.features is None:
                raise ConfigError(f"{self.record.title} does not tell its features from its head.")
            rows.append(prediction.features)
        return np.stack(rows) if rows else np.zeros((0, 0), np.float32)

    def heatmaps(
        self,
        paths: Iterable[Path | str] | Path | str,
        *,
        labels: Sequence[str] | None = None,
        method: str = "gradcam",
    ) -> npt.NDArray[np.float32]:
        """Return the heatmap of each image and label, values in [0, 1], shape ``(N, L, H, W)``.

        Args:
            paths: Image files of any size; the maps are of the square that the network sees.
            labels: Those that are wanted; None for all.
            method: See :data:`cxrlab.heatmaps.settings.METHODS`.

        Raises:
            DataError: If a file cannot be read.
            ConfigError: If there is no such label, or the model is an exported file or an ensemble.
        """
        wanted = self.labels if labels is None else list(labels)
        unknown = [label for label in wanted if label not in self.labels]
        if unknown:
            raise ConfigError(f"labels names {unknown[0]!r}; the labels are {', '.join(self.labels)}.")
        columns = [self.labels.index(label) for label in wanted]
        maps = []
        for path in _paths(paths):
            (decoded,) = decode_files([ImageFile(str(path), path)], self.decoding, num_workers=0)
            if not decoded.images:
                raise DataError(decoded.error)
            maps.append(self.explain(decoded.images[0].pixels, columns, method).numpy())
        size = self.record.image_size
        return np.stack(maps) if maps else np.zeros((0, len(wanted), size, size), np.float32)

    def explain(self, pixels: Pixels, columns: Sequence[int], method: str = "gradcam") -> torch.Tensor:
        """Return the heatmaps of an image that is decoded, values in [0, 1], shape ``(len(columns), H, W)``.

        Args:
            pixels: Shape ``(C, H, W)``.
            columns: Of the labels.
            method: As :meth:`heatmaps`.

        Raises:
            ConfigError: As :meth:`heatmaps`.
        """
        explainer = Explainer(check_methods(method, "method")[0], ExplanationSettings(methods=[method]))
        pairs = [(0, column) for column in columns]
        return explainer(self.explained_classifier(), torch.from_numpy(pixels[None].copy()), pairs)

    def check_explained(self, method: str) -> None:
        """Refuse heatmaps that cannot be had, before any image is decoded for them.

        Raises:
            ConfigError: If the model is an exported file or an ensemble, or its network cannot
                have such maps.
        """
        check_fit(self.explained_classifier(), ExplanationSettings(methods=[method]))

    def check_features(self) -> None:
        """Refuse features that cannot be had.

        Raises:
            ConfigError: If the network, or the exported file, does not tell them.
        """
        first = self.members[0]
        if first.num_features is None:
            raise ConfigError(f"{first.record.title} does not tell its features from its head.")

    def explained_classifier(self) -> Classifier:
        """Return the classifier that heatmaps are of.

        Raises:
            ConfigError: If the model is an exported file or an ensemble.
        """
        if len(self.members) > 1:
            raise ConfigError(
                f"Heatmaps are of one network, and {self.record.title} has {len(self.members)}."
            )
        if self.members[0].classifier is None:
            raise ConfigError(
                "Heatmaps need the network, of which an exported file has the outputs alone: give the run, "
                "its checkpoint or a shared folder."
            )
        return self.members[0].classifier


_NOT_FINITE = "The network's output for this image is not finite, so that there is no probability."


def check_on_unlike(value: str, key: str) -> None:
    """Refuse a way to treat images that are unlike those of the training which there is not.

    Raises:
        ConfigError: With those that there are.
    """
    if value not in ON_UNLIKE:
        raise ConfigError(f"{key}={value} must be one of {', '.join(ON_UNLIKE)}.")


def _remark(image: DecodedImage) -> str:
    """Return what a file's header says wrongly, without the doubt whether it is a radiograph."""
    return image.warning.removeprefix(image.doubt).strip()


def _joined(sentences: Iterable[str]) -> str:
    """Return sentences as one text, each once."""
    return " ".join(dict.fromkeys(filter(None, sentences)))


def _paths(paths: Iterable[Path | str] | Path | str) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
