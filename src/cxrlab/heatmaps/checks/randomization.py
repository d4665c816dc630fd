"""Is a heatmap about the model? Maps beside those of random weights, and of other methods."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from cxrlab.heatmaps.cases import all_heatmaps
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.random_networks import rank_correlations, similarities, stages
from cxrlab.heatmaps.results import (
    AgreementResult,
    MethodPair,
    MethodRandomization,
    RandomizationResult,
)
from cxrlab.heatmaps.settings import METHOD_NAMES
from cxrlab.heatmaps.task import ExplainTask
from cxrlab.metrics.bootstrap import CaseBootstrap, known_mean
from cxrlab.metrics.predictions import Floats


def sample_heatmaps(explain_task: ExplainTask, cases: Sequence[Pair]) -> dict[str, Tensor]:
    """Return the heatmaps of a sample of cases by method, shapes ``(P, H, W)``."""
    return {
        method: all_heatmaps(
            explain_task.explain(method),
            explain_task.images,
            cases,
            num_images=explain_task.settings.batch_size,
            title=f"{METHOD_NAMES[method]} of a sample",
        )
        for method in explain_task.settings.methods
    }


def is_empty(maps: Tensor) -> Tensor:
    """Return which of some heatmaps ``(P, H, W)`` are 0 everywhere, ``(P,)``."""
    return maps.flatten(1).amax(dim=1) <= 0


def check_randomization(
    explain_task: ExplainTask, cases: Sequence[Pair], maps: Mapping[str, Tensor], bootstrap: CaseBootstrap
) -> RandomizationResult:
    """Return how alike the maps stay as the network loses what it learnt, from the head backwards.

    Args:
        explain_task: What is explained.
        cases: P of them, a sample.
        maps: Their heatmaps by method.
        bootstrap: Of the cases.
    """
    settings, steps = explain_task.settings, [part for part, _ in stages(explain_task.classifier.network)]
    likeness: dict[str, list[list[Floats]]] = {method: [] for method in maps}  # network, step, (P, 2)
    at_the_end: dict[str, list[Tensor]] = {method: [] for method in maps}  # whether it is empty, (P,)
    changes = track(
        _changes(explain_task, list(maps)),
        "Maps of networks with more and more random weights",
        total=settings.num_random_networks * len(steps) * len(maps),
        console=Console(stderr=True),
    )
    for step, network, method in changes:
        random = all_heatmaps(
            explain_task.explain(method, network),
            explain_task.images,
            cases,
            num_images=settings.batch_size,
            title="",
        )
        trained = maps[method]
        alike = np.stack([rank_correlations(trained, random), similarities(trained, random)], axis=1)
        alike[(is_empty(trained) | is_empty(random)).numpy()] = np.nan
        if step == len(steps) - 1:
            at_the_end[method].append(is_empty(random))
        if step == 0:
            likeness[method].append([])
        likeness[method][-1].append(alike)
    methods = {}
    for method, networks in likeness.items():
        mean = known_mean(np.array(networks))  # (steps, P, 2)
        rows = [bootstrap.mean(alike, signed=True) for alike in mean]
        methods[method] = MethodRandomization(
            rank_correlation=[row[0] for row in rows],
            ssim=[row[1] for row in rows],
            empty=float(is_empty(maps[method]).float().mean()),
            random_empty=float(torch.stack(at_the_end[method]).float().mean()),
        )
    return RandomizationResult(
        len(cases), explain_task.num_positive(cases), settings.num_random_networks, steps, methods
    )


def _changes(explain_task: ExplainTask, methods: Sequence[str]) -> Iterator[tuple[int, nn.Module, str]]:
    """Yield each method at each step of each random network, with the step's number."""
    for networks in explain_task.random_networks():
        for step, (_, network) in enumerate(networks):
            for method in methods:
                yield step, network, method


def check_agreement(maps: Mapping[str, Tensor], bootstrap: CaseBootstrap) -> AgreementResult:
    """Return the mean rank correlation of each two methods' maps of the same case; nothing for one method."""
    methods = list(maps)
    pairs = []
    for place, first in enumerate(methods):
        for second in methods[place + 1 :]:
            correlations = rank_correlations(maps[first], maps[second])[:, None]
            pairs.append(MethodPair([first, second], bootstrap.mean(correlations, signed=True)[0]))
    return AgreementResult(pairs)
