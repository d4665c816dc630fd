"""What cxrlab asks of a network, and how any ``nn.Module`` answers.

``Network`` is the protocol: a module of images and logits that also says where its spatial features are,
which parameters make a stage, and what it adds to the loss. ``wrap`` gives the same to a plain module, and
``build_network`` makes a network from the plain description that a checkpoint holds.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cxrlab.errors import CheckpointError, ConfigError
from cxrlab.models.weights.seen import (
    RANDOM,
    UNKNOWN_FILE,
    InitialWeights,
    timm_weights,
    torchvision_weights,
)
from cxrlab.trust import build, locate

# Classes that a checkpoint may name without anybody's trust.
OWN_NETWORKS = (
    "cxrlab.models.TimmNetwork",
    "cxrlab.models.timm_network.TimmNetwork",
    "cxrlab.models.SequentialNetwork",
    "cxrlab.models.sequential.SequentialNetwork",
)
# What training alone needs, and what a file must not choose: where weights come from.
_OF_TRAINING: Mapping[str, object] = {
    "pretrained": False,
    "checkpoint_path": None,
    "freeze": None,
    "unfreeze_epoch": None,
    "lora": None,
}
_OF_NAMED_WEIGHTS = ("weights", "accept_license")
_SHAPE = ("num_labels", "channels", "image_size")


class Network(nn.Module):
    """Images ``(B, C, H, W)`` in, logits ``(B, L)`` out, and answers to what the rest of cxrlab asks.

    Every answer has a default that says "none", so that a subclass gives what it has. A module that is no
    ``Network`` is wrapped by :func:`wrap`, which finds its spatial features.

    Attributes:
        image_size: Height and width of the images that it is made for, in pixels.
        channels: Their channels.
        initial_weights: What it started from; None where that is not known.
    """

    image_size: int
    channels: int
    initial_weights: InitialWeights | None = None

    @property
    def title(self) -> str:
        """What it is called in messages: the name of its class."""
        return type(self).__name__

    @property
    def feature_layer(self) -> nn.Module | None:
        """The layer that class activation maps read, the last with places; None where there is none."""
        return None

    @property
    def stage_layers(self) -> Mapping[str, nn.Module]:
        """The layers that end a stage, by name, the finest grid first: other places for activation maps."""
        return {}

    @property
    def label_attention(self) -> nn.Module | None:
        """The layer whose output is where each label looks, ``(B, heads, L, h, w)``; None where none does."""
        return None

    @property
    def self_attention(self) -> Sequence[nn.Module]:
        """The attention layers of a transformer, first to last; empty where it is none.

        They are timm's, or like them: with ``fused_attn`` off, ``attn_drop`` is given the attention of all
        tokens to all, ``(B, heads, T, T)``.
        """
        return []

    @property
    def reads_class_token(self) -> bool:
        """Whether a transformer's head is told of an image by the first token alone."""
        return False

    def to_grid(self, activations: Tensor) -> Tensor:
        """Bring the output of such a layer to ``(B, F, h, w)``."""
        return activations

    def embed(self, images: Tensor) -> Tensor:
        """Return the pooled features ``(B, F)`` that the head reads, of preprocessed images ``(B, C, H, W)``.

        Raises:
            ConfigError: If the network does not tell its features from its head.
        """
        raise ConfigError(_without_features(self.title))

    def classify(self, features: Tensor) -> Tensor:
        """Return the logits ``(B, L)`` of features ``(B, F)`` as :meth:`embed` gives them.

        Raises:
            ConfigError: If the network does not tell its features from its head.
        """
        raise ConfigError(_without_features(self.title))

    @property
    def linear_head(self) -> nn.Linear | None:
        """The one layer between features and logits; None where there is more than one, or another kind."""
        return None

    def stages(self) -> list[list[nn.Parameter]]:
        """Return the parameters by stage, the stem's first, without the head's; empty where not known."""
        return []

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the head; empty where it is not told apart."""
        return []

    def penalty(self) -> Tensor | float:
        """Return what is added to the loss of training, such as a sum of squared weights."""
        return 0.0

    def at_epoch(self, epoch: int) -> None:
        """Take note of the epoch, counted from 0; called before every step of training."""

    def arguments(self) -> Mapping[str, object]:
        """Return plain arguments that build the same network again, but for shape and initial weights."""
        return {}


def _without_features(title: str) -> str:
    return (
        f"{title} does not tell its features from its head. Choose a timm network (model=resnet50, or "
        "model=timm model.backbone=<name>), or give a network of your own the methods embed and classify of "
        "cxrlab.models.Network."
    )


class PlainNetwork(Network):
    """A module that is no :class:`Network`, with what can be found out from one image through it.

    Args:
        module: Images ``(B, C, H, W)`` in, logits ``(B, L)`` out. Its weights stand below ``module.`` in a
            checkpoint.
        image_size: Height and width of the images in pixels.
        channels: Their channels.

    Raises:
        ConfigError: If the module does not take such images, or gives no logits.
    """

    def __init__(self, module: nn.Module, image_size: int, channels: int) -> None:
        super().__init__()
        self.module = module
        self.image_size, self.channels = image_size, channels
        own = getattr(module, "initial_weights", None)
        self.initial_weights = own if isinstance(own, InitialWeights) else None
        self.num_logits, self._feature_name, self._stage_names = _spatial_layers(module, image_size, channels)

    @property
    def title(self) -> str:
        """The name of the module's class."""
        return type(self.module).__name__

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, L)`` of preprocessed images ``(B, C, H, W)``."""
        logits = self.module(images)
        if not isinstance(logits, Tensor):
            raise ConfigError(
                f"The network {self.title} gives a {type(logits).__name__}, not logits (B, L). "
                "Networks with outputs beside the main one have a switch for it, such as aux_logits=false."
            )
        return logits

    @property
    def feature_layer(self) -> nn.Module | None:
        """The last layer whose output has places, unless tokens come behind it."""
        return None if self._feature_name is None else self.module.get_submodule(self._feature_name)

    @property
    def stage_layers(self) -> Mapping[str, nn.Module]:
        """The last layers of each finer grid, by name."""
        return {f"module.{name}": self.module.get_submodule(name) for name in self._stage_names}


def wrap(module: nn.Module, image_size: int, channels: int) -> Network:
    """Return a network as it is, and any other module in an adapter.

    Args:
        module: Images ``(B, C, H, W)`` in, logits ``(B, L)`` out.
        image_size: Height and width of the images in pixels.
        channels: Their channels.

    Raises:
        ConfigError: If the module does not take such images, or gives no logits.

    Example:
        >>> network = wrap(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3)), 8, 1)
        >>> network.feature_layer
        Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))
        >>> wrap(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), 8, 1).feature_layer is None
        True
    """
    return module if isinstance(module, Network) else PlainNetwork(module, image_size, channels)


class _Output(NamedTuple):
    """What one call of a layer gave: its name, the smaller side of its grid, and its depth in the module."""

    name: str
    side: int
    depth: int


@torch.no_grad()
def _spatial_layers(module: nn.Module, image_size: int, channels: int) -> tuple[int, str | None, list[str]]:
    """Return the number of logits, the last layer with places, and the last of each finer grid, finest first.

    A layer that is called more than once is no place to read: its outputs are not told apart. Where tokens
    come behind the last grid, as in a vision transformer, that grid is of patches before any of them was
    looked at: there is no layer to name.
    """
    outputs: list[_Output] = []
    num_calls: dict[str, int] = {}

    def record(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_: nn.Module, __: object, output: object) -> None:
            num_calls[name] = num_calls.get(name, 0) + 1
            if isinstance(output, Tensor) and output.ndim in (3, 4):
                side = min(output.shape[-2:]) if output.ndim == 4 else 0
                outputs.append(_Output(name, side, name.count(".")))

        return hook

    handles = [layer.register_forward_hook(record(name)) for name, layer in module.named_modules() if name]
    try:
        num_logits = _num_logits(module, image_size, channels)
    finally:
        for handle in handles:
            handle.remove()
    grids = [n for n, output in enumerate(outputs) if output.side > 1 and num_calls[output.name] == 1]
    if not grids or any(output.side == 0 for output in outputs[grids[-1] :]):
        return num_logits, None, []
    last = outputs[grids[-1]]
    finer: dict[int, _Output] = {}
    for output in (outputs[n] for n in grids):
        # The outermost of a grid ends a stage; those inside it are in the midst of a block.
        if output.side > last.side and output.depth <= finer.get(output.side, output).depth:
            finer[output.side] = output
    return num_logits, last.name, [finer[side].name for side in sorted(finer, reverse=True)]


def _num_logits(module: nn.Module, image_size: int, channels: int) -> int:
    """Return how many logits a module gives of one black image; it is left as it was."""
    parameter = next(module.parameters(), torch.zeros(()))
    shape = (1, channels, image_size, image_size)
    with in_eval_mode(module), torch.random.fork_rng(devices=[]):
        try:
            logits = module(torch.zeros(shape, dtype=parameter.dtype, device=parameter.device))
        except Exception as error:  # a person's own code may fail in any way
            reason = next(iter(str(error).splitlines()), "")
            raise ConfigError(
                f"The network {type(module).__name__} fails on an image of the shape {shape} (images, "
                f"data.channels, data.image_size twice): {type(error).__name__}: {reason}"
            ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ConfigError(
            f"The network {type(module).__name__} gives {given} for an image of the shape {shape}, not "
            "logits of the shape (1, L). Return one logit a label."
        )
    return int(logits.shape[1])


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and each of its layers back into its own mode at the end."""
    modes = [(layer, layer.training) for layer in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for layer, training in modes:
            layer.training = training


def shape_arguments(
    constructor: Callable[..., Any], *, num_labels: int, channels: int, image_size: int
) -> dict[str, int]:
    """Return those of the three arguments that a network's constructor takes, by the names it has for them.

    A parameter named ``num_labels`` gets the number of logits, else one named ``num_classes``, as
    torchvision's networks have it. ``channels`` and ``image_size`` are passed where they are parameters too.
    A class that takes any keyword gets all three; a function that takes any, such as
    ``torchvision.models.resnet18``, hands them on to a torchvision class and gets ``num_classes``.

    Raises:
        ConfigError: If the constructor takes no number of logits.

    Example:
        >>> def network(num_classes: int, channels: int) -> nn.Module: ...
        >>> shape_arguments(network, num_labels=2, channels=1, image_size=64)
        {'num_classes': 2, 'channels': 1}
    """
    parameters = inspect.signature(constructor).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    shape = {"num_labels": num_labels, "channels": channels, "image_size": image_size}
    if "num_labels" not in parameters and ("num_classes" in parameters or takes_any):
        if "num_classes" in parameters or not _is_class(constructor):
            named = {name: value for name, value in shape.items() if name in parameters}
            return {"num_classes": num_labels, **named}
    elif "num_labels" not in parameters:
        made = inspect.unwrap(constructor)
        while isinstance(made, functools.partial):
            made = made.func
        name = getattr(made, "__qualname__", repr(made))
        raise ConfigError(
            f"The network {name} takes {', '.join(parameters) or 'no argument'}, and no number of logits: "
            "give its constructor a parameter num_labels (or num_classes)."
        )
    return {name: value for name, value in shape.items() if takes_any or name in parameters}


def _is_class(constructor: Callable[..., Any]) -> bool:
    inner = inspect.unwrap(constructor)
    while isinstance(inner, functools.partial):
        inner = inner.func
    return inspect.isclass(inner)


def make_network(
    constructor: Callable[..., nn.Module],
    *,
    num_labels: int,
    channels: int,
    image_size: int,
    checks_logits: bool = True,
) -> Network:
    """Build a network for a shape, see :func:`shape_arguments`, and wrap it.

    Args:
        constructor: A class, a function, or a ``functools.partial`` of one, with all other arguments; or a
            module that is made already.
        num_labels: Number of logits, L.
        channels: Channels of the input, C.
        image_size: Height and width of the input in pixels.
        checks_logits: Whether it must give one logit a label.

    Raises:
        ConfigError: If it takes no such arguments, or what it makes does not take such images.
    """
    made = inspect.unwrap(constructor)
    if isinstance(made, nn.Module):  # a config without _partial_
        return wrap(made, image_size, channels)
    shape = shape_arguments(constructor, num_labels=num_labels, channels=channels, image_size=image_size)
    network = wrap(constructor(**shape), image_size, channels)
    if checks_logits and isinstance(network, PlainNetwork) and network.num_logits != num_labels:
        raise ConfigError(
            f"The network {network.title} was asked for {num_labels} logits, one a label, and gives "
            f"{network.num_logits}."
        )
    return network


def without_initial_weights(description: Mapping[str, object]) -> dict[str, object]:
    """Return a network's description with no source of weights, for when a checkpoint brings them."""
    kept = {name: value for name, value in description.items() if name not in {"_partial_", "_convert_"}}
    if str(kept.get("_target_")).startswith("torchvision."):
        kept.pop("weights", None)
    return kept | {name: _OF_TRAINING[name] for name in ("pretrained", "checkpoint_path") if name in kept}


def described_start(description: Mapping[str, object]) -> InitialWeights | None:
    """Return what a network starts from by its description in a config; None where that does not tell.

    Args:
        description: ``model`` of a config.

    Example:
        >>> described_start({"_target_": "torchvision.models.resnet18", "weights": "IMAGENET1K_V1"}).title
        "torchvision's IMAGENET1K_V1"
        >>> described_start({"_target_": "my_lab.Net"}) is None
        True
    """
    target = str(description.get("_target_"))
    if target.startswith("torchvision."):
        weights = description.get("weights")
        return RANDOM if weights is None else torchvision_weights(str(weights))
    if target not in OWN_NETWORKS:
        return None
    if description.get("pretrained"):
        return timm_weights(str(description.get("backbone")))
    if description.get("weights"):
        return None
    return UNKNOWN_FILE if description.get("checkpoint_path") else RANDOM


def architecture(description: Mapping[str, object]) -> dict[str, object]:
    """Return a network's description without what is about its training, as a checkpoint keeps it."""
    kept = without_initial_weights(description)
    if kept.get("_target_") in OWN_NETWORKS:
        kept |= {name: value for name, value in _OF_TRAINING.items() if name in kept}
        kept = {name: value for name, value in kept.items() if name not in _OF_NAMED_WEIGHTS}
    return kept


def describe(network: Network, num_labels: int) -> dict[str, object]:
    """Return the description of a network made in Python: its class, its arguments, and its shape."""
    kind = type(network.module if isinstance(network, PlainNetwork) else network)
    return architecture(
        {
            "_target_": f"{kind.__module__}.{kind.__qualname__}",
            **network.arguments(),
            "num_labels": num_labels,
            "channels": network.channels,
            "image_size": network.image_size,
        }
    )


def build_network(description: Mapping[str, Any], trust: Sequence[str] = ()) -> Network:
    """Build a network from the plain description that a checkpoint holds, without any initial weights.

    Args:
        description: ``_target_``, ``num_labels``, ``channels``, ``image_size`` and the other arguments.
        trust: Packages whose networks may be built beside those of :data:`OWN_NETWORKS`, such as
            ``["my_lab"]``.

    Raises:
        ConfigError: If the class is neither listed nor trusted, or does not exist.
        CheckpointError: If it is no network, or cannot be built so.
    """
    # A file must not choose what is downloaded or read either.
    node = architecture(description)
    target, source = str(node.get("_target_")), "The checkpoint (network._target_)"
    constructor = locate(target, OWN_NETWORKS, trust, source=source)
    if inspect.isclass(constructor) and not issubclass(constructor, nn.Module):
        raise CheckpointError(f"{source} names {target}, which is no torch.nn.Module.")
    num_labels, channels, image_size = (_whole_number(node, name, source) for name in _SHAPE)
    shape = shape_arguments(constructor, num_labels=num_labels, channels=channels, image_size=image_size)
    others = {name: value for name, value in node.items() if name not in (*_SHAPE, *shape)}
    try:
        module = build(others, OWN_NETWORKS, trust, source=source, **shape)
    except TypeError as error:
        raise CheckpointError(
            f"{source} names {target}, which cannot be built with {sorted(others.keys() - {'_target_'})}: "
            f"{error}. Build it yourself and pass module=<the network>."
        ) from error
    if not isinstance(module, nn.Module):
        raise CheckpointError(f"{source} names {target}, which gives a {type(module).__name__}, no network.")
    return wrap(module, image_size, channels)


def _whole_number(description: Mapping[str, object], name: str, source: str) -> int:
    value = description.get(name, 0)
    if not isinstance(value, int):
        raise CheckpointError(
            f"{source} has {name}={value!r} beside it, which is no whole number. Build the network yourself "
            "and pass module=<the network>."
        )
    return value


@contextmanager
def uncompiled(network: nn.Module) -> Iterator[None]:
    """Let a network's layers be called one by one: compiled, it does not see hooks that came later."""
    compiled_call, network._compiled_call_impl = network._compiled_call_impl, None
    try:
        yield
    finally:
        network._compiled_call_impl = compiled_call
