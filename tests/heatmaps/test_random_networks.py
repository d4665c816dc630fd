import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor, nn

from cxrlab.heatmaps.random_networks import (
    randomised,
    randomized_copy,
    rank_correlations,
    similarities,
    stages,
)
from cxrlab.models.network import Network
from cxrlab.models.sequential import SequentialNetwork
from cxrlab.training.module import Classifier

Compose = Callable[..., DictConfig]
SIDE = 16
SEQUENTIAL: Mapping[str, Any] = {
    "_target_": "cxrlab.models.sequential.SequentialNetwork",
    "layers": [{"conv": 4}, "norm", "pool", {"conv": 6}, "norm", "pool"],
    "padding": "same",
    "output_dropout": 0.0,
    "num_labels": 2,
    "channels": 1,
    "image_size": SIDE,
}


def classifier(network: Mapping[str, Any] = SEQUENTIAL, module: nn.Module | None = None) -> Classifier:
    """A classifier that is told from an untrained one by all its weights and statistics."""
    preprocess = {"normalize": "none", "image_size": SIDE, "channels": 1}
    evaluate = Classifier(
        labels=["Edema", "Mass"], preprocess=preprocess, network=network, module=module
    ).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in evaluate.network.state_dict().values():
            if value.is_floating_point():
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return evaluate


def some_images(count: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 1, SIDE, SIDE), dtype=torch.uint8, generator=generator)


def steps(evaluate: Classifier, images: Tensor, batch_size: int = 6) -> list[tuple[str, dict[str, Tensor]]]:
    """What is yielded, with a copy of the weights and statistics at that time."""
    return [
        (part, {name: value.clone() for name, value in network.state_dict().items()})
        for part, network in randomised(evaluate, images, seed=3, batch_size=batch_size)
    ]


def as_drawn(seed: int) -> SequentialNetwork:
    torch.manual_seed(seed)
    return SequentialNetwork(**{name: value for name, value in SEQUENTIAL.items() if name != "_target_"})


class Outside(nn.Module):
    """A network of another package."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.last = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.layers(images))
        return logits


def test_the_parts_of_a_plain_network_are_its_layers_with_weights_the_last_first() -> None:
    names = ["head.1", "features.6", "features.4", "features.2", "features.0"]
    assert stages(as_drawn(0)) == [(name, [f"{name}.weight", f"{name}.bias"]) for name in names]


def test_a_single_layer_is_called_by_its_kind() -> None:
    class Linear(Network):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 1))

    assert stages(Linear()) == [("Linear", ["weight"])]


@pytest.mark.parametrize("model", ["resnet10t", "vit_small"])
def test_the_parts_of_a_backbone_are_its_stages_behind_one_another(model: str, composed: Compose) -> None:
    cfg = composed(f"model={model}", "data.root=/nowhere", "run_dir=/nowhere/run")
    network = instantiate(cfg.model)(num_labels=2, channels=1, image_size=32)
    parts = stages(network)
    names = [name for name, _ in parts]
    assert names == ["head", *(f"stage {number}" for number in range(len(parts) - 2, 0, -1)), "stem"]
    parameters = [one for _, of_part in parts for one in of_part]
    assert sorted(parameters) == sorted(name for name, _ in network.named_parameters())
    of = dict(parts)
    assert all(not name.startswith("backbone.") for name in of["head"])
    first = {"resnet10t": "backbone.conv1.0.weight", "vit_small": "backbone.patch_embed.proj.weight"}[model]
    last = {"resnet10t": "backbone.layer4.0.conv1.weight", "vit_small": "backbone.norm.weight"}[model]
    assert first in of["stem"]
    assert last in of[f"stage {len(parts) - 2}"]


def test_a_twin_is_the_network_before_training_and_depends_on_its_seed_alone() -> None:
    evaluate = classifier()
    before = copy.deepcopy(evaluate.network.state_dict())
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    copy_, again, other = (randomized_copy(evaluate, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(1), expected)
    drawn = as_drawn(3).state_dict()
    assert copy_.state_dict().keys() == drawn.keys()
    for name, value in drawn.items():
        assert torch.equal(copy_.state_dict()[name], value), name
        assert torch.equal(again.state_dict()[name], value), name
        assert torch.equal(evaluate.network.state_dict()[name], before[name]), name
    assert not torch.equal(other.state_dict()["head.1.weight"], drawn["head.1.weight"])
    assert not copy_.training


def test_a_network_from_outside_is_copied_and_its_layers_reset() -> None:
    evaluate = classifier({"_target_": "elsewhere.Network"}, Outside())
    before = copy.deepcopy(evaluate.network.state_dict())
    copy_ = randomized_copy(evaluate, 3)
    assert copy_.title == "Outside"
    for name, value in copy_.state_dict().items():
        assert not torch.isclose(value, before[name]).any(), name
        assert float(value.abs().max()) <= 1 / 3**0.5 + 1e-6, name  # as torch draws them
        assert torch.equal(evaluate.network.state_dict()[name], before[name]), name
        assert torch.equal(randomized_copy(evaluate, 3).state_dict()[name], value), name


def test_weights_become_random_part_by_part_from_the_head_on() -> None:
    evaluate = classifier()
    learnt, drawn = copy.deepcopy(evaluate.network.state_dict()), as_drawn(3).state_dict()
    parts = stages(evaluate.network)
    found = steps(evaluate, some_images())
    assert [part for part, _ in found] == [part for part, _ in parts]
    changed: set[str] = set()
    for (_, state), (_, names) in zip(found, parts, strict=True):
        changed.update(names)
        for name, _ in evaluate.network.named_parameters():
            assert torch.equal(state[name], (drawn if name in changed else learnt)[name]), name
    assert changed == {name for name, _ in evaluate.network.named_parameters()}


def test_it_is_one_object_in_evaluation_mode_and_the_trained_network_stays() -> None:
    evaluate = classifier()
    before = copy.deepcopy(evaluate.network.state_dict())
    objects = set()
    for _, network in randomised(evaluate, some_images(), seed=3, batch_size=4):
        assert not any(layer.training for layer in network.modules())
        norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
        assert [layer.momentum for layer in norms] == [0.01, 0.01]
        objects.add(id(network))
        assert network is not evaluate.network
    assert len(objects) == 1
    for name, value in evaluate.network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_nothing_learnt_is_left_at_the_end() -> None:
    """Whatever was learnt, the last network is the same, its statistics included."""
    one, other = classifier(), classifier()
    with torch.no_grad():
        for value in other.network.state_dict().values():
            value.mul_(3)
    (*_, (_, first)), (*_, (_, second)) = (steps(evaluate, some_images()) for evaluate in (one, other))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def statistics_of(network: nn.Module, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance by channel of what each normalisation gets, layer by layer, by plain arithmetic."""
    values, found = images, []
    for layer in network.features:
        if isinstance(layer, nn.BatchNorm2d):
            mean, flat = values.mean(dim=(0, 2, 3)), values.transpose(0, 1).flatten(1)
            found.append((mean, flat.var(dim=1, correction=1)))
            spread = (flat.var(dim=1, correction=0) + layer.eps).sqrt()
            values = (values - mean.view(1, -1, 1, 1)) / spread.view(1, -1, 1, 1)
            values = values * layer.weight.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)
        else:
            values = layer(values)
    return found


def test_normalisations_behind_random_weights_get_the_statistics_of_the_images() -> None:
    evaluate, images = classifier(), some_images()
    learnt = copy.deepcopy(evaluate.network.state_dict())
    found = steps(evaluate, images)
    norms = [name.removesuffix(".running_mean") for name in learnt if name.endswith(".running_mean")]
    expected = statistics_of(as_drawn(3), images.float() / 255)
    for norm, (mean, variance) in zip(norms, expected, strict=True):
        torch.testing.assert_close(found[-1][1][f"{norm}.running_mean"], mean)
        torch.testing.assert_close(found[-1][1][f"{norm}.running_var"], variance)
    for part, state in found:  # those that come before what is random stay as they were learnt
        if part == norms[0]:
            break
        assert torch.equal(state[f"{norms[0]}.running_mean"], learnt[f"{norms[0]}.running_mean"])
        assert torch.equal(state[f"{norms[0]}.running_var"], learnt[f"{norms[0]}.running_var"])


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(4, 2, [2, 2]), (5, 2, [3, 2]), (5, 4, [3, 2]), (6, 6, [6]), (3, 1, [3]), (4, 1, [2, 2]), (3, 2, [3])],
)
def test_statistics_of_several_batches_are_their_mean_and_no_image_is_alone(
    count: int, batch_size: int, sizes: list[int]
) -> None:
    images = some_images(count)
    _, state = steps(classifier(), images, batch_size=batch_size)[-1]
    first = next(name for name in state if name.endswith(".running_mean")).removesuffix(".running_mean")
    batches = [statistics_of(as_drawn(3), batch.float() / 255)[0] for batch in images.split(sizes)]
    mean, variance = (torch.stack(values).mean(dim=0) for values in zip(*batches, strict=True))
    torch.testing.assert_close(state[f"{first}.running_mean"], mean)
    torch.testing.assert_close(state[f"{first}.running_var"], variance)


def test_a_single_image_settles_normalisations_too() -> None:
    image = some_images(1)
    _, state = steps(classifier(), image, batch_size=1)[-1]
    first = next(name for name in state if name.endswith(".running_mean")).removesuffix(".running_mean")
    mean, _ = statistics_of(as_drawn(3), image.float() / 255)[0]
    torch.testing.assert_close(state[f"{first}.running_mean"], mean)
    assert not torch.equal(state[f"{first}.running_var"], torch.ones_like(mean))


def test_a_network_from_outside_without_normalisation_ends_as_its_twin() -> None:
    evaluate = classifier({"_target_": "elsewhere.Network"}, Outside())
    found = steps(evaluate, some_images(2))
    assert [part for part, _ in found] == ["module.last", "module.layers.0"]
    for name, value in randomized_copy(evaluate, 3).state_dict().items():
        assert torch.equal(found[-1][1][name], value), name


def pooled(maps: Tensor, side: int) -> np.ndarray:
    """Means over squares that fill the map, by plain summation."""
    height, width = (length // side for length in maps.shape[-2:])
    values = maps.double().numpy().reshape(len(maps), side, height, side, width)
    return np.asarray(values.mean(axis=(2, 4)).reshape(len(maps), -1))


def some_maps(seed: int, size: Sequence[int], num_maps: int = 4) -> Tensor:
    return torch.rand(num_maps, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("size", "side"), [((8, 8), 8), ((32, 32), 32), ((64, 96), 32), ((12, 24), 12)])
def test_rank_correlations_are_spearman_s_of_32_by_32_cells_or_fewer(
    size: tuple[int, int], side: int
) -> None:
    one = some_maps(0, size)
    other = one + some_maps(1, size)
    found = rank_correlations(one, other)
    assert (found.shape, found.dtype) == ((4,), np.float64)
    pairs = zip(pooled(one, side), pooled(other, side), strict=True)
    np.testing.assert_allclose(found, [spearmanr(*pair).statistic for pair in pairs], atol=1e-3)


def test_equal_values_share_their_rank() -> None:
    one, other = ((some_maps(seed, (10, 10)) * levels).floor() for seed, levels in ((0, 3), (1, 2)))
    other[:2] = (one[:2] + other[:2]).clamp_max(2)
    pairs = zip(one.flatten(1).numpy(), other.flatten(1).numpy(), strict=True)
    expected = [spearmanr(*pair).statistic for pair in pairs]
    np.testing.assert_allclose(rank_correlations(one, other), expected, atol=1e-12)
    sparse = torch.zeros(1, 10, 10)  # as maps are whose negative part was cut off
    sparse[0, 2, 3:6] = torch.tensor([0.2, 1.0, 0.2])
    expected = [spearmanr(sparse.flatten(), one[0].flatten()).statistic]
    np.testing.assert_allclose(rank_correlations(sparse, one[:1]), expected, atol=1e-12)


def test_a_map_that_is_the_same_everywhere_correlates_with_nothing() -> None:
    one = some_maps(0, (8, 8))
    other = one.clone()
    one[0], other[1], one[3], other[3] = 0.0, 1.0, 0.5, 0.5
    found = rank_correlations(one, other)
    assert np.isnan(found).tolist() == [True, True, False, True]
    assert found[2] == pytest.approx(1)
    assert rank_correlations(one[:0], other[:0]).shape == (0,)


def test_any_increasing_change_of_a_map_leaves_its_ranks() -> None:
    one = some_maps(0, (16, 16))
    np.testing.assert_allclose(rank_correlations(one, one**3), 1)
    np.testing.assert_allclose(rank_correlations(one, -one.exp()), -1)


def structural_similarity(one: np.ndarray, other: np.ndarray) -> float:
    """SSIM as in the paper: Gaussian windows of 11 by 11, deviation 1.5; images go on mirrored at their edges."""

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(gaussian_filter(values, 1.5, mode="mirror", radius=5))

    first, second = mean(one), mean(other)
    variances = mean(one**2) - first**2, mean(other**2) - second**2
    covariance = mean(one * other) - first * second
    luminance = (2 * first * second + 0.01**2) / (first**2 + second**2 + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (sum(variances) + 0.03**2)
    return float((luminance * structure).mean())


def test_similarities_are_the_paper_s() -> None:
    one, noise = some_maps(0, (24, 30)), some_maps(1, (24, 30))
    other = torch.stack([one[0], 0.8 * one[1] + 0.2 * noise[1], noise[2], 1 - one[3]])
    found = similarities(one, other)
    assert (found.shape, found.dtype) == ((4,), np.float64)
    pairs = zip(one.double().numpy(), other.double().numpy(), strict=True)
    np.testing.assert_allclose(found, [structural_similarity(*pair) for pair in pairs], atol=1e-4)
    assert found[0] == pytest.approx(1)
    assert found[3] < 0 < found[2] < found[1] < 1
    np.testing.assert_allclose(similarities(other, one), found, atol=1e-6)
