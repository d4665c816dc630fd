from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cxrlab.data.loader import Batches, ImageStore, Loader, balanced_weights

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


SIZES = {"count": st.integers(1, 200), "batch_size": st.integers(1, 40), "num_processes": st.integers(1, 5)}


def rows_of(batches: Batches) -> list[int]:
    return [row for batch in batches for row in batch]


@given(**SIZES)
def test_evaluation_sees_every_image_once_and_every_process_the_same_number_of_batches(
    count: int, batch_size: int, num_processes: int
):
    shards = [
        Batches(
            list(range(count)),
            batch_size=batch_size,
            shuffle=False,
            seed=0,
            rank=rank,
            num_processes=num_processes,
        )
        for rank in range(num_processes)
    ]
    seen = [row for shard in shards for row in rows_of(shard)]
    assert sorted(seen) == list(range(count))
    assert len({len(list(shard)) for shard in shards}) == 1
    assert all(len(list(shard)) == len(shard) for shard in shards)
    assert all(len(batch) <= batch_size for shard in shards for batch in shard)


@given(**SIZES, epoch=st.integers(0, 5))
def test_training_repeats_no_image_and_leaves_out_fewer_than_the_processes(
    count: int, batch_size: int, num_processes: int, epoch: int
):
    shards = [
        Batches(
            list(range(count)),
            batch_size=batch_size,
            shuffle=True,
            seed=0,
            rank=rank,
            num_processes=num_processes,
        )
        for rank in range(num_processes)
    ]
    for shard in shards:
        shard.set_epoch(epoch)
    seen = [row for shard in shards for row in rows_of(shard)]
    assert len(seen) == len(set(seen)) == count - count % num_processes
    assert len({tuple(len(batch) for batch in shard) for shard in shards}) == 1


@given(
    batches=st.integers(1, 6), share=st.integers(1, 8), num_processes=st.integers(2, 4), drawn=st.booleans()
)
def test_a_step_of_several_processes_has_the_images_of_one_with_the_same_global_batch(
    batches: int, share: int, num_processes: int, drawn: bool
):
    count = batches * share * num_processes

    def steps(rank: int, number: int) -> list[list[int]]:
        sampler = Batches(
            list(range(count // 2 + 1 if drawn else count)), batch_size=share * num_processes // number,
            shuffle=True, seed=0, rank=rank, num_processes=number, steps=batches if drawn else None,
        )  # fmt: skip
        return list(sampler)

    together = [
        list(chain(*of_all))
        for of_all in zip(*(steps(rank, num_processes) for rank in range(num_processes)), strict=True)
    ]
    assert [sorted(step) for step in together] == [sorted(step) for step in steps(0, 1)]


@given(count=st.integers(2, 500), batch_size=st.integers(2, 40))
def test_no_batch_is_left_with_one_image(count: int, batch_size: int):
    sizes = [len(batch) for batch in Batches(list(range(count)), batch_size=batch_size, shuffle=True, seed=0)]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2 or batch_size == 2 or count < 4


def test_the_order_of_batches_is_a_function_of_seed_and_epoch():
    def order(seed: int, epoch: int) -> list[int]:
        batches = Batches(list(range(50)), batch_size=8, shuffle=True, seed=seed)
        batches.set_epoch(epoch)
        return rows_of(batches)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)
    assert sorted(order(0, 3)) == list(range(50))


@given(count=st.integers(1, 40), steps=st.integers(1, 12), num_processes=st.integers(1, 3))
def test_steps_of_an_epoch_are_as_many_as_asked_for_and_repeat_images_only_where_they_must(
    count: int, steps: int, num_processes: int
):
    shards = [
        Batches(
            list(range(count)),
            batch_size=4,
            shuffle=True,
            seed=0,
            rank=rank,
            num_processes=num_processes,
            steps=steps,
        )
        for rank in range(num_processes)
    ]
    assert all([len(batch) for batch in shard] == [4] * steps for shard in shards)
    seen = [row for shard in shards for row in rows_of(shard)]
    if len(seen) <= count:
        assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(count))


def test_weights_decide_how_often_an_image_is_drawn():
    weights = np.array([3.0, 0.0, 1.0, 0.0])
    batches = Batches([5, 6, 7, 8], batch_size=100, shuffle=True, seed=0, steps=100, weights=weights)
    drawn = np.bincount(rows_of(batches), minlength=9)
    assert drawn[[6, 8]].tolist() == [0, 0]
    # 10,000 draws of 0.75: four standard deviations are 0.017.
    assert abs(drawn[5] / 10_000 - 0.75) < 0.017


def test_weights_alone_draw_as_many_images_as_there_are():
    batches = Batches(list(range(10)), batch_size=4, shuffle=True, seed=0, weights=np.ones(10))
    assert sum(len(batch) for batch in batches) == 10


def test_a_single_label_gives_as_many_positives_as_negatives():
    targets = np.array([[1.0]] + [[0.0]] * 9)
    weights = balanced_weights(targets)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == pytest.approx(0.5)
    np.testing.assert_allclose(weights[1:], 0.5 / 9)


def test_exclusive_classes_come_equally_often():
    targets = np.eye(3)[[0] * 6 + [1] * 3 + [2]]
    weights = balanced_weights(targets)
    np.testing.assert_allclose([weights[:6].sum(), weights[6:9].sum(), weights[9]], 1 / 3)


def test_a_finding_is_drawn_first_then_an_image_that_shows_it():
    # Two images show A, one of them B too; two show nothing. A, B and "none" are each drawn a third of the time.
    targets = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, np.nan], [0.0, 0.0]])
    np.testing.assert_allclose(balanced_weights(targets), [1 / 6, 1 / 6 + 1 / 3, 1 / 6, 1 / 6])


def test_a_finding_that_nobody_has_takes_no_share():
    targets = np.array([[1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(balanced_weights(targets), [0.5, 0.5])
