"""Pictures of patients for an audit: grids, pairs side by side, and an animation for each label."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from cxrlab.atomic import replacing
from cxrlab.data.manifest import Manifest

_JPEG_QUALITY = 80
_GIF_IMAGES = 100
_GIF_SIDE = 112  # 100 frames stay below 2 MB even for noise, on which GIF takes 1.5 bytes a pixel
_GIF_MILLISECONDS = 150
_GAP = 4


class Pixels(Protocol):
    """Images by row number: ``pixels[rows]`` is uint8 of shape ``(n, C, S, S)``."""

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.uint8]:
        """Return the images of ``rows``, a list or array of row numbers."""
        ...


def sample_rows(
    manifest: Manifest, label: str, rows: npt.NDArray[np.intp], *, count: int, seed: int
) -> list[int]:
    """Return up to ``count`` row numbers out of ``rows`` on which ``label`` is present, drawn by the seed.

    No patient stands in twice as long as there are others: one with many images would fill the grid.
    """
    positive = rows[manifest.targets[rows, manifest.labels.index(label)] == 1]
    drawn = np.random.default_rng(seed).permutation(positive)
    again = manifest.table["patient"].iloc[drawn].duplicated().to_numpy()
    return [int(row) for row in np.concatenate([drawn[~again], drawn[again]])[:count]]


def strip(pixels: Pixels, rows: Sequence[int], *, side: int) -> bytes:
    """Return the images of ``rows`` side by side, each ``side`` pixels high, as JPEG."""
    images = _resized(pixels, rows, side)
    sheet = Image.new(images[0].mode, (len(images) * (side + _GAP) - _GAP, side), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index * (side + _GAP), 0))
    memory = io.BytesIO()
    sheet.save(memory, format="JPEG", quality=_JPEG_QUALITY)
    return memory.getvalue()


def animate(pixels: Pixels, rows: Sequence[int], path: Path) -> None:
    """Write an endless GIF of the first 100 of ``rows``, 112 pixels wide and below 2 MB.

    Raises:
        OSError: If the file cannot be written.
    """
    frames = _resized(pixels, rows[:_GIF_IMAGES], _GIF_SIDE)
    with replacing(path) as temporary:
        frames[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=_GIF_MILLISECONDS,
            loop=0,
        )


def _resized(pixels: Pixels, rows: Sequence[int], side: int) -> list[Image.Image]:
    order = np.argsort(rows, kind="stable")  # a file is read faster from its beginning to its end
    images = np.asarray(pixels[np.asarray(rows)[order]])[np.argsort(order, kind="stable")]
    size = (side, side)
    return [_image(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0) for image in images]


def _image(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    if len(pixels) == 1 or (np.array_equal(pixels[0], pixels[1]) and np.array_equal(pixels[1], pixels[2])):
        return Image.fromarray(np.ascontiguousarray(pixels[0]))
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def file_names(labels: Sequence[str]) -> dict[str, str]:
    """Return a file name, without its ending, for each label; no two are the same, also on case-blind disks.

    Example:
        >>> file_names(["Pleural Thickening", "a/b", "A b", ".."])
        {'Pleural Thickening': 'Pleural_Thickening', 'a/b': 'a_b', 'A b': 'A_b_2', '..': 'label'}
    """
    names: dict[str, str] = {}
    for label in labels:
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", label).strip("_")[:60] or "label"
        name, number, taken = stem, 1, {used.lower() for used in names.values()}
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}"
        names[label] = name
    return names
