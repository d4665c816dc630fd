"""Does a heatmap lie where no lung is? By label, over a sample of positives, with the worst of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from cxrlab.explain.activation_maps import Pair
from cxrlab.explain.box_cases import Floats
from cxrlab.explain.case_bootstrap import MACRO, CaseBootstrap, Names
from cxrlab.explain.heatmap_stream import batches, read
from cxrlab.explain.localization import on_grid
from cxrlab.explain.material import Material
from cxrlab.explain.shortcuts import Zones, energy_shares, lung_region, zones

ZONES = Zones._fields
_MOST_EXAMPLES = 4
_LEAST_FOUND = 0.25
"""Share of images with lungs below which nothing is said of them. Blood cells give 0.1, children 0.6."""


def check_shortcuts(material: Material) -> tuple[dict[str, Any], list[Pair]]:
    """Return the share of each method's energy outside the lungs' bounding region, at the border, in corners.

    Where hardly any image has lungs, be it no radiograph of a chest, nothing is said of what lies outside.

    Returns:
        What stands as ``shortcuts`` in ``explanation.json``, and the cases with the largest share in a zone
        that is flagged, by the first method.
    """
    settings = material.settings
    cases = material.sample(settings.num_located)
    shares: dict[str, list[Floats]] = {method: [] for method in settings.methods}
    areas, is_found = [], []
    parts = list(batches(cases, settings.batch_size))
    for part in track(parts, "Heat outside the lungs", console=Console(stderr=True)):
        images, pairs = read(material.images, part)
        regions = [lung_region(image) for image in images]
        masks = [zones(regions[image], settings.border, settings.corner) for image, _ in pairs]
        areas += [one.areas for one in masks]
        is_found += [regions[image].is_found for image, _ in pairs]
        for method, row in shares.items():
            found = on_grid(material.explain(method)(images, pairs))
            row += [energy_shares(heat, one) for heat, one in zip(found, masks, strict=True)]
    patients = [material.patient(row) for row, _ in cases]
    bootstrap = CaseBootstrap.of(
        patients, num_resamples=settings.num_resamples, level=settings.level, seed=settings.seed
    )
    labels = np.array([material.names[label] for _, label in cases], dtype=object)
    found_shares = {method: np.array(row) for method, row in shares.items()}
    known_areas, regions_found = np.array(areas), float(np.mean(is_found))
    if regions_found < _LEAST_FOUND:
        for values in (known_areas, *found_shares.values()):
            values[:, ZONES.index("outside")] = np.nan
    flagged = _flagged(found_shares, known_areas, bootstrap, settings.most_outside)
    mean_areas = [None if np.isnan(area) else float(area) for area in known_areas.mean(axis=0)]
    numbers: dict[str, Any] = {
        "cases": len(cases),
        "positives": material.num_positive(cases),
        "regions_found": regions_found,
        "areas": dict(zip(ZONES, mean_areas, strict=True)),
        "methods": {method: _by_label(values, labels, bootstrap) for method, values in found_shares.items()},
        "unlike": flagged,
    }
    return numbers, _examples(
        found_shares[settings.methods[0]], cases, numbers["unlike"], settings.methods[0]
    )


def _by_label(values: Floats, labels: Names, bootstrap: CaseBootstrap) -> dict[str, Any]:
    rows = bootstrap.by_group(values, labels) | {MACRO: bootstrap.mean(values)}
    return {label: dict(zip(ZONES, row, strict=True)) for label, row in rows.items()}


def _flagged(
    shares: dict[str, Floats], areas: Floats, bootstrap: CaseBootstrap, most_outside: float
) -> list[dict[str, str]]:
    """Return where a method has more than an even map has, outside the lungs also more than a share."""
    flagged, several = [], bootstrap.num_patients(np.arange(len(areas))) > 1
    for method, values in shares.items():
        mean, excess = bootstrap.mean(values), bootstrap.mean(values - areas, signed=True)
        for place, zone in enumerate(ZONES):
            share, least = mean[place]["value"], excess[place]["low"]
            if least is None and several:  # it does not vary
                least = excess[place]["value"]
            is_more = least is not None and least > 1e-9
            if is_more and (zone != "outside" or share > most_outside):
                flagged.append({"method": method, "zone": zone})
    return flagged


def _examples(
    shares: Floats, cases: Sequence[Pair], flagged: Sequence[dict[str, str]], method: str
) -> list[Pair]:
    """Return the cases with the largest shares in the zones in which a method was flagged."""
    places = [ZONES.index(one["zone"]) for one in flagged if one["method"] == method]
    if not places:
        return []
    worst = np.nan_to_num(shares[:, places].max(axis=1), nan=-1.0)
    return [cases[place] for place in np.argsort(-worst, kind="stable")[:_MOST_EXAMPLES]]
