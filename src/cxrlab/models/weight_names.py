"""Names of weights: one network's, as torchvision, timm, and those who wrap them, spell them."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from torch import Tensor

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
    found = re.fullmatch(r"(.*?)(features\.\d+)\.(?:conv\.)?([\d.]+)\.(\w+)", name)
    if found is None:
        return name
    before, feature, inner, parameter = found.groups()
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
    found = {match.groups() for name in names if (match := re.search(pattern, name))}
    counts = Counter(int(outer) for outer, _ in found)
    return tuple(counts[outer] for outer in sorted(counts))


def _with_number(family: str, known: _Depths, counts: tuple[int, ...]) -> str:
    return f"a {family}-{known[counts]}" if counts in known else f"a {family}"
