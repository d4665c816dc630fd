"""A network and data in, a trained classifier out: the only LightningModule, and what only training needs.

The callbacks, which own every file that a training writes, are in ``cxrlab.training.callbacks``.
"""

from cxrlab.training.module import Classifier
from cxrlab.training.operating_point import OperatingPoint
from cxrlab.training.optim import LayerRates, parameter_groups

__all__ = ["Classifier", "LayerRates", "OperatingPoint", "parameter_groups"]
