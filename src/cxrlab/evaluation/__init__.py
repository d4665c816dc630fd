"""Predictions tables come in, typed results go out: ``evaluate`` for one model, ``compare`` for several.

Beside them: thresholds and calibration chosen on validation, subgroups, and other programs' predictions.
The results are written as ``evaluation.json`` and ``comparison.json``; the pages are made elsewhere.
"""

from cxrlab.evaluation.comparison import compare
from cxrlab.evaluation.evaluate import evaluate
from cxrlab.evaluation.external_predictions import read_external
from cxrlab.evaluation.operating_point import Thresholds, from_validation, given
from cxrlab.evaluation.results import Caveat, ComparisonResult, Difference, EvaluationResult
from cxrlab.metrics.predictions import DataFacts

__all__ = [
    "Caveat",
    "ComparisonResult",
    "DataFacts",
    "Difference",
    "EvaluationResult",
    "Thresholds",
    "compare",
    "evaluate",
    "from_validation",
    "given",
    "read_external",
]
