"""Means over cases with intervals: whole patients are resampled, with all their cases."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cxrlab.metrics.bootstrap import estimate, known_mean, patient_counts, patient_sums, ratio

Estimate = dict[str, Any]
Floats = npt.NDArray[np.float64]
Names = npt.NDArray[np.object_]

MACRO = "macro"
"""The mean over the groups, each of which counts alike."""


@dataclass(frozen=True)
class CaseBootstrap:
    """How the patients of P cases are resampled.

    Attributes:
        patients: Number of each case's patient, shape ``(P,)``.
        counts: How often each patient stands in each resample.
        level: Coverage of the intervals.
    """

    patients: npt.NDArray[np.int64]
    counts: npt.NDArray[np.float32]
    level: float

    @classmethod
    def of(
        cls, patients: Names | Sequence[str], *, num_resamples: int, level: float, seed: int
    ) -> "CaseBootstrap":
        """Draw the resamples of the patients of some cases."""
        names, numbers = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
        return cls(numbers, patient_counts(len(names), num_resamples, seed), level)

    def by_group(self, values: Floats, groups: Names, *, signed: bool = False) -> dict[str, list[Estimate]]:
        """Return the mean of each column by group, and the mean over the groups as ``MACRO``.

        In a resample without a case of some group the mean is that of the other groups. To ask for all would
        leave a group of a single patient the same in each resample, and the interval far too narrow.

        Args:
            values: Shares, or differences of shares, shape ``(P, K)``; what is NaN is left out.
            groups: Of each case, such as its finding.
            signed: Whether the values are differences.
        """
        names = list(dict.fromkeys(groups.tolist()))
        chosen = [np.flatnonzero(groups == name) for name in names]
        found = [self._mean(values[cases], cases) for cases in chosen]
        rows = [self._estimates(*one, cases, signed) for one, cases in zip(found, chosen, strict=True)]
        value, samples = (known_mean(np.array(parts)) for parts in zip(*found, strict=True))
        macro = self._estimates(value, samples, np.arange(len(groups)), signed)
        return dict(zip(names, rows, strict=True)) | {MACRO: macro}

    def mean(
        self, values: Floats, chosen: npt.NDArray[np.int64] | None = None, *, signed: bool = False
    ) -> list[Estimate]:
        """Return the mean of each column of values ``(P, K)`` over all cases, or some."""
        cases = np.arange(len(values)) if chosen is None else chosen
        return self._estimates(*self._mean(values[cases], cases), cases, signed)

    def num_patients(self, chosen: npt.NDArray[np.int64]) -> int:
        """Return how many patients some cases are of."""
        return len(np.unique(self.patients[chosen]))

    def _mean(self, values: Floats, cases: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return the mean of each column, ``(K,)``, and those of the resamples, ``(K, B)``."""
        is_known = ~np.isnan(values)
        stacked = np.concatenate([np.where(is_known, values, 0.0), is_known.astype(float)], axis=1)
        sums = patient_sums(stacked, self.patients[cases], len(self.counts))
        total, known = np.split(sums, 2)
        # In float64, or rounding would look like a spread where nothing varies.
        samples = ratio(*np.split(sums @ self.counts.astype(np.float64), 2))
        return ratio(total.sum(axis=1), known.sum(axis=1)), samples

    def _estimates(
        self, values: Floats, samples: Floats, cases: npt.NDArray[np.int64], signed: bool
    ) -> list[Estimate]:
        units = self.num_patients(cases)
        return [
            asdict(estimate(float(value), row, self.level, units=units, signed=signed))
            for value, row in zip(values, samples, strict=True)
        ]
