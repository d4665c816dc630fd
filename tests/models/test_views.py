import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from cxrlab.errors import ConfigError
from cxrlab.models.views import check_views, view

SIDE = 40


@pytest.fixture
def images() -> torch.Tensor:
    """Two smooth images, so that ways of interpolating differ little."""
    noise = np.random.default_rng(0).random((2, 1, SIDE, SIDE))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 4, 4), mode="nearest")
    low, high = smooth.min(), smooth.max()
    return torch.from_numpy(255.0 * (smooth - low) / (high - low)).float()


def reference(
    image: np.ndarray, *, zoom: float = 1.0, angle: float = 0.0, shift: tuple = (0, 0)
) -> np.ndarray:
    """SciPy's resampling of one image: zoomed, turned clockwise by degrees, shifted down and right."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    inverse = np.array([[cosine, -sine], [sine, cosine]]) / zoom  # of (down, right)
    middle = (np.array(image.shape) - 1) / 2
    offset = middle - inverse @ (middle + np.array(shift))
    return ndimage.affine_transform(image, inverse, offset, order=1, mode="nearest")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("zoom_in", {"zoom": 1.1}),
        ("zoom_out", {"zoom": 1 / 1.1}),
        ("shift_left", {"shift": (0, -0.05 * SIDE)}),
        ("shift_right", {"shift": (0, 0.05 * SIDE)}),
        ("shift_up", {"shift": (-0.05 * SIDE, 0)}),
        ("shift_down", {"shift": (0.05 * SIDE, 0)}),
        ("rotate_left", {"angle": -5.0}),
        ("rotate_right", {"angle": 5.0}),
    ],
)
def test_views_are_those_of_an_independent_resampling(images: torch.Tensor, name: str, changes: dict):
    found = view(images, name)
    assert (found.shape, found.dtype) == (images.shape, torch.float32)
    for one, image in zip(found[:, 0].numpy(), images[:, 0].numpy(), strict=True):
        np.testing.assert_allclose(one, reference(image, **changes), atol=1e-2)
    assert (found - images).abs().max() > 1


def test_identity_costs_nothing_and_a_flip_is_exact(images: torch.Tensor):
    pixels = images.to(torch.uint8)
    assert view(pixels, "identity") is pixels
    assert torch.equal(view(pixels, "flip"), pixels.flip(-1))


def test_bytes_are_resampled_as_floats_are(images: torch.Tensor):
    pixels = images.to(torch.uint8)
    torch.testing.assert_close(view(pixels, "zoom_in"), view(pixels.float(), "zoom_in"))


def test_opposite_views_mirror_each_other(images: torch.Tensor):
    for one, other in (("shift_left", "shift_right"), ("rotate_left", "rotate_right")):
        torch.testing.assert_close(
            view(images.flip(-1), one).flip(-1), view(images, other), atol=1e-3, rtol=1e-3
        )


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["identity", "flipp"], r"views=\['identity', 'flipp'\]: 'flipp' is none of .* Did you mean flip\?"),
        ([], r"views=\[\] leaves nothing to evaluate"),
        (["flip", "identity", "flip"], r"names a view twice"),
    ],
)
def test_views_that_make_no_sense_are_rejected(names: list[str], words: str):
    with pytest.raises(ConfigError, match=words):
        check_views(names)


def test_views_come_back_as_a_list():
    assert check_views(("identity", "rotate_left")) == ["identity", "rotate_left"]
