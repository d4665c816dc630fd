"""Outcomes at a threshold, counted, and the metrics of these counts."""

import numpy as np
import numpy.typing as npt

from cxrlab.metrics.bootstrap import Counts, patient_sums, ratio, resampled
from cxrlab.metrics.predictions import Floats, PredictionTable

Integers = npt.NDArray[np.int64]


def confusion_counts(
    table: PredictionTable, thresholds: Floats
) -> tuple[Integers, Integers, Integers, Integers]:
    """Return the true positives, false positives, true negatives and false negatives of each label.

    Args:
        table: Targets and probabilities; images whose target is unknown are not counted.
        thresholds: A label is predicted positive where its probability is at least this, shape ``(L,)``.

    Returns:
        Four arrays of shape ``(L,)``; 0 in all four for a label whose threshold is NaN.
    """
    tp, fp, tn, fn = label_outcomes(table, thresholds).sum(axis=1)
    return tp, fp, tn, fn


def resampled_confusion_counts(
    table: PredictionTable, thresholds: Floats, counts: Counts
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the same in every resample: four arrays of shape ``(L, B)``.

    Args:
        table: Targets and probabilities.
        thresholds: Shape ``(L,)``.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
    """
    outcomes = label_outcomes(table, thresholds)
    columns = outcomes.transpose(1, 0, 2).reshape(len(table), -1)
    sums = patient_sums(columns, table.patients, table.num_patients)
    tp, fp, tn, fn = resampled(sums.reshape(4, len(table.labels), -1), counts)
    return tp, fp, tn, fn


def threshold_metrics(
    tp: npt.ArrayLike, fp: npt.ArrayLike, tn: npt.ArrayLike, fn: npt.ArrayLike
) -> dict[str, Floats]:
    """Return accuracy, sensitivity, specificity, PPV, NPV, F1, balanced accuracy and MCC.

    Args:
        tp: True positives; all four have one shape, and so has each metric.
        fp: False positives.
        tn: True negatives.
        fn: False negatives.

    Returns:
        Arrays by name; NaN where the denominator is 0. scikit-learn gives 0 there, which would read as the
        worst result: a PPV where nothing was predicted positive, an F1 where in addition nothing is
        present, an MCC (-1 to 1) where all are of one class or all were predicted the same.

    Example:
        >>> round(float(threshold_metrics(8, 2, 88, 2)["mcc"]), 3)
        0.778

    References:
        Matthews, Biochim Biophys Acta 405:442, 1975.
    """
    a, b, c, d = (np.asarray(count, dtype=np.float64) for count in (tp, fp, tn, fn))
    sensitivity, specificity = ratio(a, a + d), ratio(c, b + c)
    return {
        "accuracy": ratio(a + c, a + b + c + d),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": ratio(a, a + b),
        "npv": ratio(c, c + d),
        "f1": ratio(2 * a, 2 * a + b + d),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "mcc": ratio(a * c - b * d, np.sqrt((a + b) * (a + d) * (b + c) * (c + d))),
    }


def ppv_npv_at(sensitivity: Floats, specificity: Floats, prevalence: float) -> tuple[Floats, Floats]:
    """Return PPV and NPV where a finding is as frequent as stated, by Bayes' theorem.

    Args:
        sensitivity: Any shape.
        specificity: The same shape.
        prevalence: Share of images with the finding, between 0 and 1.

    Example:
        >>> [round(float(value), 3) for value in ppv_npv_at(np.array(0.9), np.array(0.8), 0.1)]
        [0.333, 0.986]

    References:
        Altman and Bland, BMJ 309:102, 1994.
    """
    hits, misses = sensitivity * prevalence, (1 - sensitivity) * prevalence
    alarms, rejections = (1 - specificity) * (1 - prevalence), specificity * (1 - prevalence)
    return ratio(hits, hits + alarms), ratio(rejections, rejections + misses)


def label_outcomes(table: PredictionTable, thresholds: Floats) -> npt.NDArray[np.bool_]:
    """Return which images are true and false positives, true and false negatives of each label.

    Args:
        table: Targets and probabilities.
        thresholds: Shape ``(L,)``.

    Returns:
        Shape ``(4, N, L)``; False in all four where the target is unknown, or the threshold NaN.
    """
    called, present = table.probabilities >= thresholds, table.targets == 1
    outcomes = np.stack([called & present, called & ~present, ~called & ~present, ~called & present])
    return outcomes & table.known & ~np.isnan(thresholds)
