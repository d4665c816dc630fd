"""A training that is stopped anywhere ends, once resumed, with the very weights of one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from cxrlab.errors import ConfigError, TrainingError
from cxrlab.train import train
from cxrlab.training.callbacks.resume import Interruption, RandomState
from cxrlab.training.module import Classifier

Tiny = Callable[..., DictConfig]
OPTIONS = (
    "test=false",
    "trainer.max_epochs=3",
    "optimizer.lr=3e-3",
    "model.dropout=0.2",
    "data.batch_size=8",
)


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Let Ctrl-C be heard, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Broken(RuntimeError):
    """What a test breaks the training with."""


@pytest.fixture(scope="module")
def whole(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing stopped."""
    run_dir = tmp_path_factory.mktemp("whole")
    train(tiny(run_dir, *OPTIONS))
    return run_dir


def break_at(monkeypatch: pytest.MonkeyPatch, epoch: int, batch: int, action: Callable[[], None]) -> None:
    original = Classifier.training_step

    def step(self: Classifier, data: object, batch_idx: int) -> torch.Tensor:
        if (self.current_epoch, batch_idx) == (epoch, batch):
            action()
        return original(self, data, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(Classifier, "training_step", step)


def raise_error() -> None:
    raise Broken


def check_equal(whole: Path, resumed: Path) -> None:
    one, other = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (whole, resumed)
    )
    for name, tensor in one["state_dict"].items():
        # NaN is equal to itself here: a threshold that could not be chosen is NaN again.
        np.testing.assert_array_equal(tensor, other["state_dict"][name], err_msg=name)
    assert one["lr_schedulers"] == other["lr_schedulers"]
    assert (one["epoch"], one["global_step"]) == (other["epoch"], other["global_step"])
    tables = [pd.read_csv(folder / "metrics.csv") for folder in (whole, resumed)]
    pd.testing.assert_frame_equal(tables[0], tables[1][list(tables[0])])


@pytest.mark.parametrize(
    ("action", "error", "minutes"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGTERM), SystemExit, 10),
        (lambda: os.kill(os.getpid(), signal.SIGINT), (SystemExit, KeyboardInterrupt), 10),
        (raise_error, Broken, 1e-6),
        (raise_error, Broken, 10),
    ],
    ids=["SIGTERM", "Ctrl-C", "exception", "exception before a checkpoint within the epoch"],
)
@pytest.mark.parametrize(("batch", "accumulate"), [(0, 1), (4, 1), (4, 2)])
def test_a_stopped_training_resumes_to_the_same_end(
    action: Callable[[], None], error: type[BaseException], minutes: float, batch: int, accumulate: int,
    whole: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    options = [*OPTIONS, f"callbacks.interruption.minutes={minutes}"]
    if accumulate == 2:
        options.append("trainer.accumulate_grad_batches=2")
        whole = tmp_path / "whole"
        train(tiny(whole, *options))
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch, pytest.raises(error):
        break_at(patch, 1, batch, action)
        train(tiny(tmp_path / "run", *options))
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    is_within = (
        saved["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] == 1 and saved["epoch"] == 1
    )
    assert is_within == (error is not Broken or (minutes < 1 and batch > 0))
    train(tiny(tmp_path / "run", *options, f"resume={tmp_path / 'run'}"))
    check_equal(whole, tmp_path / "run")


@pytest.mark.parametrize("minutes", [10, 1e-6], ids=["an epoch's end", "within an epoch"])
def test_a_limit_on_steps_changes_nothing_for_a_resume(
    minutes: float, whole: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = [*OPTIONS, f"callbacks.interruption.minutes={minutes}", "+trainer.max_steps=1000"]
    with monkeypatch.context() as patch, pytest.raises(Broken):
        break_at(patch, 1, 4, raise_error)
        train(tiny(tmp_path / "run", *options))
    train(tiny(tmp_path / "run", *options, f"resume={tmp_path / 'run'}"))
    check_equal(whole, tmp_path / "run")


@pytest.mark.slow
def test_a_killed_process_is_resumed_within_its_epoch(whole: Path, tiny: Tiny, tiny_command, tmp_path: Path):
    run_dir = tmp_path / "run"
    options = [*OPTIONS, "callbacks.interruption.minutes=1e-6"]
    command = [sys.executable, "-m", "cxrlab.train", *tiny_command, *options, f"hydra.run.dir={run_dir}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path)
    last = run_dir / "checkpoints" / "last.ckpt"
    while not last.is_file():
        assert process.poll() is None, process.stdout and process.stdout.read().decode()
        time.sleep(0.005)
    process.kill()
    process.communicate()
    saved = torch.load(last, weights_only=True)
    assert saved["global_step"] < 10, "it was killed too late to show anything"
    train(tiny(run_dir, *options, f"resume={run_dir}"))
    check_equal(whole, run_dir)


def test_a_signal_during_validation_lets_the_epoch_come_to_its_end(
    whole: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = Classifier.validation_step

    def step(self: Classifier, data: object, batch_idx: int) -> object:
        if self.current_epoch == 1 and batch_idx == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, data, batch_idx)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Classifier, "validation_step", step)
        train(tiny(tmp_path / "run", *OPTIONS))
    assert pd.read_csv(tmp_path / "run" / "metrics.csv")["epoch"].tolist() == [0, 1]
    train(tiny(tmp_path / "run", *OPTIONS, f"resume={tmp_path / 'run'}"))
    check_equal(whole, tmp_path / "run")


def test_a_signal_that_is_ignored_stays_ignored(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    break_at(monkeypatch, 0, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    train(tiny(tmp_path, *OPTIONS, "trainer.max_epochs=1"))
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_the_second_signal_stops_at_once(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    break_at(monkeypatch, 0, 2, twice)
    with pytest.raises(SystemExit) as stop:
        train(tiny(tmp_path, *OPTIONS))
    assert stop.value.code == 128 + signal.SIGTERM
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_a_stop_says_how_to_go_on(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    break_at(monkeypatch, 0, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        train(tiny(tmp_path, *OPTIONS))
    assert "SIGTERM: stopping at the end of this batch" in caplog.text
    assert "Epoch 0, batch 3 of " in caplog.text
    assert f"cxrlab train resume={tmp_path}" in caplog.text


def test_weights_that_are_broken_are_not_kept(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    original = Classifier.training_step
    monkeypatch.setattr(Classifier, "training_step", lambda *args: original(*args) * float("nan"))
    with pytest.raises(TrainingError):
        train(tiny(tmp_path, *OPTIONS, "callbacks.interruption.minutes=1e-6"))
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_an_interval_of_nothing_is_rejected(minutes: float):
    with pytest.raises(ConfigError, match=r"callbacks.interruption.minutes=.* must be above 0"):
        Interruption(run_dir="run", minutes=minutes)


def test_lightning_still_has_the_private_names_that_a_safe_checkpoint_needs():
    """``_is_safe`` asks Lightning's loop for what no public name tells; one that is gone must not go unseen."""
    loop = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False).fit_loop.epoch_loop
    assert callable(loop._num_ready_batches_reached)
    assert callable(loop._should_accumulate)
    assert loop.batch_progress.is_last_batch is False


def draws() -> tuple[float, float, float, float]:
    return random.random(), float(np.random.rand()), float(np.random.randn()), float(torch.rand(1))  # noqa: NPY002


def test_the_generators_go_on_where_they_were(tmp_path):
    pl.seed_everything(3, verbose=False)
    draws()  # an odd number of normal draws, so that NumPy holds one back
    torch.save(RandomState().state_dict(), tmp_path / "state.pt")
    expected = [draws() for _ in range(3)]
    pl.seed_everything(99, verbose=False)
    callback = RandomState()
    callback.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    draws()  # setting up draws numbers, before training starts
    callback.on_train_start(SimpleNamespace(global_rank=0), None)  # type: ignore[arg-type]
    assert [draws() for _ in range(3)] == expected


def test_a_later_epoch_is_left_alone(tmp_path):
    callback = RandomState()
    callback.load_state_dict(callback.state_dict())
    callback.on_train_start(SimpleNamespace(global_rank=0), None)  # type: ignore[arg-type]
    first = draws()
    callback.on_train_start(SimpleNamespace(global_rank=0), None)  # type: ignore[arg-type]
    assert draws() != first


def test_processes_go_ways_of_their_own():
    seen = []
    for rank in range(3):
        torch.manual_seed(5)
        RandomState().on_train_start(SimpleNamespace(global_rank=rank), None)  # type: ignore[arg-type]
        seen.append(float(torch.rand(1)))
    assert len(set(seen)) == 3
    torch.manual_seed(5)
    assert seen[0] == float(torch.rand(1))
