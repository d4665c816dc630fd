"""Files of weights as they are published: names and shapes of each layout, with random values.

Written from the authors' code, not from what the package makes of them. ``benchmarks/weight_layouts.py`` writes them
at their published sizes, the tests at small ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import timm
import torch
import torchvision
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Size:
    """Of a vision transformer."""

    width: int
    depth: int
    patch: int
    grid: int
    mlp: int
    channels: int = 3


def filled(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> State:
    """Random values such as weights have; each layer of its own, so that none can pass for another."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        fan_in = max(1, values[0].numel()) if len(shape) > 1 else 1
        if name.endswith("running_var"):
            state[name] = values.abs() + 0.5
        elif "norm" in name.rpartition(".")[0] and name.endswith("weight"):
            state[name] = 1 + 0.1 * values
        else:
            state[name] = values * (fan_in**-0.5 if len(shape) > 1 else 0.1)
    return state


def pair(name: str, *weight: int, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": weight}
    return {**shapes, f"{name}.bias": (weight[0],)} if bias else shapes


# Vision transformers


def mae(size: Size) -> Shapes:
    """facebookresearch/mae, ``mae_pretrain_vit_base.pth`` below ``model``: timm's names of 2021."""
    shapes: Shapes = {"cls_token": (1, 1, size.width), "pos_embed": (1, size.grid**2 + 1, size.width)}
    shapes |= pair("patch_embed.proj", size.width, size.channels, size.patch, size.patch)
    for n in range(size.depth):
        shapes |= block(f"blocks.{n}", size)
    return {**shapes, **pair("norm", size.width)}


def block(name: str, size: Size, *, scale: bool = False) -> Shapes:
    width = size.width
    scales: Shapes = {f"{name}.ls1.gamma": (width,), f"{name}.ls2.gamma": (width,)} if scale else {}
    return {
        **pair(f"{name}.norm1", width),
        **pair(f"{name}.attn.qkv", 3 * width, width), **pair(f"{name}.attn.proj", width, width),
        **pair(f"{name}.norm2", width),
        **pair(f"{name}.mlp.fc1", size.mlp, width), **pair(f"{name}.mlp.fc2", width, size.mlp),
        **scales,
    }  # fmt: skip


def mae_fine_tuned(size: Size) -> Shapes:
    """The same after fine-tuning with the mean over places: ``fc_norm`` in the place of ``norm``, and a head."""
    shapes = {
        name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: shape
        for name, shape in mae(size).items()
    }
    return {**shapes, **pair("head", 14, size.width)}


def dinov2(size: Size, registers: int = 0) -> Shapes:
    """facebookresearch/dinov2, ``dinov2_vitb14_pretrain.pth``; registers as ``register_tokens``."""
    shapes: Shapes = {"cls_token": (1, 1, size.width), "pos_embed": (1, size.grid**2 + 1, size.width)}
    shapes["mask_token"] = (1, size.width)
    if registers:
        shapes["register_tokens"] = (1, registers, size.width)
    shapes |= pair("patch_embed.proj", size.width, size.channels, size.patch, size.patch)
    for n in range(size.depth):
        shapes |= block(f"blocks.{n}", size, scale=True)
    return {**shapes, **pair("norm", size.width)}


def dinov2_chunks(size: Size, num_chunks: int = 4) -> Shapes:
    """DINOv2's training code with ``block_chunks``, teacher and student in one file (CheXFound)."""
    per_chunk = -(-size.depth // num_chunks)
    shapes: Shapes = {}
    for name, shape in dinov2(size).items():
        parts = name.split(".")
        if parts[0] == "blocks":
            name = ".".join(["blocks", str(int(parts[1]) // per_chunk), *parts[1:]])
        for copy in ("student", "teacher"):
            shapes[f"{copy}.backbone.{name}"] = shape
    for copy in ("student", "teacher"):
        shapes |= pair(f"{copy}.dino_head.mlp.0", 32, size.width)
    return shapes


def transformers_dinov2(size: Size) -> Shapes:
    """``Dinov2Model`` of the library transformers, as microsoft/rad-dino has it."""
    width = size.width
    shapes: Shapes = {
        "embeddings.cls_token": (1, 1, width), "embeddings.mask_token": (1, width),
        "embeddings.position_embeddings": (1, size.grid**2 + 1, width),
        **pair("embeddings.patch_embeddings.projection", width, size.channels, size.patch, size.patch),
    }  # fmt: skip
    for n in range(size.depth):
        layer = f"encoder.layer.{n}"
        for part in ("query", "key", "value"):
            shapes |= pair(f"{layer}.attention.attention.{part}", width, width)
        shapes |= {
            **pair(f"{layer}.attention.output.dense", width, width),
            **pair(f"{layer}.norm1", width), **pair(f"{layer}.norm2", width),
            **pair(f"{layer}.mlp.fc1", size.mlp, width), **pair(f"{layer}.mlp.fc2", width, size.mlp),
            f"{layer}.layer_scale1.lambda1": (width,), f"{layer}.layer_scale2.lambda1": (width,),
        }  # fmt: skip
    return {**shapes, **pair("layernorm", width)}


def transformers_vit(size: Size) -> Shapes:
    """``ViTModel`` of transformers, with the pooler that its checkpoints carry."""
    width = size.width
    shapes: Shapes = {
        "vit.embeddings.cls_token": (1, 1, width),
        "vit.embeddings.position_embeddings": (1, size.grid**2 + 1, width),
        **pair("vit.embeddings.patch_embeddings.projection", width, size.channels, size.patch, size.patch),
    }
    for n in range(size.depth):
        layer = f"vit.encoder.layer.{n}"
        for part in ("query", "key", "value"):
            shapes |= pair(f"{layer}.attention.attention.{part}", width, width)
        shapes |= {
            **pair(f"{layer}.attention.output.dense", width, width),
            **pair(f"{layer}.intermediate.dense", size.mlp, width), **pair(f"{layer}.output.dense", width, size.mlp),
            **pair(f"{layer}.layernorm_before", width), **pair(f"{layer}.layernorm_after", width),
        }  # fmt: skip
    return {**shapes, **pair("vit.layernorm", width), **pair("classifier", 14, width)}


def eva02(size: Size) -> Shapes:
    """EVA-02 and EVA-X base: SwiGLU of three layers with a norm inside, no bias of the key, buffers of RoPE."""
    width, head = size.width, 64
    shapes: Shapes = {
        "cls_token": (1, 1, width),
        "mask_token": (1, 1, width),
        "pos_embed": (1, size.grid**2 + 1, width),
    }
    shapes |= pair("patch_embed.proj", width, size.channels, size.patch, size.patch)
    shapes |= {f"rope.freqs_{part}": (size.grid**2, head) for part in ("cos", "sin")}
    for n in range(size.depth):
        name = f"blocks.{n}"
        shapes |= {f"{name}.attn.q_bias": (width,), f"{name}.attn.v_bias": (width,)}
        for part in ("q_proj", "k_proj", "v_proj"):
            shapes |= pair(f"{name}.attn.{part}", width, width, bias=False)
        shapes |= {f"{name}.attn.rope.freqs_{part}": (size.grid**2, head) for part in ("cos", "sin")}
        shapes |= {
            **pair(f"{name}.attn.proj", width, width), **pair(f"{name}.norm1", width), **pair(f"{name}.norm2", width),
            **pair(f"{name}.mlp.w1", size.mlp, width), **pair(f"{name}.mlp.w2", size.mlp, width),
            **pair(f"{name}.mlp.ffn_ln", size.mlp), **pair(f"{name}.mlp.w3", width, size.mlp),
        }  # fmt: skip
    return {**shapes, **pair("norm", width), **pair("lm_head", 32, width)}


def dinov3(size: Size) -> Shapes:
    """facebookresearch/dinov3, ``dinov3_vits16_pretrain_lvd1689m``: four storage tokens, RoPE, a masked bias."""
    width = size.width
    shapes: Shapes = {
        "cls_token": (1, 1, width), "storage_tokens": (1, 4, width), "mask_token": (1, width),
        **pair("patch_embed.proj", width, size.channels, size.patch, size.patch), "rope_embed.periods": (16,),
    }  # fmt: skip
    for n in range(size.depth):
        shapes |= block(f"blocks.{n}", size, scale=True)
        shapes[f"blocks.{n}.attn.qkv.bias_mask"] = (3 * width,)
    return {**shapes, **pair("norm", width)}


def dinov3_state(size: Size) -> State:
    """Its values: the bias of the key is masked by NaN."""
    state = filled(dinov3(size))
    for name, mask in state.items():
        if name.endswith("bias_mask"):
            mask.fill_(1)
            mask[size.width : 2 * size.width] = float("nan")
    return state


def old_swin(width: int, depths: tuple[int, ...], heads: tuple[int, ...], window: int, grid: int) -> Shapes:
    """Swin of timm 0.5 and of its authors: ``downsample`` ends a stage, and buffers are kept (Ark, SimMIM)."""
    shapes: Shapes = {**pair("patch_embed.proj", width, 3, 4, 4), **pair("patch_embed.norm", width)}
    for stage, depth in enumerate(depths):
        dim = width * 2**stage
        for n in range(depth):
            name = f"layers.{stage}.blocks.{n}"
            if n % 2 and grid // 2**stage > window:
                shapes[f"{name}.attn_mask"] = ((grid // 2**stage // window) ** 2, window**2, window**2)
            shapes |= {
                **pair(f"{name}.norm1", dim),
                f"{name}.attn.relative_position_bias_table": ((2 * window - 1) ** 2, heads[stage]),
                f"{name}.attn.relative_position_index": (window**2, window**2),
                **pair(f"{name}.attn.qkv", 3 * dim, dim), **pair(f"{name}.attn.proj", dim, dim),
                **pair(f"{name}.norm2", dim),
                **pair(f"{name}.mlp.fc1", 4 * dim, dim), **pair(f"{name}.mlp.fc2", dim, 4 * dim),
            }  # fmt: skip
        if stage < len(depths) - 1:
            shapes |= pair(f"layers.{stage}.downsample.reduction", 2 * dim, 4 * dim, bias=False)
            shapes |= pair(f"layers.{stage}.downsample.norm", 4 * dim)
    return {**shapes, **pair("norm", width * 2 ** (len(depths) - 1)), **pair("head", 14, width * 8)}


def old_swin_state(*arguments: object) -> State:
    state = filled(old_swin(*arguments))  # type: ignore[arg-type]
    return {name: values.long() if name.endswith("index") else values for name, values in state.items()}


# Convolutional networks


def batch_norm(name: str, width: int) -> Shapes:
    shapes: Shapes = {**pair(name, width), f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}
    return {**shapes, f"{name}.num_batches_tracked": ()}


def efficientnet_pytorch(repeats: tuple[int, ...], widths: tuple[int, ...], *, squeeze: bool) -> Shapes:
    """efficientnet_pytorch, and efficientnet_lite_pytorch, which has no squeeze: blocks count through stages.

    Args:
        repeats: Blocks of each of the seven stages.
        widths: Of the stem, of each stage, and of the head.
        squeeze: Whether blocks have squeeze and excitation.
    """
    shapes: Shapes = {**pair("_conv_stem", widths[0], 3, 3, 3, bias=False), **batch_norm("_bn0", widths[0])}
    kernels, number, entering = (3, 3, 5, 3, 5, 5, 3), 0, widths[0]
    for stage, count in enumerate(repeats):
        leaving = widths[stage + 1]
        for _ in range(count):
            name, inner = f"_blocks.{number}", entering * (6 if stage else 1)
            if stage:
                shapes |= pair(f"{name}._expand_conv", inner, entering, 1, 1, bias=False)
                shapes |= batch_norm(f"{name}._bn0", inner)
            kernel = kernels[stage]
            shapes |= pair(f"{name}._depthwise_conv", inner, 1, kernel, kernel, bias=False)
            shapes |= batch_norm(f"{name}._bn1", inner)
            if squeeze:
                reduced = max(1, entering // 4)
                shapes |= pair(f"{name}._se_reduce", reduced, inner, 1, 1)
                shapes |= pair(f"{name}._se_expand", inner, reduced, 1, 1)
            shapes |= pair(f"{name}._project_conv", leaving, inner, 1, 1, bias=False)
            shapes |= batch_norm(f"{name}._bn2", leaving)
            number, entering = number + 1, leaving
    shapes |= pair("_conv_head", widths[-1], entering, 1, 1, bias=False)
    return {**shapes, **batch_norm("_bn1", widths[-1]), **pair("_fc", 1000, widths[-1])}


B0 = ((1, 2, 2, 3, 3, 4, 1), (32, 16, 24, 40, 80, 112, 192, 320, 1280))


def torchvision_state(architecture: str, **options: object) -> State:
    torch.manual_seed(0)
    return torchvision.models.get_model(architecture, weights=None, **options).state_dict()


def chexnet() -> State:
    """arnoweng/CheXNet: ``module.densenet121.features.….norm.1.``, saved by torchvision before 0.3."""
    state = {}
    for name, tensor in torchvision_state("densenet121", num_classes=14).items():
        for part in ("norm", "conv"):
            for number in "12":
                if "denselayer" in name:
                    name = name.replace(f".{part}{number}.", f".{part}.{number}.")
        if "num_batches" not in name:
            state["module.densenet121." + name.replace("classifier.", "classifier.0.")] = tensor
    return {"state_dict": state, "epoch": 5}  # type: ignore[dict-item]


def torchxrayvision() -> State:
    """torchxrayvision's densenet121: one channel, 18 outputs, thresholds of them."""
    state = torchvision_state("densenet121", num_classes=18)
    state["features.conv0.weight"] = state["features.conv0.weight"].sum(1, keepdim=True)
    return {**state, "op_threshs": torch.rand(18)}


def moco() -> State:
    """facebookresearch/moco v2: query and key of a ResNet-50, and a queue."""
    state = {
        name: tensor for name, tensor in torchvision_state("resnet50").items() if not name.startswith("fc.")
    }
    head = filled({**pair("fc.0", 2048, 2048), **pair("fc.2", 128, 2048)})
    key = {name: tensor + 1 for name, tensor in state.items()}
    both = {
        **{f"module.encoder_k.{name}": tensor for name, tensor in {**key, **head}.items()},
        **{f"module.encoder_q.{name}": tensor for name, tensor in {**state, **head}.items()},
        "module.queue": torch.randn(128, 64), "module.queue_ptr": torch.zeros(1).long(),
    }  # fmt: skip
    return {"state_dict": both, "arch": "resnet50", "epoch": 200}  # type: ignore[dict-item]


def solo_learn() -> State:
    """solo-learn: a Lightning checkpoint with ``backbone.``, a classifier and a projector."""
    state = {f"backbone.{n}": t for n, t in torchvision_state("resnet18").items() if not n.startswith("fc.")}
    state |= filled({**pair("classifier", 100, 512), **pair("projector.0", 256, 512)})
    return {"state_dict": state, "epoch": 400}  # type: ignore[dict-item]


def open_clip(size: Size) -> State:
    """open_clip with a tower of timm: ``visual.trunk.`` beside a text tower."""
    state = {f"visual.trunk.{name}": tensor for name, tensor in filled(mae(size)).items()}
    text = filled(
        {
            "logit_scale": (),
            **pair("visual.head.proj", 512, size.width, bias=False),
            **pair("text.proj", 64, 64),
        }
    )
    return {**state, **text}


BASE = Size(768, 12, 16, 14, 3072)
BASE_14 = Size(768, 12, 14, 37, 3072)
LARGE_CHUNKS = Size(1024, 24, 16, 32, 4096)
EVA_BASE = Size(768, 12, 16, 14, 2048)
DINOV3_SMALL = Size(384, 12, 16, 14, 1536)


@dataclass(frozen=True)
class Published:
    """A layout at its published size.

    Attributes:
        title: Of the row.
        state: Makes the file's content.
        backbone: That takes it.
        image_size: That it is loaded for.
        channels: The same.
        options: timm's own keywords.
    """

    title: str
    state: Callable[[], State]
    backbone: str
    image_size: int = 224
    channels: int = 3
    options: Mapping[str, object] = field(default_factory=dict)


PUBLISHED = (
    Published("torchvision DenseNet-121", lambda: torchvision_state("densenet121"), "densenet121"),
    Published("torchvision MobileNetV2", lambda: torchvision_state("mobilenet_v2"), "mobilenetv2_100"),
    Published("timm ResNet-50", lambda: timm.create_model("resnet50").state_dict(), "resnet50"),
    Published("CheXNet re-implementation", chexnet, "densenet121"),
    Published("torchxrayvision densenet121, 1 channel", torchxrayvision, "densenet121", channels=1),
    Published("MoCo v2, `module.encoder_q.`", moco, "resnet50"),
    Published("solo-learn, `backbone.`", solo_learn, "resnet18"),
    Published("open_clip, `visual.trunk.`", lambda: open_clip(BASE), "vit_base_patch16_224"),
    Published("MAE ViT-B/16", lambda: {"model": filled(mae(BASE))}, "vit_base_patch16_224"),
    Published("MAE ViT-B/16 at 448 px", lambda: {"model": filled(mae(BASE))}, "vit_base_patch16_224", 448),
    Published(
        "MAE ViT-B/16 fine-tuned, `fc_norm`", lambda: {"model": filled(mae_fine_tuned(BASE))},
        "vit_base_patch16_224", options={"global_pool": "avg"},
    ),
    Published("DINOv2 ViT-B/14 at 518 px", lambda: filled(dinov2(BASE_14)), "vit_base_patch14_dinov2", 518),
    Published("DINOv2 ViT-B/14 at 224 px", lambda: filled(dinov2(BASE_14)), "vit_base_patch14_dinov2"),
    Published(
        "DINOv2 in chunks, `teacher.backbone.blocks.0.0.` (CheXFound ViT-L/16, 512 px)",
        lambda: {"model": filled(dinov2_chunks(LARGE_CHUNKS))}, "vit_large_patch14_dinov2", 512,
        options={"patch_size": 16},
    ),
    Published(
        "transformers `Dinov2Model` (RAD-DINO)", lambda: filled(transformers_dinov2(BASE_14)),
        "vit_base_patch14_dinov2", 518,
    ),
    Published(
        "EVA-02, EVA-X ViT-B/16", lambda: filled(eva02(EVA_BASE)), "eva02_base_patch14_224",
        options={"patch_size": 16, "ref_feat_shape": 14},
    ),
    Published("DINOv3 ViT-S/16", lambda: dinov3_state(DINOV3_SMALL), "vit_small_patch16_dinov3_qkvb"),
    Published(
        "Swin-B of timm 0.5 (Ark, SimMIM)",
        lambda: {"state_dict": old_swin_state(128, (2, 2, 18, 2), (4, 8, 16, 32), 7, 56)},
        "swin_base_patch4_window7_224",
    ),
    Published(
        "Swin-B of timm 0.5, window 12 at 384 px",
        lambda: {"state_dict": old_swin_state(128, (2, 2, 18, 2), (4, 8, 16, 32), 7, 56)},
        "swin_base_patch4_window12_384", 384,
    ),
    Published(
        "efficientnet_pytorch B0", lambda: filled(efficientnet_pytorch(*B0, squeeze=True)), "tf_efficientnet_b0"
    ),
    Published(
        "efficientnet_lite_pytorch Lite0", lambda: filled(efficientnet_pytorch(*B0, squeeze=False)),
        "tf_efficientnet_lite0",
    ),
)  # fmt: skip
