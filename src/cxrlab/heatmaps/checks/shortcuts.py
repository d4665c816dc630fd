"""Does a heatmap lie where no lung is? How much of it is outside the lungs, at the border, in the corners."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from cxrlab.data.lung_region import (
    LEAST_FOUND,
    LungRegion,
    Mask,
    border_mask,
    corner_mask,
    lung_region,
)
from cxrlab.heatmaps.cases import batches, read
from cxrlab.heatmaps.checks.boxes import on_grid
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.results import FlaggedZone, LungsResult
from cxrlab.heatmaps.task import ExplainTask
from cxrlab.metrics.bootstrap import MACRO, CaseBootstrap, Estimate, Names
from cxrlab.metrics.predictions import Floats

_MOST_EXAMPLES = 4
_ROUNDING = 1e-9


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
    if regions_found < LEAST_FOUND:
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
