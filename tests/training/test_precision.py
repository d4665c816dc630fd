import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from cxrlab.cli import config
from cxrlab.train import train
from cxrlab.training import precision
from cxrlab.training.module import Classifier
from cxrlab.training.precision import FULL, HALF, choose_precision, saved_precision

CPU = torch.device("cpu")


class Net(nn.Module):
    """A network with statistics of its own and a random step; it says in which precision it ran."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(2)
        )
        self.ran: list[tuple[int, str]] = []

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        self.ran.append((len(images), str(logits.dtype)))
        return logits


def classifier(width: int = 4, *, size: int = 16, channels_last: bool = False) -> Classifier:
    torch.manual_seed(0)
    module = Net(width).eval()
    module(torch.zeros(1, 1, size, size))
    shape = {"image_size": size, "channels": 1}
    return Classifier(
        labels=["Edema", "Mass"],
        preprocess={"normalize": "image", **shape},
        network={"_target_": "elsewhere.Net", "width": width},
        module=module,
        loss=nn.BCEWithLogitsLoss(),
        channels_last=channels_last,
    ).eval()


def images(count: int = 8, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, generator=generator)


def choose(model: Classifier, size: int = 16, count: int = 8, **options: object) -> str:
    options = {"device": CPU, "record": None, **options}
    return choose_precision(model, images(count, size), torch.zeros(count, 2), **options)  # type: ignore[arg-type]


Seconds = Callable[[float, float], list[int]]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    """Let the probe find so many seconds without and with bf16; the list is of the images it was given."""
    calls: list[int] = []

    def function(full: float, half: float) -> list[int]:
        def measure(_: Classifier, images: Tensor, targets: Tensor) -> dict[str, float]:
            assert len(images) == len(targets)
            calls.append(len(images))
            return {FULL: full, HALF: half}

        monkeypatch.setattr(precision, "_measure", measure)
        return calls

    return function


def test_the_probe_leaves_no_trace():
    model = classifier()
    model.network.layers[0].train()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ran = len(model.network.ran)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002 - what others may draw from
    assert choose(model) in (FULL, HALF)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert len(model.network.ran) == ran


class Clock:
    """A clock that only the network moves, by so many seconds a pass."""

    def __init__(self, *seconds: float) -> None:
        self.now, self.seconds = 0.0, iter(seconds)

    def perf_counter(self) -> float:
        return self.now

    def tick(self, *_: object) -> None:
        self.now += next(self.seconds)


def test_the_fastest_pass_after_the_first_counts_in_either_precision(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(0.5, 90, 7, 4, 8, 3)  # without and with bf16 by turns
    model = classifier()
    ran: list[tuple[str, bool]] = []

    def forward(_: Net, images: Tensor) -> Tensor:
        clock.tick()
        ran.append((str((images[:, 0] @ images[:, 0]).dtype), torch.is_grad_enabled()))
        return images.flatten(1)[:, :2] + next(model.network.parameters()).sum()

    monkeypatch.setattr(Net, "forward", forward)
    monkeypatch.setattr(precision, "time", clock)
    measured = precision._measure(model, images(), torch.zeros(8, 2))
    assert measured == pytest.approx({FULL: 7, HALF: 3})
    assert ran == [("torch.float32", True), ("torch.bfloat16", True)] * 3


@pytest.mark.parametrize(
    ("full", "half", "expected"),
    [(1.0, 1.0, FULL), (1.09, 1.0, FULL), (1.11, 1.0, HALF), (3.0, 1.0, HALF), (1.0, 3.0, FULL)],
)
def test_bf16_has_to_be_a_tenth_faster(full: float, half: float, expected: str, measured: Seconds, caplog):
    measured(full, half)
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        assert choose(classifier()) == expected
    assert (
        f"Precision: {expected}; with bf16 autocast a step of 8 images takes {1000 * half:.0f} ms"
        in caplog.text
    )


@pytest.mark.parametrize(("count", "used"), [(20, 8), (3, 3)])
def test_a_few_images_are_enough(count: int, used: int, measured: Seconds):
    calls = measured(1, 1)
    choose(classifier(), count=count)
    assert calls == [used]


@pytest.mark.parametrize(
    ("kind", "capability", "expected"),
    [("cuda", (7, 5), FULL), ("cuda", (8, 0), HALF), ("cuda", (12, 0), HALF), ("mps", (9, 0), FULL)],
)
def test_a_gpu_is_not_measured(
    kind: str, capability: tuple[int, int], expected: str, measured: Seconds, monkeypatch, tmp_path: Path
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    calls = measured(1, 1)
    record = tmp_path / "precision.json"
    assert choose(classifier(), device=torch.device(kind), record=record) == expected
    assert (calls, record.exists()) == ([], False)


def test_jobs_of_a_sweep_share_what_the_first_found(measured: Seconds, tmp_path: Path, caplog):
    record = tmp_path / "precision.json"
    calls = measured(2, 1)
    assert choose(classifier(), record=record) == HALF
    measured(1, 2)  # a busy moment
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        assert choose(classifier(), record=record) == HALF
    assert "Precision: bf16-mixed, as measured by an earlier job of this sweep" in caplog.text
    assert len(calls) == 1
    assert choose(classifier(), record=None) == FULL


def test_each_network_size_and_memory_format_is_measured_for_itself(measured: Seconds, tmp_path: Path):
    record = tmp_path / "precision.json"
    calls = measured(2, 1)
    assert choose(classifier(), record=record) == HALF
    measured(1, 2)
    assert choose(classifier(8), record=record) == FULL
    assert choose(classifier(size=24), size=24, record=record) == FULL
    assert choose(classifier(channels_last=True), record=record) == FULL
    assert len(calls) == 4
    assert sorted(json.loads(record.read_text()).values()) == [FULL] * 3 + [HALF]
    assert choose(classifier(), record=record) == HALF


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        ("seed: 0\n", None),
        ("trainer: {precision: auto}\n", None),
        ("trainer: {precision: bf16-mixed}\n", HALF),
        ("trainer: {precision: 16}\n", "16"),
    ],
)
def test_a_run_says_with_what_it_was_started(text: str | None, expected: str | None, tmp_path: Path):
    if text is not None:
        (tmp_path / ".hydra").mkdir()
        (tmp_path / ".hydra" / "resolved.yaml").write_text(text)
    assert saved_precision(tmp_path) == expected


@pytest.fixture
def trained_with(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The precision of each trainer, in the order in which they fit."""
    seen: list[str] = []

    def on_fit_start(self: Classifier) -> None:
        seen.append(str(self.trainer.precision))

    monkeypatch.setattr(Classifier, "on_fit_start", on_fit_start)
    return seen


Tiny = Callable[..., DictConfig]


def test_a_run_keeps_its_precision_when_it_is_resumed(
    tiny: Tiny, tmp_path: Path, measured: Seconds, trained_with: list[str]
):
    options = ["trainer.precision=auto", "trainer.limit_train_batches=1", "test=false"]
    calls = measured(2, 1)
    train(tiny(tmp_path, *options))
    folder = tmp_path / ".hydra"
    assert OmegaConf.load(folder / "resolved.yaml").trainer.precision == HALF
    assert OmegaConf.load(folder / "config.yaml").trainer.precision == "auto"
    measured(1, 2)  # now, a probe would find something else
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("max_epochs: 1", "max_epochs: 2"))
    train(tiny(tmp_path, f"resume={tmp_path}"))
    assert OmegaConf.load(folder / "resolved.yaml").trainer.precision == HALF
    assert trained_with == [HALF, HALF]
    assert len(calls) == 1
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == 2


def test_the_jobs_of_a_sweep_train_alike(
    tiny: Tiny, tmp_path: Path, measured: Seconds, trained_with: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(config, "is_multirun", lambda: True)
    options = ["trainer.precision=auto", "trainer.limit_train_batches=1"]
    calls = measured(2, 1)
    train(tiny(tmp_path / "0", *options, "optimizer.lr=1e-3"))
    measured(1, 2)
    train(tiny(tmp_path / "1", *options, "optimizer.lr=1e-4"))
    assert trained_with == [HALF, HALF]
    assert len(calls) == 1
    for job in "01":
        assert OmegaConf.load(tmp_path / job / ".hydra" / "resolved.yaml").trainer.precision == HALF
    assert not list(tmp_path.glob("*/precision.json"))
    train(tiny(tmp_path / "other", *options, "model=mobilenetv3_small"))
    assert trained_with[2] == FULL


def test_a_precision_that_is_given_is_not_measured(
    tiny: Tiny, tmp_path: Path, measured: Seconds, trained_with: list[str]
):
    calls = measured(2, 1)
    train(tiny(tmp_path, "trainer.precision=32-true", "trainer.limit_train_batches=1", "test=false"))
    assert (calls, trained_with) == ([], [FULL])
