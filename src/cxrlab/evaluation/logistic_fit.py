"""Maximum likelihood of a recalibrated logit: slope alone, or slope and intercept."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit

from cxrlab.evaluation.prediction_table import Floats

TEMPERATURES = (0.05, 20.0)
_STEPS = 100


def smoothed_targets(targets: npt.ArrayLike) -> Floats:
    """Return targets drawn in from 1 and 0, so that the likelihood has a maximum even for separable data.

    Present becomes (N+ + 1) / (N+ + 2) and absent 1 / (N- + 2): what the images say together with one that is
    undecided. With many images it is hardly a change; with few it keeps probabilities away from 0 and 1.

    Args:
        targets: 1 present, 0 absent, shape ``(N,)``.

    Example:
        >>> smoothed_targets([1, 0, 0])
        array([0.66666667, 0.25      , 0.25      ])

    References:
        Platt, Advances in Large Margin Classifiers, 61, 1999.
    """
    present = np.asarray(targets) == 1
    positives, negatives = present.sum(), (~present).sum()
    aims: Floats = np.where(present, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    return aims


def fit_temperature(logits: Floats, targets: Floats) -> float:
    """Return 1 / temperature, by which logits are to be multiplied; 1 where no logit differs from 0.

    Args:
        logits: Shape ``(N,)``.
        targets: Probabilities to be met, such as smoothed targets, shape ``(N,)``.

    Returns:
        Within the temperatures 0.05 to 20: a network that ranks no better than chance would else be given an
        infinite one.

    References:
        Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    if not logits.any():
        return 1.0

    def gradient(slope: float) -> float:  # of the negative log-likelihood, which is convex
        return float(np.dot(expit(slope * logits) - targets, logits))

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if gradient(low) >= 0:
        return low
    return float(brentq(gradient, low, high, xtol=1e-10)) if gradient(high) > 0 else high


def fit_line(logits: Floats, targets: Floats) -> tuple[float, float]:
    """Return slope and intercept of the recalibrated logit, by Newton's method with step halving.

    Args:
        logits: Shape ``(N,)``.
        targets: Probabilities to be met, strictly between 0 and 1 on average, shape ``(N,)``.

    Returns:
        The slope may be negative; it is 1 where all logits are equal and leave it open.
    """
    spread = float(logits.std())
    if spread < 1e-9:
        return 1.0, float(logit(targets.mean()) - logits.mean())
    # On standardised logits the two parameters are nearly independent of each other.
    columns = np.stack([(logits - logits.mean()) / spread, np.ones_like(logits)])
    line = np.array([0.0, float(logit(targets.mean()))])
    for _ in range(_STEPS):
        fitted = expit(line @ columns)
        gradient = columns @ (fitted - targets)
        hessian = (columns * (fitted * (1 - fitted))) @ columns.T
        step = np.linalg.solve(hessian, gradient)
        line = _descend(line, step, columns, targets)
        if np.abs(step).max() < 1e-10:
            break
    slope = float(line[0]) / spread
    return slope, float(line[1]) - slope * float(logits.mean())


def _descend(line: Floats, step: Floats, columns: Floats, targets: Floats) -> Floats:
    """Go along Newton's step, or the half, the quarter… of it, to where the likelihood is no worse."""

    def loss(at: Floats) -> float:
        shifted = at @ columns
        return float((np.logaddexp(0.0, shifted) - targets * shifted).mean())

    limit, share = loss(line) + 1e-14, 1.0
    while loss(line - share * step) > limit and share > 1e-6:
        share /= 2
    return line - share * step
