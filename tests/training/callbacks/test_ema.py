"""The average against one computed by hand, and what is saved, evaluated and resumed with it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig

import cxrlab
from cxrlab.errors import ConfigError
from cxrlab.train import train
from cxrlab.training.callbacks.ema import WeightAveraging
from cxrlab.training.module import Classifier

Tiny = Callable[..., DictConfig]
OPTIONS = ("callbacks=ema", "callbacks.progress=null", "callbacks.heatmaps=null", "callbacks.ema.decay=0.8")


def checkpoint(run_dir: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)


def test_the_saved_model_is_the_average_of_all_steps(tiny: Tiny, tmp_path: Path, monkeypatch):
    steps: list[dict[str, torch.Tensor]] = []
    step = WeightAveraging.on_train_batch_end

    def record(self: WeightAveraging, trainer: Any, module: Classifier, *rest: Any) -> None:
        steps.append({name: value.clone() for name, value in module.network.state_dict().items()})
        step(self, trainer, module, *rest)

    monkeypatch.setattr(WeightAveraging, "on_train_batch_end", record)
    train(tiny(tmp_path, *OPTIONS, "test=false"))
    average = steps[0]
    for number, weights in enumerate(steps[1:], start=1):
        decay = min(0.8, (1 + number) / (10 + number))
        for name, value in weights.items():
            if value.is_floating_point():
                average[name] = decay * average[name] + (1 - decay) * value
    saved = checkpoint(tmp_path)
    for name, value in average.items():
        if value.is_floating_point():
            torch.testing.assert_close(saved["state_dict"][f"network.{name}"], value, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(saved["current_model_state"][f"network.{name}"], steps[-1][name])


def test_what_is_evaluated_is_the_saved_average_with_its_own_thresholds(tiny: Tiny, tmp_path: Path):
    train(tiny(tmp_path, *OPTIONS, "trainer.max_epochs=3", "optimizer.lr=1e-2"))
    run = cxrlab.load_run(tmp_path)
    root = Path(json.loads((tmp_path / "audit.json").read_text())["root"])
    for part in ("val", "test"):
        table = run.predictions(part)
        again = run.predict([root / image for image in table["image"]])
        for label in run.labels:
            np.testing.assert_allclose(
                table[f"probability/{label}"], again[f"probability/{label}"], rtol=0, atol=1e-5
            )
    last = pd.read_csv(tmp_path / "predictions" / "val.csv")
    thresholds = run.model.operating_point.thresholds
    assert torch.isfinite(thresholds).any()
    for label, threshold in run.thresholds.items():
        called = last[f"probability/{label}"] >= threshold
        assert called.astype(float).equals(last[f"prediction/{label}"].astype(float))


def test_a_resumed_average_ends_as_the_uninterrupted_one(tiny: Tiny, tmp_path: Path, monkeypatch):
    options = (*OPTIONS, "test=false", "trainer.max_epochs=3")
    train(tiny(tmp_path / "whole", *options))

    class Killed(BaseException):
        pass

    def die(self: Classifier, *_: Any) -> None:
        if self.current_epoch == 2:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Classifier, "on_train_batch_end", die, raising=False)
        train(tiny(tmp_path / "killed", *options))
    train(tiny(tmp_path / "killed", *options, f"resume={tmp_path / 'killed'}"))
    whole, resumed = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "killed")
    for key in ("state_dict", "current_model_state"):
        for name, value in whole[key].items():
            torch.testing.assert_close(
                resumed[key][name], value, rtol=0, atol=0, equal_nan=True, msg=f"{key} {name}"
            )


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_keeps_everything_or_less_than_nothing_is_rejected(decay: float):
    with pytest.raises(ConfigError, match=f"callbacks.ema.decay={decay} must be"):
        WeightAveraging(decay=decay)
