"""Where errors gather: misses and false positives by co-finding, covariate, box size and brightness."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t as t_distribution

from cxrlab.evaluation.groups import covariate_groups
from cxrlab.evaluation.image_facts import ImageFacts
from cxrlab.metrics.bootstrap import Counts, Estimate, estimate, holm, patient_sums, ratio, resampled
from cxrlab.metrics.predictions import Floats, PredictionTable, decisions_at
from cxrlab.metrics.settings import EvaluationSettings

Error = Literal["missed", "false positive"]
Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

LEAST_PATIENTS = 20
"""Patients that a group, and all others, must have."""


@dataclass(frozen=True)
class FailurePattern:
    """A group of images in which a label's errors are more frequent than in the others.

    Attributes:
        label: The finding.
        error: ``missed``, of images with the finding; or ``false positive``, of those without it.
        by: What the groups are by, such as ``view`` or ``box``.
        group: What the images have in common.
        images: Of the group, with the finding or without it, as the error asks.
        patients: Of these images; None where they are unknown.
        rate: Share of them that are errors.
        others: The same of all other images whose group is known.
        p: Two-sided, of equal shares.
        p_holm: The same, corrected for the number of tests.
    """

    label: str
    error: Error
    by: str
    group: str
    images: int
    patients: int | None
    rate: Estimate
    others: Estimate
    p: float
    p_holm: float


@dataclass(frozen=True)
class FailureAnalysis:
    """What stands out among the errors.

    Attributes:
        num_tests: Comparisons of a group with all others, corrected together.
        compared: What was compared, such as ``co-finding`` or ``view``.
        patterns: Where errors are shown to be more frequent, clearest first.
    """

    num_tests: int
    compared: Sequence[str]
    patterns: Sequence[FailurePattern]


@dataclass(frozen=True)
class _Factor:
    """Groups of images; an image that is in none is left out.

    Attributes:
        by: What they are by.
        names: Of G groups.
        members: Shape ``(N, G)``.
    """

    by: str
    names: Sequence[str]
    members: Mask


@dataclass(frozen=True)
class _Tests:
    """Comparisons of the groups of one factor, for one error of one label.

    Attributes:
        factor: The groups.
        rows: Images that can have the error.
        errors: Which of these do.
        groups: Numbers of the groups that are tested.
        scores: Above 0 where errors are more frequent in the group, in standard errors.
        p: Two-sided.
    """

    label: int
    error: Error
    factor: _Factor
    rows: Integers
    errors: Mask
    groups: Sequence[int]
    scores: Floats
    p: Floats


def failure_analysis(
    table: PredictionTable,
    thresholds: Floats,
    counts: Counts,
    settings: EvaluationSettings,
    facts: ImageFacts | None = None,
) -> FailureAnalysis | None:
    """Return where errors are shown to be more frequent; None where no label has a threshold.

    Each group is compared with all other images, and of two groups there is one comparison. The score of
    equal shares is tested, its variance that of independent errors plus what images of a patient add to it,
    with Student's t of (patients of the smallest cell - 1) degrees of freedom, and Holm's correction over all
    labels, errors and groups. A group needs 20 patients, and so do the others; an error needs
    ``settings.min_positives`` patients who have it.

    Args:
        table: What is evaluated.
        thresholds: Shape ``(L,)``; NaN where there is none.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        settings: With the level, and the edges of the bands of age.
        facts: What is known of the images; None where they are not at hand.
    """
    if np.isnan(thresholds).all():
        return None
    decisions = decisions_at(table.probabilities, thresholds)
    shared = [*_covariates(table, settings), *(_appearance(facts) if facts is not None else ())]
    tests = [
        tests
        for label in np.flatnonzero(~np.isnan(thresholds)).tolist()
        for tests in _label_tests(table, decisions[:, label], label, shared, facts, settings)
    ]
    adjusted = iter(holm([float(p) for one in tests for p in one.p]))
    found: list[FailurePattern] = []
    for one in tests:
        for group, score, p in zip(one.groups, one.scores, one.p, strict=True):
            p_holm = next(adjusted)
            if p_holm < 1 - settings.level and (score > 0 or len(one.factor.names) == 2):
                higher = group if score > 0 else 1 - group
                found.append(_pattern(table, one, higher, float(p), p_holm, counts, settings.level))
    return FailureAnalysis(
        num_tests=sum(len(one.p) for one in tests),
        compared=list(dict.fromkeys(one.factor.by for one in tests)),
        patterns=sorted(found, key=lambda pattern: (pattern.p_holm, pattern.p)),
    )


def _covariates(table: PredictionTable, settings: EvaluationSettings) -> Iterator[_Factor]:
    for name in table.covariates:
        yield from _grouped(str(name), table.covariates[name], settings.age_bands)


def _appearance(facts: ImageFacts) -> Iterator[_Factor]:
    yield from _grouped("brightness", pd.Series(facts.brightness), ())
    yield from _grouped("contrast", pd.Series(facts.contrast), ())


def _grouped(by: str, values: "pd.Series[float]", ages: Sequence[float]) -> Iterator[_Factor]:
    groups = [group for group in covariate_groups(by, values, ages) if group.is_compared]
    if len(groups) > 1:
        names = [group.name for group in groups]
        yield _Factor(by, names, np.column_stack([group.members for group in groups]))


def _co_findings(table: PredictionTable, label: int) -> Iterator[_Factor]:
    for other, name in enumerate(table.labels):
        if other != label:
            targets = table.targets[:, other]
            members = np.column_stack([targets == 1, targets == 0])
            yield _Factor("co-finding", [f"with {name}", f"without {name}"], members)


def _box_sizes(areas: Floats) -> Iterator[_Factor]:
    known = ~np.isnan(areas)
    if known.sum() >= 3 * LEAST_PATIENTS:
        yield from _grouped("box", pd.Series(areas), ())


def _label_tests(
    table: PredictionTable,
    decisions: Floats,
    label: int,
    shared: Sequence[_Factor],
    facts: ImageFacts | None,
    settings: EvaluationSettings,
) -> Iterator[_Tests]:
    targets = table.targets[:, label]
    factors = [*_co_findings(table, label), *shared]
    boxes = [] if facts is None else [*_box_sizes(np.where(targets == 1, facts.box_areas[:, label], np.nan))]
    kinds: tuple[tuple[Error, float], ...] = (("missed", 1.0), ("false positive", 0.0))
    for error, present in kinds:
        rows = np.flatnonzero(targets == present)
        is_error = decisions[rows] != present
        for factor in [*factors, *(boxes if error == "missed" else [])]:
            tests = _tests(table, label, error, factor, rows, is_error, settings.min_positives)
            if tests is not None:
                yield tests


def _tests(
    table: PredictionTable,
    label: int,
    error: Error,
    factor: _Factor,
    rows: Integers,
    is_error: Mask,
    least_errors: int,
) -> _Tests | None:
    """Return the comparisons of a factor; None where no group has enough patients."""
    members = factor.members[rows]
    belongs, errors = members.any(axis=1), is_error
    if (
        not belongs.all()
    ):  # else nothing is copied: of a million images, the rows of all factors are gigabytes
        rows, members, errors = rows[belongs], members[belongs], is_error[belongs]
    patients, num_patients = table.patients[rows], table.num_patients
    rarer = errors if 2 * errors.sum() <= len(errors) else ~errors
    num_rarer = np.count_nonzero(np.bincount(patients[rarer]))
    if num_rarer < max(least_errors, 2):
        return None
    candidates = [0] if members.shape[1] == 2 else [*range(members.shape[1])]
    inside = members[:, candidates].astype(np.float64)
    sums = patient_sums(np.concatenate([inside, 1 - inside], axis=1), patients, num_patients)
    smaller = (sums > 0).sum(axis=1).reshape(2, -1).min(axis=0)  # patients of the group, or of the others
    enough = smaller >= LEAST_PATIENTS
    if not enough.any():
        return None
    inside, groups = inside[:, enough], [candidates[place] for place in np.flatnonzero(enough)]
    scores = _scores(inside, errors.astype(np.float64), patients, num_patients)
    freedom = np.minimum(smaller[enough], num_rarer) - 1
    p = 2 * t_distribution.sf(np.abs(scores), freedom)
    return _Tests(label, error, factor, rows, errors, groups, scores, np.asarray(p))


def _scores(inside: Floats, errors: Floats, patients: Integers, num_patients: int) -> Floats:
    """Return the score of equal shares inside and outside of each group, in standard errors.

    Args:
        inside: 1 in the group, 0 outside, shape ``(n, G)``.
        errors: 1 for an error, shape ``(n,)``.
        patients: Numbers, shape ``(n,)``.
        num_patients: How many.
    """
    share = errors.mean()
    centred = inside - inside.mean(axis=0)
    terms = centred * (errors - share)[:, None]
    independent = share * (1 - share) * (centred**2).sum(axis=0)
    together = (patient_sums(terms, patients, num_patients) ** 2).sum(axis=1) - (terms**2).sum(axis=0)
    variance = independent + np.maximum(together, 0.0)
    return np.where(variance > 0, terms.sum(axis=0) / np.sqrt(np.maximum(variance, 1e-300)), 0.0)


def _pattern(
    table: PredictionTable,
    tests: _Tests,
    group: int,
    p: float,
    p_holm: float,
    counts: Counts,
    level: float,
) -> FailurePattern:
    inside = tests.factor.members[tests.rows, group]
    sides = np.stack([inside, ~inside])
    patients = table.patients[tests.rows]
    columns = np.concatenate([sides, sides & tests.errors]).T
    sums = patient_sums(columns, patients, len(counts))
    drawn = resampled(sums, counts)
    totals = sums.sum(axis=1)
    values, samples = ratio(totals[2:], totals[:2]), ratio(drawn[2:], drawn[:2])
    units = [len(np.unique(patients[side])) for side in sides]
    rate, others = (
        estimate(float(value), row, level, units=unit)
        for value, row, unit in zip(values, samples, units, strict=True)
    )
    return FailurePattern(
        label=table.labels[tests.label],
        error=tests.error,
        by=tests.factor.by,
        group=tests.factor.names[group],
        images=int(inside.sum()),
        patients=units[0] if table.patients_known else None,
        rate=rate,
        others=others,
        p=p,
        p_holm=p_holm,
    )
