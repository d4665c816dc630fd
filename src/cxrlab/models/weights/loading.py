"""Weights from elsewhere: timm's published ones, or a local file; never skipped silently.

Files spell the names of one network's weights in several ways; ``translated`` brings torchvision's, older
timm's, and those of programs that wrap a network, to a network's own.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NotRequired, TypedDict

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from timm.models import adapt_input_conv
from torch import Tensor, nn

from cxrlab.errors import CheckpointError, MissingFileError
from cxrlab.models.weights.files import load_weight_file

log = logging.getLogger(__name__)

# Where training programs keep the state dict among an epoch, a score and an optimizer's state; the first of
# them counts.
_NESTED = ("state_dict", "model", "model_state_dict", "net", "model_ema", "state_dict_ema", "ema")

# How many such keys may stand one below the other.
_DEEPEST = 4

# How many names a log line lists.
_NAMED = 12

# What a file may hold once and say often, such as an even value in every place.
_MOST_REPEATED_BYTES = 2**26

# Where timm keeps weights on the Hugging Face Hub, and how long an answer may take.
_FILES_OF_HUB = ("model.safetensors", "pytorch_model.bin")
_HUB_SECONDS = 5.0

# torchvision before 0.3, and every CheXNet re-implementation that saved with it.
_OLD_DENSE_LAYER = re.compile(r"(denselayer\d+)\.(norm|conv)\.([12])\.")

# Parameters of a classification head, in the spellings of timm and torchvision.
_HEAD = re.compile(r"(^|\.)(classifier|fc|head|head_dist|heads)(\.|$)")

_MOBILENET_V2_STAGES = (1, 2, 3, 4, 3, 3, 1)  # blocks of each, as published

_TORCHVISION_MOBILENET_V2 = {
    f"features.{number}": f"{stage}.{block}"
    for number, (stage, block) in enumerate(
        ((stage, block) for stage, count in enumerate(_MOBILENET_V2_STAGES) for block in range(count)), 1
    )
}

# Within a block: the first has no expansion.
_FIRST_BLOCK = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}

_LATER_BLOCK = {
    "0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3",
}  # fmt: skip

_OUTER = {
    "features.0.0": "conv_stem", "features.0.1": "bn1", "features.18.0": "conv_head", "features.18.1": "bn2",
}  # fmt: skip

_Depths = dict[tuple[int, ...], str]  # number in the name, by layers of each stage

_BOTTLENECK_RESNETS: _Depths = {(3, 4, 6, 3): "50", (3, 4, 23, 3): "101", (3, 8, 36, 3): "152"}

_BASIC_RESNETS: _Depths = {(1, 1, 1, 1): "10", (2, 2, 2, 2): "18", (3, 4, 6, 3): "34"}

_DENSENETS: _Depths = {
    (6, 12, 24, 16): "121", (6, 12, 32, 32): "169", (6, 12, 48, 32): "201", (6, 12, 36, 24): "161",
}  # fmt: skip

# What only one family's names hold.
_FAMILIES = (
    (r"(^|\.)features\.\d+\.conv\.\d", "a MobileNetV2 of torchvision"),
    (r"(^|\.)features\.\d+\.block\.\d", "a MobileNetV3 of torchvision"),
    (r"(^|\.)blocks\.\d+\.\d+\.conv_(dw|pw)\.", "a MobileNet or EfficientNet of timm"),
    (r"(^|\.)(blocks\.\d+\.attn|encoder\.layers\.encoder_layer_\d+)\.", "a vision transformer"),
    (r"(^|\.)stages\.\d+\.blocks\.\d+\.(conv_dw|gamma)", "a ConvNeXt of timm"),
    (r"(^|\.)features\.\d+\.(weight|bias)$", "a VGG or AlexNet of torchvision"),
)


class BackboneOptions(TypedDict):
    """What timm needs beside an architecture's name; ``img_size`` only where it takes a fixed one."""

    num_classes: int
    in_chans: int
    img_size: NotRequired[int]


def load_pretrained(backbone: str, options: BackboneOptions) -> nn.Module:
    """Create a timm model with the weights that timm publishes for it.

    Raises:
        CheckpointError: If there are none, or they cannot be fetched.
    """
    config = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    source = (config and (config.hf_hub_id or config.url)) or "no source known to timm"
    try:
        if config is not None and config.hf_hub_id:
            _check_hub(config.hf_hub_id)
        network: nn.Module = timm.create_model(backbone, pretrained=True, **options)
    except Exception as error:  # the hub's client raises errors of many kinds when it is offline
        reason = (str(error) or "no message").splitlines()[0].rstrip(".")
        raise CheckpointError(
            f"model.pretrained=true: the weights of {backbone} ({source}) could not be loaded: "
            f"{type(error).__name__}: {reason}. "
            "Without a network, fetch model.safetensors elsewhere and set model.checkpoint_path to it, or "
            "train from random weights with model.pretrained=false. HF_HUB_OFFLINE=1 in the environment "
            "takes weights from the cache of an earlier download without asking."
        ) from error
    return network


def _check_hub(repository: str) -> None:
    """Ask the hub once for weights that its cache lacks: timm's own download tries for almost a minute.

    Raises:
        Exception: Of the hub's client, where it cannot be reached.
    """
    name, _, tag = repository.partition("@")
    revision = tag or None
    cached = [try_to_load_from_cache(name, file, revision=revision) for file in _FILES_OF_HUB]
    if any(isinstance(path, str) for path in cached):
        return
    url = hf_hub_url(name, _FILES_OF_HUB[0], revision=revision)
    try:
        get_hf_file_metadata(url, timeout=_HUB_SECONDS)
    except HfHubHTTPError:
        log.debug("The hub has no %s; timm looks for other files", url)


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

    The names may be those of timm, of torchvision (DenseNet, ResNet, MobileNetV2), of CheXNet's
    re-implementations, or of a checkpoint of this package; see :func:`translated`.
    A head is never loaded, also where it has as many outputs as there are labels: their order is not known.
    Weights of the first layer for another number of input channels are summed or repeated, as timm does.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If it belongs to another architecture.
    """
    path = Path(checkpoint_path).expanduser()
    own = backbone.state_dict()
    read = read_weights(path)
    weights, outside = translated(read, own.keys())
    _adapt_first_layer(own, weights)
    _check_misfits(own, weights, path, looks_like(read.keys()))
    check_finite_weights({name: weights[name] for name in own if name in weights}, path)
    unused = sorted(weights.keys() - own.keys())
    external = [name for name in unused if not is_head(name)]
    backbone.load_state_dict({name: weights[name] for name in own if name in weights}, strict=False)
    left = [*unused, *outside]
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    log.info(
        "Loaded %d parameters of %s; not used: %s%s.",
        len(_wanted(own)), path, left[:_NAMED] or "nothing", more,
    )  # fmt: skip
    if external:
        log.warning(
            "%d parameters of %s are not of the head and were not used: %s.",
            len(external),
            path,
            external[:5],
        )


def _wanted(own: Mapping[str, Tensor]) -> set[str]:
    """Return what a file must hold; those of before PyTorch 0.4.1 counted no batches."""
    return {name for name in own if not name.endswith("num_batches_tracked")}


def _check_misfits(
    own: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: Path, family: str | None
) -> None:
    wanted = _wanted(own)
    missing = sorted(wanted - weights.keys())
    misfits = sorted(n for n in wanted & weights.keys() if own[n].shape != weights[n].shape)
    if not missing and not misfits:
        return
    shapes = [f"{n} {tuple(weights[n].shape)} for {tuple(own[n].shape)}" for n in misfits[:3]]
    belongs = f" By its names the file is of {family}." if family else ""
    raise CheckpointError(
        f"{path} does not fit the network: {len(missing)} of its {len(wanted)} parameters are missing "
        f"{missing[:3]}, {len(misfits)} have another shape {shapes}.{belongs} Is model=... the architecture "
        "it was trained with?"
    )


def _adapt_first_layer(own: Mapping[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Convert the first convolution's weights in place where only the number of input channels differs."""
    name = next((name for name, tensor in own.items() if tensor.ndim == 4), "")
    if name not in weights or weights[name].ndim != 4 or weights[name].shape == own[name].shape:
        return
    (width, channels, *kernel), (file_width, file_channels, *file_kernel) = (
        own[name].shape,
        weights[name].shape,
    )
    if (width, kernel) != (file_width, file_kernel) or file_channels not in (1, 3):
        return
    if file_channels == 3:
        weights[name] = adapt_input_conv(channels, weights[name])
    else:  # so that equal channels answer as the one did
        weights[name] = weights[name].repeat(1, channels, 1, 1) / channels
    log.info("Adapted %s from %d to %d input channels.", name, file_channels, channels)


def is_head(name: str) -> bool:
    """Tell whether a weight is of a classification head, by the names that timm and torchvision give it."""
    return _HEAD.search(name) is not None


def translated(weights: Mapping[str, Tensor], own: Collection[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights of a file under a network's own names, and the names of those outside it.

    Whatever stands before the network's names is stripped, such as ``module.densenet121.`` of a CheXNet
    re-implementation or ``network.backbone.`` of this package; then older spellings, and torchvision's for
    MobileNetV2, are brought to timm's.

    Args:
        weights: As the file holds them.
        own: Names that the network has.

    Returns:
        Weights below the prefix that brings most names to match, renamed and in the file's order; and the
        names of the file that do not start with it, such as those of a head beside the network.
    """
    best: tuple[int, str, Callable[[str], str]] = (-1, "", _unchanged)
    rename: Callable[[str], str]
    for rename in (_unchanged, _modern_densenet, _timm_mobilenet_v2):
        prefix, matches = _best_prefix([rename(name) for name in weights], own)
        if matches > best[0]:
            best = matches, prefix, rename
    _, prefix, rename = best
    spelled = {rename(name): tensor for name, tensor in weights.items()}
    inside = {
        name.removeprefix(prefix): tensor for name, tensor in spelled.items() if name.startswith(prefix)
    }
    return inside, [name for name in spelled if not name.startswith(prefix)]


def looks_like(names: Collection[str]) -> str | None:
    """Return what architecture names of weights are known to belong to; None where they tell nothing.

    Example:
        >>> looks_like(["module.layer1.0.conv2.weight", "module.layer4.0.conv3.weight"])
        'a ResNet with bottlenecks'
        >>> looks_like(["encoder.weight"]) is None
        True
    """
    layers = _counts(names, r"denseblock(\d+)\.denselayer(\d+)\.")
    if layers:
        return _with_number("DenseNet", _DENSENETS, layers)
    blocks = _counts(names, r"(?:^|\.)layer([1-4])\.(\d+)\.")
    if blocks:
        if any(re.search(r"layer[1-4]\.\d+\.conv3\.", name) for name in names):
            return _with_number("ResNet", _BOTTLENECK_RESNETS, blocks) + " with bottlenecks"
        return _with_number("ResNet", _BASIC_RESNETS, blocks) + " with basic blocks"
    for pattern, family in _FAMILIES:
        if any(re.search(pattern, name) for name in names):
            return family
    return None


def _unchanged(name: str) -> str:
    return name


def _modern_densenet(name: str) -> str:
    return _OLD_DENSE_LAYER.sub(r"\1.\2\3.", name)


def _timm_mobilenet_v2(name: str) -> str:
    """Return timm's name of a weight of torchvision's MobileNetV2; other names come back as they are."""
    match = re.fullmatch(r"(.*?)(features\.\d+)\.(?:conv\.)?([\d.]+)\.(\w+)", name)
    if match is None:
        return name
    before, feature, inner, parameter = match.groups()
    outer = _OUTER.get(f"{feature}.{inner}")
    if outer is not None:
        return f"{before}{outer}.{parameter}"
    block = _TORCHVISION_MOBILENET_V2.get(feature)
    layer = (_FIRST_BLOCK if feature == "features.1" else _LATER_BLOCK).get(inner)
    return name if block is None or layer is None else f"{before}blocks.{block}.{layer}.{parameter}"


def _best_prefix(names: Collection[str], own: Collection[str]) -> tuple[str, int]:
    """Return the prefix without which most names are the network's own, and their number."""
    matches = Counter({"": 0})
    for name in names:
        parts = name.split(".")
        for depth in range(len(parts)):
            if ".".join(parts[depth:]) in own:
                matches["".join(f"{part}." for part in parts[:depth])] += 1
    return min(matches.items(), key=lambda item: (-item[1], len(item[0])))  # of equal ones the shortest


def _counts(names: Collection[str], pattern: str) -> tuple[int, ...]:
    """Return how many inner numbers each outer number of a pattern has, in order."""
    pairs = {match.groups() for name in names if (match := re.search(pattern, name))}
    counts = Counter(int(outer) for outer, _ in pairs)
    return tuple(counts[outer] for outer in sorted(counts))


def _with_number(family: str, known: _Depths, counts: tuple[int, ...]) -> str:
    return f"a {family}-{known[counts]}" if counts in known else f"a {family}"
