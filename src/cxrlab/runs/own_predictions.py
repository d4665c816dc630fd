"""The predictions that a run wrote of its own parts, compared with what else its folder says of them."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.manifest import LABEL, read_table
from cxrlab.data.patients import patient_keys
from cxrlab.errors import DataError
from cxrlab.files import RunDir, read_yaml
from cxrlab.metrics.predictions import PredictionTable, read_predictions
from cxrlab.training.callbacks.provenance import table_hash

log = logging.getLogger(__name__)

_NAMED = 3

_REMEDY = (
    "Delete the file, and cxrlab evaluate predicts the part again; predictions of your own go into "
    "predictions= with targets=."
)


def read_own_predictions(files: RunDir, part: str) -> PredictionTable:
    """Read a run's predictions of one of its parts.

    Images, parts, patients and targets are compared with its ``manifest.csv``, and the whole table with what
    its training noted of it: a table that was cut short, edited, or is another run's would be evaluated
    without a word. A folder without manifest, or with one of an older version, has nothing to compare with.

    Raises:
        MissingFileError: If there is no such table.
        DataError: If it cannot be used, or differs; the message names images.
    """
    path = files.predictions(part)
    table = read_predictions(path)
    if files.manifest.is_file():
        _check_rows(table, read_table(files.manifest), files, part)
    sessions = files.sessions()
    noted = sessions[-1].get("predictions") if sessions else None
    hash_of_part = noted.get(part) if isinstance(noted, Mapping) else None
    if hash_of_part is not None and hash_of_part != table_hash(path):
        raise DataError(
            f"{path} is not the table that the training wrote: its hash is {table_hash(path)}, and "
            f"provenance.json noted {hash_of_part}. It was edited, or is another run's. {_REMEDY}"
        )
    return table


def _check_rows(table: PredictionTable, manifest: pd.DataFrame, files: RunDir, part: str) -> None:
    path = files.predictions(part)
    labels = [str(name).removeprefix(LABEL) for name in manifest if str(name).startswith(LABEL)]
    if list(table.labels) != labels:
        raise DataError(
            f"{path} has the labels {list(table.labels)[:8]}, the run's manifest.csv {labels[:8]}: one of "
            f"them is another run's. {_REMEDY}"
        )
    row_of_image = pd.Series(np.arange(len(manifest)), index=manifest["image"])
    rows = row_of_image.reindex(table.images)
    _check(table.images, rows.isna().to_numpy(), path, "are not in the run's manifest.csv")
    listed = manifest.iloc[rows.astype(int).to_numpy()]
    settings = _settings(files)
    # debug=overfit validates on images of the training part.
    wanted = "train" if part == "val" and settings.get("overfit_images") is not None else part
    is_elsewhere = (listed["part"] != wanted).to_numpy()
    others = ", ".join(sorted(set(listed["part"][is_elsewhere]) - {""}))
    _check(table.images, is_elsewhere, path, f"are of the part {others or 'none'}, not {wanted}")
    if table.patient_names is not None:
        named = table.patient_names[table.patients]
        wanted_names = listed["patient"].to_numpy(dtype=object)
        is_other = named != wanted_names
        # One patient however written: older runs kept spellings apart, and names of images may be alike.
        is_other[is_other] = np.array(patient_keys(named[is_other])) != patient_keys(wanted_names[is_other])
        _check(table.images, is_other, path, "have another patient than in the run's manifest.csv")
    targets = listed[[LABEL + label for label in labels]].to_numpy(dtype=np.float64)
    differs = ~((targets == table.targets) | (np.isnan(targets) & np.isnan(table.targets)))
    _check(table.images, differs.any(axis=1), path, "have other targets than in the run's manifest.csv")
    missing = manifest["image"][(manifest["part"] == wanted) & ~manifest["image"].isin(table.images)]
    if len(missing) and not settings["is_limited"]:
        raise DataError(
            f"{path} lacks {len(missing)} of the {len(missing) + len(table)} images of the part {wanted}, "
            f"such as {missing.tolist()[:_NAMED]}: it was cut short. {_REMEDY}"
        )


def _check(images: npt.NDArray[np.object_], is_wrong: npt.NDArray[np.bool_], path: Path, fault: str) -> None:
    if is_wrong.any():
        rows = np.flatnonzero(is_wrong)
        lines = [int(row) + 2 for row in rows[:_NAMED]]  # as an editor counts, the header first
        named = images[rows].tolist()[:_NAMED]
        raise DataError(f"{len(rows)} images of {path} {fault}: {named} (lines {lines}). {_REMEDY}")


def _settings(files: RunDir) -> dict[str, Any]:
    """Return whether a training was told to evaluate fewer images than there are."""
    config = read_yaml(files.resolved_config) if files.resolved_config.is_file() else {}
    trainer, data = (config.get(name) or {} for name in ("trainer", "data"))
    limits = [trainer.get(f"limit_{part}_batches", 1.0) for part in ("val", "test")]
    is_limited = any(limit not in (None, 1.0) or isinstance(limit, int) for limit in limits)
    is_limited |= bool(trainer.get("fast_dev_run") or trainer.get("overfit_batches"))
    overfit_images = data.get("overfit_images")
    return {"is_limited": is_limited or overfit_images is not None, "overfit_images": overfit_images}
