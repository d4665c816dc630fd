"""What several processes of one training must agree upon, and what is to be said where one of them is lost.

One process a device: each sees its share of a batch, and has the same weights as all others.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch import distributed as dist

from cxrlab.errors import TrainingError, UserError

T = TypeVar("T")

# Seconds after which a process that was ended must be known to its parent.
_SECONDS_TO_NOTICE = 1.0

# A process that is killed closes its connections first, and is seen to be gone later.
_SECONDS_TO_DIE = 3.0

# Words by which torch's libraries tell that a connection broke, in what is a plain RuntimeError.
_OF_CONNECTIONS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")

_PARENT = os.getppid()

_group: tuple[object, dist.ProcessGroup | None] | None = None  # the world, and its processors


class LostProcessError(TrainingError):
    """Another process of the training has ended, and this one cannot go on alone."""


def gathered(own: T) -> list[T]:
    """Return what each process of a training holds, in the order of their ranks; of one alone its own."""
    if num_processes() == 1:
        return [own]
    shares: list[T | None] = [None] * num_processes()
    dist.all_gather_object(shares, own)
    return [share for share in shares if share is not None]


def num_processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def largest(values: Sequence[int]) -> list[int]:
    """Return the largest of all processes' values, at each place of the list.

    It goes from processor to processor, so that no GPU is waited for; and a process that was killed is
    noticed here at once.

    Example:
        >>> largest([15, 0])  # a process alone
        [15, 0]
    """
    if num_processes() == 1:
        return list(values)
    together = torch.tensor(values)
    dist.all_reduce(together, op=dist.ReduceOp.MAX, group=_processors())
    return [int(value) for value in together]


def _processors() -> dist.ProcessGroup | None:
    """Return the group in which processors talk; None is the group of the devices, where these are they."""
    global _group
    if dist.get_backend() == "gloo":
        return None
    if _group is None or _group[0] is not dist.group.WORLD:
        _group = (dist.group.WORLD, dist.new_group(backend="gloo"))
    return _group[1]


def summed(values: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes; of one alone the tensor itself."""
    if num_processes() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def weight_of_mean(targets: Tensor) -> Tensor | float:
    """Return what the mean over this process's known targets counts in the mean of all processes' means.

    Gradients are averaged over processes. Where these know different numbers of targets, the mean of their
    means is not the mean over the batch; each process's counts by the targets that it knows.

    Args:
        targets: 1 present, 0 absent, NaN unknown, shape ``(B, L)``.

    Returns:
        Scalar, 1 where all know as many; nothing is copied to the processor.
    """
    if num_processes() == 1:
        return 1.0
    known = (~torch.isnan(targets)).sum().float()
    return known * num_processes() / summed(known).clamp_min(1)


def take_buffers_of_first(module: nn.Module) -> None:
    """Give a module of each process the buffers of the first one's.

    Running statistics of batch normalisation are each process's own until the next step of the training. A
    checkpoint holds the first one's; what is validated must be the same network in all processes.
    """
    if num_processes() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


class SyncBatchNorm(TorchSyncBatchNorm):
    """Batch normalisation over the images of all processes (``trainer.sync_batchnorm=true``).

    Torch's own conversion, which Lightning calls, loses the activation inside of timm's layers: DenseNet's
    would be a network without ReLUs. This one keeps it, and brings the very layers back afterwards.
    """

    def __init__(self) -> None:
        self._replaced: list[tuple[nn.Module, str, nn.Module]] = []  # parent, name, layer

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace each layer of batch normalisation in place, but for those whose statistics are frozen."""
        was_training = model.training
        model.train()  # what is frozen stays in evaluation mode
        layers: list[tuple[nn.Module, str, nn.Module]] = [
            (parent, name, layer)
            for parent in model.modules()
            for name, layer in parent.named_children()
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training
        ]
        model.train(was_training)
        for parent, name, layer in layers:
            setattr(parent, name, convert_sync_batchnorm(layer))  # type: ignore[no-untyped-call]
        self._replaced = layers
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Bring the layers back, with the parameters and statistics of those in their place."""
        for parent, name, layer in self._replaced:
            used: Any = getattr(parent, name)
            layer._parameters, layer._buffers = used._parameters, used._buffers
            layer.training = used.training
            setattr(parent, name, layer)
        self._replaced = []
        return model


def is_of_lost_process(error: BaseException) -> bool:
    """Tell whether an error is torch's for a connection to another process that broke."""
    if isinstance(error, UserError):
        return False
    of_torch = (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)
    if isinstance(error, of_torch):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OF_CONNECTIONS)


def is_started_by_first(trainer: pl.Trainer) -> bool:
    """Tell whether the first process of a training, which is alive, has started this one."""
    by_lightning = isinstance(trainer.strategy.cluster_environment, LightningEnvironment)  # type: ignore[attr-defined]
    if not by_lightning or trainer.local_rank == 0:
        return False
    end = time.monotonic() + _SECONDS_TO_DIE
    while os.getppid() == _PARENT and time.monotonic() < end:
        time.sleep(0.1)
    return os.getppid() == _PARENT


def started_processes(trainer: pl.Trainer) -> list["subprocess.Popen[bytes]"]:
    """Return the processes that Lightning started for a training, by rank from 1; none of torchrun's."""
    return list(getattr(trainer.strategy.launcher, "procs", ()))


def forget_started(trainer: pl.Trainer) -> None:
    """Keep Lightning from killing this process because those that it started have ended.

    Its observer does so whatever their reason, also where all of them were asked to stop.
    """
    if (processes := getattr(trainer.strategy.launcher, "procs", None)) is not None:
        processes.clear()


def ended_processes(processes: Sequence["subprocess.Popen[bytes]"]) -> dict[int, int]:
    """Return the status of each process that has ended by its rank, as a shell tells it."""
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_NOTICE / len(processes))
    return {
        rank: 128 - process.returncode if process.returncode < 0 else process.returncode
        for rank, process in enumerate(processes, 1)
        if process.returncode is not None
    }


def in_words(status: int) -> str:
    """Return how a process ended.

    Example:
        >>> in_words(137), in_words(1)
        ('was ended by SIGKILL', 'ended with status 1')
    """
    if status > 128:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(status - 128).name}"
    return f"ended with status {status}"


@contextlib.contextmanager
def tells_of_lost_process() -> Iterator[None]:
    """Turn what torch raises where a process was lost into a message, or a status where another tells it.

    Raises:
        LostProcessError: With the words that :class:`~cxrlab.training.callbacks.Interruption` found.
        SystemExit: Where it is for another process to tell, or where the lost one was asked to stop.
    """
    try:
        yield
    except Exception as error:
        told: str | int | None = getattr(error, "lost_process", None)
        if told is None:
            raise
        if isinstance(told, int):
            raise SystemExit(told) from None
        raise LostProcessError(told) from error
