"""Is a heatmap about the model? Random weights, pixels taken away, and other methods on the same images."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from cxrlab.heatmaps.cases import all_heatmaps, batches, read
from cxrlab.heatmaps.checks.case_bootstrap import CaseBootstrap, Estimate
from cxrlab.heatmaps.checks.faithfulness import Curves, faithfulness, random_heatmaps
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.methods.names import METHOD_NAMES
from cxrlab.heatmaps.random_networks import rank_correlations, similarities, stages
from cxrlab.heatmaps.task import ExplainTask
from cxrlab.metrics.bootstrap import known_mean

Floats = np.typing.NDArray[np.float64]

RANDOM_ORDER = "random order"


def check_model(explain_task: ExplainTask) -> dict[str, Any]:
    """Return how heatmaps change with the weights, how the score changes with them, and how methods agree.

    Returns:
        What stands as ``randomization``, ``faithfulness`` and ``agreement`` in ``explanation.json``; each is
        about the same sample of positives.
    """
    settings = explain_task.settings
    cases = explain_task.sample(settings.num_checked)
    patients = [explain_task.patient(row) for row, _ in cases]
    bootstrap = CaseBootstrap.of(
        patients, num_resamples=settings.num_resamples, level=settings.level, seed=settings.seed
    )
    maps = {
        method: all_heatmaps(
            explain_task.explain(method),
            explain_task.images,
            cases,
            num_images=settings.batch_size,
            title=f"{METHOD_NAMES[method]} of a sample",
        )
        for method in settings.methods
    }
    count = {"cases": len(cases), "positives": explain_task.num_positive(cases)}
    return {
        "randomization": count | _randomization(explain_task, cases, maps, bootstrap),
        "faithfulness": count | _faithfulness(explain_task, cases, maps, bootstrap),
        "agreement": _agreement(maps, bootstrap),
    }


def _randomization(
    explain_task: ExplainTask, cases: Sequence[Pair], maps: Mapping[str, Tensor], bootstrap: CaseBootstrap
) -> dict[str, Any]:
    """Return how alike the maps stay as the network loses what it learnt, from the head backwards."""
    settings, steps = explain_task.settings, [part for part, _ in stages(explain_task.classifier.network)]
    found: dict[str, list[list[Floats]]] = {method: [] for method in maps}  # network, step, (P, 2)
    at_the_end: dict[str, list[Tensor]] = {method: [] for method in maps}  # whether it is empty, (P,)
    changes = track(
        _changes(explain_task, list(maps)),
        "Maps of networks with more and more random weights",
        total=settings.num_random_networks * len(steps) * len(maps),
        console=Console(stderr=True),
    )
    for step, network, method in changes:
        others = all_heatmaps(
            explain_task.explain(method, network),
            explain_task.images,
            cases,
            num_images=settings.batch_size,
            title="",
        )
        trained = maps[method]
        alike = np.stack([rank_correlations(trained, others), similarities(trained, others)], axis=1)
        alike[(_is_empty(trained) | _is_empty(others)).numpy()] = np.nan
        if step == len(steps) - 1:
            at_the_end[method].append(_is_empty(others))
        if step == 0:
            found[method].append([])
        found[method][-1].append(alike)
    methods = {}
    for method, several in found.items():
        mean = known_mean(np.array(several))  # (steps, P, 2)
        rows = [bootstrap.mean(alike, signed=True) for alike in mean]
        methods[method] = {
            "rank_correlation": [row[0] for row in rows],
            "ssim": [row[1] for row in rows],
            "empty": float(_is_empty(maps[method]).float().mean()),
            "random_empty": float(torch.stack(at_the_end[method]).float().mean()),
        }
    return {"networks": settings.num_random_networks, "steps": steps, "methods": methods}


def _is_empty(maps: Tensor) -> Tensor:
    """Return which of some heatmaps ``(P, H, W)`` are 0 everywhere, ``(P,)``."""
    return maps.flatten(1).amax(dim=1) <= 0


def _changes(explain_task: ExplainTask, methods: Sequence[str]) -> Iterator[tuple[int, nn.Module, str]]:
    """Yield each method at each step of each random network, with the step's number."""
    for networks in explain_task.random_networks():
        for step, (_, network) in enumerate(networks):
            for method in methods:
                yield step, network, method


def _faithfulness(
    explain_task: ExplainTask, cases: Sequence[Pair], maps: Mapping[str, Tensor], bootstrap: CaseBootstrap
) -> dict[str, Any]:
    size = next(iter(maps.values())).shape[-2:]
    blind = random_heatmaps(len(cases), size, explain_task.settings.seed)
    found = {
        # An empty map tells no order; in reading order its pixels would go row by row.
        name: _curves(
            explain_task,
            cases,
            torch.where(_is_empty(heat)[:, None, None], blind, heat),
            f"Deletion and insertion, {METHOD_NAMES.get(name, name)}",
        )
        for name, heat in ({**maps, RANDOM_ORDER: blind}).items()
    }
    areas = {name: curves.areas() for name, curves in found.items()}
    methods = {}
    for name, curves in found.items():
        area = bootstrap.mean(areas[name])
        difference = bootstrap.mean(areas[name] - areas[RANDOM_ORDER], signed=True)
        methods[name] = {
            kind: {
                "curve": np.round(getattr(curves, kind).mean(axis=0), 5).tolist(),
                "area": area[place],
                "difference": None if name == RANDOM_ORDER else difference[place],
            }
            for place, kind in enumerate(("deletion", "insertion"))
        }
    shares = next(iter(found.values())).shares.tolist()
    return {"shares": shares, "methods": methods}


def _curves(explain_task: ExplainTask, cases: Sequence[Pair], heat: Tensor, title: str) -> Curves:
    settings = explain_task.settings
    parts, done = [], 0
    for part in track(list(batches(cases, settings.batch_size)), title, console=Console(stderr=True)):
        images, pairs = read(explain_task.images, part)
        parts.append(
            faithfulness(
                explain_task.classifier,
                images,
                pairs,
                heat[done : done + len(part)],
                kind=settings.baseline,
                num_steps=settings.num_curve_steps,
                batch_size=settings.batch_size,
            )
        )
        done += len(part)
    deletion, insertion = (
        np.concatenate([getattr(one, kind) for one in parts]) for kind in ("deletion", "insertion")
    )
    return Curves(parts[0].shares, deletion, insertion)


def _agreement(maps: Mapping[str, Tensor], bootstrap: CaseBootstrap) -> dict[str, Any]:
    """Return the mean rank correlation of each two methods' maps of the same case; nothing for one method."""
    methods = list(maps)
    pairs: list[dict[str, Any]] = []
    for place, one in enumerate(methods):
        for other in methods[place + 1 :]:
            found: Estimate = bootstrap.mean(rank_correlations(maps[one], maps[other])[:, None], signed=True)[
                0
            ]
            pairs.append({"methods": [one, other], "rank_correlation": found})
    return {"pairs": pairs}
