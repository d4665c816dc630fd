"""Checkpoints that survive a kill, a full temporary folder, and a run directory that is moved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from cxrlab.errors import OutputError
from cxrlab.files import replacing
from cxrlab.models.lora import merged

# What use needs: the weights, what describes them, and the epoch that they are of.
_FOR_USE = frozenset(
    {"epoch", "global_step", "pytorch-lightning_version", "state_dict", "hparams_name", "hyper_parameters"}
)

# Entries of Lightning's state that hold paths.
_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class Checkpoint(ModelCheckpoint):
    """Lightning's checkpoint callback, whose state names files within the run directory only.

    Lightning stores absolute paths, and forgets which epoch was the best when the folder was renamed. They
    would also tell whoever gets the checkpoint what folders its maker has.

    With ``save_weights_only=True`` a checkpoint holds what use needs, and no optimizer's state, in half of
    the space or less; low-rank updates are merged into the weights. Lightning's own would leave out the
    average of ``callbacks=ema`` as well.
    """

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        saves_weights_only = self.save_weights_only
        self.save_weights_only = (
            False  # what callbacks make of the weights goes in; the rest is left out then
        )
        try:
            with _for_use(trainer.strategy.checkpoint_io, is_wanted=saves_weights_only):
                super()._save_checkpoint(trainer, filepath)
        finally:
            self.save_weights_only = saves_weights_only

    def state_dict(self) -> dict[str, Any]:
        """Return the state with names in place of paths."""
        state = super().state_dict()
        state |= {name: Path(state[name]).name for name in _PATHS}
        state["best_k_models"] = {Path(path).name: score for path, score in state["best_k_models"].items()}
        return state | {"dirpath": ""}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state for the folder that this callback writes to.

        Lightning deletes a file that is named here once a better epoch comes, so that a stranger's checkpoint
        must not name one elsewhere: of each path its last part is taken.
        """
        folder = Path(str(self.dirpath))
        state = state_dict | {
            name: str(folder / Path(state_dict[name]).name) if state_dict[name] else "" for name in _PATHS
        }
        state["best_k_models"] = {
            str(folder / Path(path).name): score for path, score in state_dict["best_k_models"].items()
        }
        super().load_state_dict(state | {"dirpath": self.dirpath})


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it.

    Lightning writes to the system's temporary folder first, which may be full, or another disk, from where
    the file is copied and can be cut short.

    Attributes:
        for_use: Write what use needs only; training cannot go on from it.
    """

    for_use = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save a checkpoint to a local path.

        Raises:
            OutputError: If it cannot be written; the file that was there is kept.
        """
        if self.for_use:
            checkpoint = {key: value for key, value in checkpoint.items() if key in _FOR_USE}
            checkpoint["state_dict"] = merged(checkpoint["state_dict"])
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except (OSError, RuntimeError) as error:  # torch's writer tells a full disk by a RuntimeError
                reason = str(error).splitlines()[0]
                raise OutputError(
                    f"The checkpoint {target} could not be written: {reason}. Check space and permissions "
                    "there; outputs go elsewhere with hydra.run.dir=<folder>."
                ) from error


@contextmanager
def _for_use(checkpoint_io: object, *, is_wanted: bool) -> Iterator[None]:
    """Let a writer leave out what only training needs; one of another kind writes everything."""
    if not (is_wanted and isinstance(checkpoint_io, AtomicCheckpointIO)):
        yield
        return
    checkpoint_io.for_use = True
    try:
        yield
    finally:
        checkpoint_io.for_use = False
