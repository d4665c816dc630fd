"""Does a heatmap lie where no lung is? How much of it is outside the lungs, at the border, in the corners.

The lungs' bounding region is found by thresholding, and is rough. Against the lungs that the synthetic
radiographs are drawn with, the box has an intersection over union of 0.92 in the median (0.84 in the lower
quartile); of real radiographs, about 97 in 100 of the NIH set and 64 in 100 of children's give a region, and
the others get the usual place.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track
from scipy.ndimage import find_objects, gaussian_filter, label
from torch import Tensor

from cxrlab.heatmaps.cases import batches, read
from cxrlab.heatmaps.checks.boxes import GRID, Mask, on_grid
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.results import FlaggedZone, LungsResult
from cxrlab.heatmaps.task import ExplainTask
from cxrlab.metrics.bootstrap import MACRO, CaseBootstrap, Estimate, Names
from cxrlab.metrics.predictions import Floats

_BLUR, _SURROUNDINGS = 3.0, 48.0  # cells: of ribs and vessels, and of what a lung is darker than
_DARKEST = np.arange(0.5, 0.12, -0.03)  # shares of cells called dark, until two lungs stand apart
_LEAST_LUNG = 0.025  # of the image's area
_MOST_APART = 0.2  # of the image's side: heights of the middles of two lungs
_SIDES = ((0.4, 0.98), (0.3, 0.98))  # of the box around both: width and height
_USUAL = (0.12, 0.1, 0.88, 0.86)  # left, top, right, bottom: the medians of those that were found
_MOST_EXAMPLES = 4
_ROUNDING = 1e-9
_LEAST_FOUND = 0.25
"""Share of images with lungs below which nothing is said of them. Blood cells give 0.1, children 0.6."""


class LungRegion(NamedTuple):
    """A box around both lungs.

    Attributes:
        mask: Cells inside, ``(256, 256)``.
        is_found: Whether it was found in the image; where not, it is the usual place.
    """

    mask: Mask
    is_found: bool


def lung_region(image: Tensor) -> LungRegion:
    """Return the bounding region of the lungs in a frontal radiograph, roughly.

    What is darker than its surroundings is thresholded, ever lower, until two places that do not touch the
    border lie side by side, each large enough for a lung, in a box of plausible size. Where that never comes,
    the usual place is returned.

    Args:
        image: Decoded, values 0 to 255, shape ``(C, H, W)``.
    """
    grey = on_grid(image.float().mean(dim=0, keepdim=True))[0]
    contrast = gaussian_filter(grey, _BLUR) - gaussian_filter(grey, _SURROUNDINGS)
    for threshold in np.quantile(contrast, _DARKEST):
        box = _around_both(contrast < threshold)
        if box is not None:
            return LungRegion(_box(*box), True)
    return LungRegion(_box(*(round(end * GRID) for end in _USUAL)), False)


class _Place(NamedTuple):
    rows: slice
    columns: slice
    middle: tuple[float, float]


def _around_both(dark: Mask) -> tuple[int, int, int, int] | None:
    """Return left, top, right and bottom of the box around two dark places that may be the lungs."""
    places = list(_large_places(dark))
    sides = (
        [place for place in places if (place.middle[1] < GRID / 2) == is_left] for is_left in (True, False)
    )
    left, right = (next(iter(side), None) for side in sides)
    if left is None or right is None or abs(left.middle[0] - right.middle[0]) > _MOST_APART * GRID:
        return None
    top, bottom = min(left.rows.start, right.rows.start), max(left.rows.stop, right.rows.stop)
    box = (left.columns.start, top, right.columns.stop, bottom)
    lengths = ((box[2] - box[0]) / GRID, (bottom - top) / GRID)
    fits = all(low <= length <= high for length, (low, high) in zip(lengths, _SIDES, strict=True))
    return box if fits else None


def _large_places(dark: Mask) -> Iterator[_Place]:
    """Yield the connected places that do not touch the border and may be a lung, the largest first."""
    numbers, num_places = label(dark)
    sizes = np.bincount(numbers.ravel(), minlength=num_places + 1)
    sizes[np.unique(np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]]))] = 0
    sizes[0] = 0
    where = find_objects(numbers)
    for number in sizes.argsort(kind="stable")[::-1]:
        if sizes[number] < _LEAST_LUNG * GRID**2:
            return
        rows, columns = where[number - 1]
        inside = np.argwhere(numbers[rows, columns] == number).mean(axis=0)
        yield _Place(rows, columns, (rows.start + inside[0], columns.start + inside[1]))


def _box(left: int, top: int, right: int, bottom: int) -> Mask:
    mask = np.zeros((GRID, GRID), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def border_mask(width: float) -> Mask:
    """Return the cells of a frame along the edges, whose width is a share of the image's side."""
    mask = np.ones((GRID, GRID), dtype=bool)
    cells = round(width * GRID)
    mask[cells : GRID - cells, cells : GRID - cells] = False
    return mask


def corner_mask(side: float) -> Mask:
    """Return the cells of squares in the four corners, where text marks sit."""
    cells = round(side * GRID)
    ends = np.zeros(GRID, dtype=bool)
    ends[:cells], ends[GRID - cells :] = True, True
    return np.asarray(ends[:, None] & ends[None, :])


class Zones(NamedTuple):
    """Places of one image where a heatmap should be cold."""

    outside: Mask
    border: Mask
    corners: Mask

    @property
    def areas(self) -> Floats:
        """Shares of the image, shape ``(3,)``: what a heatmap that is the same everywhere has in them."""
        return np.array([mask.mean() for mask in self])


def zones(region: LungRegion, border: float, corner: float) -> Zones:
    """Return the zones of an image; lengths are shares of its side."""
    return Zones(~region.mask, border_mask(border), corner_mask(corner))


def energy_shares(heatmap: Floats, masks: Zones) -> Floats:
    """Return the share of a heatmap's energy in each zone, shape ``(3,)``; NaN for an empty heatmap.

    Args:
        heatmap: Shape ``(256, 256)``.
        masks: Of its image.
    """
    total = heatmap.sum()
    if total <= 0:
        return np.full(len(masks), np.nan)
    return np.array([heatmap[mask].sum() / total for mask in masks])


ZONES = Zones._fields


def check_shortcuts(explain_task: ExplainTask) -> tuple[LungsResult, list[Pair]]:
    """Return the share of each method's energy outside the lungs' bounding region, at the border, in corners.

    Where hardly any image has lungs, be it no radiograph of a chest, nothing is said of what lies outside.

    Returns:
        What was found, and the cases with the largest share in a zone that is flagged, by the first method.
    """
    settings = explain_task.settings
    cases = explain_task.sample(settings.num_located)
    shares, areas, regions_found = _measured(explain_task, cases)
    bootstrap = CaseBootstrap.of(
        [explain_task.patient(row) for row, _ in cases],
        num_resamples=settings.num_resamples,
        level=settings.level,
        seed=settings.seed,
    )
    empty = {method: float(np.isnan(values).all(axis=1).mean()) for method, values in shares.items()}
    if regions_found < _LEAST_FOUND:
        for values in (areas, *shares.values()):
            values[:, ZONES.index("outside")] = np.nan
    flagged = _flagged(shares, areas, bootstrap, settings.most_outside)
    mean_areas = [None if np.isnan(area) else float(area) for area in areas.mean(axis=0)]
    labels = np.array([explain_task.names[label] for _, label in cases], dtype=object)
    result = LungsResult(
        cases=len(cases),
        positives=explain_task.num_positive(cases),
        regions_found=regions_found,
        areas=dict(zip(ZONES, mean_areas, strict=True)),
        methods={method: _by_label(values, labels, bootstrap) for method, values in shares.items()},
        unlike=flagged,
        empty=empty,
    )
    first = settings.methods[0]
    return result, _examples(shares[first], cases, [flag.zone for flag in flagged if flag.method == first])


def _measured(explain_task: ExplainTask, cases: Sequence[Pair]) -> tuple[dict[str, Floats], Floats, float]:
    """Return shares of energy by method and areas of the zones, each ``(P, 3)``, and how many have lungs."""
    settings = explain_task.settings
    shares: dict[str, list[Floats]] = {method: [] for method in settings.methods}
    areas, is_found = [], []
    parts = list(batches(cases, settings.batch_size))
    for part in track(parts, "Heat outside the lungs", console=Console(stderr=True)):
        images, pairs = read(explain_task.images, part)
        regions = [lung_region(image) for image in images]
        masks = [zones(regions[image], settings.border, settings.corner) for image, _ in pairs]
        areas += [mask.areas for mask in masks]
        is_found += [regions[image].is_found for image, _ in pairs]
        for method, rows in shares.items():
            maps = on_grid(explain_task.explain(method)(images, pairs))
            rows += [energy_shares(heat, mask) for heat, mask in zip(maps, masks, strict=True)]
    by_method = {method: np.array(rows) for method, rows in shares.items()}
    return by_method, np.array(areas), float(np.mean(is_found))


def _by_label(values: Floats, labels: Names, bootstrap: CaseBootstrap) -> dict[str, dict[str, Estimate]]:
    rows = bootstrap.by_group(values, labels) | {MACRO: bootstrap.mean(values)}
    return {label: dict(zip(ZONES, row, strict=True)) for label, row in rows.items()}


def _flagged(
    shares: Mapping[str, Floats], areas: Floats, bootstrap: CaseBootstrap, most_outside: float
) -> list[FlaggedZone]:
    """Return where a method has more than an even map has, outside the lungs also more than a share."""
    flagged, can_vary = [], bootstrap.num_patients(np.arange(len(areas))) > 1
    for method, values in shares.items():
        mean, excess = bootstrap.mean(values), bootstrap.mean(values - areas, signed=True)
        for place, zone in enumerate(ZONES):
            share, least = mean[place].value, excess[place].low
            if least is None and can_vary:  # it does not vary
                least = excess[place].value
            if share is None or least is None or least <= _ROUNDING:
                continue
            if zone != "outside" or share > most_outside:
                flagged.append(FlaggedZone(method, zone))
    return flagged


def _examples(shares: Floats, cases: Sequence[Pair], flagged: Sequence[str]) -> list[Pair]:
    """Return the cases with the largest shares in the flagged zones."""
    if not flagged:
        return []
    places = [ZONES.index(zone) for zone in flagged]
    worst = np.nan_to_num(shares[:, places].max(axis=1), nan=-1.0)
    return [cases[place] for place in np.argsort(-worst, kind="stable")[:_MOST_EXAMPLES]]
