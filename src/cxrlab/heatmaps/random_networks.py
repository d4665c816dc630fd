"""The same network with random weights, from the head backwards: does a heatmap depend on what was learnt?"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics.functional.image import structural_similarity_index_measure

from cxrlab.errors import CheckpointError, ConfigError
from cxrlab.metrics.predictions import Floats
from cxrlab.models.network import Network, build_network
from cxrlab.training.module import Classifier

_RANKED = 32  # a map is ranked on so many cells by so many: it has no finer structure
_CONSTANT = 1e-12


def stages(network: Network) -> list[tuple[str, list[str]]]:
    """Return the parts of a network from the head to the stem: what each is called, and its parameters.

    They are its stages; of a network that has none, each layer that has parameters.
    """
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = [[names[parameter] for parameter in stage] for stage in network.stages()]
    if not groups:
        layers = [
            (
                name or type(layer).__name__,
                [names[parameter] for parameter in layer.parameters(recurse=False)],
            )
            for name, layer in network.named_modules()
        ]
        return [(name, parameters) for name, parameters in reversed(layers) if parameters]
    inside = {name for group in groups for name in group}
    head = [name for name in names.values() if name not in inside]
    titles = ["stem", *(f"stage {number}" for number in range(1, len(groups)))]
    parts = [("head", head), *zip(reversed(titles), reversed(groups), strict=True)]
    return [(name, parameters) for name, parameters in parts if parameters]


def randomized_copy(classifier: Classifier, seed: int) -> Network:
    """Return a network like a classifier's, as it is before any training; the random state is left alone.

    Args:
        classifier: Whose checkpoint describes the network. One that cannot be built from its description,
            since its package is not trusted, is copied, and its layers are reset.
        seed: Of its weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = build_network(classifier.hparams["network"], classifier.trust)
        except (CheckpointError, ConfigError):
            network = copy.deepcopy(classifier.network).cpu()
            for layer in network.modules():
                getattr(layer, "reset_parameters", lambda: None)()
    return network.eval()


def randomised(
    classifier: Classifier, images: Tensor, *, seed: int, batch_size: int
) -> Iterator[tuple[str, nn.Module]]:
    """Yield a copy of a classifier's network as more and more of it gets random weights, from the head on.

    Batch normalisation behind random weights gets the statistics of ``images``: with those of the trained
    network, or none, activations would vanish or explode, and an empty heatmap would say nothing.

    Args:
        classifier: Its network is left as it is.
        images: Decoded, such as some of the training part, shape ``(N, C, H, W)``.
        seed: Of the weights.
        batch_size: Images that go through the network at once.

    Yields:
        The part that was randomised last, and the network, which is the same object, changed, at each step;
        at the last one nothing learnt is left.
    """
    network = copy.deepcopy(classifier.network).eval()
    random_network = randomized_copy(classifier, seed).to(classifier.device)
    ready = classifier.preprocess(images.to(classifier.device))
    ready = ready.contiguous(memory_format=classifier.memory_format)
    drawn, own = dict(random_network.named_parameters()), dict(network.named_parameters())
    changed: set[str] = set()
    for part, names in stages(network):
        with torch.no_grad():
            for name in names:
                own[name].copy_(drawn[name])
        changed.update(names)
        norms = [
            layer
            for prefix, layer in network.named_modules()
            if isinstance(layer, _BatchNorm) and _is_in(prefix, layer, changed)
        ]
        _fit_statistics(network, norms, ready, batch_size)
        yield part, network


def _is_in(prefix: str, layer: nn.Module, names: set[str]) -> bool:
    """Tell whether a layer is behind random weights; one without parameters is told by nothing else."""
    own = [f"{prefix}.{name}" for name, _ in layer.named_parameters(recurse=False)]
    return not own or own[0] in names


@torch.no_grad()
def _fit_statistics(network: nn.Module, norms: Sequence[_BatchNorm], images: Tensor, batch_size: int) -> None:
    """Set the statistics of some batch normalisations to those of images, one after another's change."""
    if not norms:
        return
    data_type = next(network.parameters()).dtype
    with _accumulating(norms):
        for batch in _of_two_or_more(images, batch_size):
            network(batch.to(data_type))


def _of_two_or_more(images: Tensor, batch_size: int) -> Sequence[Tensor]:
    """Return images in batches of equal size, each of two or more: one alone may have no variance.

    A single image is there twice, with the statistics that its places have.
    """
    several = images if len(images) > 1 else images.repeat(2, 1, 1, 1)
    most = -(-len(several) // max(batch_size, 2))
    return several.tensor_split(min(most, len(several) // 2))


@contextmanager
def _accumulating(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    kept = [(layer, layer.momentum) for layer in norms]
    try:
        for layer in norms:
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over batches
            layer.train()
        yield
    finally:
        for layer, momentum in kept:
            layer.momentum = momentum
            layer.eval()


def rank_correlations(first: Tensor, second: Tensor) -> Floats:
    """Return Spearman's correlation of each pair of heatmaps; NaN where one is the same everywhere.

    Args:
        first: Shape ``(N, H, W)``.
        second: Likewise.

    Example:
        >>> maps = torch.arange(16.0).reshape(1, 4, 4)
        >>> rank_correlations(maps, -maps)
        array([-1.])
    """
    ranks = []
    for maps in (first, second):
        side = min(_RANKED, *maps.shape[-2:])
        coarse = F.adaptive_avg_pool2d(maps.float(), side).flatten(1).numpy()
        places = np.asarray(rankdata(coarse, axis=1), dtype=np.float64)
        ranks.append(places - places.mean(axis=1, keepdims=True))
    product = (ranks[0] * ranks[1]).sum(axis=1)
    scale = np.sqrt((ranks[0] ** 2).sum(axis=1) * (ranks[1] ** 2).sum(axis=1))
    correlations: Floats = np.full(len(product), np.nan)
    np.divide(product, scale, out=correlations, where=scale > _CONSTANT)
    return correlations


def similarities(first: Tensor, second: Tensor) -> Floats:
    """Return the structural similarity (SSIM, Wang et al., IEEE TIP 2004) of each pair of heatmaps.

    Args:
        first: Values in [0, 1], shape ``(N, H, W)``.
        second: Likewise.
    """
    similarity = structural_similarity_index_measure(
        second[:, None].float(), first[:, None].float(), data_range=1.0, reduction="none"
    )
    values = similarity[0] if isinstance(similarity, tuple) else similarity
    return np.asarray(values.reshape(-1).numpy(), dtype=np.float64)
