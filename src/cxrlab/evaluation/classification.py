"""Precision, recall and F1 of each class, where every image has one class."""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cxrlab.evaluation.results import ClassificationReport, ClassRow
from cxrlab.metrics.bootstrap import Counts, Estimate, estimate, patient_sums, ratio, resampled
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.settings import EvaluationSettings

Integers = npt.NDArray[np.int64]


class _Decided(NamedTuple):
    """Which class each of M images has and was given, as numbers of ``classes``, shape ``(M,)``."""

    kind: Literal["binary", "exclusive"]
    classes: tuple[str, ...]
    truth: Integers
    called: Integers
    patients: Integers


def classification_report(
    table: PredictionTable, thresholds: Floats, counts: Counts, settings: EvaluationSettings
) -> ClassificationReport | None:
    """Return precision, recall, F1 and support of each class, with intervals, and the confusion matrix.

    A task is ``binary`` where there is one label (its absence is the other class; images whose target is
    unknown are left out), and ``exclusive`` where every image has one label of several and none is unknown.
    There the class is the label of the highest probability, the first of equals; thresholds play no part.

    Args:
        table: What is evaluated.
        thresholds: Shape ``(L,)``; used for one label.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        settings: With the coverage.

    Returns:
        None where images can have several labels or none, or where there is no threshold for the one label.
        What scikit-learn sets to 0, such as the precision of a class that was never called, is undefined.
    """
    decided = _decided(table, thresholds)
    if decided is None:
        return None
    num_classes = len(decided.classes)
    is_class, is_called = (
        np.eye(num_classes)[numbers] for numbers in (decided.truth, decided.called)
    )  # (M, C)
    columns = np.concatenate([is_class * is_called, is_class, is_called], axis=1)
    sums = patient_sums(columns, decided.patients, table.num_patients).reshape(3, num_classes, -1)
    whole, drawn = sums.sum(axis=2), resampled(sums, counts)  # (3, C), (3, C, B)
    units = (sums > 0).sum(axis=2)
    pairs = np.bincount(decided.truth * num_classes + decided.called, minlength=num_classes**2)
    return ClassificationReport(
        kind=decided.kind,
        classes=_classes(decided.classes, whole, drawn, units, settings.level),
        accuracy=estimate(
            float(whole[0].sum() / whole[1].sum()),
            ratio(drawn[0].sum(axis=0), drawn[1].sum(axis=0)),
            settings.level,
            units=len(np.unique(decided.patients)),
        ),
        matrix=pairs.reshape(num_classes, num_classes).tolist(),
    )


def _decided(table: PredictionTable, thresholds: Floats) -> _Decided | None:
    if len(table.labels) == 1:
        known = table.known[:, 0]
        if np.isnan(thresholds[0]) or not known.any():
            return None
        (label,) = table.labels
        truth = table.targets[known, 0].astype(np.int64)
        called = (table.probabilities[known, 0] >= thresholds[0]).astype(np.int64)
        return _Decided("binary", (f"no {label}", label), truth, called, table.patients[known])
    if not table.known.all() or (table.targets.sum(axis=1) != 1).any():
        return None
    truth, called = table.targets.argmax(axis=1), table.probabilities.argmax(axis=1)
    return _Decided("exclusive", table.labels, truth, called, table.patients)


def _classes(
    classes: tuple[str, ...], sums: Floats, drawn: Floats, units: Integers, level: float
) -> list[ClassRow]:
    """Return the rows of the report from hits, members and calls of each class, ``(3, C)`` and ``(3, C, B)``.

    ``units`` holds the patients with hits, members and calls, ``(3, C)``.
    """
    hits, members, calls = zip(sums, drawn, strict=True)
    precision = _shares(hits, calls, units[2], level)
    recall = _shares(hits, members, units[1], level)
    f1 = _shares(
        (2 * hits[0], 2 * hits[1]), (members[0] + calls[0], members[1] + calls[1]), 0 * units[0], level
    )
    return [
        ClassRow(name, precision[row], recall[row], f1[row], int(sums[1, row]))
        for row, name in enumerate(classes)
    ]


def _shares(
    part: tuple[Floats, Floats], whole: tuple[Floats, Floats], units: Integers, level: float
) -> list[Estimate]:
    """Return estimates of C ratios, each side given in the whole sample ``(C,)`` and resampled ``(C, B)``."""
    values, samples = ratio(part[0], whole[0]), ratio(part[1], whole[1])
    return [
        estimate(float(value), samples[row], level, units=int(units[row])) for row, value in enumerate(values)
    ]
