import numpy as np
import torch
from scipy import ndimage

from cxrlab.augment import photometry


def batch(count: int = 3, channels: int = 1, side: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 255 * torch.rand(count, channels, side, side, generator=generator)


def test_blur_is_scipys_gaussian_each_image_with_its_own_width():
    images, sigmas = batch(channels=3), torch.tensor([0.0, 0.7, 1.5])
    blurred = photometry.blur(images, sigmas, largest=1.5)
    for image, sigma, result in zip(images, sigmas.tolist(), blurred, strict=True):
        expected = image.double().numpy()
        if sigma:
            expected = ndimage.gaussian_filter(expected, (0, sigma, sigma), mode="nearest", radius=(0, 5, 5))
        np.testing.assert_allclose(result, expected, atol=1e-3)


def test_blur_takes_an_image_smaller_than_its_kernel():
    flat = torch.full((1, 1, 4, 3), 99.0)
    torch.testing.assert_close(photometry.blur(flat, torch.tensor([3.0]), largest=3.0), flat)


def test_gamma_is_a_power_of_the_fraction_of_white():
    images, exponents = batch(), torch.tensor([0.5, 1.0, 1.8])
    expected = 255 * (images.double().numpy() / 255) ** exponents.double().numpy().reshape(3, 1, 1, 1)
    np.testing.assert_allclose(photometry.bend_(images.clone(), exponents), expected, atol=1e-3)
    ends = torch.tensor([0.0, 255.0]).view(1, 1, 1, 2)
    torch.testing.assert_close(photometry.bend_(ends.clone(), torch.tensor([2.0])), ends)


def test_gamma_of_a_value_that_rounding_left_below_0_is_0():
    value = torch.full((1, 1, 1, 1), -1e-5)
    assert photometry.bend_(value, torch.tensor([1.3])).item() == 0.0


def test_contrast_scales_the_deviation_and_keeps_the_mean():
    images, factors = batch(channels=3), torch.tensor([0.5, 1.0, 2.0])
    before, after = images.numpy(), photometry.stretch_(images.clone(), factors).numpy()
    np.testing.assert_allclose(after.mean((1, 2, 3)), before.mean((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(after.std((1, 2, 3)) / before.std((1, 2, 3)), factors, rtol=1e-4)


def test_brightness_is_added_to_each_image():
    images, amounts = batch(), torch.tensor([-20.0, 0.0, 30.0])
    np.testing.assert_allclose(
        photometry.brighten_(images.clone(), amounts).numpy() - images.numpy(),
        np.broadcast_to(amounts.numpy().reshape(3, 1, 1, 1), images.shape),
        atol=1e-4,
    )


def test_noise_has_the_deviation_asked_for_and_leaves_grey_grey():
    images, sigmas = torch.full((3, 3, 100, 100), 128.0), torch.tensor([0.0, 5.0, 20.0])
    noise = photometry.add_noise_(images.clone(), sigmas, generator=torch.Generator().manual_seed(0)) - 128.0
    torch.testing.assert_close(noise.std((1, 2, 3)), sigmas, rtol=0.03, atol=1e-6)
    assert float(noise.mean((1, 2, 3)).abs().max()) < 0.8
    torch.testing.assert_close(noise[:, 0], noise[:, 2], rtol=0, atol=0)
    neighbours = np.corrcoef(noise[2, 0, :, 1:].flatten(), noise[2, 0, :, :-1].flatten())[0, 1]
    assert abs(neighbours) < 0.05


def test_a_rectangle_has_its_area_shape_place_and_grey():
    erased = photometry.erase(
        torch.zeros(4, 3, 100, 200),
        area=torch.tensor([0.0, 0.04, 0.04, 1.0]),
        aspect=torch.tensor([1.0, 1.0, 4.0, 4.0]),
        place=(torch.tensor([0.5, 0.0, 1.0, 0.3]), torch.tensor([0.5, 0.0, 0.5, 0.3])),
        greys=torch.tensor([9.0, 50.0, 70.0, 90.0]),
    )
    expected = torch.zeros(4, 3, 100, 200)
    expected[1, :, :20, :40] = 50.0
    expected[2, :, 45:55, 120:] = 70.0
    expected[3, :, 15:65, :] = 90.0  # longer than the image is wide, so it is cut to that
    torch.testing.assert_close(erased, expected)
