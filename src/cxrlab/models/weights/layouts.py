"""Names of weights as other libraries and programs spell them, brought to timm's.

A layout is one spelling: a function from a file's weights to weights under timm's names, which leaves names
that are not its own alone. Whatever stands before a name, such as ``module.``, stays there;
``without_prefix`` takes it away.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]

# Of two copies of a network in a file, the one that its authors evaluate.
_COPIES_TO_LEAVE = re.compile(r"(^|\.)(student|encoder_k|momentum\w*|teacher_momentum)(\.|$)")

# torchvision before 0.3, and every CheXNet re-implementation that saved with it.
_OLD_DENSE_LAYER = re.compile(r"(denselayer\d+)\.(norm|conv)\.([12])\.")

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

# Of transformers' Dinov2Model, Dinov2WithRegistersModel, ViTModel and ViTMAEModel. A layer's names are unlike
# those of a text model (``attention.self.query``), so that these are left alone.
_TRANSFORMERS_VIT = (
    (r"embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"embeddings\.position_embeddings$", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.", r"blocks.\1.attn.\2."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
    (r"encoder\.layer\.(\d+)\.norm([12])\.", r"blocks.\1.norm\2."),
    (r"encoder\.layer\.(\d+)\.mlp\.fc([12])\.", r"blocks.\1.mlp.fc\2."),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_in\.", r"blocks.\1.mlp.fc1."),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_out\.", r"blocks.\1.mlp.fc2."),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.", r"blocks.\1.mlp.fc1."),
    (r"encoder\.layer\.(\d+)\.output\.dense\.", r"blocks.\1.mlp.fc2."),
    (r"layernorm\.(weight|bias)$", r"norm.\1"),
)

_TRANSFORMERS_LAYER = re.compile(r"(^|\.)encoder\.layer\.\d+\.attention\.attention\.query\.weight$")

_CHUNK = re.compile(r"(^|.*\.)blocks\.\d+\.(\d+)\.((?:norm[12]|attn|ls[12]|mlp)\..+)")

# efficientnet_pytorch: a block without expansion has no _expand_conv and _bn0.
_EFFICIENTNET_BLOCK = re.compile(r"(^|.*\.)_blocks\.(\d+)\.(_\w+)\.(\w+)")

_EFFICIENTNET_OUTER = re.compile(r"(^|.*\.)(_conv_stem|_bn0|_conv_head|_bn1|_fc)\.(\w+)")

_EFFICIENTNET_OUTER_LAYERS = {
    "_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier",
}  # fmt: skip

_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}

_EXPANDING_LAYERS = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3", **_SQUEEZE,
}  # fmt: skip

_PLAIN_LAYERS = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
    **_SQUEEZE,
}


@dataclass(frozen=True)
class Layout:
    """A spelling of weights.

    Attributes:
        title: Whose names they are, for messages; empty for timm's own.
        translate: From weights as the file names them, and the names that a network has, to weights under
            timm's names; it returns the names of other layouts as they are.
    """

    title: str
    translate: Callable[[Weights, Collection[str]], dict[str, Tensor]]


def _unchanged(weights: Weights, own: Collection[str]) -> dict[str, Tensor]:
    return dict(weights)


def _old_densenet(weights: Weights, own: Collection[str]) -> dict[str, Tensor]:
    return {_OLD_DENSE_LAYER.sub(r"\1.\2\3.", name): tensor for name, tensor in weights.items()}


def _torchvision_mobilenet_v2(weights: Weights, own: Collection[str]) -> dict[str, Tensor]:
    return {_timm_mobilenet_v2(name): tensor for name, tensor in weights.items()}


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


def _transformers_vit(weights: Weights, own: Collection[str]) -> dict[str, Tensor]:
    """Bring transformers' names of a vision transformer to timm's, query, key and value in one layer."""
    if not any(_TRANSFORMERS_LAYER.search(name) for name in weights):
        return dict(weights)
    renamed = {}
    for name, tensor in weights.items():
        for pattern, timm_name in _TRANSFORMERS_VIT:
            match = re.search(rf"(?:^|\.){pattern}", name)
            if match is not None:
                start = match.start() + name[match.start()].count(".")
                name = name[:start] + match.expand(timm_name) + name[match.end() :]
                break
        renamed[name] = tensor
    return _with_qkv(renamed)


def _with_qkv(weights: Weights) -> dict[str, Tensor]:
    """Put ``attn.query``, ``attn.key`` and ``attn.value`` into one ``attn.qkv``, in this order.

    Where one of the three is missing or of another shape, all stay as they are and ``qkv`` is missing.
    """
    fused = dict(weights)
    for name, query in weights.items():
        if ".attn.query." not in name:
            continue
        trio = [name.replace(".attn.query.", f".attn.{part}.") for part in ("query", "key", "value")]
        if all(part in weights and weights[part].shape == query.shape for part in trio):
            fused[name.replace(".attn.query.", ".attn.qkv.")] = torch.cat([fused.pop(part) for part in trio])
    return fused


def _dinov2_chunks(weights: Weights, own: Collection[str]) -> dict[str, Tensor]:
    """Take the number of the chunk out of ``blocks.<chunk>.<n>``; n counts through all of them.

    Where two would get one name, they count anew in each chunk, which nobody has published: left alone.
    """
    renamed = {_CHUNK.sub(r"\1blocks.\2.\3", name): tensor for name, tensor in weights.items()}
    return renamed if len(renamed) == len(weights) else dict(weights)


def _efficientnet_pytorch(weights: Weights, own: Collection[str]) -> dict[str, Tensor]:
    """Bring the names of efficientnet_pytorch and efficientnet_lite_pytorch to timm's.

    They number blocks through all stages, where timm has a stage and a number in it: the n-th of theirs is
    the n-th of the network's own.
    """
    blocks = [match for name in weights if (match := _EFFICIENTNET_BLOCK.fullmatch(name))]
    if not blocks:
        return dict(weights)
    places = _block_places(own)
    expanding = {match[1] + match[2] for match in blocks if match[3] == "_expand_conv"}
    return {_timm_efficientnet(name, places, expanding): tensor for name, tensor in weights.items()}


def _block_places(own: Collection[str]) -> list[str]:
    """Return ``stage.block`` of each block of a network of timm, in order."""
    places = {match.groups() for name in own if (match := re.match(r"blocks\.(\d+)\.(\d+)\.", name))}
    return [
        f"{stage}.{block}" for stage, block in sorted((int(stage), int(block)) for stage, block in places)
    ]


def _timm_efficientnet(name: str, places: list[str], expanding: Collection[str]) -> str:
    match = _EFFICIENTNET_BLOCK.fullmatch(name)
    if match is not None:
        before, number, layer, parameter = match.groups()
        layers = _EXPANDING_LAYERS if before + number in expanding else _PLAIN_LAYERS
        if layer not in layers or int(number) >= len(places):
            return name
        return f"{before}blocks.{places[int(number)]}.{layers[layer]}.{parameter}"
    match = _EFFICIENTNET_OUTER.fullmatch(name)
    if match is not None:
        before, layer, parameter = match.groups()
        return f"{before}{_EFFICIENTNET_OUTER_LAYERS[layer]}.{parameter}"
    return name


LAYOUTS = (
    Layout("", _unchanged),
    Layout("torchvision before 0.3", _old_densenet),
    Layout("torchvision's MobileNetV2", _torchvision_mobilenet_v2),
    Layout("transformers", _transformers_vit),
    Layout("DINOv2 in chunks of blocks", _dinov2_chunks),
    Layout("efficientnet_pytorch", _efficientnet_pytorch),
)
"""In the order in which they are tried."""


def spellings(weights: Weights, own: Collection[str]) -> Iterator[tuple[Layout, dict[str, Tensor]]]:
    """Yield the weights as the file names them, and in each other layout that changes a name.

    Args:
        weights: As the file holds them.
        own: Names that the network has.
    """
    for layout in LAYOUTS:
        spelled = layout.translate(weights, own)
        if not layout.title or spelled.keys() != weights.keys():
            yield layout, spelled


def translated(weights: Weights, own: Collection[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights of a file under a network's own names, and the names of those outside it.

    Whatever stands before the network's names is stripped, such as ``module.densenet121.`` of a CheXNet
    re-implementation or ``network.backbone.`` of this package; then the layout is taken in which most names
    are the network's.

    Args:
        weights: As the file holds them.
        own: Names that the network has.

    Returns:
        Weights below the prefix that brings most names to match, renamed and in the file's order; and the
        names of the file that do not start with it, such as those of a head beside the network.
    """
    best: tuple[int, str, dict[str, Tensor]] = (-1, "", {})
    for _, spelled in spellings(weights, own):
        prefix, matches = best_prefix(spelled, own)
        if matches > best[0]:
            best = matches, prefix, spelled
    _, prefix, spelled = best
    return without_prefix(spelled, prefix)


def without_prefix(weights: Weights, prefix: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights whose names start with a prefix, without it, and the names of the others."""
    inside = {
        name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)
    }
    return inside, [name for name in weights if not name.startswith(prefix)]


def best_prefix(names: Collection[str], own: Collection[str]) -> tuple[str, int]:
    """Return the prefix without which most names are the network's own, and their number.

    Of copies of one network it is the one that its authors evaluate, also where a weight of it is missing: a
    teacher before its student, MoCo's query before its key. Of equal ones it is the shortest.
    """
    matches = Counter({"": 0})
    for name in names:
        parts = name.split(".")
        for depth in range(len(parts)):
            if ".".join(parts[depth:]) in own:
                matches["".join(f"{part}." for part in parts[:depth])] += 1
    most = max(matches.values())
    copies = [item for item in matches.items() if 2 * item[1] >= most]
    return min(copies, key=lambda item: (_is_left(item[0]), -item[1], len(item[0])))


def _is_left(prefix: str) -> bool:
    return _COPIES_TO_LEAVE.search(prefix) is not None


def common_prefixes(names: Collection[str]) -> list[str]:
    """Return what a good part of the names starts with, those of most names first.

    Example:
        >>> common_prefixes(["module.stem.weight", "module.stem.bias", "module.head.weight"])
        ['module.', 'module.stem.', 'module.head.']
    """
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")[:-1]
        counts.update(
            "".join(f"{part}." for part in parts[:depth]) for depth in range(1, min(len(parts), 4) + 1)
        )
    kept = [prefix for prefix, count in counts.items() if count * 4 >= len(names)]
    kept = [prefix for prefix in kept if not _is_left(prefix)] or kept
    return sorted(kept, key=lambda prefix: (-counts[prefix], len(prefix)))[:8]
