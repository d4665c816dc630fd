"""What a drawing of a network shows: its blocks, with shapes and parameters."""

import pytest
import torch
from torch import nn

from cxrlab.models import SequentialNetwork, TimmNetwork
from cxrlab.models.blocks import network_blocks
from cxrlab.models.network import wrap


def test_a_small_network_is_told_layer_by_layer():
    layers = [{"conv": 4}, "pool", "norm", {"dropout": 0.5}, {"dense": 8}]
    network = SequentialNetwork(layers, num_labels=3, channels=3, image_size=32)
    blocks = network_blocks(network, 32, 3)
    assert [(block.title, block.shape, block.parameters) for block in blocks] == [
        ("Conv2d 3x3, ReLU", (4, 30, 30), 3 * 4 * 9 + 4),
        ("MaxPool2d 2x2", (4, 15, 15), 0),
        ("BatchNorm2d", (4, 15, 15), 8),
        ("Dropout 0.5", (4, 15, 15), 0),
        ("Flatten", (900,), 0),
        ("Linear, ReLU", (8,), 900 * 8 + 8),
        ("Linear", (3,), 8 * 3 + 3),
    ]
    kinds = [block.kind for block in blocks]
    assert kinds == ["convolution", "pooling", "normalisation", "dropout", "other", "dense", "dense"]


@pytest.mark.parametrize(
    "backbone", ["densenet121", "resnet10t", "mobilenetv3_small_050", "vit_small_patch16_224"]
)
def test_a_large_network_is_told_by_stages_that_hold_all_its_parameters(backbone: str):
    network = TimmNetwork(backbone, num_labels=2, image_size=64).train()
    state = torch.random.get_rng_state()
    blocks = network_blocks(network, 64, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert network.training
    assert 6 <= len(blocks) <= 24
    assert sum(block.parameters for block in blocks) == sum(one.numel() for one in network.parameters())
    last = [block for block in blocks if block.name][-1]
    assert (last.title, last.shape) == ("Linear", (2,))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_network_of_ones_own_with_parameters_beside_its_layers_is_drawn():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(5))
            self.layers = nn.ModuleList([nn.Conv2d(1, 5, 3), nn.Linear(5, 2)])

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layers[1](self.layers[0](images).mean(dim=(2, 3)) * self.scale)

    blocks = network_blocks(wrap(Own(), 16, 1), 16, 1)
    assert [(block.title, block.parameters) for block in blocks] == [
        ("Conv2d 3x3", 50), ("Linear", 12), ("parameters beside the layers", 5)
    ]  # fmt: skip
