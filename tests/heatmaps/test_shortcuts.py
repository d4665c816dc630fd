from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from cxrlab.data.lung_region import LungRegion, border_mask, corner_mask, lung_region
from cxrlab.data.phantom.patients import Radiograph, sample
from cxrlab.data.phantom.render import Phantom, draw
from cxrlab.heatmaps.cases import Explain
from cxrlab.heatmaps.checks import shortcuts
from cxrlab.heatmaps.checks.boxes import GRID, Mask
from cxrlab.heatmaps.checks.shortcuts import Zones, check_shortcuts, energy_shares, zones
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.task import ExplainTask

# Left, top, right and bottom of the usual place, in cells.
USUAL = (round(0.12 * 256), round(0.1 * 256), round(0.88 * 256), round(0.86 * 256))


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, of a mask that is a box without holes."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert mask.sum() == (box[2] - box[0]) * (box[3] - box[1])
    return tuple(int(end) for end in box)  # type: ignore[return-value]


def intersection_over_union(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    width = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def image_with(*lungs: tuple[float, float, float, float], size: int = 128, channels: int = 1) -> Tensor:
    """Bright, with dark ellipses; each is its middle, and half its width and height, as shares of the side."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    image = np.full((size, size), 200, dtype=np.uint8)
    for left, top, half_width, half_height in lungs:
        image[((x - left) / half_width) ** 2 + ((y - top) / half_height) ** 2 <= 1] = 60
    return torch.from_numpy(image).expand(channels, -1, -1)


def radiographs(count: int) -> list[Radiograph]:
    """One image of each of some patients."""
    return [one for one in sample(num_patients=count, seed=0) if one.number == 0]


def test_the_lungs_of_phantoms_are_found_roughly() -> None:
    overlaps, num_found = [], 0
    for one in radiographs(24):
        pixels, _ = draw(one.anatomy, one.exposure, one.findings, size=128)
        region = lung_region(torch.from_numpy(pixels)[None])
        assert region.mask.shape == (GRID, GRID)
        num_found += region.is_found
        lungs = Phantom(one.anatomy, one.exposure, GRID).lungs
        there = lungs > 0.2 * lungs.max()
        rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
        drawn = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        overlaps.append(intersection_over_union(drawn, box_of(region.mask)))
    assert num_found >= 22
    assert np.median(overlaps) > 0.85
    assert min(overlaps) > 0.5


@pytest.mark.parametrize("size", [64, 128, 300])
def test_two_dark_places_side_by_side_are_the_lungs(size: int) -> None:
    region = lung_region(image_with((0.3, 0.45, 0.13, 0.26), (0.7, 0.48, 0.13, 0.26), size=size))
    assert region.is_found
    expected = (0.17, 0.19, 0.83, 0.74)
    np.testing.assert_allclose(np.array(box_of(region.mask)) / GRID, expected, atol=0.05)


def test_channels_and_the_type_of_pixels_do_not_matter() -> None:
    lungs = ((0.3, 0.45, 0.13, 0.26), (0.7, 0.48, 0.13, 0.26))
    grey, colour = image_with(*lungs), image_with(*lungs, channels=3)
    expected = box_of(lung_region(grey).mask)
    assert box_of(lung_region(colour).mask) == expected
    assert box_of(lung_region(grey.float()).mask) == expected
    bent = grey.clone()  # brightness and contrast
    bent = (bent.float() * 0.5 + 90).to(torch.uint8)
    assert box_of(lung_region(bent).mask) == expected


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(1, 64, 64, dtype=torch.uint8),
        torch.full((3, 64, 64), 255, dtype=torch.uint8),
        image_with((0.3, 0.45, 0.13, 0.26)),
        image_with((0.3, 0.25, 0.12, 0.15), (0.7, 0.75, 0.12, 0.15)),
        image_with((0.4, 0.5, 0.03, 0.03), (0.6, 0.5, 0.03, 0.03)),
    ],
    ids=["black", "white", "one lung", "at different heights", "too small"],
)
def test_where_no_two_lungs_are_seen_the_usual_place_is_given(image: Tensor) -> None:
    region = lung_region(image)
    assert not region.is_found
    assert box_of(region.mask) == USUAL


@pytest.mark.parametrize(("width", "cells"), [(0.0, 0), (0.05, 13), (0.25, 64), (0.5, 128)])
def test_the_border_is_a_frame(width: float, cells: int) -> None:
    y, x = np.mgrid[:GRID, :GRID]
    distances = np.minimum.reduce([y, x, GRID - 1 - y, GRID - 1 - x])
    np.testing.assert_array_equal(border_mask(width), distances < cells)


@pytest.mark.parametrize(("side", "cells"), [(0.0, 0), (0.15, 38), (0.25, 64), (0.5, 128)])
def test_the_corners_are_four_squares(side: float, cells: int) -> None:
    y, x = np.mgrid[:GRID, :GRID]
    expected = (np.minimum(y, GRID - 1 - y) < cells) & (np.minimum(x, GRID - 1 - x) < cells)
    np.testing.assert_array_equal(corner_mask(side), expected)
    assert corner_mask(side).sum() == 4 * cells**2


def test_zones_have_areas() -> None:
    region = lung_region(torch.zeros(1, 64, 64))
    found = zones(region, 0.0625, 0.125)
    np.testing.assert_array_equal(found.outside, ~region.mask)
    lungs = (USUAL[2] - USUAL[0]) * (USUAL[3] - USUAL[1]) / GRID**2
    assert found.areas.tolist() == pytest.approx([1 - lungs, 1 - 0.875**2, 4 * 0.125**2])


@pytest.fixture
def hand_made() -> Zones:
    """Outside is the upper half; the border is 16 cells wide; the corners are 32 by 32."""
    outside = np.zeros((GRID, GRID), dtype=bool)
    outside[:128] = True
    return Zones(outside, border_mask(16 / 256), corner_mask(32 / 256))


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([(200, 100, 1.0)], [0, 0, 0]),
        ([(0, 0, 0.2)], [1, 1, 1]),
        ([(20, 20, 0.5), (200, 128, 1.5)], [0.25, 0, 0.25]),
        ([(5, 128, 1.0), (250, 128, 1.0), (128, 128, 2.0)], [0.25, 0.5, 0]),
        ([(127, 100, 3.0), (128, 100, 1.0)], [0.75, 0, 0]),
    ],
)
def test_energy_is_shared_out_by_zone(
    hand_made: Zones, places: list[tuple[int, int, float]], expected: list[float]
) -> None:
    heat: npt.NDArray[np.float64] = np.zeros((GRID, GRID))
    for row, column, value in places:
        heat[row, column] = value
    assert energy_shares(heat, hand_made).tolist() == pytest.approx(expected)


def test_heat_that_is_the_same_everywhere_has_the_zones_areas(hand_made: Zones) -> None:
    np.testing.assert_allclose(energy_shares(np.full((GRID, GRID), 0.3), hand_made), hand_made.areas)


def test_no_heat_is_nowhere(hand_made: Zones) -> None:
    assert np.isnan(energy_shares(np.zeros((GRID, GRID)), hand_made)).tolist() == [True] * 3


MakeTask = Callable[..., ExplainTask]
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


def test_heat_at_the_border_is_flagged_with_examples(make_task: MakeTask) -> None:
    explain_task = make_task(TARGETS, draw=drawing(at_border()), num_located=8, most_outside=1.0)
    result, examples = check_shortcuts(explain_task)
    assert {flag.zone for flag in result.unlike} == {"border", "corners"}
    assert result.cases == 8
    assert 1 <= len(examples) <= 4
    assert set(examples) <= set(explain_task.sample(8))
    macro = result.methods["gradcam"]["macro"]
    assert macro["border"].value > result.areas["border"]


def test_heat_on_the_lungs_is_not_flagged(make_task: MakeTask) -> None:
    result, examples = check_shortcuts(make_task(TARGETS, draw=drawing(inside()), num_located=8))
    assert result.unlike == []
    assert examples == []
    macro = result.methods["gradcam"]["macro"]
    assert macro["border"].value == macro["corners"].value == 0


def test_a_heatmap_that_is_even_has_the_shares_of_the_areas(make_task: MakeTask) -> None:
    result, _ = check_shortcuts(
        make_task(TARGETS, draw=drawing(torch.ones(16, 16)), num_located=8, most_outside=1.0)
    )
    for zone, one in result.methods["gradcam"]["macro"].items():
        assert one.value == pytest.approx(result.areas[zone], abs=1e-6)
    assert result.unlike == []  # as much as its area is not more


def test_labels_are_told_apart(make_task: MakeTask) -> None:
    result, _ = check_shortcuts(
        make_task(TARGETS, draw=drawing(at_border(), inside()), num_located=8, most_outside=1.0)
    )
    found = result.methods["gradcam"]
    assert found["Edema"]["border"].value == 0
    assert found["Mass"]["border"].value > 0.3
    mean = np.mean([found[name]["border"].value for name in ("Mass", "Edema")])
    assert found["macro"]["border"].value == pytest.approx(mean)


@pytest.mark.parametrize(("most", "is_flagged"), [(0.01, True), (0.85, True), (0.9, False)])
def test_what_lies_outside_the_lungs_is_flagged_from_the_share_that_is_set(
    make_task: MakeTask, most: float, is_flagged: bool
) -> None:
    result, _ = check_shortcuts(
        make_task(TARGETS, draw=drawing(at_border()), num_located=8, most_outside=most)
    )
    assert result.methods["gradcam"]["macro"]["outside"].value == pytest.approx(0.89, abs=0.01)
    assert ("outside" in {flag.zone for flag in result.unlike}) == is_flagged


def test_as_much_outside_as_an_even_map_has_is_not_flagged(make_task: MakeTask) -> None:
    result, _ = check_shortcuts(
        make_task(TARGETS, draw=drawing(torch.ones(16, 16)), num_located=8, most_outside=0.01)
    )
    assert result.areas["outside"] > 0.3
    assert result.unlike == []


@pytest.mark.parametrize(("num_found", "is_judged"), [(0, False), (1, False), (2, True), (8, True)])
def test_without_lungs_nothing_is_said_of_what_lies_outside(
    num_found: int, is_judged: bool, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shortcuts,
        "lung_region",
        lambda image: LungRegion(lung_region(image).mask, bool(image[0, 0, 0] < num_found)),
    )
    explain_task = make_task(
        [(1, 0)] * 8, labels=[0], draw=drawing(at_border()), num_located=8, most_outside=0.1
    )
    result, examples = check_shortcuts(explain_task)
    assert result.regions_found == num_found / 8
    assert (result.areas["outside"] is not None) == is_judged
    assert (result.methods["gradcam"]["macro"]["outside"].value is not None) == is_judged
    assert ("outside" in {flag.zone for flag in result.unlike}) == is_judged
    assert {"border", "corners"} <= {flag.zone for flag in result.unlike}
    assert len(examples) == 4


def test_known_positives_are_counted(make_task: MakeTask) -> None:
    for targets, positives in (([(1, 1)] * 4, 4), ([(float("nan"), 0)] * 4, 0)):
        result, _ = check_shortcuts(make_task(targets, draw=drawing(inside())))
        assert (result.cases, result.positives) == (4, positives)


def test_empty_heatmaps_have_no_shares(make_task: MakeTask) -> None:
    result, examples = check_shortcuts(make_task(TARGETS, draw=drawing(torch.zeros(16, 16))))
    assert result.methods["gradcam"]["macro"]["border"].value is None
    assert result.unlike == []
    assert examples == []


def test_heat_that_lies_all_in_the_corners_is_flagged_though_nothing_varies(
    make_task: MakeTask,
) -> None:
    heat = torch.zeros(16, 16)
    heat[0, 0] = 1
    result, _ = check_shortcuts(make_task(TARGETS, draw=drawing(heat), num_located=8, most_outside=1.0))
    assert {flag.zone for flag in result.unlike} == {"border", "corners"}
