"""Batch normalisation by the statistics of other images."""

import pytest
import torch
from torch import nn

from cxrlab.errors import ConfigError
from cxrlab.models import TimmNetwork
from cxrlab.models.batch_norm import adapt_batch_norm, batch_norm_layers


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.BatchNorm2d(8),
    ]
    head = [nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)]
    return nn.Sequential(*layers, *head).eval()


def images_of(num_images: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_images, 1, 16, 16, generator=generator)


def adapted(network: nn.Module, images: torch.Tensor, size: int = 16) -> nn.Module:
    adapt_batch_norm(network, lambda: [network(chunk) for chunk in images.split(size)])
    return network


def test_the_first_layer_has_the_moments_of_all_images():
    network, images = small_network(), images_of(50)
    adapted(network, images, 16)  # the last batch has two images
    inputs = network[0](images).transpose(0, 1).flatten(1)
    torch.testing.assert_close(network[1].running_mean, inputs.mean(1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(network[1].running_var, inputs.var(1, unbiased=False), atol=1e-6, rtol=1e-5)


def test_later_layers_have_those_of_what_they_are_given_afterwards():
    network, images = small_network(), images_of(64)
    adapted(network, images)
    inputs = network[:4](images).transpose(0, 1).flatten(1)  # by the new statistics of the first layer
    torch.testing.assert_close(network[4].running_mean, inputs.mean(1), atol=2e-3, rtol=0.01)
    torch.testing.assert_close(network[4].running_var, inputs.var(1, unbiased=False), atol=2e-3, rtol=0.02)


def test_what_an_image_is_given_hardly_depends_on_its_batch():
    images, order = images_of(96), torch.randperm(96, generator=torch.Generator().manual_seed(1))
    first, second = small_network(), small_network()
    before = first(images)
    adapted(first, images, 16)
    adapted(second, images[order], 24)
    changed = (first(images) - before).abs().mean()
    assert (first(images) - second(images)).abs().max() < 0.02 * changed


def test_only_statistics_differ_and_the_network_stays_in_evaluation_mode():
    network = small_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    adapted(network, images_of(32))
    differing = {
        name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert differing == {f"{layer}.{name}" for layer in (1, 4) for name in ("running_mean", "running_var")}
    assert not any(module.training for module in network.modules())
    assert not any(module._forward_pre_hooks for module in network.modules())


def trained(steps: int = 150) -> nn.Module:
    """A network that tells images with a bright square from those without."""
    network = small_network().train()
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for step in range(steps):
        images, targets = squares(64, step)
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(images)[:, 0], targets).backward()
        optimizer.step()
    return network.eval()


def squares(num_images: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = images_of(num_images, seed)
    targets = (torch.arange(num_images) % 2).float()
    images[targets == 1, :, 4:10, 4:10] += 0.5
    return images, targets


def test_it_helps_where_images_are_brighter_and_of_more_contrast():
    network = trained()
    images, targets = squares(200, 1000)
    shifted = 2.5 * images + 1.0

    def accuracy(given: torch.Tensor) -> float:
        with torch.inference_mode():
            return float(((network(given)[:, 0] > 0).float() == targets).float().mean())

    assert accuracy(images) > 0.9
    before = accuracy(shifted)
    adapted(network, shifted, 40)
    assert before < 0.7
    assert accuracy(shifted) > 0.9


def test_networks_without_are_named():
    with pytest.raises(ConfigError, match="adapt=batch_norm replaces .*, and the network Linear has none"):
        adapt_batch_norm(nn.Linear(1, 1), lambda: None)
    transformer = TimmNetwork("vit_small_patch16_224", num_labels=1, image_size=32)
    with pytest.raises(ConfigError, match="the network TimmNetwork has none"):
        adapt_batch_norm(transformer, lambda: None)


def test_the_layers_of_timm_are_known():
    assert len(batch_norm_layers(TimmNetwork("resnet10t", num_labels=1, image_size=32))) >= 8
