from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cxrlab.explain.activation_maps import Pair
from cxrlab.explain.heatmap_stream import Explain
from cxrlab.explain.material import Material
from cxrlab.explain.shortcut_check import check_shortcuts

MakeMaterial = Callable[..., Material]
TARGETS = [(1, 1)] * 8


def drawing(*heat: Tensor) -> Callable[[str, nn.Module | None], Explain]:
    """Draw the same heatmap for every case; of several, the one with the number of the label."""

    def draw(method: str, network: nn.Module | None) -> Explain:
        def explain(images: Tensor, pairs: Sequence[Pair]) -> Tensor:
            return torch.stack([heat[label % len(heat)] for _, label in pairs])

        return explain

    return draw


def at_border() -> Tensor:
    heat = torch.ones(16, 16)
    heat[2:-2, 2:-2] = 0
    return heat


def inside() -> Tensor:
    heat = torch.zeros(16, 16)
    heat[6:10, 3:6] = 1
    return heat


def test_heat_at_the_border_is_flagged_with_examples(make_material: MakeMaterial) -> None:
    material = make_material(TARGETS, draw=drawing(at_border()), num_located=8, most_outside=1.0)
    numbers, examples = check_shortcuts(material)
    assert {one["zone"] for one in numbers["unlike"]} == {"border", "corners"}
    assert numbers["cases"] == 8
    assert 1 <= len(examples) <= 4
    assert set(examples) <= set(material.sample(8))
    macro = numbers["methods"]["gradcam"]["macro"]
    assert macro["border"]["value"] > numbers["areas"]["border"]


def test_heat_on_the_lungs_is_not_flagged(make_material: MakeMaterial) -> None:
    numbers, examples = check_shortcuts(make_material(TARGETS, draw=drawing(inside()), num_located=8))
    assert numbers["unlike"] == []
    assert examples == []
    macro = numbers["methods"]["gradcam"]["macro"]
    assert macro["border"]["value"] == macro["corners"]["value"] == 0


def test_a_heatmap_that_is_even_has_the_shares_of_the_areas(make_material: MakeMaterial) -> None:
    numbers, _ = check_shortcuts(
        make_material(TARGETS, draw=drawing(torch.ones(16, 16)), num_located=8, most_outside=1.0)
    )
    for zone, one in numbers["methods"]["gradcam"]["macro"].items():
        assert one["value"] == pytest.approx(numbers["areas"][zone], abs=1e-6)
    assert numbers["unlike"] == []  # as much as its area is not more


def test_labels_are_told_apart(make_material: MakeMaterial) -> None:
    numbers, _ = check_shortcuts(
        make_material(TARGETS, draw=drawing(at_border(), inside()), num_located=8, most_outside=1.0)
    )
    found = numbers["methods"]["gradcam"]
    assert found["Edema"]["border"]["value"] == 0
    assert found["Mass"]["border"]["value"] > 0.3
    mean = np.mean([found[name]["border"]["value"] for name in ("Mass", "Edema")])
    assert found["macro"]["border"]["value"] == pytest.approx(mean)


def test_what_lies_outside_the_lungs_is_flagged_from_the_share_that_is_set(
    make_material: MakeMaterial,
) -> None:
    for most, is_flagged in ((0.01, True), (1.0, False)):
        numbers, _ = check_shortcuts(
            make_material(TARGETS, draw=drawing(torch.ones(16, 16)), num_located=8, most_outside=most)
        )
        assert ("outside" in {one["zone"] for one in numbers["unlike"]}) == is_flagged


def test_empty_heatmaps_have_no_shares(make_material: MakeMaterial) -> None:
    numbers, examples = check_shortcuts(make_material(TARGETS, draw=drawing(torch.zeros(16, 16))))
    assert numbers["methods"]["gradcam"]["macro"]["border"]["value"] is None
    assert numbers["unlike"] == []
    assert examples == []


def test_heat_that_lies_all_in_the_corners_is_flagged_though_nothing_varies(
    make_material: MakeMaterial,
) -> None:
    heat = torch.zeros(16, 16)
    heat[0, 0] = 1
    numbers, _ = check_shortcuts(make_material(TARGETS, draw=drawing(heat), num_located=8, most_outside=1.0))
    assert {one["zone"] for one in numbers["unlike"]} == {"border", "corners"}
