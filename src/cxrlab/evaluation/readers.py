"""Several human readings of the same images: how far readers agree, and the model against each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from cxrlab.metrics.bootstrap import Counts, Estimate, estimate, patient_sums, proportion, ratio, resampled
from cxrlab.metrics.predictions import Floats, PredictionTable

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

_AT_ONCE = 200  # resamples


@dataclass(frozen=True)
class ReaderPair:
    """Two readers on one label.

    Attributes:
        readers: Their names.
        images: That both have read.
        agreement: Share of these on which they say the same.
        kappa: Cohen's kappa; None where both always say one and the same.
    """

    readers: tuple[str, str]
    images: int
    agreement: Estimate
    kappa: Estimate


@dataclass(frozen=True)
class ReaderRow:
    """One reader and the model on one label, on the images that the reader has read.

    Attributes:
        reader: The name.
        images: Whose target is known too.
        positives: Of these, with the finding.
        sensitivity: Of the reader.
        specificity: Of the reader.
        model_sensitivity: Of the model, at the threshold at which it has the reader's specificity.
        difference: The model's sensitivity minus the reader's, on paired resamples.
    """

    reader: str
    images: int
    positives: int
    sensitivity: Estimate
    specificity: Estimate
    model_sensitivity: Estimate
    difference: Estimate


@dataclass(frozen=True)
class LabelReaders:
    """The readers of one label.

    Attributes:
        label: The finding.
        pairs: Every two readers with images in common.
        rows: Every reader of images with and without the finding.
    """

    label: str
    pairs: Sequence[ReaderPair]
    rows: Sequence[ReaderRow]


@dataclass(frozen=True)
class ReaderStudy:
    """Readers beside the model.

    Attributes:
        readers: Their names.
        labels: Those that somebody has read.
    """

    readers: Sequence[str]
    labels: Sequence[LabelReaders]


def reader_study(table: PredictionTable, counts: Counts, level: float) -> ReaderStudy | None:
    """Return how far readers agree, and the model against each; None for a table without readings.

    Args:
        table: N images, L labels, with the readings of several people.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        level: Coverage of the intervals.

    References:
        Cohen, Educ Psychol Meas 20:37, 1960.
    """
    if not table.readers:
        return None
    labels = []
    for column, label in enumerate(table.labels):
        readings = {name: values[:, column] for name, values in table.readers.items()}
        known = {name: values for name, values in readings.items() if not np.isnan(values).all()}
        pairs = [
            pair
            for names in combinations(known, 2)
            if (pair := _pair(names, known, table, counts, level)) is not None
        ]
        rows = [
            row
            for name, values in known.items()
            if (row := _row(name, values, column, table, counts, level)) is not None
        ]
        if pairs or rows:
            labels.append(LabelReaders(label, pairs, rows))
    return ReaderStudy(list(table.readers), labels)


def _sums(
    outcomes: Sequence[Mask], table: PredictionTable, counts: Counts
) -> tuple[Floats, Floats, Integers]:
    """Return how many images are of K kinds, ``(K,)``, in resamples, ``(K, B)``, and of how many patients."""
    columns = np.stack(outcomes, axis=1).astype(np.float64)
    sums = patient_sums(columns, table.patients, len(counts))
    return sums.sum(axis=1), resampled(sums, counts), (sums > 0).sum(axis=1)


def _pair(
    names: tuple[str, str],
    readings: Mapping[str, Floats],
    table: PredictionTable,
    counts: Counts,
    level: float,
) -> ReaderPair | None:
    first, second = (readings[name] for name in names)
    both = ~np.isnan(first) & ~np.isnan(second)
    if not both.any():
        return None
    one, other = first == 1, second == 1
    kinds = [both & one & other, both & one & ~other, both & ~one & other, both & ~one & ~other, both]
    found, drawn, patients = _sums(kinds, table, counts)
    agreement, kappa = _agreement(found), _agreement(drawn)
    return ReaderPair(
        names,
        int(found[4]),
        proportion(float(agreement[0]), kappa[0], level, units=int(patients[4]), trials=int(found[4])),
        estimate(float(agreement[1]), kappa[1], level),
    )


def _agreement(sums: Floats) -> tuple[Floats, Floats]:
    """Return agreement and Cohen's kappa from both yes, one yes, the other yes, both no, and all."""
    both_yes, first, second, both_no, images = sums
    observed = ratio(both_yes + both_no, images)
    yes, other_yes = ratio(both_yes + first, images), ratio(both_yes + second, images)
    expected = yes * other_yes + (1 - yes) * (1 - other_yes)
    return observed, ratio(observed - expected, 1 - expected)


def _row(
    name: str, reading: Floats, column: int, table: PredictionTable, counts: Counts, level: float
) -> ReaderRow | None:
    targets = table.targets[:, column]
    known = ~np.isnan(reading) & ~np.isnan(targets)
    present, said = known & (targets == 1), reading == 1
    absent = known & ~present
    if not present.any() or not absent.any():
        return None
    found, drawn, patients = _sums([present & said, present, absent & ~said, absent], table, counts)
    sensitivity, specificity = ratio(found[0], found[1]), ratio(found[2], found[3])
    sensitivities, specificities = ratio(drawn[0], drawn[1]), ratio(drawn[2], drawn[3])
    scores, owners = table.probabilities[known, column], table.patients[known]
    ones = np.ones((len(counts), 1), dtype=counts.dtype)
    of_model = float(_sensitivity_at(scores, present[known], owners, ones, specificity.reshape(1))[0])
    of_resamples = _sensitivity_at(scores, present[known], owners, counts, specificities)
    return ReaderRow(
        reader=name,
        images=int(known.sum()),
        positives=int(present.sum()),
        sensitivity=proportion(
            float(sensitivity), sensitivities, level, units=int(patients[1]), trials=int(found[1])
        ),
        specificity=proportion(
            float(specificity), specificities, level, units=int(patients[3]), trials=int(found[3])
        ),
        model_sensitivity=proportion(
            of_model, of_resamples, level, units=int(patients[1]), trials=int(found[1])
        ),
        difference=estimate(of_model - float(sensitivity), of_resamples - sensitivities, level),
    )


def _sensitivity_at(
    scores: Floats, present: Mask, owners: Integers, counts: Counts, specificities: Floats
) -> Floats:
    """Return the sensitivity at stated specificities, along the ROC curve, straight between its points.

    Args:
        scores: Shape ``(N,)``.
        present: Shape ``(N,)``.
        owners: Number of each image's patient, shape ``(N,)``.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        specificities: Shape ``(B,)``; NaN gives NaN.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    is_present = present[order][:, None]
    result = np.full(counts.shape[1], np.nan)
    for start in range(0, counts.shape[1], _AT_ONCE):
        weights = counts[owners[order], start : start + _AT_ONCE].astype(np.float64)
        curves = []
        for of_class in (is_present, ~is_present):
            reached = np.cumsum(weights * of_class, axis=0)[ends]
            curves.append(ratio(np.concatenate([np.zeros_like(reached[:1]), reached]), reached[-1]))
        for place in range(weights.shape[1]):
            hits, alarms = curves[0][:, place], curves[1][:, place]
            wanted = 1 - specificities[start + place]
            if np.isnan(wanted) or np.isnan(hits[-1]) or np.isnan(alarms[-1]):
                continue
            last = int(np.searchsorted(alarms, wanted + 1e-12, side="right")) - 1
            value = hits[last]
            if last + 1 < len(alarms):
                share = (wanted - alarms[last]) / (alarms[last + 1] - alarms[last])
                value += max(share, 0.0) * (hits[last + 1] - hits[last])
            result[start + place] = value
    return result
