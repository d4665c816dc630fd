import numpy as np
import pandas as pd
import pytest

from cxrlab.data.duplicates import hashing, sorted_search
from cxrlab.data.duplicates.hashing import find_candidates, mirrored_hash

WITHIN = ["one", "other", "distance", "mirrored", "inverted"]


def alike(count: int, seed: int = 0) -> np.ndarray:
    """Hashes whose bits go together, as those of radiographs do: many are near one another."""
    rng = np.random.default_rng(seed)
    return signs(rng.standard_normal((count, 10)) @ rng.standard_normal((10, 256)))


def signs(values: np.ndarray) -> np.ndarray:
    return np.packbits(values > 0, axis=1).view("<u8").astype(np.uint64)


def with_copies(hashes: np.ndarray, count: int, turned: int) -> np.ndarray:
    """Copies of the first hashes at the end of others; plain, mirrored, inverted and both in turn."""
    rng = np.random.default_rng(1)
    bits = np.unpackbits(hashes[:count].view(np.uint8), axis=1)
    for row in bits:
        row[rng.choice(256, turned, replace=False)] ^= 1
    copies = np.packbits(bits, axis=1).view("<u8").astype(np.uint64)
    copies[1::4] = mirrored_hash(copies[1::4])
    copies[2::4] = ~copies[2::4]
    copies[3::4] = ~mirrored_hash(copies[3::4])
    return np.concatenate([hashes, copies])


def rows_of(pairs: pd.DataFrame) -> set[tuple[object, ...]]:
    return set(pairs[WITHIN].itertuples(index=False, name=None))


@pytest.fixture
def sorting(monkeypatch):
    """Sets of any size are sorted, and nothing that is found is left out."""
    monkeypatch.setattr(hashing, "MOST_COMPARED", 0)
    monkeypatch.setattr(hashing, "MOST_AN_IMAGE", 1000)


def exact(hashes: np.ndarray, others: np.ndarray | None = None) -> set[tuple[object, ...]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "MOST_COMPARED", 2**62)
        return rows_of(find_candidates(hashes, others))


@pytest.mark.usefixtures("sorting")
def test_sorting_finds_what_comparing_every_pair_does():
    hashes = with_copies(alike(600), 40, turned=20)
    expected = exact(hashes)
    assert len(expected) > 500
    found = rows_of(find_candidates(hashes, None))
    assert found <= expected
    assert len(found) >= 0.98 * len(expected)
    copies = {pair for pair in expected if pair[1] == pair[0] + 600 and pair[2] <= 20}
    assert len(copies) == 40
    assert copies <= found


@pytest.mark.usefixtures("sorting")
def test_neighbours_that_are_all_others_leave_nothing_out(monkeypatch):
    hashes = with_copies(alike(300), 40, turned=30)
    monkeypatch.setattr(
        sorted_search.neighbours, "__kwdefaults__", {"num_orders": 64, "num_neighbours": 1000}
    )
    assert rows_of(find_candidates(hashes, None)) == exact(hashes)


@pytest.mark.usefixtures("sorting")
def test_sorting_finds_the_images_of_one_set_in_another():
    ones, others = alike(400), with_copies(alike(500, seed=5), 0, turned=0)
    both = with_copies(ones, 60, turned=15)
    others = np.concatenate([others, both[400:]])
    expected = exact(ones, others)
    found = rows_of(find_candidates(ones, others))
    assert found <= expected
    assert len(found) >= 0.98 * len(expected)
    assert {(row, 500 + row) for row in range(60)} <= {pair[:2] for pair in found}


@pytest.mark.usefixtures("sorting")
def test_copies_are_found_among_many_look_alikes():
    hashes = with_copies(alike(20_000), 200, turned=12)
    found = {pair[:2] for pair in rows_of(find_candidates(hashes, None))}
    assert {(row, 20_000 + row) for row in range(200)} <= found


@pytest.mark.usefixtures("sorting")
def test_black_images_are_like_no_other():
    hashes = with_copies(alike(100), 10, turned=5)
    hashes[[3, 50]] = 0
    assert not find_candidates(hashes, None)[["one", "other"]].isin([3, 50]).any(axis=None)


@pytest.mark.usefixtures("sorting")
def test_a_row_begins_no_more_pairs_than_its_closest_ones(monkeypatch):
    monkeypatch.setattr(hashing, "MOST_LOOKALIKES", 4)
    hashes = np.repeat(alike(1), 16, axis=0)
    hashes[:, 3] ^= np.arange(16, dtype=np.uint64)
    pairs = find_candidates(hashes, None)
    assert pairs[pairs["one"] == 0]["other"].tolist() == [1, 2, 4, 8]
    assert pairs["one"].value_counts().max() == 4


@pytest.mark.usefixtures("sorting")
def test_of_many_candidates_the_closest_are_kept(monkeypatch):
    hashes = with_copies(alike(600), 40, turned=20)
    monkeypatch.setattr(hashing, "MOST_AN_IMAGE", 100)
    every = find_candidates(hashes, None)
    monkeypatch.setattr(hashing, "MOST_AN_IMAGE", 1)
    closest = find_candidates(hashes, None)
    assert len(every) > len(hashes) == len(closest)
    assert rows_of(closest) < rows_of(every)
    assert sorted(closest["distance"]) == sorted(every["distance"])[: len(closest)]


@pytest.mark.usefixtures("sorting")
@pytest.mark.parametrize("count", [0, 1])
def test_one_hash_or_none_has_no_candidate(count):
    pairs = find_candidates(np.ones((count, 4), dtype=np.uint64), None)
    assert list(pairs) == WITHIN
    assert pairs.empty


@pytest.mark.usefixtures("sorting")
def test_comparisons_grow_as_the_number_of_images_does(monkeypatch):
    counted = []
    count_bits = np.bitwise_count

    def counting(words):
        counted.append(len(words))
        return count_bits(words)

    monkeypatch.setattr(np, "bitwise_count", counting)
    numbers = []
    for size in (2_000, 8_000):
        counted.clear()
        hashes = np.random.default_rng(0).integers(0, 2**64, (size, 4), dtype=np.uint64)
        find_candidates(hashes, None)
        numbers.append(sum(counted))
    most = sorted_search.NUM_ORDERS * sorted_search.NUM_NEIGHBOURS
    assert 2_000 * most * 0.9 < numbers[0] < 2_000 * most * 1.1
    assert 3.9 < numbers[1] / numbers[0] < 4.1
