"""Phantoms of frontal chest radiographs: layers of tissue, summed, then exposed like a film.

Lengths are in half image widths, as in ``patients``; a layer is a thickness in mean free paths of the X-rays
and has the shape ``(size, size)``.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cxrlab.data.phantom.patients import Anatomy, Exposure

Layer = npt.NDArray[Any]
Box = tuple[float, float, float, float]

_AIR = 1.5
_SOLID = 1.65


def heart_half_width(anatomy: Anatomy, exposure: Exposure, *, enlarged: bool) -> float:
    """Return half the width of the heart's shadow: the cardiothoracic ratio times that of the rib cage."""
    ratio = anatomy.enlarged_ratio if enlarged else anatomy.heart_ratio
    # A heart that lies farther from the detector is magnified; 0.46 * 1.06 stays below one half.
    return ratio * (1.06 if exposure.anteroposterior else 1.0) * anatomy.half_width


def _root(values: Layer) -> Layer:
    """Return the square root, 0 where there is none: outside an outline."""
    return np.asarray(np.sqrt(np.maximum(values, 0)))


def _exp(values: Layer) -> Layer:
    return np.asarray(np.exp(values))


def _ramp(values: Layer) -> Layer:
    return np.asarray(np.clip(values, 0, 1))


def _rounded(depth: Layer, width: float) -> Layer:
    """Rise from 0 at an outline to 1 at a depth of ``width``, as the thickness of a round body does."""
    inside = _ramp(depth * (1 / width))
    return _root(inside * (2 - inside))


def _ellipsoid(x: Layer, y: Layer, width: float, height: float) -> Layer:
    return _root(1 - (x * (1 / width)) ** 2 - (y * (1 / height)) ** 2)


def _bone(distance: Layer, radius: float) -> Layer:
    """Thickness across a long bone, whose cortex shows as two brighter margins."""
    squared = (distance * (1 / radius)) ** 2
    return _root(1 - squared) - 0.55 * _root(1 - 1.6 * squared)


def _texture(seed: int, size: int, cells: int) -> Layer:
    """Smooth noise of about unit variance with ``cells`` bumps across the image."""
    coarse = np.random.default_rng(seed).standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


class Phantom:
    """The layers of one image."""

    def __init__(self, anatomy: Anatomy, exposure: Exposure, size: int) -> None:
        self.anatomy, self.exposure, self.size = anatomy, exposure, size
        axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
        x, y = axis[None, :] - exposure.shift[0], axis[:, None] - exposure.shift[1]
        cos, sin = (float(f(exposure.angle)) / exposure.scale for f in (np.cos, np.sin))
        self.x: Layer = cos * x + sin * y
        self.y: Layer = cos * y - sin * x
        self.across = np.abs(self.x)
        self.left = _ramp(self.x * 5 + 0.5)
        self.top = anatomy.dome - exposure.breath
        up = _ramp(1 - (self.y - anatomy.apex) * (1 / 1.15))
        self.cage = anatomy.half_width * _root(1 - up * up * up)
        lateral = self.across * (1 / anatomy.half_width) - 0.45
        lateral = np.maximum(lateral, -0.45 * lateral) ** 2
        self.floor = self.top + anatomy.dome_tilt * self.left + anatomy.dome_curve * lateral
        self.lungs = (
            _rounded(self.cage - self.across, 0.2)
            * _rounded(self.across - 0.7 * anatomy.mediastinum, 0.12)
            * _rounded(self.floor - self.y, 0.06)
        )

    def soft_tissue(self) -> Layer:
        """Chest wall, shoulders, arms, abdomen with the gas of the stomach, and breasts."""
        anatomy, across, y = self.anatomy, self.across, self.y
        neck = _exp(np.maximum(across - 0.24, 0) * -4)
        body = _rounded(y - anatomy.apex - 0.03 + 0.6 * neck - 0.5 * np.maximum(across - 0.65, 0) ** 2, 0.35)
        flank = anatomy.half_width + anatomy.wall + 1.6 * np.maximum(-0.25 - y, 0)
        torso = _rounded(flank - across, 0.35) * body
        arms = _rounded(across - flank - 0.07 - 0.1 * y, 0.25) * body
        fat = 0.25 * _texture(anatomy.seed, self.size, 7)
        abdomen = _rounded(y - self.floor, 0.12)
        tissue: Layer = (2.1 + anatomy.fat * (0.8 + fat) + 1.5 * abdomen) * torso + 1.6 * arms
        if anatomy.bubble > 0.02:
            tissue -= 0.9 * _ellipsoid(self.x - 0.42, y - self.top - 0.2, 0.2, anatomy.bubble)
        if anatomy.female:
            breasts = _ellipsoid(across - 0.42, y - 0.22, 1.2 * anatomy.breast, anatomy.breast)
            tissue += 0.75 * breasts * _ramp((y - 0.22) * (1 / anatomy.breast) + 0.6)
        return tissue

    def bones(self) -> Layer:
        """Spine, ribs, clavicles, shoulder blades and the heads of the upper arms."""
        anatomy, across, y = self.anatomy, self.across, self.y
        spine = _rounded(0.085 - across, 0.04) * (0.25 + 0.09 * np.cos(y * (2 * np.pi / 0.125)))
        bow = anatomy.apex + anatomy.clavicle - 0.16 * (across - 0.1) + 0.07 * np.sin(across * 7)
        ends = _rounded(across - 0.1, 0.05) * _rounded(0.86 - across, 0.1)
        blade = _rounded(0.16 - np.abs(across - 0.95 + 0.25 * y), 0.1)
        blade *= _ramp(1 - np.abs(y + 0.3) * 2.5)
        head = _ellipsoid(across - 0.98, y - anatomy.apex - 0.22, 0.14, 0.15)
        return self._ribs() + spine + 0.85 * ends * _bone(y - bow, 0.045) + 0.35 * blade + 0.5 * head

    def _ribs(self) -> Layer:
        # A rib is a ring that leans forwards: its back half shows above its centre, its front half below.
        anatomy, edge = self.anatomy, self.cage + 0.02
        bend = anatomy.rib_slope * _root(1 - (self.across / edge) ** 2)
        height = self.y - anatomy.apex - 0.1
        ribs = np.zeros_like(self.x)
        for sign, last, radius, density, medial in ((1, 11, 0.036, 0.62, 0.07), (-1, 7, 0.042, 0.42, 0.33)):
            place = height + sign * bend
            nearest = np.clip(np.round(place * (1 / anatomy.rib_spacing)), 0, last) * anatomy.rib_spacing
            ribs += density * _rounded(self.across - medial, 0.1) * _bone(place - nearest, radius)
        hidden = 1 - np.float32(0.65) * (self.y > self.floor)
        return anatomy.rib_density * ribs * (self.across < edge) * hidden

    def heart(self, *, enlarged: bool) -> Layer:
        """Shadow of the heart above the diaphragm, 0 to 1."""
        anatomy = self.anatomy
        half = heart_half_width(anatomy, self.exposure, enlarged=enlarged)
        y = self.y - (self.top - 0.06)
        x = self.x - 0.38 * half - anatomy.heart_slant * y
        # Slanting widens an ellipse; its own half width makes up for that, so that the shadow's is ``half``.
        own = float(np.sqrt(half**2 - (anatomy.heart_slant * anatomy.heart_height) ** 2))
        return _root(_ellipsoid(x, y, own, anatomy.heart_height)) * self._above_floor()

    def _above_floor(self) -> Layer:
        return 1 - 0.8 * _ramp((self.y - self.floor) * 8)

    def mediastinum(self, heart: Layer) -> Layer:
        """The heart joined with the great vessels, the hila and the windpipe."""
        width = self.anatomy.mediastinum
        ramp = _ramp((self.y + 0.45) * (1 / (self.top + 0.45))) ** 2
        waist = width + (0.05 + 0.08 * self.left) * ramp + 0.06 * _exp(-((self.y * 5 + 4.25) ** 2))
        column = _rounded(waist - self.across, 0.14) * self._above_floor()
        knob = _root(_ellipsoid(self.x - width + 0.02, self.y + 0.36, self.anatomy.aorta, 0.13))
        solid: Layer = np.maximum(np.maximum(column, 0.9 * knob), heart)
        hila = _exp(
            -((14 * (self.across - width - 0.08)) ** 2) - (8 * (self.y + 0.1 + 0.04 * self.left)) ** 2
        )
        windpipe = _exp(-((self.x * 22) ** 2)) * _ramp(-2.5 - 10 * self.y)
        shadow: Layer = _SOLID * solid + 0.4 * hila * (1 - solid) - 0.5 * windpipe
        return shadow

    def vessels(self) -> Layer:
        """Branches that leave the hila, thinner and fainter outwards."""
        rng = np.random.default_rng(self.anatomy.seed)
        count, steps = 80, 8
        turns = np.cumsum(rng.normal(0, 0.25, (count, steps)), axis=1) + rng.uniform(-1.4, 1.5, (count, 1))
        strides = rng.uniform(0.04, 0.08, (count, 1))
        side = np.where(np.arange(count) % 2, 1, -1)[:, None]
        x = side * (self.anatomy.mediastinum + np.cumsum(np.cos(turns) * strides, axis=1))
        y = rng.normal(-0.1, 0.12, (count, 1)) + np.cumsum(np.sin(turns) * strides, axis=1)
        canvas = Image.new("L", (2 * self.size, 2 * self.size))
        pen = ImageDraw.Draw(canvas)
        for branch in self._to_pixels(x, y) * 2:
            for k in range(steps - 1):
                width = max(1, round(0.017 * (1 - k / steps) * self.size))
                pen.line(branch[k : k + 2].ravel().tolist(), fill=200 - 20 * k, width=width)
        return np.asarray(canvas.reduce(2), dtype=np.float32) * (0.45 / 255) * (self.lungs > 0)

    def _to_pixels(self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        taken = self.exposure
        cos, sin = np.cos(taken.angle) * taken.scale, np.sin(taken.angle) * taken.scale
        places = np.stack([cos * x - sin * y + taken.shift[0], sin * x + cos * y + taken.shift[1]], axis=-1)
        return (places + 1) * (self.size / 2)

    def _around(self, side: int, across: float, down: float) -> tuple[Layer, Layer]:
        """Coordinates about a place in a lung, given as fractions of its half width and height."""
        x = side * across * self.anatomy.half_width
        y = self.anatomy.apex + down * (self.top + 0.1 - self.anatomy.apex)
        return self.x - x, self.y - y

    def nodule(self) -> Layer:
        """A small ball."""
        anatomy = self.anatomy
        x, y = self._around(anatomy.nodule_side, anatomy.nodule_across, anatomy.nodule_down)
        ball = _ellipsoid(x, y, anatomy.nodule_radius, anatomy.nodule_radius)
        return anatomy.nodule_density * self.exposure.severity * ball

    def opacity(self) -> Layer:
        """A soft patch of air spaces that have filled, with a ragged outline."""
        anatomy = self.anatomy
        x, y = self._around(anatomy.opacity_side, anatomy.opacity_across, anatomy.opacity_down)
        distance = _root(x * x + y * y) * (1 / anatomy.opacity_radius)
        ragged = 1 - distance + 0.35 * _texture(anatomy.seed + 1, self.size, 12)
        patch: Layer = _ramp(1.4 * ragged) * _ramp(2.2 - 1.3 * distance) * self.lungs
        patch *= 1 + 0.15 * _texture(anatomy.seed + 2, self.size, 40)
        return patch * (anatomy.opacity_density * self.exposure.severity)

    def effusion(self) -> Layer:
        """Fluid that fills a costophrenic angle and climbs the chest wall."""
        anatomy = self.anatomy
        height = anatomy.effusion_height * self.exposure.severity
        climb = 0.2 * _exp(np.maximum(self.cage - self.across, 0) * -10)
        fluid: Layer = _ramp((self.y - self.top - 0.25 + height + climb) * (1 / 0.16))
        fluid *= _AIR * fluid * (3 - 2 * fluid) * self.lungs
        return fluid * (self.x * anatomy.effusion_side > 0)


def _expose(thickness: Layer, exposure: Exposure) -> npt.NDArray[np.uint8]:
    """Blur, add the noise of counting photons, and show the logarithm of the count on a film's curve."""
    for _ in range(2):  # along y, then, transposed, along x
        padded = np.pad(thickness, ((1, 1), (0, 0)), mode="edge")
        thickness = (0.25 * (padded[:-2] + padded[2:]) + 0.5 * padded[1:-1]).T
    noise = np.random.default_rng(exposure.seed).standard_normal(thickness.shape, dtype=np.float32)
    seen = thickness + noise * _exp(0.5 * thickness) * exposure.photons**-0.5
    tone = 0.5 + 0.5 * np.tanh((seen - exposure.middle) * (0.5 * exposure.contrast))
    return np.asarray(tone * 255 + 0.5, dtype=np.uint8)


def _box(layer: Layer) -> Box:
    """Return the x, y, width and height, as fractions, of where a finding is plainly there."""
    there = layer > 0.3 * layer.max()
    columns, rows = np.flatnonzero(there.any(axis=0)), np.flatnonzero(there.any(axis=1))
    x, y, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return x / len(layer), y / len(layer), (right - x) / len(layer), (bottom - y) / len(layer)


def draw(
    anatomy: Anatomy, exposure: Exposure, findings: Collection[str], *, size: int
) -> tuple[npt.NDArray[np.uint8], dict[str, Box]]:
    """Draw a radiograph.

    Args:
        anatomy: The patient.
        exposure: How this image is taken, its noise included.
        findings: Names among ``patients.FINDINGS``; the rest of the image does not depend on them.
        size: Height and width in pixels.

    Returns:
        Grey values, shape ``(size, size)``, bone being bright, and for each finding its ``x, y, width,
        height`` as fractions of the image, ``x, y`` being the upper left corner.
    """
    phantom = Phantom(anatomy, exposure, size)
    heart = phantom.heart(enlarged="Cardiomegaly" in findings)
    lesions = {"Effusion": phantom.effusion, "Nodule": phantom.nodule, "Opacity": phantom.opacity}
    layers = {name: lesion() for name, lesion in lesions.items() if name in findings}
    thickness = phantom.soft_tissue() - _AIR * phantom.lungs + phantom.mediastinum(heart)
    thickness += phantom.bones() + phantom.vessels() + sum(layers.values())
    if "Cardiomegaly" in findings:
        layers["Cardiomegaly"] = heart
    return _expose(thickness, exposure), {name: _box(layer) for name, layer in layers.items()}
