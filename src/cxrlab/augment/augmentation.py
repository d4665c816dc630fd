"""The modules that a configuration names: ``RandomAugment``, and ``NoAugment`` for none."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from cxrlab.augment import geometry, photometry
from cxrlab.errors import ConfigError, check_range

Place = Literal["corners", "anywhere"]

# Drawn for each image, always all of it: switching one change on or off leaves the others as they were.
_DRAWS = (
    *("flip", "rotation", "shift_x", "shift_y", "zoom_x", "zoom_y", "shear"),
    *("brightness", "contrast", "gamma", "noise", "blur"),
    *("erasing", "erasing_area", "erasing_aspect", "erasing_x", "erasing_y", "erasing_grey"),
)

Draws = dict[str, Tensor]


def _signed(draws: Tensor) -> Tensor:
    """Turn draws from 0 to 1 into draws from -1 to 1."""
    return 2.0 * draws - 1.0


def _factor(draws: Tensor, amount: float) -> Tensor:
    """Turn draws into factors from ``1 / (1 + amount)`` to ``1 + amount``, as often above 1 as below."""
    return torch.exp(_signed(draws) * math.log1p(amount))


def _field_factor(draws: Tensor, amount: float) -> Tensor:
    """Turn draws into factors whose inverses lie evenly between ``1 - amount`` and ``1 + amount``."""
    return 1.0 / (1.0 + _signed(draws) * amount)


def _outer_eighths(draws: Tensor) -> Tensor:
    """Turn draws from 0 to 1 into draws from 0 to 1/8 or from 7/8 to 1."""
    return 0.25 * draws + 0.75 * (draws >= 0.5)


class NoAugment(nn.Module):
    """Leaves images as they are; takes the same arguments as ``RandomAugment``."""

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the images as float32."""
        return images.to(torch.float32)


class RandomAugment(nn.Module):
    """Changes each image of a batch by its own random amounts; an amount of 0 switches a change off.

    The order is flip, zoom, shear, rotation and shift (one resampling), blur, gamma, contrast, brightness,
    noise, erasing. What is switched off costs nothing. The program never looks at a value that was drawn, so
    it need not wait for a GPU.

    Args:
        flip: Probability of a left-right flip.
        rotation: Largest rotation, either way, in degrees.
        shift: Largest shift along each axis, either way, as a fraction of the side.
        zoom: Largest change of scale as a fraction: factors lie between ``1 / (1 + zoom)`` and ``1 + zoom``.
        zoom_per_axis: Whether width and height change each by their own factor.
        zoom_of_field: Whether the side of the visible field is drawn, evenly from ``1 - zoom`` to
            ``1 + zoom`` as Keras does, in place of the factor; ``zoom`` must then be below 1.
        shear: Largest lean of vertical lines, either way, in degrees.
        fill: What stands outside the image: its ``reflection``, its ``border`` (the nearest pixel), ``zeros``
            or ``constant``.
        fill_value: The value outside for ``constant``, 0 to 255.
        brightness: Largest amount added or taken away, as a fraction of white.
        contrast: Largest change of the deviations from the image's mean, a fraction as for ``zoom``.
        gamma: Largest change of the exponent of brightness, a fraction as for ``zoom``.
        noise: Largest standard deviation of Gaussian noise, as a fraction of white.
        blur: Largest standard deviation of a Gaussian blur, in pixels.
        erasing: Probability that a rectangle of random grey covers a part of the image.
        erasing_area: Its largest area as a fraction of the image.
        erasing_aspect: Its largest ratio of one side to the other.
        erasing_place: ``corners``, where text marks stand (the outer eighth both across and down), or
            ``anywhere``.

    Raises:
        ConfigError: If an amount is not finite or out of range.
    """

    def __init__(
        self,
        *,
        flip: float = 0.5,
        rotation: float = 7.0,
        shift: float = 0.05,
        zoom: float = 0.1,
        zoom_per_axis: bool = False,
        zoom_of_field: bool = False,
        shear: float = 0.0,
        fill: geometry.Fill = "reflection",
        fill_value: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        gamma: float = 0.0,
        noise: float = 0.0,
        blur: float = 0.0,
        erasing: float = 0.0,
        erasing_area: float = 0.03,
        erasing_aspect: float = 4.0,
        erasing_place: Place = "corners",
    ) -> None:
        super().__init__()
        check_range("augment.flip", flip, 0, 1)
        check_range("augment.rotation", rotation, 0, 180)
        check_range("augment.shift", shift, 0, 1)
        check_range("augment.zoom", zoom, 0, 1)
        check_range("augment.shear", shear, 0, 45)
        check_range("augment.fill_value", fill_value, 0, 255)
        check_range("augment.brightness", brightness, 0, 1)
        check_range("augment.contrast", contrast, 0, 3)
        check_range("augment.gamma", gamma, 0, 3)
        check_range("augment.noise", noise, 0, 1)
        check_range("augment.blur", blur, 0, 10)
        check_range("augment.erasing", erasing, 0, 1)
        check_range("augment.erasing_area", erasing_area, 0, 1)
        check_range("augment.erasing_aspect", erasing_aspect, 1, 10)
        if zoom_of_field and zoom >= 1:
            raise ConfigError(f"augment.zoom={zoom} with augment.zoom_of_field=true must be below 1.")
        self.flip, self.shift, self.zoom, self.zoom_per_axis = flip, shift, zoom, zoom_per_axis
        self._zoom_factor = _field_factor if zoom_of_field else _factor
        self.rotation, self.shear = math.radians(rotation), math.radians(shear)
        self.fill, self.fill_value = fill, fill_value
        self.brightness, self.contrast, self.gamma = 255.0 * brightness, contrast, gamma
        self.noise, self.blur = 255.0 * noise, blur
        self.erasing, self.erasing_area, self.erasing_aspect = erasing, erasing_area, erasing_aspect
        self.erasing_place = erasing_place
        self._is_resampled = any((rotation, shift, zoom, shear))
        self._has_photometry = any((brightness, contrast, gamma, noise, blur, erasing))

    @torch.no_grad()
    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return new, augmented images.

        Args:
            images: Values 0 to 255, uint8 or float, shape ``(B, C, H, W)``.
            generator: Draws all random numbers, and lies on the images' device; None is torch's own.

        Returns:
            float32 values 0 to 255 of the same shape.
        """
        if len(images) == 0:
            return images.to(torch.float32)
        numbers = torch.rand(len(_DRAWS), len(images), device=images.device, generator=generator)
        draws = dict(zip(_DRAWS, numbers.unbind(), strict=True))
        with torch.autocast(images.device.type, enabled=False):
            floats = self._move(images, draws)
            if not self._has_photometry:
                return floats
            floats = self._expose(floats, draws, generator)
            if self.erasing and self.erasing_area:
                floats = self._erase(floats, draws)
            return floats.clamp_(0.0, 255.0)

    def _move(self, images: Tensor, draws: Draws) -> Tensor:
        is_flipped = draws["flip"] < self.flip
        if not self._is_resampled:
            moved = geometry.flip_some(images, is_flipped) if self.flip else images
            return moved.to(torch.float32, copy=True)
        height, width = images.shape[-2:]
        zoom_x = self._zoom_factor(draws["zoom_x"], self.zoom)
        matrices = geometry.inverse_matrices(
            is_flipped=is_flipped,
            zoom=(zoom_x, self._zoom_factor(draws["zoom_y"], self.zoom) if self.zoom_per_axis else zoom_x),
            shear=_signed(draws["shear"]) * self.shear,
            angle=_signed(draws["rotation"]) * self.rotation,
            shift=(
                _signed(draws["shift_x"]) * (self.shift * width),
                _signed(draws["shift_y"]) * (self.shift * height),
            ),
        )
        return geometry.resample(
            images.to(torch.float32), matrices, fill=self.fill, fill_value=self.fill_value
        )

    def _expose(self, images: Tensor, draws: Draws, generator: torch.Generator | None) -> Tensor:
        """Change blur, gamma, contrast, brightness and noise, mostly in the memory of ``images``."""
        if self.blur:
            images = photometry.blur(images, draws["blur"] * self.blur, largest=self.blur)
        if self.gamma:
            photometry.bend_(images, _factor(draws["gamma"], self.gamma))
        if self.contrast:
            photometry.stretch_(images, _factor(draws["contrast"], self.contrast))
        if self.brightness:
            photometry.brighten_(images, _signed(draws["brightness"]) * self.brightness)
        if self.noise:
            photometry.add_noise_(images, draws["noise"] * self.noise, generator=generator)
        return images

    def _erase(self, images: Tensor, draws: Draws) -> Tensor:
        place = draws["erasing_x"], draws["erasing_y"]
        if self.erasing_place == "corners":
            place = _outer_eighths(place[0]), _outer_eighths(place[1])
        is_erased = draws["erasing"] < self.erasing
        return photometry.erase(
            images,
            area=is_erased * draws["erasing_area"] * self.erasing_area,
            aspect=_factor(draws["erasing_aspect"], self.erasing_aspect - 1.0),
            place=place,
            greys=255.0 * draws["erasing_grey"],
        )
