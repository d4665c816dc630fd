"""Small convolutional networks, written layer by layer, with the defaults of the tutorials they come from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from cxrlab.errors import ConfigError
from cxrlab.models.network import Network
from cxrlab.models.weights.seen import RANDOM

Padding = Literal["valid", "same"]
Layer = Mapping[str, Any] | str

# The default: three convolutions and a dense layer, as many tutorials have them.
LAYERS: tuple[Layer, ...] = (
    {"conv": 32},
    "pool",
    {"conv": 64},
    "pool",
    {"conv": 128},
    "pool",
    {"dense": 128},
)

# Keras' defaults; its momentum of 0.99 is what torch calls 0.01.
_EPSILON = 1e-3
_MOMENTUM = 0.01
# Of the probability that a published network drops out after its output.
_LEAST_PROBABILITY = 1e-7

_WITH_KERNEL = ("conv", "dense")
_KINDS = "conv, pool, norm, dropout or dense"


class _Described(NamedTuple):
    kind: str
    value: Any
    is_linear: bool
    l2: float


class SequentialNetwork(Network):
    """Convolutions, then dense layers, then one logit a label.

    Kernels start Glorot-uniform and biases at 0; a batch normalisation has an epsilon of 1e-3 and gives each
    batch a weight of 0.01 in its statistics. These are Keras' defaults. What stands before the first dense
    layer, or before the logits, is flattened.

    Args:
        layers: In order, each a name or ``{name: value}``: ``{conv: width}`` (3x3 and ReLU; ``{conv: width,
            linear: true}`` without the ReLU), ``pool`` (the maximum of 2x2), ``norm`` (batch normalisation),
            ``{dropout: probability}``, ``{dense: width}`` (and ReLU). A convolution or dense layer with ``l2:
            amount`` adds that many times the sum of its squared weights to the loss of training. The layer to
            the logits is added.
        num_labels: Number of logits, L.
        channels: Channels of the input, C.
        image_size: Height and width of the input in pixels.
        padding: ``valid`` lets a convolution shrink the image by two pixels, ``same`` keeps its size.
        output_dropout: Probability of dropping an output's probability in training: a flaw of one published
            network, kept so that it can be repeated. The network then returns the logit of what is left.

    Attributes:
        feature_map: Passes the last spatial features through unchanged, for class activation maps.

    Raises:
        ConfigError: If a layer is unknown, out of range or out of order, or the image is too small for them.
    """

    def __init__(
        self,
        layers: Sequence[Layer] = LAYERS,
        *,
        num_labels: int,
        channels: int = 1,
        image_size: int = 224,
        padding: Padding = "valid",
        output_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.initial_weights = RANDOM
        self.image_size, self.channels = image_size, channels
        self._arguments = {
            "layers": [layer if isinstance(layer, str) else dict(layer) for layer in layers],
            "padding": padding,
            "output_dropout": output_dropout,
        }
        _check_probability("output_dropout", output_dropout)
        described = [_described(layer) for layer in layers]
        num_spatial = next((n for n, layer in enumerate(described) if layer.kind == "dense"), len(described))
        late = [layer.kind for layer in described[num_spatial:] if layer.kind in ("conv", "pool")]
        if late:
            raise ConfigError(f"model.layers: {late[0]} stands behind a dense layer, where no image is left.")
        self.features, width, side = _spatial(described[:num_spatial], padding, channels, image_size)
        self.feature_map = nn.Identity()
        self.head = _dense(described[num_spatial:], width * side * side, num_labels)
        self.output_dropout = nn.Dropout(output_dropout) if output_dropout else None
        self.apply(_initialise)
        kernels = [
            layer for layer in [*self.features, *self.head] if isinstance(layer, nn.Conv2d | nn.Linear)
        ]
        amounts = [layer.l2 for layer in described if layer.kind in _WITH_KERNEL]
        self.penalised = [(layer, l2) for layer, l2 in zip(kernels, amounts, strict=False) if l2]

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, L)`` of preprocessed images ``(B, C, H, W)``."""
        logits: Tensor = self.head(self.feature_map(self.features(images)))
        if self.output_dropout is None:
            return logits
        # In float32: nearer to 1 than 1e-7 there is no half-precision number.
        kept = self.output_dropout(torch.sigmoid(logits.float()))
        return torch.logit(kept.clamp(_LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY))

    def penalty(self) -> Tensor:
        """Return what the weights of the layers with ``l2`` add to the loss of training, a scalar."""
        terms = [l2 * layer.weight.square().sum() for layer, l2 in self.penalised]
        return torch.stack(terms).sum() if terms else torch.zeros(())

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the dense layers, from the first to the logits."""
        return list(self.head.parameters())

    def arguments(self) -> Mapping[str, object]:
        """Return what makes the same network, but for its shape and weights."""
        return dict(self._arguments)

    @property
    def feature_layer(self) -> nn.Module:
        """The layer that class activation maps read."""
        return self.feature_map

    @property
    def stage_layers(self) -> dict[str, nn.Module]:
        """The layers before each reduction, by name, the finest grid first: places for activation maps."""
        pools = [place for place, layer in enumerate(self.features) if isinstance(layer, nn.MaxPool2d)]
        return {f"features.{place - 1}": self.features[place - 1] for place in pools if place}

    def to_grid(self, activations: Tensor) -> Tensor:
        """Return the output of ``feature_layer`` as it is: ``(B, F, h, w)``."""
        return activations


def _described(layer: Layer) -> _Described:
    """Return what a layer is, checked.

    Example:
        >>> _described({"conv": 32, "linear": True})
        _Described(kind='conv', value=32, is_linear=True, l2=0.0)
    """
    given: dict[str, Any] = {layer: None} if isinstance(layer, str) else dict(layer)
    is_linear, l2 = bool(given.pop("linear", False)), given.pop("l2", 0.0)
    none: tuple[str, Any] = ("", None)
    kind, value = next(iter(given.items()), none)
    needs: dict[str, type | tuple[type, ...]] = {
        "conv": int,
        "dense": int,
        "dropout": (int, float),
        "pool": type(None),
        "norm": type(None),
    }
    fits = len(given) == 1 and kind in needs and isinstance(value, needs[kind]) and type(value) is not bool
    if not fits or (kind in _WITH_KERNEL and value < 1) or (is_linear and kind != "conv"):
        raise ConfigError(f"model.layers: {layer!r} is none of {_KINDS}, with a width or probability if any.")
    if not isinstance(l2, int | float) or l2 < 0 or (l2 and kind not in _WITH_KERNEL):
        raise ConfigError(f"model.layers: {layer!r}: l2 is a number from 0, of a conv or dense layer.")
    if kind == "dropout":
        _check_probability("layers: dropout", value)
    return _Described(kind, value, is_linear, float(l2))


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ConfigError(f"model.{name}={value} must be at least 0 and below 1.")


def _spatial(
    described: Sequence[_Described], padding: Padding, channels: int, side: int
) -> tuple[nn.Sequential, int, int]:
    """Return the layers that see an image, the width of what they give, and its height in pixels."""
    layers: list[nn.Module] = []
    image_size, width = side, channels
    make: dict[str, Callable[[], nn.Module]] = {
        "pool": lambda: nn.MaxPool2d(2),
        "norm": lambda: nn.BatchNorm2d(width, eps=_EPSILON, momentum=_MOMENTUM),
    }
    for kind, value, is_linear, _ in described:
        if kind == "conv":
            layers.append(nn.Conv2d(width, value, 3, padding=padding))
            layers += [] if is_linear else [nn.ReLU()]
            width, side = value, side - 2 * (padding == "valid")
        else:
            layers.append(nn.Dropout(value) if kind == "dropout" else make[kind]())
            side //= 2 if kind == "pool" else 1
        if side < 1:
            raise ConfigError(
                f"data.image_size={image_size} is too small for model.layers: after {len(layers)} of them "
                "no pixel is left."
            )
    return nn.Sequential(*layers), width, side


def _dense(described: Sequence[_Described], width: int, num_labels: int) -> nn.Sequential:
    """Return what comes after the image is flattened, up to the logits."""
    layers: list[nn.Module] = [nn.Flatten()]
    for kind, value, _, _ in described:
        if kind == "dense":
            layers += [nn.Linear(width, value), nn.ReLU()]
            width = value
        else:
            layers.append(
                nn.Dropout(value)
                if kind == "dropout"
                else nn.BatchNorm1d(width, eps=_EPSILON, momentum=_MOMENTUM)
            )
    return nn.Sequential(*layers, nn.Linear(width, num_labels))


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
