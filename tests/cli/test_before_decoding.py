"""What needs no image is checked before any is decoded."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from cxrlab.cli.config import quoted_keys
from cxrlab.data import datamodule
from cxrlab.errors import UserError
from cxrlab.metrics import metric
from cxrlab.metrics.registry import METRICS
from cxrlab.train import train


class Decoded(Exception):
    """The data set was read, and decoding began."""


@pytest.fixture
def started(
    composed: Callable[..., DictConfig],
    synthetic_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Train until decoding would begin."""

    def decode(*args: object, **kwargs: object) -> None:
        raise Decoded

    monkeypatch.setattr(datamodule, "cached", decode)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def function(*overrides: str) -> None:
        small = ["data.reader.num_patients=40", "data.reader.size=64", "data.image_size=64"]
        source = [] if "data=table" in overrides else [*small, f"data.root={synthetic_root}"]
        train(composed(*source, "trainer=cpu", f"run_dir={tmp_path / 'run'}", *overrides))

    return function


class WrongLoss(torch.nn.Module):
    """A loss of another task."""

    def __init__(self, **options: object) -> None:
        super().__init__()

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return logits.reshape(-1, 3).sum() + targets.sum()


@metric(title="Broken", higher_is_better=True, needs="scores")
def broken_metric(scores: object, targets: object) -> float:
    """A metric that was never run."""
    raise KeyError("threshold")


def test_what_fits_comes_to_decoding(started):
    with pytest.raises(Decoded):
        started()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.lr=-1"], r"^optimizer\.lr=-1 does not fit"),
        (["optimizer=adam", "optimizer.betas=[0.9,1.5]"], r"^optimizer\.betas=\[0\.9, 1\.5\] does not fit"),
        (["optimizer=sgd", "optimizer.momentum=-0.5"], r"^optimizer\.momentum=-0\.5 does not fit"),
        (["optimizer=rmsprop", "optimizer.eps=-1e-7"], r"^optimizer\.eps=-1e-07 does not fit"),
        (["scheduler.warmup_fraction=1.5"], r"^scheduler\.warmup_fraction=1\.5"),
        (["scheduler=plateau", "scheduler.factor=2"], r"scheduler"),
        (["scheduler=plateau", "scheduler.monitor=val/f2"], r"scheduler\.monitor=val/f2 is no metric"),
        (
            ["model.backbone=densenet121", "data.image_size=16"],
            r"densenet121 cannot have data\.image_size=16",
        ),
        (["model=vit_small", "data.image_size=200"], r"data\.image_size=200 is no multiple"),
        (["monitor=val/auroc/Edma"], r"Edma is none of the labels"),
        (["monitor=val/f1"], r"computed during a training with metrics=\[f1\]"),
        (["data.labels=[Mass]"], r"data\.labels names \['Mass'\], which this data set lacks"),
        (["task=multiclass", "loss=cross_entropy"], r"exactly one of"),
        (["loss=cross_entropy"], r"task"),
        (["loss._target_=tests.cli.test_before_decoding.WrongLoss"], r"The loss WrongLoss fails on logits"),
        (["model.pretrained=true"], r"model\.pretrained=true: the weights of resnet10t"),
        (["model.checkpoint_path=nowhere.pth"], r"no file nowhere\.pth"),
        (["data.split.method=official"], r"no official lists or part folders"),
        (["data.split.method=folds", "data.split.fold=0", "data.split.num_folds=50"], r"needs 50 at least"),
        (["trainer.limit_val_batches=7.5"], r"^trainer\.limit_val_batches=7\.5 does not fit"),
        (["trainer.gradient_clip_val=-1"], r"trainer\.gradient_clip_val=-1"),
        (["trainer.accumulate_grad_batches=0"], r"trainer\.accumulate_grad_batches=0"),
        (["trainer.max_epochs=-3"], r"^trainer\.max_epochs=-3 does not fit"),
    ],
)
def test_what_does_not_fit_is_told_before_decoding(started, overrides, message):
    with pytest.raises(UserError, match=message):
        started(*overrides)


def test_a_metric_of_ones_own_that_fails_is_told_before_decoding(started):
    try:
        with pytest.raises(UserError, match=r"broken_metric'\]: one of them fails on 16 images: KeyError"):
            started("metrics=[tests.cli.test_before_decoding.broken_metric]")
    finally:
        METRICS.reset()


def test_a_missing_part_is_told_before_decoding(started, tmp_path):
    rows = []
    for number in range(12):
        name = f"{number}.png"
        Image.fromarray(np.full((16, 16), 20 * number, dtype=np.uint8)).save(tmp_path / name)
        rows.append({"image": name, "patient": f"p{number}", "Edema": number % 2, "split": "train"})
    pd.DataFrame(rows).to_csv(tmp_path / "labels.csv", index=False)
    table = ["data=table", f"data.root={tmp_path}", "data.reader.split_column=split"]
    parts = pd.DataFrame(rows)[["image"]].assign(part=["train"] * 9 + ["val"] * 3)
    parts_path = tmp_path / "parts" / "of_images.csv"
    parts_path.parent.mkdir()
    parts.to_csv(parts_path, index=False)
    with pytest.raises(UserError, match="no image of the official test part is in"):
        started(*table, "data.split.method=official")
    with pytest.raises(UserError, match=r"puts no image of .* into the test part"):
        started(
            *table,
            f"data.root={tmp_path}",
            "data.split.method=file",
            f"data.split.file={parts_path}",
        )


def test_a_library_that_quotes_a_value_names_its_key():
    node = {
        "lr": 0.1,
        "momentum": 0.9,
        "nesterov": True,
        "betas": [0.9, 2.0],
        "first": 1,
        "second": 1,
        "third": 1,
    }
    assert quoted_keys(node, "optimizer", "Invalid learning rate: 0.1") == ["optimizer.lr=0.1"]
    assert quoted_keys(node, "optimizer", "Invalid beta at 2.0") == ["optimizer.betas=[0.9, 2.0]"]
    assert quoted_keys(node, "optimizer", "momentum 0.9 is wrong") == ["optimizer.momentum=0.9"]
    assert quoted_keys(node, "optimizer", "1 is wrong") == []  # it may be any of three
