"""Which predictions are worth a heatmap, and heatmaps of many of them, a batch of images at a time.

One case is an image and one of its labels.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from cxrlab.data.manifest import Manifest
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.runs.predict import ImageRows

Explain = Callable[[Tensor, Sequence[Pair]], Tensor]
"""Gives a heatmap ``(H, W)`` of each pair of an image's number and a label's index."""

_DEFAULT_THRESHOLD = 0.5


class Case(NamedTuple):
    """One line of ``case_table``."""

    row: int
    label: int
    finding: str
    probability: float
    target: float
    outcome: str


def case_table(
    rows: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.floating],
    targets: npt.NDArray[np.floating],
    labels: Sequence[str],
    thresholds: npt.NDArray[np.floating] | None = None,
) -> pd.DataFrame:
    """Return one line for each image and label.

    Args:
        rows: Rows of the manifest, shape ``(N,)``; where one stands twice, the first counts.
        probabilities: Predictions, shape ``(N, L)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
        labels: Names of the L labels.
        thresholds: A label is predicted positive where its probability is at least this, shape ``(L,)``; 0.5
            where it is NaN, and for all labels where there are none.

    Returns:
        The columns of ``Case``: ``row``, ``label`` (its index), ``finding`` (its name), ``probability``,
        ``target`` and ``outcome``: ``TP``, ``FP``, ``FN`` or ``TN`` at the threshold, or ``unknown``. And
        ``confidence``: how far the probability lies from the threshold, as a share of the way to 1 where the
        label is predicted positive and to 0 where not, so that both kinds of error have the same scale.
    """
    rows, first = np.unique(rows, return_index=True)
    probability, target = probabilities[first], targets[first].ravel()
    limits = _known_thresholds(thresholds, len(labels))
    called = (probability >= limits).ravel()
    outcomes = [np.isnan(target) | np.isnan(probability.ravel()), called & (target == 1), called, target == 1]
    return pd.DataFrame(
        {
            "row": np.repeat(rows, len(labels)),
            "label": np.tile(np.arange(len(labels)), len(rows)),
            "finding": np.tile(np.array(labels, dtype=object), len(rows)),
            "probability": probability.ravel(),
            "target": target,
            "outcome": np.select(outcomes, ["unknown", "TP", "FP", "FN"], default="TN"),
            "confidence": _confidence(probability, limits.clip(0, 1)).ravel(),
        }
    )


def _known_thresholds(
    thresholds: npt.NDArray[np.floating] | None, num_labels: int
) -> npt.NDArray[np.float64]:
    if thresholds is None:
        return np.full(num_labels, _DEFAULT_THRESHOLD)
    chosen = np.asarray(thresholds, dtype=np.float64)
    return np.where(np.isnan(chosen), _DEFAULT_THRESHOLD, chosen)


def _confidence(
    probabilities: npt.NDArray[np.floating], thresholds: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    distance = np.abs(probabilities - thresholds)
    way = np.where(probabilities >= thresholds, 1 - thresholds, thresholds)
    return np.divide(distance, way, out=np.zeros_like(distance), where=way > 0)


def choose_cases(
    cases: pd.DataFrame, manifest: Manifest, *, images_per_label: int, errors_per_label: int
) -> list[tuple[int, int]]:
    """Choose the best hits of each label, and beside them its worst errors.

    Of a label's positives the hits come first, and among them those with a known box, for there the heatmap
    can be checked, then those of the highest probability. Of its errors the most confident come first, false
    positives and false negatives in turn: findings are rare, and by confidence alone nearly all errors would
    be of one kind.

    Args:
        cases: As of ``case_table``.
        manifest: Knows the boxes; ``row`` counts its rows.
        images_per_label: Positives of each label, at most.
        errors_per_label: Errors of each label beside them, at most.

    Returns:
        Pairs of row and label index by label, its errors last, without repetition.
    """
    positives = _by_merit(cases[cases["target"] == 1], manifest).groupby("label").head(images_per_label)
    others = cases.drop(index=positives.index)
    errors = others[others["outcome"].isin(["FP", "FN"])]
    errors = errors.sort_values(["confidence", "row"], ascending=[False, True])
    errors = errors.assign(turn=errors.groupby(["label", "outcome"]).cumcount())
    errors = errors.sort_values("turn", kind="stable").groupby("label").head(errors_per_label)
    chosen = pd.concat([frame[["row", "label"]] for frame in (positives, errors)])
    chosen = chosen.sort_values("label", kind="stable")
    return [(int(row), int(label)) for row, label in zip(chosen["row"], chosen["label"], strict=True)]


def choose_images(cases: pd.DataFrame, manifest: Manifest, limit: int | None) -> list[int]:
    """Choose the images that tell most: each label's hits and its errors in turn, then the others.

    Args:
        cases: As of ``case_table``, of the labels that count.
        manifest: Knows the boxes; ``row`` counts its rows.
        limit: Images, at most; None for all.

    Returns:
        Rows of the manifest, each once.
    """
    rows = cases["row"].drop_duplicates().tolist()
    most = len(rows) if limit is None else limit
    queues: list[list[int]] = []
    for _, of_label in cases.groupby("label", sort=False):
        chosen = choose_cases(of_label, manifest, images_per_label=most, errors_per_label=most)
        num_positive = min(int((of_label["target"] == 1).sum()), most)
        queues += [[row for row, _ in part] for part in (chosen[:num_positive], chosen[num_positive:])]
    turns = chain.from_iterable(zip_longest(*queues))
    ranked = dict.fromkeys(row for row in chain(turns, rows) if row is not None)
    return list(ranked)[:most]


def _by_merit(positives: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    with_box = set(zip(manifest.boxes["image"], manifest.boxes["label"], strict=True))
    images = manifest.table["image"].to_numpy()[positives["row"]]
    has_box = [pair in with_box for pair in zip(images, positives["finding"], strict=True)]
    ranked = positives.assign(has_box=has_box, is_hit=positives["outcome"] == "TP")
    return ranked.sort_values(
        ["label", "is_hit", "has_box", "probability", "row"], ascending=[True, False, False, False, True]
    )


def pick_cases(cases: pd.DataFrame, chosen: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """Return the lines of chosen pairs of row and label, in their order; a pair without a line drops out."""
    pairs = pd.DataFrame(list(chosen), columns=["row", "label"], dtype=np.int64)
    return pairs.merge(cases, on=["row", "label"])


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
