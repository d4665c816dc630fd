from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from cxrlab.heatmaps.cases import Explain
from cxrlab.heatmaps.checks import RANDOM_ORDER, check_heatmaps
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.results import FaithfulnessResult, RandomizationResult
from cxrlab.heatmaps.settings import Check
from cxrlab.heatmaps.task import ExplainTask

MakeMaterial = Callable[..., ExplainTask]
TARGETS = [(1, 0), (1, 1), (0, 1), (1, 0), (0, 1), (1, 1)]


MODEL_CHECKS: tuple[Check, ...] = ("randomization", "faithfulness", "agreement")


def randomization_of(explain_task: ExplainTask) -> RandomizationResult:
    result, _ = check_heatmaps(explain_task, ["randomization"])
    assert result.randomization is not None
    assert result.faithfulness is result.agreement is result.pointing is result.shortcuts is None
    return result.randomization


def faithfulness_of(explain_task: ExplainTask) -> FaithfulnessResult:
    result, _ = check_heatmaps(explain_task, ["faithfulness"])
    assert result.faithfulness is not None
    return result.faithfulness


def noise(seed: int) -> Tensor:
    return torch.rand(16, 16, generator=torch.Generator().manual_seed(seed))


def test_what_is_told_of_real_heatmaps(make_material: MakeMaterial) -> None:
    explain_task = make_material(TARGETS, methods=["gradcam", "occlusion"])
    result, _ = check_heatmaps(explain_task, MODEL_CHECKS)
    random, faithfulness, agreement = result.randomization, result.faithfulness, result.agreement
    assert random is not None
    assert faithfulness is not None
    assert agreement is not None
    assert random.networks == 2
    assert random.cases == faithfulness.cases == len(explain_task.sample(4))
    for method in random.methods.values():
        assert len(method.rank_correlation) == len(method.ssim) == len(random.steps)
    assert random.steps[0].startswith("head")
    assert list(faithfulness.methods) == ["gradcam", "occlusion", RANDOM_ORDER]
    assert faithfulness.methods[RANDOM_ORDER].deletion.difference is None
    (pair,) = agreement.pairs
    assert pair.methods == ["gradcam", "occlusion"]


def test_heatmaps_that_know_nothing_of_the_network_stay_alike(make_material: MakeMaterial) -> None:
    def draw(method: str, network: nn.Module | None) -> Explain:
        return lambda images, pairs: torch.stack([noise(label) for _, label in pairs])

    random = randomization_of(make_material(TARGETS, draw=draw)).methods["gradcam"]
    assert [one.value for one in random.rank_correlation] == pytest.approx(
        [1.0] * len(random.rank_correlation)
    )
    assert [one.value for one in random.ssim] == pytest.approx([1.0] * len(random.ssim), abs=1e-4)
    assert random.empty == 0


def test_heatmaps_of_random_networks_are_compared_with_those_of_the_trained_one(
    make_material: MakeMaterial,
) -> None:
    def draw(method: str, network: nn.Module | None) -> Explain:
        return lambda images, pairs: torch.stack(
            [noise(label + (0 if network is None else 100)) for _, label in pairs]
        )

    random = randomization_of(make_material(TARGETS, draw=draw)).methods["gradcam"]
    cases = [label for _, label in make_material(TARGETS).sample(4)]
    expected = np.mean([spearmanr(noise(one).ravel(), noise(one + 100).ravel())[0] for one in cases])
    assert [one.value for one in random.rank_correlation] == pytest.approx(
        [expected] * len(random.rank_correlation), abs=1e-6
    )


def test_methods_agree_as_much_as_their_ranks(make_material: MakeMaterial) -> None:
    seeds = {"gradcam": 0, "layercam": 0, "occlusion": 50}

    def draw(method: str, network: nn.Module | None) -> Explain:
        def explain(images: Tensor, pairs: Sequence[Pair]) -> Tensor:
            return torch.stack([noise(seeds[method] + label) for _, label in pairs])

        return explain

    explain_task = make_material(TARGETS, draw=draw, methods=list(seeds))
    result, _ = check_heatmaps(explain_task, ["agreement"])
    assert result.agreement is not None
    found = {tuple(pair.methods): pair.rank_correlation.value for pair in result.agreement.pairs}
    assert len(found) == 3
    assert found["gradcam", "layercam"] == pytest.approx(1)
    labels = [label for _, label in explain_task.sample(4)]
    expected = np.mean([spearmanr(noise(one).ravel(), noise(one + 50).ravel())[0] for one in labels])
    assert found["gradcam", "occlusion"] == pytest.approx(expected, abs=1e-6)


def test_maps_of_random_networks_may_be_empty(make_material: MakeMaterial) -> None:
    def draw(method: str, network: nn.Module | None) -> Explain:
        heat = noise(0) if network is None else torch.zeros(16, 16)
        return lambda images, pairs: heat.expand(len(pairs), -1, -1)

    random = randomization_of(make_material(TARGETS, draw=draw)).methods["gradcam"]
    assert (random.empty, random.random_empty) == (0, 1)
    assert random.rank_correlation[-1].value is random.ssim[-1].value is None


def test_empty_maps_are_counted_and_compared_with_nothing(make_material: MakeMaterial) -> None:
    """Of four cases, a trained map is empty, and one of random networks."""

    def draw(method: str, network: nn.Module | None) -> Explain:
        empty = 0 if network is None else 3

        def explain(images: Tensor, pairs: Sequence[Pair]) -> Tensor:
            return torch.stack(
                [noise(label) * float(images[image, 0, 0, 0] != empty) for image, label in pairs]
            )

        return explain

    found = randomization_of(make_material([(1, 0)] * 4, draw=draw, labels=[0])).methods["gradcam"]
    assert (found.empty, found.random_empty) == (0.25, 0.25)
    assert found.rank_correlation[-1].value == pytest.approx(1)  # of the two others, which are equal
    assert found.ssim[-1].value == pytest.approx(1)


def test_an_empty_map_takes_pixels_away_in_a_random_order(make_material: MakeMaterial) -> None:
    def draw(method: str, network: nn.Module | None) -> Explain:
        return lambda images, pairs: torch.zeros(len(pairs), 16, 16)

    methods = faithfulness_of(make_material(TARGETS, draw=draw)).methods
    for kind in ("deletion", "insertion"):
        gradcam, random = (getattr(methods[name], kind) for name in ("gradcam", RANDOM_ORDER))
        assert gradcam.curve == random.curve
        assert gradcam.difference.value == 0


@pytest.mark.parametrize(("targets", "positives"), [(TARGETS, 4), ([(np.nan, 0)] * 4, 0), ([(1, 0)] * 4, 2)])
def test_known_positives_of_the_sample_are_counted(
    targets: Sequence[tuple[float, float]], positives: int, make_material: MakeMaterial
) -> None:
    explain_task = make_material(targets)
    for result in (randomization_of(explain_task), faithfulness_of(explain_task)):
        assert (result.cases, result.positives) == (4, positives)


def test_curves_start_and_end_with_the_same_images_for_every_order(make_material: MakeMaterial) -> None:
    methods = faithfulness_of(make_material(TARGETS)).methods
    for kind in ("deletion", "insertion"):
        for end in (0, -1):
            ends = [getattr(method, kind).curve[end] for method in methods.values()]
            assert ends == pytest.approx([ends[0]] * len(ends), abs=2e-5)
    assert methods["gradcam"].deletion.curve[0] == pytest.approx(
        methods["gradcam"].insertion.curve[-1], abs=2e-5
    )
