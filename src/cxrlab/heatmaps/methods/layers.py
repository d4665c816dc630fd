"""Which layers of a network an activation map reads, and a network left as it was once it has been read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from cxrlab.errors import ConfigError
from cxrlab.heatmaps.settings import CAM_METHODS
from cxrlab.models.network import Network, uncompiled

_LEAST_SIDE = 7  # cells

# By network: cells a side of its layers, for each size of images.
_SIDES: WeakKeyDictionary[nn.Module, dict[tuple[int | nn.Module, ...], list[int]]] = WeakKeyDictionary()


def is_explainable(network: nn.Module) -> bool:
    """Tell whether a network has spatial features that an activation map can read."""
    return isinstance(network, Network) and network.feature_layer is not None


def unexplainable_reason(network: nn.Module, methods: Sequence[str]) -> str | None:
    """Return why heatmaps by some methods cannot be made of a network; None where they can.

    Nothing is passed through the network, so that this can be asked before any image is decoded.

    Args:
        network: As :func:`cxrlab.models.wrap` gives it.
        methods: Their names; those that do not read a layer, such as ``occlusion``, suit every network.

    Example:
        >>> from cxrlab.models import wrap
        >>> unexplainable_reason(wrap(nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), 2, 1), ["gradcam"])
        'Sequential has no spatial features (Network.feature_layer), which gradcam reads'
    """
    by_layer = [method for method in methods if method in CAM_METHODS]
    if not by_layer or is_explainable(network):
        return None
    title = network.title if isinstance(network, Network) else type(network).__name__
    return f"{title} has no spatial features (Network.feature_layer), which {', '.join(by_layer)} reads"


def target_layers(network: nn.Module, layers: str | Sequence[str], image: Tensor) -> list[nn.Module]:
    """Return the layers that an activation map reads; the mean of several layers' maps is taken.

    Args:
        network: With a ``feature_layer``; its ``stage_layers`` are what ends its stages.
        layers: ``auto`` for the last spatial features, or, where these have fewer than 7 cells a side, the
            last stage that has as many: 7 is what networks made for 224 pixels have, and fewer hide where a
            finding is. ``fused`` for this layer, the last stage of a finer grid before it, and all after it:
            one cell of a 7x7 grid is 2 % of an image, and a nodule 0.5 %. Or the name of a layer, or several,
            as ``named_modules`` has them.
        image: Any preprocessed image, shape ``(1, C, H, W)``; it is what the grids are measured with.

    Raises:
        ConfigError: If the network has no spatial features, no such layer, or none of a finer grid.
    """
    if not isinstance(network, Network) or network.feature_layer is None:
        title = network.title if isinstance(network, Network) else type(network).__name__
        raise ConfigError(
            f"Activation maps need spatial features, and {title} has none that cxrlab finds. Use "
            "explanation.methods=[occlusion] or [integrated_gradients], which ask for none, or give it a "
            "feature_layer (see cxrlab.models.Network)."
        )
    if layers in ("auto", "fused"):
        return _by_grid(network, network.feature_layer, image, fused=layers == "fused")
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        raise ConfigError("explanation.layers=[] names no layer; auto chooses one.")
    return [_named(network, name) for name in names]


def _named(network: Network, name: str) -> nn.Module:
    try:
        layer = network.get_submodule(name)
    except AttributeError:
        layer = network
    if layer is network:
        names = _suggested(network)
        listed = f"Those that end a stage are {', '.join(names)}; layers" if names else "Layers"
        raise ConfigError(
            f"explanation.layers names {name!r}, and the network has no such layer. {listed}.txt in the run "
            "directory lists all."
        )
    return layer


def _suggested(network: Network) -> list[str]:
    """Return the names of layers that end a stage, up to the last one that a map can be read from."""
    last = "" if network.feature_layer is None else layer_name(network, network.feature_layer)
    return [
        *(name for name in network.stage_layers if not last.startswith(f"{name}.")),
        *([last] if last else []),
    ]


def layer_name(network: nn.Module, layer: nn.Module) -> str:
    """Return the name of a layer among ``named_modules``; empty where it is none of them."""
    return next((name for name, module in network.named_modules() if module is layer), "")


def _by_grid(network: Network, last: nn.Module, image: Tensor, *, fused: bool) -> list[nn.Module]:
    """Choose among the last spatial features and the stages whose grids are finer than theirs."""
    stages = list(network.stage_layers.values())
    sides = _sides_of(network, [*stages, last], image)
    finer = [layer for layer in stages if sides.get(layer, 0) > sides[last]]
    candidates = [*finer, last]  # the grids get coarser
    chosen = next((n for n in reversed(range(len(candidates))) if sides[candidates[n]] >= _LEAST_SIDE), 0)
    if not fused:
        return [candidates[chosen]]
    if chosen == 0:
        raise ConfigError(
            f"explanation.layers=fused needs a layer with a finer grid than {sides[candidates[0]]}x"
            f"{sides[candidates[0]]}, and none of {list(network.stage_layers)} has one. Set "
            "explanation.layers=auto, or name layers."
        )
    return candidates[chosen - 1 :]


def _sides_of(network: Network, layers: Sequence[nn.Module], image: Tensor) -> dict[nn.Module, int]:
    """Return how many cells a side the output of each layer has, measured once for a size of images.

    On a GPU one image takes as long as a batch, and heatmaps are made a batch at a time.
    """
    measured = _SIDES.setdefault(network, {})
    key = (*image.shape[1:], *layers)
    if key not in measured:
        sides = _sides(network, layers, image)
        measured[key] = [sides.get(layer, 0) for layer in layers]
    return dict(zip(layers, measured[key], strict=True))


def _sides(network: Network, layers: Sequence[nn.Module], image: Tensor) -> dict[nn.Module, int]:
    """Return how many cells a side the output of each layer has."""
    sides: dict[nn.Module, int] = {}

    def record(layer: nn.Module, _: object, output: Tensor) -> None:
        sides[layer] = min(network.to_grid(output).shape[-2:])

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
    """Record gradients in evaluation mode and full precision, uncompiled; leave the network as it was.

    Parameters need no gradient here, and libraries that call ``zero_grad`` would drop the ones that training
    has accumulated. Inference mode, ``no_grad`` and autocast may be active around the call.
    """
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in network.parameters()]
    modes = [(module, module.training) for module in network.modules()]
    autocast_off = torch.autocast(parameters[0][0].device.type, enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), autocast_off, uncompiled(network):
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
