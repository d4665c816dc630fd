from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from cxrlab.errors import ConfigError
from cxrlab.heatmaps.methods.layers import is_explainable, target_layers, undisturbed
from cxrlab.models.network import Network, wrap
from cxrlab.models.sequential import Layer, SequentialNetwork
from cxrlab.models.timm_network import TimmNetwork

IMAGE = torch.zeros(1, 1, 16, 16)


class Own(Network):
    """What a map needs and no more; the name of its features is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.conv(images).mean(dim=(2, 3))
        return logits

    @property
    def feature_layer(self) -> nn.Module:
        return self.conv

    def to_grid(self, activations: Tensor) -> Tensor:
        return activations


def sequential(*layers: Layer) -> SequentialNetwork:
    return SequentialNetwork(
        layers=layers, padding="same", output_dropout=0.0, num_labels=2, channels=1, image_size=16
    )


def three_grids() -> SequentialNetwork:
    """Grids of 16, 8 and 4 pixels; the second ends with ``features.5``."""
    return sequential({"conv": 2}, "pool", {"conv": 2}, {"conv": 2, "linear": True}, "pool", {"conv": 2})


def timm(backbone: str) -> TimmNetwork:
    return TimmNetwork(
        backbone=backbone,
        pretrained=False,
        checkpoint_path=None,
        hidden=None,
        dropout=0.0,
        feature_dropout=0.0,
        freeze=None,
        unfreeze_epoch=None,
        num_labels=2,
        channels=1,
        image_size=64,
    )


def num_hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


@pytest.mark.parametrize("network", [sequential({"conv": 2}, "pool", {"conv": 2}), Own()])
def test_auto_is_the_feature_layer_where_its_grid_is_fine_enough(network: Network) -> None:
    assert isinstance(network, nn.Module)
    assert is_explainable(network)
    assert target_layers(network, "auto", IMAGE) == [network.feature_layer]


def test_auto_is_the_last_stage_of_seven_cells_a_side_or_more() -> None:
    network = three_grids()
    assert target_layers(network, "auto", IMAGE) == [network.features[5]]  # 8; the last has 4
    assert num_hooks(network) == 0


def test_auto_is_the_finest_stage_where_none_has_seven_cells() -> None:
    network, image = timm("resnet10t").eval(), torch.zeros(1, 1, 8, 8)
    (layer,) = target_layers(network, "auto", image)
    assert layer is network.backbone.act1  # the stem, of 4 cells a side
    with pytest.raises(ConfigError, match="fused needs a layer with a finer grid than 4x4"):
        target_layers(network, "fused", image)


@pytest.mark.parametrize(("image_size", "auto", "fused"), [(128, 8, [16, 8, 4]), (224, 7, [14, 7])])
def test_the_grids_of_resnet(image_size: int, auto: int, fused: list[int]) -> None:
    network, image = timm("resnet10t").eval(), torch.zeros(1, 1, image_size, image_size)

    def grids(layers: str) -> list[int]:
        sides: list[int] = []
        handles = [
            layer.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
            for layer in target_layers(network, layers, image)
        ]
        with torch.no_grad():
            network(image)
        for handle in handles:
            handle.remove()
        return sides

    assert grids("auto") == [auto]
    assert grids("fused") == fused
    assert (target_layers(network, "auto", image) == [network.feature_layer]) == (image_size == 224)


def test_auto_reads_the_class_token_s_last_attention_of_a_transformer() -> None:
    network = timm("vit_small_patch16_224")
    assert target_layers(network, "auto", torch.zeros(1, 1, 64, 64)) == [network.backbone.blocks[-1].norm1]


def test_fused_is_the_layer_of_auto_the_stage_of_a_finer_grid_and_all_after() -> None:
    network = three_grids()
    expected = [network.features[1], network.features[5], network.feature_map]
    assert target_layers(network, "fused", IMAGE) == expected
    assert num_hooks(network) == 0


@pytest.mark.parametrize(
    "backbone",
    [
        "densenet121",
        "mobilenetv3_large_100",
        "mobilenetv2_100",
        "efficientnet_b0",
        "resnet10t",
        "convnext_tiny",
    ],
)
def test_fused_doubles_the_grid_of_every_convolutional_family(backbone: str) -> None:
    network, image = timm(backbone).eval(), torch.zeros(1, 1, 224, 224)
    layers = target_layers(network, "fused", image)
    sides: list[tuple[int, int]] = []
    for layer in layers:
        layer.register_forward_hook(lambda _, __, output: sides.append(tuple(output.shape[2:])))
    with torch.no_grad():
        network(image)
    assert layers[1] is network.feature_layer
    assert sides == [(14, 14), (7, 7)]  # one cell in 16 pixels, and in 32


def test_fused_needs_a_finer_grid() -> None:
    network = timm("vit_small_patch16_224").eval()
    message = (
        r"explanation\.layers=fused needs a layer with a finer grid .*'backbone\.blocks\.11'\] has one\. Set"
    )
    with pytest.raises(ConfigError, match=message):
        target_layers(network, "fused", torch.zeros(1, 1, 64, 64))
    assert num_hooks(network) == 0
    for one in (sequential({"conv": 2}), Own()):  # a single grid; stages that nothing names
        with pytest.raises(ConfigError, match=r"none of \[\] has one\. Set explanation\.layers=auto"):
            target_layers(one, "fused", IMAGE)


def test_the_grids_are_measured_without_leaving_hooks_where_the_network_fails() -> None:
    network = three_grids()
    with pytest.raises(RuntimeError, match="channels"):
        target_layers(network, "fused", torch.zeros(1, 3, 16, 16))
    assert num_hooks(network) == 0


def test_layers_are_found_by_name_in_the_order_given() -> None:
    network = three_grids()
    assert target_layers(network, "features.1", IMAGE) == [network.features[1]]
    chosen = target_layers(network, ["feature_map", "features.1"], IMAGE)
    assert chosen == [network.feature_map, network.features[1]]


@pytest.mark.parametrize("name", ["features.9", "features.conv", "last", "", "features.0.weight"])
def test_a_layer_that_there_is_not_is_rejected_with_those_that_there_are(name: str) -> None:
    message = (
        rf"explanation\.layers names '{name}', and the network has no such layer\. Those that end a stage are "
        r"features\.1, features\.5, feature_map; layers\.txt"
    )
    with pytest.raises(ConfigError, match=message):
        target_layers(three_grids(), ["features.1", name], IMAGE)


def test_a_network_of_other_names_is_not_said_to_have_a_feature_map() -> None:
    with pytest.raises(ConfigError, match="no such layer") as failure:
        target_layers(Own(), "last", IMAGE)
    assert "feature_map" not in str(failure.value)


def test_no_name_at_all_is_rejected() -> None:
    with pytest.raises(ConfigError, match=r"explanation\.layers=\[\] names no layer; auto chooses one"):
        target_layers(three_grids(), [], IMAGE)


@pytest.mark.parametrize("layers", ["auto", "fused", "0"])
def test_a_network_without_spatial_features_is_rejected(layers: str) -> None:
    network = wrap(nn.Sequential(nn.Flatten(), nn.Linear(256, 2)), 16, 1)
    assert not is_explainable(network)
    with pytest.raises(
        ConfigError, match=r"Sequential has none .*explanation\.methods=\[occlusion\].*feature_layer"
    ):
        target_layers(network, layers, IMAGE)


def test_of_a_transformer_the_layers_are_listed_up_to_the_last_that_can_be_read() -> None:
    network = timm("vit_small_patch16_224")
    with pytest.raises(ConfigError, match="no such layer") as failure:
        target_layers(network, "blocks.99", torch.zeros(1, 1, 64, 64))
    listed = str(failure.value).partition("Those that end a stage are ")[2].partition(";")[0].split(", ")
    assert listed[-2:] == ["backbone.blocks.10", "backbone.blocks.11.norm1"]
    assert not {"feature_map", "backbone.blocks.11"} & set(listed)


Context = Callable[[], AbstractContextManager[object]]
CONTEXTS: list[Context] = [
    nullcontext,
    torch.no_grad,
    torch.inference_mode,
    partial(torch.autocast, "cpu", dtype=torch.bfloat16),
]


def half_trained() -> nn.Sequential:
    """A network in the middle of a step: gradients, a frozen layer, a mixture of modes."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2))
    network[0].requires_grad_(False)
    network.train()[1].eval()
    network(torch.ones(5, 4)).sum().backward()
    return network


def traces(network: nn.Module) -> tuple[list[bool], list[bool], list[Tensor | None], list[Tensor]]:
    """Return all that must stay: modes, flags, gradients as objects, and values of gradients and weights."""
    gradients = [parameter.grad for parameter in network.parameters()]
    known = [gradient.clone() for gradient in gradients if gradient is not None]
    return (
        [module.training for module in network.modules()],
        [parameter.requires_grad for parameter in network.parameters()],
        gradients,
        known + [value.clone() for value in network.state_dict().values()],
    )


def check_unchanged(
    network: nn.Module, before: tuple[list[bool], list[bool], list[Tensor | None], list[Tensor]]
) -> None:
    modes, flags, gradients, values = traces(network)
    assert (modes, flags) == before[:2]
    assert all(one is other for one, other in zip(gradients, before[2], strict=True))
    assert all(torch.equal(one, other) for one, other in zip(values, before[3], strict=True))


def test_the_network_is_in_evaluation_mode_and_its_weights_ask_for_no_gradient() -> None:
    network = half_trained()
    with undisturbed(network):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_everything_comes_back_whatever_was_done_inside() -> None:
    network = half_trained()
    before = traces(network)
    assert set(before[0]) == set(before[1]) == {True, False}
    assert {gradient is None for gradient in before[2]} == {True, False}
    with undisturbed(network):
        network.zero_grad()
        network(torch.ones(5, 4))
        network.train().requires_grad_(True)
    check_unchanged(network, before)


def test_everything_comes_back_after_an_exception_which_goes_on() -> None:
    network = half_trained()
    before = traces(network)
    with torch.inference_mode(), pytest.raises(KeyError, match="inside"), undisturbed(network):
        network.zero_grad()
        raise KeyError("inside")
    check_unchanged(network, before)
    network.train()(torch.ones(5, 4)).sum().backward()  # a step of training is still possible


@pytest.mark.parametrize("context", CONTEXTS)
def test_gradients_of_an_input_are_those_of_a_plain_pass(context: Context) -> None:
    network = half_trained()
    image = torch.linspace(-1, 1, 8).view(2, 4)
    plain = image.clone().requires_grad_()
    network.eval()(plain)[:, 1].square().sum().backward()
    with context(), undisturbed(network):
        given = image.clone().requires_grad_()
        logits = network(given)
        (gradient,) = torch.autograd.grad(logits[:, 1].square().sum(), given)
    assert logits.dtype == torch.float32
    assert plain.grad is not None
    torch.testing.assert_close(gradient, plain.grad, rtol=0, atol=0)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("context", CONTEXTS)
def test_what_was_on_around_the_call_is_on_again_behind_it(context: Context, fails: bool) -> None:
    def state() -> tuple[bool, bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")

    network = half_trained()
    with context():
        before = state()
        with suppress(KeyError), undisturbed(network):
            assert state() == (True, False, False)
            if fails:
                raise KeyError
        assert state() == before
