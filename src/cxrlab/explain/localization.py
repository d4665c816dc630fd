"""Does a heatmap point at the finding? Heatmaps against boxes, case by case.

Everything is measured on a grid of 256 by 256 cells, of which a box covers each that it touches. The point of
a heatmap is its highest cell (of several, see :func:`hottest`); its region, the cells at or above a
threshold.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from cxrlab.explain.box_cases import GRID, BoxCases, Floats, Mask, dilated

THRESHOLDS: Floats = np.round(np.arange(0.05, 1.0, 0.05), 2)
"""Heights of a heatmap, of which one is chosen for its region."""

_ROUNDING = 1e-6  # of the maximum: what was stretched bilinearly is equal up to this


@dataclass(frozen=True)
class Overlaps:
    """What heatmaps have in common with boxes; arrays hold one entry a case.

    Attributes:
        hits: 1 where the point lies in a box or no farther from it than the tolerance, 0 elsewhere, also
            where the heatmap is empty, ``(P,)``.
        energies: Share of the heat that lies in the boxes, ``(P,)``; 0 for an empty heatmap.
        common: Cells that the region shares with the boxes at each of ``THRESHOLDS``, ``(P, Q)``.
        regions: Cells of the region, ``(P, Q)``.
        areas: Cells of the boxes, ``(P,)``.
        num_empty: Heatmaps without any heat.
    """

    hits: Floats
    energies: Floats
    common: Floats
    regions: Floats
    areas: Floats
    num_empty: int

    @property
    def ious(self) -> Floats:
        """Intersection over union of region and boxes, ``(P, Q)``."""
        union = self.regions + self.areas[:, None] - self.common
        return np.asarray(self.common / np.maximum(union, 1))

    @property
    def iobbs(self) -> Floats:
        """Intersection over the region's area, ``(P, Q)``; 0 for an empty region."""
        return np.asarray(self.common / np.maximum(self.regions, 1))


def on_grid(heatmaps: Tensor) -> Floats:
    """Return heatmaps ``(N, H, W)`` as an array ``(N, 256, 256)``, stretched bilinearly."""
    if not len(heatmaps):
        return np.zeros((0, GRID, GRID))
    size = (GRID, GRID)
    resized = F.interpolate(heatmaps[:, None].float(), size=size, mode="bilinear", align_corners=False)
    return np.asarray(resized[:, 0].numpy(), dtype=np.float64)


def overlaps(cases: BoxCases, heatmaps: Iterable[Floats], tolerance: float) -> Overlaps:
    """Measure the heatmap of each case.

    Args:
        cases: P of them.
        heatmaps: The heatmap of each case, values in [0, 1], shapes ``(256, 256)``.
        tolerance: Of the pointing game, as a share of the image's side.
    """
    hits, energies, num_empty = np.zeros(len(cases)), np.zeros(len(cases)), 0
    common, regions = np.zeros((2, len(cases), len(THRESHOLDS)))
    for case, heat in zip(range(len(cases)), heatmaps, strict=True):
        mask = cases.mask(case)
        total = heat.sum()
        if total <= 0:
            num_empty += 1
            continue
        hits[case] = dilated(mask, tolerance)[hottest(heat)]
        energies[case] = heat[mask].sum() / total
        regions[case], common[case] = _at_or_above(heat), _at_or_above(heat[mask])
    return Overlaps(hits, energies, common, regions, cases.areas * GRID**2, num_empty)


def hottest(heat: Floats) -> tuple[int, int]:
    """Return the row and the column of a heatmap's highest cell.

    Of several, which a coarse map stretched to the grid has at its edges, it is the one nearest to their
    middle: the first in reading order would lie at the edge, and farther left and up than on the right and
    below.

    Example:
        >>> hottest(np.array([[0.0, 1, 1, 1], [0, 0, 0, 0]]))
        (0, 2)
    """
    places = np.argwhere(heat >= heat.max() * (1 - _ROUNDING))
    row, column = places[((places - places.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return int(row), int(column)


def _at_or_above(heat: Floats) -> Floats:
    """Return how many cells are at or above each of ``THRESHOLDS``."""
    levels = np.searchsorted(THRESHOLDS, heat.ravel(), side="right")
    counts = np.bincount(levels, minlength=len(THRESHOLDS) + 1)
    return np.asarray(counts[::-1].cumsum()[::-1][1:], dtype=np.float64)


def best_threshold(found: Overlaps, findings: npt.NDArray[np.object_]) -> int:
    """Return which of ``THRESHOLDS`` gives the highest IoU, the mean over findings of their mean."""
    means = [found.ious[findings == name].mean(axis=0) for name in dict.fromkeys(findings.tolist())]
    return int(np.mean(means, axis=0).argmax())


def crossfitted_thresholds(
    found: Overlaps, cases: BoxCases, num_folds: int, seed: int
) -> npt.NDArray[np.int64]:
    """Return for each case which of ``THRESHOLDS`` is best among the patients of the other folds, ``(P,)``.

    Args:
        found: Of the cases.
        cases: P of them, whose patients are dealt into folds at random.
        num_folds: At least 2; fewer where there are fewer patients.
        seed: Of the dealing.
    """
    patients, numbers = np.unique(cases.patients.astype(str), return_inverse=True)
    folds = np.random.default_rng(seed).permutation(len(patients))[numbers] % min(num_folds, len(patients))
    chosen = np.zeros(len(cases), dtype=np.int64)
    for fold in np.unique(folds):
        others = folds != fold
        part = others if others.any() else folds == fold  # a single patient: nothing else to choose by
        subset = Overlaps(
            found.hits[part],
            found.energies[part],
            found.common[part],
            found.regions[part],
            found.areas[part],
            found.num_empty,
        )
        chosen[folds == fold] = best_threshold(subset, cases.findings[part])
    return chosen


@dataclass(frozen=True)
class Pointing:
    """How well one source of heatmaps points, case by case, each ``(P,)``; NaN where it has no say.

    Attributes:
        hits: 1 where the point lies in a box; a share where the source is random.
        energies: Share of the heat inside the boxes.
        ious: Of its region and the boxes.
        iobbs: Share of its region that lies in the boxes.
    """

    hits: Floats
    energies: Floats
    ious: Floats
    iobbs: Floats

    @classmethod
    def at(cls, found: Overlaps, thresholds: npt.NDArray[np.int64]) -> "Pointing":
        """Return measured heatmaps with the region of each case at its own of ``THRESHOLDS``."""
        places = (np.arange(len(thresholds)), thresholds)
        return cls(found.hits, found.energies, found.ious[places], found.iobbs[places])

    @classmethod
    def of_region(
        cls, region: Mask, mask: Mask, hit: bool, energy: float
    ) -> tuple[float, float, float, float]:
        """Return the four measures of a single region."""
        common = float((region & mask).sum())
        union = float((region | mask).sum())
        return float(hit), energy, common / max(union, 1.0), common / max(float(region.sum()), 1.0)
