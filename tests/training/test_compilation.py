"""``trainer.compile``: the same network, weights, results and checkpoints, compiled or not."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from cxrlab.errors import ConfigError
from cxrlab.heatmaps.methods.cam import grad_cam
from cxrlab.models.network import uncompiled
from cxrlab.models.timm_network import TimmNetwork
from cxrlab.train import checked, train
from cxrlab.training import compilation
from cxrlab.training.compilation import COMPILE_MODES, compiled
from cxrlab.training.module import Classifier

Compose = Callable[..., DictConfig]


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace as always, but leave out the compiler of kernels, unless a test wants it."""
    torch._dynamo.reset()
    if "inductor" not in request.keywords and "inductor" not in request.node.name:
        monkeypatch.setattr(compilation, "BACKEND", "aot_eager")


class Counted(nn.Module):
    """A convolution, batch norm and a head, which counts how often Python comes by."""

    def __init__(self, num_labels: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4 * 15 * 15, num_labels)
        self.num_calls = 0

    def forward(self, images: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            self.num_calls += 1
        logits: Tensor = self.head(self.layers(images).flatten(1))
        return logits


def network() -> TimmNetwork:
    torch.manual_seed(0)
    return TimmNetwork("resnet10t", num_labels=2, image_size=32)


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def steps(module: nn.Module, sizes: tuple[int, ...] = (4, 4, 3)) -> dict[str, Tensor]:
    """Train a few steps of batches of these sizes, and return the weights."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for size in sizes:
        optimizer.zero_grad()
        module(images(size)).square().mean().backward()
        optimizer.step()
    return module.state_dict()


@pytest.mark.slow
def test_a_compiled_network_learns_the_same_weights_under_the_same_names():
    plain, other = network(), network()
    expected = steps(plain.train())
    with compiled(other, True):
        weights = steps(other.train())
        assert torch.allclose(other.eval()(images(5)), plain.eval()(images(5)), atol=1e-5)
    assert list(weights) == list(expected)
    for name, value in weights.items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-4)


def test_it_is_compiled_as_long_as_it_is_trained_and_no_longer():
    module = Counted().eval()
    with compiled(module, True):
        module(images())
        module(images())
        assert module.num_calls == 0
        with uncompiled(module):
            module(images())
        assert module.num_calls == 1
        module(images())
        assert module.num_calls == 1
    module(images())
    assert module.num_calls == 2
    with compiled(module, False):
        module(images())
    assert module.num_calls == 3


def test_batches_that_differ_by_one_image_are_compiled_twice_and_no_more():
    module = Counted().train()
    torch._dynamo.utils.counters.clear()
    with compiled(module, True):
        for size in (4, 4, 3, 4, 3, 3):
            module(images(size)).sum().backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


def test_copies_are_not_compiled_and_heatmaps_see_its_layers():
    module = network().eval()
    expected = grad_cam(module, images(), [0, 1, 0, 1], batch_size=2)
    with compiled(module, True):
        module(images())
        assert copy.deepcopy(module)._compiled_call_impl is None
        assert torch.equal(grad_cam(module, images(), [0, 1, 0, 1], batch_size=2), expected)
        assert module._compiled_call_impl is not None


@pytest.mark.slow
def test_what_is_frozen_stays_until_it_learns():
    torch.manual_seed(0)
    module = TimmNetwork(
        "resnet10t", num_labels=2, image_size=32, freeze="backbone", unfreeze_epoch=1
    ).train()
    start = {name: value.clone() for name, value in module.state_dict().items()}
    with compiled(module, True):
        steps(module)
        assert all(
            torch.equal(module.state_dict()[name], start[name]) for name in start if "backbone" in name
        )
        module.at_epoch(1)
        weights = steps(module)
    assert not any(torch.equal(weights[name], start[name]) for name in start if "conv" in name)


def test_what_a_cuda_graph_writes_is_copied(monkeypatch: pytest.MonkeyPatch):
    memory = torch.zeros(4, 2)

    def replay(call: Callable[..., Tensor], **_: object) -> Callable[..., Tensor]:
        return lambda values: memory.copy_(call(values))

    monkeypatch.setattr(torch, "compile", replay)
    module = Counted().eval()
    with compiled(module, "reduce-overhead"):
        first = module(images())
        kept = first.clone()
        module(torch.zeros(4, 1, 32, 32))
        assert torch.equal(first, kept)


@pytest.mark.parametrize("choice", ["fast", 1, None])
def test_another_choice_is_refused(choice: object, composed: Compose):
    options = "null" if choice is None else choice
    with pytest.raises(ConfigError, match=rf"trainer\.compile={choice} must be false, true, reduce-overhead"):
        checked(composed(f"trainer.compile={options}", "data.root=/nowhere", "run_dir=/nowhere/run"))


@pytest.mark.parametrize("choice", ["false", "true", *COMPILE_MODES])
def test_every_choice_fits(choice: str, composed: Compose):
    checked(composed(f"trainer.compile={choice}", "data.root=/nowhere", "run_dir=/nowhere/run"))


def test_what_torch_cannot_compile_is_told(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(compilation, "BACKEND", broken)
    message = (
        r"trainer\.compile=true: torch cannot compile .*no C\+\+ compiler.* Set trainer\.compile=false\."
    )
    with pytest.raises(ConfigError, match=message), compiled(Counted(), True) as _:
        module = Counted()
        with compiled(module, True):
            module(images())


def scores(run_dir: Path) -> pd.DataFrame:
    return pd.read_csv(run_dir / "metrics.csv").drop(columns=["seconds"], errors="ignore")


def test_a_run_is_the_same_and_its_checkpoints_too(
    composed: Compose, tiny_command: list[str], tmp_path: Path
):
    """With heatmaps, an average of the weights, and layers that are unfrozen."""
    options = [one for one in tiny_command if one != "callbacks.heatmaps=null"]
    options += [
        "trainer.max_epochs=2", "callbacks=ema", "callbacks.heatmaps.every_n_epochs=1", "model.freeze=2",
        "callbacks.heatmaps.images_per_label=1", "model.unfreeze_epoch=1",
    ]  # fmt: skip
    for name, choice in {"plain": "false", "compiled": "true"}.items():
        train(composed(*options, f"run_dir={tmp_path / name}", f"trainer.compile={choice}"))
    pd.testing.assert_frame_equal(
        scores(tmp_path / "plain"), scores(tmp_path / "compiled"), atol=1e-3, rtol=1e-3
    )
    saved = [
        torch.load(tmp_path / name / "checkpoints" / "best.ckpt", weights_only=True)
        for name in ("plain", "compiled")
    ]
    assert list(saved[0]["state_dict"]) == list(saved[1]["state_dict"])
    loaded = Classifier.load_from_checkpoint(tmp_path / "compiled" / "checkpoints" / "best.ckpt")
    assert loaded.network._compiled_call_impl is None
    assert list((tmp_path / "compiled" / "heatmaps").rglob("*.png"))


def test_a_compiled_run_is_resumed_compiled_or_not(tiny: Compose, tmp_path: Path):
    whole, first = tmp_path / "whole", tmp_path / "first"
    options = ("trainer.compile=true", "scheduler=none")
    train(tiny(whole, "trainer.max_epochs=2", *options))
    train(tiny(first, "trainer.max_epochs=1", *options))
    for choice in ("true", "false"):
        run_dir = tmp_path / f"resumed_{choice}"
        shutil.copytree(first, run_dir)
        config = run_dir / ".hydra" / "config.yaml"
        text = config.read_text().replace("max_epochs: 1", "max_epochs: 2")
        config.write_text(text.replace("compile: true", f"compile: {choice}"))
        train(tiny(run_dir, f"resume={run_dir}"))
        assert scores(run_dir)["epoch"].tolist() == [0, 1]
        pd.testing.assert_frame_equal(scores(whole), scores(run_dir), atol=1e-3, rtol=1e-3)


@pytest.mark.slow
# torch's own, at the first import of its compiler.
@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
def test_inductor_gives_the_same_within_rounding():
    torch.manual_seed(0)
    plain = Counted()
    other = copy.deepcopy(plain)
    expected = steps(plain.train(), (4,))
    with compiled(other, True):
        weights = steps(other.train(), (4,))
    for name, value in weights.items():
        torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=1e-3)
