"""Does a heatmap point? Every method against the boxes, beside what never saw the image or learnt nothing."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from torch import nn

from cxrlab.evaluation.results import Outcome
from cxrlab.heatmaps.cases import Explain, heatmaps
from cxrlab.heatmaps.checks.boxes import (
    THRESHOLDS,
    BoxCases,
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
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.results import (
    CaseCounts,
    Estimates,
    MethodDifferences,
    PointingDifference,
    PointingResult,
    RegionThresholds,
    SizeResult,
    UnusableBoxes,
)
from cxrlab.heatmaps.settings import METHOD_NAMES
from cxrlab.heatmaps.task import ExplainTask
from cxrlab.metrics.bootstrap import MACRO, CaseBootstrap, Estimate
from cxrlab.metrics.predictions import Floats

OVERLAP_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Overlaps from which a region counts as a hit, as in the founding paper of the NIH set."""

PRIORS = {"box_frequency": box_frequency, "image_centre": image_centre, "uniform_chance": uniform_chance}

RANDOM = "random: "
"""Before the name of a method: the same of networks with random weights."""

Sources = Mapping[str, Sequence[Pointing]]
"""By name; a source that is several, such as networks of different seeds, counts as their mean."""

_LEAST_VALIDATION = 10  # cases with boxes; fewer cannot choose a threshold
_ROUNDING = 1e-9


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
    measured = [measures(pointing) for pointing in pointings]
    return measured[0][0], np.mean([values for _, values in measured], axis=0)


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
    first: Sequence[Pointing],
    second: Sequence[Pointing],
    cases: BoxCases,
    bootstrap: CaseBootstrap,
    *,
    than: str,
) -> dict[str, PointingDifference]:
    """Return by how much one source points at the finding more often than another, by finding and macro.

    The two are compared case by case, where both have a say.

    Args:
        first: A source.
        second: Another one.
        cases: Of both.
        bootstrap: Of the cases.
        than: What the second is called in a sentence.
    """
    hits = [np.mean([pointing.hits for pointing in source], axis=0) for source in (first, second)]
    differences = hits[0] - hits[1]
    result = {}
    for name, (row,) in bootstrap.by_group(differences[:, None], cases.findings, signed=True).items():
        chosen = (cases.findings == name) | (name == MACRO)
        discordant = _num_discordant(differences[chosen], bootstrap.patients[chosen])
        result[name] = compared(row, discordant, level=bootstrap.level, than=than)
    return result


def _num_discordant(differences: Floats, patients: npt.NDArray[np.int64]) -> int:
    """Return of how many patients the differences do not sum to 0; what is NaN counts as 0."""
    sums = np.bincount(patients, weights=np.nan_to_num(differences))
    return int((np.abs(sums) > _ROUNDING).sum())


def compared(estimate: Estimate, discordant: int, *, level: float, than: str) -> PointingDifference:
    """Return a difference with its outcome, and that in words.

    Where few patients are discordant, the bootstrap's interval is too narrow. At a level of 0.95 there must
    be 6: fewer would all differ in the same way by chance more often than once in 20 times.

    Args:
        estimate: Of the difference.
        discordant: Patients of whose cases one source hits more than the other.
        level: Of the interval.
        than: What the source is compared with.

    Example:
        >>> compared(Estimate(0.2, 0.1, 0.3), 9, level=0.95, than="the box-frequency map").description
        'better than the box-frequency map'
        >>> compared(Estimate(0.2, -0.1, 0.5), 9, level=0.95, than="the box-frequency map").outcome
        'unclear'
    """
    outcome, description = (
        _outcome(estimate, discordant, level),
        "not compared: no other patient has a box of it",
    )
    is_above = estimate.low is not None and estimate.low > 0
    if outcome == "unclear":
        few = " (too few patients to tell)" if is_above else ""
        description = f"not shown to be better than {than}{few}"
    elif outcome != "not_compared":
        description = f"{outcome} than {than}"
    return PointingDifference(estimate.value, estimate.low, estimate.high, discordant, outcome, description)


def _outcome(estimate: Estimate, discordant: int, level: float) -> Outcome:
    if estimate.value is None:
        return "not_compared"
    is_above, is_below = (
        end is not None and sign * end > 0 for end, sign in ((estimate.low, 1), (estimate.high, -1))
    )
    if not (is_above or is_below) or 2 * 0.5**discordant > 1 - level + _ROUNDING:
        return "unclear"
    return "better" if is_above else "worse"


def by_size(
    sources: Sources, edges: Sequence[float], cases: BoxCases, bootstrap: CaseBootstrap
) -> list[SizeResult]:
    """Return how often each source points at the finding, by the share of the image that its boxes cover.

    Args:
        sources: What points.
        edges: Shares at which sizes are told apart, ascending.
        cases: With their boxes.
        bootstrap: Of the cases.

    Returns:
        One entry for each size that there is.
    """
    areas, names = cases.areas, list(sources)
    hits = np.stack([np.mean([source.hits for source in sources[name]], axis=0) for name in names], axis=1)
    result = []
    for low, high in zip((0.0, *edges), (*edges, 1.0), strict=True):
        chosen = np.flatnonzero((areas > low) & (areas <= high))
        if len(chosen):
            pointing: Estimates = dict(zip(names, bootstrap.mean(hits, chosen), strict=True))
            result.append(SizeResult(low, high, len(chosen), bootstrap.num_patients(chosen), pointing))
    return result


class _Boxes(NamedTuple):
    predicted: BoxCases
    validation: BoxCases  # empty where thresholds are crossfitted


class _Measured(NamedTuple):
    pointing: Pointing
    overlaps: Overlaps
    thresholds: npt.NDArray[np.int64]


def check_pointing(explain_task: ExplainTask) -> PointingResult:
    """Return how well each method's heatmaps point at boxes: docs/background/heatmaps.md has the protocol.

    The cases are all images with a box of a finding, whatever the network says of them. A heatmap's region is
    what lies at or above a threshold, which is chosen for each method by the mean IoU over findings: on the
    validation part where it has at least 10 cases with boxes, else on the other patients' boxes of the part
    itself, in folds. Without a box nothing is measured.
    """
    manifest, settings = explain_task.manifest, explain_task.settings
    cases = BoxCases.of(manifest, explain_task.cases["row"].unique().tolist(), explain_task.names)
    without_boxes = _without_boxes(explain_task, cases)
    unusable = UnusableBoxes(len(manifest.unusable_boxes), list(manifest.unusable_boxes[:5]))
    if not len(cases):
        return PointingResult({}, without_boxes, unusable)
    boxes = _Boxes(cases, _validation_cases(explain_task))
    measured = {method: [_measured(explain_task, boxes, method)] for method in settings.methods}
    random = _of_random_networks(explain_task, boxes)
    measured |= {RANDOM + method: networks for method, networks in random.items()}
    sources = {name: [entry.pointing for entry in entries] for name, entries in measured.items()}
    sources |= {name: [prior(cases, settings.tolerance)] for name, prior in PRIORS.items()}
    bootstrap = CaseBootstrap.of(
        cases.patients, num_resamples=settings.num_resamples, level=settings.level, seed=settings.seed
    )
    return PointingResult(
        cases=_counts(cases),
        without_boxes=without_boxes,
        unusable=unusable,
        tolerance=settings.tolerance,
        thresholds=_thresholds(measured, boxes, settings.num_folds),
        empty={
            name: float(np.mean([entry.overlaps.num_empty for entry in entries]))
            for name, entries in measured.items()
        },
        findings=by_finding(sources, cases, bootstrap),
        differences={method: _differences(method, sources, cases, bootstrap) for method in settings.methods},
        against_first=_against_first(settings.methods, sources, cases, bootstrap),
        sizes=by_size(sources, settings.size_edges, cases, bootstrap),
    )


def _counts(cases: BoxCases) -> dict[str, CaseCounts]:
    table = cases.counts()
    return {
        str(finding): CaseCounts(int(row["cases"]), int(row["patients"])) for finding, row in table.iterrows()
    }


def _validation_cases(explain_task: ExplainTask) -> BoxCases:
    cases = BoxCases.of(explain_task.manifest, list(explain_task.validation), explain_task.names)
    is_enough = len(cases) >= _LEAST_VALIDATION
    return cases if is_enough else BoxCases.of(explain_task.manifest, [], explain_task.names)


def _without_boxes(explain_task: ExplainTask, cases: BoxCases) -> dict[str, int]:
    """Return the labels that have positives and no box, with how many positives there are."""
    positives = explain_task.cases[explain_task.cases["target"] == 1].groupby("finding", sort=False).size()
    return {str(name): int(count) for name, count in positives.items() if name not in cases.names}


def _measured(
    explain_task: ExplainTask, boxes: _Boxes, method: str, network: nn.Module | None = None
) -> _Measured:
    explain = explain_task.explain(method, network)
    title = f"{METHOD_NAMES[method]} of boxed findings" if network is None else ""
    predicted = _overlaps(explain_task, explain, boxes.predicted, title)
    if len(boxes.validation):
        validation = _overlaps(explain_task, explain, boxes.validation, title and f"{title}, validation")
        best = best_threshold(validation, boxes.validation.findings)
        thresholds = np.full(len(boxes.predicted), best, dtype=np.int64)
    else:
        settings = explain_task.settings
        thresholds = crossfitted_thresholds(predicted, boxes.predicted, settings.num_folds, settings.seed)
    return _Measured(Pointing.at(predicted, thresholds), predicted, thresholds)


def _overlaps(explain_task: ExplainTask, explain: Explain, cases: BoxCases, title: str) -> Overlaps:
    number = {name: index for index, name in enumerate(explain_task.names)}
    pairs: list[Pair] = [
        (int(row), number[finding]) for row, finding in zip(cases.rows, cases.findings, strict=True)
    ]
    size = explain_task.settings.batch_size
    maps = heatmaps(explain, explain_task.images, pairs, num_images=size, title=title)
    return overlaps(cases, (on_grid(heatmap[None])[0] for heatmap in maps), explain_task.settings.tolerance)


def _of_random_networks(explain_task: ExplainTask, boxes: _Boxes) -> dict[str, list[_Measured]]:
    settings = explain_task.settings
    measured: dict[str, list[_Measured]] = {method: [] for method in settings.methods}
    networks = track(
        _with_nothing_learnt(explain_task),
        "Networks with random weights, boxed findings",
        total=settings.num_random_networks * len(settings.methods),
        console=Console(stderr=True),
    )
    for network, method in networks:
        measured[method].append(_measured(explain_task, boxes, method, network))
    return measured


def _with_nothing_learnt(explain_task: ExplainTask) -> Iterator[tuple[nn.Module, str]]:
    """Yield each method with each random network."""
    for networks in explain_task.random_networks():
        *_, (_, network) = networks
        for method in explain_task.settings.methods:
            yield network, method


def _thresholds(measured: Mapping[str, list[_Measured]], boxes: _Boxes, num_folds: int) -> RegionThresholds:
    values = {
        name: sorted({float(THRESHOLDS[place]) for entry in entries for place in entry.thresholds.tolist()})
        for name, entries in measured.items()
    }
    if len(boxes.validation):
        return RegionThresholds("validation", values, cases=len(boxes.validation))
    num_patients = len(set(boxes.predicted.patients.tolist()))
    return RegionThresholds("other patients", values, folds=min(num_folds, num_patients))


def _differences(
    method: str, sources: Sources, cases: BoxCases, bootstrap: CaseBootstrap
) -> MethodDifferences:
    """Return by how much a method points more often than what it must beat, by finding."""
    prior, random = (
        difference(sources[method], sources[name], cases, bootstrap, than=than)
        for name, than in (
            ("box_frequency", "the box-frequency map"),
            (RANDOM + method, "networks with random weights"),
        )
    )
    return MethodDifferences(box_frequency=prior, random_network=random)


def _against_first(
    methods: Sequence[str], sources: Sources, cases: BoxCases, bootstrap: CaseBootstrap
) -> dict[str, dict[str, PointingDifference]]:
    first, *others = methods
    return {
        method: difference(sources[first], sources[method], cases, bootstrap, than=METHOD_NAMES[method])
        for method in others
    }
