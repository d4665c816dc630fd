"""Where things lie: flip, rotation, shift, zoom and shear of each image, in one resampling."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Fill = Literal["reflection", "border", "zeros", "constant"]


def flip_some(images: Tensor, is_flipped: Tensor) -> Tensor:
    """Return new images, some of them mirrored left to right.

    Args:
        images: Any type, shape ``(B, C, H, W)``.
        is_flipped: Which images, bool, shape ``(B,)``.
    """
    return torch.where(is_flipped.view(-1, 1, 1, 1), images.flip(-1), images)


def inverse_matrices(
    *,
    is_flipped: Tensor,
    zoom: tuple[Tensor, Tensor],
    shear: Tensor,
    angle: Tensor,
    shift: tuple[Tensor, Tensor],
) -> Tensor:
    """Return the matrices that lead from a point of the result to the point of the image that shows there.

    The image is flipped, then zoomed, sheared, turned about its middle, and shifted. Points are in pixels
    from the middle; y points down. All arguments have the shape ``(B,)``.

    Args:
        is_flipped: Which images are mirrored left to right, bool.
        zoom: Factors by which width and height grow.
        shear: Angle in radians by which vertical lines lean; positive leans their lower end to the left.
        angle: Clockwise rotation in radians.
        shift: Pixels to the right and pixels down.

    Returns:
        Shape ``(B, 2, 3)``.
    """
    cosine, sine, slope = torch.cos(angle), torch.sin(angle), torch.tan(shear)
    across = (1.0 - 2.0 * is_flipped.to(torch.float32)) / zoom[0]
    x_of_x, x_of_y = across * (cosine - slope * sine), across * (sine + slope * cosine)
    y_of_x, y_of_y = -sine / zoom[1], cosine / zoom[1]
    x_of_middle = -(x_of_x * shift[0] + x_of_y * shift[1])
    y_of_middle = -(y_of_x * shift[0] + y_of_y * shift[1])
    return torch.stack([x_of_x, x_of_y, x_of_middle, y_of_x, y_of_y, y_of_middle], dim=1).view(-1, 2, 3)


def resample(images: Tensor, matrices: Tensor, *, fill: Fill, fill_value: float) -> Tensor:
    """Return new images whose pixels are read where the matrices say, between four neighbours.

    Args:
        images: float32, shape ``(B, C, H, W)``.
        matrices: From ``inverse_matrices``, shape ``(B, 2, 3)``.
        fill: What stands outside the image: its ``reflection``, its ``border`` (the nearest pixel), ``zeros``
            or ``constant``.
        fill_value: The value outside for ``constant``, on the scale of the images.
    """
    grid = _sampling_grid(matrices, height=images.shape[-2], width=images.shape[-1])
    if fill != "constant":
        return F.grid_sample(images, grid, mode="bilinear", padding_mode=fill, align_corners=False)
    raised = F.grid_sample(
        images - fill_value, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return raised.add_(fill_value)


def _sampling_grid(matrices: Tensor, *, height: int, width: int) -> Tensor:
    """Return points from -1 to 1 as ``grid_sample`` takes them, shape ``(B, H, W, 2)``.

    A sum of one term a column and one a row costs a tenth of ``affine_grid``, and is no matrix product, which
    autocast would round to bfloat16.
    """
    x = torch.arange(width, device=matrices.device) + (0.5 - width / 2)
    y = torch.arange(height, device=matrices.device) + (0.5 - height / 2)
    scaled = torch.stack([matrices[:, 0] * (2.0 / width), matrices[:, 1] * (2.0 / height)], dim=1)
    of_x, of_y, offset = scaled.unsqueeze(-1).unbind(2)
    planes = (of_x * x + offset)[:, :, None, :] + (of_y * y)[:, :, :, None]  # (B, 2, H, W)
    # grid_sample reads two planes faster than interleaved pairs.
    return planes.permute(0, 2, 3, 1)
