"""Predictions with targets come in, numbers with intervals go out.

THE registry of metrics, ranking, decisions at thresholds, calibration, DeLong, and the patient bootstrap.
What needs torch, :mod:`cxrlab.metrics.streaming`, is not imported here: commands answer ``--help`` at once.
"""

from cxrlab.metrics.bootstrap import Estimate, estimate
from cxrlab.metrics.calibration import Calibrator, fit_calibrator
from cxrlab.metrics.estimates import MetricEstimates, metric_estimates
from cxrlab.metrics.predictions import PredictionTable, read_predictions
from cxrlab.metrics.registry import METRICS, Metric, load_metrics, metric, register
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.metrics.thresholds import choose_thresholds

__all__ = [
    "METRICS",
    "Calibrator",
    "Estimate",
    "EvaluationSettings",
    "Metric",
    "MetricEstimates",
    "PredictionTable",
    "choose_thresholds",
    "estimate",
    "fit_calibrator",
    "load_metrics",
    "metric",
    "metric_estimates",
    "read_predictions",
    "register",
]
