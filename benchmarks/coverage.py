"""How often the 95 % intervals of an AUROC hold the truth, with few positives and with few patients.

Run ``python benchmarks/coverage.py [--replicates 400] [--scores normal]``; two minutes on one core. Scores
of both classes are normal and spread alike, as the interval's own model has them; with ``--scores spread``
those of positives spread 1.5 times as far, with ``--scores mislabelled`` one positive patient in twenty
scores like a negative. Images of a patient share half of the variance. Beside the interval that is shown
stand the bootstrap's percentiles and DeLong's Wald interval. The last table is the mean of 14 labels as
rare as NIH's, whose resamples lack a label now and then: how far their means lie from the value, with each
resample's own labels and with those of the value.
"""

import argparse
import warnings

import numpy as np
from scipy.stats import norm

from cxrlab.metrics.auroc_interval import auroc_estimate
from cxrlab.metrics.bootstrap import estimate, known_mean, macro_mean, patient_counts
from cxrlab.metrics.delong import delong_estimate
from cxrlab.metrics.ranking import ranking

AUROCS = (0.75, 0.90, 0.97)
# Patients with the finding, images of each, patients without it, images of each.
DESIGNS = [(num, 1, 300, 1) for num in (5, 10, 20, 30, 60)] + [(num, 4, 75, 4) for num in (3, 5, 8, 15)]
SPREAD, MISLABELLED = 1.5, 0.05
PREVALENCES = (0.002, 0.01, 0.02, 0.02, 0.02, 0.03, 0.04, 0.05, 0.05, 0.06, 0.1, 0.12, 0.15, 0.2)


def sample(
    rng: np.random.Generator, auroc: float, design: tuple[int, int, int, int], kind: str
) -> list[np.ndarray]:
    """Return scores, targets and patients of one sample."""
    num, each, num_without, each_without = design
    shared = 0.5 if each > 1 else 0.0
    spread = SPREAD if kind == "spread" else 1.0
    of_right = (auroc - MISLABELLED / 2) / (1 - MISLABELLED) if kind == "mislabelled" else auroc
    shift = np.full((num, 1), norm.ppf(of_right) * np.hypot(1, spread))
    if kind == "mislabelled":
        shift[rng.random(num) < MISLABELLED] = 0
    sides = ((num, each, shift, spread), (num_without, each_without, 0.0, 1.0))
    scores = []
    for patients, images, middle, scale in sides:
        own = rng.normal(size=(patients, 1)) * shared**0.5
        noise = own + rng.normal(size=(patients, images)) * (1 - shared) ** 0.5
        scores.append((scale * noise + middle).ravel())
    owners = np.concatenate(
        [np.repeat(np.arange(num), each), num + np.repeat(np.arange(num_without), each_without)]
    )
    return [np.concatenate(scores), np.repeat([1.0, 0.0], [num * each, num_without * each_without]), owners]


def coverage(design: tuple[int, int, int, int], auroc: float, replicates: int, kind: str) -> list[float]:
    """Return the share of intervals that hold the truth: shown, bootstrap, Wald."""
    rng = np.random.default_rng(0)
    counts = patient_counts(design[0] + design[2], 500, seed=0)
    hits = np.zeros(3)
    for _ in range(replicates):
        scores, targets, owners = sample(rng, auroc, design, kind)
        ranked = ranking(scores, targets, owners, counts)
        intervals = (
            auroc_estimate(scores, targets, owners, 0.95),
            estimate(float(ranked.auroc[0]), ranked.auroc_samples[0], 0.95),
            delong_estimate(scores, targets, owners, 0.95),
        )
        hits += [one.low is not None and one.low <= auroc <= one.high for one in intervals]
    return (hits / replicates).tolist()


def macro_bias(num_patients: int, replicates: int) -> tuple[float, float, float]:
    """Return how many resamples lack a label, and how far means lie off, by own and by the same labels."""
    rng = np.random.default_rng(0)
    lacking, own, same = [], [], []
    for _ in range(replicates):
        targets = (rng.random((num_patients, len(PREVALENCES))) < PREVALENCES).astype(float)
        aurocs = np.linspace(0.7, 0.95, len(PREVALENCES))
        scores = rng.normal(size=targets.shape) + targets * norm.ppf(aurocs) * 2**0.5
        counts = patient_counts(num_patients, 300, seed=0)
        found = [
            ranking(*pair, np.arange(num_patients), counts) for pair in zip(scores.T, targets.T, strict=True)
        ]
        values = np.array([one.auroc[0] for one in found])
        samples = np.stack([one.auroc_samples[0] for one in found])
        defined = ~np.isnan(values)
        value, means = macro_mean(values, samples)
        lacking.append(np.isnan(samples[defined]).any(axis=0).mean())
        own.append(np.nanmean(known_mean(samples[defined])) - value)
        same.append(np.nanmean(means) - value)
    return float(np.mean(lacking)), float(np.mean(own)), float(np.mean(same))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--scores", choices=["normal", "spread", "mislabelled"], default="normal")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)
    print("coverage of 95 % intervals at AUROC " + " / ".join(map(str, AUROCS)))
    print("| positive patients x images | shown | bootstrap | DeLong, Wald |\n|---|---|---|---|")
    for design in DESIGNS:
        rows = np.array([coverage(design, auroc, arguments.replicates, arguments.scores) for auroc in AUROCS])
        cells = [" / ".join(f"{value:.3f}" for value in column) for column in rows.T]
        print(f"| {design[0]} x {design[1]} | {' | '.join(cells)} |", flush=True)
    if arguments.scores != "normal":
        return
    print("\nmacro mean of 14 labels")
    print("| patients | resamples that lack a label | bias, each its own labels | bias, the same labels |")
    print("|---|---|---|---|")
    for num_patients in (60, 120, 250, 500):
        lacking, own, same = macro_bias(num_patients, max(20, arguments.replicates // 10))
        print(f"| {num_patients} | {100 * lacking:.0f} % | {own:+.4f} | {same:+.4f} |", flush=True)


if __name__ == "__main__":
    main()
