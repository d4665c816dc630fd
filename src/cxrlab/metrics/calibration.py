"""Do probabilities mean what they say: Cox's slope, expected against observed, reliability, recalibration.

Recalibration is fitted on validation by maximum likelihood, slope alone or slope and intercept of the logit;
what is evaluated are the probabilities before and after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import t as t_distribution

from cxrlab.errors import ConfigError, DataError
from cxrlab.metrics.bootstrap import ROUNDING, Counts, Estimate, estimate, ratio, resampled
from cxrlab.metrics.cox import NO_FIT, CoxFit, cox_fit, fit_line, least_patients, logits_of
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

_DRAWS = 200  # of outcomes, for what chance alone gives
_NOTE = (
    "Recalibration changes no label's AUROC and no image's prediction: thresholds are on the scale of the "
    "probabilities before it."
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
class ChanceError:
    """The calibration error that chance alone gives probabilities which are calibrated.

    Attributes:
        mean: On average.
        high: At most in as many samples as the level of the intervals says.
    """

    mean: float | None
    high: float | None


@dataclass(frozen=True)
class Reliability:
    """How well the probabilities of one label agree with what was there.

    Whether they do is asked by one test, of slope 1 and intercept 0 together; slope and expected/observed say
    how far off they are. That no departure is shown does not mean that there is none: the intervals tell how
    large one may be. ``ece`` says how far off the bins lie, never whether by more than chance: it is above 0
    even for calibrated probabilities, and the more so the fewer the images; ``ece_by_chance`` says how much.

    Attributes:
        slope: Of Cox's regression on the logit: below 1 where probabilities are too extreme, above 1 where
            not extreme enough; None where no finite one fits.
        intercept: Of the same.
        expected_observed: Sum of the probabilities by the number present: above 1 where they are too high.
        p: Of slope 1 and intercept 0, two-sided; None where it is not tested.
        departs: Whether a departure from calibration is shown at the level of the intervals; None where that
            is not tested.
        ece: Expected calibration error.
        ece_by_chance: What it would be by chance.
        brier: Mean squared error of the probabilities.
        scaled_brier: 1 - Brier by that of giving every image the share present: 1 is perfect, 0 is no better
            than knowing the prevalence.
        bias: Calibration in the large: the mean probability minus the share present.
        bins: Points of the reliability diagram.
        description: What the test shows, in words without numbers.

    References:
        Cox, Biometrika 45:562, 1958. Steyerberg et al., Epidemiology 21:128, 2010 (scaled Brier). Guo et al.,
        ICML 2017 (ECE). Bröcker and Smith, Weather and Forecasting 22:651, 2007 (chance).
    """

    slope: Estimate
    intercept: Estimate
    expected_observed: Estimate
    p: float | None
    departs: bool | None
    ece: Estimate
    ece_by_chance: ChanceError
    brier: Estimate
    scaled_brier: Estimate
    bias: Estimate
    bins: Sequence[ReliabilityBin]
    description: str


@dataclass(frozen=True)
class LabelCalibration:
    """The calibration of one label.

    Attributes:
        slope: By which recalibration multiplies its logit; None without recalibration.
        intercept: Which is then added; None without recalibration.
        before: Of the network's own probabilities.
        after: Of the recalibrated ones; None without recalibration.
        description: In words, of ``after`` where there is one, and what was fitted.
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
        note: What a reader must know of the recalibration, in words; empty without one.
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
    *,
    unit: str = "patient",
) -> Reliability:
    """Return how well the probabilities of one label agree with what was there, with intervals.

    Bins are made once, on the whole sample.

    Args:
        probabilities: Shape ``(N,)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N,)``.
        patients: Number of each image's patient, shape ``(N,)``.
        counts: How often each patient stands in each resample, shape ``(P, B)``.
        settings: With the coverage, and how many patients with the finding (and without) are needed to test
            anything.
        unit: What ``patients`` numbers: ``patient``, or ``image`` where patients are unknown.
    """
    known = ~np.isnan(targets)
    p, y, units, level = probabilities[known], targets[known], patients[known], settings.level
    by_bin, errors = _sums(p, y, units, len(counts))
    drawn = resampled(np.concatenate([by_bin.reshape(-1, len(counts)), errors]), counts)
    bins = by_bin.sum(axis=2), drawn[:-1].reshape(3, by_bin.shape[1], counts.shape[1])
    images = bins[0][0].sum(), bins[1][0].sum(axis=0)
    present = bins[0][1].sum(), bins[1][1].sum(axis=0)
    brier = [ratio(total, number) for total, number in zip((errors.sum(), drawn[-1]), images, strict=True)]
    share = [ratio(total, number) for total, number in zip(present, images, strict=True)]
    scaled = [1 - ratio(one, other * (1 - other)) for one, other in zip(brier, share, strict=True)]
    too_few = _too_few(y, units, settings.min_positives, unit)
    fit = NO_FIT if too_few else cox_fit(p, y, units, level)
    expected = _expected_observed(p, y, units, level)
    obstacle = too_few or _why_no_test(fit, p)
    return Reliability(
        slope=fit.slope,
        intercept=fit.intercept,
        expected_observed=expected,
        p=fit.p,
        departs=None if fit.p is None else fit.p < 1 - level,
        ece=_ece(*bins, level),
        ece_by_chance=_ece_by_chance(p, by_bin, settings),
        brier=estimate(float(brier[0]), brier[1], level),
        scaled_brier=estimate(float(scaled[0]), scaled[1], level),
        bias=_mean((bins[0][2].sum(), bins[1][2].sum(axis=0)), images, level),
        bins=_bins(*bins, (by_bin[0] > 0).sum(axis=1), level),
        description=f"not tested: {obstacle}" if obstacle else _what_is_shown(fit, expected, level),
    )


def _too_few(y: Floats, patients: Integers, least: int, unit: str) -> str:
    """Return of which class there are too few patients to test anything, in words; empty for none."""
    for present, name in ((1.0, "with"), (0.0, "without")):
        if len(np.unique(patients[y == present])) < least:
            return f"fewer than {least} {unit}s {name} the finding"
    return ""


def _why_no_test(fit: CoxFit, p: Floats) -> str:
    """Return what keeps the test from being made where there are enough patients; empty for nothing."""
    if fit.p is not None:
        return ""
    if fit.slope.value is not None:
        return "too little varies between patients"
    if not np.ptp(p):
        return "all probabilities are alike"
    return "the probabilities separate the classes without overlap, so that no slope fits"


def _expected_observed(p: Floats, y: Floats, patients: Integers, level: float) -> Estimate:
    """Return the sum of the probabilities by the number present, with an interval by patients.

    It is made on the log scale, by the variance of the ratio of two sums over patients and Student's t of
    (patients of the rarer class - 1) degrees of freedom. In simulations it held the true ratio in 95 to 98 %
    from 9 positive patients on, the percentiles of the bootstrap in 92 to 99 %.

    References:
        Debray et al., BMJ 356:i6460, 2017 (the log scale).
    """
    observed, expected = float(y.sum()), float(p.sum())
    if not observed:
        return Estimate(None)
    value = expected / observed
    num_patients, freedom = len(np.unique(patients)), least_patients(y, patients) - 1
    if freedom < 1 or not expected:
        return Estimate(value)
    excess = np.bincount(patients, p - value * y)
    deviation = float(np.sqrt((excess**2).sum() * num_patients / (num_patients - 1))) / expected
    if deviation <= ROUNDING:
        return Estimate(value)
    factor = float(np.exp(t_distribution.ppf((1 + level) / 2, freedom) * deviation))
    return Estimate(value, value / factor, value * factor)


def _sums(p: Floats, y: Floats, patients: Integers, num_patients: int) -> tuple[Floats, Floats]:
    """Return sums by patient: images, positives and p - y of each bin; and the squared errors.

    Returns:
        Shapes ``(3, K, P)`` and ``(1, P)``.
    """
    bins = equal_mass_bins(p)
    num_bins = int(bins.max(initial=-1)) + 1
    cells, size = bins * num_patients + patients, num_bins * num_patients
    by_bin: Floats = np.array(
        [np.bincount(cells, values, size) for values in (np.ones_like(p), y, p - y)], dtype=np.float64
    )
    errors = np.bincount(patients, (p - y) ** 2, num_patients).astype(np.float64)[None]
    return by_bin.reshape(3, num_bins, num_patients), errors


def _mean(sums: tuple[npt.ArrayLike, Floats], images: tuple[npt.ArrayLike, Floats], level: float) -> Estimate:
    """Return the estimate of a mean over images; both sides are given in the whole sample and resampled."""
    return estimate(float(ratio(sums[0], images[0])), ratio(sums[1], images[1]), level)


def _ece(whole: Floats, drawn: Floats, level: float) -> Estimate:
    """Return the expected calibration error: the deviation of a bin, weighted by its images.

    A percentile interval would be wrong: a resample adds chance to chance, so that it lies too high (it then
    never holds 0, and often not the value itself). Chance has changed the value by at most the sum of what it
    did to each bin: the lower end is the value minus the upper quantile of that sum. The upper end takes from
    the resamples how far they spread, not where they lie. In simulations a 95 % interval held the true value
    in 94 % of samples or more; of calibrated probabilities of rare findings, whose true value is 0, in 87 to
    92 %.
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


def _ece_by_chance(p: Floats, by_bin: Floats, settings: EvaluationSettings) -> ChanceError:
    """Return the calibration error of outcomes that are drawn with the probabilities themselves.

    Images of a patient resemble one another, so that bins move more than those of independent draws: the
    error is multiplied by the root of the design effect within bins, where that is above 1.

    Args:
        p: Shape ``(N,)``.
        by_bin: Images and positives of each bin by patient, the first two of ``(3, K, P)``.
        settings: With the seed, and the level that ``high`` is of.
    """
    if not len(p):
        return ChanceError(None, None)
    images, present = by_bin[:2]
    sizes = images.sum(axis=1).astype(np.int64)
    starts = sizes.cumsum() - sizes  # bins are ranges of p
    ordered = np.sort(p)
    uniform = np.random.default_rng(settings.seed).random((_DRAWS, len(p)), dtype=np.float32)
    is_present = uniform < ordered.astype(np.float32)
    errors = np.zeros(_DRAWS)
    for start, size in zip(starts, sizes, strict=True):
        own = slice(start, start + size)
        errors += np.abs(is_present[:, own].sum(axis=1, dtype=np.int32) - ordered[own].sum())
    errors /= len(p)
    errors *= np.sqrt(_design_effect(images, present))
    return ChanceError(float(errors.mean()), float(np.quantile(errors, settings.level)))


def _design_effect(images: Floats, present: Floats) -> float:
    """Return by how much clusters inflate the variance of what bins observe, at least 1.

    Args:
        images: Of each bin by patient, shape ``(K, P)``.
        present: Positives of each.

    References:
        Kish, Survey Sampling, 1965.
    """
    shares = ratio(present.sum(axis=1), images.sum(axis=1))
    alone = (images.sum(axis=1) * shares * (1 - shares)).sum()
    together = ((present - shares[:, None] * images) ** 2).sum()
    return max(1.0, float(together / alone)) if alone > 0 else 1.0


def describe_calibration(result: Reliability) -> str:
    """Return what is shown, such as "no departure from calibration shown (slope 0.97, 0.80 to 1.14; …)"."""
    if result.departs is None:
        return result.description
    slope, ratio_ = _rounded(result.slope), _rounded(result.expected_observed)
    return f"{result.description} (slope {slope}; expected/observed {ratio_})"


def _what_is_shown(fit: CoxFit, expected: Estimate, level: float) -> str:
    """Return what a test shows, in words without numbers."""
    if fit.p is None or fit.p >= 1 - level:
        return "no departure from calibration shown"
    faults = []
    if side := _side(fit.slope, 1.0):
        words = "not extreme enough" if side > 0 else "too extreme"
        faults.append("in the wrong order" if _side(fit.slope, 0.0) < 0 else words)
    if side := _side(expected, 1.0):
        faults.append("too high" if side > 0 else "too low")
    return "departs from calibration" + (f": probabilities {' and '.join(faults)}" if faults else "")


def _side(estimate: Estimate, value: float) -> int:
    """Return 1 where an interval lies above a value, -1 below, and 0 where it holds it or there is none."""
    if estimate.low is None or estimate.high is None:
        return 0
    return int(estimate.low > value) - int(estimate.high < value)


def _rounded(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "undefined" if estimate.value is None else f"{estimate.value:.2f}"
    return f"{estimate.value:.2f}, {estimate.low:.2f} to {estimate.high:.2f}".replace("-", "\u2212")


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
    logits, share = logits_of(probabilities[known]), float(targets[known].mean())
    # The shift of each image alone brackets that of all.
    shifts = logit(share) - logits
    low, high = float(shifts.min()), float(shifts.max())
    if high - low < 1e-9:
        return low
    return float(brentq(lambda shift: expit(logits + shift).mean() - share, low, high, xtol=1e-12))


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
        logits = self.slopes * logits_of(probabilities) + self.intercepts
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
    logits, known = logits_of(probabilities), ~np.isnan(targets)
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
        settings: With the coverage, and the patients with a finding needed to test anything.
    """
    recalibrated = None if calibrator is None else calibrator.apply(table.probabilities)
    unit = "patient" if table.patients_known else "image"
    labels = {}
    for column, label in enumerate(table.labels):
        targets = table.targets[:, column]
        stages = [
            reliability(probabilities[:, column], targets, table.patients, counts, settings, unit=unit)
            for probabilities in (table.probabilities, recalibrated)
            if probabilities is not None
        ]
        labels[label] = LabelCalibration(
            slope=None if calibrator is None else float(calibrator.slopes[column]),
            intercept=None if calibrator is None else float(calibrator.intercepts[column]),
            before=stages[0],
            after=None if calibrator is None else stages[1],
            description=describe_calibration(stages[-1]) + _treatment(calibrator, column),
        )
    return CalibrationResult(
        method="none" if calibrator is None else calibrator.method,
        source=None if calibrator is None else calibrator.source,
        note="" if calibrator is None else _NOTE,
        labels=labels,
    )


def _treatment(calibrator: Calibrator | None, row: int) -> str:
    """Return what was done to the probabilities of a label, in words."""
    if calibrator is None:
        return ""
    name = METHODS.get(calibrator.method, calibrator.method)
    if (calibrator.slopes[row], calibrator.intercepts[row]) == (1.0, 0.0):
        return f", as they came, since no {name} could be fitted on {calibrator.source}"
    return f", after {name} fitted on {calibrator.source}"


def _has_both(targets: Floats) -> bool:
    return bool((targets == 1).any() and (targets == 0).any())


def _line(logits: Floats, aims: Floats, method: CalibrationMethod) -> tuple[float, float]:
    if method == "temperature_by_label":
        return fit_temperature(logits, aims), 0.0
    slope, intercept = fit_line(logits, aims)
    return (slope, intercept) if slope > 0 else (1.0, 0.0)
