"""Out-of-fold predictions: the test parts of a cross-validation's folds as one table."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.errors import DataError

if TYPE_CHECKING:
    from cxrlab.models.task import Task


def pooled_predictions(tables: Mapping[int, Path]) -> pd.DataFrame:
    """Return the predictions of all folds as one table, each image once.

    Args:
        tables: The predictions table of each fold.

    Returns:
        The columns of the tables as text, so that no digit changes, with ``fold`` after ``part``.

    Raises:
        DataError: If an image is in two folds, or the tables differ in their columns.
    """
    parts: list[pd.DataFrame] = []
    for fold, path in tables.items():
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        columns = list(table)
        table.insert(columns.index("part") + 1, "fold", fold)
        if parts and list(table) != list(parts[0]):
            raise DataError(f"{path} has other columns than the first fold's table: {columns}.")
        parts.append(table)
    whole: pd.DataFrame = pd.concat(parts, ignore_index=True)
    twice = whole["image"][whole["image"].duplicated()].unique()
    if len(twice):
        raise DataError(f"{len(twice)} images were tested on in two folds, for instance {list(twice[:3])}.")
    return whole


def pooled_metrics(table: pd.DataFrame, task: "Task" = "multilabel") -> dict[str, float]:
    """Return ``{"auroc": ..., "auroc/Edema": ..., ...}`` of a predictions table, see ``label_metrics``."""
    import torch

    from cxrlab.metrics import label_metrics

    names = [str(name) for name in table]
    labels = [name.removeprefix("target/") for name in names if name.startswith("target/")]
    probabilities, targets = (
        torch.tensor(_numbers(table[[prefix + label for label in labels]]))
        for prefix in ("probability/", "target/")
    )
    metrics = label_metrics(probabilities, targets, labels, task)
    return {name: float(value) for name, value in metrics.items()}


def _numbers(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    return table.replace("", "nan").to_numpy(dtype=np.float64)
