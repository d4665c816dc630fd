"""A run directory, read back.

In: the files that a training wrote. Out: a ``Run`` with model, labels, config, tables and data, and
predictions of any images: ``predict_images`` is the one inference loop outside a training.
"""

from cxrlab.runs.predict import predict_images, predict_table
from cxrlab.runs.run import Run, load_classifier, load_run
from cxrlab.runs.run_data import PredictedImages, own_part

__all__ = [
    "PredictedImages",
    "Run",
    "load_classifier",
    "load_run",
    "own_part",
    "predict_images",
    "predict_table",
]
