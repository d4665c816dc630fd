"""AUROC within the groups of a covariate: what is left where the covariate itself can buy nothing.

Radiographs taken in bed are of sicker patients, and easily told from others. A model that saw the view alone
would have an AUROC above 0.5, but not within one view.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxrlab.evaluation.groups import Group, covariate_groups
from cxrlab.metrics.bootstrap import MACRO, Estimate, holm
from cxrlab.metrics.influence import (
    Influence,
    InfluenceDifference,
    auroc_influence,
    logit_interval,
    mean_influence,
    paired_difference,
)
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

Strata = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StratifiedAuroc:
    """AUROC of a label over all pairs of images, and over the pairs within one group of a covariate.

    Attributes:
        covariate: What the groups are by, such as ``view``.
        label: Or ``macro`` for the mean.
        num_groups: Groups with and without the finding, whose pairs are counted; 0 for the mean.
        share_of_pairs: Pairs within groups among all; None for the mean.
        patients: Behind the value within groups: those with the finding or those without it, whichever are
            fewer.
        auroc: Over all pairs of the images whose group is known.
        within: Over the pairs within a group, each pair counting alike.
        difference: The first minus the second: what the covariate adds.
        p: Two-sided, of "no difference"; None where nothing could be tested.
        p_holm: The same, corrected for all labels and covariates.
        is_shown: Whether there is a difference after that correction.
    """

    covariate: str
    label: str
    num_groups: int
    share_of_pairs: float | None
    patients: int
    auroc: Estimate
    within: Estimate
    difference: Estimate
    p: float | None
    p_holm: float | None
    is_shown: bool


@dataclass(frozen=True)
class _Pair:
    """A label, or the mean, of one covariate, before the correction."""

    covariate: str
    label: str
    num_groups: int
    share_of_pairs: float | None
    overall: Influence
    within: Influence


def stratified_auroc(table: PredictionTable, settings: EvaluationSettings) -> list[StratifiedAuroc]:
    """Return AUROC within the groups of each covariate, for each label and their mean.

    Images whose group is not known, or that have only rare values in common, are left out on both sides.
    Labels that have no pair within a group are left out, and so are covariates of one value.

    Args:
        table: What is evaluated, with its covariates.
        settings: With the age bands, and the level.
    """
    pairs = [
        pair
        for name in map(str, table.covariates)
        for pair in _of_covariate(
            table, name, covariate_groups(name, table.covariates[name], settings.age_bands)
        )
    ]
    tests = [paired_difference(pair.overall, pair.within) for pair in pairs]
    p_values = [_p(pair, test, settings) for pair, test in zip(pairs, tests, strict=True)]
    corrected = holm(p_values)
    return [
        StratifiedAuroc(
            covariate=pair.covariate,
            label=pair.label,
            num_groups=pair.num_groups,
            share_of_pairs=pair.share_of_pairs,
            patients=pair.within.units,
            auroc=logit_interval(pair.overall, settings.level),
            within=logit_interval(pair.within, settings.level),
            difference=test.estimate(settings.level),
            p=None if np.isnan(p) else p,
            p_holm=None if np.isnan(p_holm) else p_holm,
            is_shown=bool(p_holm < 1 - settings.level),
        )
        for pair, test, p, p_holm in zip(pairs, tests, p_values, corrected, strict=True)
    ]


def _p(pair: _Pair, test: InfluenceDifference, settings: EvaluationSettings) -> float:
    return test.p if pair.within.units >= settings.min_gap_patients else float("nan")


def _of_covariate(table: PredictionTable, name: str, groups: Sequence[Group]) -> list[_Pair]:
    """Return the mean over the labels that have pairs within a group, where there are several, and these."""
    strata: Strata = np.full(len(table), -1)
    compared = [group for group in groups if group.is_compared]
    for number, group in enumerate(compared):
        strata[group.members] = number
    if len(compared) < 2:
        return []
    found = [pair for column in range(len(table.labels)) if (pair := _of_label(table, name, column, strata))]
    if len(table.labels) < 2 or not found:
        return found
    mean = _Pair(
        covariate=name,
        label=MACRO,
        num_groups=0,
        share_of_pairs=None,
        overall=mean_influence([pair.overall for pair in found], table.num_patients),
        within=mean_influence([pair.within for pair in found], table.num_patients),
    )
    return [mean, *found]


def _of_label(table: PredictionTable, name: str, column: int, strata: Strata) -> _Pair | None:
    """Return a label's AUROC over all pairs and within groups; None where no group has both classes."""
    kept = table.known[:, column] & (strata >= 0)
    targets, own = table.targets[kept, column], strata[kept]
    positives, negatives = (np.bincount(own[targets == side], minlength=strata.max() + 1) for side in (1, 0))
    num_pairs = int(positives @ negatives)
    if not num_pairs:
        return None
    scores, patients = table.probabilities[kept, column], table.patients[kept]
    return _Pair(
        covariate=name,
        label=table.labels[column],
        num_groups=int(((positives > 0) & (negatives > 0)).sum()),
        share_of_pairs=num_pairs / float(positives.sum() * negatives.sum()),
        overall=auroc_influence(scores, targets, patients, table.num_patients),
        within=auroc_influence(scores, targets, patients, table.num_patients, own),
    )
