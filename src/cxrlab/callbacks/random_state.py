"""Random state in the checkpoint, so that a resumed run goes on with the numbers it would have drawn."""

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


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
        """Keep the saved state until training starts: setting up still draws numbers."""
        self._restored = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the saved state, also within an epoch, and part the ways of the processes."""
        if self._restored is not None:
            _restore(self._restored)
            self._restored = None
        if trainer.global_rank > 0:
            torch.manual_seed(int(torch.randint(2**31, ())) + trainer.global_rank)


def _restore(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
