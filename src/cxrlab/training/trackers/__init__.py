"""Trackers of experiments: what a training logs in, a run of Weights & Biases or MLflow out.

They get settings, metrics and a few files without images; a resumed training continues its run.
"""

from cxrlab.training.trackers.mlflow_tracker import MlflowTracker
from cxrlab.training.trackers.tracker import Tracker, tracked
from cxrlab.training.trackers.wandb_tracker import WandbTracker

__all__ = ["MlflowTracker", "Tracker", "WandbTracker", "tracked"]
