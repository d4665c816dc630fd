"""Which layers of a network an activation map reads.

Gradients of a network outside its training, without any trace left in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from cxrlab.errors import ConfigError

_LEAST_SIDE = 7  # cells


class SpatialNetwork(Protocol):
    """What an activation map asks of a network, beside its logits."""

    @property
    def feature_layer(self) -> nn.Module:
        """The layer whose output is weighted and summed."""

    def to_grid(self, activations: Tensor) -> Tensor:
        """Bring the output of ``feature_layer`` to ``(B, F, h, w)``."""


def is_explainable(network: nn.Module) -> bool:
    """Tell whether a network has what an activation map needs, see :class:`SpatialNetwork`."""
    return hasattr(network, "feature_layer") and hasattr(network, "to_grid")


def target_layers(network: nn.Module, layers: str | Sequence[str], image: Tensor) -> list[nn.Module]:
    """Return the layers that an activation map reads; the mean of several layers' maps is taken.

    Args:
        network: See :class:`SpatialNetwork`; its property ``stage_layers``, where it has one, names what ends
            its stages.
        layers: ``auto`` for the last spatial features, or, where these have fewer than 7 cells a side, the
            last stage that has as many: 7 is what networks made for 224 pixels have, and fewer hide where a
            finding is. ``fused`` for this layer, the last stage of a finer grid before it, and all after it:
            one cell of a 7x7 grid is 2 % of an image, and a nodule 0.5 %. Or the name of a layer, or several,
            as ``named_modules`` has them.
        image: Any preprocessed image, shape ``(1, C, H, W)``; it is what the grids are measured with.

    Raises:
        ConfigError: If the network has no spatial features, no such layer, or none of a finer grid.
    """
    if not is_explainable(network):
        raise ConfigError(
            "Activation maps need a network with feature_layer and to_grid (see cxrlab.heatmaps.methods.layers."
            f"SpatialNetwork); {type(network).__name__} lacks them. Use explanation.methods=[occlusion], or "
            "add them."
        )
    if layers in ("auto", "fused"):
        return _by_grid(network, image, fused=layers == "fused")
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        raise ConfigError("explanation.layers=[] names no layer; auto chooses one.")
    return [_named(network, name) for name in names]


def _stages(network: nn.Module) -> Mapping[str, nn.Module]:
    stages: Mapping[str, nn.Module] = getattr(network, "stage_layers", {})
    return stages


def _named(network: nn.Module, name: str) -> nn.Module:
    try:
        layer = network.get_submodule(name)
    except AttributeError:
        layer = network
    if layer is network:
        known = _suggested(network)
        listed = f"Those that end a stage are {', '.join(known)}; layers" if known else "Layers"
        raise ConfigError(
            f"explanation.layers names {name!r}, and the network has no such layer. {listed}.txt in the run "
            "directory lists all."
        )
    return layer


def _suggested(network: nn.Module) -> list[str]:
    """Return the names of layers that end a stage, up to the last one that a map can be read from."""
    last = layer_name(network, cast(SpatialNetwork, network).feature_layer)
    return [
        *(name for name in _stages(network) if not last.startswith(f"{name}.")),
        *([last] if last else []),
    ]


def layer_name(network: nn.Module, layer: nn.Module) -> str:
    """Return the name of a layer among ``named_modules``; empty where it is none of them."""
    return next((name for name, module in network.named_modules() if module is layer), "")


def _by_grid(network: nn.Module, image: Tensor, *, fused: bool) -> list[nn.Module]:
    """Choose among the last spatial features and the stages whose grids are finer than theirs."""
    last, stages = cast(SpatialNetwork, network).feature_layer, list(_stages(network).values())
    sides = _sides(network, [*stages, last], image)
    finer = [layer for layer in stages if sides.get(layer, 0) > sides[last]]
    candidates = [*finer, last]  # the grids get coarser
    chosen = next((n for n in reversed(range(len(candidates))) if sides[candidates[n]] >= _LEAST_SIDE), 0)
    if not fused:
        return [candidates[chosen]]
    if chosen == 0:
        raise ConfigError(
            f"explanation.layers=fused needs a layer with a finer grid than {sides[candidates[0]]}x"
            f"{sides[candidates[0]]}, and none of {list(_stages(network))} has one. Set "
            "explanation.layers=auto, or name layers."
        )
    return candidates[chosen - 1 :]


def _sides(network: nn.Module, layers: Sequence[nn.Module], image: Tensor) -> dict[nn.Module, int]:
    """Return how many cells a side the output of each layer has."""
    sides: dict[nn.Module, int] = {}

    def record(layer: nn.Module, _: object, output: Tensor) -> None:
        sides[layer] = min(cast(SpatialNetwork, network).to_grid(output).shape[-2:])

    handles = [layer.register_forward_hook(record) for layer in layers]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return sides


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Record gradients in evaluation mode and full precision; leave the network as it was.

    Parameters need no gradient here, and libraries that call ``zero_grad`` would drop the ones that training
    has accumulated. Inference mode, ``no_grad`` and autocast may be active around the call.
    """
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in network.parameters()]
    modes = [(module, module.training) for module in network.modules()]
    autocast_off = torch.autocast(parameters[0][0].device.type, enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), autocast_off:
        try:
            network.eval()
            for parameter, _, _ in parameters:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, requires_grad, gradient in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = gradient
            for module, training in modes:
                module.training = training
