"""How often the test of calibration is right: calibrated, too extreme, too flat and too low probabilities.

Run ``python benchmarks/calibration.py`` (``--samples 200`` is a minute). Each row simulates one label: scores
of positives and negatives are normal with the AUROC asked for, images of a patient resemble one another in
finding and score (correlation 0.5). Beside the test stand a likelihood-ratio test that takes images for
independent, and two intervals, of the mean of p - y and of (y - p)(1 - 2p), that both hold 0: the rule that
called probabilities calibrated before. The last columns are of the calibration error, and of how often the
intervals of slope and expected/observed hold the truth.
"""

import argparse
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import chi2, norm

from cxrlab.metrics.bootstrap import Counts, Estimate, patient_counts
from cxrlab.metrics.calibration import reliability
from cxrlab.metrics.cox import fit_line, logits_of
from cxrlab.metrics.predictions import Floats
from cxrlab.metrics.settings import EvaluationSettings

SIZES = ((240, 0.2), (2000, 0.02), (5000, 0.04))
TRUTHS = {"calibrated": (1.0, 0.0), "slope 0.5": (0.5, 0.0), "slope 2": (2.0, 0.0), "odds x 1.65": (1.0, 0.5)}
SETTINGS = EvaluationSettings(num_resamples=200)
RESEMBLANCE = 0.5  # of the images of a patient


@dataclass(frozen=True)
class Simulation:
    """One label whose log odds are ``slope`` times the model's, plus a shift.

    Attributes:
        images: How many.
        prevalence: Of the finding.
        per_patient: Images of each patient.
        slope: 1 for calibrated probabilities.
        shift: Of the log odds, beyond what makes the mean probability right.
        area: AUROC.
    """

    images: int
    prevalence: float
    per_patient: int
    slope: float
    shift: float
    area: float

    def draw(self, generator: np.random.Generator) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
        """Return true log odds, targets and patients."""
        patients = np.arange(self.images) // self.per_patient
        shared = RESEMBLANCE if self.per_patient > 1 else 0.0

        def latent() -> Floats:
            of_patient = generator.normal(size=int(patients[-1]) + 1)[patients]
            own = generator.normal(size=self.images)
            return np.asarray(np.sqrt(shared) * of_patient + np.sqrt(1 - shared) * own)

        targets = (latent() > norm.isf(self.prevalence)).astype(np.float64)
        distance = np.sqrt(2) * norm.ppf(self.area)
        scores = latent() + distance * targets
        return logit(self.prevalence) + distance * (scores - distance / 2), targets, patients

    def intercept(self) -> float:
        """Return the intercept with which the mean probability is right, but for the shift."""
        if self.slope == 1:
            return self.shift
        many = Simulation(400_000, self.prevalence, 1, 1.0, 0.0, self.area)
        everyone = many.draw(np.random.default_rng(99))[0]
        right = brentq(lambda shift: expit((everyone - shift) / self.slope).mean() - self.prevalence, -20, 20)
        return float(right) + self.shift


def holds(estimate: Estimate, value: float) -> bool | None:
    """Return whether an interval holds a value; None without interval."""
    if estimate.low is None or estimate.high is None:
        return None
    return estimate.low <= value <= estimate.high


def two_intervals(p: Floats, y: Floats, patients: npt.NDArray[np.int64], counts: Counts) -> bool:
    """Return whether the intervals of both means hold 0."""
    sums = np.stack([np.bincount(patients, values) for values in (p - y, (y - p) * (1 - 2 * p))])
    low, high = np.quantile(sums.astype(np.float32) @ counts, [0.025, 0.975], axis=1)
    return bool(((low <= 0) & (high >= 0)).all())


def likelihood_ratio(p: Floats, y: Floats) -> float:
    """Return the p-value of slope 1 and intercept 0 of images that are taken for independent."""
    logits = logits_of(p)

    def log_likelihood(slope: float, intercept: float) -> float:
        line = slope * logits + intercept
        return float((y * line - np.logaddexp(0, line)).sum())

    return float(chi2.sf(2 * (log_likelihood(*fit_line(logits, y)) - log_likelihood(1.0, 0.0)), 2))


def row(simulation: Simulation, samples: int) -> list[str]:
    """Simulate, and return the shares of a line of the table."""
    generator, intercept = np.random.default_rng(1), simulation.intercept()
    counts = patient_counts(simulation.images // simulation.per_patient, SETTINGS.num_resamples, 0)
    found: dict[str, list[float | None]] = {}
    while len(found.get("old", [])) < samples:
        odds, y, patients = simulation.draw(generator)
        p = expit((odds - intercept) / simulation.slope)
        result = reliability(p, y, patients, counts, SETTINGS)
        if result.departs is None:
            continue
        is_biased = simulation.shift != 0
        values = {
            "old": two_intervals(p, y, patients, counts),
            "departs": result.departs,
            "independent": likelihood_ratio(p, y) < 0.05,
            "ece": result.ece.value,
            "chance": result.ece_by_chance.mean,
            "slope": holds(result.slope, simulation.slope),
            "ratio": None if is_biased else holds(result.expected_observed, 1.0),
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    means = {
        name: np.mean([value for value in values if value is not None]) if any(v is not None for v in values)
        else np.nan
        for name, values in found.items()
    }  # fmt: skip
    digits = {"ece": 4, "chance": 4}
    return ["-" if np.isnan(mean) else f"{mean:.{digits.get(name, 3)}f}" for name, mean in means.items()]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--area", type=float, default=0.85, help="AUROC")
    arguments = parser.parse_args()
    columns = (
        "truth", "images", "prevalence", "images a patient", "two intervals hold 0", "departure shown",
        "likelihood ratio rejects", "calibration error", "by chance", "slope covered", "E/O covered",
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for truth, (slope, shift) in TRUTHS.items():
        for images, prevalence in SIZES:
            for per_patient in (1, 4):
                simulation = Simulation(images, prevalence, per_patient, slope, shift, arguments.area)
                cells = [truth, f"{images:,}", f"{prevalence:.0%}", str(per_patient)]
                print(f"| {' | '.join([*cells, *row(simulation, arguments.samples)])} |", flush=True)


if __name__ == "__main__":
    main()
