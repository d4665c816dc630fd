"""Each key that a resume accepts takes effect, or is refused with the reason."""

import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import EarlyStopping

from cxrlab.cli import resume
from cxrlab.errors import ConfigError
from cxrlab.training.callbacks.resume import TodaysSettings

Compose = Callable[..., DictConfig]
ROOT = ("data.root=/data",)


@pytest.fixture
def resumed(tmp_path: Path, composed: Compose, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DictConfig]:
    """Resume a run that was started with some overrides by a command with others."""

    def function(started: tuple[str, ...], *command: str) -> DictConfig:
        for name in (".hydra", "checkpoints"):
            (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / "last.ckpt").touch()
        OmegaConf.save(composed(*ROOT, *started), tmp_path / ".hydra" / "config.yaml")
        overrides = [f"resume={tmp_path}", *command]
        monkeypatch.setattr(resume, "task_overrides", lambda: overrides)
        return resume.resumed_config(composed(*ROOT, *overrides))

    return function


def leaves(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from leaves(value, f"{key}.{name}")
    else:
        yield key, node


def other_value(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return "elsewhere" if isinstance(value, str) or value is None else None


FIXED = (
    "seed",
    "monitor",
    "optimizer",
    "scheduler",
    "data.batch_size",
    "data.image_size",
    "evaluation.threshold",
)


def test_each_key_takes_effect_or_is_refused(
    tmp_path: Path, composed: Compose, monkeypatch: pytest.MonkeyPatch
):
    started = composed(*ROOT, "callbacks=ema")
    for name in (".hydra", "checkpoints"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    OmegaConf.save(started, tmp_path / ".hydra" / "config.yaml")
    plain: Any = OmegaConf.to_container(started, resolve=False)

    def at(key: str) -> Any:
        return functools.reduce(lambda node, name: node[name], key.split("."), plain)

    names = [name for name in (*resume._CHANGEABLE, *FIXED) if name != "data.split.file"]
    keys = [leaf for name in names for leaf in leaves(at(name), name)]
    accepted, refused = [], []
    for key, value in keys:
        new = other_value(value)
        if (
            new is None
            or key.endswith("_target_")
            or "${run_dir}" in str(value)
            or key in ("resume", "trust")
        ):
            continue
        command = started.copy()
        command.resume = str(tmp_path)
        OmegaConf.update(command, key, new)
        monkeypatch.setattr(resume, "task_overrides", lambda override=f"{key}={new}": [override])
        try:
            node = resume.resumed_config(command)
        except ConfigError as error:
            assert f"{key}={new} cannot change a run that is resumed" in str(error)  # noqa: PT017
            refused.append(key)
            continue
        accepted.append(key)
        assert OmegaConf.select(node, key) == new, key
    assert {"trainer.max_epochs", "callbacks.early_stopping.patience", "callbacks.ema.decay"} <= set(accepted)
    assert {"optimizer.lr", "seed", "data.batch_size", "monitor", "callbacks.best.monitor"} <= set(refused)
    assert not [key for key in accepted if key.startswith(FIXED)]


def test_another_option_changes_what_it_says_and_no_more(resumed: Callable[..., DictConfig]):
    started = ("trainer.max_epochs=30", "trainer.accumulate_grad_batches=4", "callbacks.heatmaps=null")
    node = resumed(started, "trainer=gpu", "callbacks=ema", "callbacks.early_stopping.patience=3")
    assert (node.trainer.accelerator, node.trainer.precision) == ("gpu", "bf16-mixed")
    assert (node.trainer.max_epochs, node.trainer.accumulate_grad_batches) == (30, 4)
    assert node.callbacks.heatmaps is None
    assert (node.callbacks.ema.decay, node.callbacks.early_stopping.patience) == (0.99, 3)
    node = resumed(("callbacks=ema", "trainer=cpu"), "callbacks=default", "trainer=auto")
    assert "ema" not in node.callbacks
    assert node.trainer.accelerator == "auto"


def test_a_setting_of_todays_is_not_replaced_by_that_of_the_checkpoint(composed: Compose):
    """Of every callback: what it loads must not bring back what its constructor was given."""
    cfg = composed(*ROOT, "run_dir=/run", "callbacks.early_stopping.patience=2")
    new: Any = {"early_stopping.patience": 9, "early_stopping.min_delta": 0.25, "interruption.minutes": 3}
    before = [instantiate(node) for node in cfg.callbacks.values() if node is not None]
    for key, value in new.items():
        OmegaConf.update(cfg, f"callbacks.{key}", value, force_add=True)
    after = [instantiate(node) for node in cfg.callbacks.values() if node is not None]
    states = {callback.state_key: callback.state_dict() for callback in before}
    for state in states.values():
        state |= {"stopped_epoch": 4} if "stopped_epoch" in state else {}
    trainer: Any = SimpleNamespace(callbacks=after, state=SimpleNamespace(fn="fit"))
    module: Any = None
    epoch = {"epoch_progress": {"current": dict.fromkeys(("ready", "started", "processed"), 1)}}
    checkpoint = {"callbacks": states, "loops": {"fit_loop": epoch}}
    TodaysSettings().on_load_checkpoint(trainer, module, checkpoint)
    for callback in after:
        names = [name for name in inspect.signature(type(callback)).parameters if hasattr(callback, name)]
        settings = {name: getattr(callback, name) for name in names}
        if states.get(callback.state_key):
            callback.load_state_dict(states[callback.state_key])
        assert {name: getattr(callback, name) for name in names} == settings, type(callback)
    (stopper,) = (callback for callback in after if isinstance(callback, EarlyStopping))
    assert (stopper.patience, stopper.stopped_epoch) == (9, 0)
