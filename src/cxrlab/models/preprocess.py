"""Scaling and normalising: deterministic, saved in the checkpoint, exported with the network."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from cxrlab.data.decode import Resize
from cxrlab.errors import ConfigError, DataError

Normalization = Literal["training", "imagenet", "image", "equalize", "none", "given", "image_then_sample"]

# Those that need statistics, and of how many training images.
STATISTICS_IMAGES: dict[str, int] = {"training": 512, "image_then_sample": 100}
_NUM_GREYS = 256


def equalize(images: Tensor) -> Tensor:
    """Return images in which each pixel is the share of its image that is darker, as a standard score.

    Whatever changes all greys of an image and leaves their order (exposure, window, gamma, contrast) does not
    change the result. A pixel that is as bright as others counts half of these as darker, so that a constant
    image is 0 throughout.

    Args:
        images: Values 0 to 255, read to the nearest whole number, shape ``(B, C, H, W)``.

    Returns:
        float32 of mean 0, and deviation 1 where no two pixels are equal; the same shape.

    Example:
        >>> equalize(torch.tensor([[[[7.0, 9.0, 9.0, 200.0]]]])).flatten()
        tensor([-1.2990,  0.0000,  0.0000,  1.2990])

    References:
        Gonzalez and Woods, Digital Image Processing, section 3.3 (histogram equalisation).
    """
    greys = images.flatten(1)
    if greys.dtype != torch.uint8:
        greys = greys.clamp(0, 255).round()
    counts = _grey_counts(greys)
    darker = counts.cumsum(1) - 0.5 * counts
    scores = (darker / max(greys.shape[1], 1) - 0.5) * math.sqrt(12.0)  # a uniform share has variance 1/12
    return scores.to(torch.float32).gather(1, greys.to(torch.int64)).view(images.shape)


def _grey_counts(greys: Tensor) -> Tensor:
    """Return how many pixels of each image have each of the 256 greys, ``(B, 256)``, of greys ``(B, P)``."""
    num_images = greys.shape[0]
    if torch.compiler.is_compiling():  # an exporter knows no bincount, which is faster
        ones = torch.ones((), device=greys.device).expand(greys.shape)
        return torch.zeros(num_images, _NUM_GREYS, device=greys.device).scatter_add(
            1, greys.to(torch.int64), ones
        )
    offsets = torch.arange(num_images, device=greys.device, dtype=torch.int32)[:, None] * _NUM_GREYS
    places = (greys.to(torch.int32) + offsets).flatten()  # one histogram an image, all in one row
    return torch.bincount(places, minlength=num_images * _NUM_GREYS).view(num_images, _NUM_GREYS)


class Preprocess(nn.Module):
    """Turn values 0 to 255 into normalised floats; refuses another size than it was made for.

    Args:
        normalize: ``training`` subtracts the training part's mean and divides by its standard deviation,
            ``imagenet`` uses ImageNet's (averaged for one channel), ``image`` each image's own; ``equalize``
            equalises each image's histogram, see :func:`equalize`; ``none`` only divides by 255.
            ``given`` is for a ``mean`` and a ``std`` that weights from elsewhere expect.
            ``image_then_sample`` is a published slip that one recipe needs: each image's own in training
            mode, the statistics given in evaluation mode.
        image_size: Height and width in pixels.
        channels: Number of channels.
        mean: Mean of the training part (or a sample of it) by channel, on the scale 0 to 1.
        std: Its standard deviation by channel, on the scale 0 to 1.
        resize: How the decoder brought the images to their size; kept for those who decode new ones.

    Raises:
        ConfigError: If there is no such ``normalize``, or it needs statistics and has none.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        normalize: Normalization = "training",
        image_size: int = 224,
        channels: int = 1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resize: Resize = "stretch",
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.image_size = image_size
        self.channels = channels
        self.resize = resize
        if normalize == "imagenet":
            mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
            if channels == 1:
                mean, std = [sum(mean) / 3], [sum(std) / 3]
        elif normalize not in get_args(Normalization):
            raise ConfigError(
                f"preprocess.normalize={normalize!r} must be one of {', '.join(get_args(Normalization))}."
            )
        elif normalize not in STATISTICS_IMAGES and normalize != "given":
            mean, std = [0.0] * channels, [1.0] * channels
        if mean is None or std is None or len(mean) != channels or len(std) != channels:
            raise ConfigError(
                f"preprocess.normalize={normalize} needs {channels} means and deviations, not {mean}, {std}."
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).clamp_min(1e-6).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return normalised float32 images.

        Args:
            images: Values 0 to 255, uint8 or float, shape ``(B, C, H, W)``.

        Raises:
            DataError: If C, H or W is not what this was made for.
        """
        expected = (self.channels, self.image_size, self.image_size)
        if tuple(images.shape[1:]) != expected:
            raise DataError(
                f"Images of shape {tuple(images.shape[1:])} were given to a network made for {expected} "
                "(channels, height, width). Resizing is the decoder's job: cxrlab.data.decode.decode."
            )
        if self.normalize == "equalize":
            return equalize(images)
        scaled = images.to(torch.float32) / 255.0
        if self.normalize == "image" or (self.normalize == "image_then_sample" and self.training):
            mean = scaled.mean(dim=(1, 2, 3), keepdim=True)
            std = scaled.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
            return (scaled - mean) / std
        return (scaled - self.mean) / self.std
