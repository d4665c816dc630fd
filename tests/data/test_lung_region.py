"""The lungs' region on a coarse grid; that on 256 cells is tested with the heatmaps' check of the lungs."""

import numpy as np
import pytest
import torch

from cxrlab.data.lung_region import border_mask, corner_mask, lung_region, region_of
from cxrlab.data.phantom.patients import sample
from cxrlab.data.phantom.render import draw


def box_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / len(mask)


def test_on_64_cells_the_box_is_nearly_that_of_256() -> None:
    fine, coarse = [], []
    for radiograph in [one for one in sample(num_patients=30, seed=0) if one.number == 0]:
        pixels, _ = draw(radiograph.anatomy, radiograph.exposure, radiograph.findings, size=256)
        fine.append(lung_region(torch.from_numpy(pixels)[None]))
        coarse.append(region_of(pixels.reshape(64, 4, 64, 4).mean(axis=(1, 3))))
    assert np.mean([one.is_found == other.is_found for one, other in zip(fine, coarse, strict=True)]) > 0.9
    pairs = [(one, other) for one, other in zip(fine, coarse, strict=True) if one.is_found and other.is_found]
    distances = np.array([np.abs(box_of(one.mask) - box_of(other.mask)).max() for one, other in pairs])
    assert np.median(distances) < 0.03


def test_without_lungs_the_usual_place_is_returned_on_any_grid() -> None:
    region = region_of(np.zeros((64, 64)))
    assert not region.is_found
    assert np.abs(box_of(region.mask) - [0.12, 0.1, 0.88, 0.86]).max() < 0.01


@pytest.mark.parametrize("side", [32, 224])
def test_border_and_corners_are_shares_of_any_side(side: int) -> None:
    assert border_mask(0.125, side)[: side // 8].all()
    assert not border_mask(0.125, side)[side // 8 : -side // 8, side // 8 : -side // 8].any()
    assert corner_mask(0.25, side).sum() == side**2 // 4
