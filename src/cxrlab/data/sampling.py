"""How often training images are drawn: rare findings as often as frequent ones, where that is wanted."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Sampling = Literal["even", "balanced"]


def balanced_weights(targets: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the probability of each image when a finding is drawn first, and then an image that shows it.

    "None of the labels" counts as one finding more, for the images where no label is known to be present. So
    a single label gives as many positives as negatives, and exclusive classes all come equally often.

    Args:
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.

    Returns:
        Shape ``(N,)``, summing to 1.

    Example:
        >>> balanced_weights(np.array([[1.0], [0.0], [0.0], [0.0]])).round(3).tolist()
        [0.5, 0.167, 0.167, 0.167]
    """
    is_present = targets == 1
    shown = np.column_stack([is_present, ~is_present.any(axis=1)]).astype(np.float64)
    counts = shown.sum(axis=0)
    weights = (shown[:, counts > 0] / counts[counts > 0]).sum(axis=1)
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares
