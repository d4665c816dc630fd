import pytest
import timm
import torch
import torchvision

from cxrlab.models.weights import is_head, looks_like, translated


@pytest.mark.parametrize(
    "name", ["fc.weight", "classifier.0.bias", "module.head.fc.weight", "heads.1.weight"]
)
def test_heads_are_told_by_their_names(name: str):
    assert is_head(name)
    assert not is_head(name.replace("fc", "conv").replace("class", "cl").replace("head", "hat"))


def test_the_prefix_that_brings_most_names_to_match_is_stripped():
    one = torch.zeros(1)
    weights = {"ema.stem.weight": one, "net.stem.weight": one, "net.stem.bias": one, "net.head.weight": one}
    inside, outside = translated(weights, {"stem.weight", "stem.bias"})
    assert list(inside) == ["stem.weight", "stem.bias", "head.weight"]
    assert outside == ["ema.stem.weight"]


def test_names_of_another_network_stay_as_they_are():
    inside, outside = translated({"a.weight": torch.zeros(1)}, {"stem.bias"})
    assert (list(inside), outside) == (["a.weight"], [])


def test_timm_s_own_names_are_left_alone():
    with torch.device("meta"):
        own = timm.create_model("mobilenetv2_100", num_classes=0).state_dict()
    inside, outside = translated(own, own.keys())
    assert inside.keys() == own.keys()
    assert not outside


def test_torchvision_s_mobilenet_has_all_of_timm_s_weights_in_their_shapes():
    with torch.device("meta"):
        own = timm.create_model("mobilenetv2_100", num_classes=0).state_dict()
        theirs = torchvision.models.mobilenet_v2().state_dict()
    inside, _ = translated({f"module.model.{name}": tensor for name, tensor in theirs.items()}, own.keys())
    assert {name: inside[name].shape for name in own} == {name: own[name].shape for name in own}
    assert inside.keys() - own.keys() == {"classifier.1.weight", "classifier.1.bias"}


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("densenet121", "a DenseNet-121"),
        ("densenet201", "a DenseNet-201"),
        ("resnet18", "a ResNet-18 with basic blocks"),
        ("resnet50", "a ResNet-50 with bottlenecks"),
        ("mobilenet_v2", "a MobileNetV2 of torchvision"),
        ("mobilenet_v3_large", "a MobileNetV3 of torchvision"),
        ("vit_b_16", "a vision transformer"),
        ("vgg11", "a VGG or AlexNet of torchvision"),
    ],
)
def test_a_torchvision_architecture_is_recognised(architecture: str, words: str):
    with torch.device("meta"):
        state = torchvision.models.get_model(architecture, weights=None).state_dict()
    assert looks_like([f"module.{name}" for name in state]) == words


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("mobilenetv3_small_100", "a MobileNet or EfficientNet of timm"),
        ("vit_tiny_patch16_224", "a vision transformer"),
        ("convnext_atto", "a ConvNeXt of timm"),
    ],
)
def test_a_timm_architecture_is_recognised(backbone: str, words: str):
    with torch.device("meta"):
        state = timm.create_model(backbone).state_dict()
    assert looks_like(state) == words
