from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from cxrlab.errors import ConfigError
from cxrlab.heatmaps.methods.attention import attention_maps
from cxrlab.heatmaps.methods.cam import grad_cam
from cxrlab.models import TimmNetwork
from cxrlab.models.attention_head import AttentionHead, _waves
from cxrlab.models.network import build_network, describe
from cxrlab.training.optim import LayerRates, parameter_groups

# Of conf/model, with two of the larger kind by a small member of the same family.
BACKBONES = [
    "densenet121",
    "mobilenetv1_100",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "mobilenetv3_small_100",
    "resnet10t",
    "resnet50",
    "efficientnet_b0",
    "convnext_atto",
    "vit_tiny_patch16_224",
]


def head(num_features: int = 12, num_labels: int = 3, **options: Any) -> AttentionHead:
    """Return a head in evaluation mode whose labels care about places."""
    torch.manual_seed(0)
    made = AttentionHead(num_features, num_labels, **options).eval()
    torch.nn.init.normal_(made.places.weight)
    return made


def network(backbone: str = "resnet10t", size: int = 64, **options: Any) -> TimmNetwork:
    torch.manual_seed(0)
    return TimmNetwork(backbone, num_labels=4, image_size=size, **{"head": "attention", **options})


def grid(num_features: int = 12, height: int = 2, width: int = 3) -> Tensor:
    return torch.randn(2, num_features, height, width, generator=torch.Generator().manual_seed(1))


def as_array(tensor: Tensor) -> npt.NDArray[np.float64]:
    return tensor.detach().double().numpy()


def test_logits_equal_a_computation_by_hand() -> None:
    made, features = head(), as_array(grid())
    arrays = {name: as_array(value) for name, value in made.state_dict().items()}
    logits = np.zeros((2, 3))
    for image in range(2):
        keys, values = [], []
        for row in range(2):
            for column in range(3):
                vector = features[image, :, row, column]
                vector = (vector - vector.mean()) / np.sqrt(vector.var() + 1e-5)
                vector = vector * arrays["norm.weight"] + arrays["norm.bias"]
                angles = [np.pi * 2.0 ** np.arange(4) * x for x in ((row + 0.5) / 2, (column + 0.5) / 3)]
                waves = np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)])
                keys.append(
                    arrays["keys.weight"] @ vector + arrays["keys.bias"] + arrays["places.weight"] @ waves
                )
                values.append(arrays["values.weight"] @ vector + arrays["values.bias"])
        assert made.num_heads == 6
        for label in range(3):
            pooled = []
            for start in range(0, 12, 2):
                part = slice(start, start + 2)
                scores = np.array([key[part] @ arrays["queries"][label, part] for key in keys]) / np.sqrt(2)
                weights = np.exp(scores) / np.exp(scores).sum()
                pooled.append(
                    sum(weight * value[part] for weight, value in zip(weights, values, strict=True))
                )
            last = {name.rpartition(".")[2]: value for name, value in arrays.items() if "logits" in name}
            logits[image, label] = np.concatenate(pooled) @ last["weight"][label] + last["bias"][label]
    np.testing.assert_allclose(as_array(made(grid())), logits, atol=1e-5)


def test_each_label_looks_by_itself_and_its_weights_sum_to_one() -> None:
    made, seen = head(), []
    made.attention.register_forward_hook(lambda _, __, weights: seen.append(weights))
    before = made(grid())
    with torch.no_grad():
        made.queries[1] += 1
    after = made(grid())
    assert seen[0].shape == (2, 6, 3, 2, 3)
    torch.testing.assert_close(seen[0].sum(dim=(3, 4)), torch.ones(2, 6, 3))
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert (before[:, 1] != after[:, 1]).all()
    assert torch.equal(seen[0][:, :, [0, 2]], seen[1][:, :, [0, 2]])


def test_places_are_alike_at_first_and_told_apart_once_learnt() -> None:
    fresh, features = AttentionHead(12, 3).eval(), grid()
    turned = features.flip((2, 3))
    torch.testing.assert_close(fresh(features), fresh(turned))
    assert not torch.allclose(head()(features), head()(turned), atol=1e-3)
    fresh(features).sum().backward()
    assert fresh.places.weight.grad is not None
    assert fresh.places.weight.grad.any()


def test_every_place_of_a_grid_has_waves_of_its_own_whatever_its_size() -> None:
    for height, width in ((1, 1), (7, 7), (4, 16), (32, 32)):
        waves = _waves(height, width)
        assert waves.shape == (height * width, 16)
        assert len(torch.unique((waves * 1e4).round(), dim=0)) == height * width
    torch.testing.assert_close(_waves(3, 3)[4], _waves(9, 9)[40])  # the same point of the image


@pytest.mark.parametrize(("width", "heads"), [(1024, 8), (576, 8), (384, 8), (20, 5), (14, 7), (13, 1)])
def test_the_number_of_heads_divides_the_features(width: int, heads: int) -> None:
    assert AttentionHead(width, 2).num_heads == heads


def test_dropout_and_a_hidden_layer_are_honoured() -> None:
    options = {"hidden": 5, "dropout": 1.0, "feature_dropout": 0.0}
    made = network(**options)
    images = torch.rand(2, 1, 64, 64)
    last = made.head.logits[-1]
    assert [layer.out_features for layer in made.head.logits if hasattr(layer, "out_features")] == [5]
    assert last.weight.shape == (4, 5)
    torch.testing.assert_close(made.train()(images), last.bias.expand(2, 4))
    assert not torch.allclose(made.eval()(images), last.bias.expand(2, 4))
    before_hidden = network(hidden=5, feature_dropout=1.0).train()(images)  # all of them are dropped
    torch.testing.assert_close(before_hidden[0], before_hidden[1])
    without = network(feature_dropout=1.0)
    torch.testing.assert_close(without.train()(images), without.head.logits[-1].bias.expand(2, 4))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_family_learns_and_is_explained(backbone: str) -> None:
    made = network(backbone).to(memory_format=torch.channels_last).train()
    images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    logits = made(images)
    assert logits.shape == (2, 4)
    logits.square().sum().backward()
    # A parameter that nothing reaches stops a training on several GPUs.
    assert [name for name, one in made.named_parameters() if one.grad is None] == []
    made.zero_grad()
    made.eval()
    with torch.no_grad():
        expected = made(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = made(images)
    assert half.isfinite().all()
    torch.testing.assert_close(half.float(), expected, atol=0.1, rtol=0.1)
    pairs = [(0, 0), (0, 1), (1, 2)]
    maps = attention_maps(made, images, pairs, method="attention", batch_size=2)
    assert maps.shape == (3, 64, 64)
    assert torch.equal(maps.amax(dim=(1, 2)), torch.ones(3))
    assert float(maps.min()) >= 0
    assert not torch.allclose(maps[0], maps[1], atol=0.01)
    # A map is empty where nothing speaks for the label; of a logit and its opposite one is not.
    cams = [grad_cam(made, images, [0, 0], batch_size=2)]
    with torch.no_grad():
        made.head.logits[-1].weight.neg_()
    cams.append(grad_cam(made, images, [0, 0], batch_size=2))
    assert (torch.stack(cams).amax(dim=(0, 2, 3)) > 0.99).all()


def test_convolutions_take_another_image_size() -> None:
    made = network().eval()
    for size in (96, 160):
        assert made(torch.rand(1, 1, size, size)).shape == (1, 4)


def test_what_stands_behind_the_last_features_is_left_out() -> None:
    names = [name for name, _ in network("mobilenetv3_small_100").named_parameters()]
    assert any(name.startswith("backbone.blocks") for name in names)
    assert not any("conv_head" in name for name in names)
    assert any("conv_head" in name for name, _ in network("efficientnet_b0").named_parameters())


def test_a_checkpoint_describes_the_head_and_an_old_one_has_a_linear_one() -> None:
    made = network(hidden=6, dropout=0.5).eval()
    description = describe(made, num_labels=4)
    assert description["head"] == "attention"
    again = build_network(description).eval()
    again.load_state_dict(made.state_dict())
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(again(images), made(images))
    old = {name: value for name, value in describe(network(head="linear"), num_labels=4).items()}
    del old["head"]
    assert build_network(old).arguments()["head"] == "linear"


def test_a_frozen_backbone_leaves_the_head_to_learn_and_rates_are_told_apart() -> None:
    made = network(freeze="backbone")
    learning = [name for name, one in made.named_parameters() if one.requires_grad]
    assert learning == [name for name, _ in made.named_parameters() if name.startswith("head.")]
    groups = parameter_groups(
        network(), rates=LayerRates(stage_decay=0.5, head_factor=3.0), lr=1.0, decay_norms_and_biases=True
    )
    of_head = [group for group in groups if group["lr"] == pytest.approx(3.0)]
    assert sum(one.numel() for group in of_head for one in group["params"]) == sum(
        one.numel() for one in network().head.parameters()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"own_head": False, "backbone": "mobilenetv3_small_100"}, r"model\.own_head=false .*model\.head=attention"),
        ({"head": "pooled"}, r"model\.head=pooled must be one of linear, attention"),
        ({"hidden": 0}, r"model\.hidden=0 must be at least 1"),
    ],
)  # fmt: skip
def test_a_head_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        network(**options)


def test_pooled_features_are_means_over_places_and_not_what_the_head_reads() -> None:
    made, images = network().eval(), torch.rand(2, 1, 64, 64)
    assert made.linear_head is None
    expected = made.backbone.forward_features(images).mean(dim=(2, 3))
    torch.testing.assert_close(made.embed(images), expected)
    assert not torch.allclose(made.classify(made.embed(images)), made(images), atol=1e-3)
    small = torch.rand(2, 1, 32, 32)  # a single place: nothing to choose from
    torch.testing.assert_close(made.classify(made.embed(small)), made(small))
