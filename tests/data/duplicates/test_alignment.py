import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import affine_transform, gaussian_filter

from cxrlab.data.duplicates.alignment import differences, thumbnails


def textured(seed: int, size: int = 192, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = sum(
        gaussian_filter(rng.standard_normal((size, size)), width) * width
        for width in (size / 96, size / 48, size / 16)
    )
    image = (128 + 40 * image / image.std()).clip(0, 255).astype(np.uint8)
    return np.repeat(image[None], channels, axis=0)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(differences(thumbnails(one[None]), thumbnails(other[None]))[0])


def stretched(image: np.ndarray, scale: tuple[float, float], shift: tuple[float, float]) -> np.ndarray:
    centre = (np.array(image.shape[1:]) - 1) / 2
    offset = centre - np.array(scale) * centre + np.array(shift)
    return affine_transform(image[0].astype(float), scale, offset, order=1, mode="nearest").astype(np.uint8)[
        None
    ]


def test_a_thumbnail_is_a_blurred_image():
    image = textured(0)
    blurred = gaussian_filter(image[0].astype(float), 0.7 * 3, mode="nearest", truncate=6)[1::3, 1::3]
    inner = slice(3, -3)
    np.testing.assert_allclose(thumbnails(image[None])[0][inner, inner], blurred[inner, inner], atol=0.05)


@pytest.mark.parametrize(("channels", "size"), [(1, 32), (3, 128), (1, 320)])
def test_thumbnails_have_one_size(channels, size):
    images = np.stack([textured(seed, size, channels) for seed in range(3)])
    small = thumbnails(images)
    assert small.shape == (3, 64, 64)
    assert small.dtype == np.float32
    assert small.mean() == pytest.approx(images.mean(), abs=2)


def test_thumbnails_do_not_hang_on_their_batch():
    images = np.stack([textured(seed, 32) for seed in range(70)])
    np.testing.assert_allclose(thumbnails(images)[69], thumbnails(images[69:])[0], atol=1e-3)


def test_an_image_does_not_differ_from_itself():
    assert difference(textured(1), textured(1)) == pytest.approx(0, abs=1e-5)


def test_brightness_and_contrast_do_not_count():
    image = textured(1)
    assert difference(image, (0.6 * image + 70).astype(np.uint8)) < 0.005


@pytest.mark.parametrize(
    ("scale", "shift"), [((0.96, 0.96), (0, 0)), ((1.0, 1.0), (3.5, -3.5)), ((1.03, 0.97), (2, 1))]
)
def test_a_small_shift_and_stretch_do_not_count(scale, shift):
    image = textured(2)
    moved = stretched(image, scale, shift)
    plain = np.corrcoef(thumbnails(image[None]).ravel(), thumbnails(moved[None]).ravel())[0, 1]
    assert plain < 0.95  # without registration they do
    assert difference(image, moved) < 0.03


def test_a_large_shift_counts():
    image = textured(2)
    assert difference(image, np.roll(image, 40, axis=2)) > 0.5


def test_unrelated_images_share_nothing():
    assert 0.6 < difference(textured(3), textured(4)) < 1.4


def test_a_negative_is_not_the_same():
    assert difference(textured(3), 255 - textured(3)) > 1


def test_slow_changes_of_brightness_alone_are_no_likeness():
    ramp = np.linspace(0, 90, 192)
    one, other = ((ramp + 30 * textured(seed)[0] / 255).astype(np.uint8)[None] for seed in (5, 6))
    assert difference(one, other) > 0.5


def test_images_without_detail_are_unlike_all():
    flat = np.full((1, 64, 64), 100, dtype=np.uint8)
    assert difference(flat, textured(1)) > 0.9
    assert difference(flat, flat) > 0.9


def test_each_pair_is_measured_by_itself():
    ones = thumbnails(np.stack([textured(seed) for seed in (1, 2, 3)]))
    others = thumbnails(np.stack([textured(1), textured(9), stretched(textured(3), (0.97, 0.97), (0, 0))]))
    together = differences(ones, others)
    alone = [differences(ones[[index]], others[[index]])[0] for index in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert differences(ones[:0], others[:0]).shape == (0,)


def test_compression_hardly_counts(tmp_path):
    image = textured(7)
    Image.fromarray(image[0]).save(tmp_path / "copy.jpg", quality=50)
    assert difference(image, np.asarray(Image.open(tmp_path / "copy.jpg"))[None]) < 0.02
