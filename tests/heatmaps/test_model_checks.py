from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor, nn

from cxrlab.heatmaps.cases import Explain
from cxrlab.heatmaps.checks import RANDOM_ORDER, check_heatmaps
from cxrlab.heatmaps.checks.boxes import Floats
from cxrlab.heatmaps.checks.faithfulness import Curves, faithfulness, random_heatmaps
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.results import FaithfulnessResult, RandomizationResult
from cxrlab.heatmaps.settings import Check
from cxrlab.heatmaps.task import ExplainTask
from cxrlab.training.module import Classifier

MakeTask = Callable[..., ExplainTask]
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


def test_what_is_told_of_real_heatmaps(make_task: MakeTask) -> None:
    explain_task = make_task(TARGETS, methods=["gradcam", "occlusion"])
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


def test_heatmaps_that_know_nothing_of_the_network_stay_alike(make_task: MakeTask) -> None:
    def draw(method: str, network: nn.Module | None) -> Explain:
        return lambda images, pairs: torch.stack([noise(label) for _, label in pairs])

    random = randomization_of(make_task(TARGETS, draw=draw)).methods["gradcam"]
    assert [one.value for one in random.rank_correlation] == pytest.approx(
        [1.0] * len(random.rank_correlation)
    )
    assert [one.value for one in random.ssim] == pytest.approx([1.0] * len(random.ssim), abs=1e-4)
    assert random.empty == 0


def test_heatmaps_of_random_networks_are_compared_with_those_of_the_trained_one(
    make_task: MakeTask,
) -> None:
    def draw(method: str, network: nn.Module | None) -> Explain:
        return lambda images, pairs: torch.stack(
            [noise(label + (0 if network is None else 100)) for _, label in pairs]
        )

    random = randomization_of(make_task(TARGETS, draw=draw)).methods["gradcam"]
    cases = [label for _, label in make_task(TARGETS).sample(4)]
    expected = np.mean([spearmanr(noise(one).ravel(), noise(one + 100).ravel())[0] for one in cases])
    assert [one.value for one in random.rank_correlation] == pytest.approx(
        [expected] * len(random.rank_correlation), abs=1e-6
    )


def test_methods_agree_as_much_as_their_ranks(make_task: MakeTask) -> None:
    seeds = {"gradcam": 0, "layercam": 0, "occlusion": 50}

    def draw(method: str, network: nn.Module | None) -> Explain:
        def explain(images: Tensor, pairs: Sequence[Pair]) -> Tensor:
            return torch.stack([noise(seeds[method] + label) for _, label in pairs])

        return explain

    explain_task = make_task(TARGETS, draw=draw, methods=list(seeds))
    result, _ = check_heatmaps(explain_task, ["agreement"])
    assert result.agreement is not None
    found = {tuple(pair.methods): pair.rank_correlation.value for pair in result.agreement.pairs}
    assert len(found) == 3
    assert found["gradcam", "layercam"] == pytest.approx(1)
    labels = [label for _, label in explain_task.sample(4)]
    expected = np.mean([spearmanr(noise(one).ravel(), noise(one + 50).ravel())[0] for one in labels])
    assert found["gradcam", "occlusion"] == pytest.approx(expected, abs=1e-6)


def test_maps_of_random_networks_may_be_empty(make_task: MakeTask) -> None:
    def draw(method: str, network: nn.Module | None) -> Explain:
        heat = noise(0) if network is None else torch.zeros(16, 16)
        return lambda images, pairs: heat.expand(len(pairs), -1, -1)

    random = randomization_of(make_task(TARGETS, draw=draw)).methods["gradcam"]
    assert (random.empty, random.random_empty) == (0, 1)
    assert random.rank_correlation[-1].value is random.ssim[-1].value is None


def test_empty_maps_are_counted_and_compared_with_nothing(make_task: MakeTask) -> None:
    """Of four cases, a trained map is empty, and one of random networks."""

    def draw(method: str, network: nn.Module | None) -> Explain:
        empty = 0 if network is None else 3

        def explain(images: Tensor, pairs: Sequence[Pair]) -> Tensor:
            return torch.stack(
                [noise(label) * float(images[image, 0, 0, 0] != empty) for image, label in pairs]
            )

        return explain

    found = randomization_of(make_task([(1, 0)] * 4, draw=draw, labels=[0])).methods["gradcam"]
    assert (found.empty, found.random_empty) == (0.25, 0.25)
    assert found.rank_correlation[-1].value == pytest.approx(1)  # of the two others, which are equal
    assert found.ssim[-1].value == pytest.approx(1)


def test_an_empty_map_takes_pixels_away_in_a_random_order(make_task: MakeTask) -> None:
    def draw(method: str, network: nn.Module | None) -> Explain:
        return lambda images, pairs: torch.zeros(len(pairs), 16, 16)

    methods = faithfulness_of(make_task(TARGETS, draw=draw)).methods
    for kind in ("deletion", "insertion"):
        gradcam, random = (getattr(methods[name], kind) for name in ("gradcam", RANDOM_ORDER))
        assert gradcam.curve == random.curve
        assert gradcam.difference.value == 0


@pytest.mark.parametrize(("targets", "positives"), [(TARGETS, 4), ([(np.nan, 0)] * 4, 0), ([(1, 0)] * 4, 2)])
def test_known_positives_of_the_sample_are_counted(
    targets: Sequence[tuple[float, float]], positives: int, make_task: MakeTask
) -> None:
    explain_task = make_task(targets)
    for result in (randomization_of(explain_task), faithfulness_of(explain_task)):
        assert (result.cases, result.positives) == (4, positives)


def test_curves_start_and_end_with_the_same_images_for_every_order(make_task: MakeTask) -> None:
    methods = faithfulness_of(make_task(TARGETS)).methods
    for kind in ("deletion", "insertion"):
        for end in (0, -1):
            ends = [getattr(method, kind).curve[end] for method in methods.values()]
            assert ends == pytest.approx([ends[0]] * len(ends), abs=2e-5)
    assert methods["gradcam"].deletion.curve[0] == pytest.approx(
        methods["gradcam"].insertion.curve[-1], abs=2e-5
    )


SIDE = 16
PATCH = (slice(2, 8), slice(9, 15))  # what the network looks at
PAIRS = [(1, 0), (0, 1), (1, 1)]


class PatchNetwork(nn.Module):
    """The first logit is how bright a patch is, the second how bright the rest is not."""

    def __init__(self) -> None:
        super().__init__()
        inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        inside[PATCH] = True
        self.register_buffer("inside", inside)
        self.most_images = 0

    def forward(self, images: Tensor) -> Tensor:
        self.most_images = max(self.most_images, len(images))
        greys, inside = images.mean(dim=1), self.inside
        return torch.stack([8 * (greys[:, inside].mean(1) - 0.5), -4 * greys[:, ~inside].mean(1)], dim=1)


def classifier(**options: Any) -> Classifier:
    return Classifier(
        labels=["Edema", "Mass"],
        preprocess={"normalize": "none", "image_size": SIDE, "channels": 1},
        network={"_target_": "elsewhere.Network"},
        module=PatchNetwork(),
        **options,
    ).eval()


def some_images(count: int = 2) -> Tensor:
    """Dim images whose patch is bright."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 120, (count, 1, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    images[:, :, PATCH[0], PATCH[1]] += 130
    return images


def some_heatmaps(count: int = 3) -> Tensor:
    heatmaps = torch.rand(count, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    return (heatmaps * 20).floor() / 20  # with many equal ones


def curves(heatmaps: Tensor, pairs: Sequence[tuple[int, int]] = PAIRS, **changes: Any) -> Curves:
    options: dict[str, Any] = {"kind": "mean", "num_steps": 10, "batch_size": 4}
    return faithfulness(classifier(), some_images(), pairs, heatmaps, **(options | changes))


def probability(grey: Floats, label: int, task: str = "multilabel") -> float:
    """The network's own formula in plain arithmetic."""
    inside = np.zeros((SIDE, SIDE), dtype=bool)
    inside[PATCH] = True
    logits = [8 * (grey[inside].mean() - 0.5), -4 * grey[~inside].mean()]
    if task == "multiclass":
        return float(np.exp(logits[label]) / np.exp(logits).sum())
    return float(1 / (1 + np.exp(-logits[label])))


def changed_in_turn(before: Floats, after: Floats, heat: Floats, num_steps: int) -> list[Floats]:
    """The image as its pixels change from the hottest on; of equal ones the first in reading order."""
    order = sorted(range(heat.size), key=lambda pixel: (-heat.flat[pixel], pixel))
    found = []
    for step in range(num_steps + 1):
        image = before.copy()
        for pixel in order[: -(-step * heat.size // num_steps)]:  # as many as are begun
            image.flat[pixel] = after.flat[pixel]
        found.append(image)
    return found


def without_information(grey: Floats, kind: str) -> Floats:
    if kind == "blur":
        return np.asarray(gaussian_filter(grey, 0.08 * SIDE, mode="mirror", radius=4))
    return np.full_like(grey, grey.mean() if kind == "mean" else grey.min())


@pytest.mark.parametrize(("kind", "num_steps"), [("mean", 8), ("black", 7), ("blur", 20)])
def test_curves_equal_changing_pixel_by_pixel(kind: str, num_steps: int) -> None:
    heatmaps = some_heatmaps()
    found = curves(heatmaps, kind=kind, num_steps=num_steps)
    np.testing.assert_allclose(found.shares, [step / num_steps for step in range(num_steps + 1)])
    assert found.deletion.shape == found.insertion.shape == (3, num_steps + 1)
    for place, (image, label) in enumerate(PAIRS):
        grey, heat = some_images()[image, 0].double().numpy() / 255, heatmaps[place].double().numpy()
        turns = {
            "deletion": changed_in_turn(grey, without_information(grey, kind), heat, num_steps),
            "insertion": changed_in_turn(without_information(grey, "blur"), grey, heat, num_steps),
        }
        for name, images in turns.items():
            expected = [probability(one, label) for one in images]
            np.testing.assert_allclose(getattr(found, name)[place], expected, atol=1e-5)


def test_curves_run_between_the_image_and_one_without_information() -> None:
    evaluate = classifier()
    whole = evaluate.predict_probabilities(some_images()).double().numpy()
    found = curves(some_heatmaps())
    for place, (image, label) in enumerate(PAIRS):
        grey = some_images()[image, 0].double().numpy() / 255
        assert found.deletion[place, 0] == pytest.approx(whole[image, label], abs=1e-6)
        assert found.insertion[place, -1] == pytest.approx(whole[image, label], abs=1e-6)
        nothing = probability(without_information(grey, "mean"), label)
        assert found.deletion[place, -1] == pytest.approx(nothing, abs=1e-5)
        blurred = probability(without_information(grey, "blur"), label)
        assert found.insertion[place, 0] == pytest.approx(blurred, abs=1e-5)


def test_a_heatmap_of_what_decides_has_the_better_areas() -> None:
    decisive = torch.zeros(1, SIDE, SIDE)
    decisive[0][PATCH] = 1
    good = curves(decisive, [(0, 0)]).areas()[0]
    bad = curves(1 - decisive, [(0, 0)]).areas()[0]
    blind = np.array(
        [curves(heat[None], [(0, 0)]).areas()[0] for heat in random_heatmaps(8, (SIDE, SIDE), 0)]
    )
    assert good[0] < blind[:, 0].min() < blind[:, 0].max() < bad[0]
    assert good[1] > blind[:, 1].max() > blind[:, 1].min() > bad[1]


def test_areas_are_those_of_trapezia() -> None:
    shares = np.array([0, 0.25, 0.5, 1.0])
    deletion, insertion = np.array([[1, 0.5, 0.5, 0], [0, 0, 0, 0]]), np.array([[0, 0, 1, 1], [0.2] * 4])
    expected = [[0.25 * 0.75 + 0.25 * 0.5 + 0.5 * 0.25, 0.125 + 0.5], [0, 0.2]]
    np.testing.assert_allclose(Curves(shares, deletion, insertion).areas(), expected)


def test_a_heatmap_that_is_the_same_everywhere_changes_pixels_in_reading_order() -> None:
    flat, reading = torch.zeros(1, SIDE, SIDE), torch.arange(SIDE * SIDE, 0, -1.0).view(1, SIDE, SIDE)
    np.testing.assert_array_equal(curves(flat, [(0, 0)]).deletion, curves(reading, [(0, 0)]).deletion)


def test_the_batch_size_changes_nothing_but_how_many_images_go_at_once() -> None:
    expected = curves(some_heatmaps(), batch_size=100)
    for size in (1, 3):
        evaluate = classifier()
        found = faithfulness(
            evaluate, some_images(), PAIRS, some_heatmaps(), kind="mean", num_steps=10, batch_size=size
        )
        np.testing.assert_allclose(found.deletion, expected.deletion, atol=1e-6)
        np.testing.assert_allclose(found.insertion, expected.insertion, atol=1e-6)
        assert evaluate.network.module.most_images == size


def test_classes_that_exclude_one_another_share_their_probability() -> None:
    evaluate, heat = classifier(task="multiclass"), some_heatmaps(2)
    found = faithfulness(
        evaluate,
        some_images(),
        [(0, 0), (0, 1)],
        heat[:1].expand(2, -1, -1),
        kind="mean",
        num_steps=4,
        batch_size=5,
    )
    np.testing.assert_allclose(found.deletion.sum(axis=0), 1, atol=1e-6)
    grey = some_images()[0, 0].double().numpy() / 255
    assert found.deletion[0, 0] == pytest.approx(probability(grey, 0, "multiclass"), abs=1e-5)


def test_no_pairs_have_no_curves() -> None:
    found = curves(torch.zeros(0, SIDE, SIDE), [])
    assert found.deletion.shape == found.insertion.shape == (0, 11)
    assert found.areas().shape == (0, 2)


def test_random_heatmaps_fill_0_to_1_and_depend_on_the_seed_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, again, other = (random_heatmaps(5, (24, 32), seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.shape == (5, 24, 32)
    assert torch.equal(one, again)
    assert not torch.isclose(one, other).all()
    np.testing.assert_allclose(one.amin(dim=(1, 2)), 0)
    np.testing.assert_allclose(one.amax(dim=(1, 2)), 1)
    assert len({heat.flatten().argmax().item() for heat in one}) > 1


def test_random_heatmaps_are_as_smooth_at_every_size_and_prefer_no_place() -> None:
    for side in (32, 64):
        maps = random_heatmaps(200, (side, side), 0).double().numpy()
        step = round(0.1 * side)
        near, far = (
            np.mean([np.corrcoef(one[:, :-lag].ravel(), one[:, lag:].ravel())[0, 1] for one in maps])
            for lag in (step // 3, 5 * step)
        )
        assert near > 0.9  # a white noise has 0
        assert far < 0.2
        inner = maps.mean(axis=0)
        assert inner.std() < 0.05


def test_no_random_heatmaps_are_none() -> None:
    assert random_heatmaps(0, (8, 8), 0).shape == (0, 8, 8)
