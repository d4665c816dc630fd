"""Images that are the same, or nearly: hashes and pixels come in, pairs and groups of rows go out.

``overlap``, which compares two data sets, stands above :mod:`cxrlab.data.dataset`: it is imported by name.
"""

from cxrlab.data.duplicates.alignment import differences, thumbnails
from cxrlab.data.duplicates.hashing import HASH_WORDS, perceptual_hash
from cxrlab.data.duplicates.search import find_across, find_near_duplicates, identical_groups, linked_groups

__all__ = [
    "HASH_WORDS",
    "differences",
    "find_across",
    "find_near_duplicates",
    "identical_groups",
    "linked_groups",
    "perceptual_hash",
    "thumbnails",
]
