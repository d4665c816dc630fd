import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cxrlab.errors import ConfigError
from cxrlab.heatmaps.methods.perturbation import as_heatmaps, baseline, blurred


def some_images(height: int = 20, width: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 2, height, width, generator=generator)


def by_scipy(images: Tensor, sigma: float, radius: int) -> Tensor:
    planes = images.flatten(0, -3).double().numpy()
    smooth = [gaussian_filter(plane, sigma, mode="mirror", radius=radius) for plane in planes]
    return torch.from_numpy(np.stack(smooth)).float().view(images.shape)


@pytest.mark.parametrize(
    ("deviation", "radius"),
    # Three deviations of 0.02 * 24 and 0.1 * 24 pixels; but no kernel is wider than the smaller side, 20.
    [(0.02, 1), (0.1, 7), (0.2, 9)],
)
def test_blurring_is_a_gaussian_of_a_share_of_the_width(deviation: float, radius: int) -> None:
    images = some_images()
    expected = by_scipy(images, deviation * 24, radius)
    torch.testing.assert_close(blurred(images, deviation), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("deviation", "side"), [(0.0, 20), (0.001, 20), (0.5, 2)])
def test_a_blur_below_a_pixel_or_of_a_tiny_image_changes_nothing(deviation: float, side: int) -> None:
    images = some_images(side, side)
    assert torch.equal(blurred(images, deviation), images)


def test_mean_is_each_image_s_mean_grey_and_black_its_darkest_value() -> None:
    images = some_images()
    grey, black = baseline(images, "mean"), baseline(images, "black")
    assert grey.shape == black.shape == images.shape
    for number in range(3):
        for channel in range(2):
            values = images[number, channel].flatten().tolist()
            place = (number, channel)
            torch.testing.assert_close(grey[place], torch.full((20, 24), math.fsum(values) / len(values)))
            assert torch.equal(black[place], torch.full((20, 24), min(values)))


def test_a_baseline_can_be_written_in_and_the_images_stay() -> None:
    images = some_images()
    for kind in ("mean", "black", "blur"):
        values = baseline(images, kind)
        values[:, :, 3, 5] = 7.0
        assert (values == 7.0).sum() == 6
    assert torch.equal(images, some_images())


def test_blur_leaves_only_what_is_larger_than_eight_hundredths_of_the_width() -> None:
    images = some_images(50, 50)
    torch.testing.assert_close(baseline(images, "blur"), by_scipy(images, 4.0, 12), atol=1e-5, rtol=0)


def test_an_unknown_baseline_is_rejected() -> None:
    with pytest.raises(ConfigError, match=r"explanation\.baseline='white' must be one of mean, blur, black"):
        baseline(some_images(), "white")


def test_a_heatmap_sums_the_channels_and_scales_what_is_positive() -> None:
    values = torch.tensor([[[[1.0, -3.0], [0.5, 2.0]], [[3.0, 1.0], [0.5, -1.0]]]])
    assert torch.equal(as_heatmaps(values, 0.0), torch.tensor([[[1.0, 0.0], [0.25, 0.25]]]))


def test_each_heatmap_has_its_own_scale_however_small() -> None:
    values = torch.ones(3, 1, 2, 2) * torch.tensor([1e-30, 1.0, 1e30]).view(3, 1, 1, 1)
    values[:, :, 0, 0] /= 2
    expected = torch.tensor([[0.5, 1.0], [1.0, 1.0]]).expand(3, -1, -1)
    torch.testing.assert_close(as_heatmaps(values, 0.0), expected)


def test_a_heatmap_is_smoothed_before_its_negative_part_is_cut_off() -> None:
    values = some_images()
    smooth = by_scipy(values.sum(dim=1, keepdim=True), 2.4, 7)[:, 0].clamp(min=0)
    expected = torch.stack([one / one.max() for one in smooth])
    torch.testing.assert_close(as_heatmaps(values, 0.1), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_heatmap_is_empty_where_nothing_is_positive(value: float) -> None:
    assert torch.equal(as_heatmaps(torch.full((2, 3, 4, 5), value), 0.1), torch.zeros(2, 4, 5))


def test_heatmaps_are_single_precision_and_may_be_none() -> None:
    assert as_heatmaps(some_images().bfloat16(), 0.02).dtype == torch.float32
    assert as_heatmaps(torch.zeros(0, 1, 4, 5), 0.02).shape == (0, 4, 5)
