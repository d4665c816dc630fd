from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from cxrlab.heatmaps.checks.boxes import Floats
from cxrlab.heatmaps.checks.faithfulness import Curves, faithfulness, random_heatmaps
from cxrlab.training.module import Classifier

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
        assert evaluate.network.most_images == size


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
