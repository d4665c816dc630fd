"""Features are what the network gives now, whatever a file says."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrlab.data.cache import CacheSettings, ImageCache
from cxrlab.data.cache_worker import FACTS
from cxrlab.data.dataset import Images
from cxrlab.data.feature_file import FeatureFile
from cxrlab.errors import ConfigError
from cxrlab.models import TimmNetwork
from cxrlab.runs.features import embed_images, feature_key, image_features
from cxrlab.training.module import Classifier

NUM_IMAGES = 11
PIXELS = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, 1, 32, 32), dtype=np.uint8)
SETTINGS = {"batch_size": 4, "device": "cpu"}


def classifier(seed: int = 0, **preprocess: object) -> Classifier:
    torch.manual_seed(seed)
    network = TimmNetwork("resnet10t", num_labels=2, image_size=32, freeze="backbone")
    shape = {"normalize": "given", "mean": [0.5], "std": [0.2], "image_size": 32, "channels": 1}
    return Classifier(labels=["A", "B"], network=network, preprocess={**shape, **preprocess})


@pytest.fixture
def images(tmp_path: Path) -> Images:
    facts = np.zeros(NUM_IMAGES, FACTS)
    facts["seal"] = np.arange(1, 1 + NUM_IMAGES)
    np.save(tmp_path / "facts.npy", facts)
    np.save(tmp_path / "pixels.npy", PIXELS)
    files = tuple(f"{row}.png" for row in range(NUM_IMAGES))
    cache = ImageCache(tmp_path, Path("/data"), files, CacheSettings(32, 1, "stretch"))
    return Images(cache, np.array([9, 8, 1, 0, 4, 5]))


def test_only_what_is_not_kept_is_computed(images: Images):
    first = image_features(classifier(), images, [0, 1, 2], **SETTINGS)
    assert (first.num_computed, first.values.shape) == (3, (3, 512))
    second = image_features(classifier(), images, [4, 1, 0], **SETTINGS)
    assert second.num_computed == 1
    expected = embed_images(classifier(), PIXELS, [4, 8, 9], show_progress=False, **SETTINGS)
    np.testing.assert_allclose(second.values, expected, atol=1e-5)
    assert len([*images.cache.folder.glob("features-*.npy")]) == 1


def test_a_head_is_no_part_of_the_features_and_all_else_is():
    cpu, plain = torch.device("cpu"), classifier()
    key = feature_key(plain, "32-true", cpu)
    with torch.no_grad():
        plain.network.linear_head.weight.add_(1)
    assert feature_key(plain, "32-true", cpu) == key
    others = [
        feature_key(classifier(seed=1), "32-true", cpu),
        feature_key(classifier(mean=[0.4]), "32-true", cpu),
        feature_key(classifier(resize="crop"), "32-true", cpu),
        feature_key(classifier(normalize="image", mean=None, std=None), "32-true", cpu),
        feature_key(plain, "bf16-mixed", cpu),
        feature_key(plain, "32-true", torch.device("meta")),
    ]
    with torch.no_grad():
        plain.network.backbone.bn1.running_mean.add_(1e-3)
    assert len({key, *others, feature_key(plain, "32-true", cpu)}) == len(others) + 2


def test_features_of_another_computation_are_not_believed(images: Images, caplog: pytest.LogCaptureFixture):
    """As those of another version of timm would be: the same weights under the same key, other numbers."""
    model = classifier()
    right = image_features(model, images, range(6), **SETTINGS).values
    file = FeatureFile(images.cache, feature_key(model, "32-true", torch.device("cpu")), 512)
    file.write(images.positions, right * 1.1)
    with caplog.at_level(logging.WARNING):
        again = image_features(model, images, range(6), **SETTINGS)
    assert "are not what the network gives now" in caplog.text
    assert again.num_computed == 6
    np.testing.assert_allclose(again.values, right, atol=1e-6)
    assert image_features(model, images, range(6), **SETTINGS).num_computed == 0


def test_an_image_that_was_exchanged_is_computed_again(images: Images):
    image_features(classifier(), images, range(6), **SETTINGS)
    images.cache.facts("r+")["seal"][8] = 77
    images.cache.unmap()
    assert image_features(classifier(), images, range(6), **SETTINGS).num_computed == 1


def test_the_modes_of_the_layers_are_left_as_they_were(images: Images):
    model = classifier().train()
    modes = {name: layer.training for name, layer in model.named_modules()}
    image_features(model, images, range(6), **SETTINGS)
    assert {name: layer.training for name, layer in model.named_modules()} == modes
    assert modes["network.head.0"]
    assert not modes["network.backbone.bn1"]


def test_half_precision_is_its_own_and_near(images: Images):
    full = image_features(classifier(), images, range(6), **SETTINGS)
    half = image_features(classifier(), images, range(6), precision="bf16-mixed", **SETTINGS)
    assert half.num_computed == 6
    assert half.values.dtype == np.float32
    assert 0 < np.abs(half.values - full.values).max() < 0.1 * np.abs(full.values).max()
    with pytest.raises(ConfigError, match=r"^trainer.precision=64-true: features are computed in 32-true"):
        image_features(classifier(), images, range(6), precision="64-true", **SETTINGS)


def test_a_full_disk_only_makes_the_next_run_slower(
    images: Images, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FeatureFile, "write", full)
    with caplog.at_level(logging.WARNING):
        features = image_features(classifier(), images, range(6), **SETTINGS)
    assert features.num_computed == 6
    assert caplog.text.count("Features are not kept in") == 1
