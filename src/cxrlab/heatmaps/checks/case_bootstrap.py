"""Means over cases with intervals: whole patients are resampled, with all their cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cxrlab.metrics.bootstrap import estimate, patient_counts, patient_sums, ratio

Estimate = dict[str, Any]
Floats = npt.NDArray[np.float64]
Names = npt.NDArray[np.object_]

MACRO = "macro"
"""The mean over the groups, each of which counts alike."""

_ROUNDING = 1e-12


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
            _estimate(float(value), row, self.level, units, signed=signed)
            for value, row in zip(values, samples, strict=True)
        ]


def known_mean(values: Floats) -> Floats:
    """Return the mean over the first axis of what is not NaN; NaN where nothing is left."""
    is_known = ~np.isnan(values)
    return ratio(np.where(is_known, values, 0.0).sum(axis=0), is_known.sum(axis=0))


def _estimate(value: float, samples: Floats, level: float, units: int, *, signed: bool) -> Estimate:
    """Return a share, or a difference of shares, with its interval, also where nothing varies."""
    if value < 0:
        turned = _estimate(-value, -samples, level, units, signed=signed)
        low, high = (None if turned[end] is None else -turned[end] for end in ("high", "low"))
        return {"value": value, "low": low, "high": high}
    found = estimate(value, samples, level, units=units)
    if (
        signed
        and found["high"] is not None
        and np.ptp(np.append(samples[~np.isnan(samples)], value)) <= _ROUNDING
    ):
        # A difference may have either sign: from -1 to 1 there is twice as far to go as from 0 to 1.
        found["low"] = -found["high"] if value == 0 else 2 * found["low"] - 1
    return found
