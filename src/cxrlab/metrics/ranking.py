"""How well scores rank images: AUROC and average precision, of the sample and of every bootstrap resample.

Each label is sorted once. Going down the scores, only thresholds at a group of tied scores that holds a
positive matter, and all negatives between two such groups act alike. How often each of these pieces stands in
each resample is then one sparse product with the counts of the patients, and no resample is ever written out.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, csr_matrix

from cxrlab.metrics.predictions import PredictionTable

Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.floating]

MAX_BLOCK = 32  # resamples at a time: what is computed for one label then stays in the processor's cache
MAX_CELLS = 2**20  # groups times resamples at a time, which bounds the memory
MAX_THREADS = 8  # beyond, memory grows and the time does not fall


@dataclass(frozen=True)
class Ranking:
    """AUROC and average precision of L labels and their B resamples.

    A value is NaN where all images of the label, or of the resample, are of one class. Numbers of one label,
    or of all labels pooled, have ``L = 1``.

    Attributes:
        auroc: Area under the ROC curve, ties counted half, shape ``(L,)``.
        auroc_samples: The same of each resample, shape ``(L, B)``.
        average_precision: Mean precision over the positives, each at the threshold of its own score, shape
            ``(L,)``.
        average_precision_samples: The same of each resample, shape ``(L, B)``.
    """

    auroc: Floats
    auroc_samples: Floats
    average_precision: Floats
    average_precision_samples: Floats


@dataclass(frozen=True)
class Cumulated:
    """What stands at or above the score of each group, in b resamples.

    Attributes:
        positives: Positives of the group itself, shape ``(G, b)``.
        tied: Negatives of the group itself, shape ``(T, b)``, for the groups of ``ScoreOrder.tied_groups``.
        hits: Positives at or above, shape ``(G, b)``.
        false_alarms: Negatives at or above, shape ``(G, b)``.
        num_negatives: All negatives, shape ``(b,)``.
    """

    positives: Weights
    tied: Weights
    hits: Floats
    false_alarms: Floats
    num_negatives: Floats


@dataclass(frozen=True)
class ScoreOrder:
    """The images of one label by falling score, cut into the pieces that matter.

    A group holds the images of one score, if one of them is positive; there are G.

    Attributes:
        pieces: Images of each patient in each piece, shape ``(2 G + 1 + T, P)``. Rows: the positives of each
            group; the negatives at or above it and below the group before; those below all groups; and the
            negatives inside the tied groups, which the second kind of row also holds.
        num_groups: G; 0 where there is no positive.
        tied_groups: Numbers of the groups that hold negatives too, shape ``(T,)``.
    """

    pieces: csr_matrix
    num_groups: int
    tied_groups: npt.NDArray[np.intp]

    @classmethod
    def of(
        cls,
        scores: npt.NDArray[np.floating],
        targets: npt.NDArray[np.floating],
        patients: npt.NDArray[np.integer],
        num_patients: int,
    ) -> Self:
        """Sort images whose target is known.

        Args:
            scores: Shape ``(N,)``; higher means positive.
            targets: 0 or 1, shape ``(N,)``.
            patients: Number of each image's patient, below ``num_patients``, shape ``(N,)``.
            num_patients: P.

        Raises:
            ValueError: If a score or a target is NaN.
        """
        num_unknown = int(np.isnan(scores).sum() + np.isnan(targets).sum())
        if num_unknown:
            raise ValueError(f"{num_unknown} scores or targets are NaN; give only images that are known.")
        falling = np.argsort(-scores, kind="stable")
        values, is_positive, owners = scores[falling], targets[falling] > 0, patients[falling]
        distinct = np.cumsum(np.diff(values, prepend=values[:1]) != 0)  # (N,) number of the distinct score
        with_positive = np.zeros(len(values) + 1, dtype=bool)
        with_positive[distinct[is_positive]] = True
        # Number of the image's own group, else of the next one below; G where there is none.
        groups = (np.cumsum(with_positive) - with_positive)[distinct]
        num_groups = int(with_positive.sum())
        is_tied = with_positive[distinct] & ~is_positive
        tied_groups, tied_rows = np.unique(groups[is_tied], return_inverse=True)
        rows = np.concatenate(
            [np.where(is_positive, groups, num_groups + groups), 2 * num_groups + 1 + tied_rows]
        )
        columns = np.concatenate([owners, owners[is_tied]])
        shape = (2 * num_groups + 1 + len(tied_groups), num_patients)
        once = np.ones(len(rows), dtype=np.float32)
        pieces = coo_matrix((once, (rows.astype(np.int32), columns.astype(np.int32))), shape=shape).tocsr()
        return cls(pieces, num_groups, tied_groups)

    def cumulate(self, counts: Weights) -> Cumulated:
        """Return the sums at every group's threshold.

        Args:
            counts: How often each patient is drawn, shape ``(P, b)``.
        """
        sums, middle, end = self.pieces @ counts, self.num_groups, 2 * self.num_groups + 1
        # Counts of images are exact in float32, but their products are not.
        negatives = np.cumsum(sums[middle:end], axis=0, dtype=np.float64)
        return Cumulated(
            positives=sums[:middle],
            tied=sums[end:],
            hits=np.cumsum(sums[:middle], axis=0, dtype=np.float64),
            false_alarms=negatives[:-1],
            num_negatives=negatives[-1],
        )

    def areas(self, counts: Weights) -> Floats:
        """Return AUROC and average precision of each resample, shape ``(2, b)``, for counts ``(P, b)``."""
        if not self.num_groups:
            return np.full((2, counts.shape[1]), np.nan)
        sums = self.cumulate(counts)
        has_both = (sums.hits[-1] > 0) & (sums.num_negatives > 0)
        num_positives = np.where(has_both, sums.hits[-1], np.nan)
        num_pairs = num_positives * sums.num_negatives
        lost = np.einsum("gb,gb->b", sums.positives, sums.false_alarms)  # pairs, ties among them
        ties = np.einsum("gb,gb->b", sums.positives[self.tied_groups], sums.tied, dtype=np.float64)
        above = sums.hits + sums.false_alarms
        precision = np.divide(sums.hits, above, out=above, where=above > 0)  # 0 where nothing is above
        precisions = np.einsum("gb,gb->b", sums.positives, precision)
        return np.stack([(num_pairs - lost + 0.5 * ties) / num_pairs, precisions / num_positives])


def ranking(
    scores: npt.NDArray[np.floating],
    targets: npt.NDArray[np.floating],
    patients: npt.NDArray[np.integer],
    counts: Weights,
) -> Ranking:
    """Return the ranking of one label's known images; ``L`` is 1.

    Both metrics are those of scikit-learn, with ties and with the counts as sample weights.

    Args:
        scores: Shape ``(N,)``; higher means positive. Any monotonic scale gives the same.
        targets: 0 or 1, shape ``(N,)``.
        patients: Row of each image in ``counts``, shape ``(N,)``.
        counts: How often each patient is drawn in each resample, shape ``(P, B)``.

    Example:
        >>> scores, targets = np.array([0.9, 0.6, 0.6, 0.1]), np.array([1, 0, 1, 0])
        >>> whole = ranking(scores, targets, np.array([0, 1, 2, 2]), np.array([[1.0], [2.0], [0.0]]))
        >>> whole.auroc, whole.auroc_samples
        (array([0.875]), array([[1.]]))
    """
    return _rankings([ScoreOrder.of(scores, targets, patients, len(counts))], counts)


def label_rankings(table: PredictionTable, counts: Weights) -> Ranking:
    """Return the ranking of each label over the images whose target is known.

    Args:
        table: N images, L labels, P patients.
        counts: How often each patient is drawn in each resample, shape ``(P, B)``.
    """
    orders = []
    for label in range(len(table.labels)):
        rows = table.known[:, label]
        scores, targets = table.probabilities[rows, label], table.targets[rows, label]
        orders.append(ScoreOrder.of(scores, targets, table.patients[rows], len(counts)))
    return _rankings(orders, counts)


def micro_ranking(table: PredictionTable, counts: Weights) -> Ranking:
    """Return the ranking of all known pairs of image and label pooled; ``L`` is 1.

    Args:
        table: N images, L labels, P patients.
        counts: How often each patient is drawn in each resample, shape ``(P, B)``.
    """
    known = table.known
    patients = np.broadcast_to(table.patients[:, None], known.shape)[known]
    return ranking(table.probabilities[known], table.targets[known], patients, counts)


def _rankings(orders: Sequence[ScoreOrder], counts: Weights) -> Ranking:
    largest = max((order.num_groups for order in orders), default=0)
    block = max(1, min(MAX_BLOCK, MAX_CELLS // max(largest, 1)))

    def areas(start: int) -> Floats:
        drawn = counts[:, start : start + block].copy()  # contiguous, for the product
        return np.stack([order.areas(drawn) for order in orders])  # (L, 2, b)

    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as threads:
        blocks = list(threads.map(areas, range(0, counts.shape[1], block)))
    samples = np.concatenate([np.empty((len(orders), 2, 0)), *blocks], axis=2)
    once = np.ones((len(counts), 1), dtype=np.float32)
    whole = np.stack([order.areas(once) for order in orders])[:, :, 0]
    return Ranking(whole[:, 0], samples[:, 0], whole[:, 1], samples[:, 1])
