"""Findings with boxes, on a grid of 256 by 256 cells: what heatmaps are measured against."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import distance_transform_edt

from cxrlab.data.manifest import Manifest

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

GRID = 256

_ROUNDING = 1e-6


def box_mask(boxes: npt.ArrayLike) -> Mask:
    """Return the cells that any of some boxes touches, shape ``(256, 256)``.

    Args:
        boxes: ``x, y, width, height`` as fractions of the image, shape ``(K, 4)``.

    Example:
        >>> int(box_mask([[0.0, 0.0, 1.5 / 256, 1 / 256]]).sum())
        2
    """
    mask = np.zeros((GRID, GRID), dtype=bool)
    for x, y, width, height in np.asarray(boxes, dtype=np.float64).reshape(-1, 4):
        left, top = (int(np.floor(place * GRID + _ROUNDING)) for place in (x, y))
        right, bottom = (int(np.ceil(place * GRID - _ROUNDING)) for place in (x + width, y + height))
        mask[top:bottom, left:right] = True
    return mask


def dilated(mask: Mask, tolerance: float) -> Mask:
    """Return the cells within a distance of a mask, given as a share of the image's side."""
    radius = round(tolerance * GRID)
    if radius == 0 or not mask.any():
        return mask
    return np.asarray(distance_transform_edt(~mask) <= radius)


@dataclass(frozen=True)
class BoxCases:
    """Pairs of an image and a finding of which there are boxes; several of them in one image are one case.

    Attributes:
        rows: Row of the manifest of each case, shape ``(P,)``.
        findings: Name of the label of each.
        patients: Patient of each.
        boxes: Boxes of each, as fractions of the image, shapes ``(K, 4)``.
    """

    rows: npt.NDArray[np.int64]
    findings: npt.NDArray[np.object_]
    patients: npt.NDArray[np.object_]
    boxes: tuple[Floats, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, manifest: Manifest, rows: Sequence[int], labels: Sequence[str]) -> "BoxCases":
        """Return the cases among some rows of a manifest and some of its labels, by label and row."""
        table = manifest.table
        row_of = {table["image"].iloc[row]: row for row in rows}
        order = {label: place for place, label in enumerate(labels)}
        known = manifest.boxes["image"].isin(row_of) & manifest.boxes["label"].isin(order)
        groups = manifest.boxes[known].groupby(["label", "image"], sort=False)
        found = [
            (
                order[str(label)],
                row_of[image],
                str(label),
                group[["x", "y", "width", "height"]].to_numpy(float),
            )
            for (label, image), group in groups
        ]
        found.sort(key=lambda one: one[:2])
        patients = [table["patient"].iloc[row] for _, row, _, _ in found]
        return cls(
            rows=np.array([row for _, row, _, _ in found], dtype=np.int64),
            findings=np.array([finding for _, _, finding, _ in found], dtype=object),
            patients=np.array(patients, dtype=object),
            boxes=tuple(boxes for _, _, _, boxes in found),
        )

    def mask(self, case: int) -> Mask:
        """Return the cells of a case's boxes, shape ``(256, 256)``."""
        return box_mask(self.boxes[case])

    @cached_property
    def areas(self) -> Floats:
        """Share of the image that each case's boxes cover, shape ``(P,)``."""
        return np.array([self.mask(case).mean() for case in range(len(self))])

    @property
    def names(self) -> list[str]:
        """The findings, each once, in the order of the labels."""
        return list(dict.fromkeys(self.findings.tolist()))

    def counts(self) -> pd.DataFrame:
        """Return cases and patients by finding."""
        frame = pd.DataFrame({"finding": self.findings, "patient": self.patients})
        grouped = frame.groupby("finding", sort=False)["patient"]
        return pd.DataFrame({"cases": grouped.size(), "patients": grouped.nunique()})
