"""Metrics at a threshold, and the Brier score: by label, macro and micro, with intervals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cxrlab.metrics.bootstrap import Counts, Estimate, estimate, macro_mean, patient_sums, ratio, resampled
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

Integers = npt.NDArray[np.int64]

# Proportions, and which of tp, fp, tn, fn are the images that they are proportions of.
_PROPORTIONS = {
    "accuracy": [0, 1, 2, 3],
    "sensitivity": [0, 3],
    "specificity": [1, 2],
    "ppv": [0, 1],
    "npv": [2, 3],
}


@dataclass(frozen=True)
class MetricEstimates:
    """Estimates by the name of the metric.

    Attributes:
        labels: Of each label.
        macro: Means over the labels that the whole sample defines.
        micro: Of all pairs of image and label pooled.
    """

    labels: Mapping[str, dict[str, Estimate]]
    macro: dict[str, Estimate]
    micro: dict[str, Estimate]


class _Bootstrapped(NamedTuple):
    """A metric of K labels: whole sample ``(K,)``, resamples ``(K, B)``, patients behind it ``(K,)``."""

    values: Floats
    samples: Floats
    units: Integers


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
    tp, fp, tn, fn = _outcomes(table, thresholds).sum(axis=1)
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
    tp, fp, tn, fn = resampled(_by_patient(table, _outcomes(table, thresholds)), counts)
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


def label_operating_estimates(
    table: PredictionTable, thresholds: Floats, counts: Counts, settings: EvaluationSettings
) -> MetricEstimates:
    """Return every metric that needs a threshold, and the Brier score, which needs none, with intervals.

    Args:
        table: What is evaluated.
        thresholds: Shape ``(L,)``; where one is NaN, the label's metrics are undefined but for Brier's.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        settings: With the coverage; and the prevalence for ``ppv_at_prevalence`` and ``npv_at_prevalence``,
            which are left out where it is None.

    References:
        Brier, Monthly Weather Review 78:1, 1950.
    """
    outcomes = _by_patient(table, _outcomes(table, thresholds))  # (4, L, P)
    errors = _by_patient(table, _squared_errors(table))  # (2, L, P)
    metrics = _metrics(outcomes, errors, counts, settings.prevalence)
    pooled = _metrics(
        outcomes.sum(axis=1, keepdims=True), errors.sum(axis=1, keepdims=True), counts, settings.prevalence
    )
    return MetricEstimates(
        labels={
            label: {name: _one(metric, row, settings.level) for name, metric in metrics.items()}
            for row, label in enumerate(table.labels)
        },
        macro={name: _macro(metric, settings.level) for name, metric in metrics.items()},
        micro={name: _one(metric, 0, settings.level) for name, metric in pooled.items()},
    )


def _outcomes(table: PredictionTable, thresholds: Floats) -> npt.NDArray[np.bool_]:
    """Return which images are tp, fp, tn, fn of each label, shape ``(4, N, L)``."""
    called, present = table.probabilities >= thresholds, table.targets == 1
    outcomes = np.stack([called & present, called & ~present, ~called & ~present, ~called & present])
    return outcomes & table.known & ~np.isnan(thresholds)


def _squared_errors(table: PredictionTable) -> Floats:
    """Return the squared errors, 0 where unknown, and what is known: shape ``(2, N, L)``."""
    errors = np.where(table.known, (table.probabilities - table.targets) ** 2, 0.0)
    return np.stack([errors, table.known])


def _by_patient(table: PredictionTable, values: npt.NDArray[Any]) -> Floats:
    """Turn ``(K, N, L)`` into sums ``(K, L, P)``."""
    columns = values.transpose(1, 0, 2).reshape(len(table), -1)
    sums = patient_sums(columns, table.patients, table.num_patients)
    return sums.reshape(len(values), len(table.labels), table.num_patients)


def _metrics(
    outcomes: Floats, errors: Floats, counts: Counts, prevalence: float | None
) -> dict[str, _Bootstrapped]:
    """Return each metric of sums by patient, shapes ``(4, K, P)`` and ``(2, K, P)``."""
    values, samples = (
        _with_prevalence(threshold_metrics(*sums), prevalence)
        for sums in (outcomes.sum(axis=2), resampled(outcomes, counts))
    )
    nobody = np.zeros(outcomes.shape[1], dtype=np.int64)
    units = {name: (outcomes[rows].sum(axis=0) > 0).sum(axis=1) for name, rows in _PROPORTIONS.items()}
    drawn = resampled(errors, counts)
    brier = _Bootstrapped(ratio(*errors.sum(axis=2)), ratio(*drawn), nobody)
    return {"brier": brier} | {
        name: _Bootstrapped(values[name], samples[name], units.get(name, nobody)) for name in values
    }


def _with_prevalence(metrics: dict[str, Floats], prevalence: float | None) -> dict[str, Floats]:
    if prevalence is None:
        return metrics
    ppv, npv = ppv_npv_at(metrics["sensitivity"], metrics["specificity"], prevalence)
    return metrics | {"ppv_at_prevalence": ppv, "npv_at_prevalence": npv}


def _one(metric: _Bootstrapped, row: int, level: float) -> Estimate:
    return estimate(float(metric.values[row]), metric.samples[row], level, units=int(metric.units[row]))


def _macro(metric: _Bootstrapped, level: float) -> Estimate:
    """Return the mean over the labels that the whole sample defines."""
    defined = ~np.isnan(metric.values)
    value, means = macro_mean(metric.values, metric.samples)
    # Only where every label is 0, or every label 1, do units matter: the label with the fewest decides.
    units = int(metric.units[defined].min()) if defined.any() else 0
    return estimate(value, means, level, units=units)
