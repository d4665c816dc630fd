"""How bright things are: blur, gamma, contrast, brightness, noise and erasing, one amount for each image.

Images are float32, 0 to 255, of shape ``(B, C, H, W)``; amounts have the shape ``(B,)``. All channels
of an image change alike, so grey stays grey. A function whose name ends in an underscore writes into its
images. Nothing here clamps to 255.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def _by_image(amounts: Tensor) -> Tensor:
    return amounts.view(-1, 1, 1, 1)


def blur(images: Tensor, sigmas: Tensor, *, largest: float) -> Tensor:
    """Return new images, blurred by a Gaussian; beyond the border the nearest pixel goes on.

    Args:
        images: The batch.
        sigmas: Standard deviations in pixels, 0 to ``largest``.
        largest: It decides the size of the kernel, which must not depend on what was drawn.
    """
    radius = math.ceil(3.0 * largest)
    count, channels, height, width = images.shape
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    # At 0 all weight lies on the pixel itself: the floor only keeps the quotient defined.
    weights = torch.exp(-0.5 * (offsets / sigmas.clamp_min(1e-3)[:, None]) ** 2)
    weights = (weights / weights.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    # One group for each plane lets each image have its own kernel.
    planes = images.reshape(1, count * channels, height, width)
    across = F.pad(planes, (radius, radius, 0, 0), mode="replicate")
    planes = F.conv2d(across, weights[:, None, None, :], groups=count * channels)
    down = F.pad(planes, (0, 0, radius, radius), mode="replicate")
    return F.conv2d(down, weights[:, None, :, None], groups=count * channels).view_as(images)


def bend_(images: Tensor, exponents: Tensor) -> Tensor:
    """Raise brightness, as a fraction of white, to a power: gamma. Black and white stay; above 1 darkens."""
    # A value just below 0, from rounding, would become NaN.
    return images.div_(255.0).clamp_(min=0.0).pow_(_by_image(exponents)).mul_(255.0)


def stretch_(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply each image's deviations from its own mean: contrast."""
    means = images.mean(dim=(1, 2, 3))
    return images.mul_(_by_image(factors)).add_(_by_image(means * (1.0 - factors)))


def brighten_(images: Tensor, amounts: Tensor) -> Tensor:
    """Add to every pixel, on the scale 0 to 255."""
    return images.add_(_by_image(amounts))


def add_noise_(images: Tensor, sigmas: Tensor, *, generator: torch.Generator | None) -> Tensor:
    """Add Gaussian noise, the same in all channels.

    Args:
        images: The batch.
        sigmas: Standard deviations on the scale 0 to 255.
        generator: On the images' device; None draws from torch's own.
    """
    count, _, height, width = images.shape
    noise = torch.randn(count, 1, height, width, device=images.device, generator=generator)
    return images.addcmul_(noise, _by_image(sigmas))


def erase(
    images: Tensor, *, area: Tensor, aspect: Tensor, place: tuple[Tensor, Tensor], greys: Tensor
) -> Tensor:
    """Return new images, each with one grey rectangle in it, whole within the image.

    Args:
        images: The batch.
        area: Of the rectangle, as a fraction of the image; 0 leaves an image as it is.
        aspect: Width over height, of the rectangle in a square image.
        place: Where the rectangle lies across and down: 0 at the left or upper border, 1 at the other.
        greys: Values 0 to 255.
    """
    is_inside = []
    for axis, length in enumerate((torch.sqrt(area * aspect), torch.sqrt(area / aspect))):
        pixels = images.shape[-1 - axis]
        side = length.clamp(max=1.0)
        start = place[axis] * (1.0 - side)
        centres = (torch.arange(pixels, device=images.device) + 0.5) / pixels
        is_inside.append((centres >= start[:, None]) & (centres < (start + side)[:, None]))
    mask = is_inside[0][:, None, None, :] & is_inside[1][:, None, :, None]
    return torch.where(mask, _by_image(greys), images)
