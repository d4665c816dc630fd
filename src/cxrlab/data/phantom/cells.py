"""A drawn folder in the manner of the malaria cells, for lessons without the set."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cxrlab.data.phantom.new_folder import make_empty
from cxrlab.errors import check_range

Plane = npt.NDArray[Any]

# Colours of stained cells, from one laboratory's pink to another's grey violet, and of what is in them.
_STAINS = ((221, 150, 150), (215, 180, 185), (190, 185, 205), (200, 120, 150), (225, 190, 160))
_PALE = (240, 225, 215)
_PARASITE = (135, 30, 125)
_HEALTHY = 0.25
_INFECTED = 0.6


def draw_cell_folder(
    root: Path, *, num_patients: int = 40, num_cells: int = 15, size: int = 96, seed: int = 0
) -> Path:
    """Draw red blood cells into ``Parasitized`` and ``Uninfected``.

    Names are made as in the published set: ``C33P1thinF_IMG_20150619_114756a_cell_179.png`` is a cell of
    patient ``C33P1``. The cells of a patient share the colour of their slide. A quarter of the patients are
    healthy; of the others, three cells in five hold a parasite: a violet dot, most often with a ring. Some
    cells without one have a fainter speck of stain, which is none.

    Args:
        root: The folder, new or empty.
        num_patients: Patients.
        num_cells: Cells of each.
        size: The mean width of the images in pixels; widths and heights vary by a third.
        seed: The same seed gives the same images on the same versions of the libraries.

    Returns:
        ``root``, as ``data=malaria`` reads it.

    Raises:
        ConfigError: If a number is too small.
        OutputError: If ``root`` holds anything, or is a file.
    """
    check_range("num_patients", num_patients, 4)
    check_range("num_cells", num_cells, 2)
    check_range("size", size, 32)
    make_empty(root)
    for name in ("Parasitized", "Uninfected"):
        (root / name).mkdir()
    rng = np.random.default_rng(seed)
    num_healthy = round(_HEALTHY * num_patients)
    for patient in range(num_patients):
        stain = np.array(_STAINS[rng.integers(len(_STAINS))]) + rng.normal(0, 8, 3)
        slide = (
            f"C{patient + 33}P{patient + 1}thinF_IMG_{20150601 + patient % 28}_{rng.integers(100000, 160000)}"
        )
        for cell in range(1, num_cells + 1):
            infected = patient >= num_healthy and bool(rng.random() < _INFECTED)
            pixels = _draw_cell(rng, stain, size, infected=infected)
            folder = root / ("Parasitized" if infected else "Uninfected")
            Image.fromarray(pixels).save(folder / f"{slide}_cell_{cell}.png", compress_level=1)
    return root


def _draw_cell(rng: np.random.Generator, stain: Plane, size: int, *, infected: bool) -> npt.NDArray[np.uint8]:
    """Draw a cell on black, cut out along its outline as published ones are: ``(H, W, 3)``."""
    height, width = (round(size * rng.uniform(0.67, 1.33)) for _ in range(2))
    height = round(0.5 * (height + width) * rng.uniform(0.92, 1.08))  # no cell is twice as long as wide
    y, x = (
        (np.arange(side, dtype=np.float32) + 0.5)[shape] * (2 / side) - 1
        for side, shape in ((height, np.s_[:, None]), (width, np.s_[None, :]))
    )
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    waves = sum(
        rng.normal(0, 0.03) * np.cos(order * angle + rng.uniform(0, 2 * np.pi)) for order in range(2, 7)
    )
    depth = 0.93 + waves - radius
    colour = stain * rng.uniform(0.92, 1.06) * np.ones((height, width, 1))
    pale = rng.uniform(0, 0.7) * (rng.random() < 0.6)
    spot_x, spot_y = rng.normal(0, 0.12, 2)
    spread = rng.uniform(0.15, 0.35)
    colour = _mix(colour, _PALE, pale * np.exp(-((np.hypot(x - spot_x, y - spot_y) / spread) ** 2)))
    colour *= (1 - 0.2 * np.exp(-depth / 0.1).clip(0, 1))[..., None]
    if infected:
        colour = _parasite(rng, colour, x, y)
    elif rng.random() < 0.5:
        colour = _mix(colour, _PARASITE, rng.uniform(0.15, 0.5) * _dot(rng, x, y, rng.uniform(0.05, 0.12)))
    colour += 3 * rng.standard_normal(colour.shape, dtype=np.float32)
    colour *= np.clip(depth * min(height, width) / 2, 0, 1)[..., None]
    return np.asarray(colour.clip(0, 255) + 0.5, dtype=np.uint8)


def _parasite(rng: np.random.Generator, colour: Plane, x: Plane, y: Plane) -> Plane:
    strength = rng.uniform(0.28, 0.85)
    place, angle = rng.uniform(0.1, 0.7), rng.uniform(0, 2 * np.pi)
    distance = np.hypot(x - place * np.cos(angle), y - place * np.sin(angle))
    ring = rng.uniform(0.12, 0.2)
    if rng.random() < 0.7:
        colour = _mix(colour, _PARASITE, 0.6 * strength * np.exp(-(((distance - ring) / 0.045) ** 2)))
    beside = rng.uniform(0, 2 * np.pi)
    x, y = x - ring * np.cos(beside), y - ring * np.sin(beside)
    distance = np.hypot(x - place * np.cos(angle), y - place * np.sin(angle))
    return _mix(colour, _PARASITE, strength * np.exp(-((distance / rng.uniform(0.06, 0.12)) ** 4)))


def _dot(rng: np.random.Generator, x: Plane, y: Plane, radius: float) -> Plane:
    place, angle = rng.uniform(0, 0.75), rng.uniform(0, 2 * np.pi)
    distance = np.hypot(x - place * np.cos(angle), y - place * np.sin(angle))
    return np.asarray(np.exp(-((distance / radius) ** 2)))


def _mix(colour: Plane, other: tuple[int, ...], share: Plane) -> Plane:
    mixed: Plane = colour + (np.array(other) - colour) * share[..., None]
    return mixed
