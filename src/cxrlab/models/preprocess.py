"""Scaling and normalising: deterministic, saved in the checkpoint, exported with the network."""

from collections.abc import Sequence
from typing import Literal

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from cxrlab.data.images import Resize
from cxrlab.errors import ConfigError, DataError

Normalization = Literal["training", "imagenet", "image"]


class Preprocess(nn.Module):
    """Turn values 0 to 255 into normalised floats; refuses another size than it was made for.

    Args:
        normalize: ``training`` subtracts the training part's mean and divides by its standard deviation,
            ``imagenet`` uses ImageNet's (averaged for one channel), ``image`` each image's own.
        image_size: Height and width in pixels.
        channels: Number of channels.
        mean: Mean of the training part by channel, on the scale 0 to 1.
        std: Standard deviation of the training part by channel, on the scale 0 to 1.
        resize: How the decoder brought the images to their size; kept for those who decode new ones.

    Raises:
        ConfigError: If ``normalize`` is none of the three, or is ``training`` without statistics.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        normalize: Normalization,
        image_size: int,
        channels: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resize: Resize = "stretch",  # what checkpoints from before the other rules were trained on
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
        elif normalize == "image":
            mean, std = [0.0] * channels, [1.0] * channels
        elif normalize != "training":
            raise ConfigError(f"preprocess.normalize={normalize!r} must be training, imagenet or image.")
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
                "(channels, height, width). Resizing is the decoder's job: cxrlab.data.images.decode."
            )
        scaled = images.to(torch.float32) / 255.0
        if self.normalize == "image":
            mean = scaled.mean(dim=(1, 2, 3), keepdim=True)
            std = scaled.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
            return (scaled - mean) / std
        return (scaled - self.mean) / self.std
