import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from cxrlab.metrics.bootstrap import Estimate, patient_counts
from cxrlab.metrics.calibration import equal_mass_bins, holds_zero, reliability
from cxrlab.metrics.settings import EvaluationSettings

SETTINGS = EvaluationSettings(
    threshold="youden",
    calibration="none",
    num_resamples=200,
    level=0.95,
    prevalence=0.1,
    age_bands=[],
    min_positives=10,
    min_group_images=20,
    seed=0,
)


def draw(count: int = 3000, slope: float = 1.0, shift: float = 0.0, seed: int = 0):
    """Return probabilities, and targets whose log odds are ``slope`` times theirs, plus ``shift``."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(-1, 1.5, count)
    return expit(logits), (generator.random(count) < expit(slope * logits + shift)).astype(float)


def assess(p, y, patients=None, resamples: int = 200):
    patients = np.arange(len(p)) if patients is None else patients
    return reliability(
        p, y, patients, patient_counts(int(patients.max()) + 1, resamples, 0), SETTINGS
    )


def test_bins_without_ties_are_quantiles():
    p, y = draw(3000)
    observed, predicted = calibration_curve(y, p, n_bins=15, strategy="quantile")
    bins = assess(p, y).bins
    assert [one.images for one in bins] == [200] * 15
    assert [one.observed.value for one in bins] == pytest.approx(observed.tolist())
    assert [one.predicted for one in bins] == pytest.approx(predicted.tolist())


def test_equal_probabilities_share_a_bin():
    generator = np.random.default_rng(1)
    p = generator.integers(0, 30, 500) / 30
    p[:250] = 0.0
    bins = equal_mass_bins(p)
    for value in np.unique(p):
        assert len(np.unique(bins[p == value])) == 1
    order = np.argsort(p)
    assert (np.diff(bins[order]) >= 0).all()
    assert set(bins) == set(range(bins.max() + 1))


def test_ties_lie_at_their_mean_rank():
    assert equal_mass_bins(np.array([0.2, 0.1, 0.2, 0.2, 0.9, 0.2]), 3).tolist() == [1, 0, 1, 1, 2, 1]


def test_few_images_have_few_bins():
    assert equal_mass_bins(np.array([0.3, 0.1, 0.2])).tolist() == [2, 0, 1]
    assert equal_mass_bins(np.full(50, 0.4)).tolist() == [0] * 50
    assert equal_mass_bins(np.empty(0)).tolist() == []


def test_numbers_equal_plain_formulas_of_the_known_images():
    p, y = draw(500, slope=0.5)
    generator = np.random.default_rng(2)
    patients = np.r_[np.arange(100), generator.integers(100, size=400)]
    y[generator.random(500) < 0.2] = np.nan
    numbers = assess(p, y, patients)
    known = ~np.isnan(y)
    p, y, patients = p[known], y[known], patients[known]
    bins = equal_mass_bins(p)
    ece = sum(abs(p[bins == one].sum() - y[bins == one].sum()) for one in range(15)) / len(p)
    assert numbers.ece.value == pytest.approx(ece)
    assert numbers.brier.value == pytest.approx(brier_score_loss(y, p))
    assert numbers.bias.value == pytest.approx(p.mean() - y.mean())
    assert numbers.spiegelhalter.value == pytest.approx(np.mean((y - p) * (1 - 2 * p)))
    weights = patient_counts(100, 200, 0)[patients]
    biases = ((p - y) @ weights) / weights.sum(axis=0)
    expected = tuple(np.quantile(biases, [0.025, 0.975]))
    assert (numbers.bias.low, numbers.bias.high) == pytest.approx(expected, abs=1e-6)
    in_last = bins == 14
    shares = (y[in_last] @ weights[in_last]) / weights[in_last].sum(axis=0)
    last = numbers.bins[14].observed
    assert (last.low, last.high) == pytest.approx(tuple(np.quantile(shares, [0.025, 0.975])), abs=1e-6)


def test_calibrated_probabilities_are_told_from_distorted_ones():
    assert assess(*draw()).is_calibrated is True
    shifted = assess(*draw(shift=-1.0))
    assert shifted.is_calibrated is False
    assert shifted.bias.low > 0
    extreme = assess(*draw(6000, slope=0.4, shift=-0.5))
    assert extreme.is_calibrated is False
    assert extreme.spiegelhalter.low > 0
    timid = assess(*draw(6000, slope=2.5, shift=0.9))
    assert timid.spiegelhalter.high < 0


def test_the_interval_of_the_calibration_error_holds_its_value():
    for seed in range(20):
        ece = assess(*draw(400, seed=seed)).ece
        assert 0 <= ece.low <= ece.value <= ece.high


@pytest.mark.slow
@pytest.mark.parametrize(("slope", "tolerated"), [(1.0, 0.92), (0.6, 0.93)])
def test_the_interval_of_the_calibration_error_covers_the_true_one(slope: float, tolerated: float):
    everyone = expit(np.random.default_rng(9).normal(-1, 1.5, 300_000))
    logits = np.log(everyone / (1 - everyone))
    edges = np.quantile(everyone, np.arange(1, 15) / 15)
    truth = (
        np.abs(np.bincount(np.digitize(everyone, edges), everyone - expit(slope * logits))).sum() / 300_000
    )
    found = [assess(*draw(600, slope, seed=seed), resamples=300).ece for seed in range(300)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert covered >= tolerated


@pytest.mark.parametrize("present", [0.0, 1.0])
def test_one_class_cannot_be_evaluated(present: float):
    numbers = assess(np.linspace(0.1, 0.9, 50), np.full(50, present))
    assert numbers.is_calibrated is None
    assert numbers.bias.value == pytest.approx(0.5 - present)


def test_few_positives_cannot_be_evaluated():
    p, y = draw(300)
    y[np.flatnonzero(y == 1)[9:]] = np.nan
    assert assess(p, y).is_calibrated is None


def test_nothing_known_is_undefined():
    numbers = assess(np.array([0.2, 0.3]), np.array([np.nan, np.nan]))
    assert numbers.ece == numbers.brier == numbers.bias == Estimate(None)
    assert numbers.bins == []
    assert numbers.is_calibrated is None


def test_nothing_that_varies_has_no_interval():
    numbers = assess(np.full(60, 0.5), np.r_[np.zeros(30), np.ones(30)], np.zeros(60, dtype=np.int64))
    assert numbers.ece == Estimate(0.0)
    assert numbers.is_calibrated is None
    assert holds_zero(numbers.bias) is None
