import random
from types import SimpleNamespace

import numpy as np
import pytorch_lightning as pl
import torch

from cxrlab.training.callbacks.resume import RandomState


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
