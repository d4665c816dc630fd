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
from pytorch_lightning.utilities.exceptions import SIGTERMException

from cxrlab.errors import ConfigError
from cxrlab.files import RunDir

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# That the other processes of a training have to end, once this one stops.
_SECONDS_TO_STOP = 10


class Interruption(Callback):
    """Writes ``last.ckpt`` every few minutes, and when Ctrl-C or SIGTERM asks the training to stop.

    Both signals let the batch at work come to its end first, and at the end of an epoch its validation; a
    second one stops at once. A training of several processes keeps whole epochs only: each of its
    processes would have to be told of the signal at the same batch.

    Args:
        run_dir: The run directory.
        minutes: Time from one checkpoint to the next; what a power cut or kill -9 can cost.

    Raises:
        ConfigError: If ``minutes`` is not above 0.
    """

    def __init__(self, *, run_dir: str, minutes: float = 10) -> None:
        if not minutes > 0:
            raise ConfigError(f"callbacks.interruption.minutes={minutes} must be above 0.")
        self.run_dir = RunDir(Path(run_dir))
        self.minutes = minutes
        self._received: signal.Signals | None = None
        self._handlers: dict[signal.Signals, Any] = {}
        self._saved_at = 0.0
        self._position = "the last finished epoch"

    @property
    def _path(self) -> Path:
        return self.run_dir.last_checkpoint

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen to the signals, and come last: a checkpoint holds what the others make of a batch.

        The average of the weights (``callbacks=ema``), for one: without its update of the batch, a resumed
        training would leave it out.
        """
        # A list of its own, since Lightning is going through the old one.
        trainer.callbacks = [callback for callback in trainer.callbacks if callback is not self] + [self]  # type: ignore[attr-defined]
        self._saved_at = time.monotonic()
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            # What is ignored stays so: a job in the background is not to be stopped by Ctrl-C.
            heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._handlers = {number: signal.signal(number, self._note) for number in heard}

    def _note(self, number: int, _: FrameType | None) -> None:
        received = signal.Signals(number)
        if self._received is not None:
            self._stop()
        self._received = received
        name = "Ctrl-C" if received is signal.SIGINT else received.name
        log.warning(
            "\n%s: stopping at the end of this batch, or of the validation; again stops at once.", name
        )

    def _stop(self) -> None:
        if self._received is signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time to, and stop where that was asked for."""
        is_due = time.monotonic() - self._saved_at >= 60 * self.minutes
        if trainer.world_size > 1 or not (self._received or is_due) or not _is_safe(trainer, outputs):
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(self._path)
        self._saved_at = time.monotonic()
        self._position = (
            f"epoch {trainer.current_epoch}, batch {batch_idx + 1} of {trainer.num_training_batches}"
        )
        if self._received:
            self._stop()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop where that was asked for during validation, now that the epoch's checkpoint is written."""
        if trainer.current_epoch > 0:
            self._position = "the last finished epoch"
        if self._received:
            self._stop()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back, and stop where that was asked for."""
        self._position = "the last finished epoch"
        self._give_back()
        if self._received:
            self._stop()

    def _give_back(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Tell the user what is kept; the exception goes on its way."""
        self._give_back()
        if not trainer.is_global_zero:
            return
        reason = {KeyboardInterrupt: "Ctrl-C", SystemExit: "SIGTERM", SIGTERMException: "SIGTERM"}.get(
            type(exception), type(exception).__name__
        )
        if not self._path.is_file():
            if reason in ("Ctrl-C", "SIGTERM"):
                exception.is_explained = True  # type: ignore[attr-defined]
                log.warning(
                    "\nStopped by %s before anything was saved: there is nothing to go on from.", reason
                )
            return
        exception.is_explained = True  # type: ignore[attr-defined]
        log.warning(
            "\nStopped by %s. %s is kept in %s. Resume with: cxrlab train resume=%s",
            reason, self._position[0].upper() + self._position[1:], self._path, self.run_dir,
        )  # fmt: skip


def _is_safe(trainer: pl.Trainer, outputs: Any) -> bool:
    """Tell whether a checkpoint of this moment can be resumed to the very same result.

    Not in the middle of accumulated gradients, which no checkpoint holds; not after an epoch's last batch,
    where Lightning would leave out the validation; and not with a loss that has broken the weights.
    """
    loop = trainer.fit_loop.epoch_loop
    if loop.batch_progress.is_last_batch or loop._num_ready_batches_reached() or loop._should_accumulate():
        return False
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    return not isinstance(loss, torch.Tensor) or bool(torch.isfinite(loss))


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


class StopTogether(Callback):
    """Stops all processes of a training at the same batch, once SIGTERM has reached one of them.

    One that left alone would leave the others waiting for it for ever; so would Lightning's own handler,
    which sends to the others from wherever the signal met it. What is evaluated is stopped at once.
    """

    def __init__(self) -> None:
        self._trainer: pl.Trainer | None = None
        self._is_received = False
        self._handler: Any = None

    def _listen(self, trainer: pl.Trainer) -> None:
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            self._trainer = trainer
            before = signal.signal(signal.SIGTERM, self._note)
            if self._handler is None:
                self._handler = before

    def _note(self, number: int, _: FrameType | None) -> None:
        trainer = self._trainer
        if trainer is None or self._is_received:
            raise SystemExit(128 + number)
        self._is_received = True
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(number)  # what this process has started
        if trainer.state.fn != "fit":
            raise SystemExit(128 + number)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen."""
        self._listen(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, also where a trained network is evaluated."""
        self._listen(trainer)

    on_test_start = on_validation_start

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if one of the processes was asked to."""
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(self._is_received, all=False):
            raise SystemExit(128 + signal.SIGTERM)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Wait for the other processes, and end those that wait for this one."""
        for process in getattr(trainer.strategy.launcher, "procs", ()):
            try:
                process.wait(_SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signal back."""
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
        self._handler = None


class RandomState(Callback):
    """Saves and restores the generators of Python, NumPy, torch and CUDA.

    Lightning saves none of them. They are kept as tensors and whole numbers, since NumPy's own state object
    cannot be loaded with ``weights_only=True``. With several processes the others draw numbers of their own,
    derived from those of the first: each image is to be augmented in its own way. A resumed run of several
    processes is therefore as good as the uninterrupted one, but not equal to it.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every generator."""
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
        python, numpy = _states(state_dict)
        random.Random().setstate(python)
        np.random.RandomState().set_state(numpy)
        torch.Generator().set_state(state_dict["torch"].cpu())
        self._restored = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the saved state, also within an epoch, and part the ways of the processes."""
        if self._restored is not None:
            _restore(self._restored)
            self._restored = None
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
