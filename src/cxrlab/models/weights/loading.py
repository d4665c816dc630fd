"""Weights from elsewhere: timm's published ones, or a local file; every one of them, or an error."""

import contextlib
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import timm
import torch
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor, nn

from cxrlab.errors import CheckpointError, MissingFileError
from cxrlab.models.lora import merged
from cxrlab.models.weights import hub
from cxrlab.models.weights.families import why_not
from cxrlab.models.weights.files import load_weight_file
from cxrlab.models.weights.fitting import Fit, fit, is_computed, is_head, wanted

log = logging.getLogger(__name__)

# Where training programs keep the state dict among an epoch, a score and an optimizer's state; the first of
# them counts.
_NESTED = (
    "state_dict", "model", "model_state_dict", "net", "model_ema", "state_dict_ema", "ema", "module",
    "teacher",
)  # fmt: skip

# How many such keys may stand one below the other.
_DEEPEST = 4

# How many names a log line lists.
_NAMED = 12

# What a file may hold once and say often, such as an even value in every place.
_MOST_REPEATED_BYTES = 2**26

# Where timm keeps weights on the Hugging Face Hub.
_FILES_OF_HUB = ("model.safetensors", "pytorch_model.bin")

_MISSING_KEYS = re.compile(r"Missing keys \((.+?)\)")


class BackboneOptions(TypedDict):
    """What timm needs beside an architecture's name; ``img_size`` only where it takes a fixed one."""

    num_classes: int
    in_chans: int
    img_size: NotRequired[int]


def load_pretrained(
    backbone: str, settings: BackboneOptions, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """Create a timm model with the weights that timm publishes for it.

    Args:
        backbone: Its name.
        settings: What it needs beside.
        options: timm's own keywords.

    Raises:
        CheckpointError: If there are none, they cannot be fetched, or with these options they leave a weight
            of the network out.
    """
    config = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    source = (config and (config.hf_hub_id or config.url)) or "no source known to timm"
    try:
        if config is not None and config.hf_hub_id:
            _check_hub(config.hf_hub_id)
        with _missing_keys() as missing:
            network: nn.Module = timm.create_model(backbone, pretrained=True, **settings, **(options or {}))
    except Exception as error:  # the hub's client raises errors of many kinds when it is offline
        raise CheckpointError(
            f"model.pretrained=true: the weights of {backbone} ({source}) could not be loaded: "
            f"{hub.reason(error)}. "
            "Without a network, fetch model.safetensors elsewhere and set model.checkpoint_path to it, or "
            "train from random weights with model.pretrained=false. HF_HUB_OFFLINE=1 in the environment "
            "takes weights from the cache of an earlier download without asking."
        ) from error
    left = sorted(set(missing) & wanted(network.state_dict()))
    if left:
        raise CheckpointError(
            f"model.pretrained=true: the weights of {backbone} ({source}) have none for {left[:3]}, "
            f"{len(left)} in all, with model.options={dict(options or {})}: these would start at random. "
            "Leave out the option that adds them."
        )
    return network


@contextlib.contextmanager
def _missing_keys() -> Iterator[list[str]]:
    """Give a list that fills with the weights that timm leaves at random: it says so in its log alone."""
    missing: list[str] = []
    timm_log = logging.getLogger("timm.models._builder")

    def note(record: logging.LogRecord) -> bool:
        match = _MISSING_KEYS.match(record.getMessage())
        if match is not None:
            missing.extend(match[1].split(", "))
        return record.levelno >= level

    level = timm_log.getEffectiveLevel()
    own_level = timm_log.level
    timm_log.addFilter(note)
    timm_log.setLevel(min(level, logging.INFO))
    try:
        yield missing
    finally:
        timm_log.removeFilter(note)
        timm_log.setLevel(own_level)


def _check_hub(repository: str) -> None:
    """Ask the hub once for weights that its cache lacks: timm's own download tries for almost a minute.

    Raises:
        Exception: Of the hub's client, where it cannot be reached.
    """
    if any(hub.cached(repository, file) for file in _FILES_OF_HUB):
        return
    try:
        hub.ask(repository, _FILES_OF_HUB[0])
    except HfHubHTTPError:
        log.debug("%s has no %s; timm looks for other files", repository, _FILES_OF_HUB[0])


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors, .pth, .pt or .ckpt file; no code in it is run.

    It may stand below a key, as training programs keep it: ``{"state_dict": ..., "epoch": 3}``.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If it is cut short, empty, or holds something else.
    """
    if not path.is_file():
        raise MissingFileError(f"There is no file {path} (model.checkpoint_path).")
    weights = load_weight_file(path)
    for _ in range(_DEEPEST):  # a pickle can hold itself
        keys = [key for key in _NESTED if isinstance(weights, dict) and isinstance(weights.get(key), dict)]
        if not keys:
            break
        if len(keys) > 1:
            log.info("%s holds weights below %s: those below %s are taken.", path, ", ".join(keys), keys[0])
        weights = weights[keys[0]]
    tensors = {k: v for k, v in weights.items() if isinstance(v, Tensor)} if isinstance(weights, dict) else {}
    if not tensors:
        raise CheckpointError(f"{path} holds no named tensors: it is not a state dict.")
    check_plain_weights(tensors, path)
    return tensors


def check_plain_weights(weights: Mapping[str, Tensor], path: Path, key: str = "") -> None:
    """Refuse weights that are no plain arrays of real numbers, or take more memory than the file has of them.

    A few bytes can be repeated to any size, and the first look at all of the values would take that memory.

    Args:
        weights: By name.
        path: Where they are from.
        key: Put before a name in the message, such as ``state_dict.``.

    Raises:
        CheckpointError: Naming the weight.
    """
    for name, tensor in weights.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_complex():
            kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
            raise CheckpointError(
                f"{path}: {key}{name} is no plain array of real numbers ({kind}), so it cannot be used."
            )
        stored = tensor.untyped_storage().nbytes()
        if tensor.numel() * tensor.element_size() > max(stored, _MOST_REPEATED_BYTES):
            raise CheckpointError(
                f"{path}: {key}{name} repeats {stored:,} bytes to the shape {tuple(tensor.shape)}, which no "
                "training writes: not used."
            )


def check_finite_weights(weights: Mapping[str, Tensor], path: Path, key: str = "") -> None:
    """Refuse weights that would make every output NaN.

    Args:
        weights: By name.
        path: Where they are from.
        key: Put before a name in the message, such as ``state_dict.``.

    Raises:
        CheckpointError: If one holds NaN or infinity, or a variance is negative.
    """
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            continue
        wrong = ~torch.isfinite(tensor)
        what = "NaN or infinite"
        if name.endswith("running_var") and not bool(wrong.any()):
            wrong, what = tensor < 0, "negative"
        if bool(wrong.any()):
            raise CheckpointError(
                f"{path}: {int(wrong.sum())} of the {tensor.numel()} values of {key}{name} are {what}, so "
                "that every prediction would be NaN. Take weights from before that training broke down."
            )


def check_weights_fit(module: nn.Module, path: Path) -> None:
    """Read a checkpoint and compare its weights with a module's, by name and shape.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If it cannot be read, or a weight is missing, superfluous or of another shape.
    """
    own, weights = module.state_dict(), read_weights(path)
    differing = sorted(own.keys() ^ weights.keys())
    differing += sorted(
        name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape
    )
    if differing:
        raise CheckpointError(
            f"{path} does not fit the network of the config: {len(differing)} of {len(own)} weights differ "
            f"in name or shape, among them {differing[:3]}. Was the run started with another model?"
        )


def load_backbone(backbone: nn.Module, checkpoint_path: str) -> None:
    """Load a file's weights into a backbone: every parameter but the head's must be there and fit.

    The names may be those of timm, those of the layouts in ``layouts.py``, or those that timm itself converts
    for the architecture; what depends on the size of the image is resampled. A head is never loaded, also
    where it has as many outputs as there are labels: their order is not known. Weights of the first layer for
    another number of input channels are summed or repeated, as timm does.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If it belongs to another architecture.
    """
    path = Path(checkpoint_path).expanduser()
    read = merged(read_weights(path), str(path))
    found = fit(backbone, read)
    if found.faults != (0, 0):
        raise CheckpointError(f"{path} does not fit the network: {why_not(backbone, found, read)}")
    check_finite_weights(found.weights, path)
    backbone.load_state_dict(found.weights, strict=False)
    for line in _changes(backbone, found):
        log.info(line)
    left = [*sorted(found.unused, key=lambda name: (is_computed(name), name)), *found.outside]
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    num_loaded = len(wanted(backbone.state_dict()))
    log.info(
        "Loaded %d parameters of %s; not used: %s%s.",
        num_loaded, path, left[:_NAMED] or "nothing", more,
    )  # fmt: skip
    external = [name for name in found.unused if not (is_head(name) or is_computed(name))]
    if found.layout == "efficientnet_pytorch" and not _pads_as_tensorflow(backbone):
        log.warning(
            "%s is of efficientnet_pytorch, which pads as TensorFlow does, and this network does not: its "
            "features differ. Take model.backbone=tf_efficientnet_... .",
            path,
        )
    if external:
        log.warning(
            "%d parameters of %s are not of the head and were not used: %s.",
            len(external),
            path,
            external[:5],
        )


def _pads_as_tensorflow(backbone: nn.Module) -> bool:
    return any(type(layer).__name__ == "Conv2dSame" for layer in backbone.modules())


def _changes(backbone: nn.Module, found: Fit) -> Iterator[str]:
    """Yield a sentence for each thing that was done to make weights fit."""
    if found.layout:
        yield f"Translated the names of {found.layout}."
    if found.adapted is not None:
        name, channels = found.adapted
        own = backbone.state_dict()[name].shape[1]
        yield f"Adapted {name} from {channels} to {own} input channels."
    if found.is_norm_moved:
        yield "The file's norm before pooling starts fc_norm behind it, as timm does."
    if found.resampled:
        kinds = Counter(
            f"{name.rpartition('.')[2] if 'table' in name else name} from {_grid(name, before)} to "
            f"{_grid(name, after)}"
            for name, (before, after) in found.resampled.items()
        )
        listed = [text if count == 1 else f"{count} times {text}" for text, count in kinds.items()]
        yield f"Resampled to this size: {', '.join(listed)}."


def _grid(name: str, shape: tuple[int, ...]) -> str:
    """Return the grid that a weight is for: of patches, of pixels of a patch, or of a window."""
    if name.endswith("pos_embed"):
        sides = [math.isqrt(shape[1])] * 2 if len(shape) == 3 else list(shape[1:3])
    elif name.endswith("relative_position_bias_table"):
        sides = [(math.isqrt(shape[0]) + 1) // 2] * 2
    else:
        sides = list(shape[-2:])
    return "x".join(map(str, sides))
