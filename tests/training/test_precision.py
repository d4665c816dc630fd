"""``trainer.precision=auto``: by the processor and the kind of network."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from cxrlab.train import train
from cxrlab.training import precision
from cxrlab.training.module import Classifier
from cxrlab.training.precision import FULL, HALF, choose_precision, cpu_flags, is_depthwise, saved_precision

CPU = torch.device("cpu")
WITH_BF16 = [{"avx2", "avx512_bf16"}, {"amx_tile", "amx_bf16"}]
Flags = Callable[[set[str]], None]


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Flags:
    """Let the processor have some instruction sets."""

    def function(flags: set[str]) -> None:
        monkeypatch.setattr(precision, "cpu_flags", lambda: flags)

    return function


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("densenet121", False), ("resnet10t", False), ("resnext50_32x4d", False), ("vit_small_patch16_224", False),
        ("mobilenetv1_100", True), ("mobilenetv2_100", True), ("mobilenetv3_small_100", True),
        ("efficientnet_b0", True), ("convnext_tiny", True),
    ],
)  # fmt: skip
def test_the_kind_of_network_is_told_by_its_convolutions(backbone: str, expected: bool):
    with torch.device("meta"):
        assert is_depthwise(timm.create_model(backbone, num_classes=2)) == expected


@pytest.mark.parametrize("flags", [set(), {"avx2", "avx512f"}, {"amx_tile", "amx_int8"}])
def test_a_processor_without_bf16_arithmetic_trains_in_fp32(flags: set[str], processor: Flags):
    processor(flags)
    assert choose_precision(nn.Conv2d(1, 4, 3), CPU) == FULL


@pytest.mark.parametrize("flags", WITH_BF16)
def test_a_processor_with_it_trains_in_bf16_but_for_depthwise_networks(flags: set[str], processor: Flags):
    processor(flags)
    assert choose_precision(nn.Conv2d(1, 4, 3), CPU) == HALF
    assert choose_precision(nn.Linear(2, 2), CPU) == HALF
    assert choose_precision(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1)), CPU) == FULL


@pytest.mark.parametrize(
    ("kind", "capability", "expected"),
    [("cuda", (7, 5), FULL), ("cuda", (8, 0), HALF), ("cuda", (12, 0), HALF), ("mps", (9, 0), FULL)],
)
def test_a_gpu_is_chosen_by_its_generation(
    kind: str, capability: tuple[int, int], expected: str, processor: Flags, monkeypatch: pytest.MonkeyPatch
):
    processor({"amx_bf16"})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose_precision(nn.Conv2d(1, 4, 3), torch.device(kind)) == expected


def test_the_flags_are_those_of_the_first_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(precision, "CPU_INFO", info)
    assert cpu_flags() == set()
    info.write_text(
        "processor: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2 amx_bf16\n\nprocessor: 1\nflags\t: fpu\n"
    )
    assert cpu_flags() == {"fpu", "avx2", "amx_bf16"}
    info.write_text("Processor : ARM\n")
    assert cpu_flags() == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
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


def test_a_run_keeps_its_precision_when_it_is_resumed_elsewhere(
    tiny: Tiny, tmp_path: Path, processor: Flags, trained_with: list[str]
):
    options = ["trainer.precision=auto", "trainer.limit_train_batches=1", "test=false"]
    processor({"amx_bf16"})
    train(tiny(tmp_path, *options))
    folder = tmp_path / ".hydra"
    assert OmegaConf.load(folder / "resolved.yaml").trainer.precision == HALF
    assert OmegaConf.load(folder / "config.yaml").trainer.precision == "auto"
    processor(set())
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("max_epochs: 1", "max_epochs: 2"))
    train(tiny(tmp_path, f"resume={tmp_path}"))
    assert OmegaConf.load(folder / "resolved.yaml").trainer.precision == HALF
    assert trained_with == [HALF, HALF]
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == 2


def test_a_precision_that_is_given_is_taken(
    tiny: Tiny, tmp_path: Path, processor: Flags, trained_with: list[str]
):
    processor({"amx_bf16"})
    train(tiny(tmp_path, "trainer.precision=32-true", "trainer.limit_train_batches=1", "test=false"))
    assert trained_with == [FULL]
