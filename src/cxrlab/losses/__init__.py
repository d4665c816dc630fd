"""Losses over logits; targets that are NaN are unknown and do not count.

Each is made with ``frequencies``, the share of positives by label in the training part.
"""

from cxrlab.losses.base import label_frequencies
from cxrlab.losses.bce import BCE, WeightedBCE, masked_bce
from cxrlab.losses.cross_entropy import CrossEntropy, masked_cross_entropy
from cxrlab.losses.focal import AsymmetricLoss, FocalLoss, asymmetric_terms, focal_terms

__all__ = [
    "BCE",
    "AsymmetricLoss",
    "CrossEntropy",
    "FocalLoss",
    "WeightedBCE",
    "asymmetric_terms",
    "focal_terms",
    "label_frequencies",
    "masked_bce",
    "masked_cross_entropy",
]
