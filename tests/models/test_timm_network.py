import pytest
import torch
from torch import nn

from cxrlab.errors import ConfigError
from cxrlab.models.timm_network import TimmNetwork, layer_table

OPTIONS = {
    "pretrained": False, "checkpoint_path": None, "hidden": None, "dropout": 0.0, "feature_dropout": 0.0, "freeze": None, "unfreeze_epoch": None, "num_labels": 4, "channels": 1,
    "image_size": 64,
}  # fmt: skip
# Backbones of conf/model with their parameters without a head, for three input channels (torchvision, timm, papers).
PARAMETERS = {
    "densenet121": 6_953_856,
    "mobilenetv1_100": 3_206_976,
    "mobilenetv2_100": 2_223_872,
    "resnet50": 23_508_032,
}


@pytest.mark.parametrize(
    ("backbone", "pooled", "own"), [("mobilenetv3_large_100", 960, 1280), ("lcnet_050", 256, 1280)]
)
def test_features_can_pass_what_stands_behind_the_pooling(backbone: str, pooled: int, own: int):
    images = torch.rand(2, 1, 64, 64)
    with_own = TimmNetwork(backbone=backbone, **OPTIONS).eval()
    without = TimmNetwork(backbone=backbone, own_head=False, **OPTIONS).eval()
    assert with_own.head[-1].in_features == own
    assert without.head[-1].in_features == pooled
    assert without.arguments()["own_head"] is False
    features = without.backbone.forward_features(images)
    expected = without.head(features.mean(dim=(2, 3)))
    torch.testing.assert_close(without(images), expected)
    without.head[-1].weight.grad = None
    without(images).sum().backward()
    assert all(one.grad is not None for one in without.parameters())  # DDP allows no idle ones


def test_a_network_without_a_head_of_its_own_keeps_the_option_as_it_is():
    with pytest.raises(ConfigError, match="model.own_head=false: resnet10t has no layer of its own"):
        TimmNetwork(backbone="resnet10t", own_head=False, **OPTIONS)


@pytest.mark.parametrize(
    "backbone",
    [
        "densenet121", "mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv3_small_100",
        "resnet10t", "resnet50", "efficientnet_b0", "convnext_tiny", "vit_small_patch16_224", "swin_tiny_patch4_window7_224",
    ],
)  # fmt: skip
def test_every_family_gives_logits_and_a_grid_of_features(backbone: str):
    size = 224 if backbone.startswith("swin") else 64
    network = TimmNetwork(backbone=backbone, **{**OPTIONS, "image_size": size}).eval()
    grids = []
    handle = network.feature_layer.register_forward_hook(
        lambda _, __, out: grids.append(network.to_grid(out))
    )
    with torch.no_grad():
        logits = network(torch.randn(2, 1, size, size))
    handle.remove()
    assert logits.shape == (2, 4)
    assert grids[0].ndim == 4
    assert grids[0].shape[0] == 2
    assert 1 < grids[0].shape[2] == grids[0].shape[3] < 20


@pytest.mark.parametrize(("backbone", "expected"), PARAMETERS.items())
def test_backbones_have_their_published_number_of_parameters(backbone: str, expected: int):
    network = TimmNetwork(backbone=backbone, **{**OPTIONS, "channels": 3})
    assert sum(p.numel() for p in network.backbone.parameters()) == expected


def test_the_head_can_have_a_hidden_layer_and_dropout():
    network = TimmNetwork(backbone="resnet10t", **{**OPTIONS, "hidden": 16, "dropout": 0.3})
    kinds = [type(layer) for layer in network.head]
    assert kinds == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert network.head[2].p == 0.3
    assert network.head[3].in_features == 16
    assert [type(x) for x in TimmNetwork(backbone="resnet10t", **OPTIONS).head] == [nn.Dropout, nn.Linear]


@pytest.mark.parametrize(("name", "value"), [("hidden", 0), ("dropout", 2.0), ("feature_dropout", -0.1)])
def test_a_head_that_cannot_be_is_rejected(name: str, value: float):
    with pytest.raises(ConfigError, match=f"model.{name}={value} must"):
        TimmNetwork(backbone="resnet10t", **{**OPTIONS, name: value})


def test_an_unknown_architecture_is_rejected_with_near_names():
    with pytest.raises(ConfigError, match=r"no architecture 'densenet211'.*densenet201"):
        TimmNetwork(backbone="densenet211", **OPTIONS)


def test_both_sources_of_weights_exclude_each_other():
    with pytest.raises(ConfigError, match=r"model.checkpoint_path=w.pth exclude each other"):
        TimmNetwork(backbone="resnet10t", **{**OPTIONS, "pretrained": True, "checkpoint_path": "w.pth"})


def test_a_transformer_rejects_a_size_that_its_patches_do_not_fill():
    with pytest.raises(ConfigError, match=r"patches of 16 pixels, and data.image_size=100 is no multiple"):
        TimmNetwork(backbone="vit_small_patch16_224", **{**OPTIONS, "image_size": 100})


def test_the_layer_table_lists_shapes_and_adds_up():
    network = TimmNetwork(backbone="resnet10t", **OPTIONS)
    table = layer_table(network, image_size=64, channels=1)
    total = sum(p.numel() for p in network.parameters())
    assert f"{total:,} parameters, {total:,} of them trainable" in table
    counts = [int(line.split()[-1].replace(",", "")) for line in table.splitlines()[1:-2]]
    assert sum(counts) == total
    assert "512x2x2" in table
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_a_tutorials_head_has_its_dropout_on_the_pooled_features_and_its_number_of_parameters():
    """A MobileNet pneumonia lab: 3,206,976 + 229,600 + 450; a course's DenseNet121: 6,968,206."""
    options = {**OPTIONS, "channels": 3, "hidden": 224, "feature_dropout": 0.2, "num_labels": 2}
    lab = TimmNetwork(backbone="mobilenetv1_100", **options)
    assert sum(one.numel() for one in lab.parameters() if one.requires_grad) == 3_437_026
    course = TimmNetwork(backbone="densenet121", **{**OPTIONS, "channels": 3, "num_labels": 14})
    assert sum(one.numel() for one in course.parameters() if one.requires_grad) == 6_968_206


def test_the_dropout_of_features_stands_before_the_hidden_layer_and_acts_in_training_alone():
    network = TimmNetwork(backbone="resnet10t", **{**OPTIONS, "hidden": 8, "feature_dropout": 1.0})
    seen = []
    network.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for mode in (True, False):
        network.train(mode)(torch.randn(4, 1, 64, 64))
    assert seen[0].eq(0).all()
    assert seen[1].ne(0).any()


@pytest.mark.parametrize(
    ("backbone", "names", "sides"),
    [
        (
            "densenet121",
            ["features.norm0", "features.denseblock1", "features.denseblock2", "features.denseblock3", "features.norm5"],
            [32, 16, 8, 4, 2],
        ),
        ("mobilenetv3_large_100", [f"blocks.{number}" for number in (0, 1, 2, 4, 6)], [32, 16, 8, 4, 2]),
        ("resnet10t", ["act1", "layer1", "layer2", "layer3", "layer4"], [32, 16, 8, 4, 2]),
        ("convnext_tiny", [f"stages.{number}" for number in range(4)], [16, 8, 4, 2]),
        ("vit_small_patch16_224", [f"blocks.{number}" for number in range(12)], [4] * 12),
    ],
)  # fmt: skip
def test_the_layers_that_end_a_stage_are_named_from_the_finest_grid_on(
    backbone: str, names: list[str], sides: list[int]
):
    network = TimmNetwork(backbone=backbone, **OPTIONS).eval()
    layers, found = network.stage_layers, {}
    assert list(layers) == [f"backbone.{name}" for name in names]
    for name, layer in layers.items():
        assert layer is network.get_submodule(name)
        layer.register_forward_hook(
            lambda _, __, out, name=name: found.update({name: network.to_grid(out).shape[2:]})
        )
    with torch.no_grad():
        network(torch.randn(1, 1, 64, 64))
    assert [found[name] for name in layers] == [(side, side) for side in sides]
