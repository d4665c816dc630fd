import pytest
import torch

from cxrlab.augment import RandomAffine
from cxrlab.errors import ConfigError

NOTHING = {"flip": 0.0, "rotation": 0.0, "shift": 0.0, "zoom": 0.0, "fill": "border"}


def radiograph(side: int = 64) -> torch.Tensor:
    """A smooth image without symmetry, uint8, shape (1, side, side)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    return (200 * torch.exp(-((x - 0.3) ** 2 + (y - 0.4) ** 2) / 0.05) + 40 * x).to(torch.uint8)[None]


def centre(image: torch.Tensor) -> tuple[float, float]:
    """Centre of brightness as fractions of the side, from the brightest half."""
    bright = (image[0] - image[0].mean()).clamp_min(0)
    axis = (torch.arange(image.shape[-1]) + 0.5) / image.shape[-1]
    total = bright.sum()
    return float((bright.sum(0) * axis).sum() / total), float((bright.sum(1) * axis).sum() / total)


def test_no_amount_leaves_the_image_as_it_is():
    images = torch.stack([radiograph()] * 3)
    torch.testing.assert_close(RandomAffine(**NOTHING)(images), images.float(), atol=1e-2, rtol=0)


def test_a_certain_flip_is_the_mirror_image():
    images = torch.stack([radiograph()] * 2)
    flipped = RandomAffine(**{**NOTHING, "flip": 1.0})(images)
    torch.testing.assert_close(flipped, images.float().flip(-1), atol=1e-2, rtol=0)


def test_half_the_images_are_flipped_each_by_its_own_draw():
    torch.manual_seed(0)
    images = torch.stack([radiograph(16)] * 1000)
    changed = (RandomAffine(**{**NOTHING, "flip": 0.5})(images) - images).abs().amax(dim=(1, 2, 3)) > 1
    assert 450 < int(changed.sum()) < 550


def test_a_shift_moves_the_centre_by_at_most_its_amount():
    torch.manual_seed(0)
    image = radiograph()
    moved = RandomAffine(**{**NOTHING, "shift": 0.1})(torch.stack([image] * 200))
    x0, y0 = centre(image.float())
    offsets = torch.tensor([[x - x0, y - y0] for x, y in map(centre, moved)])
    assert float(offsets.abs().max()) < 0.115
    assert float(offsets.abs().max()) > 0.08
    assert float(offsets.std(dim=0).min()) > 0.04


def test_zoom_and_rotation_keep_the_middle_in_place():
    torch.manual_seed(0)
    side = 65
    image = torch.zeros(1, side, side, dtype=torch.uint8)
    image[0, side // 2, side // 2] = 255
    turned = RandomAffine(**{**NOTHING, "zoom": 0.2, "rotation": 45.0})(torch.stack([image] * 20))
    assert bool((turned.flatten(1).argmax(dim=1) == side * side // 2).all())


def test_rotation_turns_by_at_most_its_amount():
    torch.manual_seed(0)
    side = 101
    image = torch.zeros(1, side, side)
    image[0, side // 2 - 1 : side // 2 + 2, 80:90] = 255  # a bar to the right of the middle
    turned = RandomAffine(**{**NOTHING, "rotation": 10.0})(torch.stack([image] * 100))
    angles = []
    for one in turned:
        ys, xs = torch.nonzero(one[0] > 60, as_tuple=True)
        angles.append(
            torch.rad2deg(torch.atan2(ys.float().mean() - side // 2, xs.float().mean() - side // 2))
        )
    largest = float(torch.stack(angles).abs().max())
    assert 8.0 < largest < 10.6


def test_the_same_seed_gives_the_same_images():
    augment = RandomAffine(flip=0.5, rotation=7.0, shift=0.05, zoom=0.1, fill="reflection")
    images = torch.stack([radiograph()] * 4)
    torch.manual_seed(3)
    first = augment(images)
    torch.manual_seed(3)
    assert torch.equal(first, augment(images))
    assert not torch.equal(first, augment(images))
    assert not torch.equal(first[0], first[1])


def test_values_stay_between_0_and_255():
    torch.manual_seed(0)
    noise = torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8)
    moved = RandomAffine(flip=0.5, rotation=30.0, shift=0.2, zoom=0.5, fill="reflection")(noise)
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 255


@pytest.mark.parametrize(("name", "value"), [("flip", 1.5), ("rotation", -1.0), ("zoom", 0.95)])
def test_an_amount_out_of_range_is_refused(name: str, value: float):
    with pytest.raises(ConfigError, match=f"augment.{name}={value} must lie between"):
        RandomAffine(**{**NOTHING, name: value})
