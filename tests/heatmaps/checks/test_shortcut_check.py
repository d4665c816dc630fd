from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cxrlab.heatmaps.cases import Explain
from cxrlab.heatmaps.checks import shortcuts
from cxrlab.heatmaps.checks.shortcuts import LungRegion, check_shortcuts, lung_region
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.task import ExplainTask

MakeMaterial = Callable[..., ExplainTask]
TARGETS = [(1, 1)] * 8


@pytest.fixture(autouse=True)
def found_lungs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lungs are found in the usual place: the images are noise."""
    monkeypatch.setattr(shortcuts, "lung_region", lambda image: LungRegion(lung_region(image).mask, True))


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
    explain_task = make_material(TARGETS, draw=drawing(at_border()), num_located=8, most_outside=1.0)
    result, examples = check_shortcuts(explain_task)
    assert {flag.zone for flag in result.unlike} == {"border", "corners"}
    assert result.cases == 8
    assert 1 <= len(examples) <= 4
    assert set(examples) <= set(explain_task.sample(8))
    macro = result.methods["gradcam"]["macro"]
    assert macro["border"].value > result.areas["border"]


def test_heat_on_the_lungs_is_not_flagged(make_material: MakeMaterial) -> None:
    result, examples = check_shortcuts(make_material(TARGETS, draw=drawing(inside()), num_located=8))
    assert result.unlike == []
    assert examples == []
    macro = result.methods["gradcam"]["macro"]
    assert macro["border"].value == macro["corners"].value == 0


def test_a_heatmap_that_is_even_has_the_shares_of_the_areas(make_material: MakeMaterial) -> None:
    result, _ = check_shortcuts(
        make_material(TARGETS, draw=drawing(torch.ones(16, 16)), num_located=8, most_outside=1.0)
    )
    for zone, one in result.methods["gradcam"]["macro"].items():
        assert one.value == pytest.approx(result.areas[zone], abs=1e-6)
    assert result.unlike == []  # as much as its area is not more


def test_labels_are_told_apart(make_material: MakeMaterial) -> None:
    result, _ = check_shortcuts(
        make_material(TARGETS, draw=drawing(at_border(), inside()), num_located=8, most_outside=1.0)
    )
    found = result.methods["gradcam"]
    assert found["Edema"]["border"].value == 0
    assert found["Mass"]["border"].value > 0.3
    mean = np.mean([found[name]["border"].value for name in ("Mass", "Edema")])
    assert found["macro"]["border"].value == pytest.approx(mean)


@pytest.mark.parametrize(("most", "is_flagged"), [(0.01, True), (0.85, True), (0.9, False)])
def test_what_lies_outside_the_lungs_is_flagged_from_the_share_that_is_set(
    make_material: MakeMaterial, most: float, is_flagged: bool
) -> None:
    result, _ = check_shortcuts(
        make_material(TARGETS, draw=drawing(at_border()), num_located=8, most_outside=most)
    )
    assert result.methods["gradcam"]["macro"]["outside"].value == pytest.approx(0.89, abs=0.01)
    assert ("outside" in {flag.zone for flag in result.unlike}) == is_flagged


def test_as_much_outside_as_an_even_map_has_is_not_flagged(make_material: MakeMaterial) -> None:
    result, _ = check_shortcuts(
        make_material(TARGETS, draw=drawing(torch.ones(16, 16)), num_located=8, most_outside=0.01)
    )
    assert result.areas["outside"] > 0.3
    assert result.unlike == []


@pytest.mark.parametrize(("num_found", "is_judged"), [(0, False), (1, False), (2, True), (8, True)])
def test_without_lungs_nothing_is_said_of_what_lies_outside(
    num_found: int, is_judged: bool, make_material: MakeMaterial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shortcuts,
        "lung_region",
        lambda image: LungRegion(lung_region(image).mask, bool(image[0, 0, 0] < num_found)),
    )
    explain_task = make_material(
        [(1, 0)] * 8, labels=[0], draw=drawing(at_border()), num_located=8, most_outside=0.1
    )
    result, examples = check_shortcuts(explain_task)
    assert result.regions_found == num_found / 8
    assert (result.areas["outside"] is not None) == is_judged
    assert (result.methods["gradcam"]["macro"]["outside"].value is not None) == is_judged
    assert ("outside" in {flag.zone for flag in result.unlike}) == is_judged
    assert {"border", "corners"} <= {flag.zone for flag in result.unlike}
    assert len(examples) == 4


def test_known_positives_are_counted(make_material: MakeMaterial) -> None:
    for targets, positives in (([(1, 1)] * 4, 4), ([(float("nan"), 0)] * 4, 0)):
        result, _ = check_shortcuts(make_material(targets, draw=drawing(inside())))
        assert (result.cases, result.positives) == (4, positives)


def test_empty_heatmaps_have_no_shares(make_material: MakeMaterial) -> None:
    result, examples = check_shortcuts(make_material(TARGETS, draw=drawing(torch.zeros(16, 16))))
    assert result.methods["gradcam"]["macro"]["border"].value is None
    assert result.unlike == []
    assert examples == []


def test_heat_that_lies_all_in_the_corners_is_flagged_though_nothing_varies(
    make_material: MakeMaterial,
) -> None:
    heat = torch.zeros(16, 16)
    heat[0, 0] = 1
    result, _ = check_shortcuts(make_material(TARGETS, draw=drawing(heat), num_located=8, most_outside=1.0))
    assert {flag.zone for flag in result.unlike} == {"border", "corners"}
