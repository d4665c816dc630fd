"""Precision, recall and F1 of each class, where every image has one class."""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cxrlab.evaluation.results import ClassificationReport, ClassRow
from cxrlab.metrics.bootstrap import Counts, estimate, patient_sums, proportion, ratio, resampled
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.rate_intervals import f1_at_limit
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
    table: PredictionTable,
    thresholds: Floats,
    counts: Counts,
    settings: EvaluationSettings,
    *,
    negative: str = "",
) -> ClassificationReport | None:
    """Return precision, recall, F1 and support of each class and their means, with intervals, and the matrix.

    A task is ``binary`` where there is one label (its absence is the other class; images whose target is
    unknown are left out), and ``exclusive`` where every image has one label of several and none is unknown.
    There the class is the label of the highest probability, the first of equals; thresholds play no part.

    Args:
        table: What is evaluated.
        thresholds: Shape ``(L,)``; used for one label.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        settings: With the coverage.
        negative: What images without the one label are called; "" for "no <label>".

    Returns:
        None where images can have several labels or none, or where there is no threshold for the one label.
        What scikit-learn sets to 0, such as the precision of a class that was never called, is undefined.
    """
    decided = _decided(table, thresholds, negative)
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
    units[0] = ((sums[1] > 0) | (sums[2] > 0)).sum(axis=1)  # patients with members or calls: those of F1
    fewest = int(units[1].min())
    rates, rates_drawn, images = _rates(whole), _rates(drawn), int(whole[1].sum())
    members, ones = (whole[1], drawn[1]), (np.ones_like(whole[1]), np.ones_like(drawn[1]))
    pairs = np.bincount(decided.truth * num_classes + decided.called, minlength=num_classes**2)
    return ClassificationReport(
        kind=decided.kind,
        classes=_classes(decided.classes, rates, rates_drawn, units, whole, settings.level),
        accuracy=proportion(
            float(whole[0].sum() / whole[1].sum()),
            ratio(drawn[0].sum(axis=0), drawn[1].sum(axis=0)),
            settings.level,
            units=len(np.unique(decided.patients)),
            trials=images,
        ),
        macro=_mean("macro mean", rates, rates_drawn, ones, images, fewest, settings.level),
        weighted=_mean("weighted mean", rates, rates_drawn, members, images, fewest, settings.level),
        matrix=pairs.reshape(num_classes, num_classes).tolist(),
    )


def _decided(table: PredictionTable, thresholds: Floats, negative: str) -> _Decided | None:
    if len(table.labels) == 1:
        known = table.known[:, 0]
        if np.isnan(thresholds[0]) or not known.any():
            return None
        (label,) = table.labels
        truth = table.targets[known, 0].astype(np.int64)
        called = (table.probabilities[known, 0] >= thresholds[0]).astype(np.int64)
        return _Decided("binary", (negative or f"no {label}", label), truth, called, table.patients[known])
    if not table.known.all() or (table.targets.sum(axis=1) != 1).any():
        return None
    truth, called = table.targets.argmax(axis=1), table.probabilities.argmax(axis=1)
    return _Decided("exclusive", table.labels, truth, called, table.patients)


def _rates(sums: Floats) -> Floats:
    """Return precision, recall and F1 from hits, members and calls, ``(3, C)`` or ``(3, C, B)`` both."""
    hits, members, calls = sums
    return np.stack([ratio(hits, calls), ratio(hits, members), ratio(2 * hits, members + calls)])


def _classes(
    classes: tuple[str, ...], rates: Floats, drawn: Floats, units: Integers, whole: Floats, level: float
) -> list[ClassRow]:
    """Return the rows of the report from the rates of each class, ``(3, C)``, and resampled, ``(3, C, B)``.

    ``units`` holds the patients with members or calls, with members, and with calls, ``(3, C)``; ``whole``
    the images: hits, members and calls.
    """
    rows = []
    for column, name in enumerate(classes):
        precision, recall = (
            proportion(
                float(rates[rate, column]),
                drawn[rate, column],
                level,
                units=int(units[of, column]),
                trials=int(whole[of, column]),
            )
            for rate, of in ((0, 2), (1, 1))
        )
        f1 = estimate(float(rates[2, column]), drawn[2, column], level)
        if f1.value in (0.0, 1.0):
            f1 = f1_at_limit(f1.value, int(units[0, column]), level)
        rows.append(ClassRow(name, precision, recall, f1, int(whole[1, column])))
    return rows


def _mean(
    name: str,
    rates: Floats,
    drawn: Floats,
    weights: tuple[Floats, Floats],
    images: int,
    units: int,
    level: float,
) -> ClassRow:
    """Return means over the classes, with weights ``(C,)`` and ``(C, B)``; what is undefined is left out.

    A class that a resample leaves undefined has its own value there. ``units`` are the patients of the
    class that has the fewest.
    """
    drawn = np.where(np.isnan(drawn), rates[:, :, None], drawn)
    precision, recall, f1 = (
        estimate(float(value), samples, level, units=units)
        for value, samples in zip(_weighted(rates, weights[0]), _weighted(drawn, weights[1]), strict=True)
    )
    return ClassRow(name, precision, recall, f1, images)


def _weighted(rates: Floats, weights: Floats) -> Floats:
    known = ~np.isnan(rates)
    return ratio((np.where(known, rates, 0.0) * weights).sum(axis=1), (known * weights).sum(axis=1))
