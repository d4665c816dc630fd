"""The one LightningDataModule: a reader's manifest, cached, split by patient, as batches of uint8 images."""

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from cxrlab.data.audit.run_audit import AuditReport
from cxrlab.data.cache import CacheSettings
from cxrlab.data.dataset import (
    Copies,
    Dataset,
    Images,
    Unreadable,
    audit_dataset,
    cached,
    find_copies,
    without_unreadable,
)
from cxrlab.data.decode import Resize
from cxrlab.data.filters import apply_filters, filter_words
from cxrlab.data.flow import FlowStep, left_out, listed_steps
from cxrlab.data.loader import (
    Batch,
    Batches,
    FeatureStore,
    ImageDevice,
    ImageStore,
    Loader,
    Sampling,
    balanced_weights,
)
from cxrlab.data.manifest import PARTS, Manifest
from cxrlab.data.patients import warn_of_patients
from cxrlab.data.public import PUBLIC, canonical
from cxrlab.data.splits import CustomSplit, Split, check_fraction, take_fraction, take_images
from cxrlab.errors import ConfigError, DataError, check_range, override
from cxrlab.files import user_cache_dir

_Result = TypeVar("_Result")

# Features are small: batches of them that nothing is learnt from may be large.
_FEATURES_AT_ONCE = 4096


class DataModule(pl.LightningDataModule):
    """Reads, caches, splits and loads one data set.

    Args:
        root: Folder of the raw data set.
        reader: Turns ``root`` into a manifest.
        name: What the data set is called in reports, also in those without names of folders; None for the
            reader's name, which may be that of the folder.
        filter: Keeps part of a manifest.
        split: Gives every image of a manifest its part: a :class:`~cxrlab.data.splits.Split`, or any callable
            of a manifest and, by keyword, ``groups``: the name of each row's group, which says which images
            belong together.
        labels: Labels to learn, in the order of the network's outputs; None for all.
        fraction: Share of the training patients to train on.
        max_train_images: Train on this many images at most, of whole patients; None for all. See
            :func:`cxrlab.data.splits.take_images`.
        equal_classes: With ``max_train_images``: as many of each class.
        image_size: Height and width of the images in pixels.
        channels: 1 for radiographs, 3 for colour.
        resize: ``stretch``, ``pad`` or ``crop``.
        bit_depth: Bits of the grey values of PNG and TIFF files of 16 bits; None for the smallest of 8, 10,
            12, 14 and 16 that holds those of each file.
        batch_size: Images in a batch, of one process.
        cache_dir: Folder of the decoded images; None for ``cxrlab/images`` in the user's cache.
        num_workers: Processes that decode images into the cache; None for one a core, 0 for none beside this.
        image_device: Where the images are during training: ``disk``, ``host``, ``gpu`` or ``auto``.
        on_unreadable: ``skip`` leaves out images that cannot be read and lists them, ``raise`` stops.
        overfit_images: Train and validate on this many training images only, to see whether a network can
            learn at all; None for real training.
        steps_per_epoch: Training batches of one process in an epoch; None for every image once.
        sampling: ``uniform``, or ``balanced``: see :func:`cxrlab.data.loader.balanced_weights`.
        augment: Applied to training batches on the device; called with images and a random generator. None
            for images as they are.
        seed: Start of the order of training images and of their augmentation.

    Attributes:
        features: What is loaded in the place of images; None for images.

    Raises:
        ConfigError: If a value is out of its range.

    Example:
        >>> from cxrlab.data.readers import nih
        >>> data = DataModule("/data/nih", reader=nih.read, split=Split("official"), image_size=320)
        >>> data.split.method
        'official'
    """

    def __init__(
        self,
        root: str | Path,
        *,
        reader: Callable[[Path], Manifest],
        name: str | None = None,
        filter: Callable[[Manifest], Manifest] = apply_filters,
        split: Callable[..., Manifest] = Split(),  # noqa: B008 - frozen
        labels: list[str] | None = None,
        fraction: float = 1.0,
        max_train_images: int | None = None,
        equal_classes: bool = False,
        image_size: int = 224,
        channels: Literal[1, 3] = 1,
        resize: Resize = "stretch",
        bit_depth: int | None = None,
        batch_size: int = 32,
        cache_dir: str | Path | None = None,
        num_workers: int | None = None,
        image_device: ImageDevice = "auto",
        on_unreadable: Literal["raise", "skip"] = "skip",
        overfit_images: int | None = None,
        steps_per_epoch: int | None = None,
        sampling: Sampling = "uniform",
        augment: nn.Module | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_range("data.image_size", image_size, 8)
        check_range("data.bit_depth", bit_depth, 8, 16)
        check_range("data.batch_size", batch_size, 1)
        check_range("data.num_workers", num_workers, 0)
        check_range("data.overfit_images", overfit_images, 2)
        check_range("data.steps_per_epoch", steps_per_epoch, 1)
        check_range("data.max_train_images", max_train_images, 2)
        check_fraction(fraction)
        if max_train_images is not None and fraction < 1:
            raise ConfigError(
                f"data.fraction={fraction} and data.max_train_images={max_train_images} exclude each other: "
                "set one."
            )
        if equal_classes and max_train_images is None:
            raise ConfigError("data.equal_classes=true has no effect without data.max_train_images.")
        self.root = Path(root).expanduser()
        self.reader = reader
        self.name = name
        self.filter = filter
        self.split = split if isinstance(split, Split) else CustomSplit(split)
        self.labels = labels
        self.fraction = fraction
        self.max_train_images = max_train_images
        self.equal_classes = equal_classes
        self.settings = CacheSettings(image_size, channels, resize, bit_depth)
        self.batch_size = batch_size
        self.cache_dir = user_cache_dir() / "images" if cache_dir is None else Path(cache_dir).expanduser()
        self.num_workers = num_workers
        self.image_device: ImageDevice = image_device
        self.on_unreadable = on_unreadable
        self.overfit_images = overfit_images
        self.steps_per_epoch = steps_per_epoch
        self.sampling: Sampling = sampling
        self.augment = augment
        self.seed = seed
        self.seconds: dict[str, float] = {}
        self._flow: dict[str, FlowStep] = {}
        self._read: tuple[Manifest, list[str]] | None = None
        self._reader_name = ""
        self._dataset: Dataset | None = None
        self._store: ImageStore | None = None
        self.features: FeatureStore | None = None
        self._all_at_once = False

    def prepare(self) -> Manifest:
        """Read, cache and split the data set; the second call returns what the first one made.

        Raises:
            MissingFileError: If the root or its tables do not exist.
            DataError: If the data set cannot be used: its message says why.
            OutputError: If the cache cannot be written.
        """
        if self._dataset is not None:
            return self._dataset.manifest
        manifest = self.read()
        self.split.check_manifest(manifest)  # a missing part is found now, not when all images are decoded
        _check_labels_vary(manifest, "images")
        gathered = self.gather()
        copies = self._timed("copies", lambda: find_copies(gathered.images))
        dataset = self._timed("split", lambda: self._split(replace(gathered, copies=copies)))
        _check_parts_filled(dataset.manifest)
        _check_labels_vary(dataset.manifest.part("train"), "training images")
        self._dataset = dataset
        return dataset.manifest

    def read(self) -> Manifest:
        """Read the tables of the data set, and choose labels and images; nothing is decoded.

        Raises:
            MissingFileError: If the root, its tables or the table of parts do not exist.
            ConfigError: If the data set lacks one of the labels.
            DataError: If the tables cannot be used: its message says why.
        """
        if self._read is None:
            self.split.check_file()
            manifest = self._timed("read", lambda: self.reader(self.root))
            self._reader_name = manifest.name
            if self.name is not None:
                manifest = replace(manifest, name=self.name)
            warn_of_patients(manifest.table["patient"], manifest.root)
            chosen = self.filter(manifest.select_labels(self.labels))
            steps = listed_steps(manifest.num_listed, len(manifest.missing), len(manifest))
            steps.append(left_out("filter", manifest.table, chosen.table, filter_words(self.filter)))
            self._flow = {step.reason: step for step in steps}
            self._read = chosen, manifest.table["image"].tolist()
        return self._read[0]

    def gather(self) -> Dataset:
        """Return the data set as it is, read and cached, before any split; copies are not looked for.

        Raises:
            MissingFileError: If the root or its tables do not exist.
            DataError: If the data set cannot be used: its message says why.
            OutputError: If the cache cannot be written.
        """
        chosen = self.read()
        files = self._read[1] if self._read is not None else []
        images = self._timed("cache", lambda: self._cached(chosen, files))
        dataset = without_unreadable(chosen, images, self.on_unreadable)
        self._flow["unreadable"] = left_out("unreadable", chosen.table, dataset.manifest.table)
        return dataset

    def decode(self, manifest: Manifest) -> Dataset:
        """Return another data set, decoded as this one is, into a cache of its own.

        Raises:
            DataError: If none of its images can be read.
            OutputError: If the cache cannot be written.
        """
        images = self._cached(manifest, manifest.table["image"].tolist())
        return without_unreadable(manifest, images, "skip")

    @property
    def is_named(self) -> bool:
        """Whether a person or a YAML file named the data set; else its name may be that of the folder."""
        given = self.reader.keywords.get("name") if isinstance(self.reader, functools.partial) else None
        return self.name is not None or given is not None

    @property
    def public_name(self) -> str:
        """Name of the public data set that it is, whatever a person calls it; empty where it is none.

        Read first, for it is the reader that knows.
        """
        if self._read is None:
            self.read()
        names = (self._reader_name, self.name or "")
        return next((canonical(name) for name in names if canonical(name) in PUBLIC), "")

    @property
    def dataset(self) -> Dataset:
        """The split data set.

        Raises:
            RuntimeError: If it was not prepared.
        """
        if self._dataset is None:
            raise RuntimeError(f"The data of {self.root} are not there yet: call prepare() first.")
        return self._dataset

    @property
    def manifest(self) -> Manifest:
        """The manifest of the split data set."""
        return self.dataset.manifest

    @property
    def images(self) -> Images:
        """The image of each row of the manifest."""
        return self.dataset.images

    @property
    def copies(self) -> Copies:
        """Which of the images show the same."""
        return self.dataset.copies

    @property
    def unreadable(self) -> Unreadable:
        """What was left out because it could not be read."""
        return self.dataset.unreadable

    @property
    def targets(self) -> Tensor:
        """Labels: 1 present, 0 absent, NaN unknown, shape ``(N, L)``."""
        return torch.from_numpy(self.dataset.targets)

    def audit(self) -> AuditReport:
        """Return what is wrong with the data; see :func:`cxrlab.data.audit.audit`."""
        self.prepare()
        return replace(self._timed("audit", lambda: audit_dataset(self.dataset)), flow=self.flow)

    @property
    def flow(self) -> list[FlowStep]:
        """What was left out so far of the data set's own table, and why."""
        return list(self._flow.values())

    def _cached(self, manifest: Manifest, files: list[str]) -> Images:
        return cached(
            manifest, self.settings, cache_dir=self.cache_dir, num_workers=self.num_workers, files=files
        )

    def _split(self, dataset: Dataset) -> Dataset:
        groups = dataset.copies.groups(dataset.manifest)
        split = self.split(dataset.manifest, groups=groups)
        if self.max_train_images is None:
            manifest = take_fraction(split, fraction=self.fraction, seed=self.seed, groups=groups)
        else:
            manifest = take_images(
                split,
                count=self.max_train_images,
                equal_classes=self.equal_classes,
                seed=self.seed,
                groups=groups,
            )
        drawn = "data.fraction" if self.max_train_images is None else "data.max_train_images"
        if len(manifest) < len(split):
            self._flow["sample"] = left_out("sample", split.table, manifest.table, drawn)
        kept = dataset.select(dataset.manifest.table["image"].isin(manifest.table["image"]).to_numpy())
        if not kept.manifest.table["image"].equals(manifest.table["image"]):
            raise DataError("data.split returned other images, or in another order, than it was given.")
        return replace(kept, manifest=manifest)

    def _timed(self, phase: str, function: Callable[[], _Result]) -> _Result:
        start = time.perf_counter()
        result = function()
        self.seconds[phase] = round(time.perf_counter() - start, 1)
        return result

    def use_features(self, features: FeatureStore, *, all_at_once: bool = False) -> None:
        """Load features in the place of images from now on, in training as in evaluation.

        Args:
            features: Of all rows that will be loaded.
            all_at_once: Whether the training part is one batch.
        """
        self.features, self._all_at_once = features, all_at_once

    def setup(self, stage: str) -> None:
        """Prepare, if nobody did; Lightning calls this."""
        self.prepare()

    def rows(self, part: str) -> list[int]:
        """Return the rows of the manifest that belong to a part."""
        of_part = np.flatnonzero((self.manifest.table["part"] == part).to_numpy())
        return [int(row) for row in of_part]

    def image(self, row: int) -> Tensor:
        """Return one image of the manifest, uint8, shape ``(C, H, W)``."""
        return torch.from_numpy(self.images[[row]][0])

    def training_statistics(self, num_images: int) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation by channel on the scale 0 to 1, from the training part.

        At most ``num_images`` are taken, evenly spaced.
        """
        rows = self.rows("train")
        step = max(1, len(rows) // num_images)
        moments = [_moments(self.image(row)) for row in rows[::step][:num_images]]
        mean = torch.stack([first for first, _ in moments]).mean(dim=0)
        variance = torch.stack([second for _, second in moments]).mean(dim=0) - mean**2
        return mean.tolist(), variance.clamp_min(0).sqrt().tolist()

    def train_dataloader(self) -> Loader:
        """Return shuffled batches of the training part."""
        return self._loader(self._training_rows(), shuffle=True)

    def val_dataloader(self) -> Loader:
        """Return the validation part in the order of the manifest."""
        return self._loader(
            self._overfit_rows() if self.overfit_images is not None else self.rows("val"), shuffle=False
        )

    def test_dataloader(self) -> Loader:
        """Return the test part in the order of the manifest."""
        return self._loader(self.rows("test"), shuffle=False)

    def predict_dataloader(self) -> Loader:
        """Return the test part in the order of the manifest: ``rows("test")``."""
        return self.test_dataloader()

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
        is_balanced = shuffle and self.sampling == "balanced"
        batch_size = self.batch_size
        if self.features is not None and not shuffle:
            batch_size = _FEATURES_AT_ONCE
        elif self._all_at_once:
            batch_size = len(rows)
        return Batches(
            rows,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=self.seed,
            rank=trainer.global_rank if trainer else 0,
            num_processes=trainer.world_size if trainer else 1,
            steps=self.steps_per_epoch if shuffle else None,
            weights=balanced_weights(self.targets[rows].numpy()) if is_balanced else None,
        )

    def _loader(self, rows: list[int], *, shuffle: bool) -> Loader:
        if self.features is not None:
            return Loader(self.features, self.targets, self._batches(rows, shuffle=shuffle))
        if self._store is None:
            device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
            self._store = ImageStore(
                self.images.cache.images,
                self.images.positions,
                image_device=self.image_device,
                device=device,
            )
        return Loader(self._store, self.targets, self._batches(rows, shuffle=shuffle))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training batches, on the device, unless they are to be overfit."""
        is_training = self.trainer is not None and self.trainer.training
        is_augmented = is_training and self.overfit_images is None and "images" in batch
        if is_augmented and self.augment is not None:
            images = batch["images"]
            generator = torch.Generator(images.device).manual_seed(batch["seed"])
            batch["images"] = self.augment(images, generator)
        return batch


def _moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and mean square of an image by channel, scale 0 to 1."""
    values = image.double() / 255.0
    return values.mean(dim=(1, 2)), values.square().mean(dim=(1, 2))


def _check_parts_filled(manifest: Manifest) -> None:
    counts = {part: int((manifest.table["part"] == part).sum()) for part in PARTS}
    empty = [part for part, count in counts.items() if count == 0]
    if empty:
        raise DataError(
            f"The parts {empty} of {manifest.root} have no image (images by part: {counts}). Use more data, "
            "or another split: data.split.method=grouped."
        )


def _check_labels_vary(manifest: Manifest, noun: str) -> None:
    values = {
        label: set(column[~np.isnan(column)])
        for label, column in zip(manifest.labels, manifest.targets.T, strict=True)
    }
    kinds = {
        frozenset(): "never known",
        frozenset({0.0}): "never present",
        frozenset({1.0}): "always present",
    }
    constant = {label: kinds[frozenset(seen)] for label, seen in values.items() if len(seen) < 2}
    if constant:
        others = [label for label in manifest.labels if label not in constant]
        raise DataError(
            f"Nothing can be learnt of labels that do not vary among the {len(manifest)} {noun}: "
            f"{constant}. "
            + (f"Leave them out: {override('data.labels', others)}." if others else "Check the labels.")
        )
