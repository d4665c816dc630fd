"""Heatmaps of many cases, a batch of images at a time, with a bar that shows how far it is."""

from collections.abc import Callable, Iterator, Sequence

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from cxrlab.evaluation.inference import ImageRows
from cxrlab.explain.activation_maps import Pair

Explain = Callable[[Tensor, Sequence[Pair]], Tensor]
"""Gives a heatmap ``(H, W)`` of each pair of an image's number and a label's index."""


def batches(cases: Sequence[Pair], num_images: int) -> Iterator[list[Pair]]:
    """Yield cases in their order, as many at a time as are of at most so many images.

    Args:
        cases: Pairs of a row and a label.
        num_images: At least 1.

    Example:
        >>> list(batches([(7, 0), (7, 1), (8, 0), (9, 0)], 2))
        [[(7, 0), (7, 1), (8, 0)], [(9, 0)]]
    """
    batch: list[Pair] = []
    rows: set[int] = set()
    for case in cases:
        if case[0] not in rows and len(rows) == num_images:
            yield batch
            batch, rows = [], set()
        batch.append(case)
        rows.add(case[0])
    if batch:
        yield batch


def read(images: ImageRows, cases: Sequence[Pair]) -> tuple[Tensor, list[Pair]]:
    """Return the images of some cases, each once, and the cases by the number of their image.

    Args:
        images: By row.
        cases: Pairs of a row and a label.
    """
    rows = list(dict.fromkeys(row for row, _ in cases))
    place = {row: number for number, row in enumerate(rows)}
    return torch.from_numpy(images[rows]), [(place[row], label) for row, label in cases]


def heatmaps(
    explain: Explain, images: ImageRows, cases: Sequence[Pair], *, num_images: int, title: str
) -> Iterator[Tensor]:
    """Yield the heatmap of each case in its order, shapes ``(H, W)``.

    Args:
        explain: Makes them.
        images: By row.
        cases: Pairs of a row and a label.
        num_images: Read and explained at once.
        title: Of the progress bar; empty for none.
    """
    parts = list(batches(cases, num_images))
    shown = track(parts, title, console=Console(stderr=True)) if title else parts
    for part in shown:
        yield from explain(*read(images, part))


def all_heatmaps(
    explain: Explain, images: ImageRows, cases: Sequence[Pair], *, num_images: int, title: str
) -> Tensor:
    """Return the heatmaps of at least one case, shape ``(P, H, W)``; arguments as of :func:`heatmaps`."""
    return torch.stack(list(heatmaps(explain, images, cases, num_images=num_images, title=title)))
