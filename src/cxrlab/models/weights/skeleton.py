"""Architectures of timm without values: names and shapes, in no time and no memory."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import timm
import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class _RatesOnCpu(TorchFunctionMode):
    """Keeps a list of rates, which timm 1.0.15 reads while it builds, off the meta device."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func is torch.linspace:
            named.setdefault("device", "cpu")
        return func(*args, **named)


def skeleton(backbone: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Return an architecture on the meta device, without a head.

    Args:
        backbone: Its name in timm.
        options: timm's own keywords.
    """
    with torch.device("meta"), _RatesOnCpu():
        network: nn.Module = timm.create_model(backbone, num_classes=0, **(options or {}))
    return network
