"""Does the score depend on what a heatmap shows? Pixels are taken away, or brought back, in its order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from cxrlab.heatmaps.cases import batches, read
from cxrlab.heatmaps.checks.randomization import is_empty
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.methods.perturbation import baseline, blurred
from cxrlab.heatmaps.results import CurveResult, FaithfulnessResult, MethodFaithfulness
from cxrlab.heatmaps.settings import METHOD_NAMES
from cxrlab.heatmaps.task import ExplainTask
from cxrlab.metrics.bootstrap import CaseBootstrap
from cxrlab.metrics.predictions import Floats
from cxrlab.task import activate
from cxrlab.training.module import Classifier

RANDOM_ORDER = "random order"
"""Of pixels: what every method stands beside."""

_SMOOTH = 0.1  # of the width: deviation of the random heatmaps, about as coarse as those of a network


@dataclass(frozen=True)
class Curves:
    """Probability of each pair's label as pixels change in the order of its heatmap.

    Attributes:
        shares: Of the pixels that were changed, ``(S + 1,)``, from 0 to 1.
        deletion: What is most important is taken away first, ``(P, S + 1)``.
        insertion: What is most important is brought back first, ``(P, S + 1)``.
    """

    shares: Floats
    deletion: Floats
    insertion: Floats

    def areas(self) -> Floats:
        """Return the areas under both curves, ``(P, 2)``: small is good for deletion, large for insertion."""
        return np.stack(
            [np.trapezoid(curve, self.shares, axis=1) for curve in (self.deletion, self.insertion)], axis=1
        )


def faithfulness(
    classifier: Classifier,
    images: Tensor,
    pairs: Sequence[Pair],
    heatmaps: Tensor,
    *,
    kind: str,
    num_steps: int,
    batch_size: int,
) -> Curves:
    """Return the deletion and insertion curves of heatmaps.

    Deletion puts a baseline in place of pixels; insertion starts from a blurred image, as in the source.

    Args:
        classifier: On its own device.
        images: Decoded, values 0 to 255, shape ``(N, C, H, W)``.
        pairs: P of them: the number of an image, and the index of a label.
        heatmaps: Of the pairs, shape ``(P, H, W)``.
        kind: See :func:`cxrlab.heatmaps.methods.perturbation.baseline`.
        num_steps: S, in which all pixels are changed.
        batch_size: Images that go through the network at once.

    References:
        Petsiuk et al., RISE, BMVC 2018.
    """
    ready = classifier.preprocess(images.to(classifier.device))
    shares = np.linspace(0.0, 1.0, num_steps + 1)
    curves = np.zeros((2, len(pairs), num_steps + 1))
    for place, ((image, label), heatmap) in enumerate(zip(pairs, heatmaps, strict=True)):
        original = ready[image : image + 1]
        ranks = _ranks(heatmap).to(original.device)
        # (S + 1, 1, H, W): where pixels are changed by then.
        done = (
            ranks[None, None]
            < torch.as_tensor(shares, device=original.device)[:, None, None, None] * ranks.numel()
        )
        changes = ((original, baseline(original, kind)), (baseline(original, "blur"), original))
        for row, (before, after) in enumerate(changes):
            steps = torch.where(done, after, before)
            curves[row, place] = _probabilities(classifier, steps, label, batch_size)
    return Curves(shares, curves[0], curves[1])


def _ranks(heatmap: Tensor) -> Tensor:
    """Return the place of each pixel from the hottest on; of equal ones, in reading order."""
    order = heatmap.flatten().argsort(descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    return ranks.reshape(heatmap.shape)


@torch.no_grad()
def _probabilities(classifier: Classifier, images: Tensor, label: int, batch_size: int) -> Floats:
    probabilities = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        batch = batch.to(classifier.dtype).contiguous(memory_format=classifier.memory_format)
        probabilities.append(activate(classifier.network(batch), classifier.task)[:, label].float().cpu())
    return np.asarray(torch.cat(probabilities).numpy(), dtype=np.float64)


def random_heatmaps(num_maps: int, size: Sequence[int], seed: int) -> Tensor:
    """Return smooth heatmaps that know nothing: what curves of a useful heatmap must differ from.

    Args:
        num_maps: N.
        size: Height and width.
        seed: Of the noise.

    Returns:
        Values in [0, 1], shape ``(N, H, W)``.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = blurred(torch.rand(num_maps, 1, *size, generator=generator), _SMOOTH)[:, 0]
    low, high = noise.amin(dim=(1, 2), keepdim=True), noise.amax(dim=(1, 2), keepdim=True)
    return (noise - low) / (high - low).clamp_min(torch.finfo(noise.dtype).tiny)


def check_faithfulness(
    explain_task: ExplainTask, cases: Sequence[Pair], maps: Mapping[str, Tensor], bootstrap: CaseBootstrap
) -> FaithfulnessResult:
    """Return how the score changes as pixels change in the order of the heatmaps, and in a random one.

    Args:
        explain_task: What is explained.
        cases: P of them, a sample.
        maps: Their heatmaps by method.
        bootstrap: Of the cases.
    """
    size = next(iter(maps.values())).shape[-2:]
    blind = random_heatmaps(len(cases), size, explain_task.settings.seed)
    curves = {
        # An empty map tells no order; in reading order its pixels would go row by row.
        name: _curves_of(
            explain_task,
            cases,
            torch.where(is_empty(heat)[:, None, None], blind, heat),
            f"Deletion and insertion, {METHOD_NAMES.get(name, name)}",
        )
        for name, heat in ({**maps, RANDOM_ORDER: blind}).items()
    }
    random = curves[RANDOM_ORDER]
    return FaithfulnessResult(
        cases=len(cases),
        positives=explain_task.num_positive(cases),
        shares=random.shares.tolist(),
        methods={
            name: _against_random(of_method, None if name == RANDOM_ORDER else random, bootstrap)
            for name, of_method in curves.items()
        },
    )


def _curves_of(explain_task: ExplainTask, cases: Sequence[Pair], heat: Tensor, title: str) -> Curves:
    settings = explain_task.settings
    parts, num_done = [], 0
    for part in track(list(batches(cases, settings.batch_size)), title, console=Console(stderr=True)):
        images, pairs = read(explain_task.images, part)
        parts.append(
            faithfulness(
                explain_task.classifier,
                images,
                pairs,
                heat[num_done : num_done + len(part)],
                kind=settings.baseline,
                num_steps=settings.num_curve_steps,
                batch_size=settings.batch_size,
            )
        )
        num_done += len(part)
    return Curves(
        parts[0].shares,
        np.concatenate([part.deletion for part in parts]),
        np.concatenate([part.insertion for part in parts]),
    )


def _against_random(curves: Curves, random: Curves | None, bootstrap: CaseBootstrap) -> MethodFaithfulness:
    areas = bootstrap.mean(curves.areas())
    differences = (
        [None, None] if random is None else bootstrap.mean(curves.areas() - random.areas(), signed=True)
    )
    deletion, insertion = (
        CurveResult(np.round(curve.mean(axis=0), 5).tolist(), area, difference)
        for curve, area, difference in zip(
            (curves.deletion, curves.insertion), areas, differences, strict=True
        )
    )
    return MethodFaithfulness(deletion, insertion)
