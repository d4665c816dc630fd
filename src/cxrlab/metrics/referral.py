"""Rule in, rule out, or refer: two thresholds of each label, chosen on validation with a guarantee.

Of one image drawn from each patient, at least a stated share of those ruled in has the finding, and of those
ruled out has it not; with a stated confidence over validation parts like this one. It is shown by tests,
as in Learn then Test (Angelopoulos et al., arXiv:2110.01052, 2021), whose independent units are patients.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp
from scipy.stats import binom

from cxrlab.errors import ConfigError
from cxrlab.metrics.predictions import Floats

Integers = npt.NDArray[np.int64]

NUM_THRESHOLDS = 32  # that are tested on each side
_BETS = np.arange(1, 6) / 5  # shares of what can be staked
# Numbers of patients at which testing starts, in those that suffice if all is right: with more, errors may be
# among them. The second list is for validation parts that are too small for the first.
_STARTS = ((3.0, 12.0), (1.0,))


@dataclass(frozen=True)
class ReferralTargets:
    """What is guaranteed.

    Attributes:
        ppv: Least share with the finding among those ruled in; None rules nobody in.
        npv: Least share without the finding among those ruled out; None rules nobody out.
        confidence: Of either, for each label by itself.

    Raises:
        ConfigError: If a value does not lie between 0 and 1.
    """

    ppv: float | None = 0.5
    npv: float | None = 0.98
    confidence: float = 0.9

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if (value is not None or name == "confidence") and not 0 < float(value or 0) < 1:
                raise ConfigError(f"evaluation.refer_{name}={value} must lie between 0 and 1, such as 0.9.")


@dataclass(frozen=True)
class ReferralRules:
    """From where on a label is ruled in, and below what it is ruled out; what lies between is referred.

    Attributes:
        rule_in: Ruled in where the probability is at least this, shape ``(L,)``; NaN where none is shown to
            keep its target.
        rule_out: Ruled out where the probability is below this, shape ``(L,)``; NaN likewise.
        targets: What they keep.
        source: On what they were chosen.
    """

    rule_in: Floats
    rule_out: Floats
    targets: ReferralTargets
    source: str


def choose_referral(
    probabilities: Floats, targets: Floats, patients: Integers | None, aims: ReferralTargets
) -> tuple[Floats, Floats]:
    """Return from where on each label is ruled in, and below what it is ruled out.

    Thresholds are tested from the strictest to the most lenient, about 32 on each side; testing goes on as
    long as each is shown to keep its target, and the most lenient one is taken. Since the strictest have few
    patients behind them, testing starts at two numbers of patients, each with half the error that is allowed;
    a threshold that passes hands its share on to the next (Wiens and Dmitrienko, J Biopharm Stat 15:929,
    2005). Which thresholds are tested is decided by the probabilities alone. A target
    that is met by ruling everybody in, or out, needs no model: no threshold is given for it. Where both rules
    would hold for an image, the two thresholds meet where sensitivity + specificity is highest.

    Args:
        probabilities: Of the validation part, shape ``(N, L)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
        patients: Number of each image's patient, shape ``(N,)``; None where each image is a patient's only
            one, or patients are unknown.
        aims: What is guaranteed.

    Returns:
        Two arrays of shape ``(L,)``; NaN where no threshold is shown to keep its target.

    Example:
        >>> scores = np.linspace(0.005, 0.995, 100)[:, None]
        >>> choose_referral(scores, (scores > 0.6).astype(float), None, ReferralTargets(npv=0.9))
        (array([0.6]), array([0.59]))
    """
    numbers = np.arange(len(targets)) if patients is None else patients
    pairs = []
    for scores, truths in zip(probabilities.T, targets.T, strict=True):
        known = ~np.isnan(truths)
        pairs.append(_of_label(scores[known], truths[known] == 1, numbers[known], aims))
    rule_in, rule_out = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return rule_in, rule_out


def _of_label(
    scores: Floats, present: npt.NDArray[np.bool_], patients: Integers, aims: ReferralTargets
) -> tuple[float, float]:
    if not present.any() or present.all():
        return math.nan, math.nan
    _, numbers, sizes = np.unique(patients, return_inverse=True, return_counts=True)
    weights = 1 / sizes[numbers]
    error = 1 - aims.confidence
    ins = outs = np.empty(0)
    if aims.ppv is not None:
        ins = _between(*_shown_from_above(scores, present, numbers, weights, aims.ppv, error))
    if aims.npv is not None:
        next_higher, lowest = _shown_from_above(-scores, ~present, numbers, weights, aims.npv, error)
        outs = _between(-lowest, -next_higher)
    return _pair(ins, outs, scores, present, weights)


def _pair(
    ins: Floats, outs: Floats, scores: Floats, present: npt.NDArray[np.bool_], weights: Floats
) -> tuple[float, float]:
    """Return the most lenient threshold of either side, or where they cross one between them."""
    if not len(ins) or not len(outs):
        return min(ins, default=math.nan), max(outs, default=math.nan)
    if ins.min() >= outs.max():
        return float(ins.min()), float(outs.max())
    both = ins[(ins >= outs.min()) & (ins <= outs.max())]
    if not len(both):
        return float(ins.max()), math.nan
    called = (scores[:, None] >= both).astype(np.float64)
    sensitivity = (weights * present) @ called / (weights * present).sum()
    alarms = (weights * ~present) @ called / (weights * ~present).sum()
    rule_in = float(both[np.argmax(sensitivity - alarms)])
    return rule_in, float(outs[outs <= rule_in].max())


def _shown_from_above(
    scores: Floats,
    present: npt.NDArray[np.bool_],
    patients: Integers,
    weights: Floats,
    target: float,
    error: float,
) -> tuple[Floats, Floats]:
    """Return the scores for which it is shown that, of what is not below, a target share is present.

    Args:
        scores: Shape ``(N,)``.
        present: Shape ``(N,)``.
        patients: Numbers from 0 to P - 1, shape ``(N,)``.
        weights: One over the number of the patient's images, shape ``(N,)``.
        target: Between 0 and 1.
        error: With which probability one of them may be false.

    Returns:
        The next lower score of each, minus infinity where there is none, and the scores, descending.
    """
    none = np.empty(0), np.empty(0)
    num_patients = int(patients.max()) + 1
    if float(weights @ present) >= target * num_patients:
        return none  # met by everybody
    is_single = len(scores) == num_patients
    starts = _starts(num_patients, target, error, is_single=is_single)
    if not len(starts):
        return none
    # Groups of equal scores descend; `reached` patients, each counting once, have a score in them or above.
    groups, group_of_image = np.unique(-scores, return_inverse=True)
    reached = np.bincount(group_of_image, weights=weights).cumsum() + 1e-9
    sizes = np.union1d(np.geomspace(starts[0], num_patients, NUM_THRESHOLDS), starts)
    rows = np.unique(np.searchsorted(reached, sizes).clip(max=len(groups) - 1))
    shares = np.searchsorted(reached[rows], starts)
    num_starting = np.bincount(shares.clip(max=len(rows) - 1), minlength=len(rows))
    budgets: Floats = num_starting.astype(np.float64) * error / len(starts)
    steps = np.searchsorted(rows, group_of_image)  # len(rows) for what is below the last threshold
    p_values = _p_values(steps, present, patients, weights, len(rows), target)
    shown = _passed(p_values, budgets)
    return np.append(-groups, -np.inf)[rows[shown] + 1], -groups[rows[shown]]


def _between(lower: Floats, higher: Floats) -> Floats:
    """Return what separates neighbouring scores: between them, else the higher one; never infinite."""
    with np.errstate(invalid="ignore"):
        middle = lower + (higher - lower) / 2
    result: Floats = np.where(lower < middle, middle, higher)
    return np.where(np.isinf(lower), higher, np.where(np.isinf(higher), lower, result))


def _starts(num_patients: int, target: float, error: float, *, is_single: bool) -> Floats:
    """Return the numbers of patients at which testing starts; none where there are too few."""
    for factors in _STARTS:
        starts = np.array(factors) * _least_perfect(target, error / len(factors), is_single=is_single)
        if starts[-1] <= num_patients:
            return starts
    return np.empty(0)


def _least_perfect(target: float, error: float, *, is_single: bool) -> float:
    """Return how many patients must be called, all of them rightly, before anything is shown."""
    if is_single:
        return math.ceil(math.log(error) / math.log(target) - 1e-9)
    low, high = 0.0, 1e6
    for _ in range(60):
        middle = (low + high) / 2
        wealth = logsumexp(middle * np.log1p(_BETS * (1 - target) / target)) - math.log(len(_BETS))
        low, high = (middle, high) if wealth < -math.log(error) else (low, middle)
    return high


def _p_values(
    steps: Integers,
    present: npt.NDArray[np.bool_],
    patients: Integers,
    weights: Floats,
    num_steps: int,
    target: float,
) -> Floats:
    """Return for each threshold the p-value of "the share present is below the target".

    Of patients with one image each it is the binomial test's. Otherwise a patient brings the share of the
    images that are called and present, less the target times the share that is called: between minus the
    target and one minus it, and not above 0 on average if the share present is below the target. Bets on that
    average multiply one's stake, patient by patient; it grows tenfold by chance in one case of ten at most,
    so that one over the stake is a p-value. It is the mean over bets of five sizes.

    References:
        Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, J R Stat Soc B 86:1,
        2024.
    """
    num_patients = int(patients.max()) + 1
    called, right = (
        np.bincount(
            patients * (num_steps + 1) + steps,
            weights=weights * chosen,
            minlength=num_patients * (num_steps + 1),
        )
        .reshape(num_patients, num_steps + 1)[:, :-1]
        .cumsum(axis=1)
        for chosen in (np.ones(len(steps)), present)
    )
    if len(steps) == num_patients:
        hits, trials = (np.rint(sums.sum(axis=0)) for sums in (right, called))
        return np.asarray(binom.sf(hits - 1, trials, target), dtype=np.float64)
    stakes = np.empty((len(_BETS), num_steps))
    with np.errstate(divide="ignore"):  # a patient who is all wrong loses the largest bet whole
        for step in range(num_steps):
            bet_on = called[:, step] > 0
            gains = np.maximum(right[bet_on, step] / target - called[bet_on, step], -1.0)
            stakes[:, step] = np.log1p(_BETS[:, None] * gains).sum(axis=1)
    log_stake = logsumexp(stakes, axis=0) - math.log(len(_BETS))
    return np.asarray(np.exp(-np.maximum(log_stake, 0.0)), dtype=np.float64)


def _passed(p_values: Floats, budgets: Floats) -> npt.NDArray[np.bool_]:
    """Return which hypotheses of a sequence are rejected; the budget of one that is goes to the next."""
    passed, budget = np.zeros(len(p_values), dtype=np.bool_), 0.0
    for row, (p_value, own) in enumerate(zip(p_values, budgets, strict=True)):
        budget += own
        passed[row] = budget > 0 and p_value <= budget * (1 + 1e-12)
        budget = budget if passed[row] else 0.0
    return passed
