"""The figures of an evaluation's page, by name."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cxrlab.report.figures import calibration, groups, learning, performance
from cxrlab.report.figures import performance as performance_figures

# What each one shows, for readers who cannot see it.
DESCRIPTIONS = {
    "auroc_by_label": "AUROC of each label with its interval",
    "roc": "ROC curve of each label with its band",
    "precision_recall": "Precision-recall curve of each label with its band",
    "reliability": "Observed share of positives against predicted probability, by label",
    "confusion": "Confusion matrix of each label at its threshold",
    "forest": "AUROC, sensitivity and specificity of each subgroup with their intervals",
    "learning_curves": "Losses and validation AUROC by epoch",
}


def report_figures(
    numbers: dict[str, Any], curves: pd.DataFrame, metrics: pd.DataFrame | None
) -> dict[str, Figure]:
    """Return the figures for which there is something to draw.

    Args:
        numbers: As in ``evaluation.json``.
        curves: As in ``curves.csv``.
        metrics: Learning curves, as in ``metrics.csv``, or None.
    """
    drawn = {
        # Of one label it would be a dot alone.
        "auroc_by_label": performance_figures.auroc_by_label(numbers) if len(numbers["labels"]) > 1 else None,
        "roc": performance_figures.roc(curves, numbers),
        "precision_recall": performance_figures.precision_recall(curves, numbers),
        "reliability": calibration.reliability(numbers),
        "confusion": performance.confusion(numbers),
        "forest": groups.forest(numbers),
        "learning_curves": None if metrics is None else learning.draw_learning_curves(metrics),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}
