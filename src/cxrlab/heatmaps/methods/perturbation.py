"""What stands for missing information in an image, and how a heatmap is made of values by pixel."""

from typing import get_args

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from cxrlab.errors import ConfigError
from cxrlab.heatmaps.settings import Baseline

_BLUR = 0.08  # of the width: nothing smaller than a heart is left


def blurred(images: Tensor, deviation: float) -> Tensor:
    """Return images ``(..., H, W)`` blurred by a Gaussian whose deviation is a share of their width."""
    sigma = deviation * images.shape[-1]
    side = min(2 * round(3 * sigma) + 1, 2 * ((min(images.shape[-2:]) - 1) // 2) + 1)
    return gaussian_blur(images, [side, side], [sigma, sigma]) if sigma > 0 and side > 1 else images


def baseline(images: Tensor, kind: str) -> Tensor:
    """Return images without information, of the same shape ``(N, C, H, W)``.

    Args:
        images: Preprocessed floats.
        kind: ``mean``: each image's mean grey, so that what is darker counts as much as what is brighter (a
            pneumothorax is dark). ``blur``: a copy in which only the coarsest shapes are left. ``black``:
            each image's darkest value.

    Raises:
        ConfigError: If there is no such kind.
    """
    if kind == "mean":
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images).clone()
    if kind == "blur":
        return blurred(images, _BLUR)
    if kind == "black":
        return images.amin(dim=(2, 3), keepdim=True).expand_as(images).clone()
    raise ConfigError(f"explanation.baseline={kind!r} must be one of {', '.join(get_args(Baseline))}.")


def as_heatmaps(attributions: Tensor, smoothing: float) -> Tensor:
    """Return heatmaps of values by pixel: summed over channels, smoothed, their positive part scaled to 1.

    Args:
        attributions: What each pixel adds to the score, shape ``(P, C, H, W)``.
        smoothing: Deviation of a Gaussian as a share of the width. Single pixels jump, and the largest of
            them would say nothing of a place.

    Returns:
        Values in [0, 1], shape ``(P, H, W)``; 0 everywhere where nothing is positive, NaN where something is
        not finite.

    Example:
        >>> as_heatmaps(torch.tensor([[[[4.0, -1.0], [1.0, 0.0]]]]), 0.0)
        tensor([[[1.0000, 0.0000],
                 [0.2500, 0.0000]]])
    """
    smooth = blurred(attributions.sum(dim=1, keepdim=True).float(), smoothing)[:, 0].clamp_min(0)
    largest = smooth.amax(dim=(1, 2), keepdim=True)
    return torch.where(largest <= 0, 0.0, smooth / largest.clamp_min(torch.finfo(torch.float32).tiny))
