"""A predictions table becomes an evaluation result: every number, with its interval."""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from cxrlab.evaluation.caveats import caveats, published_table
from cxrlab.evaluation.classification import classification_report
from cxrlab.evaluation.curves import label_curves
from cxrlab.evaluation.operating_point import Thresholds
from cxrlab.evaluation.results import (
    Caveat,
    EvaluatedData,
    EvaluationResult,
    IntervalMethod,
    LabelCounts,
    LabelThreshold,
)
from cxrlab.evaluation.subgroups import subgroup_numbers
from cxrlab.metrics.bootstrap import Counts, Estimate, estimate, macro_mean, patient_counts
from cxrlab.metrics.calibration import Calibrator, evaluate_calibration
from cxrlab.metrics.confusion import MetricEstimates, confusion_counts, label_operating_estimates
from cxrlab.metrics.delong import delong_estimate
from cxrlab.metrics.predictions import DataFacts, Floats, PredictionTable
from cxrlab.metrics.ranking import label_rankings, micro_ranking
from cxrlab.metrics.settings import EvaluationSettings

__all__ = ["DataFacts", "evaluate"]

T = TypeVar("T")


class _Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, phase: str, function: Callable[..., T], *arguments: Any) -> T:
        start = time.perf_counter()
        result = function(*arguments)
        self.seconds[phase] = round(time.perf_counter() - start, 2)
        return result


def evaluate(
    table: PredictionTable,
    *,
    settings: EvaluationSettings,
    thresholds: Thresholds | None,
    calibrator: Calibrator | None,
    data: DataFacts,
    notes: Sequence[str] = (),
) -> EvaluationResult:
    """Return every number of an evaluation, with intervals by the patient bootstrap.

    Args:
        table: What is evaluated.
        settings: How.
        thresholds: Chosen elsewhere than on ``table``; without them what needs a threshold is left out.
        calibrator: Fitted elsewhere than on ``table``.
        data: What the images are.
        notes: What else the reader must know; these become the first caveats.
    """
    clock = _Clock()
    values = np.full(len(table.labels), np.nan) if thresholds is None else thresholds.values
    counts = clock.timed(
        "resampling", patient_counts, table.num_patients, settings.num_resamples, settings.seed
    )
    ranked = clock.timed("auroc", _ranking_estimates, table, counts, settings)
    operating = clock.timed("threshold", label_operating_estimates, table, values, counts, settings)
    delong = clock.timed("delong", _delong_estimates, table, settings)
    subgroups, gaps = clock.timed("subgroups", subgroup_numbers, table, values, counts, settings)
    calibration = clock.timed("calibration", evaluate_calibration, table, calibrator, counts, settings)
    curves = clock.timed("curves", label_curves, table, settings)
    labels = {label: ranked.labels[label] | operating.labels[label] | delong[label] for label in table.labels}
    macro = ranked.macro | operating.macro
    return EvaluationResult(
        data=EvaluatedData.of(table, data, table.source),
        interval=IntervalMethod.of(table, settings),
        labels=labels,
        macro=macro,
        micro=ranked.micro | operating.micro,
        num_macro_labels=sum(metrics["auroc"].value is not None for metrics in labels.values()),
        counts=_counts(table, values),
        thresholds=_thresholds(table, thresholds),
        prevalence=settings.prevalence,
        flags=[*(Caveat("note", None, note) for note in notes), *caveats(table, thresholds, settings)],
        classification_report=classification_report(table, values, counts, settings),
        calibration=calibration,
        subgroups=subgroups,
        gaps=gaps,
        published=published_table(labels, macro, data.name, data.split),
        seconds=clock.seconds,
        curves=curves,
    )


def _ranking_estimates(
    table: PredictionTable, counts: Counts, settings: EvaluationSettings
) -> MetricEstimates:
    """Return AUROC and average precision."""
    ranked, pooled = label_rankings(table, counts), micro_ranking(table, counts)
    result = MetricEstimates({label: {} for label in table.labels}, {}, {})
    for metric in ("auroc", "average_precision"):
        values, samples = getattr(ranked, metric), getattr(ranked, f"{metric}_samples")
        for row, label in enumerate(table.labels):
            result.labels[label][metric] = estimate(values[row], samples[row], settings.level)
        result.macro[metric] = estimate(*macro_mean(values, samples), settings.level)
        result.micro[metric] = estimate(
            float(np.squeeze(getattr(pooled, metric))),
            np.ravel(getattr(pooled, f"{metric}_samples")),
            settings.level,
        )
    return result


def _delong_estimates(table: PredictionTable, settings: EvaluationSettings) -> dict[str, dict[str, Estimate]]:
    result = {}
    for column, label in enumerate(table.labels):
        known = table.known[:, column]
        scores, targets = table.probabilities[known, column], table.targets[known, column]
        result[label] = {
            "auroc_delong": delong_estimate(scores, targets, None, settings.level),
            "auroc_delong_clustered": delong_estimate(
                scores, targets, table.patients[known] if table.patients_known else None, settings.level
            ),
        }
    return result


def _counts(table: PredictionTable, thresholds: Floats) -> dict[str, LabelCounts]:
    """Return how many images, positives and outcomes each label has."""
    outcomes = np.array(confusion_counts(table, thresholds))
    result = {}
    for column, label in enumerate(table.labels):
        targets = table.targets[:, column]
        positives = targets == 1
        has_threshold = not np.isnan(thresholds[column])
        tp, fp, tn, fn = (int(count) if has_threshold else None for count in outcomes[:, column])
        result[label] = LabelCounts(
            images=int(table.known[:, column].sum()),
            positives=int(positives.sum()),
            negatives=int((targets == 0).sum()),
            positive_patients=len(np.unique(table.patients[positives])) if table.patients_known else None,
            tp=tp,
            fp=fp,
            tn=tn,
            fn=fn,
        )
    return result


def _thresholds(table: PredictionTable, thresholds: Thresholds | None) -> dict[str, LabelThreshold]:
    if thresholds is None:
        return {}
    return {
        label: LabelThreshold(None if np.isnan(value) else float(value), thresholds.rule, thresholds.source)
        for label, value in zip(table.labels, thresholds.values, strict=True)
    }
