from functools import partial

import pytest
import torch
import yaml
from torch import nn

from cxrlab.cli.config import config_dir
from cxrlab.errors import ConfigError
from cxrlab.models.sequential import SequentialNetwork

SMALL = partial(
    SequentialNetwork, padding="valid", output_dropout=0.0, num_labels=2, channels=1, image_size=16
)


def shipped(name: str, **shape: int) -> SequentialNetwork:
    texts = [(config_dir() / "model" / f"{stem}.yaml").read_text() for stem in ("sequential", name)]
    merged = {key: value for text in texts for key, value in yaml.safe_load(text).items()}
    for key in ("_target_", "_partial_", "defaults"):
        merged.pop(key)
    return SequentialNetwork(**merged, num_labels=1, **shape)


@pytest.mark.parametrize(
    ("name", "channels", "image_size", "published"),
    [
        ("malaria_cnn_baseline", 3, 130, 75_937),
        ("malaria_cnn", 3, 130, 2_601_153),
        ("pneumonia_cnn", 3, 150, 3_485_505),
        ("pneumonia_cnn_dropout", 3, 150, 3_485_505),
        ("pneumonia_cnn", 3, 224, 9_711_425),
        ("vgg_like", 1, 150, 4_308_673),
    ],
)
def test_a_published_network_has_the_published_number_of_parameters(name, channels, image_size, published):
    network = shipped(name, channels=channels, image_size=image_size)
    assert sum(one.numel() for one in network.parameters() if one.requires_grad) == published


def test_the_layers_stand_in_the_order_given():
    network = SMALL(
        layers=[{"conv": 4}, "pool", "norm", {"conv": 8, "linear": True}, {"dense": 5}, {"dropout": 0.5}]
    )
    kinds = [type(one) for one in network.features]
    assert kinds == [nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.BatchNorm2d, nn.Conv2d]
    assert [type(one) for one in network.head] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    norm = network.features[3]
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)
    assert network(torch.zeros(3, 1, 16, 16)).shape == (3, 2)


def test_kernels_start_glorot_uniform_and_biases_at_0():
    torch.manual_seed(0)
    network = SMALL(layers=[{"conv": 64}, {"dense": 32}])
    kernel, dense = network.features[0].weight, network.head[1].weight
    for weight, fans in ((kernel, 9 * (1 + 64)), (dense, 14 * 14 * 64 + 32)):
        limit = (6 / fans) ** 0.5
        assert weight.abs().max() <= limit
        assert weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.1)
    assert not network.features[0].bias.any()
    assert not network.head[1].bias.any()


def test_dropout_behind_the_output_drops_probabilities_in_training_only():
    torch.manual_seed(0)
    images = torch.rand(64, 1, 16, 16)
    flawed = SMALL(layers=[{"conv": 4}], output_dropout=0.5)
    plain = SMALL(layers=[{"conv": 4}])
    plain.load_state_dict(flawed.state_dict())
    assert torch.allclose(flawed.eval()(images), plain(images), atol=1e-5)
    probabilities = torch.sigmoid(flawed.train()(images))
    is_dropped = probabilities < 1e-6
    assert 0.3 < is_dropped.float().mean() < 0.7
    doubled = (2 * torch.sigmoid(plain(images))).clamp(max=1 - 1e-7)  # what is kept is scaled up
    assert torch.allclose(probabilities[~is_dropped], doubled[~is_dropped], atol=1e-6)


def test_the_last_spatial_features_can_be_looked_at():
    network = SMALL(layers=[{"conv": 4}, "pool", {"dense": 3}])
    seen: list[torch.Tensor] = []
    network.feature_layer.register_forward_hook(lambda _, __, output: seen.append(output))
    network(torch.zeros(1, 1, 16, 16))

    assert network.to_grid(seen[0]).shape == (1, 4, 7, 7)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["convolution"], "'convolution' is none of conv, pool, norm, dropout or dense"),
        ([{"conv": 0}], "{'conv': 0} is none of"),
        (["conv"], "'conv' is none of"),
        ([{"conv": 4, "width": 3}], "is none of"),
        ([{"dense": 4, "linear": True}], "is none of"),
        ([{"dropout": 1.0}], r"dropout=1.0 must be at least 0 and below 1"),
        ([{"dense": 4}, "pool"], "pool stands behind a dense layer"),
        (["pool"] * 5, "data.image_size=16 is too small for model.layers: after 5 of them"),
    ],
)
def test_layers_that_cannot_be_built_are_named(layers, message):
    with pytest.raises(ConfigError, match=message):
        SMALL(layers=layers)


def test_an_output_dropout_of_1_is_rejected():
    with pytest.raises(ConfigError, match="model.output_dropout=1.0"):
        SMALL(layers=[{"conv": 4}], output_dropout=1.0)


def test_l2_adds_the_squared_weights_of_the_chosen_layers_to_the_loss_of_training():
    network = SMALL(layers=[{"conv": 4, "l2": 0.5}, "pool", {"dense": 5}, {"dense": 3, "l2": 0.01}])
    kernel, dense = network.features[0].weight, network.head[3].weight
    expected = 0.5 * (kernel**2).sum() + 0.01 * (dense**2).sum()
    torch.testing.assert_close(network.penalty(), expected)
    network.penalty().backward()
    torch.testing.assert_close(dense.grad, 0.02 * dense.detach())
    assert network.head[1].weight.grad is None


def test_without_l2_the_penalty_is_0():
    assert SMALL(layers=[{"conv": 4}]).penalty().item() == 0


@pytest.mark.parametrize(
    "layer", [{"dropout": 0.5, "l2": 0.1}, {"dense": 5, "l2": -1}, {"dense": 5, "l2": "x"}]
)
def test_l2_is_of_layers_with_weights(layer):
    with pytest.raises(
        ConfigError, match=r"model\.layers: .*l2 is a number from 0, of a conv or dense layer"
    ):
        SMALL(layers=[layer])


def test_the_published_l2_stands_on_both_hidden_dense_layers():
    network = shipped("pneumonia_cnn_dropout", channels=3, image_size=150)
    assert [(layer.out_features, l2) for layer, l2 in network.penalised] == [(512, 0.01), (64, 0.01)]


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        (
            [{"conv": 4}, "pool", {"conv": 4, "linear": True}, "pool", {"conv": 4}],
            ["features.1", "features.3"],
        ),
        ([{"conv": 4}, "pool", "norm", {"conv": 4}, {"dropout": 0.5}, "pool"], ["features.1", "features.6"]),
        (["pool", {"conv": 4}, "pool", {"dense": 3}], ["features.2"]),  # the image itself ends no stage
        ([{"conv": 4}, {"conv": 4}, {"dense": 3}], []),
    ],
)
def test_the_layers_before_each_reduction_are_named(layers, names):
    network = SMALL(layers=layers, padding="same")
    assert list(network.stage_layers) == names
    assert all(layer is network.get_submodule(name) for name, layer in network.stage_layers.items())


def test_the_layers_before_each_reduction_have_ever_coarser_grids():
    network = SMALL(
        layers=[{"conv": 4}, "pool", {"conv": 4}, {"conv": 4}, "pool", {"dense": 3}], padding="same"
    )
    sides: list[int] = []
    for layer in network.stage_layers.values():
        layer.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
    network(torch.zeros(1, 1, 16, 16))
    assert sides == [16, 8]
