"""How well thresholds that were chosen on one table of predictions do on others.

Run ``python benchmarks/thresholds.py val.csv other.csv another.csv``. Tables are those of
``<run>/predictions``, or of ``python benchmarks/pneumonia_steps.py <root> --tables <folder>``:

    python benchmarks/thresholds.py <folder>/<step>/val.csv <folder>/<step>/[!v]*.csv

Rules are those of ``evaluation.threshold``, and some that are no rule of it, for comparison.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

from cxrlab.metrics.calibration import fit_calibrator
from cxrlab.metrics.predictions import Floats, PredictionTable, read_predictions
from cxrlab.metrics.thresholds import choose_thresholds

RULES = (
    "youden",
    "plateau",
    "midpoint",
    "f1",
    "specificity@0.98",
    "specificity@0.95",
    "sensitivity@0.98",
    "sensitivity@0.95",
)


def logits(probabilities: Floats) -> Floats:
    """Return logits, kept finite."""
    return np.asarray(logit(np.clip(probabilities, 1e-7, 1 - 1e-7)))


def middle_of_means(negatives: Floats, positives: Floats) -> float:
    """Return the middle of the two classes' means."""
    return float(negatives.mean() + positives.mean()) / 2


def crossing(negatives: Floats, positives: Floats) -> float:
    """Return where two normal densities cross, of medians and quartiles of the classes."""
    (low, low_spread), (high, high_spread) = (
        (np.median(scores), np.subtract(*np.quantile(scores, [0.75, 0.25])) / 1.349)
        for scores in (negatives, positives)
    )
    grid = np.linspace(low, high, 2001)
    accuracy = norm.cdf((grid - low) / low_spread) - norm.cdf((grid - high) / high_spread)
    return float(grid[np.argmax(accuracy)])


def calibrated_half(negatives: Floats, positives: Floats) -> float:
    """Return where the probability by Platt is 1/2, both classes counted as equally frequent."""
    scores = expit(np.concatenate([negatives, positives]))
    targets = np.repeat([0.0, 1.0], [len(negatives), len(positives)])
    calibrator = fit_calibrator(scores[:, None], targets[:, None], "platt", "validation")
    if calibrator is None:
        return 0.0
    prior = np.log(len(positives) / len(negatives))
    return float((prior - calibrator.intercepts[0]) / calibrator.slopes[0])


OTHERS: dict[str, Callable[[Floats, Floats], float]] = {
    "middle of the means": middle_of_means,
    "two normals cross": crossing,
    "Platt, 1/2": calibrated_half,
}


def thresholds(validation: PredictionTable) -> dict[str, float]:
    """Return the threshold of the table's first label by each rule."""
    scores, targets = validation.probabilities[:, :1], validation.targets[:, :1]
    chosen = {rule: float(choose_thresholds(scores, targets, rule)[0]) for rule in RULES}
    of_class = [logits(scores[targets == value]) for value in (0, 1)]
    return (
        chosen | {name: float(expit(function(*of_class))) for name, function in OTHERS.items()} | {"0.5": 0.5}
    )


def outcome(table: PredictionTable, threshold: float) -> tuple[float, float]:
    """Return accuracy and balanced accuracy of the table's first label."""
    scores, targets = table.probabilities[:, 0], table.targets[:, 0]
    sensitivity = float((scores[targets == 1] >= threshold).mean())
    specificity = float((scores[targets == 0] < threshold).mean())
    share = float((targets[~np.isnan(targets)] == 1).mean())
    return share * sensitivity + (1 - share) * specificity, (sensitivity + specificity) / 2


def main() -> None:
    """Choose by every rule on the first table, and print what that gives on each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("validation", type=Path)
    parser.add_argument("others", type=Path, nargs="+")
    parser.add_argument("--metric", choices=["accuracy", "balanced"], default="balanced")
    arguments = parser.parse_args()
    tables = {path.stem: read_predictions(path) for path in (arguments.validation, *arguments.others)}
    validation, *others = tables.values()
    print(f"{arguments.metric}; columns: {', '.join(tables)}")
    print(f"| rule | threshold | {' | '.join(tables)} | mean of the others | worst |")
    print("|---" * (len(tables) + 4) + "|")
    for rule, threshold in thresholds(validation).items():
        values = [
            outcome(table, threshold)[arguments.metric == "balanced"] for table in (validation, *others)
        ]
        cells = [*values, np.mean(values[1:]), min(values[1:])]
        print(f"| {rule} | {threshold:.3f} | {' | '.join(f'{value:.3f}' for value in cells)} |")


if __name__ == "__main__":
    main()
