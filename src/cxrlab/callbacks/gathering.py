"""What the processes of one training saw, brought together."""

from typing import TypeVar

import pytorch_lightning as pl
import torch

T = TypeVar("T")


def gathered(trainer: pl.Trainer, own: T) -> list[T]:
    """Return what each process holds, in the order of their ranks; each image is judged by one of them."""
    if trainer.world_size == 1:
        return [own]
    shares: list[T | None] = [None] * trainer.world_size
    torch.distributed.all_gather_object(shares, own)
    return [share for share in shares if share is not None]
