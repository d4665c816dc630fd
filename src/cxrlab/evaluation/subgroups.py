"""Whether a model serves all groups alike: metrics by view, sex, age and any other covariate."""

import logging
from collections.abc import Sequence

from cxrlab.evaluation.disparities import largest_gaps
from cxrlab.evaluation.groups import (
    GROUP_METRICS,
    Group,
    GroupMetrics,
    counted,
    covariate_groups,
    group_metrics,
    macro_labels,
    with_macro,
)
from cxrlab.evaluation.results import Gap, SubgroupRow
from cxrlab.metrics.bootstrap import MACRO, Counts, Estimate, estimate
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

_log = logging.getLogger(__name__)


def subgroup_numbers(
    table: PredictionTable, thresholds: Floats, counts: Counts, settings: EvaluationSettings
) -> tuple[list[SubgroupRow], list[Gap]]:
    """Return the metrics of each group of each covariate, and the largest gaps between groups.

    Groups of fewer than ``settings.min_group_images`` images are counted, but their metrics are None. The
    macro mean (label ``macro``, where there are several labels) runs over the same labels in all groups of a
    covariate; see :func:`~cxrlab.evaluation.groups.macro_labels`. Covariates with one value only, or
    without any group of that size, are left out.

    Args:
        table: What is evaluated, with its covariates.
        thresholds: Shape ``(L,)``; NaN where there is none.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        settings: How to evaluate.

    Returns:
        The rows, and the gaps of :func:`~cxrlab.evaluation.disparities.largest_gaps`.
    """
    rows: list[SubgroupRow] = []
    gaps: list[Gap] = []
    for name in map(str, table.covariates):
        groups = covariate_groups(name, table.covariates[name], settings.age_bands)
        if len(groups) < 2 or not any(_is_compared(group, settings) for group in groups):
            _log.info(
                f"subgroups: {name} has one value only, or no group of {settings.min_group_images} images"
            )
            continue
        metrics = [
            group_metrics(table, thresholds, counts, group)
            if _is_large_enough(group, settings)
            else counted(table, group, counts.shape[1])
            for group in groups
        ]
        metrics, num_macro = _with_macro(metrics, settings)
        for group in metrics:
            rows += _rows(name, group, table.patients_known, num_macro, settings.level)
        compared = [group for group in metrics if _is_compared(group.group, settings)]
        gaps += largest_gaps(name, compared, settings)
    return rows, gaps


def _is_large_enough(group: Group, settings: EvaluationSettings) -> bool:
    return int(group.members.sum()) >= settings.min_group_images


def _is_compared(group: Group, settings: EvaluationSettings) -> bool:
    return group.is_compared and _is_large_enough(group, settings)


def _with_macro(
    metrics: Sequence[GroupMetrics], settings: EvaluationSettings
) -> tuple[list[GroupMetrics], int]:
    """Add the macro mean where there are several labels, and return how many labels it is of."""
    if len(metrics[0].labels) < 2:
        return list(metrics), 0
    compared = [group for group in metrics if _is_compared(group.group, settings)]
    chosen = macro_labels(compared, settings.min_positives)
    return [with_macro(group, chosen, settings.min_positives) for group in metrics], int(chosen.sum())


def _rows(
    covariate: str, metrics: GroupMetrics, patients_known: bool, num_macro: int, level: float
) -> list[SubgroupRow]:
    rows = []
    for column, label in enumerate(metrics.labels):
        is_macro = label == MACRO
        rows.append(
            SubgroupRow(
                covariate=covariate,
                group=metrics.group.name,
                label=label,
                images=int(metrics.num_images[column]),
                patients=metrics.num_patients if patients_known else None,
                positives=None if is_macro else int(metrics.num_positives[column]),
                negatives_from="all" if metrics.borrows[column] else "group",
                num_labels=num_macro if is_macro else 1,
                **_estimates(metrics, column, level),
            )
        )
    return sorted(rows, key=lambda row: row.label != MACRO)  # the mean first


def _estimates(metrics: GroupMetrics, column: int, level: float) -> dict[str, Estimate]:
    """Return the estimate of each metric of one label."""
    estimates = {}
    for index, metric in enumerate(GROUP_METRICS):
        value, samples = float(metrics.values[index, column]), metrics.samples[index, column]
        units = 0 if metric == "auroc" else int(metrics.units[index, column])
        estimates[metric] = estimate(value, samples, level, units=units)
    return estimates
