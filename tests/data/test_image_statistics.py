from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrlab.data.audit.file_checks import BORDER_SHARE, EMPTY_SHARE, FLAT_SPREAD, INVERTED_POLARITY
from cxrlab.data.image_statistics import measure


@pytest.fixture(scope="module")
def radiographs(real_data: Path) -> np.ndarray:
    paths = sorted((real_data / "nih" / "images").glob("*.png"))
    paths += sorted((real_data / "chest_xray" / "train" / "NORMAL").glob("*.jpeg"))[:300]
    images = [Image.open(path).convert("L").resize((224, 224), Image.Resampling.BILINEAR) for path in paths]
    return np.stack([np.asarray(image)[None] for image in images])


def chest(rng: np.random.Generator) -> np.ndarray:
    """A body with two dark lungs, in air, with noise."""
    y, x = np.mgrid[-1:1:224j, -1:1:224j]
    lungs = ((np.abs(x) - 0.38) / 0.25) ** 2 + (y / 0.65) ** 2 < 1
    body = np.where(np.abs(x) > 0.85, 20.0, np.where(lungs, 70.0, 190.0))
    return np.clip(body + rng.normal(0, 4, body.shape), 0, 255).astype(np.uint8)[None]


def test_brightness_contrast_and_shares_are_those_of_numpy():
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64), dtype=np.uint8)
    found = measure(image)
    assert found.brightness == pytest.approx(image.mean())
    assert found.contrast == pytest.approx(image.std())
    assert found.black == pytest.approx((image <= 2).mean())
    assert found.white == pytest.approx((image >= 253).mean())
    low, high = np.percentile(image, [1, 99], method="inverted_cdf")
    assert found.spread == pytest.approx(int(high) - int(low))


@pytest.mark.parametrize("grey", [0, 90, 255])
def test_an_image_of_one_grey_is_flat_and_of_no_polarity(grey):
    found = measure(np.full((3, 64, 64), grey, np.uint8))
    assert (found.spread, found.contrast, found.polarity) == (0.0, 0.0, 0.0)
    assert (found.border, found.border_sides, found.border_grey) == (1.0, 4.0, grey)


def test_black_and_white_exchanged_turn_the_polarity_around():
    image = chest(np.random.default_rng(0))
    assert measure(image).polarity > 0.4
    assert measure(255 - image).polarity == pytest.approx(-measure(image).polarity)


@pytest.mark.parametrize("grey", [0, 255])
@pytest.mark.parametrize("side", range(4))
def test_a_stripe_on_any_side_is_found_at_its_width(grey, side):
    image = np.rot90(chest(np.random.default_rng(0))[:, 30:-30, 30:-30], axes=(1, 2)).copy()
    view = np.rot90(image, side, axes=(1, 2))
    view[:, :10] = grey
    found = measure(image)
    assert found.border == pytest.approx(10 / 164)
    assert (found.border_grey, found.border_sides) == (grey, 1.0)


def test_a_frame_does_not_hide_the_polarity():
    framed = np.full((1, 320, 320), 255, np.uint8)
    framed[:, 48:272, 48:272] = chest(np.random.default_rng(0))
    found = measure(framed)
    assert found.border_sides == 4.0
    assert found.polarity == pytest.approx(measure(chest(np.random.default_rng(0))).polarity, abs=1e-9)


def test_air_that_fades_is_no_border():
    fading = np.repeat(np.clip(np.arange(224) * 2 - 20, 0, 255).astype(np.uint8)[:, None], 224, axis=1)[None]
    fading[:, :, 4::9] = 3
    assert measure(fading).border == 0.0


@pytest.mark.real_data
def test_real_radiographs_are_neither_empty_nor_inverted_and_inverting_them_shows(radiographs):
    usual = [measure(image) for image in radiographs]
    inverted = [measure(255 - image) for image in radiographs]
    assert all(found.spread > 3 * FLAT_SPREAD and found.black < 0.75 * EMPTY_SHARE for found in usual)
    # One of the NIH images truly is inverted.
    assert sum(found.polarity <= INVERTED_POLARITY for found in usual) == 1
    assert sum(found.polarity <= INVERTED_POLARITY for found in inverted) >= 0.99 * len(inverted)


@pytest.mark.real_data
def test_white_stripes_burnt_into_real_radiographs_are_found(radiographs):
    planted = radiographs.copy()
    planted[:, :, :, -7:] = 255
    assert np.mean([measure(image).border >= BORDER_SHARE for image in planted]) > 0.99
    assert np.mean([measure(image).border >= BORDER_SHARE for image in radiographs]) < 0.06
