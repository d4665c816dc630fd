"""Whatever a training is made of, stopped at any batch it ends with the weights of one that was not."""

import itertools
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from cxrlab.train import train
from cxrlab.training.module import Classifier

Tiny = Callable[..., DictConfig]

BASE = (
    "test=false", "trainer.max_epochs=3", "optimizer.lr=3e-3", "data.batch_size=8", "augment=light",
    "model.dropout=0.2", "model=timm", "model.backbone=test_resnet",
)  # fmt: skip

# What has a state that a checkpoint within an epoch must hold. One of each kind at a time, and pairs.
CHOICES: dict[str, tuple[str, ...]] = {
    "average": ("callbacks=ema", "callbacks.ema.decay=0.8"),
    "warm-up and cosine": ("scheduler=cosine", "scheduler.warmup_epochs=1"),
    "one cycle": ("scheduler=one_cycle", "optimizer=sgd", "optimizer.lr=1e-2"),
    "plateau": ("scheduler=plateau", "scheduler.patience=1", "scheduler.factor=0.5", "scheduler.mode=min",
                "scheduler.monitor=val/loss"),
    "accumulation": ("trainer.accumulate_grad_batches=3",),
    "thaw": ("model.freeze=2", "model.unfreeze_epoch=1", "layer_rates.stage_decay=0.5"),
    "balanced": ("data.sampling=balanced",),
    "early stopping": ("callbacks.early_stopping.patience=1", "trainer.min_epochs=3"),
    "steps an epoch": ("data.steps_per_epoch=5",),
}  # fmt: skip

SCHEDULES = {"warm-up and cosine", "one cycle", "plateau"}
PAIRS = [pair for pair in itertools.combinations(CHOICES, 2) if len(SCHEDULES & set(pair)) < 2]


def options_of(names: tuple[str, ...]) -> list[str]:
    progress = ["callbacks.progress=null", "callbacks.heatmaps=null"]
    return [*BASE, *(option for name in names for option in CHOICES[name]), *progress]


def stop_at(patch: pytest.MonkeyPatch, stops: set[tuple[int, int]]) -> None:
    original = Classifier.training_step

    def step(self: Classifier, data: Any, batch_idx: int) -> torch.Tensor:
        if (self.current_epoch, batch_idx) in stops:
            stops.remove((self.current_epoch, batch_idx))
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, data, batch_idx)

    patch.setattr(Classifier, "training_step", step)


def check_equal(whole: Any, resumed: Any, where: str = "") -> None:
    """Compare what two checkpoints hold, tensors to the bit."""
    assert type(whole) is type(resumed), where
    if isinstance(whole, dict):
        assert whole.keys() == resumed.keys(), where
        for key in whole:
            check_equal(whole[key], resumed[key], f"{where}/{key}")
    elif isinstance(whole, list | tuple):
        assert len(whole) == len(resumed), where
        for place, (one, other) in enumerate(zip(whole, resumed, strict=True)):
            check_equal(one, other, f"{where}[{place}]")
    elif isinstance(whole, torch.Tensor):
        torch.testing.assert_close(resumed, whole, rtol=0, atol=0, equal_nan=True, msg=where)
    elif whole == whole:  # not NaN
        assert whole == resumed, where


def stopped_and_whole(names: tuple[str, ...], tiny: Tiny, folder: Path, seed: int) -> None:
    options = options_of(names)
    train(tiny(folder / "whole", *options))
    draw = random.Random(f"{names} {seed}")
    num_batches = 5 if "steps an epoch" in names else 8
    stops = {(epoch, draw.randrange(num_batches)) for epoch in (0, 2)}
    run_dir = folder / "stopped"
    resume: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, stops)
        while stops:
            with pytest.raises(SystemExit):
                train(tiny(run_dir, *options, *resume))
            resume = [f"resume={run_dir}"]
    train(tiny(run_dir, *options, *resume))
    one, other = (
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)
        for path in (folder / "whole", run_dir)
    )
    parts = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers")
    check_equal(*({part: saved.get(part) for part in parts} for saved in (one, other)))
    tables = [(path / "metrics.csv").read_text() for path in (folder / "whole", run_dir)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("name", CHOICES)
def test_each_by_itself(name: str, tiny: Tiny, tmp_path: Path):
    stopped_and_whole((name,), tiny, tmp_path, seed=0)


@pytest.mark.parametrize("pair", PAIRS, ids=" + ".join)
def test_pairs(pair: tuple[str, str], tiny: Tiny, tmp_path: Path):
    stopped_and_whole(pair, tiny, tmp_path, seed=1)
