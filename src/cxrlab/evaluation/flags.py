"""What a reader must know before believing a number."""

from typing import Any

import numpy as np

from cxrlab.evaluation.decisions import Thresholds
from cxrlab.evaluation.prediction_table import Floats, PredictionTable
from cxrlab.evaluation.settings import EvaluationSettings

Flag = dict[str, Any]

_PARTS = {
    "train": "The network was judged on the images that it was trained on: the numbers are far too good.",
    "val": "The network was judged on the images that its best epoch and thresholds were chosen on: the "
    "numbers are optimistic.",
}


def flag(kind: str, message: str, label: str | None = None) -> Flag:
    """Return one entry of ``numbers["flags"]``."""
    return {"kind": kind, "label": label, "message": message}


def reservations(
    table: PredictionTable, thresholds: Thresholds | None, settings: EvaluationSettings
) -> list[Flag]:
    """Return what weakens an evaluation: of the whole table first, then of its labels."""
    flags = [flag(f"{table.part}_part", _PARTS[table.part])] if table.part in _PARTS else []
    if not table.patients_known:
        flags.append(
            flag(
                "patients_unknown",
                "Patients are unknown, so each image was taken for a patient of its own. Where patients have "
                "several images, every interval here is too narrow.",
            )
        )
    if thresholds is None:
        flags.append(
            flag(
                "no_threshold",
                "There is no validation part to choose a threshold on (validation=), and none was given "
                "(threshold=): sensitivity and all else that needs one is left out. Chosen on the very "
                "images judged, it would flatter.",
            )
        )
    for column, label in enumerate(table.labels):
        flags += _of_label(label, table.targets[:, column], settings.min_positives)
        if thresholds is not None and np.isnan(thresholds.values[column]):
            message = (
                f"No threshold could be chosen for {label}: the {thresholds.source} part has one class only."
            )
            flags.append(flag("no_threshold", message, label))
    return flags


def _of_label(label: str, targets: Floats, least: int) -> list[Flag]:
    positives, negatives = int((targets == 1).sum()), int((targets == 0).sum())
    if not positives or not negatives:
        message = (
            f"{label} has {positives} positives and {negatives} negatives: no ranking can be judged, and the "
            "macro means leave it out."
        )
        return [flag("one_class", message, label)]
    if min(positives, negatives) < least:
        rarer = f"{positives} positives" if positives < negatives else f"{negatives} negatives"
        message = f"{label} has only {rarer}: its numbers say little, whatever their intervals."
        return [flag("few_positives", message, label)]
    return []
