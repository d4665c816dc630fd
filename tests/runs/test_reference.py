"""Images that are unlike those of the training are told; those like them are not."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from cxrlab.errors import CheckpointError
from cxrlab.models import TimmNetwork
from cxrlab.runs.reference import (
    KEY,
    Spread,
    TrainingReference,
    fit_reference,
    keep_reference,
    read_reference,
)
from cxrlab.training.checkpoint import checkpoint_hash
from cxrlab.training.module import Classifier

SIDE = 32


def radiographs(number: int, seed: int) -> np.ndarray:
    """Bright middle, dark sides, noise: as alike and as different as radiographs of one device."""
    generator = np.random.default_rng(seed)
    across = np.abs(np.linspace(-1, 1, SIDE))
    base = 200 - 150 * np.sin(np.pi * across)[None, :] * np.linspace(1, 0.5, SIDE)[:, None]
    brightness = generator.normal(0, 8, (number, 1, 1, 1))
    noise = generator.normal(0, 6, (number, 1, SIDE, SIDE))
    return np.clip(base + brightness + noise, 0, 255).astype(np.uint8)


class Data:
    """As much of a data module as a reference is fitted on: 300 patients to train, 200 to validate."""

    def __init__(self, num_train: int = 300, num_val: int = 200) -> None:
        self.images = radiographs(num_train + num_val, 0)
        self.manifest = SimpleNamespace(
            table=pd.DataFrame({"patient": np.arange(len(self.images)).astype(str)})
        )
        self._rows = {"train": list(range(num_train)), "val": list(range(num_train, num_train + num_val))}

    def rows(self, part: str) -> list[int]:
        return self._rows[part]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    network = TimmNetwork("resnet10t", num_labels=2, image_size=SIDE, channels=1)
    return Classifier(labels=["A", "B"], network=network).eval()


@pytest.fixture(scope="module")
def reference(classifier: Classifier) -> TrainingReference:
    fitted = fit_reference(classifier, Data(), num_images=300, batch_size=64, device="cpu")
    assert fitted is not None
    return fitted


def reasons(reference: TrainingReference, classifier: Classifier, images: np.ndarray) -> list[str]:
    with torch.inference_mode():
        features = classifier.embed(torch.from_numpy(images)).numpy()
    return reference.reasons(images, features)


def test_images_like_those_of_the_training_are_rarely_called_unlike(reference, classifier):
    told = reasons(reference, classifier, radiographs(400, 7))
    assert np.mean([bool(reason) for reason in told]) < 0.1


CHANGES = {
    "inverted": lambda images: 255 - images,
    "turned": lambda images: np.rot90(images, axes=(2, 3)).copy(),
    "noise": lambda images: np.random.default_rng(1).integers(0, 256, images.shape).astype(np.uint8),
    "black": np.zeros_like,
    "half as bright": lambda images: images // 2,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_images_that_are_changed_are_told_with_what_is_unlike(reference, classifier, change):
    told = reasons(reference, classifier, change(radiographs(20, 8)))
    assert all(told)
    assert told[0].startswith("The image is unlike those of the training by ")


def test_without_features_pixels_alone_decide(reference):
    assert all(reference.reasons(255 - radiographs(5, 9), None))
    distances = reference.distances(radiographs(5, 9), None)
    assert torch.isnan(distances[:, 0]).all()
    assert torch.isfinite(distances[:, 1:]).all()


def test_distances_are_those_of_an_independent_computation():
    values = torch.from_numpy(np.random.default_rng(3).normal(size=(50, 4))).float()
    spread = Spread.of(values)
    from scipy.spatial.distance import mahalanobis

    expected = [mahalanobis(row, spread.mean.numpy(), spread.precision.numpy()) for row in values.numpy()]
    np.testing.assert_allclose(spread.distances(values).numpy(), expected, rtol=1e-5)


def test_the_nearest_training_image_counts(classifier):
    data = Data(30, 30)
    reference = fit_reference(classifier, data, num_images=30, batch_size=8, device="cpu")
    images = radiographs(6, 11)
    with torch.inference_mode():
        features = classifier.embed(torch.from_numpy(images)).numpy()
        training = classifier.embed(torch.from_numpy(data.images[:30])).numpy()
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (features, training)]
    expected = np.linalg.norm(unit[0][:, None] - unit[1][None], axis=2).min(axis=1)
    np.testing.assert_allclose(reference.distances(images, features)[:, 0].numpy(), expected, atol=2e-3)


def test_limits_are_of_validation_images(reference, classifier):
    data = Data()
    images = data.images[300:]
    with torch.inference_mode():
        features = classifier.embed(torch.from_numpy(images)).numpy()
    beyond = reference.distances(images, features) > reference.limits
    assert beyond.sum(dim=0).max() <= 4  # one in fifty of 200


def test_too_few_patients_give_no_reference(classifier):
    data = Data(19, 200)
    assert fit_reference(classifier, data, num_images=300, batch_size=64, device="cpu") is None


def test_a_patient_counts_once(classifier):
    data = Data()
    data.manifest.table["patient"] = ["same"] * 300 + [str(n) for n in range(200)]
    assert fit_reference(classifier, data, num_images=300, batch_size=64, device="cpu") is None


def test_it_comes_back_from_a_checkpoint_whose_hash_stays(reference, finished_run, tmp_path):
    path = tmp_path / "best.ckpt"
    path.write_bytes((finished_run / "checkpoints" / "best.ckpt").read_bytes())
    assert read_reference(path) is None  # the tiny set has too few patients
    before = checkpoint_hash(path)
    keep_reference(path, reference)
    assert checkpoint_hash(path) == before
    kept = read_reference(path)
    assert kept is not None
    images = radiographs(4, 5)
    torch.testing.assert_close(
        kept.distances(images, None), reference.distances(images, None), equal_nan=True
    )


def test_it_holds_no_picture_and_no_name(reference):
    """A training image's layout, grey levels and detail are only there as means and covariances."""
    tensors = reference.tensors()
    assert set(tensors) == {
        "features", "limits", "layout.mean", "layout.precision", "grey_levels.mean", "grey_levels.precision",
        "detail.mean", "detail.precision",
    }  # fmt: skip
    assert tensors["features"].dtype == torch.float16


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("limits", torch.zeros(3), r"shapes that do not fit"),
        ("layout.mean", torch.zeros(5), r"shapes that do not fit"),
        ("features", torch.full((2, 3), torch.nan), r"reference.features is not finite"),
        ("detail.mean", "text", r"reference.detail.mean is no tensor of numbers"),
    ],
)
def test_an_edited_reference_is_named(reference, name, value, message):
    with pytest.raises(CheckpointError, match=message):
        TrainingReference.from_tensors(reference.tensors() | {name: value}, "best.ckpt")


def test_something_else_in_its_place_is_named(finished_run, tmp_path):
    path = tmp_path / "best.ckpt"
    content = torch.load(finished_run / "checkpoints" / "best.ckpt", weights_only=True) | {KEY: [1]}
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"reference is a list, no tensors"):
        read_reference(path)
