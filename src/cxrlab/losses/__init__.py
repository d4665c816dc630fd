"""Logits and targets in, one number out; targets that are NaN are unknown and do not count.

A loss is any ``nn.Module`` of logits and targets, torch's own among them: ``build_loss`` makes it, with the
class frequencies if it has a parameter for them, and ``known_loss`` keeps unknown targets from those that
cannot.
"""

from cxrlab.losses.base import (
    build_loss,
    check_task,
    class_weights,
    known_loss,
    label_frequencies,
    warn_of_balancing_twice,
)
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
    "build_loss",
    "check_task",
    "class_weights",
    "focal_terms",
    "known_loss",
    "label_frequencies",
    "masked_bce",
    "masked_cross_entropy",
    "warn_of_balancing_twice",
]
