"""A trained model, ready for new images: loaded from whatever form it was kept or passed on in."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import nan
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cxrlab.data.cache_worker import CacheSettings
from cxrlab.data.decode import DecodedImage
from cxrlab.data.decode_files import DecodedFile, decode_files
from cxrlab.data.inputs import ImageFile
from cxrlab.deploy.backend import Backend, BatchOutput, Pixels, TorchBackend
from cxrlab.deploy.record import ModelRecord, record_of
from cxrlab.errors import ConfigError, DataError, MissingFileError
from cxrlab.evaluation.ensemble import check_same_task, ensemble_validation
from cxrlab.evaluation.operating_point import from_validation
from cxrlab.files import RunDir
from cxrlab.heatmaps.methods import Explainer, check_fit
from cxrlab.heatmaps.settings import ExplanationSettings, check_methods
from cxrlab.metrics.calibration import Calibrator
from cxrlab.metrics.predictions import decisions_at
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.models.views import check_views
from cxrlab.runs.reference import TrainingReference, read_reference
from cxrlab.runs.run import Run, load_classifier, load_run
from cxrlab.training.module import Classifier

_Value = TypeVar("_Value")
Status = Literal["ok", "warned", "rejected", "unreadable"]
OnUnlike = Literal["warn", "reject", "ignore"]
"""What is done with an image that is unlike those of the training."""
ON_UNLIKE: tuple[OnUnlike, ...] = ("warn", "reject", "ignore")

_SUFFIXES = (".ckpt", ".onnx", ".pt2", ".pt", ".pth", ".safetensors")
FORMS = (
    "a run directory, a checkpoint (.ckpt), an exported file (.onnx), a shared folder, or owner/name of the "
    "Hugging Face Hub"
)


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
        if _num_features(first.backend, first.record) is None:
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


def _num_features(backend: Backend, record: ModelRecord) -> int | None:
    size = record.image_size
    features = backend(np.zeros((1, record.channels, size, size), np.uint8)).features
    return None if features is None else int(features.shape[1])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _paths(paths: Iterable[Path | str] | Path | str) -> list[Path]:
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]


def load_model(
    source: Path | str | Sequence[Path | str],
    *,
    device: str = "cpu",
    trust: Sequence[str] = (),
    views: Sequence[str] | None = None,
) -> Model:
    """Load a model from a run, a checkpoint, an exported file or a shared folder; nothing in it runs code.

    Args:
        source: A run directory, a checkpoint, an ``.onnx`` file, a shared folder, or ``owner/name`` of the
            Hugging Face Hub; several of them are an ensemble.
        device: ``auto``, ``cpu`` or ``cuda``.
        trust: Packages besides cxrlab whose networks may be built.
        views: Of an image, whose probabilities are averaged; None for those of the training.

    Raises:
        MissingFileError: If there is nothing of that name.
        CheckpointError: If a file cannot be loaded.
        ConfigError: If its network is of a package that is not trusted, or a view is unknown.
        DataError: If the members of an ensemble do not fit one another.

    Example:
        >>> model = load_model("outputs/2026-01-31/12-00-00")  # doctest: +SKIP
        >>> model.predict(["a.png", "b.dcm"])  # doctest: +SKIP
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if not sources:
        raise ConfigError(f"run=[] names no model: give {FORMS}.")
    loaded = [_load(one, device, trust, views) for one in sources]
    members = [member for member, _ in loaded]
    if len(members) == 1:
        return Model(members)
    return _ensemble(members, [run for _, run in loaded], changes_views=views is not None)


def _load(
    source: Path | str, device: str, trust: Sequence[str], views: Sequence[str] | None
) -> tuple[Member, Run | None]:
    path = Path(source).expanduser()
    if not path.exists():
        if _may_be_of_hub(str(source)):
            from cxrlab.deploy.hub import download

            return _load(download(str(source)), device, trust, views)
        raise MissingFileError(f"run={source}: there is no such file or folder. Give {FORMS}.")
    if path.is_dir() and RunDir(path).checkpoints.is_dir():
        run = load_run(path, trust=trust)
        return _of_checkpoint(run.model, RunDir(path).best_checkpoint, device, views), run
    if path.is_dir():
        return _of_folder(path, device, trust, views), None
    if path.suffix == ".onnx":
        return _of_onnx(path, device, views), None
    if path.suffix == ".pt2":
        raise ConfigError(
            f"run={source}: torch unpickles a program of torch.export, and that can run code. Give the ONNX "
            "file, or load one of your own by cxrlab.deploy.program_file.read_program."
        )
    return _of_checkpoint(load_classifier(path, trust=trust), path, device, views), None


def _may_be_of_hub(source: str) -> bool:
    """Tell whether a name is asked for at the Hub: not where it looks like a local path that is misspelt."""
    from cxrlab.deploy.hub import is_hub_name

    return (
        is_hub_name(source)
        and not source.lower().endswith(_SUFFIXES)
        and not Path(source.partition("/")[0]).exists()
    )


def _of_checkpoint(classifier: Classifier, path: Path, device: str, views: Sequence[str] | None) -> Member:
    return _of_classifier(path, classifier, record_of(classifier, path), read_reference(path), device, views)


def _of_classifier(
    path: Path,
    classifier: Classifier,
    record: ModelRecord,
    reference: TrainingReference | None,
    device: str,
    views: Sequence[str] | None,
) -> Member:
    if views is not None:
        classifier.views = check_views(views)
        record = replace(record, views=tuple(classifier.views), caveats=(*record.caveats, _OTHER_VIEWS))
    backend = TorchBackend(classifier, device)
    if reference is not None:
        reference.check_fits(record.image_size, _num_features(backend, record), str(path))
    return Member(record, backend, reference, classifier)


_OTHER_VIEWS = (
    "Probabilities are the mean over other views than those of the training; thresholds and calibration were "
    "chosen with the training's."
)


def _of_folder(path: Path, device: str, trust: Sequence[str], views: Sequence[str] | None) -> Member:
    if not (path / "config.json").is_file():
        raise MissingFileError(
            f"run={path} holds neither checkpoints nor config.json: it is no run directory and no shared "
            f"folder. Give {FORMS}."
        )
    from cxrlab.deploy.shared_folder import read_shared_folder

    record, classifier, reference = read_shared_folder(path, device, trust)
    return _of_classifier(path, classifier, record, reference, device, views)


def _of_onnx(path: Path, device: str, views: Sequence[str] | None) -> Member:
    if views is not None:
        raise ConfigError(f"views={list(views)}: those of an exported file such as {path} are part of it.")
    from cxrlab.deploy.onnx_file import read_onnx

    record, backend, reference = read_onnx(path, device)
    if reference is not None:
        reference.check_fits(record.image_size, _num_features(backend, record), str(path))
    return Member(record, backend, reference, digest=_digest(path.read_bytes()))


def _ensemble(members: Sequence[Member], runs: Sequence[Run | None], *, changes_views: bool) -> Model:
    """Return several networks as one; thresholds are chosen on their validation predictions."""
    records = [member.record for member in members]
    first = records[0]
    record = replace(
        first,
        title=f"an ensemble of {len(members)}: {', '.join(member.record.title for member in members)}",
        checkpoint=hashlib.sha256("+".join(record.checkpoint for record in records).encode()).hexdigest()[
            :16
        ],
        licence=_shared(record.licence for record in records) or "",
        trained_on=_shared(record.trained_on for record in records),
        initial_weights=_shared(record.initial_weights for record in records),
        thresholds=dict.fromkeys(first.labels),
        calibration="",
        threshold_rule="",
        caveats=tuple(dict.fromkeys(caveat for member in members for caveat in member.record.caveats)),
    )
    Model(members, record)  # refuses members that do not fit
    of_runs = [run for run in runs if run is not None]
    validation = None
    if len(of_runs) == len(members) and not changes_views:
        check_same_task(of_runs)
        validation = ensemble_validation(of_runs, first.labels, [None] * len(of_runs))
    if validation is None:
        return Model(members, replace(record, caveats=(*record.caveats, _NO_THRESHOLD)))
    model = of_runs[0].model
    settings = EvaluationSettings(threshold=model.threshold_rule, calibration=model.calibration)
    thresholds, calibrator = from_validation(validation, settings)
    values = {
        label: None if np.isnan(value) else float(value)
        for label, value in zip(first.labels, thresholds.values, strict=True)
    }
    record = replace(
        record,
        thresholds=values,
        threshold_rule=thresholds.rule,
        calibration="" if calibrator is None else calibrator.method,
    )
    return Model(members, record, calibrator)


def _shared(values: Iterable[_Value]) -> _Value | None:
    """Return what all values are; None where they differ."""
    first, *others = values
    return first if all(value == first for value in others) else None


_NO_THRESHOLD = (
    "No thresholds could be chosen for the ensemble, whose members have no validation predictions of the "
    "same images: nothing is predicted positive or negative."
)
