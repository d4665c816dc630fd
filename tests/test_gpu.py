"""What only a GPU can show. All but the first test need neither Hydra nor grad-cam."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import cxrlab
from cxrlab.augment import RandomAugment
from cxrlab.data.loader import Batches, ImageStore, Loader
from cxrlab.heatmaps.methods.cam import activation_maps
from cxrlab.heatmaps.settings import CAM_METHODS
from cxrlab.losses import BCE
from cxrlab.models.timm_network import TimmNetwork
from cxrlab.runs.predict import predict_images
from cxrlab.training.callbacks.ema import WeightAveraging
from cxrlab.training.compilation import compiled
from cxrlab.training.module import Classifier

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature"),
]


def test_a_run_on_the_gpu_trains_resumes_and_is_read_back_on_the_cpu(
    composed: Callable[..., Any], synthetic_root: Path, tmp_path: Path
):
    from cxrlab.train import train

    options = [
        "data.reader.num_patients=40",
        "data.reader.size=64",
        "data.image_size=64",
        "data.num_workers=2",
    ]
    options += [
        f"data.root={synthetic_root}",
        f"run_dir={tmp_path}",
        "trainer=gpu",
        "callbacks.progress=null",
    ]
    train(composed(*options, "trainer.max_epochs=1"))
    resumed = composed(*options, f"resume={tmp_path}")
    config = tmp_path / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("max_epochs: 1", "max_epochs: 2"))
    train(resumed)
    assert pd.read_csv(tmp_path / "metrics.csv")["epoch"].tolist() == [0, 1]
    assert list((tmp_path / "heatmaps" / "test").glob("*.png"))
    checked = json.loads((tmp_path / "explanation.json").read_text())
    assert checked["pointing"]["cases"]
    assert checked["randomization"]["methods"]["gradcam"]
    run = cxrlab.load_run(tmp_path, device="cpu")
    table = run.predictions("test")
    root = next(synthetic_root.glob("40-patients-64px*"))
    again = run.predict([root / image for image in table["image"]])
    columns = [f"probability/{label}" for label in run.labels]
    pd.testing.assert_frame_equal(again[columns], table[columns], atol=0.05, rtol=0, check_exact=False)


SIZE, COUNT = 64, 40


@contextmanager
def no_waiting() -> Iterator[None]:
    """Let whatever waits for the GPU be an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def network(backbone: str = "resnet10t") -> TimmNetwork:
    torch.manual_seed(0)
    return TimmNetwork(backbone, num_labels=2, image_size=SIZE)


def classifier(module: nn.Module | None = None) -> Classifier:
    made = Classifier(labels=["Edema", "Mass"], network=module or network(), loss=BCE(), channels_last=True)
    made.trainer = SimpleNamespace(loggers=[], current_epoch=0, world_size=1)  # type: ignore[assignment]
    return made.to("cuda")


def loader(image_device: str) -> Loader:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (COUNT, 1, SIZE, SIZE), dtype=np.uint8)
    store = ImageStore(
        pixels,
        np.arange(COUNT),
        image_device=image_device,
        device=torch.device("cuda"),  # type: ignore[arg-type]
    )
    targets = torch.from_numpy(rng.integers(0, 2, (COUNT, 2)).astype(np.float32))
    return Loader(store, targets, Batches(list(range(COUNT)), batch_size=8, shuffle=True, seed=0))


@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize("image_device", ["gpu", "host", "disk"])
def test_a_training_step_does_not_wait_for_the_gpu(image_device: str, fused: bool | None):
    made, augment = classifier().train(), RandomAugment(brightness=0.1, noise=0.1, blur=1.0, erasing=0.5)
    optimizer = torch.optim.AdamW(made.parameters(), fused=fused)

    def step(batch: Any) -> None:
        moved = {
            name: value.to("cuda", non_blocking=True) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }
        generator = torch.Generator("cuda").manual_seed(moved["seed"])
        moved["images"] = augment(moved["images"], generator)
        with torch.autocast("cuda", torch.bfloat16):
            loss = made.training_step(moved, 0)  # type: ignore[arg-type]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    for number, batch in enumerate(loader(image_device)):
        if number < 2:  # what is set up once may wait
            step(batch)
        else:
            with no_waiting():
                step(batch)


def test_what_waits_is_found():
    with pytest.raises(RuntimeError, match="synchroniz"), no_waiting():
        bool(torch.ones((), device="cuda") > 0)


def test_the_average_of_the_weights_does_not_wait_for_the_gpu():
    average, current = torch.zeros(3, device="cuda"), torch.ones(3, device="cuda")
    count = torch.tensor(4, device="cuda")
    callback = WeightAveraging(decay=0.9)
    with no_waiting():
        callback._averaged(average, current, count)


def test_evaluation_does_not_wait_for_the_gpu():
    made, batches = classifier().eval(), list(loader("gpu"))
    made.log = lambda *_, **__: None  # type: ignore[method-assign]
    made.trainer.state = SimpleNamespace(fn="fit")  # type: ignore[assignment]
    with torch.inference_mode():
        for number, batch in enumerate(batches):
            moved = {
                name: value.to("cuda") if isinstance(value, torch.Tensor) else value
                for name, value in batch.items()
            }
            if number < 2:
                made.validation_step(moved, 0)  # type: ignore[arg-type]
                continue
            with no_waiting():
                made.validation_step(moved, 0)  # type: ignore[arg-type]


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolve in 32 bits, whatever the card offers."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


# torch's compiler warns of its own innards, and of TF32.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("choice", [True, "reduce-overhead"])
def test_a_compiled_network_gives_the_same_on_the_gpu(choice: bool | str):
    module, plain = network().cuda(), network().cuda()
    images = torch.randn(8, 1, SIZE, SIZE, device="cuda")
    with full_precision(), compiled(module, choice):
        for size in (8, 7, 8):
            for one in (module, plain):
                one.train()(images[:size]).square().mean().backward()
        with torch.inference_mode():
            first, second = module.eval()(images), module(images * 2)
            expected = plain.eval()(images)
    torch.testing.assert_close(first, expected, atol=1e-3, rtol=1e-2)
    assert not torch.equal(first, second)
    for one, other in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("method", CAM_METHODS)
def test_heatmaps_on_the_gpu_are_those_of_the_cpu(method: str):
    images, pairs = torch.randn(5, 1, SIZE, SIZE), [(4, 1), (0, 0), (4, 0), (2, 1)]
    with full_precision():
        maps = [
            activation_maps(
                network().to(device), images.to(device), pairs, method=method, layers="auto", batch_size=2
            )
            for device in ("cpu", "cuda")
        ]
    assert maps[1].device.type == "cpu"
    torch.testing.assert_close(maps[1], maps[0], atol=1e-3, rtol=0)


def test_predictions_on_the_gpu_are_those_of_the_cpu():
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 1, SIZE, SIZE), dtype=np.uint8)
    rows = list(range(COUNT))[::-1]
    found = [
        predict_images(classifier().cpu(), pixels, rows, batch_size=16, device=device, show_progress=False)
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(found[1], found[0], atol=5e-3)
