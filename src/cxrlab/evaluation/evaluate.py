"""A predictions table becomes an evaluation result: every number, with its interval."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from cxrlab.evaluation.baselines import Baselines, baseline_caveat, evaluate_baselines
from cxrlab.evaluation.caveats import (
    are_of_nih,
    caveats,
    contamination_caveats,
    fold_caveats,
    published_table,
)
from cxrlab.evaluation.classification import classification_report
from cxrlab.evaluation.cohort import Cohort, table_cohort
from cxrlab.evaluation.contamination import Contamination
from cxrlab.evaluation.curves import label_curves
from cxrlab.evaluation.decision_curve import decisions
from cxrlab.evaluation.external_comparison import OwnPart, external_comparison
from cxrlab.evaluation.failures import failure_analysis
from cxrlab.evaluation.image_facts import ImageFacts
from cxrlab.evaluation.interventions import InterventionResult, intervention_caveat
from cxrlab.evaluation.operating_point import Thresholds
from cxrlab.evaluation.operating_points import operating_points
from cxrlab.evaluation.out_of_fold import WITHIN_FOLDS, OutOfFold, out_of_fold, within_folds
from cxrlab.evaluation.readers import reader_study
from cxrlab.evaluation.referral import evaluate_referral
from cxrlab.evaluation.results import (
    OF_EVALUATION,
    Caveat,
    EvaluatedData,
    EvaluationResult,
    IntervalMethod,
    LabelCounts,
    LabelThreshold,
)
from cxrlab.evaluation.stratified import stratified_auroc
from cxrlab.evaluation.subgroups import subgroup_numbers
from cxrlab.evaluation.threshold_caveats import threshold_caveats
from cxrlab.metrics.bootstrap import Counts, Estimate, patient_counts
from cxrlab.metrics.calibration import Calibrator, evaluate_calibration
from cxrlab.metrics.confusion import confusion_counts
from cxrlab.metrics.delong import delong_estimate
from cxrlab.metrics.estimates import MetricEstimates, averaged_labels, class_patients, metric_estimates
from cxrlab.metrics.predictions import DataFacts, Floats, PredictionTable
from cxrlab.metrics.referral import ReferralRules
from cxrlab.metrics.settings import EvaluationSettings

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
    settings: EvaluationSettings | None = None,
    thresholds: Thresholds | None = None,
    calibrator: Calibrator | None = None,
    data: DataFacts | None = None,
    notes: Sequence[str] = (),
    cohort: Cohort | None = None,
    own: OwnPart | None = None,
    baselines: Baselines | None = None,
    validation: PredictionTable | None = None,
    referral: ReferralRules | None = None,
    image_facts: ImageFacts | None = None,
    interventions: InterventionResult | None = None,
    contamination: Contamination | None = None,
) -> EvaluationResult:
    """Return every number of an evaluation, with its interval.

    Args:
        table: What is evaluated.
        settings: How; by default as in conf/evaluation/default.yaml.
        thresholds: Chosen elsewhere than on ``table``; without them what needs a threshold is left out.
        calibrator: Fitted elsewhere than on ``table``.
        data: What the images are, where that is known.
        notes: What else the reader must know; these become the first caveats.
        cohort: Images and patients of all parts; None for those of ``table`` alone.
        own: A run's own part, to be set beside ``table``, which is of another data set.
        baselines: What simple models predict of the same images.
        validation: Predictions of other images by the same model, of the same labels, to choose thresholds by
            further rules on; without them those are left out.
        referral: Rules to rule in, rule out, or refer; None to choose them on ``validation``.
        image_facts: Brightness, contrast and sizes of boxes of the images, where they are at hand.
        interventions: What changes of some of the images do.
        contamination: Whether the weights that the training started from had seen the images.
    """
    settings = settings or EvaluationSettings()
    data = data or DataFacts("")
    clock = _Clock()
    values = np.full(len(table.labels), np.nan) if thresholds is None else thresholds.values
    counts = clock.timed(
        "resampling", patient_counts, table.num_patients, settings.num_resamples, settings.seed
    )
    metrics = clock.timed("metrics", _metric_estimates, table, values, counts, settings)
    delong = clock.timed("delong", _delong_estimates, table, settings)
    subgroups = clock.timed("subgroups", subgroup_numbers, table, values, settings)
    stratified = clock.timed("stratified", stratified_auroc, table, settings)
    calibration = clock.timed("calibration", evaluate_calibration, table, calibrator, counts, settings)
    curves = clock.timed("curves", label_curves, table, settings)
    points = clock.timed("operating points", operating_points, table, validation, counts, settings)
    referred = clock.timed("referral", evaluate_referral, table, referral, validation, counts, settings)
    acting, decision_curves = clock.timed("decisions", decisions, table, calibrator, counts, settings)
    failures = clock.timed("failures", failure_analysis, table, values, counts, settings, image_facts)
    readers = clock.timed("readers", reader_study, table, counts, settings.level)
    folds = clock.timed("folds", _within_folds, table, counts, settings)
    labels = {
        label: folds.labels.get(label, {})
        | metrics.labels[label]
        | {"auroc_bootstrap": metrics.bootstrapped[label], "auroc_delong_clustered": delong[label]}
        for label in table.labels
    }
    external = None
    if own is not None:
        external = clock.timed(
            "external",
            external_comparison,
            table,
            own,
            labels,
            metrics.macro,
            values,
            calibrator,
            counts,
            settings,
        )
    beside = (
        None
        if baselines is None
        else clock.timed("baselines", evaluate_baselines, table, baselines, counts, settings)
    )
    return EvaluationResult(
        data=EvaluatedData.of(table, data, table.source),
        interval=IntervalMethod.of(table, settings, OF_EVALUATION),
        labels=labels,
        macro=folds.macro | metrics.macro,
        micro=metrics.micro,
        num_macro_labels=len(metrics.averaged),
        macro_labels=metrics.averaged,
        counts=_counts(table, values),
        thresholds=_thresholds(table, thresholds),
        prevalence=settings.prevalence,
        flags=[
            *contamination_caveats(contamination, data.known_as),
            *(Caveat("note", None, note) for note in notes),
            *fold_caveats(folds.facts),
            *(Caveat("baseline", None, message) for message in baseline_caveat(beside)),
            *(Caveat("intervention", None, message) for message in intervention_caveat(interventions)),
            *caveats(table, thresholds, settings),
            *threshold_caveats(table.labels, thresholds, settings.min_threshold_patients),
        ],
        classification_report=classification_report(table, values, counts, settings, negative=data.negative),
        calibration=calibration,
        subgroups=subgroups.rows,
        gaps=subgroups.gaps,
        published=published_table(
            labels,
            metrics.macro,
            data.name,
            data.split,
            len(table),
            metrics.averaged,
            is_nih=are_of_nih(table.images),
        ),
        seconds=clock.seconds,
        out_of_fold=folds.facts,
        cohort=cohort or table_cohort(table),
        external=external,
        baselines=beside,
        failures=failures,
        operating_points=points,
        referral=referred,
        decisions=acting,
        curves=_joined(curves, decision_curves),
        num_gap_tests=subgroups.num_tested,
        subgroup_means=subgroups.means,
        subgroup_pairs=subgroups.pairs,
        equalised_odds=subgroups.equalised_odds,
        stratified=stratified,
        interventions=interventions,
        readers=readers,
        contamination=contamination,
    )


def _joined(*frames: pd.DataFrame) -> pd.DataFrame:
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else frames[0]


class _Folds(NamedTuple):
    """AUROC within folds, by label and as a mean; empty for a table without folds."""

    facts: OutOfFold | None
    labels: dict[str, dict[str, Estimate]]
    macro: dict[str, Estimate]


def _within_folds(table: PredictionTable, counts: Counts, settings: EvaluationSettings) -> _Folds:
    if table.folds is None:
        return _Folds(None, {}, {})
    within = within_folds(table, counts)
    labels, macro = within.estimates(
        table.labels, settings.level, averaged_labels(table, settings.min_positives)
    )
    return _Folds(
        out_of_fold(table, within),
        {label: {WITHIN_FOLDS: auroc} for label, auroc in labels.items()},
        {WITHIN_FOLDS: macro},
    )


def _metric_estimates(
    table: PredictionTable, thresholds: Floats, counts: Counts, settings: EvaluationSettings
) -> MetricEstimates:
    return metric_estimates(
        table,
        thresholds,
        counts,
        level=settings.level,
        prevalence=settings.prevalence,
        min_positives=settings.min_positives,
    )


def _delong_estimates(table: PredictionTable, settings: EvaluationSettings) -> dict[str, Estimate]:
    """Return DeLong's interval of each label's AUROC, clustered by patient."""
    columns = zip(table.labels, table.probabilities.T, table.targets.T, strict=True)
    return {
        label: delong_estimate(scores, targets, table.patients, settings.level)
        for label, scores, targets in columns
    }


def _counts(table: PredictionTable, thresholds: Floats) -> dict[str, LabelCounts]:
    """Return how many images, positives and outcomes each label has."""
    outcomes = np.array(confusion_counts(table, thresholds))
    patients = class_patients(table)
    result = {}
    for column, label in enumerate(table.labels):
        targets = table.targets[:, column]
        has_threshold = not np.isnan(thresholds[column])
        tp, fp, tn, fn = (int(count) if has_threshold else None for count in outcomes[:, column])
        result[label] = LabelCounts(
            images=int(table.known[:, column].sum()),
            positives=int((targets == 1).sum()),
            negatives=int((targets == 0).sum()),
            positive_patients=int(patients[0, column]) if table.patients_known else None,
            tp=tp,
            fp=fp,
            tn=tn,
            fn=fn,
            negative_patients=int(patients[1, column]) if table.patients_known else None,
        )
    return result


def _thresholds(table: PredictionTable, thresholds: Thresholds | None) -> dict[str, LabelThreshold]:
    if thresholds is None:
        return {}
    basis = [asdict(of_label) for of_label in thresholds.basis] or [{}] * len(table.labels)
    return {
        label: LabelThreshold(
            None if np.isnan(value) else float(value), thresholds.rule, thresholds.source, **of_label
        )
        for label, value, of_label in zip(table.labels, thresholds.values, basis, strict=True)
    }
