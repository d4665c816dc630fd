from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from cxrlab.heatmaps.cases import Explain
from cxrlab.heatmaps.checks.randomization import RANDOM_ORDER, check_model
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.task import ExplainTask

MakeMaterial = Callable[..., ExplainTask]
TARGETS = [(1, 0), (1, 1), (0, 1), (1, 0), (0, 1), (1, 1)]


def noise(seed: int) -> Tensor:
    return torch.rand(16, 16, generator=torch.Generator().manual_seed(seed))


def test_what_is_told_of_real_heatmaps(make_material: MakeMaterial) -> None:
    explain_task = make_material(TARGETS, methods=["gradcam", "occlusion"])
    numbers = check_model(explain_task)
    assert set(numbers) == {"randomization", "faithfulness", "agreement"}
    random = numbers["randomization"]
    assert random["networks"] == 2
    assert random["cases"] == numbers["faithfulness"]["cases"] == len(explain_task.sample(4))
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

    explain_task = make_material(TARGETS, draw=draw, methods=list(seeds))
    found = {
        tuple(one["methods"]): one["rank_correlation"]["value"]
        for one in check_model(explain_task)["agreement"]["pairs"]
    }
    assert len(found) == 3
    assert found["gradcam", "layercam"] == pytest.approx(1)
    labels = [label for _, label in explain_task.sample(4)]
    expected = np.mean([spearmanr(noise(one).ravel(), noise(one + 50).ravel())[0] for one in labels])
    assert found["gradcam", "occlusion"] == pytest.approx(expected, abs=1e-6)


def test_maps_of_random_networks_may_be_empty(make_material: MakeMaterial) -> None:
    def draw(method: str, network: nn.Module | None) -> Explain:
        heat = noise(0) if network is None else torch.zeros(16, 16)
        return lambda images, pairs: heat.expand(len(pairs), -1, -1)

    random = check_model(make_material(TARGETS, draw=draw))["randomization"]["methods"]["gradcam"]
    assert (random["empty"], random["random_empty"]) == (0, 1)
    assert random["rank_correlation"][-1]["value"] is random["ssim"][-1]["value"] is None


def test_empty_maps_are_counted_and_compared_with_nothing(make_material: MakeMaterial) -> None:
    """Of four cases, a trained map is empty, and one of random networks."""

    def draw(method: str, network: nn.Module | None) -> Explain:
        empty = 0 if network is None else 3

        def explain(images: Tensor, pairs: Sequence[Pair]) -> Tensor:
            return torch.stack(
                [noise(label) * float(images[image, 0, 0, 0] != empty) for image, label in pairs]
            )

        return explain

    numbers = check_model(make_material([(1, 0)] * 4, draw=draw, labels=[0]))
    found = numbers["randomization"]["methods"]["gradcam"]
    assert (found["empty"], found["random_empty"]) == (0.25, 0.25)
    assert found["rank_correlation"][-1]["value"] == pytest.approx(1)  # of the two others, which are equal
    assert found["ssim"][-1]["value"] == pytest.approx(1)


def test_an_empty_map_takes_pixels_away_in_a_random_order(make_material: MakeMaterial) -> None:
    def draw(method: str, network: nn.Module | None) -> Explain:
        return lambda images, pairs: torch.zeros(len(pairs), 16, 16)

    methods = check_model(make_material(TARGETS, draw=draw))["faithfulness"]["methods"]
    for kind in ("deletion", "insertion"):
        assert methods["gradcam"][kind]["curve"] == methods[RANDOM_ORDER][kind]["curve"]
        assert methods["gradcam"][kind]["difference"]["value"] == 0


@pytest.mark.parametrize(("targets", "positives"), [(TARGETS, 4), ([(np.nan, 0)] * 4, 0), ([(1, 0)] * 4, 2)])
def test_known_positives_of_the_sample_are_counted(
    targets: Sequence[tuple[float, float]], positives: int, make_material: MakeMaterial
) -> None:
    numbers = check_model(make_material(targets))
    for check in ("randomization", "faithfulness"):
        assert (numbers[check]["cases"], numbers[check]["positives"]) == (4, positives)


def test_curves_start_and_end_with_the_same_images_for_every_order(make_material: MakeMaterial) -> None:
    methods = check_model(make_material(TARGETS))["faithfulness"]["methods"]
    for kind in ("deletion", "insertion"):
        for end in (0, -1):
            ends = [one[kind]["curve"][end] for one in methods.values()]
            assert ends == pytest.approx([ends[0]] * len(ends), abs=2e-5)
    assert methods["gradcam"]["deletion"]["curve"][0] == pytest.approx(
        methods["gradcam"]["insertion"]["curve"][-1], abs=2e-5
    )
