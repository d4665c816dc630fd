from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from cxrlab.explain.activation_maps import Pair
from cxrlab.explain.heatmap_stream import Explain
from cxrlab.explain.material import Material
from cxrlab.explain.model_check import RANDOM_ORDER, check_model

MakeMaterial = Callable[..., Material]
TARGETS = [(1, 0), (1, 1), (0, 1), (1, 0), (0, 1), (1, 1)]


def noise(seed: int) -> Tensor:
    return torch.rand(16, 16, generator=torch.Generator().manual_seed(seed))


def test_what_is_told_of_real_heatmaps(make_material: MakeMaterial) -> None:
    material = make_material(TARGETS, methods=["gradcam", "occlusion"])
    numbers = check_model(material)
    assert set(numbers) == {"randomization", "faithfulness", "agreement"}
    random = numbers["randomization"]
    assert random["networks"] == 2
    assert random["cases"] == numbers["faithfulness"]["cases"] == len(material.sample(4))
    for one in random["methods"].values():
        assert len(one["rank_correlation"]) == len(one["ssim"]) == len(random["steps"])
    assert random["steps"][0].startswith("head")
    assert list(numbers["faithfulness"]["methods"]) == ["gradcam", "occlusion", RANDOM_ORDER]
    assert numbers["faithfulness"]["methods"][RANDOM_ORDER]["deletion"]["difference"] is None
    (pair,) = numbers["agreement"]["pairs"]
    assert pair["methods"] == ["gradcam", "occlusion"]


def test_heatmaps_that_know_nothing_of_the_network_stay_alike(make_material: MakeMaterial) -> None:
    def draw(method: str, network: nn.Module | None) -> Explain:
        return lambda images, pairs: torch.stack([noise(label) for _, label in pairs])

    random = check_model(make_material(TARGETS, draw=draw))["randomization"]["methods"]["gradcam"]
    assert [one["value"] for one in random["rank_correlation"]] == pytest.approx(
        [1.0] * len(random["rank_correlation"])
    )
    assert [one["value"] for one in random["ssim"]] == pytest.approx([1.0] * len(random["ssim"]), abs=1e-4)
    assert random["empty"] == 0


def test_heatmaps_of_random_networks_are_compared_with_those_of_the_trained_one(
    make_material: MakeMaterial,
) -> None:
    def draw(method: str, network: nn.Module | None) -> Explain:
        return lambda images, pairs: torch.stack(
            [noise(label + (0 if network is None else 100)) for _, label in pairs]
        )

    random = check_model(make_material(TARGETS, draw=draw))["randomization"]["methods"]["gradcam"]
    cases = [label for _, label in make_material(TARGETS).sample(4)]
    expected = np.mean([spearmanr(noise(one).ravel(), noise(one + 100).ravel())[0] for one in cases])
    assert [one["value"] for one in random["rank_correlation"]] == pytest.approx(
        [expected] * len(random["rank_correlation"]), abs=1e-6
    )


def test_methods_agree_as_much_as_their_ranks(make_material: MakeMaterial) -> None:
    seeds = {"gradcam": 0, "layercam": 0, "occlusion": 50}

    def draw(method: str, network: nn.Module | None) -> Explain:
        def explain(images: Tensor, pairs: Sequence[Pair]) -> Tensor:
            return torch.stack([noise(seeds[method] + label) for _, label in pairs])

        return explain

    material = make_material(TARGETS, draw=draw, methods=list(seeds))
    found = {
        tuple(one["methods"]): one["rank_correlation"]["value"]
        for one in check_model(material)["agreement"]["pairs"]
    }
    assert len(found) == 3
    assert found["gradcam", "layercam"] == pytest.approx(1)
    labels = [label for _, label in material.sample(4)]
    expected = np.mean([spearmanr(noise(one).ravel(), noise(one + 50).ravel())[0] for one in labels])
    assert found["gradcam", "occlusion"] == pytest.approx(expected, abs=1e-6)


def test_maps_of_random_networks_may_be_empty(make_material: MakeMaterial) -> None:
    def draw(method: str, network: nn.Module | None) -> Explain:
        heat = noise(0) if network is None else torch.zeros(16, 16)
        return lambda images, pairs: heat.expand(len(pairs), -1, -1)

    random = check_model(make_material(TARGETS, draw=draw))["randomization"]["methods"]["gradcam"]
    assert random["empty"] == 1
    assert random["rank_correlation"][-1]["value"] is None


def test_curves_start_and_end_with_the_same_images_for_every_order(make_material: MakeMaterial) -> None:
    methods = check_model(make_material(TARGETS))["faithfulness"]["methods"]
    for kind in ("deletion", "insertion"):
        for end in (0, -1):
            ends = [one[kind]["curve"][end] for one in methods.values()]
            assert ends == pytest.approx([ends[0]] * len(ends), abs=2e-5)
    assert methods["gradcam"]["deletion"]["curve"][0] == pytest.approx(
        methods["gradcam"]["insertion"]["curve"][-1], abs=2e-5
    )
