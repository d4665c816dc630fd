"""Does a heatmap point? Every method against the boxes, beside what never saw the image or learnt nothing."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from torch import nn

from cxrlab.explain.activation_maps import Pair
from cxrlab.explain.box_cases import BoxCases
from cxrlab.explain.box_prior import box_frequency, image_centre, uniform_chance
from cxrlab.explain.case_bootstrap import CaseBootstrap
from cxrlab.explain.heatmap_stream import Explain, heatmaps
from cxrlab.explain.localization import (
    THRESHOLDS,
    Overlaps,
    Pointing,
    best_threshold,
    crossfitted_thresholds,
    on_grid,
    overlaps,
)
from cxrlab.explain.material import Material
from cxrlab.explain.method_names import METHOD_NAMES
from cxrlab.explain.pointing_summary import by_finding, by_size, difference, verdict

PRIORS = {"box_frequency": box_frequency, "image_centre": image_centre, "uniform_chance": uniform_chance}
_LEAST_VALIDATION = 10  # cases with boxes; fewer do not settle a threshold
RANDOM = "random: "
"""Before the name of a method: the same of networks with random weights."""


class _Boxes(NamedTuple):
    judged: BoxCases
    validation: BoxCases  # empty where thresholds are crossfitted


class _Found(NamedTuple):
    pointing: Pointing
    overlaps: Overlaps
    thresholds: npt.NDArray[np.int64]


def check_pointing(material: Material) -> dict[str, Any]:
    """Return how well each method's heatmaps point at boxes; see docs/heatmaps.md for the protocol.

    The cases are all images with a box of a finding, whatever the network says of them. A heatmap's region is
    what lies at or above a threshold, which is chosen for each method by the mean IoU over findings: on the
    validation part where it has at least 10 cases with boxes, else on the other patients' boxes of the part
    itself, in folds.

    Returns:
        What stands as ``pointing`` in ``explanation.json``; ``{"cases": {}, …}`` where there is no box.
    """
    manifest, settings = material.manifest, material.settings
    rows = material.cases["row"].unique().tolist()
    cases = BoxCases.of(manifest, rows, material.names)
    facts = {"without_boxes": _without_boxes(material, cases), "unusable": _unusable(material)}
    if not len(cases):
        return {"cases": {}, **facts}
    boxes = _Boxes(cases, _validation_cases(material))
    found = {method: [_found(material, boxes, method)] for method in settings.methods}
    found |= {RANDOM + method: several for method, several in _of_random_networks(material, boxes).items()}
    priors = {name: prior(cases, settings.tolerance) for name, prior in PRIORS.items()}
    sources = {name: [one.pointing for one in several] for name, several in found.items()}
    everything = sources | {name: [pointing] for name, pointing in priors.items()}
    bootstrap = CaseBootstrap.of(
        cases.patients, num_resamples=settings.num_resamples, level=settings.level, seed=settings.seed
    )
    return {
        "cases": cases.counts().to_dict("index"),
        **facts,
        "tolerance": settings.tolerance,
        "thresholds": _thresholds(found, boxes, settings.num_folds),
        "empty": {name: _mean_empty([one.overlaps for one in several]) for name, several in found.items()},
        "findings": by_finding(everything, cases, bootstrap),
        "differences": {
            method: _differences(method, everything, cases, bootstrap) for method in settings.methods
        },
        "against_first": {
            method: difference(everything[settings.methods[0]], everything[method], cases, bootstrap)
            for method in settings.methods[1:]
        },
        "sizes": by_size(everything, settings.size_edges, cases, bootstrap),
    }


def _validation_cases(material: Material) -> BoxCases:
    cases = BoxCases.of(material.manifest, list(material.validation), material.names)
    is_enough = len(cases) >= _LEAST_VALIDATION
    return cases if is_enough else BoxCases.of(material.manifest, [], material.names)


def _without_boxes(material: Material, cases: BoxCases) -> dict[str, int]:
    """Return the labels that have positives and no box, with how many positives there are."""
    positives = material.cases[material.cases["target"] == 1].groupby("finding", sort=False).size()
    return {str(name): int(count) for name, count in positives.items() if name not in cases.names}


def _unusable(material: Material) -> dict[str, Any]:
    """Return how many boxes were left out, and what is wrong with the first ones."""
    unusable = material.manifest.unusable_boxes
    return {"boxes": len(unusable), "such_as": list(unusable[:5])}


def _found(material: Material, boxes: _Boxes, method: str, network: nn.Module | None = None) -> _Found:
    explain = material.explain(method, network)
    title = f"{METHOD_NAMES[method]} of boxed findings" if network is None else ""
    judged = _overlaps(material, explain, boxes.judged, title)
    if len(boxes.validation):
        known = _overlaps(material, explain, boxes.validation, title and f"{title}, validation")
        best = best_threshold(known, boxes.validation.findings)
        thresholds = np.full(len(boxes.judged), best, dtype=np.int64)
    else:
        settings = material.settings
        thresholds = crossfitted_thresholds(judged, boxes.judged, settings.num_folds, settings.seed)
    return _Found(Pointing.at(judged, thresholds), judged, thresholds)


def _overlaps(material: Material, explain: Explain, cases: BoxCases, title: str) -> Overlaps:
    number = {name: index for index, name in enumerate(material.names)}
    pairs: list[Pair] = [
        (int(row), number[finding]) for row, finding in zip(cases.rows, cases.findings, strict=True)
    ]
    size = material.settings.batch_size
    found = heatmaps(explain, material.images, pairs, num_images=size, title=title)
    return overlaps(cases, (on_grid(one[None])[0] for one in found), material.settings.tolerance)


def _of_random_networks(material: Material, boxes: _Boxes) -> dict[str, list[_Found]]:
    settings = material.settings
    found: dict[str, list[_Found]] = {method: [] for method in settings.methods}
    networks = track(
        _with_nothing_learnt(material),
        "Networks with random weights, boxed findings",
        total=settings.num_random_networks * len(settings.methods),
        console=Console(stderr=True),
    )
    for network, method in networks:
        found[method].append(_found(material, boxes, method, network))
    return found


def _with_nothing_learnt(material: Material) -> Iterator[tuple[nn.Module, str]]:
    """Yield each method with each random network."""
    for networks in material.random_networks():
        *_, (_, network) = networks
        for method in material.settings.methods:
            yield network, method


def _thresholds(found: Mapping[str, list[_Found]], boxes: _Boxes, num_folds: int) -> dict[str, Any]:
    chosen = {
        name: sorted({float(THRESHOLDS[place]) for one in several for place in one.thresholds.tolist()})
        for name, several in found.items()
    }
    if len(boxes.validation):
        return {"on": "validation", "cases": len(boxes.validation), "values": chosen}
    num_patients = len(set(boxes.judged.patients.tolist()))
    return {"on": "other patients", "folds": min(num_folds, num_patients), "values": chosen}


def _mean_empty(several: list[Overlaps]) -> float:
    return float(np.mean([one.num_empty for one in several]))


def _differences(
    method: str, sources: Mapping[str, list[Pointing]], cases: BoxCases, bootstrap: CaseBootstrap
) -> dict[str, Any]:
    """Return by how much a method points more often than what it must beat, by finding, and in words."""
    others = {"box_frequency": "box_frequency", "random_network": RANDOM + method}
    result: dict[str, Any] = {
        name: difference(sources[method], sources[other], cases, bootstrap) for name, other in others.items()
    }
    for key, name, than in (
        ("words", "box_frequency", "the box-frequency map"),
        ("random_words", "random_network", "networks with random weights"),
    ):
        result[key] = {finding: verdict(one, bootstrap.level, than) for finding, one in result[name].items()}
    return result
