"""What a file of weights looks like: its family by its names, and the architecture that it fits wholly."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
from torch import Tensor, nn

from cxrlab.models.weights.fitting import Fit, fit, wanted
from cxrlab.models.weights.skeleton import skeleton

_Depths = dict[tuple[int, ...], str]  # number in the name, by layers of each stage

_BOTTLENECK_RESNETS: _Depths = {(3, 4, 6, 3): "50", (3, 4, 23, 3): "101", (3, 8, 36, 3): "152"}

_BASIC_RESNETS: _Depths = {(1, 1, 1, 1): "10", (2, 2, 2, 2): "18", (3, 4, 6, 3): "34"}

_DENSENETS: _Depths = {
    (6, 12, 24, 16): "121", (6, 12, 32, 32): "169", (6, 12, 48, 32): "201", (6, 12, 36, 24): "161",
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """One of timm that a file may be of.

    Attributes:
        backbone: Its name.
        options: What it needs beside, as ``model.options`` takes it.
    """

    backbone: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        options = "".join(f" model.options.{name}={value}" for name, value in self.options.items())
        return f"model=timm model.backbone={self.backbone}{options}"


@dataclass(frozen=True)
class _Family:
    """A family by what only its names hold.

    Attributes:
        pattern: Found in one of the names.
        title: In words, with an article.
        architectures: Of timm, of which one may fit; those that this version of timm lacks are left out.
        advice: Where none can: what to do.
    """

    pattern: str
    title: str
    architectures: tuple[Architecture, ...] = ()
    advice: str = ""


def _named(pattern: str, *values: object, **options: object) -> tuple[Architecture, ...]:
    return tuple(Architecture(pattern.format(value), options) for value in values)


_SIZES = ("tiny", "small", "base", "large")

_DINOV2_SIZES = ("small", "base", "large", "giant")

_DINOV2 = (
    *_named("vit_{}_patch14_dinov2", *_DINOV2_SIZES), *_named("vit_{}_patch14_reg4_dinov2", *_DINOV2_SIZES),
)  # fmt: skip

_DINOV2_16 = tuple(
    Architecture(f"vit_{size}_patch{patch}_dinov2", {"patch_size": 16})
    for size in ("small", "base", "large") for patch in ("14", "14_reg4")
)  # fmt: skip

_DINOV3 = (
    *_named("vit_{}_patch16_dinov3_qkvb", "tiny", "small", "small_plus", "base", "large", "huge_plus"),
    *_named("vit_{}_patch16_dinov3", "small", "small_plus", "base", "large", "huge_plus", "7b"),
)

_VIT = (
    *_named("vit_{}_patch16_224", *_SIZES),
    *_named("vit_{}_patch16_224", *_SIZES, global_pool="avg"),
    *_named("vit_{}_patch32_224", "small", "base"),
    *_named("vit_{}_patch14_224", "huge"),
    *_named("vit_{}_patch14_224", "huge", global_pool="avg"),
    *_named("deit3_{}_patch16_224", "small", "medium", "base", "large"),
)

_EVA02 = (
    *_named("eva02_{}_patch14_224", *_SIZES),
    *_named("eva02_{}_patch14_224", *_SIZES, patch_size=16, ref_feat_shape=14),
    *_named("eva02_{}_patch14_224", *_SIZES, patch_size=16, ref_feat_shape=14, global_pool="token"),
    *_named("eva02_base_patch16_clip_{}", 224), *_named("eva02_large_patch14_clip_{}", 224),
)  # fmt: skip

_SWIN = (
    *_named("swin_{}_patch4_window7_224", *_SIZES), *_named("swin_{}_patch4_window12_384", "base", "large"),
)  # fmt: skip

_SWIN_V2 = (
    *_named("swinv2_{}_window8_256", "tiny", "small", "base"),
    *_named("swinv2_{}_window12_192", "base", "large"),
)

_CONVNEXT = (
    *_named("convnext_{}", "atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge"),
    *_named("convnextv2_{}", "atto", "femto", "pico", "nano", "tiny", "base", "large", "huge"),
)

_EFFICIENTNET = (*_named("tf_efficientnet_b{}", *range(9)), *_named("tf_efficientnet_lite{}", *range(5)))

_MOBILENET = _named(
    "{}", "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100", "efficientnet_b0",
    "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "efficientnet_lite0",
    "mobilenetv1_100", "mobilenetv2_140", "mobilenetv2_050",
)  # fmt: skip

_RESNETS = _named(
    "{}", "resnet10t", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet50d", "resnet26",
)  # fmt: skip

_DENSENET_NAMES = _named("densenet{}", 121, 169, 201, 161)

_NOT_TRANSLATED = "These names are not translated: take the file of its authors, or timm's."

# The first that fits counts.
_FAMILIES = (
    _Family(r"(^|\.)features\.\d+\.conv\.\d", "a MobileNetV2 of torchvision", _MOBILENET),
    _Family(r"(^|\.)features\.\d+\.block\.\d", "a MobileNetV3 of torchvision", advice=_NOT_TRANSLATED),
    _Family(
        r"(^|\.)features\.\d+\.\d+\.attn\.relative_position_bias_table", "a Swin of torchvision",
        advice=_NOT_TRANSLATED,
    ),
    _Family(r"(^|\.)features\.\d+\.\d+\.layer_scale$", "a ConvNeXt of torchvision", advice=_NOT_TRANSLATED),
    _Family(r"(^|\.)features\.\d+\.\d+\.block\.\d", "an EfficientNet of torchvision", advice=_NOT_TRANSLATED),
    _Family(
        r"(^|\.)encoder\.layers\.encoder_layer_\d+\.", "a vision transformer of torchvision",
        advice=_NOT_TRANSLATED,
    ),
    _Family(
        r"(^|\.)_blocks\.\d+\._depthwise_conv\.", "an EfficientNet of efficientnet_pytorch", _EFFICIENTNET
    ),
    _Family(r"(^|\.)blocks\.\d+\.\d+\.conv_(dw|pw)\.", "a MobileNet or EfficientNet of timm", _MOBILENET),
    _Family(
        r"(^|\.)encoder\.layer\.\d+\.layer_scale1\.lambda1$", "a DINOv2 vision transformer of transformers",
        (*_DINOV2, *_DINOV2_16),
    ),
    _Family(
        r"(^|\.)encoder\.layer\.\d+\.attention\.attention\.query\.", "a vision transformer of transformers",
        _VIT,
    ),
    _Family(
        r"(^|\.)layer\.\d+\.layer_scale1\.lambda1$", "a DINOv3 vision transformer of transformers",
        advice=_NOT_TRANSLATED,
    ),
    _Family(
        r"(^|\.)encoder\.layers\.\d+\.blocks\.\d+\.attention\.self\.", "a Swin of transformers",
        advice=_NOT_TRANSLATED,
    ),
    _Family(
        r"(^|\.)encoder\.stages\.\d+\.layers\.\d+\.(dwconv|depthwise)", "a ConvNeXt of transformers",
        advice=_NOT_TRANSLATED,
    ),
    _Family(
        r"(^|\.)encoder\.stages\.\d+\.layers\.\d+\.", "a ResNet of transformers", advice=_NOT_TRANSLATED
    ),
    _Family(
        r"(^|\.)encoder\.layer\.\d+\.attention\.self\.query\.", "a language model (BERT)",
        advice="It is for text.",
    ),
    _Family(r"(^|\.)layers\.\d+\.blocks\.\d+\.attn\.cpb_mlp\.", "a Swin V2", _SWIN_V2),
    _Family(r"(^|\.)layers\.\d+\.blocks\.\d+\.attn\.", "a Swin", _SWIN),
    _Family(r"(^|\.)resblocks\.\d+\.", "a vision transformer of CLIP", advice=_NOT_TRANSLATED),
    _Family(r"(^|\.)storage_tokens$", "a DINOv3 vision transformer", _DINOV3),
    _Family(r"(^|\.)blocks\.\d+\.attn\.relative_position_bias_table$", "a BEiT"),
    _Family(
        r"(^|\.)blocks\.\d+\.(mlp\.(w1|fc1_g|ffn_ln)\.|attn\.(q_proj\.|q_bias))", "an EVA-02", _EVA02
    ),
    _Family(
        r"(^|\.)blocks\.(\d+\.)?\d+\.ls1\.gamma$", "a DINOv2 vision transformer", (*_DINOV2, *_DINOV2_16)
    ),
    _Family(r"(^|\.)blocks\.\d+\.gamma_1$", "a DeiT III, BEiT or DINOv3", (*_VIT, *_DINOV3)),
    _Family(r"(^|\.)blocks\.(\d+\.)?\d+\.attn\.", "a vision transformer", _VIT),
    _Family(r"(^|\.)stages\.\d+\.blocks\.\d+\.(conv_dw|gamma)", "a ConvNeXt of timm", _CONVNEXT),
    _Family(r"(^|\.)stages\.\d+\.\d+\.dwconv\.", "a ConvNeXt of its authors", _CONVNEXT),
    _Family(
        r"(^|\.)features\.\d+\.(weight|bias)$", "a VGG or AlexNet of torchvision", _named("vgg{}", 16, 19)
    ),
)  # fmt: skip


def looks_like(names: Collection[str]) -> str | None:
    """Return what architecture names of weights are known to belong to; None where they tell nothing.

    Example:
        >>> looks_like(["module.layer1.0.conv2.weight", "module.layer4.0.conv3.weight"])
        'a ResNet with bottlenecks'
        >>> looks_like(["encoder.weight"]) is None
        True
    """
    family = _family(names)
    return None if family is None else family.title


def fitting_architecture(weights: Mapping[str, Tensor]) -> Architecture | None:
    """Return the architecture of timm that a file fits, as far as one of its family does; else None.

    Where several do, it is the one that needs least resampling: a ViT's file fits any size of patch.

    Args:
        weights: As the file holds them.
    """
    family = _family(weights.keys())
    best: tuple[int, Architecture] | None = None
    for architecture in () if family is None else family.architectures:
        if not timm.is_model(architecture.backbone):
            continue
        found = fit(skeleton(architecture.backbone, architecture.options), weights)
        if found.faults == (0, 0) and (best is None or len(found.resampled) < best[0]):
            best = len(found.resampled), architecture
            if not found.resampled:
                break
    return None if best is None else best[1]


def why_not(network: nn.Module, found: Fit, weights: Mapping[str, Tensor]) -> str:
    """Return what lacks where weights do not fit a network, what they look like, and what to do.

    Args:
        network: That they were for.
        found: How they fit.
        weights: As the file holds them.
    """
    own = network.state_dict()
    num_wanted = len(wanted(own))
    shapes = [f"{name} {file} for {own}" for name, (file, own) in list(found.misfits.items())[:3]]
    if found.missing or found.misfits:
        lacking = (
            f"{len(found.missing)} of its {num_wanted} parameters are missing {list(found.missing[:3])}, "
            f"{len(found.misfits)} have another shape {shapes}."
        )
    else:
        lacking = (
            f"it holds {len(found.inner)} weights more than the network has, in layers that it has "
            f"{list(found.inner[:3])}, so that the network would compute something else."
        )
    return " ".join([lacking, *_reasons(own, found, weights)])


def _reasons(own: Mapping[str, Tensor], found: Fit, weights: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield sentences on what a file is, and what would take it."""
    norm = _other_norm(found)
    if norm:
        yield norm
        return
    channels = _other_channels(own, found)
    if channels:
        yield channels
        return
    family = _family(weights.keys())
    architecture = fitting_architecture(weights)
    if architecture is not None and family is not None:
        yield f"By its names and shapes the file is of {family.title}, and fits {architecture}."
        return
    if family is not None:
        yield f"By its names the file is of {family.title}."
        if family.advice:
            yield family.advice
            return
    yield "Is model=... the architecture it was trained with?"


def _other_norm(found: Fit) -> str:
    """Say how a vision transformer takes a file whose last normalisation is for the other kind of pooling."""
    ends = {name.partition(".")[0] for name in found.missing}
    file_ends = {name.partition(".")[0] for name in found.unused} & {"norm", "fc_norm"}
    if found.misfits or len(ends) != 1 or len(file_ends) != 1 or not ends < {"norm", "fc_norm"}:
        return ""
    kind, pool = ("the class token", "token") if file_ends == {"norm"} else ("the mean over places", "avg")
    return (
        f"The file ends in {file_ends.pop()} and the network in {ends.pop()}: it was trained to look at "
        f"{kind}. Set model.options.global_pool={pool}."
    )


def _other_channels(own: Mapping[str, Tensor], found: Fit) -> str:
    """Say that only grey and colour are converted, where the number of input channels alone does not fit."""
    first = next((name for name, tensor in own.items() if tensor.ndim == 4), "")
    if found.missing or found.misfits.keys() != {first} or len(found.misfits[first][0]) != 4:
        return ""
    (width, channels, *kernel), (own_width, own_channels, *own_kernel) = found.misfits[first]
    if (width, kernel) != (own_width, own_kernel):
        return ""
    return (
        f"It was trained on {channels} channels, and data.channels={own_channels}: only weights for 1 and 3 "
        f"are converted. Set data.channels={channels}, or take another file."
    )


def _family(names: Collection[str]) -> _Family | None:
    layers = _counts(names, r"denseblock(\d+)\.denselayer(\d+)\.")
    if layers:
        return _Family("", _with_number("DenseNet", _DENSENETS, layers), _DENSENET_NAMES)
    blocks = _counts(names, r"(?:^|\.)layer([1-4])\.(\d+)\.")
    if blocks:
        if any(re.search(r"layer[1-4]\.\d+\.conv3\.", name) for name in names):
            title = _with_number("ResNet", _BOTTLENECK_RESNETS, blocks) + " with bottlenecks"
        else:
            title = _with_number("ResNet", _BASIC_RESNETS, blocks) + " with basic blocks"
        return _Family("", title, _RESNETS)
    for family in _FAMILIES:
        if any(re.search(family.pattern, name) for name in names):
            return family
    return None


def _counts(names: Collection[str], pattern: str) -> tuple[int, ...]:
    """Return how many inner numbers each outer number of a pattern has, in order."""
    pairs = {match.groups() for name in names if (match := re.search(pattern, name))}
    counts = Counter(int(outer) for outer, _ in pairs)
    return tuple(counts[outer] for outer in sorted(counts))


def _with_number(family: str, known: _Depths, counts: tuple[int, ...]) -> str:
    return f"a {family}-{known[counts]}" if counts in known else f"a {family}"
