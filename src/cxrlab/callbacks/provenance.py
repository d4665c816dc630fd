"""provenance.json: with what a run was made: versions, commit, data, hardware, seconds per phase."""

import json
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from cxrlab.atomic import write_text
from cxrlab.provenance import environment


class Provenance(Callback):
    """Writes and updates the record; a resumed run adds a session to it.

    Args:
        path: The JSON file.
    """

    def __init__(self, *, path: str) -> None:
        self.path = Path(path)
        self._session: dict[str, Any] = {}
        self._starts: dict[str, float] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Note the start of a phase: fit, validate or test."""
        self._starts[stage] = time.perf_counter()
        if self._session:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._session = environment("cxrlab.train")
        self._session["hardware"] |= {
            "accelerator": type(trainer.accelerator).__name__,
            "processes": trainer.world_size,
            "precision": str(trainer.precision),
        }
        self._session |= {
            "data": {
                "name": data.manifest.name,
                "images": len(data.manifest),
                "patients": int(data.manifest.table["patient"].nunique()),
                "fingerprint": data.manifest.fingerprint(),
                "split": dict(getattr(data.split, "keywords", {})),
            },
            "seconds": dict(data.seconds),
        }
        self._write(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Note the seconds that a phase took."""
        self._session["seconds"][stage] = round(time.perf_counter() - self._starts[stage], 1)
        self._session["epochs"] = trainer.current_epoch
        if torch.cuda.is_available():
            self._session["peak_gpu_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        self._write(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        earlier = json.loads(self.path.read_text(encoding="utf-8"))["sessions"] if self.path.is_file() else []
        if earlier and earlier[-1]["started"] == self._session["started"]:
            earlier = earlier[:-1]
        write_text(self.path, json.dumps({"sessions": [*earlier, self._session]}, indent=2) + "\n")
