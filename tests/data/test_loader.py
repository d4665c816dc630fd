from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrlab.data.loader import Batches, ImageStore, Loader

COUNT = 50
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT + 20, 1, 8, 8), dtype=np.uint8)
POSITIONS = np.random.default_rng(1).permutation(COUNT + 20)[:COUNT]
TARGETS = torch.arange(COUNT * 2, dtype=torch.float32).view(COUNT, 2)


def loader(
    *,
    image_device: str = "disk",
    shuffle: bool = True,
    rank: int = 0,
    num_processes: int = 1,
    device: str = "cpu",
) -> Loader:
    store = ImageStore(PIXELS.copy(), POSITIONS, image_device=image_device, device=torch.device(device))
    batches = Batches(
        list(range(COUNT)), batch_size=8, shuffle=shuffle, seed=3, rank=rank, num_processes=num_processes
    )
    return Loader(store, TARGETS, batches)


def orders(one: Loader, num_epochs: int) -> list[list[int]]:
    found = []
    for epoch in range(num_epochs):
        one.sampler.set_epoch(epoch)
        found += [batch["index"].tolist() for batch in one]
    return found


@pytest.mark.parametrize("image_device", ["disk", "host", "auto"])
def test_a_batch_holds_the_images_and_targets_of_its_rows(image_device: str):
    for batch in loader(image_device=image_device):
        rows = batch["index"].numpy()
        np.testing.assert_array_equal(batch["images"], PIXELS[POSITIONS[rows]])
        assert batch["images"].dtype == torch.uint8
        assert torch.equal(batch["targets"], TARGETS[batch["index"]])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("image_device", ["disk", "host", "gpu", "auto"])
def test_the_gpu_gets_the_same_images(image_device: str):
    for batch in loader(image_device=image_device, device="cuda"):
        expected = PIXELS[POSITIONS[batch["index"].cpu().numpy()]]
        np.testing.assert_array_equal(batch["images"].cuda().cpu(), expected)
        assert batch["images"].is_cuda or batch["images"].is_pinned()


def test_the_order_is_a_function_of_seed_and_epoch():
    assert orders(loader(), 2) == orders(loader(), 2)
    epochs = orders(loader(), 2)
    half = len(epochs) // 2
    assert epochs[:half] != epochs[half:]
    for epoch in (epochs[:half], epochs[half:]):
        assert sorted(chain(*epoch)) == list(range(COUNT))


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_a_resumed_epoch_goes_on_with_the_next_batch(stop: int):
    whole = orders(loader(), 2)
    first = loader()
    seen = []
    for batch in first:
        seen.append(batch["index"].tolist())
        if len(seen) == stop:
            break
    second = loader()
    second.load_state_dict(first.state_dict())
    assert len(second) == len(first)
    assert seen + orders(second, 2) == whole


def test_a_batch_keeps_its_seed_when_resumed_and_others_have_others():
    whole = [batch["seed"] for batch in loader()]
    second = loader()
    second.load_state_dict({"num_yielded": 4})
    assert [batch["seed"] for batch in second] == whole[4:]
    assert len(set(whole)) == len(whole)
    assert not set(whole) & {batch["seed"] for batch in loader(rank=1, num_processes=2)}
    later = loader()
    later.sampler.set_epoch(1)
    assert not set(whole) & {batch["seed"] for batch in later}
    torch.Generator().manual_seed(max(whole))


def test_processes_share_the_training_images_and_evaluation_is_never_padded():
    rows = [orders(loader(shuffle=False, rank=rank, num_processes=3), 1) for rank in range(3)]
    assert sorted(chain(*chain(*rows))) == list(range(COUNT))
    shares = [set(chain(*orders(loader(rank=rank, num_processes=3), 1))) for rank in range(3)]
    assert sum(map(len, shares)) == len(set.union(*shares)) == COUNT - COUNT % 3
    assert len({len(share) for share in shares}) == 1


def test_what_a_training_writes_into_a_batch_does_not_reach_the_cache(tmp_path: Path):
    np.save(tmp_path / "pixels.npy", PIXELS)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="c")
    store = ImageStore(mapped, POSITIONS, image_device="disk", device=torch.device("cpu"))
    store.gather(torch.arange(COUNT)).zero_()
    np.testing.assert_array_equal(store.gather(torch.arange(COUNT)), PIXELS[POSITIONS])
    np.testing.assert_array_equal(np.load(tmp_path / "pixels.npy"), PIXELS)


def test_an_epoch_that_is_left_early_leaves_no_thread_behind():
    import threading

    iterator = iter(loader())
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]
