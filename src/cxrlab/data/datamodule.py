"""The one LightningDataModule: a reader's manifest, split by patient, as batches of uint8 images."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cxrlab.data.batches import Batches
from cxrlab.data.dataset import Batch, ImageDataset
from cxrlab.data.manifest import PARTS, Manifest
from cxrlab.errors import ConfigError, DataError, UserError

log = logging.getLogger(__name__)

_STATISTICS_IMAGES = 512


class DataModule(pl.LightningDataModule):
    """Reads, splits and loads one data set.

    Args:
        root: Folder of the raw data set.
        reader: Turns ``root`` into a manifest.
        split: Gives every image of a manifest its part.
        labels: Labels to learn, in the order of the network's outputs; None for all.
        image_size: Height and width of the images in pixels.
        channels: 1 for radiographs, 3 for colour.
        batch_size: Images in a batch, of one process.
        num_workers: Processes that decode images; 0 decodes in the main process.
        on_unreadable: ``raise`` stops at an image that cannot be read, ``skip`` leaves it out with a warning.
        overfit_images: Train and validate on this many training images only, to see whether a network can
            learn at all; None for real training.
        augment: Applied to training batches on the device.
        seed: Start of the order of training images.

    Attributes:
        manifest: The split data set; there after ``prepare``.

    Raises:
        ConfigError: If a value is out of its range.
    """

    manifest: Manifest

    def __init__(
        self,
        *,
        root: str,
        reader: Callable[[Path], Manifest],
        split: Callable[[Manifest], Manifest],
        labels: list[str] | None,
        image_size: int,
        channels: Literal[1, 3],
        batch_size: int,
        num_workers: int,
        on_unreadable: Literal["raise", "skip"],
        overfit_images: int | None,
        augment: nn.Module,
        seed: int,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("image_size", image_size, 8),
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
            ("overfit_images", overfit_images if overfit_images is not None else 2, 2),
        ):
            if value < least:
                raise ConfigError(f"data.{name}={value} must be at least {least}.")
        self.root = Path(root).expanduser()
        self.reader = reader
        self.split = split
        self.labels = labels
        self.image_size = image_size
        self.channels: int = channels
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.on_unreadable = on_unreadable
        self.overfit_images = overfit_images
        self.augment = augment
        self.seed = seed
        self.read_seconds = 0.0
        self._reported: set[str] = set()

    def prepare(self) -> Manifest:
        """Read and split the data set; the second call returns what the first one made.

        Raises:
            MissingFileError: If the root or its tables do not exist.
            DataError: If the data set cannot be used: its message says why.
        """
        if hasattr(self, "manifest"):
            return self.manifest
        start = time.perf_counter()
        manifest = self.split(self.reader(self.root).select_labels(self.labels))
        _refuse_empty_parts(manifest)
        _refuse_constant_labels(manifest.part("train"))
        self.manifest = manifest
        paths = [manifest.root / name for name in manifest.table["image"]]
        self.dataset = ImageDataset(
            paths, manifest.targets, image_size=self.image_size, channels=self.channels
        )
        self.read_seconds = time.perf_counter() - start
        return manifest

    def setup(self, stage: str) -> None:
        """Prepare, if nobody did; Lightning calls this."""
        self.prepare()

    def rows(self, part: str) -> list[int]:
        """Return the rows of the manifest that belong to a part."""
        of_part = np.flatnonzero((self.manifest.table["part"] == part).to_numpy())
        return [int(row) for row in of_part]

    def image(self, row: int) -> Tensor:
        """Return one image of the manifest, uint8, shape ``(C, H, W)``."""
        return self.dataset.image(row)

    def training_statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation by channel on the scale 0 to 1, from the training part.

        At most 512 images are read, evenly spaced; those that cannot be read are left to the loader.
        """
        rows = self.rows("train")
        step = max(1, len(rows) // _STATISTICS_IMAGES)
        with ThreadPoolExecutor() as pool:
            moments = list(pool.map(partial(_moments, self.dataset), rows[::step][:_STATISTICS_IMAGES]))
        read = [pair for pair in moments if pair is not None]
        if not read:
            raise DataError(f"None of {len(moments)} training images below {self.root} could be read.")
        mean = torch.stack([first for first, _ in read]).mean(dim=0)
        variance = torch.stack([second for _, second in read]).mean(dim=0) - mean**2
        return mean.tolist(), variance.clamp_min(0).sqrt().tolist()

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled batches of the training part."""
        return self._loader(self._training_rows(), shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation part in the order of the manifest."""
        return self._loader(
            self._overfit_rows() if self.overfit_images is not None else self.rows("val"), shuffle=False
        )

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test part in the order of the manifest."""
        return self._loader(self.rows("test"), shuffle=False)

    @property
    def num_left_out(self) -> int:
        """Images that could not be read so far."""
        return len(self._reported)

    @property
    def num_training_batches(self) -> int:
        """Batches of one process in an epoch."""
        return len(self._batches(self._training_rows(), shuffle=True))

    def _training_rows(self) -> list[int]:
        return self._overfit_rows() if self.overfit_images is not None else self.rows("train")

    def _overfit_rows(self) -> list[int]:
        rows = np.random.default_rng(self.seed).permutation(self.rows("train"))
        return sorted(int(row) for row in rows[: self.overfit_images])

    def _batches(self, rows: list[int], *, shuffle: bool) -> Batches:
        trainer = self.trainer
        return Batches(
            rows,
            batch_size=self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            rank=trainer.global_rank if trainer else 0,
            num_processes=trainer.world_size if trainer else 1,
        )

    def _loader(self, rows: list[int], *, shuffle: bool) -> DataLoader[Batch]:
        batches = self._batches(rows, shuffle=shuffle)
        if shuffle and self.trainer:
            # Lightning makes a resumed run's first iterator before it tells the sampler the epoch.
            epoch = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
            batches.set_epoch(epoch)
        return DataLoader(
            self.dataset,
            sampler=batches,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # Its own generator: the loader draws a seed at the start of each epoch, and drawing that from the
            # global one would make a resumed run differ from an uninterrupted one.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Report the images that a worker could not read, or stop at them."""
        for message in batch["failures"]:
            if self.on_unreadable == "raise":
                raise DataError(f"{message} Mend or remove it, or set data.on_unreadable=skip.")
            if message not in self._reported:
                log.warning("Left out: %s", message)
                self._reported.add(message)
        return batch

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training batches, on the device."""
        if self.trainer is not None and self.trainer.training and len(batch["index"]):
            batch["images"] = self.augment(batch["images"])
        return batch


def _moments(dataset: ImageDataset, row: int) -> tuple[Tensor, Tensor] | None:
    """Return mean and mean square of an image by channel, scale 0 to 1; None where it cannot be read."""
    try:
        values = dataset.image(row).double() / 255.0
    except UserError:
        return None
    return values.mean(dim=(1, 2)), values.square().mean(dim=(1, 2))


def _refuse_empty_parts(manifest: Manifest) -> None:
    counts = {part: int((manifest.table["part"] == part).sum()) for part in PARTS}
    empty = [part for part, count in counts.items() if count == 0]
    if empty:
        raise DataError(
            f"The parts {empty} of {manifest.root} have no image (images by part: {counts}). Use more data, "
            "or another split: data.split.method=grouped."
        )


def _refuse_constant_labels(train: Manifest) -> None:
    values = {
        label: set(column[~np.isnan(column)])
        for label, column in zip(train.labels, train.targets.T, strict=True)
    }
    kinds = {
        frozenset(): "never known",
        frozenset({0.0}): "never present",
        frozenset({1.0}): "always present",
    }
    constant = {label: kinds[frozenset(seen)] for label, seen in values.items() if len(seen) < 2}
    if constant:
        others = [label for label in train.labels if label not in constant]
        raise DataError(
            f"Nothing can be learnt of labels that do not vary among the {len(train)} training images: "
            f"{constant}. "
            + (f"Leave them out: data.labels=[{','.join(others)}]." if others else "Check the labels.")
        )
