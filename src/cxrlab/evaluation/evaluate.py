"""A predictions table becomes evaluation.json: every number, with its interval."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from cxrlab.errors import OutputError
from cxrlab.evaluation.caveats import caveats, published_table
from cxrlab.evaluation.classification import classification_report
from cxrlab.evaluation.curves import label_curves
from cxrlab.evaluation.operating_point import Thresholds
from cxrlab.evaluation.subgroups import subgroup_numbers
from cxrlab.files import write_text
from cxrlab.metrics.bootstrap import Counts, estimate, patient_counts
from cxrlab.metrics.calibration import Calibrator, calibration_numbers
from cxrlab.metrics.confusion import confusion_counts, label_operating_estimates
from cxrlab.metrics.delong import delong_estimate
from cxrlab.metrics.predictions import DataFacts, Floats, PredictionTable
from cxrlab.metrics.ranking import label_rankings, micro_ranking
from cxrlab.metrics.settings import EvaluationSettings

log = logging.getLogger(__name__)

FORMAT = 1
Estimate = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationResult:
    """The numbers, as in ``evaluation.json``, and the curves, as in ``curves.csv``."""

    numbers: dict[str, Any]
    curves: pd.DataFrame

    def save(self, folder: Path) -> None:
        """Write ``evaluation.json`` and ``curves.csv``.

        Raises:
            OutputError: If they cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "evaluation.json", json.dumps(self.numbers, indent=1, allow_nan=False) + "\n")
            write_text(folder / "curves.csv", self.curves.to_csv(index=False))
        except OSError as error:
            raise OutputError(f"The evaluation cannot be written to {folder}: {error}.") from error


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
) -> EvaluationResult:
    """Return every number of an evaluation, with intervals by the patient bootstrap.

    Args:
        table: What is evaluated.
        settings: How.
        thresholds: Chosen elsewhere than on ``table``; without them what needs a threshold is left out.
        calibrator: Fitted elsewhere than on ``table``.
        data: What the images are.
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
    labels = {
        label: ranked["labels"][label] | operating["labels"][label] | delong[label] for label in table.labels
    }
    macro = ranked["macro"] | operating["macro"]
    numbers: dict[str, Any] = {
        "format": FORMAT,
        "data": _data(table, data),
        "interval": _interval(table, settings),
        "labels": labels,
        "macro": macro,
        "micro": ranked["micro"] | operating["micro"],
        "num_macro_labels": sum(one["auroc"]["value"] is not None for one in labels.values()),
        "counts": _counts(table, values),
        "thresholds": _thresholds(table, thresholds),
        "prevalence": settings.prevalence,
        "flags": caveats(table, thresholds, settings),
        "classification_report": classification_report(table, values, counts, settings),
        "calibration": clock.timed("calibration", calibration_numbers, table, calibrator, counts, settings),
        "subgroups": subgroups,
        "gaps": gaps,
        "published": published_table(labels, macro, data.name, data.split),
    }
    curves = clock.timed("curves", label_curves, table, settings)
    return EvaluationResult(numbers | {"seconds": clock.seconds}, curves)


def _data(table: PredictionTable, data: DataFacts) -> dict[str, Any]:
    return {
        "name": data.name,
        "part": table.part,
        "images": len(table),
        "patients": table.num_patients if table.patients_known else None,
        "fingerprint": data.fingerprint,
        "split": data.split,
        "source": table.source,
    }


def _interval(table: PredictionTable, settings: EvaluationSettings) -> dict[str, Any]:
    return {
        "level": settings.level,
        "unit": "patient" if table.patients_known else "image",
        "resamples": settings.num_resamples,
        "seed": settings.seed,
        "method": "percentile bootstrap",
    }


def _ranking_estimates(
    table: PredictionTable, counts: Counts, settings: EvaluationSettings
) -> dict[str, Any]:
    """Return AUROC and average precision by label, and their macro and micro means."""
    ranked, pooled = label_rankings(table, counts), micro_ranking(table, counts)
    result: dict[str, Any] = {"labels": {label: {} for label in table.labels}, "macro": {}, "micro": {}}
    for metric in ("auroc", "average_precision"):
        values, samples = getattr(ranked, metric), getattr(ranked, f"{metric}_samples")
        for row, label in enumerate(table.labels):
            result["labels"][label][metric] = estimate(values[row], samples[row], settings.level)
        result["macro"][metric] = _macro(values, samples, settings.level)
        result["micro"][metric] = estimate(
            float(np.squeeze(getattr(pooled, metric))),
            np.ravel(getattr(pooled, f"{metric}_samples")),
            settings.level,
        )
    return result


def _macro(values: Floats, samples: Floats, level: float) -> Estimate:
    """Return the mean over the labels that the whole sample defines, in a resample over those left there."""
    defined = ~np.isnan(values)
    if not defined.any():
        return estimate(float("nan"), [], level)
    drawn = samples[defined]
    known = ~np.isnan(drawn)
    means = np.where(known, drawn, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return estimate(float(values[defined].mean()), np.where(known.any(axis=0), means, np.nan), level)


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


def _counts(table: PredictionTable, thresholds: Floats) -> dict[str, dict[str, int | None]]:
    """Return how many images, positives and outcomes each label has."""
    outcomes = dict(zip(("tp", "fp", "tn", "fn"), confusion_counts(table, thresholds), strict=True))
    result: dict[str, dict[str, int | None]] = {}
    for column, label in enumerate(table.labels):
        targets = table.targets[:, column]
        positives = targets == 1
        result[label] = {
            "images": int(table.known[:, column].sum()),
            "positives": int(positives.sum()),
            "negatives": int((targets == 0).sum()),
            "positive_patients": len(np.unique(table.patients[positives])) if table.patients_known else None,
        }
        has_threshold = not np.isnan(thresholds[column])
        result[label] |= {
            name: int(values[column]) if has_threshold else None for name, values in outcomes.items()
        }
    return result


def _thresholds(table: PredictionTable, thresholds: Thresholds | None) -> dict[str, dict[str, Any]]:
    if thresholds is None:
        return {}
    return {
        label: {
            "value": None if np.isnan(value) else float(value),
            "rule": thresholds.rule,
            "source": thresholds.source,
        }
        for label, value in zip(table.labels, thresholds.values, strict=True)
    }
