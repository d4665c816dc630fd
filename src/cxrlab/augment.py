"""Random augmentation of a whole batch at once, on the device, each image with its own parameters."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrlab.errors import ConfigError


class RandomAffine(nn.Module):
    """Flip, rotate, shift and zoom each image by its own random amount, in one resampling.

    Args:
        flip: Probability of a left-right flip.
        rotation: Largest rotation, either way, in degrees.
        shift: Largest shift along each axis, either way, as a fraction of the side.
        zoom: Largest change of scale, either way, as a fraction.
        fill: What stands outside the image: ``reflection``, ``border`` (the nearest pixel) or ``zeros``.

    Raises:
        ConfigError: If an amount is negative, or one that is a fraction is above 1.
    """

    def __init__(
        self,
        *,
        flip: float,
        rotation: float,
        shift: float,
        zoom: float,
        fill: Literal["reflection", "border", "zeros"],
    ) -> None:
        super().__init__()
        for name, value, most in (
            ("flip", flip, 1.0),
            ("rotation", rotation, 180.0),
            ("shift", shift, 1.0),
            ("zoom", zoom, 0.9),
        ):
            if not 0 <= value <= most:
                raise ConfigError(f"augment.{name}={value} must lie between 0 and {most:g}.")
        self.flip = flip
        self.rotation = rotation
        self.shift = shift
        self.zoom = zoom
        self.fill = fill

    def forward(self, images: Tensor) -> Tensor:
        """Return augmented images.

        Args:
            images: Values 0 to 255, uint8 or float, shape ``(B, C, H, W)``.

        Returns:
            float32 values 0 to 255 of the same shape.
        """
        floats = images.to(torch.float32)
        grid = F.affine_grid(
            self._matrices(len(images), images.device), list(images.shape), align_corners=False
        )
        return F.grid_sample(floats, grid, mode="bilinear", padding_mode=self.fill, align_corners=False)

    def _matrices(self, count: int, device: torch.device) -> Tensor:
        """Draw matrices from output to input coordinates (-1 to 1), shape ``(count, 2, 3)``."""
        angle, shift_x, shift_y, zoom = (2.0 * torch.rand(4, count, device=device) - 1.0).unbind()
        angle = angle * math.radians(self.rotation)
        scale = 1.0 / (1.0 + self.zoom * zoom)
        mirror = 1.0 - 2.0 * (torch.rand(count, device=device) < self.flip).float()
        cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
        rows = torch.stack(
            [
                torch.stack([mirror * cosine, -mirror * sine, 2.0 * self.shift * shift_x], dim=1),
                torch.stack([sine, cosine, 2.0 * self.shift * shift_y], dim=1),
            ],
            dim=1,
        )
        return rows
