"""The patient bootstrap: how often each patient is drawn, and intervals of what is computed from it."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.float32]


def patient_counts(num_patients: int, num_resamples: int, seed: int) -> Counts:
    """Return how often each patient stands in each resample, shape ``(P, B)``; every column sums to P.

    All images of a patient are drawn together, since they resemble one another: intervals from images drawn
    one by one are too narrow (Field and Welsh, J R Stat Soc B 69:369, 2007). A float32 holds the counts, and
    sums of them below 2**24, exactly, and matrix products with it are fast.
    """
    generator = np.random.default_rng(seed)
    counts = np.empty((num_resamples, num_patients), dtype=np.float32)
    for row in counts:
        row[:] = np.bincount(generator.integers(num_patients, size=num_patients), minlength=num_patients)
    return np.ascontiguousarray(counts.T)


def estimate(value: float, samples: npt.ArrayLike, level: float, *, units: int = 0) -> dict[str, Any]:
    """Return ``{"value", "low", "high"}`` with the bootstrap's percentile interval; None for the undefined.

    Resamples in which the metric is undefined (NaN) are left out. Where all others agree, nothing was seen to
    vary, which does not mean that nothing does: a proportion of 0 or 1 then gets Wilson's interval (JASA
    22:209, 1927) of ``units`` trials, and anything else none.

    Args:
        value: The metric of the whole sample.
        samples: The metric of each resample, shape ``(B,)``.
        level: Coverage, such as 0.95.
        units: Independent units behind a proportion, that is patients; 0 where the metric is no proportion.
    """
    drawn = np.asarray(samples, dtype=np.float64)
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value):
        return {"value": None, "low": None, "high": None}
    if len(drawn) and np.ptp(drawn) > 1e-12:
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        return {"value": float(value), "low": float(low), "high": float(high)}
    if units and value in (0.0, 1.0):
        z2 = float(norm.ppf((1 + level) / 2)) ** 2
        bound = units / (units + z2)
        low, high = (bound, 1.0) if value == 1.0 else (0.0, 1.0 - bound)
        return {"value": float(value), "low": low, "high": high}
    return {"value": float(value), "low": None, "high": None}


def p_value(differences: npt.ArrayLike) -> float:
    """Return the two-sided p-value of "no difference" from bootstrapped differences; NaN for none.

    It is the level at which the percentile interval begins to leave 0 out, never below 2 / (B + 1).
    """
    drawn = np.asarray(differences, dtype=np.float64)
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return float("nan")
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return float(min(1.0, 2 * (tail + 1) / (len(drawn) + 1)))
