"""The patient bootstrap: how often each patient is drawn, and intervals of what is computed from it.

Sums over the images of each patient, and of each resample: what makes a bootstrap one matrix product.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.stats import norm

from cxrlab.metrics.predictions import Floats

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


def patient_sums(values: npt.ArrayLike, patients: npt.NDArray[np.int64], num_patients: int) -> Floats:
    """Return the sum of each column over the images of each patient.

    Args:
        values: Shape ``(N, K)``.
        patients: Number of each image's patient, shape ``(N,)``.
        num_patients: P.

    Returns:
        Shape ``(K, P)``; 0 for a patient without images.

    Example:
        >>> patient_sums([[1.0, 5.0], [2.0, 6.0], [4.0, 7.0]], np.array([0, 0, 1]), 2)
        array([[ 3.,  4.],
               [11.,  7.]])
    """
    columns = np.asarray(values, dtype=np.float64)
    images = np.arange(len(columns))
    belongs = csr_array((np.ones(len(columns)), (patients, images)), shape=(num_patients, len(columns)))
    return np.asarray(belongs @ columns, dtype=np.float64).T


def resampled(sums: Floats, counts: Counts) -> Floats:
    """Return sums over the images of each resample, in which patients stand as often as they were drawn.

    The product runs in float32: sums of whole numbers below 2**24 are exact, others to about six digits.

    Args:
        sums: Over the images of each patient, shape ``(..., P)``.
        counts: How often each patient stands in each resample, shape ``(P, B)``.

    Returns:
        Shape ``(..., B)``.
    """
    flat = sums.reshape(-1, sums.shape[-1]).astype(np.float32)
    return (flat @ counts).astype(np.float64).reshape(*sums.shape[:-1], counts.shape[1])


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Floats:
    """Divide; NaN where the denominator is 0 or undefined.

    Args:
        numerator: Any shape.
        denominator: At least 0; a shape that broadcasts with it.

    Example:
        >>> ratio([1, 0], [2, 0])
        array([0.5, nan])
    """
    tops, bottoms = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    result: Floats = np.full(tops.shape, np.nan)
    np.divide(tops, bottoms, out=result, where=bottoms > 0)
    return result
