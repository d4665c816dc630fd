"""What an optimizer gets: which parameters decay, which rate each stage has; gradients that are clipped."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Required, TypedDict

from torch import nn
from torch.optim import Optimizer

from cxrlab.errors import ConfigError
from cxrlab.models.network import Network


class ParameterGroup(TypedDict, total=False):
    """A group of an optimizer, as torch takes it; what it lacks is the optimizer's own.

    Attributes:
        params: The parameters.
        lr: Their rate.
        weight_decay: Their decay.
    """

    params: Required[list[nn.Parameter]]
    lr: float
    weight_decay: float


@dataclass(frozen=True, kw_only=True)
class LayerRates:
    """How the rates of a network's stages follow from ``optimizer.lr``.

    Args:
        stage_decay: Factor from the head to the last stage, and from each stage to the one before it, above 0
            and at most 1.
        floor: The factor of a stage is never below this one, 0 to 1.
        head_factor: Factor of the head, above 0.

    Raises:
        ConfigError: If a value is out of its range.

    References:
        Howard and Ruder, ULMFiT, ACL 2018; Clark et al., ELECTRA, ICLR 2020.
    """

    stage_decay: float = 1.0
    floor: float = 0.0
    head_factor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.stage_decay <= 1:
            raise ConfigError(f"layer_rates.stage_decay={self.stage_decay} must be above 0 and at most 1.")
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"layer_rates.floor={self.floor} must lie between 0 and 1.")
        if self.head_factor <= 0:
            raise ConfigError(f"layer_rates.head_factor={self.head_factor} must be above 0.")

    def factors(self, network: Network) -> list[tuple[float, list[nn.Parameter]]]:
        """Return the factor and the parameters of each stage of a network, the head's last.

        Raises:
            ConfigError: If the network has no stages, or no head, to tell apart.
        """
        if self.stage_decay == self.head_factor == 1:
            return [(1.0, list(network.parameters()))]
        of_head, stages = network.head_parameters(), network.stages()
        if not of_head or (self.stage_decay < 1 and not stages):
            raise ConfigError(
                f"layer_rates: {network.title} has no stages to give rates to. Set "
                "layer_rates.stage_decay=1 layer_rates.head_factor=1, or a timm backbone; or give a network "
                "of your own the methods stages and head_parameters of cxrlab.models.Network."
            )
        if not stages:
            head = set(of_head)
            stages = [[parameter for parameter in network.parameters() if parameter not in head]]
        distances = range(len(stages), 0, -1)
        scaled = [
            (max(self.floor, self.stage_decay**d), stage) for d, stage in zip(distances, stages, strict=True)
        ]
        return [*scaled, (self.head_factor, of_head)]


def parameter_groups(
    network: Network,
    *,
    rates: LayerRates | None = None,
    lr: float | None = None,
    decay_norms_and_biases: bool = True,
) -> list[ParameterGroup]:
    """Return a network's parameters as torch's optimizers take them, each once.

    Args:
        network: What is trained. What does not learn yet is in the groups as well.
        rates: Factor of each stage's rate; None for one rate.
        lr: The rate that the factors are of; None where the optimizer was given none.
        decay_norms_and_biases: Whether weight decay is for all, or for matrices and kernels only.

    Raises:
        ConfigError: If stages are to have rates of their own, and the network has none or there is no ``lr``.
    """
    groups: list[ParameterGroup] = []
    rates = rates or LayerRates()
    if lr is None and not rates.stage_decay == rates.head_factor == 1:
        raise ConfigError("layer_rates needs optimizer.lr, of which its values are factors: set it.")
    for factor, parameters in rates.factors(network):
        split: list[ParameterGroup] = (
            [{"params": parameters}] if decay_norms_and_biases else without_decay_of_vectors(parameters)
        )
        groups += split if lr is None or factor == 1 else [{**group, "lr": lr * factor} for group in split]
    return groups


def without_decay_of_vectors(parameters: Iterable[nn.Parameter]) -> list[ParameterGroup]:
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
    groups: list[ParameterGroup] = [{"params": kernels}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def allow_clipping(optimizer: Optimizer) -> None:
    """Let gradients be clipped in mixed precision also where ``fused=True``.

    A fused optimizer offers to undo the scaling of gradients in its own pass, after any clipping, so that
    Lightning refuses to clip for it. Without that offer they are brought back to scale first, as for others;
    bf16 has no such scaling at all.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
