import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cxrlab.data.loader import Batches

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


@given(count=st.integers(2, 500), batch_size=st.integers(2, 40))
def test_no_batch_is_left_with_one_image(count: int, batch_size: int):
    sizes = [len(batch) for batch in Batches(list(range(count)), batch_size=batch_size, shuffle=True, seed=0)]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 2 or batch_size == 2 or count < 4


def test_the_order_is_a_function_of_seed_and_epoch():
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
