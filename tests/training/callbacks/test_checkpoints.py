from pathlib import Path

import torch

from cxrlab.training.callbacks.checkpoints import AtomicCheckpointIO, Checkpoint


def callback(folder: Path) -> Checkpoint:
    return Checkpoint(dirpath=str(folder), filename="best", monitor="val/auroc", mode="max")


def test_the_state_names_no_folder_and_fits_another_one(tmp_path: Path):
    first = callback(tmp_path / "old")
    best = str(tmp_path / "old" / "best.ckpt")
    first.best_model_path = first.kth_best_model_path = best
    first.best_k_models = {best: torch.tensor(0.9)}
    first.best_model_score = torch.tensor(0.9)
    state = first.state_dict()
    assert str(tmp_path) not in repr(state)
    second = callback(tmp_path / "new")
    second.load_state_dict(state)
    assert second.best_model_path == second.kth_best_model_path == str(tmp_path / "new" / "best.ckpt")
    assert second.best_k_models == {second.best_model_path: torch.tensor(0.9)}
    assert second.best_model_score == torch.tensor(0.9)
    assert second.last_model_path == ""


def test_a_checkpoint_is_written_beside_its_place(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/nowhere")
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 3}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 3}
    assert list(path.parent.iterdir()) == [path]
