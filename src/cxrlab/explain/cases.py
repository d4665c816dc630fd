"""Which predictions are worth a heatmap: one case is an image and one of its labels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.manifest import Manifest

_THRESHOLD = 0.5


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
    probabilities: npt.NDArray[np.float32],
    targets: npt.NDArray[np.float32],
    labels: Sequence[str],
) -> pd.DataFrame:
    """Return one line for each image and label.

    Args:
        rows: Rows of the manifest, shape ``(N,)``; where one stands twice, the first counts.
        probabilities: Predictions, shape ``(N, L)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
        labels: Names of the L labels.

    Returns:
        The columns of ``Case``: ``row``, ``label`` (its index), ``finding`` (its name), ``probability``,
        ``target`` and ``outcome``: ``TP``, ``FP``, ``FN`` or ``TN`` at the probability 0.5, or ``unknown``.
    """
    rows, first = np.unique(rows, return_index=True)
    probability, target = probabilities[first].ravel(), targets[first].ravel()
    called = probability >= _THRESHOLD
    outcomes = [np.isnan(target), called & (target == 1), called, target == 1]
    return pd.DataFrame(
        {
            "row": np.repeat(rows, len(labels)),
            "label": np.tile(np.arange(len(labels)), len(rows)),
            "finding": np.tile(np.array(labels, dtype=object), len(rows)),
            "probability": probability,
            "target": target,
            "outcome": np.select(outcomes, ["unknown", "TP", "FP", "FN"], default="TN"),
        }
    )


def choose_cases(
    cases: pd.DataFrame, manifest: Manifest, *, images_per_label: int, num_errors: int
) -> list[tuple[int, int]]:
    """Choose positives of each label, and confident errors.

    Of each label's positives the hits come first, and among them those with a known box, for there the
    heatmap can be checked, then those of the highest probability. Errors are taken over all labels, the most
    confident first, false positives and false negatives in turn: findings are rare, and by confidence alone
    nearly all errors would be misses.

    Args:
        cases: As of ``case_table``.
        manifest: Knows the boxes; ``row`` counts its rows.
        images_per_label: Positives of each label, at most.
        num_errors: Errors beside them, at most.

    Returns:
        Pairs of row and label index, without repetition.
    """
    positives = cases[cases["target"] == 1].copy()
    with_box = set(zip(manifest.boxes["image"], manifest.boxes["label"], strict=True))
    images = manifest.table["image"].to_numpy()[positives["row"]]
    positives["has_box"] = [pair in with_box for pair in zip(images, positives["finding"], strict=True)]
    positives["is_hit"] = positives["outcome"] == "TP"
    positives = positives.sort_values(
        ["label", "is_hit", "has_box", "probability", "row"], ascending=[True, False, False, False, True]
    )
    positives = positives.groupby("label").head(images_per_label)
    others = cases.drop(index=positives.index)
    errors = others[others["outcome"].isin(["FP", "FN"])]
    errors = errors.assign(confidence=(errors["probability"] - _THRESHOLD).abs())
    errors = errors.sort_values(["confidence", "row", "label"], ascending=[False, True, True])
    errors = errors.assign(turn=errors.groupby("outcome").cumcount())
    errors = errors.sort_values("turn", kind="stable").head(num_errors)
    chosen = pd.concat([positives, errors])
    return [(int(row), int(label)) for row, label in zip(chosen["row"], chosen["label"], strict=True)]
