"""Several operating points of each label side by side: a threshold by each rule, and what it gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cxrlab.metrics.bootstrap import Counts, Estimate, estimate, ratio, resampled
from cxrlab.metrics.confusion import label_outcomes, threshold_metrics
from cxrlab.metrics.estimates import sums_by_patient
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.metrics.thresholds import choose_thresholds

# Which of tp, fp, tn, fn are the images that each is a share of, and for the rates which of them are counted.
_SHARES = {"sensitivity": [0, 3], "specificity": [1, 2], "ppv": [0, 1], "npv": [2, 3]}
_RATES = {"predicted_positive": [0, 1], "false_positives": [1], "misses": [3]}
_PER = 1000


@dataclass(frozen=True)
class ValidationCounts:
    """How much a threshold was chosen on.

    Attributes:
        images: Of the validation part whose target is known.
        positives: Those with the finding.
        positive_patients: Patients with such images; None where patients are unknown.
        is_few: Whether these patients, or images where those are unknown, are fewer than
            ``evaluation.min_positives``.
    """

    images: int
    positives: int
    positive_patients: int | None
    is_few: bool


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and what it gives on the images that are evaluated.

    Attributes:
        rule: By which it was chosen on validation, such as ``sensitivity@0.9``.
        threshold: None where none could be chosen.
        note: Why there is none, or what to know of it; may be empty.
        sensitivity: Share of the images with the finding that is predicted positive.
        specificity: Share of those without it that is not.
        ppv: Share of the predicted positives that has the finding.
        npv: Share of the others that has not.
        predicted_positive: Of 1,000 images.
        false_positives: Of 1,000 images.
        misses: Images with the finding that are not predicted positive, of 1,000 images.
    """

    rule: str
    threshold: float | None
    note: str
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate
    predicted_positive: Estimate
    false_positives: Estimate
    misses: Estimate


@dataclass(frozen=True)
class LabelOperatingPoints:
    """The operating points of one label.

    Attributes:
        validation: What they were chosen on.
        points: In the order of ``evaluation.operating_points``.
    """

    validation: ValidationCounts
    points: Sequence[OperatingPoint]


@dataclass(frozen=True)
class OperatingPoints:
    """Operating points by label.

    Attributes:
        left_out: Why there are none, in words; empty where there are some, or nobody asked for any.
        labels: By name.
    """

    left_out: str = ""
    labels: Mapping[str, LabelOperatingPoints] = field(default_factory=dict)


def why_left_out(table: PredictionTable) -> str:
    """Return why nothing can be chosen on validation where there is none apart from what is evaluated."""
    if table.part == "val":
        return (
            "Left out: they are chosen on validation, which are the very images evaluated here; what they "
            "give there says nothing about others."
        )
    return (
        "Left out: they are chosen on validation, and there are no predictions of a validation part "
        "(validation=<a CSV file>)."
    )


def operating_points(
    table: PredictionTable,
    validation: PredictionTable | None,
    counts: Counts,
    settings: EvaluationSettings,
) -> OperatingPoints:
    """Choose a threshold of each label by each rule on validation, and return what it gives.

    Args:
        table: What is evaluated.
        validation: Predictions of other images by the same model, of the same labels; None where there are
            none.
        counts: How often each patient of ``table`` stands in each resample, shape ``(P, B)``.
        settings: With the rules and the coverage.
    """
    if not settings.operating_points:
        return OperatingPoints()
    if validation is None:
        return OperatingPoints(why_left_out(table))
    points: dict[str, list[OperatingPoint]] = {label: [] for label in table.labels}
    for rule in settings.operating_points:
        thresholds = choose_thresholds(validation.probabilities, validation.targets, rule)
        for label, point in zip(
            table.labels, _points(table, validation, thresholds, rule, counts, settings.level), strict=True
        ):
            points[label].append(point)
    return OperatingPoints(
        labels={
            label: LabelOperatingPoints(validation_counts(validation, column, settings), points[label])
            for column, label in enumerate(table.labels)
        }
    )


def validation_counts(
    validation: PredictionTable, column: int, settings: EvaluationSettings
) -> ValidationCounts:
    """Return how many images and positives of a label a validation part has."""
    positive = validation.targets[:, column] == 1
    patients = len(np.unique(validation.patients[positive])) if validation.patients_known else None
    num_positives = int(positive.sum())
    units = num_positives if patients is None else patients
    return ValidationCounts(
        images=int(validation.known[:, column].sum()),
        positives=num_positives,
        positive_patients=patients,
        is_few=units < settings.min_positives,
    )


def _points(
    table: PredictionTable,
    validation: PredictionTable,
    thresholds: Floats,
    rule: str | float,
    counts: Counts,
    level: float,
) -> list[OperatingPoint]:
    """Return the operating points of all labels by one rule."""
    sums = sums_by_patient(table, label_outcomes(table, thresholds))  # (4, L, P)
    whole, drawn = sums.sum(axis=2), resampled(sums, counts)
    values, samples = threshold_metrics(*whole), threshold_metrics(*drawn)
    for name, rows in _RATES.items():
        values[name] = ratio(whole[rows].sum(axis=0), whole.sum(axis=0))
        samples[name] = ratio(drawn[rows].sum(axis=0), drawn.sum(axis=0))
    result = []
    for column, threshold in enumerate(thresholds.tolist()):
        estimates = {}
        for name in (*_SHARES, *_RATES):
            rows = _SHARES.get(name, [0, 1, 2, 3])
            units = int((sums[rows, column].sum(axis=0) > 0).sum())
            found = estimate(float(values[name][column]), samples[name][column], level, units=units)
            estimates[name] = _per_1000(found) if name in _RATES else found
        result.append(
            OperatingPoint(
                rule=str(rule),
                threshold=None if np.isnan(threshold) else threshold,
                note=_note(validation, column, threshold, str(rule)),
                **estimates,
            )
        )
    return result


def _per_1000(share: Estimate) -> Estimate:
    return Estimate(*(None if end is None else _PER * end for end in (share.value, share.low, share.high)))


def _note(validation: PredictionTable, column: int, threshold: float, rule: str) -> str:
    """Return why a rule chose no threshold, or one that is beyond all images."""
    known = validation.known[:, column]
    scores, targets = validation.probabilities[known, column], validation.targets[known, column]
    if np.isnan(threshold):
        if len(np.unique(targets)) < 2:
            return "validation holds one class only"
        name, _, wanted = rule.partition("@")
        return (
            f"no threshold reaches {'an' if name == 'npv' else 'a'} {name.upper()} of {wanted} on validation"
        )
    if "@" in rule and not (scores >= threshold).any():
        return "reached on validation by predicting nobody positive"
    if "@" in rule and (scores >= threshold).all():
        return "reached on validation by predicting everybody positive"
    return ""
