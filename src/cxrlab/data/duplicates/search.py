"""Images that show the same exposure: files of the same bytes, and pictures that are nearly the same.

Near-identical means one exposure, encoded anew, resized, cropped by up to 2 % at each side, of a brightness,
contrast or gamma that is 10 % off, mirrored left to right, or inverted. Another exposure of the same patient
is not, however alike; of drawn phantoms, whose anatomy is the same in each, some are taken for it. Of copies
with a new border of 2 % one in four is missed, and larger crops mostly are. Each pair that is reported was
compared itself: likeness is never passed on.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cxrlab.data.duplicates.alignment import differences, thumbnails
from cxrlab.data.duplicates.hashing import Hashes, find_candidates

# Differences seen on chest_xray (1,304 images copied), nih (300) and malaria cells (600), stretched to 224
# px, 2026-11-22. The largest of copies: JPEG of quality 50 to 90 0.013; half the size and back 0.006, cells
# 0.035; contrast and gamma +-10 % 0.011; 2 % cut off each side 0.020; 10 % darker 0.037, and 0.052 in one
# of nih where that clips the lungs to black. The smallest of others: 0.125 among 6,249 pairs of one patient
# and above 0.2 among 689 candidates (chest_xray), 0.126 (cells). Synthetic phantoms (400 patients, 128 px),
# whose anatomy is drawn once a patient, have 93 pairs of one patient from 0.005 on, and none of two patients.
MOST_DIFFERENT = 0.05
# Smaller images of different patients are alike: 64 is the size in which pictures are compared.
SMALLEST_SIZE = 64
_PAIRS_A_TASK = 256
# Fewer images may well be copies of one.
_MANY = 10


class Pixels(Protocol):
    """Images that are indexed by an array of rows, as those of a cache are."""

    def __getitem__(self, rows: npt.NDArray[np.intp], /) -> npt.NDArray[np.uint8]:
        """Return the images of ``rows``, shape ``(n, C, H, W)``."""
        ...


def identical_groups(digests: Sequence[str]) -> list[list[int]]:
    """Return the rows whose files have the same bytes: groups of two or more, each in rising order.

    Args:
        digests: One a row; the empty one stands for an unknown file and equals no other.

    Example:
        >>> identical_groups(["a", "b", "a", "", ""])
        [[0, 2]]
    """
    names = pd.Series(list(digests), dtype=object)
    is_copied = (names.duplicated(keep=False) & (names != "")).to_numpy(dtype=bool)
    rows: dict[str, list[int]] = {}
    for row in np.flatnonzero(is_copied).tolist():
        rows.setdefault(digests[row], []).append(row)
    return list(rows.values())


def find_near_duplicates(
    hashes: Hashes, pixels: Pixels, *, digests: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return the pairs of near-identical images within one data set.

    Args:
        hashes: See :func:`cxrlab.data.duplicates.hashing.perceptual_hash`, shape ``(N, HASH_WORDS)``.
        pixels: The images of the same rows.
        digests: Those of the files' bytes. Of files with the same bytes only the first takes part, so that
            no pair of them is reported; without digests, such pairs are, with a difference of 0.

    Returns:
        Columns ``one`` and ``other`` (rows, one < other), ``distance`` (bits of 256), ``difference`` (up to
        0.05, see :func:`cxrlab.data.duplicates.alignment.differences`), ``mirrored`` and ``inverted``
        (whether the other shows the one so); sorted by rows.
    """
    hashes = hashes.copy()
    for group in identical_groups(digests or []):
        hashes[group[1:]] = 0
    return _confirm(find_candidates(hashes, None), pixels, pixels)


def find_across(hashes: Hashes, pixels: Pixels, other_hashes: Hashes, other_pixels: Pixels) -> pd.DataFrame:
    """Return the images of one data set that are in another, files of the same bytes among them.

    Args:
        hashes: Those of the one set, shape ``(N, HASH_WORDS)``.
        pixels: Its images; the two sets may differ in size and channels.
        other_hashes: Those of the other set, shape ``(M, HASH_WORDS)``.
        other_pixels: Its images.

    Returns:
        As of :func:`find_near_duplicates`; ``one`` is a row of the one set, ``other`` of the other.
    """
    return _confirm(find_candidates(hashes, other_hashes), pixels, other_pixels)


def _confirm(candidates: pd.DataFrame, pixels: Pixels, other_pixels: Pixels) -> pd.DataFrame:
    def difference(start: int) -> npt.NDArray[np.float32]:
        return _differences(candidates.iloc[start : start + _PAIRS_A_TASK], pixels, other_pixels)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        tables = list(threads.map(difference, range(0, len(candidates), _PAIRS_A_TASK)))
    columns = ["one", "other", "distance", "difference", "mirrored", "inverted"]
    pairs = candidates.assign(difference=np.concatenate([np.empty(0, dtype=np.float32), *tables]))[columns]
    pairs = pairs[pairs["difference"] <= MOST_DIFFERENT].sort_values(["one", "other", "difference"])
    # A symmetric picture may be found as it is and mirrored.
    return pairs.drop_duplicates(["one", "other"]).reset_index(drop=True)


def _differences(pairs: pd.DataFrame, pixels: Pixels, other_pixels: Pixels) -> npt.NDArray[np.float32]:
    small = []
    for column, source in (("one", pixels), ("other", other_pixels)):
        rows, places = np.unique(pairs[column].to_numpy(dtype=np.intp), return_inverse=True)
        small.append(thumbnails(np.asarray(source[rows]))[places])
    ones, others = small
    mirrored, inverted = (pairs[name].to_numpy(dtype=bool) for name in ("mirrored", "inverted"))
    others[mirrored] = others[mirrored, :, ::-1]
    others[inverted] *= -1  # without the offset, which no comparison sees
    return differences(ones, others)


def mostly_alike(pairs: pd.DataFrame, num_images: int) -> npt.NDArray[np.bool_]:
    """Return which images are in one chain of near-identical ones that takes in more than half of all.

    No radiographs are so: they were decoded wrongly, or are too small to tell.

    Args:
        pairs: Columns ``one`` and ``other``.
        num_images: How many there are.

    Returns:
        Shape ``(num_images,)``; none where there is no such chain, or it has fewer than ten images.
    """
    one, other = pairs["one"].to_numpy(dtype=np.intp), pairs["other"].to_numpy(dtype=np.intp)
    num_linked = len(np.union1d(one, other))
    if 2 * num_linked <= num_images or num_linked < _MANY:
        return np.zeros(num_images, dtype=bool)
    linked = coo_array((np.ones(len(one), dtype=bool), (one, other)), shape=(num_images, num_images))
    _, members = connected_components(linked, directed=False)
    counts = np.bincount(members)
    largest = int(counts.argmax())
    if 2 * counts[largest] <= num_images or counts[largest] < _MANY:
        return np.zeros(num_images, dtype=bool)
    return np.asarray(members == largest)


def linked_groups(patients: Sequence[str], links: Iterable[tuple[int, int]]) -> npt.NDArray[np.object_]:
    """Return a group for each row, such that patients who share an image are in one.

    A split by these groups can't separate copies of an image. Here, likeness is passed on: if patients A
    and B share an image, and B and C another, all three must stay together.

    Args:
        patients: One a row.
        links: Pairs of rows that show the same exposure.

    Returns:
        The patient's name where it is linked to no other; otherwise the smallest name of those linked,
        whatever the order of rows and links; shape ``(N,)``.

    Example:
        >>> linked_groups(["c", "b", "a", "c"], [(0, 1)]).tolist()
        ['b', 'b', 'a', 'b']
    """
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while (above := leader.get(name, name)) != name:
            leader[name] = leader.get(above, above)  # halves the path for the next search
            name = above
        return name

    for one, other in links:
        first, second = sorted((find(patients[one]), find(patients[other])))
        leader[second] = first
    groups = np.empty(len(patients), dtype=object)
    group_of_linked = {name: find(name) for name in list(leader)}
    groups[:] = [group_of_linked.get(name, name) for name in patients]
    return groups
