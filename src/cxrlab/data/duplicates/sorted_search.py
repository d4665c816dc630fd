"""Close hashes among hundreds of thousands: not every pair is compared, but neighbours in many sorted orders.

Two hashes that differ in few bits begin alike where the bits are put into an order that has those few at its
end. Sorted by such orders, drawn at random, they soon stand side by side. Each hash is compared with as many
neighbours in each order, however many hashes there are, so that the time grows as sorting does.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]

NUM_ORDERS = 64
NUM_NEIGHBOURS = 24
_SEED = 27
_BITS = 64
_ALL = np.uint64(2**64 - 1)
_INVERTED, _MIRRORED = 1, 2
# Candidates are thinned out once they are so many, as a multiple of those that may stay.
_SLACK = 2


def neighbours(
    hashes: Hashes,
    first_other: int | None,
    mirror: Hashes,
    *,
    first_radius: int,
    radius: int,
    most: int,
    most_in_all: int,
    num_orders: int = NUM_ORDERS,
    num_neighbours: int = NUM_NEIGHBOURS,
) -> Rows:
    """Return pairs of close hashes, nearly all of those that comparing every pair would.

    Args:
        hashes: Of one set, or of two, the one after the other; none is zero; shape ``(N, W)``.
        first_other: Row at which the second set begins, and pairs are of a row in either; None for one set.
        mirror: The bits that are turned in the hash of a mirrored image, shape ``(W,)``.
        first_radius: Bits in which the first words may differ.
        radius: Bits in which the hashes may.
        most: Pairs that a row may begin: the closest.
        most_in_all: Pairs that are returned: the closest. Those that are close by chance grow with the square
            of the rows, and each is compared by its pixels.
        num_orders: Orders of the bits.
        num_neighbours: Rows with which each is compared in each order.

    Returns:
        Row, later row, distance, mirrored, inverted; sorted by the first two; shape ``(P, 5)``.
    """
    num_rows = len(hashes) if first_other is None else first_other

    def search(bits: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
        return _in_order(hashes, bits, mirror, first_other, first_radius, radius, num_neighbours)

    keys, distances = np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint8)
    orders = _orders(mirror[0], num_orders)
    num_threads = os.cpu_count() or 1
    with ThreadPoolExecutor(num_threads) as threads:
        for start in range(0, num_orders, num_threads):  # some at a time, for what they find is merged
            found = list(threads.map(search, orders[start : start + num_threads]))
            keys = np.concatenate([keys, *(key for key, _ in found)])
            keys, places = np.unique(keys, return_index=True)
            distances = np.concatenate([distances, *(distance for _, distance in found)])[places]
            if len(keys) > _SLACK * most * num_rows:
                keys, distances = _thinned(keys, distances, most)
    keys, distances = _thinned(keys, distances, most)
    kept = np.sort(np.argsort(distances, kind="stable")[:most_in_all])
    keys, distances = keys[kept], distances[kept]
    kinds = keys & np.uint64(3)
    return np.stack(
        [
            (keys >> np.uint64(33)).astype(np.int64),
            (keys >> np.uint64(2) & np.uint64(2**31 - 1)).astype(np.int64),
            distances.astype(np.int64),
            (kinds & np.uint64(_MIRRORED) > 0).astype(np.int64),
            (kinds & np.uint64(_INVERTED) > 0).astype(np.int64),
        ],
        axis=1,
    )


def _thinned(
    keys: npt.NDArray[np.uint64], distances: npt.NDArray[np.uint8], most: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
    """Keep the ``most`` closest pairs that each row begins; ``keys`` rise, and still do."""
    rows = keys >> np.uint64(33)
    order = np.lexsort((keys, distances, rows))
    begins = np.searchsorted(rows, rows)  # ``rows`` rise, in that order too
    kept = np.sort(order[np.arange(len(keys)) - begins < most])
    return keys[kept], distances[kept]


def _orders(mirror: np.uint64, count: int) -> list[npt.NDArray[np.intp]]:
    """Draw orders of the bits; each begins with one that mirroring leaves, and one that it turns."""
    generator = np.random.default_rng(_SEED)
    is_turned = (mirror >> np.arange(_BITS, dtype=np.uint64) & np.uint64(1)).astype(bool)
    orders = []
    for _ in range(count):
        bits = generator.permutation(_BITS)
        begin = [int(bits[~is_turned[bits]][0]), int(bits[is_turned[bits]][0])]
        orders.append(np.array([*begin, *bits[~np.isin(bits, begin)]], dtype=np.intp))
    return orders


def _permuted(words: Hashes, bits: npt.NDArray[np.intp]) -> Hashes:
    """Return the words with their bits in another order, the first of ``bits`` at the highest place."""
    place_of_bit = np.empty(_BITS, dtype=np.uint64)
    place_of_bit[bits] = np.arange(_BITS - 1, -1, -1, dtype=np.uint64)
    octets = np.ascontiguousarray(words).astype("<u8").view(np.uint8).reshape(-1, 8)
    values = np.arange(256, dtype=np.uint64)
    permuted = np.zeros(len(words), dtype=np.uint64)
    for octet in range(8):
        moved = np.zeros(256, dtype=np.uint64)
        for bit in range(8):
            moved |= (values >> np.uint64(bit) & np.uint64(1)) << place_of_bit[8 * octet + bit]
        permuted |= moved[octets[:, octet]]
    return permuted


def _in_order(
    hashes: Hashes,
    bits: npt.NDArray[np.intp],
    mirror: Hashes,
    first_other: int | None,
    first_radius: int,
    radius: int,
    num_neighbours: int,
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
    """Return the close pairs among neighbours in one order: the rows and how they are alike, and distances.

    An image, its negative and their mirror images are given one and the same word, by inverting where the
    first bit is set, and mirroring where then the second is.
    """
    words = _permuted(hashes[:, 0], bits)
    turned = _permuted(mirror[:1], bits)[0]
    inverted = words >> np.uint64(63) > 0
    words[inverted] ^= _ALL
    mirrored = words >> np.uint64(62) > 0
    words[mirrored] ^= turned
    kinds = (inverted * _INVERTED + mirrored * _MIRRORED).astype(np.uint8)
    order = np.argsort(words)
    words, kinds = words[order], kinds[order]
    keys: list[npt.NDArray[np.uint64]] = [np.empty(0, dtype=np.uint64)]
    distances: list[npt.NDArray[np.uint8]] = [np.empty(0, dtype=np.uint8)]
    for step in range(1, min(num_neighbours, len(words) - 1) + 1):
        near = np.flatnonzero(np.bitwise_count(words[step:] ^ words[:-step]) <= first_radius)
        one, other = order[near], order[near + step]
        kind = kinds[near] ^ kinds[near + step]
        if first_other is not None:
            across = (one < first_other) != (other < first_other)
            one, other, kind = one[across], other[across], kind[across]
        one, other = np.minimum(one, other), np.maximum(one, other)
        distance = _distances(hashes, one, other, kind, mirror)
        close = distance <= radius
        pair = one[close].astype(np.uint64) << np.uint64(33) | other[close].astype(np.uint64) << np.uint64(2)
        keys.append(np.asarray(pair | kind[close].astype(np.uint64), dtype=np.uint64))
        distances.append(distance[close].astype(np.uint8))
    return np.concatenate(keys), np.concatenate(distances)


def _distances(
    hashes: Hashes, one: Rows, other: Rows, kind: npt.NDArray[np.uint8], mirror: Hashes
) -> npt.NDArray[np.int64]:
    """Return in how many bits hashes differ once the other is inverted and mirrored as its kind says."""
    differing = hashes[one] ^ hashes[other]
    differing[kind & _MIRRORED > 0] ^= mirror
    count = np.bitwise_count(differing).sum(axis=1, dtype=np.int64)
    return np.asarray(np.where(kind & _INVERTED > 0, _BITS * hashes.shape[1] - count, count))
