"""Does a heatmap point? Every method against the boxes, beside what never saw the image or learnt nothing.

How well heatmaps point, in numbers: by finding and in the mean, beside what never saw the image.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from torch import nn

from cxrlab.heatmaps.cases import Explain, heatmaps
from cxrlab.heatmaps.checks.boxes import (
    THRESHOLDS,
    BoxCases,
    Floats,
    Overlaps,
    Pointing,
    best_threshold,
    box_frequency,
    crossfitted_thresholds,
    image_centre,
    on_grid,
    overlaps,
    uniform_chance,
)
from cxrlab.heatmaps.checks.case_bootstrap import MACRO, CaseBootstrap, Estimate
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.methods.names import METHOD_NAMES
from cxrlab.heatmaps.task import ExplainTask

OVERLAP_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


"""Overlaps from which a region counts as a hit, as in the founding paper of the NIH set."""


_ROUNDING = 1e-9


Sources = Mapping[str, Sequence[Pointing]]


"""By name; a source that is several, such as networks of different seeds, counts as their mean."""


def measures(pointing: Pointing) -> tuple[list[str], Floats]:
    """Return the names of K measures, and their values by case, shape ``(P, K)``."""
    columns = {"pointing": pointing.hits, "energy": pointing.energies}
    columns |= {"iou": pointing.ious, "iobb": pointing.iobbs}
    for overlap in ("iou", "iobb"):
        values = columns[overlap]
        for level in OVERLAP_LEVELS:
            columns[f"{overlap}@{level}"] = np.where(np.isnan(values), np.nan, values > level)
    return list(columns), np.stack(list(columns.values()), axis=1)


def _means_of(pointings: Sequence[Pointing]) -> tuple[list[str], Floats]:
    """Return the measures of a source that is several, such as networks of different seeds: their mean."""
    found = [measures(pointing) for pointing in pointings]
    return found[0][0], np.mean([values for _, values in found], axis=0)


def by_finding(
    sources: Sources, cases: BoxCases, bootstrap: CaseBootstrap
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Return the estimates of each source by finding, and in the mean over findings.

    Returns:
        ``[finding or macro][source][measure]``, measures being ``pointing``, ``energy``, the means ``iou``
        and ``iobb``, and the shares of cases above an overlap, such as ``iobb@0.1``.
    """
    result: dict[str, dict[str, dict[str, Estimate]]] = {name: {} for name in (*cases.names, MACRO)}
    for source, pointings in sources.items():
        columns, values = _means_of(pointings)
        for name, row in bootstrap.by_group(values, cases.findings).items():
            result[name][source] = dict(zip(columns, row, strict=True))
    return result


def difference(
    one: Sequence[Pointing], other: Sequence[Pointing], cases: BoxCases, bootstrap: CaseBootstrap
) -> dict[str, Estimate]:
    """Return by how much one source points at the finding more often than another, by finding and macro.

    The two are compared case by case, where both have a say.

    Returns:
        Estimates, with how many patients are ``discordant``: of whose cases one source hits more than the
        other.
    """
    hits = [np.mean([pointing.hits for pointing in pointings], axis=0) for pointings in (one, other)]
    differences = hits[0] - hits[1]
    found = bootstrap.by_group(differences[:, None], cases.findings, signed=True)
    result = {}
    for name, (row,) in found.items():
        chosen = (cases.findings == name) | (name == MACRO)
        discordant = _num_apart(differences[chosen], bootstrap.patients[chosen])
        result[name] = {**row, "discordant": discordant}
    return result


def _num_apart(differences: Floats, patients: npt.NDArray[np.int64]) -> int:
    """Return of how many patients the differences do not sum to 0; what is NaN counts as 0."""
    sums = np.bincount(patients, weights=np.nan_to_num(differences))
    return int((np.abs(sums) > _ROUNDING).sum())


def verdict(found: Estimate, level: float, than: str) -> str:
    """Return in words whether a heatmap points better than something else.

    Where few patients are discordant, the bootstrap's interval is too narrow. At a level of 0.95 there must
    be 6: fewer would all differ in the same way by chance more often than once in 20 times.

    Args:
        found: Their difference, see :func:`difference`.
        level: Of the interval.
        than: What it is compared with.

    Example:
        >>> verdict({"value": 0.2, "low": 0.1, "high": 0.3, "discordant": 9}, 0.95, "the box-frequency map")
        'better than the box-frequency map'
        >>> verdict({"value": 0.2, "low": -0.1, "high": 0.5, "discordant": 9}, 0.95, "the box-frequency map")
        'not shown to be better than the box-frequency map'
    """
    if found["value"] is None:
        return "not compared: no other patient has a box of it"
    is_above, is_below = (
        end is not None and sign * end > 0 for end, sign in ((found["low"], 1), (found["high"], -1))
    )
    are_few = 2 * 0.5 ** found["discordant"] > 1 - level + _ROUNDING
    if (is_above or is_below) and not are_few:
        return f"{'better' if is_above else 'worse'} than {than}"
    return f"not shown to be better than {than}{' (too few patients to tell)' if is_above else ''}"


def by_size(
    sources: Sources, edges: Sequence[float], cases: BoxCases, bootstrap: CaseBootstrap
) -> list[dict[str, Any]]:
    """Return how often each source points at the finding, by the share of the image that its boxes cover.

    Args:
        sources: What points.
        edges: Shares at which sizes are told apart, ascending.
        cases: With their boxes.
        bootstrap: Of the cases.

    Returns:
        For each size that there is ``from``, ``to``, ``cases``, ``patients`` and ``pointing`` by source.
    """
    areas, names = cases.areas, list(sources)
    hits = np.stack([np.mean([one.hits for one in sources[name]], axis=0) for name in names], axis=1)
    result = []
    for low, high in zip((0.0, *edges), (*edges, 1.0), strict=True):
        chosen = np.flatnonzero((areas > low) & (areas <= high))
        if len(chosen):
            pointing = dict(zip(names, bootstrap.mean(hits, chosen), strict=True))
            counts = {"cases": len(chosen), "patients": bootstrap.num_patients(chosen)}
            result.append({"from": low, "to": high, **counts, "pointing": pointing})
    return result


PRIORS = {"box_frequency": box_frequency, "image_centre": image_centre, "uniform_chance": uniform_chance}


_LEAST_VALIDATION = 10  # cases with boxes; fewer do not settle a threshold


RANDOM = "random: "


"""Before the name of a method: the same of networks with random weights."""


class _Boxes(NamedTuple):
    predicted: BoxCases
    validation: BoxCases  # empty where thresholds are crossfitted


class _Found(NamedTuple):
    pointing: Pointing
    overlaps: Overlaps
    thresholds: npt.NDArray[np.int64]


def check_pointing(explain_task: ExplainTask) -> dict[str, Any]:
    """Return how well each method's heatmaps point at boxes; see docs/heatmaps.md for the protocol.

    The cases are all images with a box of a finding, whatever the network says of them. A heatmap's region is
    what lies at or above a threshold, which is chosen for each method by the mean IoU over findings: on the
    validation part where it has at least 10 cases with boxes, else on the other patients' boxes of the part
    itself, in folds.

    Returns:
        What stands as ``pointing`` in ``explanation.json``; ``{"cases": {}, …}`` where there is no box.
    """
    manifest, settings = explain_task.manifest, explain_task.settings
    rows = explain_task.cases["row"].unique().tolist()
    cases = BoxCases.of(manifest, rows, explain_task.names)
    facts = {"without_boxes": _without_boxes(explain_task, cases), "unusable": _unusable(explain_task)}
    if not len(cases):
        return {"cases": {}, **facts}
    boxes = _Boxes(cases, _validation_cases(explain_task))
    found = {method: [_found(explain_task, boxes, method)] for method in settings.methods}
    found |= {
        RANDOM + method: several for method, several in _of_random_networks(explain_task, boxes).items()
    }
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


def _validation_cases(explain_task: ExplainTask) -> BoxCases:
    cases = BoxCases.of(explain_task.manifest, list(explain_task.validation), explain_task.names)
    is_enough = len(cases) >= _LEAST_VALIDATION
    return cases if is_enough else BoxCases.of(explain_task.manifest, [], explain_task.names)


def _without_boxes(explain_task: ExplainTask, cases: BoxCases) -> dict[str, int]:
    """Return the labels that have positives and no box, with how many positives there are."""
    positives = explain_task.cases[explain_task.cases["target"] == 1].groupby("finding", sort=False).size()
    return {str(name): int(count) for name, count in positives.items() if name not in cases.names}


def _unusable(explain_task: ExplainTask) -> dict[str, Any]:
    """Return how many boxes were left out, and what is wrong with the first ones."""
    unusable = explain_task.manifest.unusable_boxes
    return {"boxes": len(unusable), "such_as": list(unusable[:5])}


def _found(explain_task: ExplainTask, boxes: _Boxes, method: str, network: nn.Module | None = None) -> _Found:
    explain = explain_task.explain(method, network)
    title = f"{METHOD_NAMES[method]} of boxed findings" if network is None else ""
    predicted = _overlaps(explain_task, explain, boxes.predicted, title)
    if len(boxes.validation):
        known = _overlaps(explain_task, explain, boxes.validation, title and f"{title}, validation")
        best = best_threshold(known, boxes.validation.findings)
        thresholds = np.full(len(boxes.predicted), best, dtype=np.int64)
    else:
        settings = explain_task.settings
        thresholds = crossfitted_thresholds(predicted, boxes.predicted, settings.num_folds, settings.seed)
    return _Found(Pointing.at(predicted, thresholds), predicted, thresholds)


def _overlaps(explain_task: ExplainTask, explain: Explain, cases: BoxCases, title: str) -> Overlaps:
    number = {name: index for index, name in enumerate(explain_task.names)}
    pairs: list[Pair] = [
        (int(row), number[finding]) for row, finding in zip(cases.rows, cases.findings, strict=True)
    ]
    size = explain_task.settings.batch_size
    found = heatmaps(explain, explain_task.images, pairs, num_images=size, title=title)
    return overlaps(cases, (on_grid(one[None])[0] for one in found), explain_task.settings.tolerance)


def _of_random_networks(explain_task: ExplainTask, boxes: _Boxes) -> dict[str, list[_Found]]:
    settings = explain_task.settings
    found: dict[str, list[_Found]] = {method: [] for method in settings.methods}
    networks = track(
        _with_nothing_learnt(explain_task),
        "Networks with random weights, boxed findings",
        total=settings.num_random_networks * len(settings.methods),
        console=Console(stderr=True),
    )
    for network, method in networks:
        found[method].append(_found(explain_task, boxes, method, network))
    return found


def _with_nothing_learnt(explain_task: ExplainTask) -> Iterator[tuple[nn.Module, str]]:
    """Yield each method with each random network."""
    for networks in explain_task.random_networks():
        *_, (_, network) = networks
        for method in explain_task.settings.methods:
            yield network, method


def _thresholds(found: Mapping[str, list[_Found]], boxes: _Boxes, num_folds: int) -> dict[str, Any]:
    chosen = {
        name: sorted({float(THRESHOLDS[place]) for one in several for place in one.thresholds.tolist()})
        for name, several in found.items()
    }
    if len(boxes.validation):
        return {"on": "validation", "cases": len(boxes.validation), "values": chosen}
    num_patients = len(set(boxes.predicted.patients.tolist()))
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
