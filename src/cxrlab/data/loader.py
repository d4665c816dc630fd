"""Batches of cached images, gathered in one indexing step from a file, from memory, or from the GPU's own.

Which images stand in which batch is a function of seed, epoch and rank, so that a resume repeats it.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Sampler

from cxrlab.data.pixel_file import PixelFile
from cxrlab.errors import ConfigError

ImageDevice = Literal["auto", "disk", "host", "gpu"]
Sampling = Literal["uniform", "balanced"]

# Share of the GPU's free memory that images may take; the rest is the network's.
_GPU_SHARE = 0.5
_COPIED_AT_ONCE = 4096


class Batch(TypedDict):
    """What the loader yields: images, or the features that a frozen backbone makes of them.

    Attributes:
        images: uint8, shape ``(B, C, H, W)``.
        features: float32, shape ``(B, F)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(B, L)``.
        index: Row of each image in the manifest, shape ``(B,)``.
        seed: Start of the random numbers that augment this batch: a function of seed, epoch, process and
            number of the batch.
    """

    images: NotRequired[Tensor]
    features: NotRequired[Tensor]
    targets: Tensor
    index: Tensor
    seed: int


class Batches(Sampler[list[int]]):
    """Split rows into batches of nearly equal size; every rank gets the same number of batches.

    Where others would end with a batch of one image, which batch normalisation cannot take, all batches here
    differ by one image at most.
    In evaluation no image is left out or repeated, whatever the number of processes. In shuffled training
    over several processes the remainder of each epoch's order is left out, another one every epoch. Where an
    epoch has more steps than there are images, or the images have weights, they are drawn with replacement.

    Args:
        rows: Positions in the manifest.
        batch_size: Largest size of a batch.
        shuffle: Draw a new order every epoch.
        seed: Start of the order; the same in every process.
        rank: Number of this process.
        num_processes: How many there are.
        steps: Batches of one process in an epoch; None for as many as show every image once.
        weights: How often each row is drawn, by its share of their sum; None for all alike.
    """

    def __init__(
        self,
        rows: list[int],
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        num_processes: int = 1,
        steps: int | None = None,
        weights: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.rows = np.asarray(rows, dtype=np.int64)
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.num_processes = num_processes
        self.epoch = 0
        self.weights = weights
        self.num_drawn = len(rows) if steps is None else steps * batch_size * num_processes
        share = self.num_drawn // num_processes if shuffle else -(-len(rows) // num_processes)
        self.num_batches = max(1, -(-share // batch_size))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def batch_seed(self, number: int) -> int:
        """Return the start of the random numbers for a batch of this epoch, by its number in it."""
        words = np.random.SeedSequence([self.seed, self.epoch, self.rank, number]).generate_state(2)
        return int(words[0]) << 31 | int(words[1]) >> 1

    def __iter__(self) -> Iterator[list[int]]:
        order = self.rows
        if self.shuffle:
            order = self._drawn(np.random.default_rng([self.seed, self.epoch]))
            order = order[: len(order) - len(order) % self.num_processes]
        mine = order[self.rank :: self.num_processes]
        return (batch.tolist() for batch in np.array_split(mine, self.num_batches))

    def _drawn(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        if self.weights is None and self.num_drawn <= len(self.rows):
            return rng.permutation(self.rows)[: self.num_drawn]
        shares = None if self.weights is None else self.weights / self.weights.sum()
        return rng.choice(self.rows, size=self.num_drawn, p=shares)


def balanced_weights(targets: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the probability of each image when a finding is drawn first, and then an image that shows it.

    "None of the labels" counts as one finding more, for the images where no label is known to be present. So
    a single label gives as many positives as negatives, and exclusive classes all come equally often.

    Args:
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.

    Returns:
        Shape ``(N,)``, summing to 1.

    Example:
        >>> balanced_weights(np.array([[1.0], [0.0], [0.0], [0.0]])).round(3).tolist()
        [0.5, 0.167, 0.167, 0.167]
    """
    is_present = targets == 1
    shown = np.column_stack([is_present, ~is_present.any(axis=1)]).astype(np.float64)
    counts = shown.sum(axis=0)
    weights = (shown[:, counts > 0] / counts[counts > 0]).sum(axis=1)
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


class ImageStore:
    """Images by their row in the manifest, wherever they lie.

    Args:
        pixels: The cache's images, shape ``(M, C, H, W)``.
        positions: Where in ``pixels`` each row of the manifest is, shape ``(N,)``.
        image_device: ``disk`` leaves them in the file, which the operating system keeps in memory as far as
            there is room; ``host`` copies them to memory; ``gpu`` to the GPU's. ``auto`` is ``gpu`` where
            there is one and they fit into half of what is free on it, else ``disk``.
        device: Where the network is.

    Attributes:
        pins: Whether what is copied to the device stands in pinned memory, of which a GPU is not waited for.

    Raises:
        ConfigError: If ``image_device`` is ``gpu`` and the network is on none.
    """

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8] | PixelFile,
        positions: npt.NDArray[np.intp],
        *,
        image_device: ImageDevice,
        device: torch.device,
    ) -> None:
        self._pixels = pixels
        self._positions = torch.from_numpy(positions.astype(np.int64))
        num_bytes = len(positions) * math.prod(pixels.shape[1:])
        self.image_device = _chosen(image_device, num_bytes, device)
        self._moved: Tensor | None = None
        self.pins = device.type == "cuda"
        if self.image_device != "disk":
            self._move(device if self.image_device == "gpu" else torch.device("cpu"))

    def _move(self, device: torch.device) -> None:
        """Copy the images that the manifest names, and no others."""
        count = len(self._positions)
        moved = torch.empty((count, *self._pixels.shape[1:]), dtype=torch.uint8, device=device)
        for start in range(0, count, _COPIED_AT_ONCE):
            rows = slice(start, start + _COPIED_AT_ONCE)
            moved[rows] = torch.from_numpy(self._pixels[self._positions[rows].numpy()]).to(device)
        self._moved = moved

    def gather(self, rows: Tensor) -> Tensor:
        """Return images, uint8, shape ``(len(rows), C, H, W)``: on the GPU or pinned where there is one."""
        if self._moved is not None and self._moved.is_cuda:
            return self._moved[rows.pin_memory().to(self._moved.device, non_blocking=True)]
        images = torch.empty((len(rows), *self._pixels.shape[1:]), dtype=torch.uint8, pin_memory=self.pins)
        if self._moved is not None:
            return torch.index_select(self._moved, 0, rows, out=images)
        images.numpy()[:] = self._pixels[self._positions[rows].numpy()]
        return images


class FeatureStore:
    """Features of images by their row in the manifest, in memory.

    Args:
        features: float32, shape ``(n, F)``.
        rows: The row of each.
        num_computed: Of how many images they were not kept from before.

    Attributes:
        shape: ``(n, F)``.
        num_computed: As it was given.
    """

    def __init__(self, features: npt.NDArray[np.float32], rows: Sequence[int], num_computed: int) -> None:
        self.shape: tuple[int, int] = (len(features), features.shape[1])
        self.num_computed = num_computed
        self._features = torch.from_numpy(features)
        self._places = np.full(max(rows, default=-1) + 1, -1, dtype=np.int64)
        self._places[np.asarray(rows, dtype=np.intp)] = np.arange(len(rows))

    def gather(self, rows: Tensor) -> Tensor:
        """Return features, float32, shape ``(len(rows), F)``.

        Raises:
            IndexError: If there are none of one of the rows.
        """
        places = torch.from_numpy(self._places)[rows]
        if bool((places < 0).any()):
            raise IndexError(f"There are no features of the rows {rows[places < 0].tolist()[:8]}.")
        return self._features[places]


def _chosen(image_device: ImageDevice, num_bytes: int, device: torch.device) -> ImageDevice:
    if image_device == "gpu" and device.type != "cuda":
        raise ConfigError(
            "data.image_device=gpu, but the training is on no CUDA device. Set data.image_device=auto."
        )
    if image_device != "auto":
        return image_device
    if device.type == "cuda" and num_bytes <= _GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
        return "gpu"
    return "disk"


class Loader:
    """Iterates over the batches of an epoch, the next one being gathered while the last is at work.

    The order is that of ``batches``, so a function of seed and epoch. Within an epoch the position is part
    of the state that Lightning keeps in a checkpoint, so that a training resumes with the next batch.

    Args:
        store: The images, or their features.
        targets: Shape ``(N, L)``.
        batches: Which rows stand in which batch.

    Attributes:
        sampler: ``batches``, under the name by which Lightning finds it to tell it the epoch.
        batch_sampler: None, which Lightning wants to see beside it.
    """

    def __init__(self, store: ImageStore | FeatureStore, targets: Tensor, batches: Batches) -> None:
        self.store = store
        self.targets = targets
        self.sampler = batches
        self.batch_sampler = None
        self._num_yielded = 0
        self._start = 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        # Nothing happens before the first batch is asked for: Lightning makes a resumed run's first iterator
        # before it tells the sampler the epoch.
        start, self._start = self._start, 0
        self._num_yielded = start
        batches = list(self.sampler)[start:]
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as pool:
            ahead: Future[Batch] | None = None
            for number, rows in enumerate([*batches, None], start):
                ready, ahead = ahead, None if rows is None else pool.submit(self._batch, rows, number)
                if ready is not None:
                    self._num_yielded += 1
                    yield ready.result()

    def _batch(self, rows: list[int], number: int) -> Batch:
        index = torch.tensor(rows, dtype=torch.long)
        batch: Batch = {
            "targets": self.targets[index],
            "index": index,
            "seed": self.sampler.batch_seed(number),
        }
        if isinstance(self.store, FeatureStore):
            batch["features"] = self.store.gather(index)
        else:
            batch["images"] = self.store.gather(index)
            if self.store.pins:
                batch["targets"], batch["index"] = batch["targets"].pin_memory(), index.pin_memory()
        return batch

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the epoch have been handed out."""
        return {"num_yielded": self._num_yielded}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Begin the next iteration after as many batches; Lightning calls this within an epoch only."""
        self._start = state_dict["num_yielded"]
