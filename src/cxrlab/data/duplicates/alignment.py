"""How far two pictures differ once one is laid over the other.

Copies of an exposure differ by resampling, by a cropped edge, by brightness and by compression; two exposures
of one patient differ in how ribs, heart and skin fall on one another. The measure takes away the former (a
small shift and stretch, found by least squares from coarse to fine, and the slow variation of brightness) and
compares what is left: edges and texture of one or two hundredths of the width.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

SIZE = 64
"""Height and width of a thumbnail in pixels."""

_BATCH = 64


class _Level(NamedTuple):
    """How to register at one resolution; lengths in its pixels."""

    size: int
    background: float  # standard deviation of the blur that is taken away
    iterations: int
    margin: int  # left out, since the edge of one image is beyond that of the other


_COARSE = _Level(32, background=2.0, iterations=2, margin=2)
_FINE = _Level(64, background=3.0, iterations=3, margin=4)
# Fine enough that a strong outline, which all bodies share, does not outweigh the rest.
_DETAIL = 1.0
# Pairs that differ by more than this at half the resolution are not registered further: copies reach 0.12.
_HOPELESS = 0.2
# The largest shift or stretch, as a share of the width.
_REACH = 1 / 16
_NUM_MOVES = 4


@lru_cache(maxsize=16)
def _blur(source: int, target: int, deviation: float) -> Floats:
    """Return the weights ``(target, source)`` of a Gaussian; its deviation is in target pixels."""
    scale = source / target
    centres = (np.arange(target) + 0.5) * scale - 0.5
    offsets = (np.arange(source) - centres[:, None]) / max(deviation * scale, 0.5)
    weights = np.exp(-0.5 * offsets**2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def thumbnails(images: npt.NDArray[np.uint8]) -> Floats:
    """Return small, mildly blurred grey images, shape ``(N, 64, 64)``.

    Args:
        images: Any number of channels, which are averaged, shape ``(N, C, H, W)``.
    """
    height, width = images.shape[-2:]
    rows, columns = _blur(height, SIZE, 0.7), _blur(width, SIZE, 0.7)
    small = np.empty((len(images), SIZE, SIZE), dtype=np.float32)
    for start in range(0, len(images), _BATCH):  # as float, images of 320 px would fill the memory
        batch = images[start : start + _BATCH]
        grey = batch.sum(axis=1, dtype=np.float32) / batch.shape[1]
        small[start : start + _BATCH] = rows @ grey @ columns.T
    return small


def differences(ones: Floats, others: Floats) -> Floats:
    """Return how much of each pair's detail is not shared: 0 the same, 1 unrelated.

    Args:
        ones: Thumbnails, shape ``(N, 64, 64)``.
        others: Thumbnails to lay over them, of the same shape.

    Returns:
        One minus the correlation of the detail after registration, 0 to 2, shape ``(N,)``.
    """
    halves = [images.reshape(-1, 32, 2, 32, 2).mean(axis=(2, 4)) for images in (ones, others)]
    moves = np.zeros((len(ones), _NUM_MOVES), dtype=np.float32)
    moves = _register(halves[0], halves[1], _COARSE, moves)
    difference = 1 - _agreement(halves[0], halves[1], _COARSE, _DETAIL, moves)
    promising = np.flatnonzero(difference < _HOPELESS)
    moves = _register(ones[promising], others[promising], _FINE, 2 * moves[promising])
    difference[promising] = 1 - _agreement(ones[promising], others[promising], _FINE, _DETAIL, moves)
    return np.asarray(np.maximum(difference, 0.0), dtype=np.float32)


def _detail(images: Floats, background: float) -> Floats:
    blur = _blur(images.shape[-1], images.shape[-1], background)
    return np.asarray(images - blur @ images @ blur.T, dtype=np.float32)


def _inner(images: Floats, margin: int) -> Floats:
    """Return the pixels inside the margin in one row, shape ``(..., P)``."""
    inner = images[..., margin:-margin, margin:-margin]
    return inner.reshape(*inner.shape[:-2], inner.shape[-2] * inner.shape[-1])


def _agreement(ones: Floats, others: Floats, level: _Level, background: float, moves: Floats) -> Floats:
    """Return the correlation of the details of each pair, ``(N,)``; 0 where there is no detail."""
    pair = (_detail(ones, background), _moved(_detail(others, background), moves))
    one, other = (_inner(images, level.margin) for images in pair)
    one, other = (flat - flat.mean(axis=1, keepdims=True) for flat in (one, other))
    norms = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return np.asarray((one * other).sum(axis=1) / np.maximum(norms, 1e-6), dtype=np.float32)


def _moved(images: Floats, moves: Floats) -> Floats:
    """Shift and stretch images, bilinearly.

    Args:
        images: Shape ``(N, T, T)``.
        moves: Shift in x, growth of it from the centre to the edge, and the same in y; in pixels, ``(N, 4)``.
    """
    size = images.shape[-1]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    pixel = np.arange(size, dtype=np.float32)
    across, down = (
        np.clip(pixel + moves[:, axis, None] + moves[:, axis + 1, None] * ramp, 0, size - 1.001)
        for axis in (0, 2)
    )
    # A shift that only depends on its own axis is a matrix of two weights a row: product, not gather.
    moved = _weights(down) @ images @ _weights(across).transpose(0, 2, 1)
    return np.asarray(moved, dtype=np.float32)


def _weights(places: Floats) -> Floats:
    """Return linear interpolation at ``places`` (N, T) as matrices ``(N, T, T)``."""
    pixel = np.arange(places.shape[1], dtype=np.float32)
    weights = np.maximum(0, 1 - np.abs(places[:, :, None] - pixel))
    return np.asarray(weights, dtype=np.float32)


def _register(ones: Floats, others: Floats, level: _Level, moves: Floats) -> Floats:
    """Improve the moves that lay ``others`` over ``ones``, by Gauss-Newton steps with gain and offset."""
    reach = _REACH * level.size
    target = _inner(_detail(ones, level.background), level.margin)[:, :, None]
    source = _detail(others, level.background)
    for _ in range(level.iterations):
        design = _design(_moved(source, moves), level.margin)
        normal = design @ design.transpose(0, 2, 1)
        # A trace of the identity keeps the system regular where there is no detail.
        ridge = 1e-6 + 1e-6 * np.trace(normal, axis1=1, axis2=2)
        normal += ridge[:, None, None] * np.eye(normal.shape[1], dtype=np.float32)
        solution = np.linalg.solve(normal, design @ target)[:, :, 0]
        gain = np.maximum(solution[:, _NUM_MOVES, None], 0.2)
        moves = np.clip(moves + solution[:, :_NUM_MOVES] / gain, -reach, reach).astype(np.float32)
    return moves


def _design(images: Floats, margin: int) -> Floats:
    """Return what each move, the gain and the offset change in each pixel, shape ``(N, 6, P)``."""
    size = images.shape[-1]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    down, across = np.gradient(images, axis=(1, 2))
    effects = [across, across * ramp, down, down * ramp[:, None], images, np.ones_like(images)]
    return _inner(np.stack(effects, axis=1).astype(np.float32, copy=False), margin)
