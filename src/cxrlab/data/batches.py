"""Which images stand in which batch: a function of seed, epoch and rank, so that a resume repeats it."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler


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
