import torch
from torch import nn

from cxrlab.models.weight_decay import without_decay_of_vectors


def test_weight_decay_shrinks_kernels_and_leaves_norms_and_biases():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 1))
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = torch.optim.AdamW(without_decay_of_vectors(network.parameters()), lr=0.1, weight_decay=0.5)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in network.named_parameters():
        share = 0.95 if value.ndim > 1 else 1.0
        torch.testing.assert_close(value, before[name] * share)


def test_every_parameter_is_in_one_group_and_no_group_is_empty():
    network = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    groups = without_decay_of_vectors(network.parameters())
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    assert len(without_decay_of_vectors(nn.LayerNorm(2).parameters())) == 1
