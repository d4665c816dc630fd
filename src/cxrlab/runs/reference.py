"""What the images of a training look like, in numbers, so that another image can be told to be unlike them.

An image is compared in four ways: what the network sees in it (the distance of its pooled features to those
of the nearest training image), its layout, its grey levels and its fine detail (how far these lie from the
training's, in its own spread). How far is too far is chosen on validation images.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from cxrlab.data.datamodule import DataModule
from cxrlab.data.public import UNDER_AGREEMENT, canonical
from cxrlab.errors import CheckpointError
from cxrlab.runs.features import tells_features
from cxrlab.runs.predict import named_device, outputs
from cxrlab.training.callbacks import AtomicCheckpointIO
from cxrlab.training.checkpoint import read_checkpoint
from cxrlab.training.module import Classifier

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]

KEY = "reference"
"""Of a checkpoint, below which the tensors stand."""

_ASPECTS = {
    "features": "what the network sees in it",
    "layout": "its layout",
    "grey_levels": "its grey levels",
    "detail": "its fine detail",
}
# Of images like those of validation each aspect calls one in fifty unlike, at most. Of a network for
# children's radiographs that was 2.5 % of other children's (all aspects together), 85 % of adults', and a CT
# slice.
_LEVEL = 0.98
_LAYOUT_SIDE, _NUM_GREY_LEVELS, _MOST_SCALES = 8, 16, 5
# A share of the mean variance that is added to all: directions in which a few images hardly vary do not
# decide alone.
_SHRINKAGE = 0.05
_LEAST_IMAGES = 20
_CHUNK = 256


@dataclass(frozen=True)
class Spread:
    """Where descriptors of training images lie: no single image can be told from it.

    Attributes:
        mean: Shape ``(D,)``.
        precision: Inverse of their covariance, shape ``(D, D)``.
    """

    mean: Tensor
    precision: Tensor

    @classmethod
    def of(cls, values: Tensor) -> "Spread":
        """Fit it to descriptors, shape ``(N, D)``."""
        values = values.double()
        covariance = torch.cov(values.T)
        variance = covariance.diagonal().mean().clamp_min(1e-12)
        identity = torch.eye(len(covariance), dtype=torch.float64)
        shrunk = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * variance * identity
        return cls(values.mean(0).float(), torch.linalg.inv(shrunk).float())

    def distances(self, values: Tensor) -> Tensor:
        """Return Mahalanobis distances of descriptors ``(N, D)``, shape ``(N,)``."""
        off = values.double() - self.mean.double()
        return torch.einsum("ni,ij,nj->n", off, self.precision.double(), off).clamp_min(0).sqrt()


@dataclass(frozen=True)
class TrainingReference:
    """What images of a training look like: plain tensors, no id, no picture.

    Attributes:
        features: Pooled features of training images, of length 1, float16, shape ``(K, F)``; ``(0, 0)`` where
            the network does not tell its features.
        layout: Of 8 x 8 means, each image standardised.
        grey_levels: Of the histogram of grey values.
        detail: Of contrasts between neighbours on several scales, and of colour.
        limits: Of the distances in these four, in this order, shape ``(4,)``.

    References:
        Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022. Lee et al., A Simple
        Unified Framework for Detecting Out-of-Distribution Samples, NeurIPS 2018 (Mahalanobis distances).
    """

    features: Tensor
    layout: Spread
    grey_levels: Spread
    detail: Spread
    limits: Tensor

    def distances(self, images: Pixels, features: npt.NDArray[np.float32] | None) -> Tensor:
        """Return how far images lie from the training's, shape ``(N, 4)``; NaN where that is not known.

        Args:
            images: Decoded to the network's size, shape ``(N, C, H, W)``.
            features: Their pooled features, shape ``(N, F)``; None where the network does not tell them.
        """
        near = torch.full((len(images),), torch.nan, dtype=torch.float64)
        if features is not None and len(self.features):
            near = _nearest(_unit(torch.from_numpy(features)), self.features)
        described = _described(images)
        spreads = (self.layout, self.grey_levels, self.detail)
        rest = [spread.distances(values) for spread, values in zip(spreads, described, strict=True)]
        return torch.stack([near, *rest], dim=1)

    def reasons(self, images: Pixels, features: npt.NDArray[np.float32] | None) -> list[str]:
        """Return of each image why it is unlike the training's, a sentence; "" where it is not.

        Arguments are those of :meth:`distances`.
        """
        is_beyond = self.distances(images, features) > self.limits.double()
        return [_sentence(row) for row in is_beyond.tolist()]

    def tensors(self) -> dict[str, Tensor]:
        """Return the same as named tensors, for a file."""
        named = {"features": self.features, "limits": self.limits}
        for name in ("layout", "grey_levels", "detail"):
            spread: Spread = getattr(self, name)
            named |= {f"{name}.mean": spread.mean, f"{name}.precision": spread.precision}
        return named

    def check_fits(self, image_size: int, num_features: int | None, source: str) -> None:
        """Refuse a reference that was made for other images, or another network.

        Args:
            image_size: Height and width in pixels of the network's images.
            num_features: That it tells of an image; None where it tells none.
            source: The file, for messages.

        Raises:
            CheckpointError: If it does not fit.
        """
        black = np.zeros((1, 1, image_size, image_size), np.uint8)
        is_of_size = _described(black)[2].shape[1] == len(self.detail.mean)
        is_of_network = not len(self.features) or self.features.shape[1] == num_features
        if not (is_of_size and is_of_network):
            raise CheckpointError(
                f"{source}: {KEY} holds {self.features.shape[1]} features and {len(self.detail.mean)} "
                f"numbers on detail, and the network gives {num_features} features of images of "
                f"{image_size} pixels: the file was edited."
            )

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any], source: str) -> "TrainingReference":
        """Return it from named tensors.

        Args:
            tensors: As :meth:`tensors` gives them.
            source: The file, for messages.

        Raises:
            CheckpointError: If one is missing, of another shape, or not finite.
        """
        checked = {name: _checked(tensors, name, source) for name in _names()}
        spreads = {
            name: Spread(checked[f"{name}.mean"].float(), checked[f"{name}.precision"].float())
            for name in ("layout", "grey_levels", "detail")
        }
        sizes = (_LAYOUT_SIDE**2, _NUM_GREY_LEVELS, spreads["detail"].mean.numel())
        fits = checked["limits"].shape == (len(_ASPECTS),) and checked["features"].ndim == 2
        fits &= checked["detail.mean"].ndim == 1
        for size, spread in zip(sizes, spreads.values(), strict=True):
            fits &= spread.mean.shape == (size,) and spread.precision.shape == (size, size)
        if not fits:
            raise CheckpointError(
                f"{source}: {KEY}.* have shapes that do not fit: the file was edited, or is damaged."
            )
        return cls(features=checked["features"].half(), limits=checked["limits"].float(), **spreads)


def _names() -> list[str]:
    spreads = [f"{name}.{of}" for name in ("layout", "grey_levels", "detail") for of in ("mean", "precision")]
    return ["features", "limits", *spreads]


def _checked(tensors: Mapping[str, Any], name: str, source: str) -> Tensor:
    tensor = tensors.get(name)
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        raise CheckpointError(f"{source}: {KEY}.{name} is no tensor of numbers: the file was edited.")
    finite = torch.isfinite(tensor) | (torch.isnan(tensor) if name == "limits" else False)
    if not bool(finite.all()):
        raise CheckpointError(f"{source}: {KEY}.{name} is not finite: the file was edited, or is damaged.")
    return tensor


def _sentence(is_beyond: Sequence[bool]) -> str:
    named = [words for words, beyond in zip(_ASPECTS.values(), is_beyond, strict=True) if beyond]
    if not named:
        return ""
    listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    return f"The image is unlike those of the training by {listed}: its probabilities mean little."


def _unit(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features.float(), dim=1)


def _nearest(features: Tensor, reference: Tensor) -> Tensor:
    similarity = (features @ reference.float().T).max(dim=1).values
    return (2 - 2 * similarity.double()).clamp_min(0).sqrt()


def _described(images: Pixels) -> tuple[Tensor, Tensor, Tensor]:
    """Return layout ``(N, 64)``, grey levels ``(N, 16)`` and detail ``(N, 2 S + 1)`` of images."""
    pixels = torch.from_numpy(images)
    grey = pixels[:, pixels.shape[1] // 2].float().unsqueeze(1)
    blocks = adaptive_avg_pool2d(grey, _LAYOUT_SIDE).flatten(1)
    centred = blocks - blocks.mean(1, keepdim=True)
    layout = centred / (centred.std(1, keepdim=True) + 1.0)
    level = (grey.flatten(1) / (256 / _NUM_GREY_LEVELS)).long()
    shares = torch.zeros(len(images), _NUM_GREY_LEVELS).scatter_add_(
        1, level, torch.full(level.shape, 1 / level.shape[1])
    )
    colour = (pixels[:, 0].float() - pixels[:, -1].float()).abs().mean((1, 2))
    detail = torch.stack([*_contrasts(grey), colour], dim=1).log1p()
    return layout, shares.sqrt(), detail


def _contrasts(grey: Tensor) -> Iterator[Tensor]:
    """Yield the mean difference of neighbours, across and down, on each scale."""
    for _ in range(_MOST_SCALES):
        yield grey.diff(dim=3).abs().mean((1, 2, 3))
        yield grey.diff(dim=2).abs().mean((1, 2, 3))
        if min(grey.shape[-2:]) < 2 * _LAYOUT_SIDE:
            return
        grey = avg_pool2d(grey, 2)


def fit_reference(
    classifier: Classifier, data: DataModule, *, num_images: int, batch_size: int, device: str, seed: int = 0
) -> TrainingReference | None:
    """Return what the training images of a classifier look like.

    Args:
        classifier: Whose features are compared; left in evaluation mode, on the device.
        data: Its data, prepared.
        num_images: Training images at most, of as many patients; of validation half as many.
        batch_size: Images at a time.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: By which images are drawn.

    Returns:
        None where either part has fewer than 20 patients: too few to tell what is usual.
    """
    generator = np.random.default_rng(seed)
    train = _drawn(data, "train", num_images, generator)
    validation = _drawn(data, "val", max(num_images // 2, _LEAST_IMAGES), generator)
    if min(len(train), len(validation)) < _LEAST_IMAGES:
        return None
    place = str(named_device(device))
    features = _features(classifier, data, train, batch_size, place)
    described = _all_described(data, train)
    layout, grey_levels, detail = (Spread.of(values) for values in described)
    reference = TrainingReference(
        features=_unit(features).half(),
        layout=layout,
        grey_levels=grey_levels,
        detail=detail,
        limits=torch.full((len(_ASPECTS),), torch.inf),
    )
    own = _features(classifier, data, validation, batch_size, place)
    distances = [
        reference.distances(data.images[rows], own[start : start + _CHUNK].numpy() if len(own) else None)
        for start, rows in _chunks(validation)
    ]
    return replace(reference, limits=_limits(torch.cat(distances)))


def _drawn(data: DataModule, part: str, number: int, generator: np.random.Generator) -> list[int]:
    """Return rows of a part, one image of each patient, at most so many, drawn at random."""
    rows = generator.permutation(np.asarray(data.rows(part)))
    patients = data.manifest.table["patient"].to_numpy()[rows]
    _, first = np.unique(patients, return_index=True)
    chosen = rows[np.sort(first)][:number]
    return [int(row) for row in np.sort(chosen)]


def _features(
    classifier: Classifier, data: DataModule, rows: Sequence[int], batch_size: int, device: str
) -> Tensor:
    if not tells_features(classifier):
        return torch.zeros(0, 0)
    computed = outputs(
        classifier, classifier.embed, data.images, rows, batch_size=batch_size, device=device, shown=None
    )
    return torch.cat([values for _, values in computed])


def _chunks(rows: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    for start in range(0, len(rows), _CHUNK):
        yield start, list(rows[start : start + _CHUNK])


def _all_described(data: DataModule, rows: Sequence[int]) -> list[Tensor]:
    parts = [_described(data.images[chunk]) for _, chunk in _chunks(rows)]
    return [torch.cat(values) for values in zip(*parts, strict=True)]


def _limits(distances: Tensor) -> Tensor:
    """Return the distances that validation images exceed in one of 50 cases at most, shape ``(4,)``."""
    number = len(distances)
    rank = min(int(np.ceil((number + 1) * _LEVEL)), number)
    return distances.sort(dim=0).values[rank - 1].float()


def keep_reference(path: Path, reference: TrainingReference) -> None:
    """Write a reference into a checkpoint; weights and description stay as they are.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        OutputError: If it cannot be written; the file that was there is kept.
    """
    content = read_checkpoint(path) | {KEY: reference.tensors()}
    AtomicCheckpointIO().save_checkpoint(content, path)


def read_reference(path: Path) -> TrainingReference | None:
    """Return the reference that a checkpoint holds; None where it has none.

    Raises:
        CheckpointError: If the checkpoint cannot be read, or the reference cannot be meant.
    """
    kept = read_checkpoint(path).get(KEY)
    if kept is None:
        return None
    if not isinstance(kept, Mapping):
        raise CheckpointError(f"{path}: {KEY} is a {type(kept).__name__}, no tensors: the file was edited.")
    return TrainingReference.from_tensors(kept, str(path))


def reference_for_others(
    classifier: Classifier, path: Path, is_wanted: bool | None
) -> TrainingReference | None:
    """Return the reference that goes along where a model is passed on: it holds features of single images.

    Args:
        classifier: Of the checkpoint.
        path: The checkpoint.
        is_wanted: Whether a person wants it to; None for yes, unless the training data are under an
            agreement.

    Raises:
        CheckpointError: As :func:`read_reference`.
    """
    data = "" if classifier.trained_on is None else canonical(classifier.trained_on.data)
    if is_wanted is None and data in UNDER_AGREEMENT:
        log.warning(
            "What images of the training look like does not go along, for features of single images are "
            "among it and %s is under an agreement: images that are unlike them will not be told. "
            "reference=true has it go along.",
            data,
        )
        return None
    return read_reference(path) if is_wanted is not False else None
