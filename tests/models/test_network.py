"""The protocol of networks: what a plain module becomes, what its constructor gets, what a checkpoint builds."""

import copy
import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from cxrlab.errors import CheckpointError, ConfigError
from cxrlab.heatmaps.methods.cam import activation_maps
from cxrlab.heatmaps.methods.layers import is_explainable, unexplainable_reason
from cxrlab.models import Network, SequentialNetwork, TimmNetwork, build_network, make_network, wrap
from cxrlab.models.network import (
    OWN_NETWORKS,
    architecture,
    describe,
    shape_arguments,
    without_initial_weights,
)

SHAPE = {"num_labels": 2, "channels": 1, "image_size": 64}


class Plain(nn.Module):
    """A person's network: no base class, an argument of its own, an activation that is used twice."""

    def __init__(self, num_labels: int, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(2 * width, num_labels)

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu(self.norm(self.first(images)))
        features = self.relu(self.second(self.pool(features)))
        return self.classifier(self.dropout(self.average(features).flatten(1)))


class Flat(nn.Module):
    """A network without spatial features."""

    def __init__(self, num_labels: int, image_size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(image_size**2, num_labels)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


def test_a_network_of_the_protocol_stays_as_it_is():
    network = TimmNetwork("resnet10t", num_labels=2)
    assert wrap(network, 64, 1) is network


def test_a_plain_module_has_the_last_layer_with_places_and_neutral_answers():
    module = Plain(2)
    network = wrap(module, 64, 1)
    assert network.feature_layer is module.second
    assert dict(network.stage_layers) == {"module.norm": module.norm}
    assert (network.title, network.penalty(), network.stages(), network.head_parameters()) == (
        "Plain",
        0.0,
        [],
        [],
    )
    network.at_epoch(3)
    images = torch.randn(3, 1, 64, 64)
    network.eval()
    assert torch.equal(network(images), module(images))
    assert {name.removeprefix("module.") for name in network.state_dict()} == set(module.state_dict())


def test_looking_for_places_leaves_no_trace():
    module = Plain(2).train()
    module.norm.eval()
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    wrap(module, 64, 1)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert module.dropout.training
    assert not module.norm.training
    assert not any(layer._forward_hooks for layer in module.modules())


def test_a_copy_of_a_wrapped_network_has_places_of_its_own():
    network = wrap(Plain(2), 64, 1)
    twin = copy.deepcopy(network)
    assert twin.feature_layer is twin.module.second
    assert twin.feature_layer is not network.feature_layer


@pytest.mark.parametrize(
    ("name", "layer", "stages"),
    [
        ("resnet18", "layer4", ["bn1", "layer1", "layer2", "layer3"]),
        ("densenet121", "features", None),
        ("mobilenet_v3_small", "features", None),
        ("convnext_tiny", "features", None),
        ("vgg11", "avgpool", None),
    ],
)
def test_torchvisions_networks_have_their_last_features(name: str, layer: str, stages: list[str] | None):
    factory = getattr(torchvision.models, name)
    network = make_network(factory, num_labels=2, channels=3, image_size=96)
    assert network.feature_layer is network.module.get_submodule(layer)
    if stages is not None:
        assert [stage.removeprefix("module.") for stage in network.stage_layers][-3:] == stages[-3:]
    maps = activation_maps(
        network.eval(), torch.randn(1, 3, 96, 96), [(0, 0)], method="gradcam", layers="auto", batch_size=1
    )
    assert maps.shape == (1, 96, 96)


def test_the_places_before_a_transformers_tokens_are_none_to_read():
    transformer = torchvision.models.vit_b_16(num_classes=2, image_size=32)
    network = wrap(transformer, 32, 3)
    assert network.feature_layer is None
    assert not is_explainable(network)
    reason = unexplainable_reason(network, ["gradcam", "occlusion"])
    assert reason is not None
    assert "VisionTransformer has no spatial features" in reason
    assert unexplainable_reason(network, ["occlusion"]) is None


def test_a_network_without_places_says_so():
    network = wrap(Flat(2, 8), 8, 1)
    assert network.feature_layer is None
    assert dict(network.stage_layers) == {}
    with pytest.raises(ConfigError, match=r"Flat has none that cxrlab finds.*occlusion"):
        activation_maps(
            network, torch.zeros(1, 1, 8, 8), [(0, 0)], method="gradcam", layers="auto", batch_size=1
        )


def test_a_module_that_does_not_take_the_images_is_refused():
    with pytest.raises(ConfigError, match=r"Plain fails on an image of the shape \(1, 3, 64, 64\)"):
        wrap(Plain(2), 64, 3)
    with pytest.raises(ConfigError, match=r"Conv2d gives \(1, 2, 62, 62\).*one logit a label"):
        wrap(nn.Conv2d(1, 2, 3), 64, 1)


def test_outputs_beside_the_logits_are_refused_in_training():
    module = torchvision.models.googlenet(num_classes=2, init_weights=False, aux_logits=True)
    network = wrap(module, 96, 3).train()
    with pytest.raises(ConfigError, match="aux_logits=false"):
        network(torch.randn(2, 3, 96, 96))


def any_keyword(**options: Any) -> nn.Module:
    return Plain(options["num_classes"])


class AnyKeyword(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("constructor", "names"),
    [
        (Plain, {"num_labels"}),
        (functools.partial(Plain, width=8), {"num_labels"}),
        (Flat, {"num_labels", "image_size"}),
        (TimmNetwork, {"num_labels", "channels", "image_size"}),
        (torchvision.models.resnet18, {"num_classes"}),
        (torchvision.models.VisionTransformer, {"num_classes", "image_size"}),
        (any_keyword, {"num_classes"}),
        (AnyKeyword, {"num_labels", "channels", "image_size"}),
        (functools.partial(AnyKeyword, depth=3), {"num_labels", "channels", "image_size"}),
    ],
)
def test_a_constructor_gets_what_it_takes(constructor: Any, names: set[str]):
    assert set(shape_arguments(constructor, **SHAPE)) == names


def test_a_constructor_without_a_number_of_logits_is_refused():
    with pytest.raises(ConfigError, match=r"Conv2d takes in_channels.*num_labels"):
        shape_arguments(nn.Conv2d, **SHAPE)


@pytest.mark.parametrize(
    "network",
    [
        TimmNetwork("resnet10t", num_labels=2, image_size=64, hidden=8, dropout=0.1, freeze="backbone"),
        SequentialNetwork([{"conv": 3}, "pool", {"dense": 4, "l2": 0.1}], num_labels=2, image_size=16),
        SequentialNetwork(num_labels=2, image_size=32, padding="same"),
    ],
)
def test_a_network_made_in_python_is_built_again_from_its_description(network: Network):
    description = describe(network, 2)
    again = build_network(description)
    assert again.state_dict().keys() == network.state_dict().keys()
    again.load_state_dict(network.state_dict())
    images = torch.randn(2, network.channels, network.image_size, network.image_size)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), network.eval()(images))
    assert describe(again, 2) == description


LAB = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_labels, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_labels))

    def forward(self, images):
        return self.layers(images)

def not_a_network(num_labels):
    return num_labels
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of a person's own."""
    (tmp_path / "lab_of_networks").mkdir()
    (tmp_path / "lab_of_networks" / "__init__.py").write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path)
    yield "lab_of_networks"
    sys.modules.pop("lab_of_networks", None)


def test_a_network_of_a_trusted_package_is_built(lab: str):
    description = {"_target_": f"{lab}.Net", "width": 6, **SHAPE}
    with pytest.raises(ConfigError, match=rf"network\._target_.*{lab}\.Net.*trust=\[{lab}\]"):
        build_network(description)
    assert lab not in sys.modules
    network = build_network(description, trust=[lab])
    assert network.state_dict()["module.layers.0.weight"].shape == (6, 1, 3, 3)
    with pytest.raises(CheckpointError, match=r"cannot be built with \['depth'\].*module="):
        build_network({"_target_": f"{lab}.Net", "depth": 6, **SHAPE}, trust=[lab])
    with pytest.raises(CheckpointError, match=r"gives a int, no network"):
        build_network({"_target_": f"{lab}.not_a_network", **SHAPE}, trust=[lab])
    with pytest.raises(ConfigError, match=r"Other.*cannot be imported"):
        build_network({"_target_": f"{lab}.Other", **SHAPE}, trust=[lab])


@pytest.mark.parametrize(
    "target",
    ["os.system", "cxrlab.files.write_text", "cxrlab.models.network.build_network", "torch.nn.Linear"],
)
def test_a_file_chooses_nothing_that_is_not_listed(target: str):
    with pytest.raises(ConfigError, match=rf"{target}.*a file must not choose what code runs"):
        build_network({"_target_": target, **SHAPE})


def test_a_file_holds_plain_arguments_only():
    layers = [{"conv": {"_target_": "os.system", "command": "true"}}]
    with pytest.raises(ConfigError, match="os.system inside"):
        build_network({"_target_": OWN_NETWORKS[-1], "layers": layers, **SHAPE})


def test_torchvision_is_a_package_to_trust_like_another():
    description = {"_target_": "torchvision.models.resnet18", "weights": "DEFAULT", **SHAPE, "channels": 3}
    network = build_network(description, trust=["torchvision"])  # no weights are fetched
    assert network.module.fc.out_features == 2
    written_out = {**description, "num_classes": 2}
    assert build_network(written_out, trust=["torchvision"]).module.fc.out_features == 2
    made = torchvision.models.squeezenet1_1(num_classes=2)
    assert make_network(functools.wraps(made)(lambda: None), **{**SHAPE, "channels": 3}).module is made


def test_initial_weights_and_training_leave_the_description():
    given = {
        "_target_": "x",
        "_partial_": True,
        "pretrained": True,
        "checkpoint_path": "a.pth",
        "hidden": None,
    }
    plain = {"_target_": "x", "pretrained": False, "checkpoint_path": None, "hidden": None}
    assert without_initial_weights(given) == plain
    own = {"_target_": "cxrlab.models.TimmNetwork", "backbone": "resnet10t", "pretrained": True, "freeze": 2}
    assert architecture(own) == {**own, "pretrained": False, "freeze": None}
    assert architecture({"_target_": "lab.Net", "freeze": 2}) == {"_target_": "lab.Net", "freeze": 2}
    assert without_initial_weights({"_target_": "torchvision.models.resnet18", "weights": "DEFAULT"}) == {
        "_target_": "torchvision.models.resnet18"
    }
