"""Batch normalisation by the statistics of other images than those that a network was trained on."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cxrlab.errors import ConfigError


def batch_norm_layers(network: nn.Module) -> dict[str, _BatchNorm]:
    """Return the layers of batch normalisation that keep statistics, by name.

    Example:
        >>> list(batch_norm_layers(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))))
        ['1']
    """
    return {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }


def check_batch_norm(network: nn.Module) -> None:
    """Check that a network has batch normalisation whose statistics can be replaced.

    Raises:
        ConfigError: If it has none.
    """
    if not batch_norm_layers(network):
        title = getattr(network, "title", type(network).__name__)
        raise ConfigError(
            f"adapt=batch_norm replaces the statistics of batch normalisation, and the network {title} has "
            "none (as vision transformers have none): leave adapt out."
        )


def adapt_batch_norm(network: nn.Module, show: Callable[[], object]) -> None:
    """Replace the statistics of batch normalisation by those of other images; no weight is changed.

    The images are shown twice. At first each batch is normalised by itself, since the old statistics may be
    far off, and the moments of all batches are pooled; then all are normalised by what was found, and the
    moments are taken once more, over all images at once. What an image is given afterwards depends on the
    images as a whole, and hardly on which of them shared a batch.

    Args:
        network: In evaluation mode, in which it is left; only its layers' statistics differ afterwards.
        show: Has the network compute outputs for every image, in batches that are mixed and of more than one
            image; the same at each call.

    Raises:
        ConfigError: If the network has no such layer.

    References:
        Li et al., Revisiting batch normalization for practical domain adaptation, 2016. Schneider et al.,
        Improving robustness against common corruptions by covariate shift adaptation, NeurIPS 2020. Wu and
        Johnson, Rethinking "batch" in BatchNorm, 2021 (pooled moments).
    """
    check_batch_norm(network)
    layers = list(batch_norm_layers(network).values())
    for by_batch in (True, False):
        moments = {layer: _Moments(layer) for layer in layers}
        counts = [
            layer.num_batches_tracked.clone() for layer in layers if layer.num_batches_tracked is not None
        ]
        handles = [layer.register_forward_pre_hook(moments[layer].add) for layer in layers]
        try:
            for layer in layers:
                layer.train(by_batch)
            with torch.inference_mode():
                show()
        finally:
            for handle in handles:
                handle.remove()
            for layer in layers:
                layer.eval()
        for layer, count in zip(layers, counts, strict=False):
            layer.num_batches_tracked = count
        for layer in layers:
            moments[layer].set()


class _Moments:
    """Sums over all images and places of what a layer is given, by channel."""

    def __init__(self, layer: _BatchNorm) -> None:
        self.layer = layer
        self.num_values = 0
        self.sums = torch.zeros(2, layer.num_features, dtype=torch.float64)

    def add(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].detach().transpose(0, 1).flatten(1)
        mean = values.mean(dim=1).double().cpu()
        squares = values.var(dim=1, unbiased=False).double().cpu() + mean**2
        self.num_values += values.shape[1]
        self.sums += values.shape[1] * torch.stack([mean, squares])

    def set(self) -> None:
        """Give the layer the mean and the variance over everything that was added."""
        if not self.num_values:  # a layer that is not used, such as one of a head beside the main one
            return
        mean, squares = self.sums / self.num_values
        with torch.no_grad():
            self.layer.running_mean = mean.to(self.layer.running_mean)
            variance = (squares - mean**2).clamp_min(0)
            self.layer.running_var = variance.to(self.layer.running_var)
