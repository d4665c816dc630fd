"""Heatmaps of a network's own attention."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn

import cxrlab.models
from cxrlab.errors import ConfigError, TrainingError
from cxrlab.heatmaps.checks import check_heatmaps
from cxrlab.heatmaps.methods import Explainer
from cxrlab.heatmaps.methods.attention import attention_maps, check_attention, rollout
from cxrlab.heatmaps.random_networks import randomised
from cxrlab.heatmaps.settings import ExplanationSettings
from cxrlab.models import TimmNetwork
from cxrlab.models.attention_head import AttentionHead
from cxrlab.report.explanation_page import explanation_section
from cxrlab.train import train
from cxrlab.training.module import Classifier

PAIRS = [(1, 2), (0, 0), (1, 0)]
SIDE = 64


def network(backbone: str = "vit_tiny_patch16_224", size: int = SIDE, **options: Any) -> TimmNetwork:
    torch.manual_seed(0)
    return TimmNetwork(backbone, num_labels=3, image_size=size, **options).eval()


def some_images(count: int = 2, side: int = SIDE) -> Tensor:
    return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(1))


def array(tensor: Tensor) -> npt.NDArray[np.float64]:
    return tensor.detach().double().numpy()


def attention_by_hand(block: Any, tokens: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the attention of a timm block of the tokens ``(T, F)`` that come into it, ``(heads, T, T)``."""
    centred = tokens - tokens.mean(axis=1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + block.norm1.eps)
    normal = normal * array(block.norm1.weight) + array(block.norm1.bias)
    joint = normal @ array(block.attn.qkv.weight).T + array(block.attn.qkv.bias)
    query, key, _ = np.split(joint, 3, axis=1)
    width = query.shape[1] // block.attn.num_heads
    heads = []
    for start in range(0, query.shape[1], width):
        scores = query[:, start : start + width] @ key[:, start : start + width].T / np.sqrt(width)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(weights / weights.sum(axis=1, keepdims=True))
    return np.stack(heads)


def rollout_by_hand(made: TimmNetwork, image: Tensor) -> npt.NDArray[np.float64]:
    """Return Abnar and Zuidema's rollout of an image ``(C, H, W)``, ``(T, T)``, from the weights of a ViT."""
    given: list[Tensor] = []
    blocks: Any = made.backbone.blocks
    handles = [block.register_forward_pre_hook(lambda _, args: given.append(args[0])) for block in blocks]
    with torch.no_grad():
        made(image[None])
    for handle in handles:
        handle.remove()
    flow = np.eye(given[0].shape[1])
    for block, tokens in zip(blocks, given, strict=True):
        raw = attention_by_hand(block, array(tokens[0])).mean(axis=0)
        flow = (0.5 * raw + 0.5 * np.eye(len(raw))) @ flow
    return flow


def upsampled(values: npt.NDArray[np.float64], side: int = SIDE) -> Tensor:
    cells = round(np.sqrt(values.size))
    grid = torch.from_numpy(values.reshape(1, 1, cells, cells)).float()
    heat = F.interpolate(grid, (side, side), mode="bilinear", align_corners=False)[0, 0]
    return heat / heat.max()


def sharpened(made: TimmNetwork) -> TimmNetwork:
    """Return a network whose tokens look at some others more than at the rest."""
    with torch.no_grad():
        for block in made.backbone.blocks:
            block.attn.qkv.weight.mul_(6)
    return made


@pytest.mark.parametrize("batch_size", [1, 4])
def test_rollout_is_what_arrives_at_the_class_token_by_a_computation_from_the_weights(
    batch_size: int,
) -> None:
    made, images = sharpened(network()), some_images()
    expected = [upsampled(rollout_by_hand(made, image)[0, 1:]) for image in images]
    maps = attention_maps(made, images, PAIRS, method="rollout", batch_size=batch_size)
    torch.testing.assert_close(maps, torch.stack([expected[image] for image, _ in PAIRS]), atol=1e-4, rtol=0)
    assert float(maps.min()) < 0.9
    assert not torch.allclose(maps[0], maps[1], atol=1e-3)
    assert torch.equal(maps[0], maps[2])  # whatever the finding


@pytest.mark.parametrize("options", [{"head": "attention"}, {}])
def test_rollout_is_the_mean_over_patches_where_the_head_reads_those(options: dict[str, Any]) -> None:
    made, images = sharpened(network(**options)), some_images(1)
    if not options:
        made.backbone.global_pool = "avg"
    expected = upsampled(rollout_by_hand(made, images[0])[1:, 1:].mean(axis=0))
    maps = attention_maps(made, images, [(0, 1)], method="rollout", batch_size=1)
    torch.testing.assert_close(maps[0], expected, atol=1e-4, rtol=0)
    other = upsampled(rollout_by_hand(made, images[0])[0, 1:])
    assert not torch.allclose(maps[0], other, atol=1e-3)


def test_rollout_of_no_attention_but_to_oneself_leaves_all_as_it_is() -> None:
    identity = torch.eye(4).expand(2, 4, 4)
    torch.testing.assert_close(rollout([identity] * 3), identity)
    even = torch.full((1, 4, 4), 0.25)
    torch.testing.assert_close(rollout([even])[0].diagonal(), torch.full((4,), 0.625))
    # Two layers: three quarters have moved on.
    torch.testing.assert_close(rollout([even, even]), 0.75 * even + 0.25 * torch.eye(4))


@pytest.mark.parametrize(
    "backbone", ["eva02_tiny_patch14_224", "deit_tiny_distilled_patch16_224", "vit_relpos_small_patch16_224"]
)
def test_rollout_works_for_the_relatives_of_the_vision_transformer(backbone: str) -> None:
    side = 224 if "relpos" in backbone or "deit" in backbone else 56
    maps = attention_maps(
        network(backbone, side), some_images(1, side), [(0, 0)], method="rollout", batch_size=1
    )
    assert maps.shape == (1, side, side)
    assert float(maps.max()) == 1


def test_attention_is_the_mean_over_heads_of_the_label_s_own_weights() -> None:
    made, images = network("resnet10t", head="attention"), some_images()
    layer: Any = made.head
    with torch.no_grad():
        features = made.backbone.forward_features(images)
        tokens = layer.norm(features.flatten(2).transpose(1, 2))
        keys = array(layer.keys(tokens)).reshape(2, -1, 8, 64)
    expected = []
    for image, label in PAIRS:
        query = array(layer.queries)[label].reshape(8, 64)
        scores = np.einsum("hd,phd->hp", query, keys[image]) / 8
        weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        expected.append(upsampled(weights.mean(axis=0)))
    maps = attention_maps(made, images, PAIRS, method="attention", batch_size=1)
    torch.testing.assert_close(maps, torch.stack(expected), atol=1e-5, rtol=0)
    assert not torch.allclose(maps[0], maps[2], atol=0.01)  # another finding of the same image


def state(made: nn.Module) -> list[Any]:
    modules = list(made.modules())
    return [
        [module.training for module in modules],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
        [getattr(module, "fused_attn", None) for module in modules],
        [parameter.requires_grad for parameter in made.parameters()],
    ]


@pytest.mark.parametrize("method", ["attention", "rollout"])
def test_a_network_comes_back_as_it_was(method: str) -> None:
    made = network(head="attention", dropout=0.5).train()
    next(made.parameters()).requires_grad_(False)
    made.backbone.blocks[0].attn.fused_attn = False
    before = state(made)
    expected = attention_maps(made, some_images(), PAIRS, method=method, batch_size=2)
    with torch.inference_mode():
        maps = attention_maps(made, some_images() * 1, PAIRS, method=method, batch_size=2)
    assert torch.equal(maps, expected)
    half = attention_maps(made.bfloat16(), some_images(), PAIRS, method=method, batch_size=2)
    torch.testing.assert_close(half, maps, atol=0.05, rtol=0)
    assert state(made) == before

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    handle = made.head.register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        attention_maps(made, some_images(), PAIRS, method=method, batch_size=2)
    handle.remove()
    assert state(made) == before


class Tokens(cxrlab.models.Network):
    """An attention layer that is not of all tokens to all, or gives no shares."""

    def __init__(self, shape: tuple[int, ...], total: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)
        self.layer.attn_drop = nn.Identity()
        self.layer.fused_attn = True
        self.shape, self.total = shape, total

    @property
    def self_attention(self) -> list[nn.Module]:
        return [self.layer]

    def forward(self, images: Tensor) -> Tensor:
        self.layer.attn_drop(torch.full((len(images), *self.shape), self.total / self.shape[-1]))
        logits: Tensor = self.layer(images.mean(dim=(2, 3)))
        return logits

    def to_grid(self, activations: Tensor) -> Tensor:
        return activations.transpose(1, 2).unflatten(2, (2, 2))


@pytest.mark.parametrize("shape", [(3, 1, 4), (3, 5, 5), (1, 3, 4, 4)])
def test_attention_within_windows_or_over_channels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"rollout reads the attention of all tokens .*Tokens gives none"):
        attention_maps(Tokens(shape), some_images(), [(0, 0)], method="rollout", batch_size=2)


def test_attention_that_is_no_share_is_refused() -> None:
    maps = attention_maps(Tokens((3, 4, 4)), some_images(), [(0, 0)], method="rollout", batch_size=2)
    assert torch.equal(maps, torch.ones(1, SIDE, SIDE))
    with pytest.raises(ConfigError, match="Tokens gives none"):
        attention_maps(Tokens((3, 4, 4), 0.5), some_images(), [(0, 0)], method="rollout", batch_size=2)


@pytest.mark.parametrize(
    ("made", "method", "message"),
    [
        (lambda: network(), "attention", r"this network \(vit_tiny_patch16_224\) has none.*model\.head=attention"),
        (lambda: network("resnet10t"), "rollout", r"resnet10t gives none, as vision transformers"),
        (lambda: network("swin_tiny_patch4_window7_224", 224), "rollout", r"swin_tiny\S* gives none"),
        (lambda: nn.Linear(1, 1), "attention", r"\(Linear\) has none"),
    ],
)  # fmt: skip
def test_a_network_without_such_attention_is_refused(
    made: Callable[[], nn.Module], method: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_attention(made(), ["gradcam", method])


def test_a_pair_that_is_not_there_is_refused() -> None:
    made = network("resnet10t", head="attention")
    with pytest.raises(ValueError, match=r"no label 3: the network has 3 logits"):
        attention_maps(made, some_images(), [(0, 3)], method="attention", batch_size=2)
    with pytest.raises(ValueError, match=r"no image 2"):
        attention_maps(made, some_images(), [(2, 0)], method="attention", batch_size=2)


@pytest.mark.parametrize("method", ["attention", "rollout"])
def test_broken_weights_are_an_error(method: str) -> None:
    made = network(head="attention")
    with torch.no_grad():
        next(made.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingError, match="2 of 2 heatmaps are not finite"):
        attention_maps(made, some_images(), PAIRS[:2], method=method, batch_size=2)


def test_a_single_place_shows_nothing_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    made = network("resnet10t", 32, head="attention")
    maps = attention_maps(made, some_images(1, 32), [(0, 0)], method="attention", batch_size=1)
    assert not maps.any()
    assert "attention is read from have a single place for an image of 32 pixels" in caplog.text


def test_rollout_depends_on_the_layers_and_attention_on_the_head_too() -> None:
    """From the head backwards: rollout cannot see a head, and a page says that it knows nothing of a finding."""
    made = sharpened(network(head="attention"))
    classifier = Classifier(
        labels=["A", "B", "C"],
        preprocess={"normalize": "none", "image_size": SIDE, "channels": 1},
        network={
            "_target_": "cxrlab.models.timm_network.TimmNetwork", **made.arguments(),
            "num_labels": 3, "channels": 1, "image_size": SIDE,
        },
        module=made,
    ).eval()  # fmt: skip
    images = torch.randint(256, (2, 1, SIDE, SIDE), dtype=torch.uint8)
    settings = ExplanationSettings(methods=["attention", "rollout"])
    explainers = {method: Explainer(method, settings) for method in settings.methods}
    trained = {method: explain(classifier, images, PAIRS) for method, explain in explainers.items()}
    found = []
    for part, changed in randomised(classifier, images, seed=1, batch_size=2):
        found.append((part, {m: e(classifier, images, PAIRS, changed) for m, e in explainers.items()}))
    assert found[0][0] == "head"
    assert torch.equal(found[0][1]["rollout"], trained["rollout"])
    assert not torch.allclose(found[0][1]["attention"], trained["attention"], atol=0.05)
    assert not torch.allclose(found[-1][1]["rollout"], trained["rollout"], atol=0.05)


class Small(cxrlab.models.Network):
    """A convolution and a head in which each label looks at 4x4 places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 4, stride=4)
        self.head = AttentionHead(4, 2)
        self.image_size, self.channels = 16, 1

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(images))
        return logits

    @property
    def feature_layer(self) -> nn.Module:
        return self.conv

    @property
    def label_attention(self) -> nn.Module:
        return self.head.attention


def test_maps_of_attention_pass_every_check_and_the_page_says_what_they_are(make_task: Any) -> None:
    boxes = [(row, "Mass", 0.1, 0.1, 0.4, 0.4) for row in range(6)]
    explain_task = make_task(
        [(1, 0), (1, 1), (1, 0), (1, 1), (1, 0), (1, 1)], boxes, module=Small(), methods=["attention", "gradcam"]
    )  # fmt: skip
    result, _ = check_heatmaps(explain_task)
    assert result.methods == {"attention": "Attention", "gradcam": "Grad-CAM"}
    assert result.pointing is not None
    assert result.pointing.empty["attention"] == 0
    assert result.randomization is not None
    assert result.faithfulness is not None
    notes = explanation_section(result, {}, [], images=False).notes
    assert notes == [
        "Attention shows where the finding's query looked, whether what is there spoke for it or against it."
    ]


@pytest.mark.parametrize(
    ("method", "message"),
    [("attention", r"Train with model\.head=attention"), ("rollout", r"resnet10t gives none")],
)
def test_a_training_refuses_such_maps_of_another_network_before_it_reads_data(
    method: str, message: str, composed: Callable[..., DictConfig], tmp_path: Any
) -> None:
    cfg = composed(
        "data.root=/nowhere", "trainer=cpu", f"run_dir={tmp_path / 'run'}", f"explanation.methods=[gradcam,{method}]",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        train(cfg)
