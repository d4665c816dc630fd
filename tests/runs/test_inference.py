from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from cxrlab.data.cache import CacheSettings, ImageCache
from cxrlab.data.dataset import Images
from cxrlab.data.loader import Batches, ImageStore, Loader
from cxrlab.data.manifest import Manifest
from cxrlab.errors import ConfigError, DataError, TrainingError
from cxrlab.metrics.predictions import read_predictions
from cxrlab.runs.predict import predict_images
from cxrlab.training.callbacks.predictions import Predictions
from cxrlab.training.module import Classifier

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*GPU available but not used:UserWarning"),
]

SHAPE = {"image_size": 32, "channels": 1}
PREPROCESS = {"normalize": "training", "mean": [0.5], "std": [0.25], **SHAPE}
LABELS = ["Edema", "Mass"]
NUM_IMAGES = 23
PIXELS = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES + 4, 1, 32, 32), dtype=np.uint8)
POSITIONS = np.random.default_rng(1).permutation(NUM_IMAGES + 4)[:NUM_IMAGES]


def trained(*, channels_last: bool = False, views: tuple[str, ...] = ("identity",)) -> Classifier:
    """A classifier whose batch normalisation has seen images, so that training mode would give other numbers."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(8, 2),
    )  # fmt: skip
    classifier = Classifier(
        labels=LABELS,
        preprocess=PREPROCESS,
        network={"_target_": "elsewhere.Small"},
        module=network,
        channels_last=channels_last,
        views=views,
    ).train()
    with torch.no_grad():
        for _ in range(20):
            classifier(torch.from_numpy(PIXELS[:16]))
    return classifier


@pytest.fixture
def cached_images(tmp_path: Path) -> Images:
    np.save(tmp_path / "pixels.npy", PIXELS)
    files = tuple(f"{row}.png" for row in range(len(PIXELS)))
    cache = ImageCache(tmp_path, Path("/data"), files, CacheSettings(32, 1, "stretch"))
    return Images(cache, POSITIONS)


class Data(pl.LightningDataModule):
    """The test part as a training loads it."""

    def __init__(self, images: Images, rows: list[int]) -> None:
        super().__init__()
        table = pd.DataFrame({"image": [f"{row:02d}.png" for row in range(NUM_IMAGES)], "split": ""})
        table["patient"] = table["image"]
        table["part"] = np.where(table.index.isin(rows), "test", "train")
        targets = {
            f"label/{name}": np.arange(NUM_IMAGES) // step % 2.0 for step, name in enumerate(LABELS, 1)
        }
        self.manifest = Manifest(Path("/data"), table.assign(**targets))
        self.images, self.rows = images, rows

    def test_dataloader(self) -> Loader:
        store = ImageStore(
            self.images.cache.pixels(), self.images.positions, image_device="disk", device=torch.device("cpu")
        )
        batches = Batches(self.rows, batch_size=4, shuffle=False, seed=0)
        return Loader(store, torch.tensor(self.manifest.targets), batches)


@pytest.mark.parametrize(
    ("channels_last", "views"), [(False, ("identity",)), (True, ("identity", "flip", "zoom_in"))]
)
def test_predictions_are_those_of_the_training_s_own_test_loop(
    tmp_path: Path, cached_images: Images, channels_last: bool, views: tuple[str, ...]
) -> None:
    classifier = trained(channels_last=channels_last, views=views)
    rows = [0, 3, 4, 5, 8, 11, 12, 13, 17, 22]
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Predictions(dirpath=str(tmp_path / "predictions"))],
    )  # fmt: skip
    trainer.test(classifier, datamodule=Data(cached_images, rows), verbose=False)
    written = read_predictions(tmp_path / "predictions" / "test.csv")
    found = predict_images(classifier, cached_images, rows, batch_size=3, device="cpu")
    assert written.images.tolist() == [f"{row:02d}.png" for row in rows]
    assert np.ptp(found, axis=0).min() > 0.02
    np.testing.assert_allclose(found, written.probabilities, rtol=0, atol=2e-6)


def test_rows_come_in_the_order_asked_for_whatever_the_batches(cached_images: Images) -> None:
    classifier = trained()
    rows = [7, 2, 2, 19, 0]
    whole = predict_images(classifier, cached_images, range(NUM_IMAGES), batch_size=NUM_IMAGES, device="cpu")
    assert (whole.shape, whole.dtype) == ((NUM_IMAGES, 2), np.float64)
    for batch_size in (1, 2, 5, 64):
        some = predict_images(classifier, cached_images, rows, batch_size=batch_size, device="cpu")
        np.testing.assert_allclose(some, whole[rows], rtol=0, atol=2e-6)
    by_array: Any = np.array(rows)
    some = predict_images(classifier, PIXELS[POSITIONS], by_array, batch_size=2, device="cpu")
    np.testing.assert_allclose(some, whole[rows], rtol=0, atol=2e-6)


def test_nothing_asked_for_gives_nothing(cached_images: Images) -> None:
    assert predict_images(trained(), cached_images, [], batch_size=2, device="auto").shape == (0, 2)


def test_the_classifier_is_left_ready_for_use_without_gradients_or_statistics(cached_images: Images) -> None:
    classifier = trained()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    probabilities = predict_images(classifier, cached_images, [0, 1], batch_size=2, device="cpu")
    assert not any(module.training for module in classifier.network.modules())
    assert all(
        torch.equal(value, before[name])
        for name, value in classifier.state_dict().items()
        if "operating_point" not in name
    )
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert type(probabilities) is np.ndarray


def test_the_mean_over_the_views_is_taken_of_probabilities(cached_images: Images) -> None:
    rows = list(range(9))
    found = predict_images(
        trained(views=("identity", "flip")), cached_images, rows, batch_size=4, device="cpu"
    )
    plain = trained()
    mirrored = cached_images[rows][..., ::-1].copy()
    both = [
        predict_images(plain, images, range(9), batch_size=9, device="cpu")
        for images in (cached_images[rows], mirrored)
    ]
    assert np.abs(both[0] - both[1]).max() > 1e-3
    np.testing.assert_allclose(found, np.mean(both, axis=0), rtol=0, atol=1e-6)


class Broken(nn.Module):
    """Whose output is infinite where the first pixel is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first = images[:, :1, 0, 0] * 0.25 + 0.5
        return torch.cat([1 / first, first], dim=1) * self.scale


def test_outputs_that_are_not_finite_are_rejected_by_row() -> None:
    classifier = Classifier(
        labels=LABELS, preprocess=PREPROCESS, network={"_target_": "elsewhere.Broken"}, module=Broken()
    )
    pixels = PIXELS[:8].copy()
    pixels[:, 0, 0, 0] = 9
    assert np.isfinite(predict_images(classifier, pixels, range(8), batch_size=3, device="cpu")).all()
    pixels[[4, 6], 0, 0, 0] = 0
    # A sigmoid would turn infinity into a certain finding.
    with pytest.raises(TrainingError, match=r"not finite on 2 of the 4 images at hand \(rows \[4, 6\]"):
        predict_images(classifier, pixels, [0, 4, 5, 6], batch_size=4, device="cpu")


def test_images_of_another_size_are_rejected() -> None:
    pixels = np.zeros((2, 1, 16, 16), dtype=np.uint8)
    with pytest.raises(DataError, match=r"\(1, 16, 16\) were given to a network made for \(1, 32, 32\)"):
        predict_images(trained(), pixels, [0, 1], batch_size=2, device="cpu")


def test_arguments_out_of_range_are_rejected(cached_images: Images) -> None:
    classifier = trained()
    with pytest.raises(ConfigError, match=r"batch_size=0 must be at least 1"):
        predict_images(classifier, cached_images, [0], batch_size=0, device="cpu")
    for device in ("hpc", "cuda:77"):
        with pytest.raises(ConfigError, match=rf"device={device} cannot be used: .+ Set device=auto"):
            predict_images(classifier, cached_images, [0], batch_size=1, device=device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_gpu_agrees_with_the_cpu(cached_images: Images) -> None:
    classifier = trained()
    rows = list(range(NUM_IMAGES))
    expected = predict_images(classifier, cached_images, rows, batch_size=8, device="cpu")
    found = predict_images(classifier, cached_images, rows, batch_size=8, device="auto")
    assert classifier.device.type == "cuda"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)  # convolutions in TF32


def test_outputs_of_a_view_that_are_not_finite_are_rejected_too() -> None:
    classifier = Classifier(
        labels=LABELS,
        preprocess=PREPROCESS,
        network={"_target_": "elsewhere.Broken"},
        module=Broken(),
        views=["identity", "flip"],
    )
    pixels = PIXELS[:4].copy()
    pixels[:, 0, 0, [0, -1]] = 9
    pixels[2, 0, 0, -1] = 0
    with pytest.raises(TrainingError, match=r"not finite on 1 of the 4 images at hand \(rows \[2\]"):
        predict_images(classifier, pixels, range(4), batch_size=4, device="cpu")
