"""Losses over logits; targets that are NaN are unknown and do not count.

Each is made with ``frequencies``, the share of positives by label in the training part.
"""

from cxrlab.losses.asymmetric import AsymmetricLoss, asymmetric_terms
from cxrlab.losses.binary import BCE, WeightedBCE, masked_bce
from cxrlab.losses.cross_entropy import CrossEntropy, masked_cross_entropy
from cxrlab.losses.focal import FocalLoss, focal_terms
from cxrlab.losses.masking import label_frequencies

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
