"""Do probabilities mean what they say: reliability by bins, ECE, and two tests of calibration."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cxrlab.evaluation.patient_sums import ratio, resampled
from cxrlab.evaluation.prediction_table import Floats
from cxrlab.evaluation.resampling import Counts, estimate
from cxrlab.evaluation.settings import EvaluationSettings

NUM_BINS = 15

Estimate = dict[str, Any]
Integers = npt.NDArray[np.int64]


def equal_mass_bins(probabilities: Floats, num_bins: int = NUM_BINS) -> Integers:
    """Return the bin of each probability, 0 for the lowest, such that bins hold about equally many images.

    Findings are rare: of bins of equal width the first would hold nearly all images and the others next to
    none (Nixon et al., CVPR Workshops 2019; Kumar et al., NeurIPS 2019). Equal probabilities share a bin,
    that of their mean rank, so that bins can differ in size and there can be fewer of them.

    Args:
        probabilities: Shape ``(N,)``.
        num_bins: How many at most.

    Returns:
        Shape ``(N,)``; every number from 0 to the highest is used.

    Example:
        >>> equal_mass_bins(np.array([0.1, 0.9, 0.2, 0.2, 0.2, 0.7]), 3)
        array([0, 2, 1, 1, 1, 2])
    """
    _, groups, sizes = np.unique(probabilities, return_inverse=True, return_counts=True)
    mean_ranks = sizes.cumsum() - sizes / 2
    bins = (mean_ranks * num_bins / max(len(probabilities), 1)).astype(np.int64)
    return np.unique(bins, return_inverse=True)[1][groups].astype(np.int64)


def reliability_numbers(
    probabilities: Floats,
    targets: Floats,
    patients: Integers,
    counts: Counts,
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """Return how well the probabilities of one label agree with what was there, with intervals.

    Bins are made once, on the whole sample. ``bias`` is calibration in the large, the mean probability minus
    the share present. ``spiegelhalter`` is the mean of (y - p)(1 - 2p), the numerator of Spiegelhalter's z,
    with an interval by patients in place of z, which takes images for independent: it is positive where
    probabilities are too extreme and negative where they are not extreme enough. Both are 0 on average for
    calibrated probabilities; where an interval leaves 0 out, they are not calibrated. With two intervals of
    95 % that happens by chance to about one calibrated label in ten.

    ``ece`` says how far off, never whether: by chance alone it is above 0 even for calibrated probabilities,
    and the more so the fewer the images. No p-value should be made of it.

    Args:
        probabilities: Shape ``(N,)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N,)``.
        patients: Number of each image's patient, shape ``(N,)``.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        settings: With the coverage, and the positives (and negatives) needed for a verdict.

    Returns:
        ``ece``, ``brier``, ``bias``, ``spiegelhalter``; ``is_calibrated``, None where it cannot be judged;
        ``bins`` with the mean probability (``predicted``), the share present (``observed``) and ``images``.

    References:
        Spiegelhalter, Stat Med 5:421, 1986. Guo et al., ICML 2017 (ECE).
    """
    known = ~np.isnan(targets)
    p, y = probabilities[known], targets[known]
    by_bin, totals = _sums(p, y, patients[known], len(counts))
    drawn = resampled(np.concatenate([by_bin.reshape(-1, len(counts)), totals]), counts)
    bins = by_bin.sum(axis=2), drawn[:-2].reshape(3, by_bin.shape[1], counts.shape[1])
    images = bins[0][0].sum(), bins[1][0].sum(axis=0)
    level = settings.level
    bias = _mean((bins[0][2].sum(), bins[1][2].sum(axis=0)), images, level)
    brier, spiegelhalter = (_mean((totals[row].sum(), drawn[row - 2]), images, level) for row in (0, 1))
    is_enough = min(int((y == 1).sum()), int((y == 0).sum())) >= settings.min_positives
    return {
        "ece": _ece(*bins, level),
        "brier": brier,
        "bias": bias,
        "spiegelhalter": spiegelhalter,
        "is_calibrated": _both_hold_zero(bias, spiegelhalter) if is_enough else None,
        "bins": _bins(*bins, (by_bin[0] > 0).sum(axis=1), level),
    }


def holds_zero(one: Estimate) -> bool | None:
    """Return whether an interval contains 0; None where there is no interval."""
    return None if one["low"] is None else bool(one["low"] <= 0 <= one["high"])


def _both_hold_zero(bias: Estimate, spiegelhalter: Estimate) -> bool | None:
    judged = [holds_zero(bias), holds_zero(spiegelhalter)]
    return None if None in judged else all(judged)


def _sums(p: Floats, y: Floats, patients: Integers, num_patients: int) -> tuple[Floats, Floats]:
    """Return sums by patient: images, positives and p - y of each bin, and two totals.

    Returns:
        Shapes ``(3, K, P)`` and ``(2, P)``; the totals are of squared errors and of Spiegelhalter's terms.
    """
    bins = equal_mass_bins(p)
    num_bins = int(bins.max(initial=-1)) + 1
    cells, size = bins * num_patients + patients, num_bins * num_patients
    by_bin: Floats = np.array(
        [np.bincount(cells, values, size) for values in (np.ones_like(p), y, p - y)], dtype=np.float64
    )
    totals: Floats = np.array(
        [np.bincount(patients, values, num_patients) for values in ((p - y) ** 2, (y - p) * (1 - 2 * p))]
    )
    return by_bin.reshape(3, num_bins, num_patients), totals


def _mean(sums: tuple[npt.ArrayLike, Floats], images: tuple[npt.ArrayLike, Floats], level: float) -> Estimate:
    """Return the estimate of a mean over images; both sides are given in the whole sample and resampled."""
    return estimate(float(ratio(sums[0], images[0])), ratio(sums[1], images[1]), level)


def _ece(whole: Floats, drawn: Floats, level: float) -> Estimate:
    """Return the expected calibration error: the deviation of a bin, weighted by its images.

    A percentile interval would be wrong: a resample adds chance to chance, so that it lies too high (it then
    never holds 0, and often not the value itself). Chance has changed the value by at most the sum of what it
    did to each bin: the lower end is the value minus the upper quantile of that sum. The upper end takes from
    the resamples how far they spread, not where they lie. In simulations with independent images a 95 %
    interval held the true value, 0 included, in 94 % of samples or more.
    """
    value = float(np.abs(ratio(whole[2], whole[0].sum())).sum()) if whole.size else float("nan")
    deviations = ratio(drawn[2], drawn[0].sum(axis=0))  # (K, B)
    deviations = deviations[:, ~np.isnan(deviations).any(axis=0)]
    samples = np.abs(deviations).sum(axis=0)
    if not whole.size or not samples.size or np.ptp(samples) <= 1e-12:
        return estimate(value, [], level)
    chance = np.abs(deviations - ratio(whole[2], whole[0].sum())[:, None]).sum(axis=0)
    tail = (1 - level) / 2
    low = max(0.0, value - float(np.quantile(chance, 1 - tail)))
    high = min(1.0, value + float(samples.mean() - np.quantile(samples, tail)))
    return {"value": value, "low": low, "high": high}


def _bins(whole: Floats, drawn: Floats, units: Integers, level: float) -> list[dict[str, Any]]:
    """Return the rows of the reliability diagram from sums by bin, ``(3, K)`` and ``(3, K, B)``."""
    predicted = ratio(whole[1] + whole[2], whole[0])  # p is y plus the excess
    observed, samples = ratio(whole[1], whole[0]), ratio(drawn[1], drawn[0])
    return [
        {
            "predicted": float(mean),
            "observed": estimate(float(observed[row]), samples[row], level, units=int(units[row])),
            "images": int(whole[0, row]),
        }
        for row, mean in enumerate(predicted)
    ]
