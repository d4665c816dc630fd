"""Every metric of the registry with its interval: by label, macro and micro.

cxrlab's own are computed for all labels and resamples at once, from sums by patient; a person's function is
called for each resample.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from cxrlab.metrics.bootstrap import Counts, Estimate, estimate, macro_mean, patient_sums, ratio, resampled
from cxrlab.metrics.confusion import label_outcomes, ppv_npv_at, threshold_metrics
from cxrlab.metrics.predictions import Floats, PredictionTable, decisions_at
from cxrlab.metrics.ranking import Ranking, label_rankings, micro_ranking, ranking
from cxrlab.metrics.registry import METRICS, Metric

Integers = npt.NDArray[np.int64]

# Proportions, and which of tp, fp, tn, fn are the images that they are proportions of.
# Keras' too: one image that is wrong with all certainty does not make a mean infinite.
_LEAST_PROBABILITY = 1e-7

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


@dataclass(frozen=True)
class Bootstrapped:
    """A metric of K labels.

    Attributes:
        values: Of the whole sample, NaN where undefined, shape ``(K,)``.
        samples: Of each resample, shape ``(K, B)``.
        units: Patients behind a proportion; 0 for anything else, shape ``(K,)``.
    """

    values: Floats
    samples: Floats
    units: Integers

    def estimate(self, row: int, level: float) -> Estimate:
        """Return the estimate of one label."""
        return estimate(float(self.values[row]), self.samples[row], level, units=int(self.units[row]))

    def macro(self, level: float) -> Estimate:
        """Return the mean over the labels that the whole sample defines."""
        defined = ~np.isnan(self.values)
        # Only where every label is 0, or every label 1, do units matter: the label with the fewest decides.
        units = int(self.units[defined].min()) if defined.any() else 0
        return estimate(*macro_mean(self.values, self.samples), level, units=units)


@dataclass(frozen=True)
class Sums:
    """What cxrlab's own metrics are computed from, of K labels, or with K = 1 of all of them pooled.

    Attributes:
        outcomes: True positives, false positives, true negatives and false negatives of each patient, shape
            ``(4, K, P)``; 0 for a label without threshold.
        errors: Squared errors and log losses of the probabilities, and known images, shape ``(3, K, P)``.
        ranking: AUROC and average precision with their resamples.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        prevalence: For which PPV and NPV are given besides the sample's own, or None.
    """

    outcomes: Floats
    errors: Floats
    ranking: Ranking
    counts: Counts
    prevalence: float | None

    @cached_property
    def at_threshold(self) -> dict[str, Bootstrapped]:
        """Every metric of the outcomes by name."""
        values, samples = (
            _with_prevalence(threshold_metrics(*sums), self.prevalence)
            for sums in (self.outcomes.sum(axis=2), resampled(self.outcomes, self.counts))
        )
        units = {
            name: (self.outcomes[rows].sum(axis=0) > 0).sum(axis=1) for name, rows in _PROPORTIONS.items()
        }
        return {
            name: Bootstrapped(values[name], samples[name], units.get(name, self.no_units)) for name in values
        }

    @property
    def no_units(self) -> Integers:
        """Zeros, for what is no proportion."""
        return np.zeros(self.outcomes.shape[1], dtype=np.int64)


def metric_estimates(
    table: PredictionTable,
    thresholds: Floats,
    counts: Counts,
    *,
    level: float,
    prevalence: float | None = None,
) -> MetricEstimates:
    """Return every metric of the registry, with intervals by the patient bootstrap.

    Args:
        table: What is evaluated.
        thresholds: Shape ``(L,)``; where one is NaN, what needs a threshold is undefined.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        level: Coverage of the intervals.
        prevalence: For ``ppv_at_prevalence`` and ``npv_at_prevalence``, which are left out where it is None.
    """
    outcomes = sums_by_patient(table, label_outcomes(table, thresholds))
    errors = sums_by_patient(table, _errors(table))
    by_label = Sums(outcomes, errors, label_rankings(table, counts), counts, prevalence)
    pooled = Sums(
        outcomes.sum(axis=1, keepdims=True),
        errors.sum(axis=1, keepdims=True),
        micro_ranking(table, counts),
        counts,
        prevalence,
    )
    result = MetricEstimates({label: {} for label in table.labels}, {}, {})
    decisions = decisions_at(table.probabilities, thresholds)
    for metric in METRICS.values():
        labels: Bootstrapped | None
        micro: Bootstrapped | None
        if metric.resampling is None:
            labels = plain_bootstrap(metric, table, decisions, counts)
            micro = plain_bootstrap(metric, table, decisions, counts, pooled=True)
        else:
            labels, micro = metric.resampling(by_label), metric.resampling(pooled)
        if labels is not None and micro is not None:
            for row, label in enumerate(table.labels):
                result.labels[label][metric.name] = labels.estimate(row, level)
            result.macro[metric.name] = labels.macro(level)
            result.micro[metric.name] = micro.estimate(0, level)
    return result


def plain_bootstrap(
    metric: Metric, table: PredictionTable, decisions: Floats | None, counts: Counts, *, pooled: bool = False
) -> Bootstrapped:
    """Call a metric's function for the whole sample and for each resample.

    Args:
        metric: A person's.
        table: N images, L labels, P patients.
        decisions: 1, 0, or NaN where there is none, shape ``(N, L)``; None suffices where it needs scores.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        pooled: Whether to pool all labels.
    """
    predictions, known = table.probabilities, table.known
    if metric.needs == "decisions":
        predictions = np.full(known.shape, np.nan) if decisions is None else decisions
        known = known & ~np.isnan(predictions)
    patients = np.broadcast_to(table.patients[:, None], known.shape)
    masks = [known] if pooled else [_only(known, column) for column in range(len(table.labels))]
    rows = [
        _resampled(metric, predictions[mask], table.targets[mask], patients[mask], counts) for mask in masks
    ]
    values, samples = zip(*rows, strict=True)
    return Bootstrapped(np.array(values), np.stack(samples), np.zeros(len(masks), dtype=np.int64))


def _only(known: npt.NDArray[np.bool_], column: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros_like(known)
    mask[:, column] = known[:, column]
    return mask


def _resampled(
    metric: Metric, predictions: Floats, targets: Floats, patients: Integers, counts: Counts
) -> tuple[float, Floats]:
    """Return a metric of some images, and that of each resample of their patients, ``(B,)``."""
    value = metric(predictions, targets)
    samples = np.full(counts.shape[1], np.nan)
    if not np.isnan(value):
        images = np.arange(len(targets))
        for resample, drawn in enumerate(counts.T):
            rows = np.repeat(images, drawn[patients].astype(np.int64))
            samples[resample] = metric(predictions[rows], targets[rows])
    return value, samples


def sums_by_patient(table: PredictionTable, values: npt.NDArray[np.bool_] | Floats) -> Floats:
    """Turn ``(K, N, L)`` into sums over the images of each patient, ``(K, L, P)``."""
    columns = values.transpose(1, 0, 2).reshape(len(table), -1)
    sums = patient_sums(columns, table.patients, table.num_patients)
    return sums.reshape(len(values), len(table.labels), table.num_patients)


def _errors(table: PredictionTable) -> Floats:
    """Return squared errors and log losses, 0 where unknown, and what is known: shape ``(3, N, L)``."""
    targets = np.where(table.known, table.targets, 0.0)
    errors = np.stack([(table.probabilities - targets) ** 2, _log_losses(table.probabilities, targets)])
    return np.concatenate([np.where(table.known, errors, 0.0), table.known[None].astype(float)])


def _log_losses(scores: Floats, targets: Floats) -> Floats:
    """Return minus the logarithm of the probability of what is true, which is at least 1e-7."""
    losses: Floats = -np.log(np.clip(np.where(targets == 1, scores, 1.0 - scores), _LEAST_PROBABILITY, 1.0))
    return losses


def _with_prevalence(metrics: dict[str, Floats], prevalence: float | None) -> dict[str, Floats]:
    if prevalence is None:
        return metrics
    ppv, npv = ppv_npv_at(metrics["sensitivity"], metrics["specificity"], prevalence)
    return metrics | {"ppv_at_prevalence": ppv, "npv_at_prevalence": npv}


# cxrlab's own metrics, in the order of evaluation.json.


def _auroc(sums: Sums) -> Bootstrapped:
    return Bootstrapped(sums.ranking.auroc, sums.ranking.auroc_samples, sums.no_units)


def _average_precision(sums: Sums) -> Bootstrapped:
    ranked = sums.ranking
    return Bootstrapped(ranked.average_precision, ranked.average_precision_samples, sums.no_units)


def _mean_error(sums: Sums, *, row: int) -> Bootstrapped:
    """Return the Brier score (Monthly Weather Review 78:1, 1950), or the log loss."""
    errors = sums.errors[[row, 2]]
    whole, drawn = ratio(*errors.sum(axis=2)), ratio(*resampled(errors, sums.counts))
    return Bootstrapped(whole, drawn, sums.no_units)


def _at_threshold(sums: Sums, *, name: str) -> Bootstrapped | None:
    return sums.at_threshold.get(name)


def _plain_ranking(scores: Floats, targets: Floats, *, name: str) -> float:
    once = np.ones((len(scores), 1))
    return float(getattr(ranking(scores, targets, np.arange(len(scores)), once), name)[0])


def _plain_brier(scores: Floats, targets: Floats) -> float:
    return float(np.square(scores - targets).mean())


def _plain_log_loss(scores: Floats, targets: Floats) -> float:
    return float(_log_losses(scores, targets).mean())


def _plain_at_threshold(decisions: Floats, targets: Floats, *, name: str) -> float:
    called, present = decisions == 1, targets == 1
    sides = (called & present, called & ~present, ~called & ~present, ~called & present)
    return float(threshold_metrics(*(side.sum() for side in sides))[name])


def _undefined(decisions: Floats, targets: Floats) -> float:
    return float("nan")  # a prevalence other than the sample's own is that of an evaluation


_AT_THRESHOLD = {
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "balanced_accuracy": "balanced accuracy",
    "mcc": "MCC",
}
_AT_PREVALENCE = {
    "ppv_at_prevalence": "PPV at another prevalence",
    "npv_at_prevalence": "NPV at another prevalence",
}


def _own_metrics() -> Sequence[Metric]:
    ranked: dict[str, tuple[str, Callable[[Sums], Bootstrapped | None]]] = {
        "auroc": ("AUROC", _auroc),
        "average_precision": ("average precision", _average_precision),
    }
    metrics = [
        Metric(name, title, True, "scores", partial(_plain_ranking, name=name), resampling)
        for name, (title, resampling) in ranked.items()
    ]
    metrics += [
        Metric("brier", "Brier score", False, "scores", _plain_brier, partial(_mean_error, row=0)),
        Metric("log_loss", "log loss", False, "scores", _plain_log_loss, partial(_mean_error, row=1)),
    ]
    metrics += [
        Metric(
            name, title, True, "decisions", partial(_plain_at_threshold, name=name),
            partial(_at_threshold, name=name),
        )
        for name, title in _AT_THRESHOLD.items()
    ]  # fmt: skip
    metrics += [
        Metric(name, title, True, "decisions", _undefined, partial(_at_threshold, name=name))
        for name, title in _AT_PREVALENCE.items()
    ]
    return metrics


for _metric in _own_metrics():
    METRICS.add_own(_metric)
