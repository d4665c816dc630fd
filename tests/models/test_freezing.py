import copy

import pytest
import timm
import torch
from torch import nn

from cxrlab.errors import ConfigError
from cxrlab.heatmaps.methods.cam import grad_cam
from cxrlab.models.freezing import stage_parameters
from cxrlab.models.timm_network import TimmNetwork

OPTIONS = {
    "pretrained": False, "checkpoint_path": None, "hidden": None, "dropout": 0.0, "feature_dropout": 0.0,
    "num_labels": 2, "channels": 1, "image_size": 32, "unfreeze_epoch": None,
}  # fmt: skip


def network(freeze: object, backbone: str = "resnet10t", **changes: object) -> TimmNetwork:
    torch.manual_seed(0)
    return TimmNetwork(backbone=backbone, **{**OPTIONS, "freeze": freeze, **changes})


def changed(one: nn.Module, steps: int = 2) -> set[str]:
    """Train on noise and return the names of what is no longer as it was: parameters and statistics."""
    before = copy.deepcopy(one.state_dict())
    optimizer = torch.optim.AdamW(one.parameters(), lr=0.01, weight_decay=0.1)
    one.train()
    for _ in range(steps):
        optimizer.zero_grad()
        one(torch.randn(8, 1, 32, 32)).square().mean().backward()
        optimizer.step()
    return {name for name, value in one.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(
    ("backbone", "count"),
    [
        ("densenet121", 6), ("mobilenetv1_100", 6), ("mobilenetv2_100", 8), ("mobilenetv3_large_100", 9),
        ("resnet10t", 5), ("efficientnet_b0", 8), ("convnext_tiny", 6), ("vit_small_patch16_224", 13),
    ],
)  # fmt: skip
def test_every_familys_stages_hold_each_parameter_once(backbone: str, count: int):
    one = timm.create_model(backbone, num_classes=0)
    stages = stage_parameters(one)
    assert len(stages) == count
    assert sum(len(stage) for stage in stages) == len(list(one.parameters()))
    assert {id(p) for stage in stages for p in stage} == {id(p) for p in one.parameters()}


def test_a_frozen_backbone_keeps_weights_and_statistics_though_all_is_in_the_optimizer():
    assert changed(network("backbone")) == {"head.1.weight", "head.1.bias"}


def test_the_first_stages_are_frozen_and_no_others():
    names = changed(network(2))
    assert not any(name.startswith(("backbone.conv1", "backbone.bn1", "backbone.layer1")) for name in names)
    for stage in ("backbone.layer2", "backbone.layer4", "head"):
        assert any(name.startswith(stage) for name in names)
    assert any("layer2" in name and "running_mean" in name for name in names)


def test_statistics_alone_can_be_frozen():
    one = network("norm_statistics")
    names = changed(one)
    assert not any("running" in name or "num_batches" in name for name in names)
    assert {name for name, _ in one.named_parameters()} <= names


def test_what_is_frozen_stays_in_evaluation_mode_until_it_is_unfreezeed():
    one = network(2, unfreeze_epoch=3)
    one.eval().train()
    assert not one.backbone.bn1.training
    assert one.backbone.layer3.training
    one.at_epoch(2)
    assert not one.backbone.conv1[0].weight.requires_grad
    one.at_epoch(4)  # as after a resume
    assert one.backbone.bn1.training
    assert all(parameter.requires_grad for parameter in one.parameters())
    assert any(name.startswith("backbone.conv1") for name in changed(one))


def test_a_transformer_is_frozen_by_its_blocks():
    one = network(3, "vit_small_patch16_224", image_size=32)
    names = changed(one)
    assert not any(name.startswith(("backbone.blocks.1.", "backbone.patch_embed")) for name in names)
    assert any(name.startswith("backbone.blocks.2.") for name in names)
    assert one.backbone.blocks[2].mlp.training


@pytest.mark.parametrize("depth", [0, 6, -1, "head", True])
def test_a_depth_that_the_backbone_lacks_is_rejected(depth: object):
    with pytest.raises(
        ConfigError, match=rf"model\.freeze={depth} does not fit resnet10t, which has 5 stages"
    ):
        network(depth)


def test_statistics_of_a_backbone_without_batch_normalisation_are_rejected():
    with pytest.raises(ConfigError, match="model.freeze=norm_statistics: vit_small_patch16_224 has no batch"):
        network("norm_statistics", "vit_small_patch16_224")


@pytest.mark.parametrize(("freeze", "unfreeze_epoch"), [(None, 2), ("backbone", 0)])
def test_unfreezeing_needs_something_frozen_before(freeze: object, unfreeze_epoch: int):
    with pytest.raises(
        ConfigError, match=rf"model\.unfreeze_epoch={unfreeze_epoch} with model\.freeze={freeze}"
    ):
        network(freeze, unfreeze_epoch=unfreeze_epoch)


def test_a_frozen_network_has_the_heatmaps_of_a_free_one_and_stays_frozen():
    frozen, free = network("backbone"), network(None)
    images = torch.randn(8, 1, 96, 96)
    maps = [grad_cam(one, images, [0, 1] * 4, batch_size=8) for one in (frozen, free)]
    assert maps[0].max() > 0
    torch.testing.assert_close(*maps)
    assert not any(parameter.requires_grad for parameter in frozen.backbone.parameters())


def test_freezing_leaves_the_names_in_a_checkpoint_as_they_are():
    assert list(network("backbone").state_dict()) == list(network(None).state_dict())
