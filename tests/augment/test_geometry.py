import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from cxrlab.augment.geometry import flip_some, inverse_matrices, resample

SCIPY_MODES = {
    "reflection": "reflect",
    "border": "nearest",
    "zeros": "grid-constant",
    "constant": "grid-constant",
}


def smooth(height: int, width: int, *, count: int = 1, channels: int = 1) -> torch.Tensor:
    """Images without symmetry, each another, values 0 to 255."""
    random = np.random.default_rng(0).uniform(0, 255, (count, channels, height, width))
    return torch.from_numpy(ndimage.gaussian_filter(random, (0, 0, 3, 3)) * 1.0).float()


def matrices(**changes: object) -> torch.Tensor:
    """Matrices of one image, its changes as numbers; what is not named does nothing."""
    values = {
        "is_flipped": False,
        "zoom": (1.0, 1.0),
        "shear": 0.0,
        "angle": 0.0,
        "shift": (0.0, 0.0),
        **changes,
    }
    tensors = {k: tuple(map(tensor, v)) if isinstance(v, tuple) else tensor(v) for k, v in values.items()}
    return inverse_matrices(**tensors)


def tensor(value: float | bool) -> torch.Tensor:
    return torch.tensor([value])


CHANGES = [
    {"angle": math.radians(20.0)},
    {"shift": (5.5, -3.0)},
    {"zoom": (1.3, 1.3)},
    {"zoom": (1.3, 0.8)},
    {"shear": math.radians(15.0)},
    {"is_flipped": True, "angle": 0.3, "shear": -0.2, "zoom": (0.9, 1.2), "shift": (-4.0, 2.5)},
]


@pytest.mark.parametrize("fill", SCIPY_MODES)
@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: "-".join(changes))
def test_a_change_is_what_scipy_gives_for_the_product_of_its_matrices(changes: dict, fill: str):
    """The forward matrices are written out here and inverted, on an image that is no square."""
    image = smooth(40, 52)
    turn, lean = changes.get("angle", 0.0), math.tan(changes.get("shear", 0.0))
    width, height = changes.get("zoom", (1.0, 1.0))
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    forward = rotation @ [[1, -lean], [0, 1]] @ np.diag([width, height])
    forward = forward @ np.diag([-1 if changes.get("is_flipped") else 1, 1])
    inverse = np.linalg.inv(forward)[::-1, ::-1]  # scipy has y first
    middle = np.array([19.5, 25.5])
    shift = np.array(changes.get("shift", (0.0, 0.0)))[::-1]
    expected = ndimage.affine_transform(
        image[0, 0].double().numpy(),
        inverse,
        offset=middle - inverse @ (middle + shift),
        order=1,
        mode=SCIPY_MODES[fill],
        cval=70.0 if fill == "constant" else 0.0,
    )
    moved = resample(image, matrices(**changes), fill=fill, fill_value=70.0)
    np.testing.assert_allclose(moved[0, 0], expected, atol=0.01)


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"angle": math.radians(25.0)}, {"angle": 25.0}),
        ({"shift": (6.0, -4.0)}, {"translate": [6, -4]}),
        ({"zoom": (1.2, 1.2)}, {"scale": 1.2}),
        ({"shear": math.radians(12.0)}, {"shear": [12.0, 0.0]}),
    ],
)
def test_direction_and_amount_are_those_of_torchvision(changes: dict, options: dict):
    image = smooth(48, 48, channels=3)
    neutral = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
    expected = tv.affine(image, **{**neutral, **options}, interpolation=InterpolationMode.BILINEAR)
    moved = resample(image, matrices(**changes), fill="zeros", fill_value=0.0)
    torch.testing.assert_close(moved, expected, atol=0.02, rtol=0)


def test_a_quarter_turn_and_a_whole_shift_move_pixels_exactly():
    image = smooth(33, 33)
    turned = resample(image, matrices(angle=math.pi / 2), fill="border", fill_value=0.0)
    torch.testing.assert_close(turned, image.rot90(-1, dims=(2, 3)), atol=0.01, rtol=0)
    shifted = resample(image, matrices(shift=(3.0, 2.0)), fill="zeros", fill_value=0.0)
    torch.testing.assert_close(shifted[..., 2:, 3:], image[..., :-2, :-3], atol=0.01, rtol=0)
    assert shifted[..., :2, :].abs().max() < 0.01
    assert shifted[..., :, :3].abs().max() < 0.01


def test_each_image_and_all_its_channels_follow_its_own_matrix():
    images = smooth(32, 32, count=3, channels=3)
    angles = [0.0, 0.2, -0.4]
    together = torch.cat([matrices(angle=angle) for angle in angles])
    moved = resample(images, together, fill="reflection", fill_value=0.0)
    for position, angle in enumerate(angles):
        for channel in range(3):
            alone = images[position : position + 1, channel : channel + 1]
            expected = resample(alone, matrices(angle=angle), fill="reflection", fill_value=0.0)
            torch.testing.assert_close(moved[position, channel], expected[0, 0], atol=1e-4, rtol=0)


def test_a_flip_mirrors_the_images_it_is_to_and_no_others():
    images = torch.arange(24, dtype=torch.uint8).view(2, 1, 3, 4)
    flipped = flip_some(images, torch.tensor([True, False]))
    np.testing.assert_array_equal(flipped[0], images[0].numpy()[:, :, ::-1])
    assert torch.equal(flipped[1], images[1])
