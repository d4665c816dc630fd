import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from cxrlab.explain.overlay import Box, panel

STRIP, GAP = 26, 4


def grey(size: int = 256, channels: int = 1) -> Tensor:
    return torch.full((channels, size, size), 120, dtype=torch.uint8)


def draw(
    image: Tensor,
    heatmap: Tensor,
    *,
    finding: str = "Edema",
    probability: float = 0.25,
    target: float = 1.0,
    boxes: tuple[Box, ...] = (),
) -> Image.Image:
    return panel(image, heatmap, finding=finding, probability=probability, target=target, boxes=boxes)


def sides(picture: Image.Image) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    pixels = np.asarray(picture)[STRIP:]
    width = (pixels.shape[1] - GAP) // 2
    return pixels[:, :width], pixels[:, width + GAP :]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "shown"), [(64, 256), (256, 256), (300, 300)])
def test_a_small_radiograph_is_enlarged(channels: int, size: int, shown: int) -> None:
    picture = draw(grey(size, channels), torch.zeros(size, size))
    assert picture.mode == "RGB"
    assert picture.size == (2 * shown + GAP, shown + STRIP)
    left, right = sides(picture)
    assert (left == 120).all()
    assert (right == 120).all()


def test_cold_areas_show_the_radiograph_and_hot_ones_the_colour() -> None:
    heatmap = torch.linspace(0, 1, 256).expand(256, 256)
    left, right = sides(draw(grey(), heatmap))
    assert (left == 120).all()
    change = np.abs(right[128].astype(int) - 120).max(axis=-1)
    assert change[:5].max() <= 3
    assert change[-5:].min() > 80
    assert np.median(change[:64]) < np.median(change[64:128]) < np.median(change[192:])


def test_a_coarse_heatmap_is_stretched() -> None:
    heatmap = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    _, right = sides(draw(grey(64), heatmap))
    assert (right[:40, :40] == 120).all()
    assert right[-1, -1].tolist() != [120, 120, 120]


def test_a_box_is_outlined_on_both_sides() -> None:
    for side in sides(draw(grey(), torch.zeros(256, 256), boxes=((0.25, 0.5, 0.25, 0.25),))):
        marked = (side != 120).any(axis=-1)
        rows, columns = np.nonzero(marked)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (128, 192, 64, 128)
        assert not marked[140, 80]


def test_a_box_at_the_border_stays_visible() -> None:
    left, _ = sides(draw(grey(), torch.zeros(256, 256), boxes=((0.5, 0.5, 0.5, 0.5),)))
    assert (left[200, 255] != 120).any()
    assert (left[255, 200] != 120).any()


def test_the_strip_says_finding_probability_and_target() -> None:
    def strip(finding: str = "Edema", probability: float = 0.25, target: float = 1.0) -> bytes:
        picture = draw(grey(), torch.zeros(2, 2), finding=finding, probability=probability, target=target)
        return picture.crop((0, 0, 516, STRIP)).tobytes()

    strips = {strip(target=1.0), strip(target=0.0), strip(target=math.nan)}
    strips |= {strip(probability=0.26), strip(finding="Mass")}
    assert len(strips) == 5
    assert strip(probability=0.251) == strip(probability=0.249)  # two decimals


@pytest.mark.parametrize("finding", ["A name that is longer than the picture is wide " * 3, "", "结核"])
def test_any_name_fits(finding: str) -> None:
    picture = draw(grey(), torch.zeros(2, 2), finding=finding)
    number = np.asarray(picture)[:STRIP, -200:]
    plain = np.asarray(draw(grey(), torch.zeros(2, 2), finding=""))[:STRIP, -200:]
    assert (number == plain).all()


def test_an_empty_map_is_called_so() -> None:
    empty, cold = torch.zeros(2, 2), torch.full((2, 2), 1e-6)
    strips = [draw(grey(), heatmap).crop((0, 0, 516, STRIP)).tobytes() for heatmap in (empty, cold)]
    assert strips[0] != strips[1]
