"""Batches of decoded images, made in loader workers."""

from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cxrlab.data.images import decode
from cxrlab.errors import UserError


class Batch(TypedDict):
    """What the loader yields.

    Attributes:
        images: uint8, shape ``(B, C, H, W)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(B, L)``.
        index: Row of each image in the manifest, shape ``(B,)``.
        failures: Messages of the images that could not be read and are not in the batch.
    """

    images: Tensor
    targets: Tensor
    index: Tensor
    failures: list[str]


class ImageDataset(Dataset[Batch]):
    """Decodes a list of rows at a time.

    An image that cannot be read is reported in the batch and not raised, since an exception that crosses from
    a worker process arrives as a traceback.

    Args:
        paths: One file an image.
        targets: Shape ``(N, L)``.
        image_size: Height and width in pixels.
        channels: 1 or 3.
    """

    def __init__(
        self, paths: list[Path], targets: npt.NDArray[np.float32], *, image_size: int, channels: int
    ) -> None:
        self.paths = paths
        self.targets = torch.tensor(targets)  # a copy: pandas lends its memory read-only
        self.image_size = image_size
        self.channels = channels

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, row: int) -> Tensor:
        """Return one image, uint8, shape ``(C, H, W)``."""
        return torch.from_numpy(decode(self.paths[row], image_size=self.image_size, channels=self.channels))

    def __getitem__(self, rows: list[int]) -> Batch:
        images: list[Tensor] = []
        read: list[int] = []
        failures: list[str] = []
        for row in rows:
            try:
                images.append(self.image(row))
                read.append(row)
            except UserError as error:
                failures.append(str(error))
        shape = (0, self.channels, self.image_size, self.image_size)
        return {
            "images": torch.stack(images) if images else torch.empty(shape, dtype=torch.uint8),
            "targets": self.targets[read],
            "index": torch.tensor(read, dtype=torch.long),
            "failures": failures,
        }
