"""Out-of-fold predictions: each fold is another network's, so images are ranked within folds first.

Pooled predictions rank images of one network against those of another, and networks need not be calibrated
alike: what is then measured is partly how far their scales lie apart (Forman and Scholz, SIGKDD Explorations
12(1):49, 2010).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cxrlab.metrics.bootstrap import Counts, Estimate, estimate, known_mean, macro_mean
from cxrlab.metrics.delong import delong
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.ranking import label_rankings

WITHIN_FOLDS = "auroc_within_folds"
"""Name of the metric: the mean over the folds of the AUROC within each."""


@dataclass(frozen=True)
class OutOfFold:
    """Of which folds the predictions are.

    Attributes:
        images: By the name of the fold.
        shared_patients: Patients with images in several folds; their networks were trained on some of them.
        aurocs: By label, then by fold: the AUROC within it, None where it has one class only.
    """

    images: Mapping[str, int]
    shared_patients: int
    aurocs: Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True)
class WithinFolds:
    """AUROC within folds: the mean over those folds that define it.

    Attributes:
        folds: AUROC of each of L labels in each of K folds, NaN where undefined, shape ``(L, K)``.
        values: Their means, shape ``(L,)``.
        samples: The same of each resample, shape ``(L, B)``. A fold without one of the classes in a resample
            keeps its own value there, so that every mean is of the same folds.
    """

    folds: Floats
    values: Floats
    samples: Floats

    def estimates(
        self, labels: Sequence[str], level: float, averaged: npt.NDArray[np.bool_]
    ) -> tuple[dict[str, Estimate], Estimate]:
        """Return the estimate of each label, and of the mean over those that are averaged, ``(L,)``."""
        by_label = {
            label: estimate(float(value), samples, level)
            for label, value, samples in zip(labels, self.values, self.samples, strict=True)
        }
        return by_label, estimate(*macro_mean(self.values, self.samples, averaged), level)


def within_folds(table: PredictionTable, counts: Counts) -> WithinFolds:
    """Return the AUROC of each label within the folds of a table, with those of the resamples.

    Args:
        table: With folds.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
    """
    folds, resamples = [], []
    for fold in fold_names(table):
        rows = np.flatnonzero(table.folds == fold)
        patients = np.unique(table.patients[rows])
        ranking = label_rankings(table.rows(rows), counts[patients])
        folds.append(ranking.auroc)
        is_missing = np.isnan(ranking.auroc_samples)
        resamples.append(np.where(is_missing, ranking.auroc[:, None], ranking.auroc_samples))
    return WithinFolds(np.stack(folds, axis=1), known_mean(np.array(folds)), known_mean(np.array(resamples)))


def delong_within_folds(scores: Floats, targets: Floats, table: PredictionTable) -> tuple[Floats, Floats]:
    """Return the AUROC of K models within folds, and the covariance of these.

    Folds have no patient in common, so the covariance of the mean is the mean of theirs over their number.

    Args:
        scores: Shape ``(K, N)``.
        targets: 1 present, 0 absent, NaN unknown and left out, shape ``(N,)``.
        table: Whose folds and patients the images have.

    Returns:
        As :func:`cxrlab.metrics.delong.delong` does; of the folds that define an AUROC.
    """
    patients = table.patients if table.patients_known else None
    areas = []
    for fold in fold_names(table):
        rows = np.flatnonzero(table.folds == fold)
        of_fold = None if patients is None else patients[rows]
        areas.append(delong(scores[:, rows], targets[rows], of_fold))
    defined = [(aurocs, covariance) for aurocs, covariance in areas if not np.isnan(aurocs).any()]
    if not defined:
        return areas[0]
    values, covariances = (np.stack(parts) for parts in zip(*defined, strict=True))
    return values.mean(axis=0), covariances.sum(axis=0) / len(defined) ** 2


def out_of_fold(table: PredictionTable, within: WithinFolds) -> OutOfFold:
    """Describe the folds of a table, with the AUROC within each."""
    names = fold_names(table)
    folds = [] if table.folds is None else table.folds.tolist()
    numbers = [names.index(fold) for fold in folds]
    pairs = np.unique(np.stack([table.patients, numbers]), axis=1)
    shared = int((np.bincount(pairs[0]) > 1).sum()) if table.patients_known else 0
    return OutOfFold(
        {name: folds.count(name) for name in names},
        shared,
        {
            label: {
                name: None if np.isnan(auroc) else float(auroc)
                for name, auroc in zip(names, row, strict=True)
            }
            for label, row in zip(table.labels, within.folds, strict=True)
        },
    )


def fold_names(table: PredictionTable) -> list[str]:
    """Return the folds of a table in their order; none of a table without."""
    return [] if table.folds is None else sorted(set(table.folds), key=lambda name: (len(name), name))


def message(facts: OutOfFold) -> str:
    """Return what a reader must know of predictions that several networks made."""
    return (
        f"The predictions are of {len(facts.images)} folds, each of another network. AUROC is given within "
        "folds first: the mean over the folds, each of which ranks its own images only. Pooled values and "
        "curves rank images across networks that need not be calibrated alike (Forman and Scholz 2010), and "
        "no interval holds what another training would change."
    )
