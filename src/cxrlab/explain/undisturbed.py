"""Gradients of a network outside its training, without any trace left in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Record gradients in evaluation mode and full precision; leave the network as it was.

    Parameters need no gradient here, and libraries that call ``zero_grad`` would drop the ones that training
    has accumulated. Inference mode, ``no_grad`` and autocast may be active around the call.
    """
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in network.parameters()]
    modes = [(module, module.training) for module in network.modules()]
    autocast_off = torch.autocast(parameters[0][0].device.type, enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), autocast_off:
        try:
            network.eval()
            for parameter, _, _ in parameters:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, requires_grad, gradient in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = gradient
            for module, training in modes:
                module.training = training
