"""timm's own keywords for an architecture, such as ``drop_path_rate``: plain data, checked before use."""

import difflib
import inspect
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from cxrlab.errors import ConfigError
from cxrlab.models.network import in_eval_mode
from cxrlab.models.weights.skeleton import skeleton

# What has a key of its own, or would choose what is read or fetched.
_ELSEWHERE = {
    "num_classes": "the labels of the data decide it",
    "in_chans": "set data.channels",
    "img_size": "set data.image_size",
    "input_size": "set data.image_size",
    "pretrained": "set model.pretrained",
    "checkpoint_path": "set model.checkpoint_path",
    "pretrained_cfg": "set model.checkpoint_path for weights of your own",
    "pretrained_cfg_overlay": "set model.checkpoint_path for weights of your own",
    "pretrained_strict": "weights must always fit",
    "cache_dir": "set HF_HOME in the environment",
    "features_only": "the head needs the architecture's own pooling",
    "out_indices": "the head needs the architecture's own pooling",
    "device": "set trainer.accelerator",
    "dtype": "set trainer.precision",
}

# Of a constructor, what no keyword is: the network itself, and the description that timm makes of it.
_INTERNAL = frozenset({"self", "args", "kwargs", "cfg", "cfgs", "block_args"})

_PLAIN_TYPES = (bool, int, float, str)


def checked_options(backbone: str, options: Mapping[str, object] | None) -> dict[str, object]:
    """Return keywords for a timm architecture as plain data.

    Args:
        backbone: Name of the architecture; it exists.
        options: As they were given; None for none.

    Raises:
        ConfigError: If the architecture takes no such keyword, another key of the config is for it, or a
            value is no plain one, of another type, or a probability outside 0 to 1.

    Example:
        >>> checked_options("resnet10t", {"drop_path_rate": 0.1})
        {'drop_path_rate': 0.1}
    """
    if not options:
        return {}
    for name in options:
        if name in _ELSEWHERE or str(name).startswith("pretrained"):
            advice = _ELSEWHERE.get(str(name), "set model.checkpoint_path for weights of your own")
            raise ConfigError(f"model.options.{name}={options[name]!r} is no option of its own: {advice}.")
    kind = type(skeleton(backbone))
    parameters = inspect.signature(kind.__init__).parameters
    known = [name for name in parameters if name not in _INTERNAL and name not in _ELSEWHERE]
    for name, value in options.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else f" It takes {', '.join(known)}."
            raise ConfigError(f"model.options.{name}={value!r}: {backbone} takes no such keyword.{hint}")
        _check_value(name, value, typing.get_type_hints(kind.__init__).get(name))
    return {name: _plain(name, value) for name, value in options.items()}


def as_keywords(options: Mapping[str, object]) -> Mapping[str, Any]:
    """Return options as timm takes them: a list of numbers is a tuple there."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def check_features(network: nn.Module, options: Mapping[str, object], image_size: int, channels: int) -> None:
    """Refuse options with which a network does not give one row of features for an image.

    Args:
        network: Of timm.
        options: That it was built with; without any, nothing is checked.
        image_size: Height and width of its images in pixels.
        channels: Of its images.

    Raises:
        ConfigError: If it fails on an image, or its pooled features have another shape.
    """
    if not options:
        return
    backbone: Any = network  # timm adds what nn.Module does not declare
    image = torch.zeros(1, channels, image_size, image_size)
    try:
        with in_eval_mode(network), torch.no_grad(), torch.random.fork_rng(devices=[]):
            shape = tuple(backbone.forward_head(backbone.forward_features(image), pre_logits=True).shape)
    except Exception as error:  # timm checks few of its keywords
        raise ConfigError(
            f"With model.options={dict(options)} the network fails on an image of {image_size} pixels: "
            f"{type(error).__name__}: {error}"
        ) from error
    if shape != (1, int(backbone.head_hidden_size)):
        raise ConfigError(
            f"With model.options={dict(options)} the network gives features of the shape {shape} for an "
            f"image, and the head needs (1, {int(backbone.head_hidden_size)}): choose another global_pool."
        )


def _check_value(name: str, value: object, hint: object) -> None:
    """Refuse a value of another type than annotated, where the annotation is plain or a list of words."""
    words = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    if words and value not in words:
        listed = ", ".join(str(word) for word in words if word)
        raise ConfigError(f"model.options.{name}={value!r} is none of {listed}.")
    for kind in _PLAIN_TYPES:
        fits = type(value) is kind or (kind is float and type(value) is int)
        if hint is kind and not fits:
            raise ConfigError(f"model.options.{name}={value!r} does not fit: timm takes {kind.__name__}.")
    if name.endswith("_rate") and isinstance(value, int | float) and not 0 <= value < 1:
        raise ConfigError(f"model.options.{name}={value} must lie between 0 and 1.")


def _plain(name: str, value: object) -> object:
    if value is None or isinstance(value, _PLAIN_TYPES):
        return value
    if isinstance(value, Sequence):
        return [_plain(name, item) for item in value]
    raise ConfigError(
        f"model.options.{name}={value!r} is no plain value: give a number, a word, true or false, or a list "
        "of these."
    )
