"""A network as a short list of blocks, from the image to the logits: what a drawing of it shows."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["convolution", "pooling", "normalisation", "dense", "dropout", "stage", "other"]

_MOST = 24  # blocks; stages that would make more of them stay whole
_KINDS: tuple[tuple[Kind, tuple[type[nn.Module], ...]], ...] = (
    ("convolution", (nn.Conv1d, nn.Conv2d, nn.Conv3d)),
    ("pooling", (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd,
                 nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd)),
    ("normalisation", (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)),
    ("dense", (nn.Linear,)),
    ("dropout", (nn.modules.dropout._DropoutNd,)),
)  # fmt: skip
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Sigmoid, nn.Tanh)


@dataclass(frozen=True)
class Block:
    """A layer, or a stage of many.

    Attributes:
        name: In the network, such as ``backbone.layer1``.
        title: What it is, such as ``Conv2d 3x3, ReLU``, or ``DenseBlock of 36 layers``.
        kind: For its colour.
        shape: Of its output, for one image and without the batch; empty where that is no tensor.
        parameters: How many it has.
    """

    name: str
    title: str
    kind: Kind
    shape: tuple[int, ...]
    parameters: int


@dataclass
class _Call:
    """The first call of a module."""

    name: str
    module: nn.Module
    order: int
    shape: tuple[int, ...] = ()
    inner: list["_Call"] = field(default_factory=list)

    @property
    def num_layers(self) -> int:
        """Layers with parameters of their own."""
        has_own = any(True for _ in self.module.parameters(recurse=False))
        return has_own + sum(call.num_layers for call in self.inner)


def network_blocks(network: nn.Module, image_size: int, channels: int) -> list[Block]:
    """Return the blocks of a network in the order in which an image goes through them.

    Their parameters add up to the network's; last may stand what is no layer's, such as a class token. A
    small network is told layer by layer, activations with the layer before them. Of a larger one the stages
    stay whole that would make more than 24 blocks; all of a kind are told the same way.

    Args:
        network: Images ``(B, C, H, W)`` in; it is left as it was.
        image_size: Height and width of the image in pixels.
        channels: Its channels.

    Example:
        >>> layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        >>> [(block.title, block.shape, block.parameters) for block in network_blocks(layers, 8, 1)]
        [('Conv2d 3x3, ReLU', (4, 6, 6), 40), ('Flatten', (144,), 0), ('Linear', (2,), 290)]
    """
    calls = _calls(network, image_size, channels)
    while True:
        kinds: dict[type[nn.Module], int] = {}
        for call in calls:
            if call.inner:
                kinds[type(call.module)] = kinds.get(type(call.module), 0) + call.num_layers
        if not kinds:
            break
        opened = max(kinds, key=lambda kind: kinds[kind])
        deeper = [
            inner
            for call in calls
            for inner in (call.inner if call.inner and type(call.module) is opened else [call])
        ]
        if len(_folded(deeper)) > _MOST and len(deeper) > len(calls):
            break
        calls = deeper
    blocks = _folded(calls)
    others = sum(one.numel() for one in network.parameters()) - sum(block.parameters for block in blocks)
    return [*blocks, Block("", "parameters beside the layers", "other", (), others)] if others else blocks


@torch.no_grad()
def _calls(network: nn.Module, image_size: int, channels: int) -> list[_Call]:
    """Return the outermost modules that one image calls, each with those that it calls in turn."""
    calls: dict[str, _Call] = {}

    def before(name: str, module: nn.Module) -> None:
        calls.setdefault(name, _Call(name, module, len(calls)))

    def after(name: str, output: object) -> None:
        if isinstance(output, Tensor) and not calls[name].shape:
            calls[name].shape = tuple(output.shape[1:])

    handles = []
    for name, module in network.named_modules():
        if name:
            handles.append(
                module.register_forward_pre_hook(lambda module, _, name=name: before(name, module))
            )
            handles.append(module.register_forward_hook(lambda _, __, output, name=name: after(name, output)))
    modes = [(module, module.training) for module in network.modules()]
    parameter = next(network.parameters(), torch.zeros(()))
    try:
        with torch.random.fork_rng(devices=[]):
            network.eval()(torch.zeros(1, channels, image_size, image_size, device=parameter.device))
    finally:
        for module, training in modes:
            module.training = training
        for handle in handles:
            handle.remove()
    outermost: list[_Call] = []
    for call in sorted(calls.values(), key=lambda one: one.order):
        parent = call.name.rpartition(".")[0]
        while parent and parent not in calls:
            parent = parent.rpartition(".")[0]
        (calls[parent].inner if parent else outermost).append(call)
    for call in calls.values():
        if not any(inner.num_layers for inner in call.inner):
            call.inner = []  # such as a normalisation with its activation: one layer
    return outermost


def _folded(calls: Sequence[_Call]) -> list[Block]:
    """Return blocks: activations join the layer before them, and what does nothing is left out."""
    blocks: list[Block] = []
    for call in calls:
        module = call.module
        if isinstance(module, nn.Identity) or (
            isinstance(module, nn.modules.dropout._DropoutNd) and not module.p
        ):
            continue
        if isinstance(module, _ACTIVATIONS) and blocks and blocks[-1].shape == call.shape:
            blocks[-1] = replace(blocks[-1], title=f"{blocks[-1].title}, {type(module).__name__}")
            continue
        count = sum(one.numel() for one in module.parameters())
        blocks.append(Block(call.name, _title(call), _kind(call), call.shape, count))
    return blocks


def _kind(call: _Call) -> Kind:
    if call.inner:
        return "stage"
    other: Kind = "pooling" if "Pool" in type(call.module).__name__ else "other"
    return next((kind for kind, classes in _KINDS if isinstance(call.module, classes)), other)


def _title(call: _Call) -> str:
    module, name = call.module, type(call.module).__name__.lstrip("_")
    if call.inner:
        return f"{name} of {call.num_layers} layers" if call.num_layers > 1 else name
    size = getattr(module, "kernel_size", None)
    if isinstance(size, int):
        size = (size, size)
    if isinstance(size, tuple):
        stride = getattr(module, "stride", 1)
        step = stride[0] if isinstance(stride, tuple) else stride
        wide = isinstance(module, nn.Conv2d) and step not in (1, None)
        return f"{name} {'x'.join(map(str, size))}" + (f" step {step}" if wide else "")
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return f"{name} {module.p:g}"
    return name
