"""Another data set beside a run's own test part: how well it does there, and what is different there.

Metrics side by side, prevalence, the shift of the log odds that would be right, and the drift of covariates,
pixels and scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import chi2, ks_2samp, t

from cxrlab.data.audit.drift import LARGEST, standardised_difference
from cxrlab.evaluation.groups import covariate_groups
from cxrlab.metrics.bootstrap import Counts, Estimate, estimate, patient_counts, ratio, resampled
from cxrlab.metrics.calibration import Calibrator, recalibration_in_the_large
from cxrlab.metrics.estimates import sums_by_patient
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

METRICS = ("auroc", "average_precision", "brier", "sensitivity", "specificity")
AT_THRESHOLD = ("sensitivity", "specificity")
LOOKS = ("brightness", "contrast", "spread")
NUM_BINS = 10

_ERRORS = 3.0  # standard errors that hold a whole table of differences, as in the audit of the data
_SMALL, _LARGE = 0.1, 0.25  # of the population stability index, as is common


@dataclass(frozen=True)
class OwnPart:
    """What a run found on a part of its own data set.

    Attributes:
        part: ``test``, or ``val`` where the run has not read its test part.
        labels: Its metrics by label and name, as in its ``evaluation.json``; empty where that is not there.
        macro: Its means by name.
        num_macro_labels: Labels that the mean AUROC is of.
        thresholds: At which sensitivity and specificity hold, by label.
        table: Its predictions.
        looks: Brightness, contrast and spread of its images; None where they cannot be read.
        other_looks: The same of the images that are evaluated.
    """

    part: str
    labels: Mapping[str, Mapping[str, Estimate]]
    macro: Mapping[str, Estimate]
    num_macro_labels: int
    thresholds: Mapping[str, float | None]
    table: PredictionTable
    looks: pd.DataFrame | None = None
    other_looks: pd.DataFrame | None = None


@dataclass(frozen=True)
class Beside:
    """A number of the run's own part and of the other data.

    Attributes:
        own: On its own part.
        here: On the other data.
        difference: The other minus the own, of patients that are others, by both intervals.
    """

    own: Estimate
    here: Estimate
    difference: Estimate

    @classmethod
    def of(cls, own: Estimate, here: Estimate) -> "Beside":
        """Set two independent estimates side by side.

        References:
            Zou and Donner, Statistics in Medicine 27:1693, 2008.
        """
        if own.value is None or here.value is None:
            return cls(own, here, Estimate(None))
        value = here.value - own.value
        if own.low is None or own.high is None or here.low is None or here.high is None:
            return cls(own, here, Estimate(value))
        down = ((here.value - here.low) ** 2 + (own.high - own.value) ** 2) ** 0.5
        up = ((here.high - here.value) ** 2 + (own.value - own.low) ** 2) ** 0.5
        return cls(own, here, Estimate(value, value - down, value + up))


@dataclass(frozen=True)
class ScoreDrift:
    """How far the scores of a label are apart in the two data sets.

    Attributes:
        stability_index: Population stability index over tenths of the own scores.
        by_chance: What it stays below in 95 of 100 pairs of samples of this many patients, where nothing
            differs.
        distance: The largest distance of the distribution functions (Kolmogorov and Smirnov), of all images.
        distance_positives: The same of images with the finding; None where one side has none.
        distance_negatives: The same of images without it.
        description: In words.
    """

    stability_index: float
    by_chance: float
    distance: float
    distance_positives: float | None
    distance_negatives: float | None
    description: str


@dataclass(frozen=True)
class ExternalLabel:
    """A label in both data sets.

    Attributes:
        metrics: AUROC and the like by name; what one side lacks is left out.
        prevalence: Share of images with the finding.
        mean_probability: After the recalibration that the run fitted on validation.
        log_odds_shift: What would have to be added to the logits of these probabilities for their mean to be
            the share present: recalibration in the large.
        description: Of the shift in the other data, in words.
        scores: How far the scores are apart; None where there are too few.
    """

    metrics: Mapping[str, Beside]
    prevalence: Beside
    mean_probability: Beside
    log_odds_shift: Beside
    description: str
    scores: ScoreDrift | None


@dataclass(frozen=True)
class DriftRow:
    """A variable in both data sets.

    Attributes:
        kind: ``covariate`` or ``image``.
        variable: Such as ``view AP`` or ``brightness``.
        is_share: Whether the values are shares.
        own: Mean, or share, in the run's own part.
        here: In the other data.
        own_deviation: Standard deviation; None for a share.
        here_deviation: The same.
        smd: Standardised mean difference, positive where the other data have more; None where unknown.
        is_flagged: Whether it is large, and more than chance.
    """

    kind: str
    variable: str
    is_share: bool
    own: float
    here: float
    own_deviation: float | None
    here_deviation: float | None
    smd: float | None
    is_flagged: bool


@dataclass(frozen=True)
class ExternalComparison:
    """An evaluation on another data set beside that on the run's own part.

    Attributes:
        part: Of the run's own data.
        images: Of that part.
        patients: Of that part; None where they are unknown.
        macro: Means of the metrics by name; what one side lacks, or is of other labels, is left out.
        labels: By label.
        drift: Of covariates and images.
        left_out: Why something is missing, in sentences.
    """

    part: str
    images: int
    patients: int | None
    macro: Mapping[str, Beside]
    labels: Mapping[str, ExternalLabel]
    drift: Sequence[DriftRow]
    left_out: Sequence[str] = field(default_factory=list)


def external_comparison(
    table: PredictionTable,
    own: OwnPart,
    labels: Mapping[str, Mapping[str, Estimate]],
    macro: Mapping[str, Estimate],
    thresholds: Floats,
    calibrator: Calibrator | None,
    counts: Counts,
    settings: EvaluationSettings,
) -> ExternalComparison:
    """Return an evaluation beside that of the run's own part.

    Args:
        table: What is evaluated.
        own: The run's own part.
        labels: The metrics of ``table`` by label and name.
        macro: Their means.
        thresholds: Of ``table``, NaN where there is none, shape ``(L,)``.
        calibrator: Fitted on validation; None for none.
        counts: How often each patient of ``table`` stands in each resample.
        settings: How it is evaluated.
    """
    own_table = own.table.select_labels([label for label in table.labels if label in own.table.labels])
    shared = list(own_table.labels)
    own_counts = patient_counts(own_table.num_patients, settings.num_resamples, settings.seed)
    columns = [table.labels.index(label) for label in shared]
    here = table.select_labels(shared)
    chosen = None if calibrator is None else _columns(calibrator, columns)
    same = {
        label: _is_same(own.thresholds.get(label), float(thresholds[column]))
        for label, column in zip(shared, columns, strict=True)
    }
    sides = (
        _large(own_table, chosen, own_counts, settings.level),
        _large(here, chosen, counts, settings.level),
    )
    by_label = {}
    for place, label in enumerate(shared):
        prevalence, mean, shift = (
            Beside.of(of_own[place], of_here[place]) for of_own, of_here in zip(*sides, strict=True)
        )
        by_label[label] = ExternalLabel(
            metrics=_metrics(own.labels.get(label, {}), labels[label], at_threshold=same[label]),
            prevalence=prevalence,
            mean_probability=mean,
            log_odds_shift=shift,
            description=_describe_shift(shift.here),
            scores=_score_drift(own_table, here, place),
        )
    comparable = set(shared) == set(own.labels) == set(table.labels)
    return ExternalComparison(
        part=own.part,
        images=len(own_table),
        patients=own_table.num_patients if own_table.patients_known else None,
        macro=_metrics(own.macro, macro, at_threshold=all(same.values())) if comparable else {},
        labels=by_label,
        drift=[*_covariate_drift(own_table, here, settings), *_look_drift(own, own_table, here)],
        left_out=_left_out(own, own_table, here, same),
    )


def _columns(calibrator: Calibrator, columns: Sequence[int]) -> Calibrator:
    return Calibrator(
        calibrator.slopes[columns], calibrator.intercepts[columns], calibrator.method, calibrator.source
    )


def _is_same(own: float | None, here: float) -> bool:
    return own is not None and abs(own - here) < 1e-9


def _metrics(
    own: Mapping[str, Estimate], here: Mapping[str, Estimate], *, at_threshold: bool
) -> dict[str, Beside]:
    names = [name for name in METRICS if name in own and name in here]
    return {
        name: Beside.of(own[name], here[name]) for name in names if at_threshold or name not in AT_THRESHOLD
    }


def _large(
    table: PredictionTable, calibrator: Calibrator | None, counts: Counts, level: float
) -> tuple[list[Estimate], list[Estimate], list[Estimate]]:
    """Return of each label the share present, the mean probability, and the shift of the log odds."""
    probabilities = table.probabilities if calibrator is None else calibrator.apply(table.probabilities)
    known = table.known
    targets = np.where(known, table.targets, 0.0)
    stacked = np.stack([targets, np.where(known, probabilities, 0.0), known.astype(float)])
    sums = sums_by_patient(table, stacked)
    drawn = resampled(sums, counts)
    patients = (sums[2] > 0).sum(axis=1)
    shares, means = (
        [
            estimate(float(value), samples, level, units=int(units))
            for value, samples, units in zip(
                ratio(sums[row].sum(axis=1), sums[2].sum(axis=1)),
                ratio(drawn[row], drawn[2]),
                patients,
                strict=True,
            )
        ]
        for row in (0, 1)
    )
    shifts = [
        shift_estimate(probabilities[known[:, column], column], table.targets[known[:, column], column],
                       table.patients[known[:, column]], level)
        for column in range(len(table.labels))
    ]  # fmt: skip
    return shares, means, shifts


def shift_estimate(probabilities: Floats, targets: Floats, patients: Any, level: float) -> Estimate:
    """Return recalibration in the large with its interval.

    The standard error is the sandwich's, clustered by patient; the interval is Student's t with one degree of
    freedom less than the patients of the rarer class.

    Args:
        probabilities: Shape ``(N,)``.
        targets: 0 or 1, shape ``(N,)``.
        patients: Number of each image's patient, shape ``(N,)``.
        level: Coverage.
    """
    if not len(targets):
        return Estimate(None)
    shift = recalibration_in_the_large(probabilities, targets)
    if np.isnan(shift):
        return Estimate(None)
    clipped = np.clip(probabilities, 1e-7, 1 - 1e-7)
    shifted = expit(np.log(clipped / (1 - clipped)) + shift)
    sums = np.bincount(np.unique(patients, return_inverse=True)[1], weights=targets - shifted)
    fewest = min(len(np.unique(patients[targets == one])) for one in (0, 1))
    information = float((shifted * (1 - shifted)).sum())
    if fewest < 2 or information <= 0:
        return Estimate(shift)
    error = float(np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum())) / information
    reach = float(t.ppf((1 + level) / 2, fewest - 1)) * error
    return Estimate(shift, shift - reach, shift + reach)


def _describe_shift(shift: Estimate) -> str:
    if shift.value is None:
        return "one class only"
    if shift.low is None or shift.high is None:
        return "too few patients to tell"
    odds = float(np.exp(shift.value))
    if shift.low > 0:
        return f"too low here: multiply the odds by {odds:.2f}"
    if shift.high < 0:
        return f"too high here: multiply the odds by {odds:.2f}"
    return "no shift shown"


def _score_drift(own: PredictionTable, here: PredictionTable, column: int) -> ScoreDrift | None:
    tables = (own, here)
    scores = [table.probabilities[:, column] for table in tables]
    if min(map(len, scores)) < 2 * NUM_BINS:
        return None
    edges = np.unique(np.quantile(scores[0], np.linspace(0, 1, NUM_BINS + 1)[1:-1]))
    shares = [
        np.bincount(np.searchsorted(edges, of_side, side="right"), minlength=len(edges) + 1)
        for of_side in scores
    ]
    index = stability_index(*shares)
    num_patients = [table.num_patients for table in tables]
    by_chance = float(chi2.ppf(0.95, len(edges))) * sum(1 / number for number in num_patients)
    distances = []
    for target in (None, 1.0, 0.0):
        sides = [
            of_side if target is None else of_side[table.targets[:, column] == target]
            for of_side, table in zip(scores, tables, strict=True)
        ]
        distances.append(float(ks_2samp(*sides).statistic) if all(map(len, sides)) else None)
    return ScoreDrift(
        index, by_chance, distances[0] or 0.0, distances[1], distances[2], _describe_scores(index, by_chance)
    )


def stability_index(own: Any, here: Any) -> float:
    """Return the population stability index of two counts over the same bins.

    Half an image is added to each bin, so that an empty one does not make it infinite.

    Example:
        >>> stability_index(np.array([50, 50]), np.array([50, 50]))
        0.0
        >>> round(stability_index(np.array([500, 500]), np.array([250, 750])), 2)
        0.27
    """
    first, second = ((counts + 0.5) / (counts + 0.5).sum() for counts in (np.asarray(own), np.asarray(here)))
    return float(((second - first) * np.log(second / first)).sum())


def _describe_scores(index: float, by_chance: float) -> str:
    if index <= by_chance:
        return "no more apart than by chance"
    if index < _SMALL:
        return "a little apart"
    return "apart" if index < _LARGE else "far apart"


def _covariate_drift(
    own: PredictionTable, here: PredictionTable, settings: EvaluationSettings
) -> list[DriftRow]:
    rows = []
    for name in own.covariates:
        if name not in here.covariates:
            continue
        values = pd.concat([own.covariates[name], here.covariates[name]], ignore_index=True)
        is_own = np.arange(len(values)) < len(own)
        groups = covariate_groups(str(name), values, settings.age_bands)
        for group in groups[:1] if len(groups) == 2 else groups:  # the second of two mirrors the first
            members = group.members.astype(float)
            variable = f"{name} {group.name}"
            rows.append(
                _drift_row("covariate", variable, members[is_own], members[~is_own], own, here, is_share=True)
            )
    return rows


def _look_drift(own: OwnPart, own_table: PredictionTable, here: PredictionTable) -> list[DriftRow]:
    if own.looks is None or own.other_looks is None:
        return []
    return [
        _drift_row(
            "image",
            name,
            own.looks[name].to_numpy(float),
            own.other_looks[name].to_numpy(float),
            own_table,
            here,
            is_share=False,
        )
        for name in LOOKS
        if name in own.looks and name in own.other_looks
    ]  # fmt: skip


def _drift_row(
    kind: str,
    variable: str,
    own: Floats,
    here: Floats,
    own_table: PredictionTable,
    table: PredictionTable,
    *,
    is_share: bool,
) -> DriftRow:
    own, here = own[np.isfinite(own)], here[np.isfinite(here)]
    smd = standardised_difference(own, here)
    error = _ERRORS * (1 / own_table.num_patients + 1 / table.num_patients) ** 0.5
    return DriftRow(
        kind=kind,
        variable=variable,
        is_share=is_share,
        own=float(own.mean()) if len(own) else float("nan"),
        here=float(here.mean()) if len(here) else float("nan"),
        own_deviation=None if is_share else float(own.std()),
        here_deviation=None if is_share else float(here.std()),
        smd=float(smd) if np.isfinite(smd) else None,
        is_flagged=bool(abs(smd) >= max(LARGEST, error)),
    )


def _left_out(
    own: OwnPart, own_table: PredictionTable, here: PredictionTable, same: Mapping[str, bool]
) -> list[str]:
    sentences = []
    if not own.labels:
        sentences.append(
            "The run has no evaluation.json of its own part, so no metrics are set beside these."
        )
    elif not all(same.values()):
        others = [label for label, is_same in same.items() if not is_same]
        sentences.append(
            "Sensitivity and specificity are set beside one another only at the same threshold, which is "
            f"another here for {', '.join(others)}."
        )
    missing = [name for name in map(str, own_table.covariates) if name not in here.covariates]
    if missing:
        sentences.append(f"This data set does not tell {', '.join(missing)}, so their drift is not known.")
    if own.looks is None:
        sentences.append("The run's own images could not be read, so the drift of pixels is not known.")
    return sentences
