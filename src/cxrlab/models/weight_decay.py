"""Which parameters weight decay is for."""

from collections.abc import Iterable
from typing import Any

from torch import nn


def without_decay_of_vectors(parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Return two groups: matrices and kernels, and what has one dimension, without weight decay.

    Scales and offsets of normalisation layers, and biases, do not grow with the fit; drawing them towards
    0 only changes what the next layer sees.

    Args:
        parameters: Of a network, each once.

    Returns:
        Groups as torch's optimizers take them; a group without parameters is left out.

    References:
        He et al., Bag of Tricks for Image Classification, CVPR 2019, section 3.1.
    """
    kernels: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for parameter in parameters:
        (kernels if parameter.ndim > 1 else vectors).append(parameter)
    groups: list[dict[str, Any]] = [{"params": kernels}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
