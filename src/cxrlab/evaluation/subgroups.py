"""Whether a model serves all groups alike: metrics by view, sex, age, any other covariate, and pairs."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from cxrlab.evaluation.disparities import GroupTest, equalised_odds, group_tests, largest_gaps, num_tested
from cxrlab.evaluation.groups import (
    Group,
    GroupMetrics,
    counted,
    covariate_groups,
    group_metrics,
    macro_labels,
    with_macro,
)
from cxrlab.evaluation.results import EqualisedOdds, Gap, SubgroupRow
from cxrlab.metrics.bootstrap import MACRO
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

_log = logging.getLogger(__name__)

ALL = "all images"
_PAIRED = ("sex", "age", "view")  # whose pairs make groups by default


@dataclass(frozen=True)
class SubgroupNumbers:
    """What is known of the groups of all covariates.

    Attributes:
        rows: Metrics of each group.
        means: The mean of all images over the labels of the groups' means, by covariate.
        gaps: The largest gap between two groups, by covariate, metric and label.
        num_tested: Differences between groups that were tested, and are corrected together.
        equalised_odds: By covariate.
        pairs: Metrics of the groups that share the values of two covariates; they are not tested.
    """

    rows: Sequence[SubgroupRow]
    means: Sequence[SubgroupRow]
    gaps: Sequence[Gap]
    num_tested: int
    equalised_odds: Sequence[EqualisedOdds]
    pairs: Sequence[SubgroupRow]


@dataclass
class _Found:
    """What is gathered covariate by covariate."""

    rows: list[SubgroupRow] = field(default_factory=list)
    means: list[SubgroupRow] = field(default_factory=list)
    tests: list[GroupTest] = field(default_factory=list)


def subgroup_numbers(
    table: PredictionTable, thresholds: Floats, settings: EvaluationSettings
) -> SubgroupNumbers:
    """Return the metrics of each group of each covariate, and the largest gaps between groups.

    Groups of fewer than ``settings.min_group_images`` images are counted, but their metrics are None. The
    macro mean (label ``macro``, where there are several labels) runs over the same labels in all groups of a
    covariate; see :func:`~cxrlab.evaluation.groups.macro_labels`. Covariates with one value only, or
    without any group of that size, are left out.

    Groups by two covariates are evaluated where they have ``settings.min_group_images`` images of
    ``settings.min_gap_patients`` patients. They are not tested: their many differences would join the family
    and take from it what shows those between whole groups.

    Args:
        table: What is evaluated, with its covariates.
        thresholds: Shape ``(L,)``; NaN where there is none.
        settings: How to evaluate.
    """
    groups = {
        name: covariate_groups(name, table.covariates[name], settings.age_bands)
        for name in map(str, table.covariates)
    }
    everything = group_metrics(table, thresholds, Group(ALL, np.ones(len(table), dtype=bool)))
    found = _Found()
    for name, own in groups.items():
        if len(own) < 2 or not any(_is_compared(group, settings) for group in own):
            _log.info(
                f"subgroups: {name} has one value only, or no group of {settings.min_group_images} images"
            )
            continue
        _add(found, name, own, everything, table, thresholds, settings)
    gaps = largest_gaps(found.tests, settings.level)
    return SubgroupNumbers(
        rows=found.rows,
        means=found.means,
        gaps=gaps,
        num_tested=num_tested(found.tests),
        equalised_odds=equalised_odds(found.tests, gaps, settings.level),
        pairs=_pairs(groups, table, thresholds, settings),
    )


def _add(
    found: _Found,
    name: str,
    groups: Sequence[Group],
    everything: GroupMetrics,
    table: PredictionTable,
    thresholds: Floats,
    settings: EvaluationSettings,
) -> None:
    """Add what is known of one covariate's groups; ``everything`` is of all images."""
    metrics = [
        group_metrics(table, thresholds, group)
        if _is_large_enough(group, settings)
        else counted(table, group)
        for group in groups
    ]
    if len(table.labels) > 1:
        compared = [group for group in metrics if _is_compared(group.group, settings)]
        chosen = macro_labels(compared, settings.min_positives)
        metrics = [with_macro(group, chosen, settings.min_positives) for group in metrics]
        of_all = with_macro(everything, chosen, settings.min_positives)
        found.means += _rows(name, of_all, table.patients_known, settings)[:1]
    for group in metrics:
        found.rows += _rows(name, group, table.patients_known, settings)
    compared = [group for group in metrics if _is_compared(group.group, settings)]
    found.tests += group_tests(name, compared, settings)


def _is_large_enough(group: Group, settings: EvaluationSettings) -> bool:
    return int(group.members.sum()) >= settings.min_group_images


def _is_compared(group: Group, settings: EvaluationSettings) -> bool:
    return group.is_compared and _is_large_enough(group, settings)


def _pairs(
    groups: Mapping[str, Sequence[Group]],
    table: PredictionTable,
    thresholds: Floats,
    settings: EvaluationSettings,
) -> list[SubgroupRow]:
    """Return the rows of the groups by two covariates."""
    rows: list[SubgroupRow] = []
    for first, second in _chosen_pairs(list(groups), settings):
        both = [
            Group(f"{one.name}, {other.name}", one.members & other.members)
            for one in groups[first] if one.is_compared
            for other in groups[second] if other.is_compared
        ]  # fmt: skip
        large = [group for group in both if _is_pair_large_enough(group, table, settings)]
        if len(large) < 2:
            continue
        metrics = [group_metrics(table, thresholds, group) for group in large]
        if len(table.labels) > 1:
            chosen = macro_labels(metrics, settings.min_positives)
            metrics = [with_macro(group, chosen, settings.min_positives) for group in metrics]
        for group in metrics:
            rows += _rows(f"{first} and {second}", group, table.patients_known, settings)
    return rows


def _is_pair_large_enough(group: Group, table: PredictionTable, settings: EvaluationSettings) -> bool:
    num_patients = len(np.unique(table.patients[group.members]))
    return _is_large_enough(group, settings) and num_patients >= settings.min_gap_patients


def _chosen_pairs(names: Sequence[str], settings: EvaluationSettings) -> list[tuple[str, str]]:
    """Return the pairs of covariates that there are: those asked for, else of sex, age and view."""
    if settings.subgroup_pairs is None:
        own = {name.lower(): name for name in names}
        return list(combinations([own[name] for name in _PAIRED if name in own], 2))
    pairs = [(str(first), str(second)) for first, second in settings.subgroup_pairs]
    for pair in pairs:
        absent = [name for name in pair if name not in names]
        if absent:
            _log.warning(
                f"evaluation.subgroup_pairs has {list(pair)}, and there is no covariate {absent[0]!r}, but "
                f"{list(names)}: left out."
            )
    return [pair for pair in pairs if set(pair) <= set(names)]


def _rows(
    covariate: str, metrics: GroupMetrics, patients_known: bool, settings: EvaluationSettings
) -> list[SubgroupRow]:
    """Return a row a label; the mean stands first."""
    rows = []
    for column, label in enumerate(metrics.labels):
        is_macro = label == MACRO
        positives, negatives = int(metrics.num_positives[column]), int(metrics.num_negatives[column])
        owners = (int(metrics.positive_patients[column]), int(metrics.negative_patients[column]))
        has_owners = patients_known and not is_macro
        rows.append(
            SubgroupRow(
                covariate=covariate,
                group=metrics.group.name,
                label=label,
                images=int(metrics.num_images[column]),
                patients=metrics.num_patients if patients_known else None,
                positives=None if is_macro else positives,
                negatives_from="all" if metrics.borrows[column] else "group",
                num_labels=len(metrics.macro_of) if is_macro else 1,
                auroc=metrics.estimate("auroc", column, settings.level),
                sensitivity=metrics.estimate("sensitivity", column, settings.level),
                specificity=metrics.estimate("specificity", column, settings.level),
                negatives=None if is_macro else negatives,
                positive_patients=owners[0] if has_owners else None,
                negative_patients=owners[1] if has_owners else None,
                caveat="" if is_macro else _caveat(metrics, column, patients_known, settings.min_positives),
                mean_of=metrics.macro_of if is_macro else (),
            )
        )
    return sorted(rows, key=lambda row: row.label != MACRO)  # the mean first


def _caveat(metrics: GroupMetrics, column: int, patients_known: bool, least: int) -> str:
    """Say that a group has few patients with a finding, or without it."""
    sides = [
        ("with the finding", metrics.num_positives[column], metrics.positive_patients[column]),
        ("without it", metrics.num_negatives[column], metrics.negative_patients[column]),
    ]
    if metrics.borrows[column]:
        del sides[1]
    few = [
        f"{_counted(images, 'image')} {side}"
        + (f", of {_counted(owners, 'patient')}" if patients_known else "")
        for side, images, owners in sides
        if owners < least
    ]
    return f"Only {' and '.join(few)}: this says little." if few else ""


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
