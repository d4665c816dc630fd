"""What loggers get of a training: a store that makes files and folders of names among them."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger

from cxrlab.train import train
from cxrlab.training.loggers import names_for_stores


class FileStore(Logger):
    """Keeps each metric in a file of its name, as MLflow's file store does; a hyperparameter likewise."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self.root = Path(root)

    @property
    def name(self) -> str:
        return "store"

    @property
    def version(self) -> str:
        return ""

    def _append(self, kind: str, name: str, line: str) -> None:
        path = self.root / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as stream:
            stream.write(line + "\n")

    def log_hyperparams(self, params: Any, *args: Any) -> None:
        for name, value in params.items():
            self._append("params", name, str(value))

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            self._append("metrics", name, f"{step} {float(value)}")


def test_a_store_that_makes_files_of_names_gets_everything(tiny, tmp_path):
    cfg = tiny(tmp_path / "run", "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "seed=7")
    OmegaConf.set_struct(cfg, False)
    cfg.logger.store = {"_target_": f"{__name__}.FileStore", "root": str(tmp_path / "store")}
    train(cfg)
    metrics, params = tmp_path / "store" / "metrics", tmp_path / "store" / "params"
    names = {str(path.relative_to(metrics)) for path in metrics.rglob("*") if path.is_file()}
    assert {"val/auroc", "val/loss", "train/loss", "train/loss_step", "lr", "test/auroc"} <= names
    for label in ("Effusion", "Nodule", "Opacity", "Cardiomegaly"):
        assert {f"val/auroc_by_label/{label}", f"test/auroc_by_label/{label}"} <= names
    table = pd.read_csv(tmp_path / "run" / "metrics.csv")
    stored = [
        float(line.split()[1]) for line in (metrics / "val/auroc_by_label/Nodule").read_text().splitlines()
    ]
    assert stored == pytest.approx(table["val/auroc/Nodule"].tolist())
    assert not [name for name in table if name.startswith(("test/", "train/loss_step")) or "by_label" in name]
    steps = (metrics / "train/loss_step").read_text().splitlines()
    assert len(steps) == table["step"].max() + 1
    assert (params / "seed").read_text() == "7\n"
    assert float((params / "learning_rate").read_text()) == cfg.optimizer.lr
    assert (params / "data").read_text() == "synthetic\n"
    assert {"batch_size", "data_fingerprint", "data_split", "labels"} <= {
        path.name for path in params.iterdir()
    }
    written = "".join(path.read_text() for path in params.iterdir())
    assert str(tmp_path) not in written
    assert "00001" not in written  # no patient


def test_names_of_labels_are_no_folders_and_stay_apart():
    labels = ["Nodule", "Nodule/Mass", "Nodule_Mass", "nodule_mass", "..", "Ödem 100%", "Nodule/Mass/left"]
    stored = names_for_stores([f"val/auroc/{label}" for label in labels])
    assert len({name.lower() for name in stored.values()}) == len(labels)
    assert all(name.count("/") == 2 for name in stored.values())
    assert all(name.rpartition("/")[2].strip(".") != "" for name in stored.values())
