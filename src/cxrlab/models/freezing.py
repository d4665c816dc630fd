"""The stages of a backbone, as timm groups them, and which of them learn."""

from collections.abc import Iterator
from typing import Any

from timm.models import group_parameters
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cxrlab.errors import ConfigError


def stage_parameters(backbone: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of a timm backbone by stage, the stem's first.

    A layer between the last stage and the head, such as a normalisation, counts as a stage.
    """
    matcher: Any = backbone.group_matcher  # timm adds what nn.Module does not declare
    by_name = dict(backbone.named_parameters())
    groups = group_parameters(backbone, matcher(coarse=True))
    return [[by_name[name] for name in groups[stage]] for stage in sorted(groups)]


class Freeze:
    """Keeps a part of a backbone as it is: its weights, and the statistics of its normalisation layers.

    Args:
        backbone: A timm backbone.
        depth: ``backbone`` for all of it, the number of its first stages, or ``norm_statistics`` for the
            running statistics of batch normalisation alone.
        name: What the backbone is called, for messages.

    Raises:
        ConfigError: If the backbone lacks that depth.
    """

    def __init__(self, backbone: nn.Module, depth: str | int, name: str) -> None:
        self.backbone = backbone
        self.frozen: list[nn.Parameter] = []
        self.kept: list[nn.Module] = []
        if depth == "norm_statistics":
            self.kept = [layer for layer in backbone.modules() if isinstance(layer, _BatchNorm)]
            if not self.kept:
                raise ConfigError(f"model.freeze=norm_statistics: {name} has no batch normalisation.")
        elif depth == "backbone":
            self.frozen = list(backbone.parameters())
            self.kept = list(backbone.modules())
        else:
            self.frozen = list(_first_stages(backbone, depth, name))
            frozen = set(self.frozen)
            weights_of = {layer: list(layer.parameters(recurse=False)) for layer in backbone.modules()}
            self.kept = [layer for layer, own in weights_of.items() if own and frozen.issuperset(own)]
        for parameter in self.frozen:
            parameter.requires_grad_(False)

    def hold(self) -> None:
        """Put what is frozen into evaluation mode, wherever the rest is."""
        for module in self.kept:
            module.training = False

    def end(self) -> None:
        """Let everything learn."""
        for parameter in self.frozen:
            parameter.requires_grad_(True)


def _first_stages(backbone: nn.Module, depth: str | int, name: str) -> Iterator[nn.Parameter]:
    stages = stage_parameters(backbone)
    if not isinstance(depth, int) or isinstance(depth, bool) or not 1 <= depth <= len(stages):
        raise ConfigError(
            f"model.freeze={depth} does not fit {name}, which has {len(stages)} stages, the stem being the "
            f"first: give a number from 1 to {len(stages)}, backbone, norm_statistics, or null."
        )
    for stage in stages[:depth]:
        yield from stage


def num_parameters(network: nn.Module) -> tuple[int, int]:
    """Return how many parameters a network has, and how many of them learn now.

    Example:
        >>> num_parameters(nn.Linear(3, 2))
        (8, 8)
    """
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)
