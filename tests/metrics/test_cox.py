import numpy as np
import pytest
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit
from scipy.stats import f, norm, t
from sklearn.linear_model import LogisticRegression

from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.cox import NO_FIT, cox_fit, least_patients


def draw(images: int, prevalence: float, per_patient: int = 1, seed: int = 0, area: float = 0.85):
    """Return calibrated logits, targets and patients; images of a patient resemble one another in both.

    Of two normal distributions of variance 1 the log odds are linear in the score.
    """
    generator = np.random.default_rng(seed)
    patients = np.arange(images) // per_patient
    share = 0.5 if per_patient > 1 else 0.0

    def latent():
        of_patient = generator.normal(size=patients[-1] + 1)[patients]
        return share**0.5 * of_patient + (1 - share) ** 0.5 * generator.normal(size=images)

    targets = (latent() > norm.isf(prevalence)).astype(float)
    distance = 2**0.5 * norm.ppf(area)
    scores = latent() + distance * targets
    return logit(prevalence) + distance * (scores - distance / 2), targets, patients


@pytest.mark.parametrize("seed", range(4))
def test_slope_and_intercept_equal_scikit_learn(seed):
    logits, targets, patients = draw(400, 0.2, 2, seed)
    probabilities = expit(1.7 * logits - 0.4)
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000)
    reference.fit(logit(probabilities)[:, None], targets)
    found = cox_fit(probabilities, targets, patients, 0.95)
    assert found.slope.value == pytest.approx(reference.coef_[0, 0], abs=1e-6)
    assert found.intercept.value == pytest.approx(reference.intercept_[0], abs=1e-6)


@pytest.mark.parametrize("per_patient", [1, 4])
def test_intervals_and_test_equal_the_sandwich_computed_image_by_image(per_patient):
    logits, targets, patients = draw(200, 0.2, per_patient, 3)
    found = cox_fit(expit(logits), targets, patients, 0.9)
    line = minimize(
        lambda b: np.sum(np.logaddexp(0, b[0] * logits + b[1]) - targets * (b[0] * logits + b[1])),
        [1.0, 0.0], tol=1e-14,
    ).x  # fmt: skip
    bread, meat = np.zeros((2, 2)), np.zeros((2, 2))
    for patient in range(patients[-1] + 1):
        score = np.zeros(2)
        for one, target in zip(logits[patients == patient], targets[patients == patient], strict=True):
            row, fitted = np.array([one, 1.0]), expit(line[0] * one + line[1])
            score += row * (target - fitted)
            bread += np.outer(row, row) * fitted * (1 - fitted)
        meat += np.outer(score, score)
    clusters = patients[-1] + 1
    covariance = np.linalg.inv(bread) @ meat @ np.linalg.inv(bread) * clusters / (clusters - 1)
    freedom = len(set(patients[targets == 1])) - 1
    assert freedom < len(set(patients[targets == 0]))
    for estimate, value, variance in zip(
        (found.slope, found.intercept), line, np.diagonal(covariance), strict=True
    ):
        reach = t.ppf(0.95, freedom) * variance**0.5
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
            (value, value - reach, value + reach), abs=1e-5
        )
    difference = line - [1, 0]
    statistic = difference @ np.linalg.inv(covariance) @ difference / 2
    assert found.p == pytest.approx(f.sf(statistic, 2, freedom), abs=1e-5)


def test_a_line_and_its_test_turn_with_the_logits():
    logits, targets, patients = draw(600, 0.1, 2, 1)
    straight = cox_fit(expit(logits), targets, patients, 0.95)
    bent = cox_fit(expit(2 * logits + 1), targets, patients, 0.95)
    assert bent.slope.low == pytest.approx(straight.slope.low / 2)
    assert bent.slope.high == pytest.approx(straight.slope.high / 2)
    assert bent.intercept.value == pytest.approx(straight.intercept.value - straight.slope.value / 2)
    assert bent.p < 1e-4 < straight.p


@pytest.mark.parametrize(
    ("probabilities", "targets"),
    [
        ([0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 0.0]),
        ([0.2, 0.2, 0.2, 0.2], [0.0, 1.0, 0.0, 1.0]),
        ([0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 1.0]),
        ([0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 0.0, 0.0]),
        ([0.1, 0.3, 0.3, 0.4], [0.0, 0.0, 1.0, 1.0]),
        ([], []),
    ],
)
def test_what_no_line_fits_is_undefined(probabilities, targets):
    patients = np.arange(len(targets))
    assert cox_fit(np.array(probabilities), np.array(targets), patients, 0.95) == NO_FIT


def test_one_patient_behind_a_class_gives_no_interval():
    logits, targets, patients = draw(60, 0.3, 1, 0)
    found = cox_fit(expit(logits), targets, np.where(targets == 1, 0, patients), 0.95)
    assert found.slope == Estimate(found.slope.value)
    assert found.p is None


def test_certain_probabilities_and_a_wrong_order_are_finite():
    logits, targets, patients = draw(300, 0.3)
    probabilities = expit(logits)
    probabilities[:2], targets[:2] = (0.0, 1.0), (1.0, 0.0)
    assert np.isfinite(cox_fit(probabilities, targets, patients, 0.95).slope.high)
    assert cox_fit(expit(-logits), targets, patients, 0.95).slope.high < 0


def test_the_rarer_class_counts_by_patient():
    targets = np.array([1.0, 1.0, 0.0, 0.0, np.nan, 1.0])
    assert least_patients(targets, np.array([0, 0, 0, 1, 2, 0])) == 1
    assert least_patients(targets, np.arange(6)) == 2
    assert least_patients(np.zeros(3), np.arange(3)) == 0


def unbiased_shift(slope: float, prevalence: float) -> float:
    """Return the intercept with which probabilities of that slope are right on average."""
    everyone = draw(200_000, prevalence, seed=999)[0]
    return float(brentq(lambda shift: expit((everyone - shift) / slope).mean() - prevalence, -20, 20))


def rejected(images, prevalence, per_patient, slope, replicates):
    """Return in which share of samples probabilities with that slope are rejected at 5 %."""
    shift = 0.0 if slope == 1 else unbiased_shift(slope, prevalence)
    found = []
    for seed in range(replicates):
        logits, targets, patients = draw(images, prevalence, per_patient, seed)
        found.append(cox_fit(expit((logits - shift) / slope), targets, patients, 0.95).p)
    return np.mean([one is not None and one < 0.05 for one in found])


@pytest.mark.slow
@pytest.mark.parametrize("per_patient", [1, 4])
@pytest.mark.parametrize(
    ("images", "prevalence", "replicates"), [(240, 0.2, 2000), (2000, 0.02, 1000), (5000, 0.04, 500)]
)
def test_calibrated_probabilities_are_rarely_rejected(images, prevalence, replicates, per_patient):
    assert rejected(images, prevalence, per_patient, 1.0, replicates) <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("per_patient", [1, 4])
@pytest.mark.parametrize("slope", [0.5, 2.0])
def test_a_slope_of_one_half_or_2_is_seen_in_rare_findings(slope, per_patient):
    assert rejected(2000, 0.02, per_patient, slope, 300) >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("per_patient", [1, 4])
def test_the_interval_of_the_slope_covers(per_patient):
    found = []
    for seed in range(600):
        logits, targets, patients = draw(600, 0.04, per_patient, seed)
        slope = cox_fit(expit(2 * logits), targets, patients, 0.95).slope
        found.append(slope.low <= 0.5 <= slope.high)
    assert 0.93 <= np.mean(found) <= 0.985
