"""Sums over the images of each patient, and of each resample: what makes a bootstrap one matrix product."""

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from cxrlab.evaluation.prediction_table import Floats
from cxrlab.evaluation.resampling import Counts


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
