import numpy as np
import pandas as pd
import pytest
from scipy.fft import dctn

from cxrlab.data.duplicates import hashing
from cxrlab.data.duplicates.hashing import (
    FIRST_RADIUS,
    HASH_WORDS,
    MOST_LOOKALIKES,
    RADIUS,
    find_candidates,
    mirrored_hash,
    perceptual_hash,
)


def noise(seed: int, size: int = 64, channels: int = 1) -> np.ndarray:
    """A smooth random image: its spectrum falls like that of a radiograph."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal((channels, size, size)))
    steepness = 1 + np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) * size
    image = np.fft.irfft2(spectrum / steepness**1.5, s=(size, size))
    return (128 + 40 * image / image.std()).clip(0, 255).astype(np.uint8)


def bits(words: np.ndarray) -> np.ndarray:
    return np.unpackbits(np.ascontiguousarray(words.astype("<u8")).view(np.uint8))


def distance(one: np.ndarray, other: np.ndarray) -> int:
    return int((bits(one) != bits(other)).sum())


@pytest.mark.parametrize("channels", [1, 3])
def test_the_bits_are_the_signs_of_the_lowest_frequencies(channels):
    image = noise(0, channels=channels)
    spectrum = dctn(image.mean(axis=0), type=2)
    frequencies = sorted(
        ((u, v) for u in range(18) for v in range(18) if u or v), key=lambda f: (f[0] ** 2 + f[1] ** 2, f[1])
    )
    expected = [spectrum[frequency] > 0 for frequency in frequencies[:256]]
    words = perceptual_hash(image)
    assert words.shape == (HASH_WORDS,)
    assert words.dtype == np.uint64
    assert bits(words).astype(bool).tolist() == expected


def test_brightness_and_contrast_leave_the_hash_alone():
    image = noise(1) // 2
    assert distance(perceptual_hash(image), perceptual_hash(image + 40)) == 0
    assert distance(perceptual_hash(image), perceptual_hash(2 * image)) == 0


def test_inverting_turns_every_bit():
    image = noise(2)
    assert distance(perceptual_hash(image), ~perceptual_hash(255 - image)) == 0


def test_the_hash_of_a_mirrored_image_follows_from_that_of_the_image():
    image = noise(3)
    assert distance(mirrored_hash(perceptual_hash(image)), perceptual_hash(image[:, :, ::-1])) == 0
    assert distance(perceptual_hash(image), perceptual_hash(image[:, :, ::-1])) > RADIUS


def test_the_size_hardly_matters():
    image = noise(4, size=128)
    halved = image.reshape(1, 64, 2, 64, 2).mean(axis=(2, 4)).astype(np.uint8)
    assert distance(perceptual_hash(image), perceptual_hash(halved)) <= 4


@pytest.mark.parametrize("level", [0, 100, 255])
def test_a_nearly_constant_image_has_no_hash(level):
    image = np.clip(level + np.random.default_rng(0).integers(-1, 2, (1, 64, 64)), 0, 255).astype(np.uint8)
    assert not perceptual_hash(image).any()


def with_bits_turned(words: np.ndarray, rng: np.random.Generator, first: int, rest: int) -> np.ndarray:
    turned = bits(words).astype(bool)
    turned[rng.choice(64, first, replace=False)] ^= True
    turned[64 + rng.choice(192, rest, replace=False)] ^= True
    return np.packbits(turned).view("<u8").astype(np.uint64)


def by_brute_force(ones: np.ndarray, others: np.ndarray | None) -> set[tuple[int, int, int, bool, bool]]:
    found = set()
    for row, one in enumerate(ones):
        for column, other in enumerate(ones if others is None else others):
            if others is None and column <= row:
                continue
            for mirrored, words in ((False, one), (True, mirrored_hash(one))):
                for inverted, target in ((False, other), (True, ~other)):
                    if distance(words[:1], target[:1]) <= FIRST_RADIUS and distance(words, target) <= RADIUS:
                        found.add((row, column, distance(words, target), mirrored, inverted))
    return found


def as_set(pairs: pd.DataFrame) -> set[tuple[int, int, int, bool, bool]]:
    return set(pairs.itertuples(index=False, name=None))


@pytest.fixture
def hashes() -> np.ndarray:
    """60 random hashes, and copies of some at, and one beyond, the limits."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 2**64, (60, 4), dtype=np.uint64)
    drawn[30] = with_bits_turned(drawn[3], rng, FIRST_RADIUS, RADIUS - FIRST_RADIUS)
    drawn[31] = with_bits_turned(drawn[4], rng, FIRST_RADIUS, RADIUS - FIRST_RADIUS + 1)
    drawn[32] = with_bits_turned(drawn[5], rng, FIRST_RADIUS + 1, 0)
    drawn[33] = ~with_bits_turned(drawn[6], rng, FIRST_RADIUS, 40)
    drawn[34] = mirrored_hash(with_bits_turned(drawn[7], rng, 5, 5))
    drawn[35] = ~mirrored_hash(drawn[8])
    drawn[36] = drawn[9]
    return drawn


@pytest.mark.parametrize("tile", [(32, 8192), (7, 11)])
def test_lookalikes_are_those_of_a_search_of_all_pairs(hashes, tile, monkeypatch):
    monkeypatch.setattr(hashing, "_ROWS", tile[0])
    monkeypatch.setattr(hashing, "_COLUMNS", tile[1])
    within = as_set(find_candidates(hashes, None))
    assert {pair[:2] for pair in within} == {(3, 30), (6, 33), (7, 34), (8, 35), (9, 36)}
    assert within == by_brute_force(hashes, None)
    assert as_set(find_candidates(hashes[:30], hashes[20:])) == by_brute_force(hashes[:30], hashes[20:])


def test_images_without_a_hash_are_like_no_other(hashes):
    hashes[[10, 11, 12]] = 0
    assert not find_candidates(hashes, None)[["one", "other"]].isin([10, 11, 12]).any(axis=None)
    assert find_candidates(hashes[10:13], hashes[10:13]).empty


def test_a_row_keeps_its_closest_lookalikes():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 2**64, 4, dtype=np.uint64)
    others = np.stack([with_bits_turned(one, rng, 0, turned) for turned in range(50, 0, -1)])
    pairs = find_candidates(one[None], others)
    assert sorted(pairs["distance"]) == list(range(1, MOST_LOOKALIKES + 1))


@pytest.mark.parametrize("count", [0, 1])
def test_one_image_or_none_has_no_lookalikes(count):
    pairs = find_candidates(np.ones((count, 4), dtype=np.uint64), None)
    assert pairs.columns.tolist() == ["one", "other", "distance", "mirrored", "inverted"]
    assert pairs.empty
