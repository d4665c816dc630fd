"""A hash of what an image shows, and the search for images whose hashes are close.

The bits are the signs of the 256 lowest frequencies of the image's cosine transform. A change of brightness
or contrast keeps them, an inverted image has all of them turned, and a mirrored one every odd horizontal
frequency: copies of these kinds are found without a hash of their own.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.duplicates.sorted_search import neighbours

Hashes = npt.NDArray[np.uint64]

HASH_WORDS = 4
"""Words of 64 bits; the first holds the lowest frequencies."""

# Bits of 256 in which two hashes differ, on chest_xray (5,216 images) and nih (300), stretched to 224 px,
# 2026-11-22. 99 % of copies have at most: JPEG of quality 50: 7 and 6; brightness, contrast, gamma +-10 %: 18
# and 23; 2 % cut off each side: 49 and 62. One in 1e5 of unrelated pairs has 55 and 60 or fewer.
RADIUS = 60
# The same in the first word: 99 % of copies cut by 2 % have 10 and 13 or fewer. Both radii together find all
# copies that are not cropped, and 99.9 and 96 % of those cut by 2 % each side.
FIRST_RADIUS = 12
# Bounds memory and time where a set holds thousands of look-alikes; radiographs have a few each.
MOST_LOOKALIKES = 32
# Up to so many pairs all are compared: those of 131,072 images, half a minute of one core. Beyond, the time
# would grow with the square.
MOST_COMPARED = 2**34
# Then there are so many candidates an image, on average: some 2,000 are compared by their pixels in a second
# of one core, where one or two hundred images are decoded.
MOST_AN_IMAGE = 2

_NUM_FREQUENCIES = 18
# Grey levels of standard deviation: below it there is noise only, whose signs say nothing.
_FLAT = 2.0
# A block of words that stays in a core's own memory.
_ROWS = 32
_COLUMNS = 8192

_VERTICAL, _HORIZONTAL = np.divmod(np.arange(_NUM_FREQUENCIES**2), _NUM_FREQUENCIES)
# By rising frequency, without the mean.
_ORDER = np.lexsort((_HORIZONTAL, _VERTICAL**2 + _HORIZONTAL**2))[1 : 64 * HASH_WORDS + 1]


def _packed(bits: npt.NDArray[np.bool_]) -> Hashes:
    return np.packbits(bits).view("<u8").astype(np.uint64)


_ODD = _packed(_HORIZONTAL[_ORDER] % 2 == 1)


@lru_cache(maxsize=8)
def _cosines(size: int) -> npt.NDArray[np.float32]:
    """Return the lowest rows of the DCT-II of ``size`` samples, shape ``(18, size)``."""
    angles = np.pi * np.outer(np.arange(_NUM_FREQUENCIES), np.arange(size) + 0.5) / size
    return np.asarray(np.cos(angles) / size, dtype=np.float32)


def perceptual_hash(image: npt.NDArray[np.uint8]) -> Hashes:
    """Return 256 bits that are nearly the same for every copy of an exposure.

    Args:
        image: Any number of channels, which are averaged, shape ``(C, H, W)``.

    Returns:
        Shape ``(HASH_WORDS,)``; all zero for an image that is nearly constant, which is like no other.

    Example:
        >>> ramp = np.arange(64, dtype=np.uint8)[None, None].repeat(64, axis=1)
        >>> distance = np.bitwise_xor(perceptual_hash(ramp), perceptual_hash(2 * ramp + 9))
        >>> distance.tolist()
        [0, 0, 0, 0]
    """
    grey = image.sum(axis=0, dtype=np.float32) / len(image)
    if grey.std() < _FLAT:
        return np.zeros(HASH_WORDS, dtype=np.uint64)
    height, width = grey.shape
    spectrum = _cosines(height) @ grey @ _cosines(width).T
    # An exact zero, as in a pattern that does not change from top to bottom, must not hang on rounding.
    return _packed(spectrum.ravel()[_ORDER] > 1e-4)


def mirrored_hash(hashes: Hashes) -> Hashes:
    """Return the hashes of the same images mirrored left to right, shape ``(..., HASH_WORDS)``."""
    return hashes ^ _ODD


def find_candidates(hashes: Hashes, others: Hashes | None) -> pd.DataFrame:
    """Return the pairs of images whose hashes are close, as candidates to compare by their pixels.

    Every pair is compared in its first word, and those that are close there in all words: 112,120 images
    take some seconds, and twice as many four times as long. So beyond 131,072 images, or as many pairs of two
    sets, only neighbours in sorted orders are compared: see :mod:`cxrlab.data.duplicates.sorted_search`, and
    docs/background/scale.md for what that finds.

    Args:
        hashes: Shape ``(N, HASH_WORDS)``.
        others: Those of another set, ``(M, HASH_WORDS)``; None for the pairs within the one, each once.

    Returns:
        Columns ``one``, ``other`` (rows), ``distance`` (bits), ``mirrored`` and ``inverted`` (how the other
        one resembles the one). A row has at most ``MOST_LOOKALIKES`` of them as ``one``: the closest.
    """
    rows = np.flatnonzero(hashes.any(axis=1))
    columns = rows if others is None else np.flatnonzero(others.any(axis=1))
    queries, targets = hashes[rows], (hashes if others is None else others)[columns]
    if len(queries) * len(targets) > MOST_COMPARED:
        return _named(_neighbours(queries, None if others is None else targets), rows, columns)
    first = np.ascontiguousarray(targets[:, 0])

    def search(start: int) -> npt.NDArray[np.int64]:
        candidates = _search(
            queries[start : start + _ROWS], targets, first, start if others is None else None
        )
        candidates[:, 0] += start
        return candidates

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        tables = list(threads.map(search, range(0, len(queries), _ROWS)))
    return _named(np.concatenate([np.empty((0, 5), dtype=np.int64), *tables]), rows, columns)


def _named(
    table: npt.NDArray[np.int64], rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]
) -> pd.DataFrame:
    """Return candidates with the rows of the images in place of those that were compared."""
    pairs = pd.DataFrame({"one": rows[table[:, 0]], "other": columns[table[:, 1]], "distance": table[:, 2]})
    return pairs.assign(mirrored=table[:, 3].astype(bool), inverted=table[:, 4].astype(bool))


def _neighbours(queries: Hashes, others: Hashes | None) -> npt.NDArray[np.int64]:
    """Return the candidates that sorting finds, as :func:`_search` does."""
    both = queries if others is None else np.concatenate([queries, others])
    table = neighbours(
        both,
        None if others is None else len(queries),
        _ODD,
        first_radius=FIRST_RADIUS,
        radius=RADIUS,
        most=MOST_LOOKALIKES,
        most_in_all=MOST_AN_IMAGE * len(queries),
    )
    if others is not None:
        table[:, 1] -= len(queries)
    return table


def _search(queries: Hashes, targets: Hashes, first: Hashes, offset: int | None) -> npt.NDArray[np.int64]:
    """Return the candidates of a few queries.

    Args:
        queries: Shape ``(Q, HASH_WORDS)``.
        targets: Shape ``(T, HASH_WORDS)``.
        first: Their first words, shape ``(T,)``.
        offset: Where the queries are targets too, the column of the first of them: only later columns count.

    Returns:
        Query, column, distance, mirrored, inverted; shape ``(P, 5)``.
    """
    kinds = np.concatenate([queries, mirrored_hash(queries)])
    candidates = [np.empty((0, 5), dtype=np.int64)]
    for start in range(offset or 0, len(targets), _COLUMNS):
        row, column = _close(kinds[:, 0], first[start : start + _COLUMNS])
        column += start
        distance = np.bitwise_count(kinds[row] ^ targets[column]).sum(axis=1, dtype=np.int64)
        inverted = distance > 32 * HASH_WORDS
        distance = np.where(inverted, 64 * HASH_WORDS - distance, distance)
        mirrored, query = np.divmod(row, len(queries))
        kept = distance <= RADIUS
        if offset is not None:
            kept &= column > query + offset
        candidates.append(np.stack([query, column, distance, mirrored, inverted], axis=1)[kept])
    return _closest(np.concatenate(candidates))


def _close(words: Hashes, others: Hashes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return row and column of the words that are close to one another, or to the other's inverse."""
    bits = np.bitwise_count(words[:, None] ^ others)
    # Both in one comparison: a number up to the radius wraps round and becomes a large one.
    bits -= np.uint8(FIRST_RADIUS + 1)
    row, column = np.divmod(np.flatnonzero(bits >= np.uint8(63 - 2 * FIRST_RADIUS)), len(others))
    return row, column


def _closest(candidates: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Keep the ``MOST_LOOKALIKES`` closest of each query."""
    candidates = candidates[np.lexsort((candidates[:, 1], candidates[:, 2], candidates[:, 0]))]
    begins = np.searchsorted(candidates[:, 0], candidates[:, 0])
    kept: npt.NDArray[np.int64] = candidates[np.arange(len(candidates)) - begins < MOST_LOOKALIKES]
    return kept
