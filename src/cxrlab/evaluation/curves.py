"""ROC and precision-recall curves with pointwise confidence bands."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.metrics.bootstrap import patient_counts
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.ranking import Cumulated, Floats, ScoreOrder, Weights
from cxrlab.metrics.settings import EvaluationSettings

NUM_STEPS = 100
NUM_RESAMPLES = 200  # a band is drawn, not quoted: fewer than for a number are enough
COLUMNS = ["label", "curve", "x", "y", "low", "high"]


def label_curves(table: PredictionTable, settings: EvaluationSettings) -> pd.DataFrame:
    """Return both curves of each label at 101 points, with pointwise bands of 200 patient resamples.

    ROC points are joined by straight lines. Precision-recall points must not be, which would promise a
    precision that no threshold has; precision is a step as in the average precision, whose area the curve
    keeps. A band covers each point, not the whole curve, and is NaN where the resamples do not differ.

    Args:
        table: N images, L labels.
        settings: Coverage (``level``) and ``seed`` are used.

    Returns:
        Columns ``label``, ``curve``, ``x``, ``y``, ``low``, ``high``. For ``roc`` x is the false positive
        rate and y the sensitivity; for ``pr`` x is the recall (at 0: its limit from above) and y the
        precision. A label with one class only has no rows.

    References:
        Davis and Goadrich, The relationship between precision-recall and ROC curves, ICML 2006.
    """
    counts = patient_counts(table.num_patients, NUM_RESAMPLES, settings.seed)
    # The sample itself goes first.
    weights = np.concatenate([np.ones((len(counts), 1), dtype=np.float32), counts], axis=1)
    frames = []
    for column, label in enumerate(table.labels):
        rows = table.known[:, column]
        targets = table.targets[rows, column]
        if len(np.unique(targets)) == 2:
            scores, patients = table.probabilities[rows, column], table.patients[rows]
            order = ScoreOrder.of(scores, targets, patients, len(counts))
            for curve, points in _curves(order, weights).items():
                frames.append(_frame(label, curve, points, settings.level))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def _curves(order: ScoreOrder, weights: Weights) -> dict[str, Floats]:
    """Return y of each curve in the sample and in the resamples of both classes, shape ``(b, 101)``."""
    sums = order.cumulate(weights)
    has_both = np.flatnonzero((sums.hits[-1] > 0) & (sums.num_negatives > 0)).tolist()
    tied = np.zeros_like(sums.positives)
    tied[order.tied_groups] = sums.tied
    return {
        "roc": np.stack([_sensitivity(sums, tied[:, resample], resample) for resample in has_both]),
        "pr": np.stack([_precision(sums, resample) for resample in has_both]),
    }


def _sensitivity(sums: Cumulated, tied: npt.NDArray[np.floating], resample: int) -> Floats:
    """Return the highest sensitivity at each false positive rate, shape ``(101,)``."""
    false_alarms, hits = sums.false_alarms[:, resample], sums.hits[:, resample]
    # A division at the end keeps whole numbers whole, which decides on which side of a step a point lies.
    allowed = np.arange(NUM_STEPS + 1) * sums.num_negatives[resample] / NUM_STEPS
    passed = np.searchsorted(false_alarms, allowed, side="right")  # groups that are wholly allowed
    reached = np.concatenate([[0.0], hits])[passed]
    # The next group is taken in part if its negatives are tied with its positives: a sloping piece.
    partial = np.flatnonzero(passed < len(hits))
    group = passed[partial]
    inside = allowed[partial] - (false_alarms[group] - tied[group])
    share = np.clip(inside / np.maximum(tied[group], 1), 0, 1)
    reached[partial] += share * sums.positives[group, resample]
    return np.asarray(reached / hits[-1])


def _precision(sums: Cumulated, resample: int) -> Floats:
    """Return the precision at the highest threshold that reaches each recall, shape ``(101,)``."""
    hits = sums.hits[:, resample]
    needed = np.arange(NUM_STEPS + 1) * hits[-1] / NUM_STEPS
    group = np.searchsorted(hits, np.maximum(needed, np.finfo(float).tiny), side="left")
    return np.asarray(hits[group] / (hits[group] + sums.false_alarms[group, resample]))


def _frame(label: str, curve: str, points: Floats, level: float) -> pd.DataFrame:
    value, samples = points[0], points[1:]
    low, high = np.full((2, NUM_STEPS + 1), np.nan)
    if len(samples):
        bounds = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
        low, high = np.where(np.ptp(samples, axis=0) > 1e-12, bounds, np.nan)
    grid = np.arange(NUM_STEPS + 1) / NUM_STEPS
    frame = {"label": label, "curve": curve, "x": grid, "y": value, "low": low, "high": high}
    return pd.DataFrame(frame, columns=COLUMNS)
