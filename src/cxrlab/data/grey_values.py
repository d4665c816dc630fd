"""What the stored values of a picture tell of its black and white."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.int64]
Words = npt.NDArray[np.int32]
Reading = Callable[[Words], Words]

# What detectors and converters give; a file of 16 bits holds any of them.
DEPTHS = (8, 10, 12, 14, 16)

# A border or a mark that was burnt in has few values, far from those of the picture.
_FEW_VALUES = 8
_MANY_VALUES = 32

# Pixels that are looked at to tell one reading from another.
_NUM_SAMPLED = 2**18
# Cut to their lowest bits, neighbours differ by a third of what those bits hold, in a radiograph by far less;
# and their correlation, above 0.9 in a radiograph, is near 0.
_JUMPY, _MORE_ALIKE = 0.25, 0.3


def depth_of(highest: int) -> int:
    """Return the smallest usual number of bits that holds a value.

    Example:
        >>> depth_of(4095), depth_of(4096)
        (12, 14)
    """
    return next(depth for depth in DEPTHS if highest < 2**depth or depth == DEPTHS[-1])


def picture_range(values: Values) -> tuple[int, int]:
    """Return the least and the greatest value of a picture, without a border or a mark far from its values.

    A few values beyond a gap that is wider than all the others together are none of the picture's: with them
    it would keep a few grey levels near black or white.

    Args:
        values: The values that occur, rising, at least one.

    Example:
        >>> picture_range(np.array([*range(4096), 65535]))
        (0, 4095)
    """
    first, last = 0, len(values) - 1
    # One side may have to go before the gap at the other is the widest: 0, the picture, 65535.
    for _ in range(2):
        gaps = np.diff(values[first : last + 1])
        if not gaps.size or 2 * int(gaps.max()) <= int(values[last] - values[first]):
            break
        cut = first + int(gaps.argmax())
        below, above = cut - first + 1, last - cut
        if above <= _FEW_VALUES and below >= _MANY_VALUES:
            last = cut
        elif below <= _FEW_VALUES and above >= _MANY_VALUES:
            first = cut + 1
        else:
            break
    return int(values[first]), int(values[last])


def more_continuous(words: Words, asked: Reading, other: Reading) -> bool:
    """Tell whether another reading of stored words, of as many bits or more, is the picture.

    Looked at are neighbours between which the readings differ. A reading that wraps round jumps there, and
    one that takes what is none of the value, an overlay's bit for instance, jumps more.

    Args:
        words: As they are stored, shape ``(rows, columns)``.
        asked: Of an array of words, the values that are the picture unless they look otherwise.
        other: Of an array of words, other values.
    """
    step = max(1, words.size // _NUM_SAMPLED)
    across, down = words[::step], words[:, ::step]
    ones = np.concatenate([across[:, :-1].ravel(), down[:-1].ravel()])
    others = np.concatenate([across[:, 1:].ravel(), down[1:].ravel()])
    pairs = [(read(ones), read(others)) for read in (asked, other)]
    steps = np.abs((pairs[0][0] - pairs[1][0]) - (pairs[0][1] - pairs[1][1]))
    differs = steps > 0
    if not differs.any():
        return False
    jumps = [float(np.abs(one - another)[differs].mean()) for one, another in pairs]
    if 2 * jumps[1] < jumps[0]:
        return True
    likeness = [_correlation(one, another) for one, another in pairs]
    return jumps[0] > _JUMPY * float(steps[differs].min()) and likeness[1] > likeness[0] + _MORE_ALIKE


def _correlation(ones: Words, others: Words) -> float:
    """Return the correlation of pairs; 1 where nothing varies."""
    one, other = (values - values.mean(dtype=np.float64) for values in (ones, others))
    norm = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float(one @ other) / norm if norm else 1.0
