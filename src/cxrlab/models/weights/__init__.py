"""Weights from elsewhere: read from files without running code, brought to a network's names, described.

In: a file, a name that timm publishes, or a set of ``conf/weights``. Out: a network that has these weights,
or an error that names what is missing.
"""

from cxrlab.models.weights.loading import (
    BackboneOptions,
    check_finite_weights,
    check_plain_weights,
    check_weights_fit,
    load_backbone,
    load_pretrained,
    read_weights,
)
from cxrlab.models.weights.named import check_weights_choice, load_named, named_weights, weight_names
from cxrlab.models.weights.seen import (
    RANDOM,
    InitialWeights,
    checkpoint_weights,
    initial_weights,
    plain_seen,
    read_initial_weights,
    read_seen,
)
from cxrlab.models.weights.source import SeenData, WeightSource, for_channels

__all__ = [
    "RANDOM",
    "BackboneOptions",
    "InitialWeights",
    "SeenData",
    "WeightSource",
    "check_finite_weights",
    "check_plain_weights",
    "check_weights_choice",
    "check_weights_fit",
    "checkpoint_weights",
    "for_channels",
    "initial_weights",
    "load_backbone",
    "load_named",
    "load_pretrained",
    "named_weights",
    "plain_seen",
    "read_initial_weights",
    "read_seen",
    "read_weights",
    "weight_names",
]
