"""Does the score depend on what a heatmap shows? Pixels are taken away, or brought back, in its order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cxrlab.heatmaps.checks.boxes import Floats
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.methods.perturbation import baseline, blurred
from cxrlab.task import activate

if TYPE_CHECKING:
    from cxrlab.training.module import Classifier

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
    classifier: "Classifier",
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
        one = ready[image : image + 1]
        ranks = _ranks(heatmap).to(one.device)
        # (S + 1, 1, H, W): where pixels are changed by then.
        done = (
            ranks[None, None]
            < torch.as_tensor(shares, device=one.device)[:, None, None, None] * ranks.numel()
        )
        changes = ((one, baseline(one, kind)), (baseline(one, "blur"), one))
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
def _probabilities(classifier: "Classifier", images: Tensor, label: int, batch_size: int) -> Floats:
    found = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        batch = batch.to(classifier.dtype).contiguous(memory_format=classifier.memory_format)
        found.append(activate(classifier.network(batch), classifier.task)[:, label].float().cpu())
    return np.asarray(torch.cat(found).numpy(), dtype=np.float64)


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
