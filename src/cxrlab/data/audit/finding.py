"""What an audit looks at, and what it says of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.manifest import PARTS, Manifest

Severity = Literal["fault", "warning", "note"]
Mask = npt.NDArray[np.bool_]

# Enough to see what is meant; the whole list follows from the manifest.
NUM_EXAMPLES = 10


@dataclass(frozen=True)
class Finding:
    """One thing that a person should know about the data.

    Attributes:
        kind: What it is, in one word for programs, for instance ``patients_across_parts``.
        severity: "fault" makes the results untrue, "warning" may, "note" is worth knowing.
        message: One sentence with its numbers; no patient, image or path stands in it.
        count: How many images, patients, labels or groups it is about.
        images: Up to ten of the images.
        patients: Up to ten of the patients, where it is about patients.
        details: Up to ten further lines, for instance why a file cannot be read.
    """

    kind: str
    severity: Severity
    message: str
    count: int
    images: list[str] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Evidence:
    """The manifest with what was seen of its images.

    Attributes:
        manifest: One row an image.
        facts: One row for each of its rows, see :func:`cxrlab.data.audit.audit`.
        identical: Groups of rows whose files are equal to the byte.
        pairs: Columns ``one``, ``other``: rows whose pictures are nearly the same.
        missing: Listed images that are not on disk, or only how many.
        extra: Images on disk that no table lists.
        raw: The data set's own table as it was listed, or None.
    """

    manifest: Manifest
    facts: pd.DataFrame
    identical: list[list[int]]
    pairs: pd.DataFrame
    missing: int | Sequence[str]
    extra: Sequence[str]
    raw: pd.DataFrame | None

    @cached_property
    def parts(self) -> dict[str, Mask]:
        """Rows of each part; "all" of them where the manifest is not split."""
        part = self.manifest.table["part"].to_numpy(dtype=object)
        masks = {name: np.asarray(part == name, dtype=bool) for name in PARTS}
        there = {name: mask for name, mask in masks.items() if mask.any()}
        return there or {"all": np.ones(len(part), dtype=bool)}

    @cached_property
    def readable(self) -> Mask:
        """Rows whose file could be read."""
        return np.asarray(self.facts["error"].fillna("") == "", dtype=bool)

    def images(self, rows: Mask | list[int]) -> list[str]:
        """Return the images of the first ten of ``rows`` (a mask or row numbers)."""
        return [str(name) for name in self.manifest.table["image"].to_numpy()[rows][:NUM_EXAMPLES]]


def counted(number: int, noun: str) -> str:
    """Return the number with its noun.

    Example:
        >>> counted(1, "image"), counted(2500, "image")
        ('1 image', '2,500 images')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
