"""Checkpoints that survive a kill, a full temporary folder, and a run directory that is moved."""

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from cxrlab.errors import OutputError
from cxrlab.files import replacing

# Entries of Lightning's state that hold paths.
_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class Checkpoint(ModelCheckpoint):
    """Lightning's checkpoint callback, whose state names files within the run directory only.

    Lightning stores absolute paths, and forgets which epoch was the best when the folder was renamed. They
    would also tell whoever gets the checkpoint what folders its maker has.
    """

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
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save a checkpoint to a local path.

        Raises:
            OutputError: If it cannot be written; the file that was there is kept.
        """
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
