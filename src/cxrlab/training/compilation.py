"""``trainer.compile``: the network's own call compiled by torch, in place, for as long as it is trained."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cxrlab.errors import ConfigError

log = logging.getLogger(__name__)

COMPILE_MODES = ("reduce-overhead", "max-autotune")
"""Beside false and true: the modes of ``torch.compile`` that replay CUDA graphs."""

# Of torch.compile; tests take one that needs no C++ compiler.
BACKEND = "inductor"


def check_compile(value: object) -> None:
    """Refuse another value of ``trainer.compile`` than those that there are.

    Raises:
        ConfigError: Naming them.
    """
    if not isinstance(value, bool) and value not in COMPILE_MODES:
        raise ConfigError(f"trainer.compile={value} must be false, true, {' or '.join(COMPILE_MODES)}.")


@contextmanager
def compiled(network: nn.Module, choice: bool | str) -> Iterator[None]:
    """Let a network's own call be compiled for as long as this lasts.

    Neither its class nor the names of its weights change, and copies of it are not compiled. Each size of
    batch is compiled by itself, at its first step: an epoch has two sizes at most, which differ by one image,
    and CUDA graphs need fixed shapes. Whoever hooks layers calls it within
    :func:`cxrlab.models.network.uncompiled`.

    Args:
        network: What is trained and validated.
        choice: ``trainer.compile``: False, True or one of :data:`COMPILE_MODES`.

    Raises:
        ConfigError: If torch cannot compile it here.
    """
    check_compile(choice)
    if choice is False:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    mode = choice if isinstance(choice, str) else None
    call = torch.compile(network._call_impl, mode=mode, dynamic=False, backend=BACKEND)
    network._compiled_call_impl = _cloned(call) if mode else call
    log.info("The network is compiled at the first step with each size of batch (trainer.compile).")
    try:
        yield
    except TorchDynamoException as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"trainer.compile={str(choice).lower()}: torch cannot compile this network here "
            f"({type(error).__name__}: {reason}). Set trainer.compile=false."
        ) from error
    finally:
        network._compiled_call_impl = None
        torch.compiler.reset()  # torch keeps 8 programs of all networks together, and a sweep trains many


def _cloned(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a call whose result stays: a CUDA graph writes the next one into the same memory."""

    def function(*args: Any, **kwargs: Any) -> Tensor:
        return call(*args, **kwargs).clone()

    return function
