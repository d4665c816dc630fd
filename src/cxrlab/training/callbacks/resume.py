"""What lets a training be stopped and resumed: checkpoints within an epoch, and the random state in each.

A resumed run goes on with the numbers that it would have drawn, and what stops a training costs minutes at
most.
"""

import logging
import random
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping

from cxrlab.errors import ConfigError, stop_reason
from cxrlab.files import RunDir
from cxrlab.training.processes import (
    ended_processes,
    forget_started,
    gathered,
    in_words,
    is_of_lost_process,
    is_started_by_first,
    largest,
    num_processes,
    started_processes,
)

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))

# That the other processes of a training have to end, once this one stops.
_SECONDS_TO_STOP = 10

# Within which another signal to one of several processes is the same one, which a launcher passed on.
_SECONDS_ALIKE = 10


class Interruption(Callback):
    """Writes ``last.ckpt`` every few minutes, and when a signal asks the training to stop.

    Ctrl-C, SIGTERM and SIGUSR1 (which SLURM sends before a job's time is up) let the batch at work come to
    its end first, and at the end of an epoch its validation; a second one stops at once. Of several processes
    it is enough to ask one: at the end of each batch they agree whether to go on, so that all of them stop at
    the same one. One that left alone would leave the others waiting for it.

    Lightning's own handlers of signals are kept out: its SIGTERM ends with status 0, and of several processes
    sends to the others from wherever it met this one; its SIGUSR1 requeues a job of SLURM by itself.

    Args:
        run_dir: The run directory.
        minutes: Time from one checkpoint to the next; what a power cut or kill -9 can cost.

    Raises:
        ConfigError: If ``minutes`` is not above 0.
    """

    _saves = True

    def __init__(self, *, run_dir: str, minutes: float = 10) -> None:
        if not minutes > 0:
            raise ConfigError(f"callbacks.interruption.minutes={minutes} must be above 0.")
        self.run_dir = RunDir(Path(run_dir))
        self.minutes = minutes
        self._trainer: pl.Trainer | None = None
        self._received: signal.Signals | None = None
        self._received_at = 0.0
        self._handlers: dict[signal.Signals, Any] = {}
        self._saved_at = 0.0
        self._position = "the last finished epoch"

    @property
    def _path(self) -> Path:
        return self.run_dir.last_checkpoint

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Listen to the signals, and let nobody else do so."""
        self._trainer = trainer
        trainer._signal_connector.register_signal_handlers = _do_nothing  # type: ignore[method-assign]
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _do_nothing  # type: ignore[method-assign]
        if threading.current_thread() is threading.main_thread() and not self._handlers:
            # What is ignored stays so: a job in the background is not to be stopped by Ctrl-C.
            heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._handlers = {number: signal.signal(number, self._note) for number in heard}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Come last: a checkpoint holds what the others make of a batch.

        The average of the weights (``callbacks=ema``), for one: without its update of the batch, a resumed
        training would leave it out.
        """
        # A list of its own, since Lightning is going through the old one.
        trainer.callbacks = [callback for callback in trainer.callbacks if callback is not self] + [self]  # type: ignore[attr-defined]
        self._saved_at = time.monotonic()

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._received is not None:
            if self._is_of_several and time.monotonic() - self._received_at < _SECONDS_ALIKE:
                return
            self._stop()
        self._received, self._received_at = signal.Signals(number), time.monotonic()
        is_training = self._trainer is not None and self._trainer.state.fn == "fit"
        if not self._is_of_several and not (is_training and self._saves):
            self._stop()
        self._say_that_it_stops()

    def _say_that_it_stops(self) -> None:
        again = "" if self._is_of_several else "; again stops at once"
        log.warning("\n%s: stopping at the end of this batch, or of the validation%s.", self._reason, again)

    @property
    def _is_of_several(self) -> bool:
        return self._trainer is not None and self._trainer.world_size > 1

    @property
    def _reason(self) -> str:
        if self._received is None:
            return ""
        return "Ctrl-C" if self._received is signal.SIGINT else self._received.name

    def _stop(self) -> None:
        if self._received is signal.SIGINT or self._received is None:
            raise KeyboardInterrupt
        raise SystemExit(128 + self._received)

    def _agree(self, *, is_due: bool = False) -> tuple[bool, bool]:
        """Return whether a process was asked to stop, and whether the first one's watch says to save.

        What comes in a moment later is for the next batch: only what all have heard may be acted upon.
        """
        is_first = self._trainer is None or self._trainer.is_global_zero
        number, is_due_now = largest([int(self._received or 0), int(is_due and is_first)])
        if number:
            is_new = self._received is None
            self._received = signal.Signals(number)
            if is_new:
                self._received_at = time.monotonic()
                self._say_that_it_stops()
        return bool(number), bool(is_due_now)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time to, and stop where that was asked for."""
        is_due = self._saves and time.monotonic() - self._saved_at >= 60 * self.minutes
        is_asked, is_due = self._agree(is_due=is_due)
        if is_asked and not self._saves:
            self._stop()
        if not (is_asked or is_due) or not _is_safe(trainer, outputs):
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(self._path)
        self._saved_at = time.monotonic()
        self._position = (
            f"epoch {trainer.current_epoch}, batch {batch_idx + 1} of {trainer.num_training_batches}"
        )
        if is_asked:
            self._stop()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop where that was asked for during validation, now that the epoch's checkpoint is written."""
        if trainer.current_epoch > 0:
            self._position = "the last finished epoch"
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        is_asked, _ = self._agree()
        if is_asked:
            self._stop()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop where that was asked for; the epoch is kept."""
        self._position = "the last finished epoch"
        self._stop_if_asked()

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop together where a trained network is evaluated."""
        if trainer.state.fn != "fit":
            self._stop_if_asked()

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop together where that was asked for at the very end of an evaluation."""
        if trainer.state.fn != "fit":
            self._stop_if_asked()

    on_test_end = on_validation_end

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Tell the user what is kept, and end what was started; the exception goes on its way."""
        self._give_back()
        if is_of_lost_process(exception):
            self._explain_loss(trainer, exception)
        elif trainer.is_global_zero:
            self._explain(exception)
        _end_started(trainer)

    def _explain(self, exception: BaseException) -> None:
        if getattr(exception, "is_explained", False):
            return
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit)
        reason = stop_reason(exception) or type(exception).__name__
        if not self._path.is_file():
            if stopped:
                exception.is_explained = True  # type: ignore[attr-defined]
                log.warning(
                    "\nStopped by %s before anything was saved: there is nothing to go on from.", reason
                )
            return
        exception.is_explained = True  # type: ignore[attr-defined]
        log.warning("\nStopped by %s. %s", reason, self._what_is_kept())

    def _what_is_kept(self) -> str:
        if not self._path.is_file():
            return "Nothing was saved yet: the same command starts again."
        position = self._position[0].upper() + self._position[1:]
        return f"{position} is kept in {self._path}. Resume with: cxrlab train resume={self.run_dir}"

    def _explain_loss(self, trainer: pl.Trainer, exception: BaseException) -> None:
        """Note on an error of torch's what it means: words to say, or the status to end with in silence."""
        ended = ended_processes(started_processes(trainer))
        asked = [status for status in ended.values() if status - 128 in _SIGNALS]
        if asked and len(asked) == len(ended):  # before they could agree
            log.warning(
                "\nStopped by %s to another process. %s",
                signal.Signals(asked[0] - 128).name, self._what_is_kept(),
            )  # fmt: skip
            exception.lost_process = asked[0]  # type: ignore[attr-defined]
            exception.is_explained = True  # type: ignore[attr-defined]
            return
        # One speaks for all; the second where it is the first that is lost.
        if trainer.global_rank > 1 or (trainer.global_rank == 1 and is_started_by_first(trainer)):
            exception.lost_process = 1  # type: ignore[attr-defined]
            return
        who = " and ".join(
            f"process {rank} of {trainer.world_size} {in_words(status)}" for rank, status in ended.items()
        )
        who = who or (
            f"the connection to another of the {trainer.world_size} processes broke: it has ended (what it "
            f"says, or what started it, tells why), or the network has ({str(exception).splitlines()[0]})"
        )
        exception.lost_process = (  # type: ignore[attr-defined]
            f"{who[0].upper()}{who[1:]}; the others cannot go on without it. {self._what_is_kept()}"
        )


def _do_nothing() -> None:
    pass


def _end_started(trainer: pl.Trainer) -> None:
    """Wait for the processes that this one started, and end those that wait for it."""
    processes = started_processes(trainer)
    forget_started(trainer)
    end = time.monotonic() + _SECONDS_TO_STOP
    for process in processes:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_safe(trainer: pl.Trainer, outputs: Any) -> bool:
    """Tell whether a checkpoint of this moment can be resumed to the very same result.

    Not in the middle of accumulated gradients, which no checkpoint holds; not after an epoch's last batch,
    where Lightning would leave out the validation; and not with a loss that has broken the weights.
    """
    loop = trainer.fit_loop.epoch_loop
    if loop.batch_progress.is_last_batch or loop._num_ready_batches_reached() or loop._should_accumulate():
        return False
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    is_broken = isinstance(loss, torch.Tensor) and not bool(torch.isfinite(loss))
    return not largest([is_broken])[0]


class StopTogether(Interruption):
    """Where nothing is to be saved within an epoch (``callbacks.interruption=null``): stops, and no more."""

    _saves = False


class TodaysSettings(Callback):
    """Lets a resumed training follow today's settings where Lightning would bring back the checkpoint's.

    Early stopping's patience is one. The average of weights that is switched off is another: a checkpoint
    holds it as the model, and the weights that training goes on from beside it. ``max_steps`` is a third.
    """

    def __init__(self) -> None:
        self._is_at_epochs_end = False
        self._max_steps = -1

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put today's settings into the state that the callbacks are about to load."""
        if trainer.state.fn != "fit":
            return
        epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        self._is_at_epochs_end = epoch["ready"] == epoch["started"] == epoch["processed"]
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        for callback in callbacks:
            state = checkpoint["callbacks"].get(callback.state_key)
            if isinstance(callback, EarlyStopping) and isinstance(state, dict):
                state |= {"patience": callback.patience, "stopped_epoch": 0}
        if "current_model_state" in checkpoint and not any(
            isinstance(callback, pl.callbacks.WeightAveraging) for callback in callbacks
        ):
            pl_module.load_state_dict(checkpoint["current_model_state"])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hide ``max_steps`` from what puts the training's position back.

        With it, Lightning takes a checkpoint of an epoch's end for one within the epoch (setter of its fit
        loop's ``restarting``), and comes to that end once more without its validation.
        """
        self._max_steps = trainer.max_steps
        if self._is_at_epochs_end:
            trainer.fit_loop.epoch_loop.max_steps = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put ``max_steps`` back."""
        trainer.fit_loop.epoch_loop.max_steps = self._max_steps


class RandomState(Callback):
    """Saves and restores the generators of Python, NumPy, torch and CUDA.

    Lightning saves none of them. They are kept as tensors and whole numbers, since NumPy's own state object
    cannot be loaded with ``weights_only=True``. With several processes the others draw numbers of their own,
    derived from those of the first: each image is to be dropped out in its own way. A checkpoint holds the
    state of each; one of as many processes resumes with them, another number derives them anew.
    """

    def __init__(self) -> None:
        self._restored: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every generator; all processes are to ask for it."""
        first, *others = gathered(self._own_state())
        return {**first, "others": others}

    @staticmethod
    def _own_state() -> dict[str, Any]:
        version, words, gauss = random.getstate()
        _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
        words_of_numpy = torch.from_numpy(np.asarray(keys).astype(np.int64))
        return {
            "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
            "numpy": [words_of_numpy, int(position), int(has_gauss), float(cached)],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the saved state until training starts: setting up still draws numbers.

        Raises:
            Exception: If it is none, before anything is trained or taken away.
        """
        states = [state_dict, *state_dict.get("others", [])]  # earlier versions had the first one's only
        for state in states:
            python, numpy = _states(state)
            random.Random().setstate(python)
            np.random.RandomState().set_state(numpy)
            torch.Generator().set_state(state["torch"].cpu())
        self._restored = states

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the saved state, also within an epoch, and part the ways of the processes."""
        states, self._restored = self._restored, []
        if len(states) == num_processes():
            _restore(states[trainer.global_rank])
            return
        if states:
            _restore(states[0])
        if trainer.global_rank > 0:
            torch.manual_seed(int(torch.randint(2**31, ())) + trainer.global_rank)


def _states(state: dict[str, Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the states of Python's and of NumPy's generator as these take them."""
    version, words, gauss = state["python"]
    keys, position, has_gauss, cached = state["numpy"]
    return (
        (version, tuple(words.tolist()), gauss),
        ("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached),
    )


def _restore(state: dict[str, Any]) -> None:
    python, numpy = _states(state)
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([values.cpu() for values in state["cuda"]])
