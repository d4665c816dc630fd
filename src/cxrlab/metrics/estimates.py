"""Every metric of the registry with its interval: by label, macro and micro.

cxrlab's own are computed for all labels and resamples at once, from sums by patient; a person's function is
called for each resample.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from cxrlab.metrics.auroc_interval import auroc_estimate
from cxrlab.metrics.bootstrap import (
    Counts,
    Estimate,
    estimate,
    macro_mean,
    patient_sums,
    proportion,
    ratio,
    resampled,
)
from cxrlab.metrics.confusion import label_outcomes, ppv_npv_at, threshold_metrics
from cxrlab.metrics.predictions import Floats, PredictionTable, decisions_at
from cxrlab.metrics.ranking import Ranking, label_rankings, micro_ranking, ranking
from cxrlab.metrics.rate_intervals import balanced_accuracy_at_limit, f1_at_limit, predictive_value
from cxrlab.metrics.registry import METRICS, Metric

Integers = npt.NDArray[np.int64]

# Keras' too: one image that is wrong with all certainty does not make a mean infinite.
_LEAST_PROBABILITY = 1e-7

# Proportions, and which of tp, fp, tn, fn are the images that they are proportions of.
_PROPORTIONS = {
    "accuracy": [0, 1, 2, 3],
    "sensitivity": [0, 3],
    "specificity": [1, 2],
    "ppv": [0, 1],
    "npv": [2, 3],
}
_DERIVED = ("f1", "balanced_accuracy", "ppv_at_prevalence", "npv_at_prevalence")


@dataclass(frozen=True)
class MetricEstimates:
    """Estimates by the name of the metric.

    Attributes:
        labels: Of each label.
        macro: Means over ``averaged``, of those for which the metric is defined.
        micro: Of all pairs of image and label pooled.
        averaged: The labels that have enough patients for the means; see :func:`averaged_labels`.
        bootstrapped: AUROC of each label with the bootstrap's interval.
    """

    labels: Mapping[str, dict[str, Estimate]]
    macro: dict[str, Estimate]
    micro: dict[str, Estimate]
    averaged: tuple[str, ...]
    bootstrapped: dict[str, Estimate]


Interval = Callable[[int, float], Estimate]
"""Of the row of a label and the level."""


@dataclass(frozen=True)
class Bootstrapped:
    """A metric of K labels.

    Attributes:
        values: Of the whole sample, NaN where undefined, shape ``(K,)``.
        samples: Of each resample, shape ``(K, B)``.
        units: Patients behind a proportion; 0 for anything else, shape ``(K,)``.
        trials: Images behind a proportion, shape ``(K,)``; None where the metric is none.
        interval: Where a label's interval is not of the resamples; None where it is.
    """

    values: Floats
    samples: Floats
    units: Integers
    trials: Integers | None = None
    interval: Interval | None = None

    def estimate(self, row: int, level: float) -> Estimate:
        """Return the estimate of one label."""
        value, units = float(self.values[row]), int(self.units[row])
        if self.interval is not None and not np.isnan(value):
            return self.interval(row, level)
        if self.trials is not None:
            trials = int(self.trials[row])
            return proportion(value, self.samples[row], level, units=units, trials=trials)
        return estimate(value, self.samples[row], level, units=units)

    def macro(self, level: float, averaged: npt.NDArray[np.bool_]) -> Estimate:
        """Return the mean over some of the labels; of a single one, its own estimate.

        Args:
            level: Coverage.
            averaged: Which labels, shape ``(K,)``; those that the sample does not define are left out.
        """
        chosen = np.flatnonzero(averaged & ~np.isnan(self.values))
        if len(chosen) == 1:
            return self.estimate(int(chosen[0]), level)
        # Only where every label is 0, or every label 1, do units matter: the label with the fewest decides.
        units = int(self.units[chosen].min()) if len(chosen) else 0
        return estimate(*macro_mean(self.values, self.samples, averaged), level, units=units)


@dataclass(frozen=True)
class Sums:
    """What cxrlab's own metrics are computed from, of K labels, or with K = 1 of all of them pooled.

    Attributes:
        outcomes: True positives, false positives, true negatives and false negatives of each patient, shape
            ``(4, K, P)``; 0 for a label without threshold.
        errors: Squared errors and log losses of the probabilities, and known images, shape ``(3, K, P)``.
        ranking: AUROC and average precision with their resamples.
        areas: The AUROC of each of them with its interval.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        prevalence: For which PPV and NPV are given besides the sample's own, or None.
    """

    outcomes: Floats
    errors: Floats
    ranking: Ranking
    areas: Sequence[Estimate]
    counts: Counts
    prevalence: float | None

    @cached_property
    def at_threshold(self) -> dict[str, Bootstrapped]:
        """Every metric of the outcomes by name."""
        values, samples = (
            _with_prevalence(threshold_metrics(*sums), self.prevalence)
            for sums in (self.outcomes.sum(axis=2), resampled(self.outcomes, self.counts))
        )
        found = {name: Bootstrapped(values[name], samples[name], self.no_units) for name in values}
        for name, rows in _PROPORTIONS.items():
            images = self.outcomes[rows].sum(axis=0)  # (K, P)
            units, trials = (images > 0).sum(axis=1), images.sum(axis=1).astype(np.int64)
            found[name] = replace(found[name], units=units, trials=trials)
        for name in set(_DERIVED) & set(found):
            found[name] = replace(found[name], interval=partial(self._interval, found, name))
        return found

    def _interval(self, found: Mapping[str, Bootstrapped], name: str, row: int, level: float) -> Estimate:
        """Return the estimate of what is computed from sensitivity and specificity."""
        metric = found[name]
        value = float(metric.values[row])
        rates = [found[of].estimate(row, level) for of in ("sensitivity", "specificity")]
        sensitivity, specificity = ((float(rate.low or 0), float(rate.high or 0)) for rate in rates)
        if name in _AT_PREVALENCE and self.prevalence is not None:
            values = (float(found["sensitivity"].values[row]), float(found["specificity"].values[row]))
            is_npv = name == "npv_at_prevalence"
            return predictive_value(value, sensitivity, specificity, values, self.prevalence, negative=is_npv)
        if value not in (0.0, 1.0):
            return estimate(value, metric.samples[row], level)
        if name == "balanced_accuracy":
            return balanced_accuracy_at_limit(value, sensitivity, specificity)
        return f1_at_limit(value, int((self.outcomes[[0, 1, 3], row].sum(axis=0) > 0).sum()), level)

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
    min_positives: int = 0,
) -> MetricEstimates:
    """Return every metric of the registry with its interval.

    AUROC has its own, see :func:`~cxrlab.metrics.auroc_interval.auroc_estimate`. Proportions have Wilson's,
    of the effective size that the resamples show; all else has the percentiles of the resamples.

    Args:
        table: What is evaluated.
        thresholds: Shape ``(L,)``; where one is NaN, what needs a threshold is undefined.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        level: Coverage of the intervals.
        prevalence: For ``ppv_at_prevalence`` and ``npv_at_prevalence``, which are left out where it is None.
        min_positives: Least number of patients with a finding, and without it, of the labels that the macro
            means are of; see :func:`averaged_labels`.
    """
    outcomes = sums_by_patient(table, label_outcomes(table, thresholds))
    errors = sums_by_patient(table, _errors(table))
    areas = label_areas(table, level)
    rankings = label_rankings(table, counts)
    by_label = Sums(outcomes, errors, rankings, areas, counts, prevalence)
    pooled = Sums(
        outcomes.sum(axis=1, keepdims=True),
        errors.sum(axis=1, keepdims=True),
        micro_ranking(table, counts),
        [pooled_area(table, level)],
        counts,
        prevalence,
    )
    averaged = averaged_labels(table, min_positives)
    names = tuple(label for label, chosen in zip(table.labels, averaged, strict=True) if chosen)
    bootstrapped = {
        label: estimate(float(value), samples, level)
        for label, value, samples in zip(table.labels, rankings.auroc, rankings.auroc_samples, strict=True)
    }
    result = MetricEstimates({label: {} for label in table.labels}, {}, {}, names, bootstrapped)
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
            result.macro[metric.name] = labels.macro(level, averaged)
            result.micro[metric.name] = micro.estimate(0, level)
    return result


def averaged_labels(table: PredictionTable, least: int) -> npt.NDArray[np.bool_]:
    """Return the labels that macro means are of, shape ``(L,)``.

    A label of few patients is the larger part of what is uncertain of a mean, and resamples show too little
    of it. Where no label has enough, all that have both classes are averaged.

    Args:
        table: N images, L labels; where patients are unknown, images count as such.
        least: How many patients with the finding, and without it, are enough; 0 for all labels.
    """
    fewest = class_patients(table).min(axis=0)
    enough: npt.NDArray[np.bool_] = fewest >= least
    return enough if enough.any() else fewest > 0


def class_patients(table: PredictionTable) -> Integers:
    """Return how many patients have images with each finding, and without it, shape ``(2, L)``."""
    sides = np.stack([table.targets == 1, table.targets == 0]).astype(float)
    return np.asarray((sums_by_patient(table, sides) > 0).sum(axis=2))


def label_areas(table: PredictionTable, level: float) -> list[Estimate]:
    """Return the AUROC of each label with its interval.

    Args:
        table: Where patients are unknown, each image is one of its own.
        level: Coverage.
    """
    return [
        auroc_estimate(scores, targets, table.patients, level)
        for scores, targets in zip(table.probabilities.T, table.targets.T, strict=True)
    ]


def pooled_area(table: PredictionTable, level: float) -> Estimate:
    """Return the AUROC of all known pairs of image and label pooled, with its interval."""
    patients = np.broadcast_to(table.patients[:, None], table.targets.shape)
    return auroc_estimate(table.probabilities.ravel(), table.targets.ravel(), patients.ravel(), level)


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
    ranked = sums.ranking

    def interval(row: int, level: float) -> Estimate:
        return replace(sums.areas[row], value=float(ranked.auroc[row]))

    return Bootstrapped(ranked.auroc, ranked.auroc_samples, sums.no_units, interval=interval)


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
