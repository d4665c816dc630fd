"""Boxes and what points at them: on a grid of 256 by 256 cells, of which a box covers each that it touches.

Findings with boxes; heatmaps measured against them, case by case; and what points without looking at the
image: chance, the centre, and where boxes usually are. The point of a heatmap is its highest cell (of
several, see :func:`hottest`); its region, the cells at or above a threshold.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from cxrlab.data.manifest import Manifest
from cxrlab.metrics.predictions import Floats

Mask = npt.NDArray[np.bool_]

GRID = 256

THRESHOLDS: Floats = np.round(np.arange(0.05, 1.0, 0.05), 2)
"""Heights of a heatmap, of which one is chosen for its region."""

HALF = 0.5
"""Share of its maximum from which a box-frequency map is its region."""

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
        is_wanted = manifest.boxes["image"].isin(row_of) & manifest.boxes["label"].isin(order)
        groups = manifest.boxes[is_wanted].groupby(["label", "image"], sort=False)
        cases = [
            (
                order[str(label)],
                row_of[image],
                str(label),
                group[["x", "y", "width", "height"]].to_numpy(float),
            )
            for (label, image), group in groups
        ]
        cases.sort(key=lambda case: case[:2])
        return cls(
            rows=np.array([row for _, row, _, _ in cases], dtype=np.int64),
            findings=np.array([finding for _, _, finding, _ in cases], dtype=object),
            patients=np.array([table["patient"].iloc[row] for _, row, _, _ in cases], dtype=object),
            boxes=tuple(boxes for _, _, _, boxes in cases),
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


def best_threshold(measured: Overlaps, findings: npt.NDArray[np.object_]) -> int:
    """Return which of ``THRESHOLDS`` gives the highest IoU, the mean over findings of their mean."""
    means = [measured.ious[findings == name].mean(axis=0) for name in dict.fromkeys(findings.tolist())]
    return int(np.mean(means, axis=0).argmax())


def crossfitted_thresholds(
    measured: Overlaps, cases: BoxCases, num_folds: int, seed: int
) -> npt.NDArray[np.int64]:
    """Return for each case which of ``THRESHOLDS`` is best among the patients of the other folds, ``(P,)``.

    Args:
        measured: Of the cases.
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
            measured.hits[part],
            measured.energies[part],
            measured.common[part],
            measured.regions[part],
            measured.areas[part],
            measured.num_empty,
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
    def at(cls, measured: Overlaps, thresholds: npt.NDArray[np.int64]) -> "Pointing":
        """Return measured heatmaps with the region of each case at its own of ``THRESHOLDS``."""
        places = (np.arange(len(thresholds)), thresholds)
        return cls(measured.hits, measured.energies, measured.ious[places], measured.iobbs[places])

    @classmethod
    def of_region(
        cls, region: Mask, mask: Mask, hit: bool, energy: float
    ) -> tuple[float, float, float, float]:
        """Return the four measures of a single region."""
        common = float((region & mask).sum())
        union = float((region | mask).sum())
        return float(hit), energy, common / max(union, 1.0), common / max(float(region.sum()), 1.0)


def uniform_chance(cases: BoxCases, tolerance: float) -> Pointing:
    """Return a point thrown anywhere, and a map that is the same everywhere: its region is the image."""
    areas = cases.areas
    hits = np.array([dilated(cases.mask(case), tolerance).mean() for case in range(len(cases))])
    return Pointing(hits, areas, areas, areas)


def image_centre(cases: BoxCases, tolerance: float) -> Pointing:
    """Return the centre of the image; its region is a box there, of the mean size of other patients' boxes.

    The region is undefined, and so is all but the point, where no other patient has a box of the finding.
    """
    rows = []
    for case in range(len(cases)):
        mask = cases.mask(case)
        hit = bool(dilated(mask, tolerance)[GRID // 2, GRID // 2])
        others = (cases.findings == cases.findings[case]) & (cases.patients != cases.patients[case])
        sizes = [cases.boxes[other][:, 2:] for other in np.flatnonzero(others)]
        if not sizes:
            rows.append((float(hit), np.nan, np.nan, np.nan))
            continue
        width, height = np.concatenate(sizes).mean(axis=0)
        region = box_mask([[HALF - width / 2, HALF - height / 2, width, height]])
        rows.append(Pointing.of_region(region, mask, hit, float(mask[region].mean())))
    return _pointing(rows)


def box_frequency(
    cases: BoxCases, tolerance: float, point: Callable[[Floats], tuple[int, int]] = hottest
) -> Pointing:
    """Return the map of how often other patients have a box of the finding in each cell.

    Its maximum is the point, chosen of several as a heatmap's is; the cells from half its maximum on are the
    region. Undefined where no other patient has a box of the finding.

    Args:
        cases: With boxes.
        tolerance: Of the pointing game, as a share of the image's side.
        point: Gives row and column of a map's maximum.
    """
    rows: list[tuple[float, float, float, float]] = [(np.nan,) * 4] * len(cases)
    for name in cases.names:
        of_finding = np.flatnonzero(cases.findings == name)
        total = _sum_of_boxes(cases, of_finding)
        for patient in dict.fromkeys(cases.patients[of_finding].tolist()):
            own = of_finding[cases.patients[of_finding] == patient]
            others = total - _sum_of_boxes(cases, own)
            if others.max() < 1:
                continue
            region, place = others >= HALF * others.max(), point(others)
            for case in own:
                mask = cases.mask(case)
                hit = bool(dilated(mask, tolerance)[place])
                rows[case] = Pointing.of_region(region, mask, hit, float(others[mask].sum() / others.sum()))
    return _pointing(rows)


def _sum_of_boxes(cases: BoxCases, chosen: npt.NDArray[np.int64]) -> Floats:
    """Return how many boxes cover each cell, ``(256, 256)``."""
    total = np.zeros((GRID, GRID))
    for case in chosen:
        for box in cases.boxes[case]:
            total += box_mask(box)
    return total


def _pointing(rows: list[tuple[float, float, float, float]]) -> Pointing:
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return Pointing(*columns)
