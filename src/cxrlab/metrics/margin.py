"""How far a threshold may move: balanced accuracy by threshold, smoothed, and its plateau."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, ndtr

from cxrlab.metrics.predictions import Floats, PredictionTable

MARGIN_LOSS = 0.01
"""Of balanced accuracy: a threshold may move through its margin and lose less than this."""

NARROW = 0.5
"""A margin that is narrower than this, on the logit scale, is flagged."""

ONE_SIDED = 0.1
"""So is one of which less than this share, on the logit scale, lies on one side of the threshold."""

_SMALLEST = 1e-7  # what a float32 of 1 - p still tells from 1
_SILVERMAN = 0.9
_NORMAL_QUARTILES = 1.349  # between those of a standard normal
_LEAST_SPREAD = 0.1  # where each class has one value
_REACH = 4.0  # widths, beyond which a kernel is nothing
_NUM_GRID = 512


@dataclass(frozen=True)
class ThresholdBasis:
    """On what the threshold of a label was chosen, and how far it may move.

    Attributes:
        low: From here on thresholds lose less than :data:`MARGIN_LOSS` of balanced accuracy against the
            chosen one, on the images that it was chosen on; None where none was chosen.
        high: Up to here.
        positives: Images with the finding that it was chosen on.
        negatives: Images without it.
        positive_patients: Patients with such images; None where patients are unknown.
        negative_patients: The same of images without it.
    """

    low: float | None
    high: float | None
    positives: int
    negatives: int
    positive_patients: int | None
    negative_patients: int | None


def threshold_basis(table: PredictionTable, thresholds: Floats) -> list[ThresholdBasis]:
    """Return on what the threshold of each label was chosen, and its margin.

    Args:
        table: What thresholds were chosen on.
        thresholds: Shape ``(L,)``; NaN where none could be chosen.
    """
    result = []
    for column, threshold in enumerate(thresholds):
        targets = table.targets[:, column]
        low, high = threshold_margin(table.probabilities[:, column], targets, float(threshold))
        positives, negatives = targets == 1, targets == 0
        patients = [
            len(np.unique(table.patients[rows])) if table.patients_known else None
            for rows in (positives, negatives)
        ]
        result.append(ThresholdBasis(low, high, int(positives.sum()), int(negatives.sum()), *patients))
    return result


def threshold_margin(
    probabilities: Floats, targets: Floats, threshold: float
) -> tuple[float | None, float | None]:
    """Return between which thresholds, without a break, less than :data:`MARGIN_LOSS` is lost.

    What is lost is balanced accuracy, as :func:`smoothed_accuracy` gives it, against the threshold itself:
    where that was chosen by another merit, such as a specificity, thresholds that gain belong to it. Counted
    image by image instead, one positive of thirty would be a loss of more than a point, and the margin would
    end at the next one.

    Args:
        probabilities: Values in [0, 1], shape ``(N,)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N,)``.
        threshold: NaN for none.

    Returns:
        Ends in [0, 1]; None and None without a threshold, or where one class is missing.
    """
    curve = smoothed_accuracy(probabilities, targets)
    if math.isnan(threshold) or curve is None:
        return None, None
    logits, accuracy = curve
    place = float(_logits(threshold))
    below, above = _range(logits, accuracy, place, float(np.interp(place, logits, accuracy)) - MARGIN_LOSS)
    return (
        0.0 if below <= logits[0] else min(float(expit(below)), threshold),
        1.0 if above >= logits[-1] else max(float(expit(above)), threshold),
    )


def smoothed_accuracy(probabilities: Floats, targets: Floats) -> tuple[Floats, Floats] | None:
    """Return the balanced accuracy by threshold, with the logits of both classes smoothed.

    Each class is smoothed by a normal kernel on the logit scale, of Silverman's width. Thresholds that
    maximise the smoothed curve come closer to the best of the population than those that maximise the
    counts, and none of them hangs on a single image (Fluss et al., Biom J 47:458, 2005).

    Args:
        probabilities: Values in [0, 1], shape ``(N,)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N,)``.

    Returns:
        Logits of thresholds, ascending, and the balanced accuracy at each; both of the same shape. None
        where one class is missing.

    References:
        Silverman, Density Estimation, 1986, section 3.4.2 (the width). Zou et al., Stat Med 16:2143, 1997
        (smoothed ROC curves).
    """
    scores = [_logits(probabilities[targets == value]) for value in (0, 1)]
    if not all(len(of_class) for of_class in scores):
        return None
    spreads = [_spread(of_class) for of_class in scores]
    # A class of one value says nothing of how far it spreads: as far as the other.
    spreads = [spread or max(*spreads, _LEAST_SPREAD) for spread in spreads]
    widths = [
        _SILVERMAN * spread * len(of_class) ** -0.2 for spread, of_class in zip(spreads, scores, strict=True)
    ]
    reach = _REACH * max(widths)
    grid = np.linspace(min(map(np.min, scores)) - reach, max(map(np.max, scores)) + reach, _NUM_GRID)
    below_grid = [_smoothed_share(*of_class, grid) for of_class in zip(scores, widths, strict=True)]
    return grid, (below_grid[0] + 1 - below_grid[1]) / 2


def middle_of_plateau(probabilities: Floats, targets: Floats) -> float:
    """Return the middle, on the logit scale, of the thresholds that lose less than :data:`MARGIN_LOSS`.

    What is lost is balanced accuracy, as :func:`smoothed_accuracy` gives it, against its maximum.

    Args:
        probabilities: Values in [0, 1], shape ``(N,)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N,)``.

    Returns:
        NaN where one class is missing.

    Example:
        >>> round(middle_of_plateau(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.0, 0.0, 1.0, 1.0])), 3)
        0.5
    """
    curve = smoothed_accuracy(probabilities, targets)
    if curve is None:
        return math.nan
    logits, accuracy = curve
    best = int(np.argmax(accuracy))
    ends = _range(logits, accuracy, float(logits[best]), float(accuracy[best]) - MARGIN_LOSS)
    return float(expit(sum(ends) / 2))


def middle_of_medians(probabilities: Floats, targets: Floats) -> float:
    """Return the middle, on the logit scale, of the two classes' medians.

    Where validation is nearly separable, every rule that asks for a share of a class takes a point at that
    class's edge; this one has both classes equally far away, whatever their edges do.

    Args:
        probabilities: Values in [0, 1], shape ``(N,)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N,)``.

    Returns:
        NaN where one class is missing.

    Example:
        >>> round(middle_of_medians(np.array([0.1, 0.2, 0.3, 0.8]), np.array([0.0, 0.0, 0.0, 1.0])), 3)
        0.5
    """
    scores = [_logits(probabilities[targets == value]) for value in (0, 1)]
    if not all(len(of_class) for of_class in scores):
        return math.nan
    return float(expit(sum(float(np.median(of_class)) for of_class in scores) / 2))


def margin_fault(low: float | None, threshold: float | None, high: float | None) -> str:
    """Return what is wrong with a margin: ``narrow``, ``one_sided``, or nothing.

    Limits are on the logit scale, on which a change of exposure or of machine moves predictions about alike
    wherever they lie: :data:`NARROW` for both sides together, :data:`ONE_SIDED` for the nearer one's share.

    Example:
        >>> margin_fault(0.2, 0.4, 0.6), margin_fault(0.39, 0.4, 0.9), margin_fault(0.39, 0.4, 0.42)
        ('', 'one_sided', 'narrow')
    """
    if low is None or threshold is None or high is None:
        return ""
    below, chosen, above = _logits([low, threshold, high])
    width = above - below
    if width < NARROW:
        return "narrow"
    return "one_sided" if min(chosen - below, above - chosen) < ONE_SIDED * width else ""


def _logits(probabilities: npt.ArrayLike) -> Floats:
    scores: Floats = logit(np.clip(np.asarray(probabilities, dtype=np.float64), _SMALLEST, 1 - _SMALLEST))
    return scores


def _spread(scores: Floats) -> float:
    """Return the lesser of standard deviation and scaled interquartile range; the former where that is 0."""
    deviation = float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
    quartiles = float(np.subtract(*np.quantile(scores, [0.75, 0.25]))) / _NORMAL_QUARTILES
    return min(deviation, quartiles) or deviation


def _smoothed_share(scores: Floats, width: float, grid: Floats) -> Floats:
    """Return the share of scores below each place of a grid, each score smoothed by a normal kernel.

    Scores are first shared out between their two neighbours on the grid, so that a hundred thousand cost no
    more than a thousand.
    """
    place = (scores - grid[0]) / (grid[1] - grid[0])
    left = np.minimum(place.astype(np.int64), len(grid) - 2)
    mass = np.bincount(left, left + 1 - place, len(grid)) + np.bincount(left + 1, place - left, len(grid))
    share: Floats = ndtr((grid[:, None] - grid) / width) @ (mass / len(scores))
    return share


def _range(logits: Floats, accuracy: Floats, place: float, least: float) -> tuple[float, float]:
    """Return where, to both sides of a place, a curve falls to ``least``; the ends of the curve at most."""
    falls = np.flatnonzero(accuracy <= least)
    before, after = falls[logits[falls] < place], falls[logits[falls] > place]
    ends = []
    for near, step in ((before[-1:], 1), (after[:1], -1)):
        if not len(near):
            ends.append(float(logits[0 if step == 1 else -1]))
            continue
        low, high = int(near[0]), int(near[0]) + step  # below and above ``least``
        share = (least - accuracy[low]) / (accuracy[high] - accuracy[low])
        ends.append(float(logits[low] + min(max(share, 0.0), 1.0) * (logits[high] - logits[low])))
    return min(ends[0], place), max(ends[1], place)
