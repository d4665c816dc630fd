"""The side effects of a training, above all the files that a run leaves: one class a concern.

They are named by ``callbacks`` and ``logger`` of the config; Lightning's own, or yours, stand beside them.
"""

from cxrlab.training.callbacks.checkpoints import AtomicCheckpointIO, Checkpoint
from cxrlab.training.callbacks.ema import WeightAveraging
from cxrlab.training.callbacks.finite_loss import FiniteLoss
from cxrlab.training.callbacks.metrics_csv import MetricsTable
from cxrlab.training.callbacks.predictions import Predictions
from cxrlab.training.callbacks.provenance import Provenance
from cxrlab.training.callbacks.resume import Interruption, RandomState

__all__ = [
    "AtomicCheckpointIO",
    "Checkpoint",
    "FiniteLoss",
    "Interruption",
    "MetricsTable",
    "Predictions",
    "Provenance",
    "RandomState",
    "WeightAveraging",
]
