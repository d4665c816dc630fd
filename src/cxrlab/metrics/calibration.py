"""Do probabilities mean what they say: reliability by bins, ECE, two tests of calibration, recalibration.

Recalibration is fitted on validation by maximum likelihood, slope alone or slope and intercept of the logit;
what is evaluated are the probabilities before and after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit

from cxrlab.errors import ConfigError, DataError
from cxrlab.metrics.bootstrap import ROUNDING, Counts, Estimate, estimate, ratio, resampled
from cxrlab.metrics.predictions import Floats, PredictionTable
from cxrlab.metrics.settings import CalibrationMethod, EvaluationSettings

Integers = npt.NDArray[np.int64]

NUM_BINS = 15

METHODS = {
    "temperature": "temperature scaling",
    "temperature_by_label": "temperature scaling by label",
    "platt": "Platt scaling",
}

TEMPERATURES = (0.05, 20.0)

_STEPS = 100
_SMALLEST = 1e-7  # what a float32 of 1 - p still tells from 1
_NOTE = (
    "A loss that weights rare findings shifts their probabilities on purpose: they are then too high before "
    "recalibration. Recalibration changes no label's AUROC and no image's call: thresholds are on the scale "
    "of the probabilities before it."
)


@dataclass(frozen=True)
class ReliabilityBin:
    """A point of the reliability diagram.

    Attributes:
        predicted: Mean probability.
        observed: Share present.
        images: How many.
    """

    predicted: float
    observed: Estimate
    images: int


@dataclass(frozen=True)
class Reliability:
    """How well the probabilities of one label agree with what was there.

    ``bias`` and ``spiegelhalter`` are both 0 on average for calibrated probabilities; where an interval
    leaves 0 out, they are not calibrated. With two intervals of 95 % that happens by chance to about one
    calibrated label in ten. ``ece`` says how far off, never whether: by chance alone it is above 0 even for
    calibrated probabilities, and the more so the fewer the images. No p-value should be made of it.

    Attributes:
        ece: Expected calibration error.
        brier: Mean squared error of the probabilities.
        bias: Calibration in the large: the mean probability minus the share present.
        spiegelhalter: Mean of (y - p)(1 - 2p), the numerator of Spiegelhalter's z, with an interval by
            patients: positive where probabilities are too extreme, negative where not extreme enough.
        spiegelhalter_z: Spiegelhalter's z, standard normal for calibrated probabilities of independent
            images. Those of one patient are not independent, and put it too far from 0: ``is_calibrated``
            goes by the interval. None where every probability is 0, 1/2 or 1, or there is no image.
        is_calibrated: Whether both intervals hold 0; None where that cannot be evaluated.
        bins: Points of the reliability diagram.

    References:
        Spiegelhalter, Stat Med 5:421, 1986. Guo et al., ICML 2017 (ECE).
    """

    ece: Estimate
    brier: Estimate
    bias: Estimate
    spiegelhalter: Estimate
    spiegelhalter_z: float | None
    is_calibrated: bool | None
    bins: Sequence[ReliabilityBin]


@dataclass(frozen=True)
class LabelCalibration:
    """The calibration of one label.

    Attributes:
        slope: By which its logit is multiplied; None without recalibration.
        intercept: Which is then added; None without recalibration.
        before: Of the network's own probabilities.
        after: Of the recalibrated ones; None without recalibration.
        description: In words, of ``after`` where there is one.
    """

    slope: float | None
    intercept: float | None
    before: Reliability
    after: Reliability | None
    description: str


@dataclass(frozen=True)
class CalibrationResult:
    """The calibration of all labels.

    Attributes:
        method: Of recalibration, or ``none``.
        source: On what it was fitted; None for ``none``.
        note: What a reader must know, in words.
        labels: By name.
    """

    method: str
    source: str | None
    note: str
    labels: Mapping[str, LabelCalibration]


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


def reliability(
    probabilities: Floats,
    targets: Floats,
    patients: Integers,
    counts: Counts,
    settings: EvaluationSettings,
) -> Reliability:
    """Return how well the probabilities of one label agree with what was there, with intervals.

    Bins are made once, on the whole sample.

    Args:
        probabilities: Shape ``(N,)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N,)``.
        patients: Number of each image's patient, shape ``(N,)``.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        settings: With the coverage, and the positives (and negatives) needed to say anything.
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
    return Reliability(
        ece=_ece(*bins, level),
        brier=brier,
        bias=bias,
        spiegelhalter=spiegelhalter,
        spiegelhalter_z=spiegelhalter_z(p, y),
        is_calibrated=_both_hold_zero(bias, spiegelhalter) if is_enough else None,
        bins=_bins(*bins, (by_bin[0] > 0).sum(axis=1), level),
    )


def spiegelhalter_z(probabilities: Floats, targets: Floats) -> float | None:
    """Return Spiegelhalter's z, standard normal for calibrated probabilities of independent images.

    Args:
        probabilities: Shape ``(N,)``.
        targets: 1 present, 0 absent, shape ``(N,)``.

    Returns:
        None where its variance is 0: every probability is 0, 1/2 or 1, or there is no image.

    References:
        Spiegelhalter, Stat Med 5:421, 1986.

    Example:
        >>> round(spiegelhalter_z(np.array([0.1, 0.1, 0.9]), np.array([1.0, 0.0, 0.0])), 2)
        3.27
    """
    steepness = 1 - 2 * probabilities
    variance = float((steepness**2 * probabilities * (1 - probabilities)).sum())
    if not variance > 0:
        return None
    return float(((targets - probabilities) * steepness).sum() / np.sqrt(variance))


def holds_zero(interval: Estimate) -> bool | None:
    """Return whether an interval contains 0; None where there is no interval."""
    if interval.low is None or interval.high is None:
        return None
    return bool(interval.low <= 0 <= interval.high)


def _both_hold_zero(bias: Estimate, spiegelhalter: Estimate) -> bool | None:
    both = [holds_zero(bias), holds_zero(spiegelhalter)]
    return None if None in both else all(both)


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
    if not whole.size or not samples.size or np.ptp(samples) <= ROUNDING:
        return estimate(value, [], level)
    chance = np.abs(deviations - ratio(whole[2], whole[0].sum())[:, None]).sum(axis=0)
    tail = (1 - level) / 2
    low = max(0.0, value - float(np.quantile(chance, 1 - tail)))
    high = min(1.0, value + float(samples.mean() - np.quantile(samples, tail)))
    return Estimate(value, low, high)


def _bins(whole: Floats, drawn: Floats, units: Integers, level: float) -> list[ReliabilityBin]:
    """Return the points of the reliability diagram from sums by bin, ``(3, K)`` and ``(3, K, B)``."""
    predicted = ratio(whole[1] + whole[2], whole[0])  # p is y plus the excess
    observed, samples = ratio(whole[1], whole[0]), ratio(drawn[1], drawn[0])
    return [
        ReliabilityBin(
            predicted=float(mean),
            observed=estimate(float(observed[row]), samples[row], level, units=int(units[row])),
            images=int(whole[0, row]),
        )
        for row, mean in enumerate(predicted)
    ]


def describe_calibration(
    result: Reliability, classes: tuple[int, int], min_positives: int, treatment: str
) -> str:
    """Return a phrase such as "calibrated after Platt scaling fitted on validation".

    "Calibrated" means that the images show no departure; the intervals tell how large one may still be.

    Args:
        result: Of :func:`reliability`.
        classes: Number of positives and of negatives.
        min_positives: With fewer of either, nothing is said.
        treatment: What was done to the probabilities, or "".
    """
    for count, name in zip(classes, ("positives", "negatives"), strict=True):
        if count < min_positives:
            return f"cannot be evaluated: fewer than {min_positives} {name}"
    if result.is_calibrated is None:
        return "cannot be evaluated: nothing varies between resamples"
    if result.is_calibrated:
        return f"calibrated {treatment}".rstrip()
    return ", ".join(part for part in (_fault(result), treatment) if part)


def _fault(result: Reliability) -> str:
    bias, spiegelhalter = result.bias.value or 0.0, result.spiegelhalter.value or 0.0
    if not holds_zero(result.bias):
        size = np.format_float_positional(abs(bias), precision=2, fractional=False, trim="k")
        return f"too {'high' if bias > 0 else 'low'} by {size} on average"
    if spiegelhalter > 0:
        return "not calibrated: high ones too high and low ones too low"
    return "not calibrated: high ones too low and low ones too high"


def smoothed_targets(targets: npt.ArrayLike) -> Floats:
    """Return targets drawn in from 1 and 0, so that the likelihood has a maximum even for separable data.

    Present becomes (N+ + 1) / (N+ + 2) and absent 1 / (N- + 2): what the images say together with one that is
    undecided. With many images it is hardly a change; with few it keeps probabilities away from 0 and 1.

    Args:
        targets: 1 present, 0 absent, shape ``(N,)``.

    Example:
        >>> smoothed_targets([1, 0, 0])
        array([0.66666667, 0.25      , 0.25      ])

    References:
        Platt, Advances in Large Margin Classifiers, 61, 1999.
    """
    present = np.asarray(targets) == 1
    positives, negatives = present.sum(), (~present).sum()
    aims: Floats = np.where(present, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    return aims


def fit_temperature(logits: Floats, targets: Floats) -> float:
    """Return 1 / temperature, by which logits are to be multiplied; 1 where no logit differs from 0.

    Args:
        logits: Shape ``(N,)``.
        targets: Probabilities to be met, such as smoothed targets, shape ``(N,)``.

    Returns:
        Within the temperatures 0.05 to 20: a network that ranks no better than chance would else be given an
        infinite one.

    References:
        Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    if not logits.any():
        return 1.0

    def gradient(slope: float) -> float:  # of the negative log-likelihood, which is convex
        return float(np.dot(expit(slope * logits) - targets, logits))

    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if gradient(low) >= 0:
        return low
    return float(brentq(gradient, low, high, xtol=1e-10)) if gradient(high) > 0 else high


def fit_line(logits: Floats, targets: Floats) -> tuple[float, float]:
    """Return slope and intercept of the recalibrated logit, by Newton's method with step halving.

    Args:
        logits: Shape ``(N,)``.
        targets: Probabilities to be met, strictly between 0 and 1 on average, shape ``(N,)``.

    Returns:
        The slope may be negative; it is 1 where all logits are equal and leave it open.
    """
    spread = float(logits.std())
    if spread < 1e-9:
        return 1.0, float(logit(targets.mean()) - logits.mean())
    # On standardised logits the two parameters are nearly independent of each other.
    columns = np.stack([(logits - logits.mean()) / spread, np.ones_like(logits)])
    line = np.array([0.0, float(logit(targets.mean()))])
    for _ in range(_STEPS):
        fitted = expit(line @ columns)
        gradient = columns @ (fitted - targets)
        hessian = (columns * (fitted * (1 - fitted))) @ columns.T
        step = np.linalg.solve(hessian, gradient)
        line = _descend(line, step, columns, targets)
        if np.abs(step).max() < 1e-10:
            break
    slope = float(line[0]) / spread
    return slope, float(line[1]) - slope * float(logits.mean())


def recalibration_in_the_large(probabilities: Floats, targets: Floats) -> float:
    """Return the shift of all logits that brings the mean probability to the share present.

    It is the least that a model needs at a place where a finding is more, or less, common than where it was
    trained: the intercept of a logistic regression whose slope is held at 1.

    Args:
        probabilities: Shape ``(N,)``; 0 and 1, whose logits are infinite, are taken as 1e-7 from there.
        targets: 1 present, 0 absent, NaN unknown and left out, shape ``(N,)``.

    Returns:
        Log odds, above 0 where probabilities are too low; NaN where only one class is known, since nothing
        finite would do.

    References:
        Steyerberg, Clinical Prediction Models, 2nd ed., 2019, chapter 20.

    Example:
        >>> round(recalibration_in_the_large(np.full(4, 0.5), np.array([1.0, 0.0, 0.0, 0.0])), 4)
        -1.0986
    """
    known = ~np.isnan(targets)
    if not _has_both(targets):
        return float("nan")
    logits, share = _logits(probabilities[known]), float(targets[known].mean())
    # The shift of each image alone brackets that of all.
    shifts = logit(share) - logits
    low, high = float(shifts.min()), float(shifts.max())
    if high - low < 1e-9:
        return low
    return float(brentq(lambda shift: expit(logits + shift).mean() - share, low, high, xtol=1e-12))


def _descend(line: Floats, step: Floats, columns: Floats, targets: Floats) -> Floats:
    """Go along Newton's step, or the half, the quarter… of it, to where the likelihood is no worse."""

    def loss(at: Floats) -> float:
        shifted = at @ columns
        return float((np.logaddexp(0.0, shifted) - targets * shifted).mean())

    limit, share = loss(line) + 1e-14, 1.0
    while loss(line - share * step) > limit and share > 1e-6:
        share /= 2
    return line - share * step


@dataclass(frozen=True)
class Calibrator:
    """What makes probabilities of L labels mean what they say: logit' = slope * logit + intercept.

    Attributes:
        slopes: Above 0, so that no ranking is changed, shape ``(L,)``. A temperature is 1 / slope.
        intercepts: Shape ``(L,)``.
        method: ``temperature``, ``temperature_by_label`` or ``platt``.
        source: On what it was fitted, such as ``validation``.

    Raises:
        DataError: If there are more of one than of the other, a slope is not above 0, or one is not finite.
    """

    slopes: Floats
    intercepts: Floats
    method: str
    source: str

    def __post_init__(self) -> None:
        is_finite = np.isfinite(self.slopes).all() and np.isfinite(self.intercepts).all()
        if self.slopes.shape != self.intercepts.shape or not is_finite or (self.slopes <= 0).any():
            raise DataError(
                f"The calibration fitted on {self.source} cannot be used: slopes {self.slopes.tolist()} and "
                f"intercepts {self.intercepts.tolist()} must be finite and as many, and slopes above 0."
            )

    def apply(self, probabilities: Floats) -> Floats:
        """Return calibrated probabilities.

        Args:
            probabilities: Shape ``(N, L)``; 0 and 1, whose logits are infinite, are taken as 1e-7 from there.

        Returns:
            Shape ``(N, L)``.

        Example:
            >>> softer = Calibrator(np.array([0.5]), np.array([0.0]), "temperature", "validation")
            >>> softer.apply(np.array([[0.5], [0.9]])).round(3)
            array([[0.5 ],
                   [0.75]])
        """
        logits = self.slopes * _logits(probabilities) + self.intercepts
        return np.asarray(expit(logits), dtype=np.float64)


def fit_calibrator(
    probabilities: Floats, targets: Floats, method: CalibrationMethod, source: str
) -> Calibrator | None:
    """Fit slopes and intercepts by maximum likelihood, with Platt's smoothed targets.

    ``temperature`` is one slope for all labels, ``temperature_by_label`` one for each, ``platt`` slope and
    intercept of each. A label stays as it is where only one class of it is known, or where the slope comes
    out negative: that would turn its ranking round, which is no matter of calibration.

    Args:
        probabilities: Of images that are not evaluated afterwards, shape ``(N, L)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
        method: ``none`` fits nothing.
        source: What the images are, such as ``validation``.

    Returns:
        None for ``none``.

    Raises:
        ConfigError: If there is no such method.

    References:
        Platt, Advances in Large Margin Classifiers, 61, 1999. Guo et al., ICML 2017.
    """
    if method == "none":
        return None
    if method not in METHODS:
        raise ConfigError(f"evaluation.calibration={method} is unknown; there are {[*METHODS, 'none']}.")
    logits, known = _logits(probabilities), ~np.isnan(targets)
    aims = np.full(targets.shape, np.nan)
    for column, mask in enumerate(known.T):
        aims[mask, column] = smoothed_targets(targets[mask, column])
    lines = np.tile([1.0, 0.0], (targets.shape[1], 1))  # of each label slope and intercept
    if method == "temperature":
        if _has_both(targets[known]):
            lines[:, 0] = fit_temperature(logits[known], aims[known])
        return Calibrator(lines[:, 0], lines[:, 1], method, source)
    for column, mask in enumerate(known.T):
        if _has_both(targets[mask, column]):
            lines[column] = _line(logits[mask, column], aims[mask, column], method)
    return Calibrator(lines[:, 0], lines[:, 1], method, source)


def evaluate_calibration(
    table: PredictionTable, calibrator: Calibrator | None, counts: Counts, settings: EvaluationSettings
) -> CalibrationResult:
    """Return how well probabilities are calibrated, before and after recalibration, with intervals.

    Both are given since a weighted loss shifts probabilities on purpose: what is wrong before says little
    against the network, and only what is left after it matters to who reads a probability.

    Args:
        table: What is evaluated, with the network's own probabilities.
        calibrator: Fitted on other images; None where there is none.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        settings: With the coverage, and the positives needed to tell whether it is calibrated.
    """
    recalibrated = None if calibrator is None else calibrator.apply(table.probabilities)
    labels = {}
    for column, label in enumerate(table.labels):
        targets = table.targets[:, column]
        stages = [
            reliability(probabilities[:, column], targets, table.patients, counts, settings)
            for probabilities in (table.probabilities, recalibrated)
            if probabilities is not None
        ]
        classes = (int((targets == 1).sum()), int((targets == 0).sum()))
        treatment = _treatment(calibrator, column)
        labels[label] = LabelCalibration(
            slope=None if calibrator is None else float(calibrator.slopes[column]),
            intercept=None if calibrator is None else float(calibrator.intercepts[column]),
            before=stages[0],
            after=None if calibrator is None else stages[1],
            description=describe_calibration(stages[-1], classes, settings.min_positives, treatment),
        )
    return CalibrationResult(
        method="none" if calibrator is None else calibrator.method,
        source=None if calibrator is None else calibrator.source,
        note=_NOTE,
        labels=labels,
    )


def _treatment(calibrator: Calibrator | None, row: int) -> str:
    """Return what was done to the probabilities of a label, in words."""
    if calibrator is None:
        return ""
    name = METHODS.get(calibrator.method, calibrator.method)
    if (calibrator.slopes[row], calibrator.intercepts[row]) == (1.0, 0.0):
        return f"as it is: no {name} could be fitted on {calibrator.source}"
    return f"after {name} fitted on {calibrator.source}"


def _logits(probabilities: Floats) -> Floats:
    """Return logits, finite also for 0 and 1."""
    return np.asarray(logit(np.clip(probabilities, _SMALLEST, 1 - _SMALLEST)), dtype=np.float64)


def _has_both(targets: Floats) -> bool:
    return bool((targets == 1).any() and (targets == 0).any())


def _line(logits: Floats, aims: Floats, method: CalibrationMethod) -> tuple[float, float]:
    if method == "temperature_by_label":
        return fit_temperature(logits, aims), 0.0
    slope, intercept = fit_line(logits, aims)
    return (slope, intercept) if slope > 0 else (1.0, 0.0)
