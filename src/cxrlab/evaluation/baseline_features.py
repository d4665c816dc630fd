"""Simple features of images for baselines: grey levels, the margin around the lungs, edges on a grid."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track

from cxrlab.data.lung_region import Mask, region_of
from cxrlab.metrics.logistic import Features
from cxrlab.runs.predict import ImageRows

SIDE = 64
"""Pixels along a side of the images that features are taken from."""

_BLOCKS = 8
_BINS = 32
_CELLS, _ORIENTATIONS, _MOST_OF_BLOCK = 4, 9, 0.2
_QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
_AROUND_LUNGS = 2  # pixels of SIDE that the lungs' region is widened by on each side, since it is rough
_LEAST_MARGIN = 0.05  # of the image's area; of less nothing is said
_AT_ONCE = 64
_SHOWN_FROM = 1000  # images; fewer take no longer than drawing a bar
_MAX_THREADS = 8


@dataclass(frozen=True)
class ImageFeatures:
    """What is taken from N images.

    Attributes:
        grey: Mean, standard deviation and quantiles of the grey values, shape ``(N, 11)``.
        margin: Outside the lungs' region, a box around both that is widened a little: histogram of 32 bins,
            and the means of 8 by 8 blocks, of which those inside the region have the margin's own mean; NaN
            where the region leaves hardly anything, shape ``(N, 96)``.
        whole: Of the whole image: histogram of 32 bins, means of 8 by 8 blocks, and histograms of oriented
            gradients, shape ``(N, 420)``.
        has_lungs: Whether the lungs' region was found, shape ``(N,)``; the usual place stands for it
            elsewhere.
    """

    grey: Features
    margin: Features
    whole: Features
    has_lungs: npt.NDArray[np.bool_]


def image_features(images: ImageRows, rows: Sequence[int], what: str) -> ImageFeatures:
    """Return the features of images, in about 3 ms of one core each.

    Args:
        images: Decoded, values 0 to 255.
        rows: Of the images, N of them.
        what: They are, for the progress bar.
    """
    starts = range(0, len(rows), _AT_ONCE)

    def measured(start: int) -> ImageFeatures:
        return batch_features(images[[int(row) for row in rows[start : start + _AT_ONCE]]])

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as threads:
        is_short = len(rows) < _SHOWN_FROM
        parts = list(
            track(
                threads.map(measured, starts),
                f"Features of {what}",
                total=len(starts),
                console=Console(stderr=True),
                disable=is_short,
            )
        )
    return ImageFeatures(
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(ImageFeatures))
    )


def batch_features(images: npt.NDArray[np.uint8]) -> ImageFeatures:
    """Return the features of images ``(N, C, H, W)``, values 0 to 255."""
    grey, small = _grey_and_small(images)
    regions, has_lungs = _regions(small)
    margins = [_margin(one, region) for one, region in zip(small, regions, strict=True)]
    histograms = [_histogram(one.ravel()) for one in small]
    blocks = _block_means(small).reshape(len(small), -1)
    whole = np.concatenate([histograms, blocks, oriented_gradients(small)], axis=1).astype(np.float32)
    return ImageFeatures(np.stack([_statistics(one) for one in grey]), np.stack(margins), whole, has_lungs)


def lung_regions(images: npt.NDArray[np.uint8]) -> tuple[Mask, Mask]:
    """Return a box around both lungs, widened a little, of images ``(N, C, H, W)``.

    Returns:
        The pixels inside, shape ``(N, 64, 64)``, and whether lungs were found, ``(N,)``; where they were not,
        the box is the usual place.
    """
    return _regions(_grey_and_small(images)[1])


def _grey_and_small(images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], Features]:
    """Return grey images, and the same of 64 by 64 pixels."""
    grey = images[:, 0] if images.shape[1] == 1 else images.mean(axis=1).round().astype(np.uint8)
    resized = F.interpolate(torch.from_numpy(grey)[:, None].float(), size=(SIDE, SIDE), mode="area")
    return grey, resized[:, 0].numpy()


def _regions(small: Features) -> tuple[Mask, Mask]:
    regions = [region_of(one.astype(np.float64)) for one in small]
    is_found = np.array([region.is_found for region in regions], dtype=bool)
    return np.stack([_widened(region.mask) for region in regions]), is_found


def oriented_gradients(images: Features) -> Features:
    """Return histograms of oriented gradients: 9 bins in 4 by 4 cells, normalised in blocks of 2 by 2 cells.

    A gradient counts for the two bins next to its direction (up to its sign), by its size. Blocks overlap,
    and are normalised, cut at 0.2 and normalised again.

    Args:
        images: Shape ``(N, S, S)``, where 4 divides S.

    Returns:
        Shape ``(N, 324)``.

    References:
        Dalal and Triggs, Histograms of Oriented Gradients for Human Detection, CVPR 2005.
    """
    down, right = (_central(images, axis) for axis in (1, 2))
    sizes = np.hypot(down, right)
    places = (np.arctan2(down, right) % np.pi) * (_ORIENTATIONS / np.pi) - 0.5
    lower = np.floor(places)
    upper_share = places - lower
    cells = np.empty((len(images), _CELLS, _CELLS, _ORIENTATIONS), dtype=np.float32)
    shape = (len(images), _CELLS, images.shape[1] // _CELLS, _CELLS, images.shape[2] // _CELLS)
    for number in range(_ORIENTATIONS):
        shares = np.where(lower % _ORIENTATIONS == number, 1 - upper_share, 0.0)
        shares += np.where((lower + 1) % _ORIENTATIONS == number, upper_share, 0.0)
        cells[..., number] = (sizes * shares).reshape(shape).sum(axis=(2, 4))
    corners = [(row, column) for row in range(_CELLS - 1) for column in range(_CELLS - 1)]
    blocks = np.stack(
        [cells[:, row : row + 2, column : column + 2].reshape(len(images), -1) for row, column in corners],
        axis=1,
    )
    blocks = _normalized(np.minimum(_normalized(blocks), _MOST_OF_BLOCK))
    return np.asarray(blocks.reshape(len(images), -1), dtype=np.float32)


def _central(images: Features, axis: int) -> Features:
    """Return central differences along an axis, 0 at the ends."""
    differences = np.zeros_like(images)
    ahead, behind, inside = ([slice(None)] * 3 for _ in range(3))
    ahead[axis], behind[axis], inside[axis] = slice(2, None), slice(None, -2), slice(1, -1)
    differences[tuple(inside)] = images[tuple(ahead)] - images[tuple(behind)]
    return differences


def _normalized(blocks: Features) -> Features:
    return np.asarray(blocks / (np.linalg.norm(blocks, axis=2, keepdims=True) + 1e-3))


def _statistics(grey: npt.NDArray[np.uint8]) -> Features:
    counts = np.bincount(grey.ravel(), minlength=256) / grey.size
    levels = np.arange(256)
    mean = counts @ levels
    deviation = np.sqrt(counts @ (levels - mean) ** 2)
    quantiles = np.searchsorted(np.cumsum(counts), _QUANTILES)
    return np.array([mean, deviation, *quantiles], dtype=np.float32)


def _histogram(values: Features) -> Features:
    bins = (values * (_BINS / 256)).astype(np.intp)
    return (np.bincount(bins, minlength=_BINS) / len(values)).astype(np.float32)


def _block_means(images: npt.NDArray[Any]) -> Features:
    cells = SIDE // _BLOCKS
    blocks = images.reshape(*images.shape[:-2], _BLOCKS, cells, _BLOCKS, cells)
    return np.asarray(blocks.mean(axis=(-3, -1)), dtype=np.float32)


def _widened(region: Mask) -> Mask:
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    widened = np.zeros_like(region)
    top, left = (max(0, ends[0] - _AROUND_LUNGS) for ends in (rows, columns))
    widened[top : rows[-1] + 1 + _AROUND_LUNGS, left : columns[-1] + 1 + _AROUND_LUNGS] = True
    return widened


def _margin(small: Features, region: Mask) -> Features:
    outside = ~region
    if outside.mean() < _LEAST_MARGIN:
        return np.full(_BINS + _BLOCKS**2, np.nan, dtype=np.float32)
    values = small[outside]
    sums, sizes = _block_means(np.where(outside, small, 0)), _block_means(outside)
    means = np.where(sizes > 0, sums / np.maximum(sizes, 1e-9), values.mean())
    return np.concatenate([_histogram(values), means.ravel()]).astype(np.float32)
