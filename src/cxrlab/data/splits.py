"""Training, validation and test parts; a patient never crosses from one to another."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from cxrlab.data.manifest import PARTS, Manifest
from cxrlab.data.stratification import stratify_groups
from cxrlab.errors import ConfigError, DataError

METHODS = ("official", "grouped")


def assign_parts(
    manifest: Manifest, *, method: str, val_fraction: float, test_fraction: float, seed: int
) -> Manifest:
    """Return the manifest with ``part`` set to "train", "val" or "test" in every row.

    Args:
        manifest: What a reader returned.
        method: "official" takes the data set's own parts, and where these have no validation part, draws it
            by patient from the training part; "grouped" draws all parts by patient. Both draw stratified by
            label, see :func:`cxrlab.data.stratification.stratify_groups`.
        val_fraction: Share of the images drawn for validation: of the official training part, or of all.
        test_fraction: Share of all images drawn for testing; "official" does not use it.
        seed: Gives another draw; the order of the rows has no influence.

    Raises:
        ConfigError: If the method is unknown, or the fractions leave a part empty.
        DataError: If the official parts are absent, incomplete or share a patient, or there are too few
            patients for three parts.
    """
    _check_options(method, val_fraction, test_fraction, seed)
    if method == "official":
        parts = _official(manifest, val_fraction, seed)
    else:
        parts = _draw(manifest, {"val": val_fraction, "test": test_fraction}, seed)
    counts = {name: int((parts == name).sum()) for name in PARTS}
    if not all(counts.values()):
        raise DataError(
            f"{manifest.table['patient'].nunique()} patients of {manifest.root} are too few for three parts: "
            f"{counts} images. Each part needs a patient of its own: raise "
            "data.split.val_fraction and data.split.test_fraction, "
            "or add data of more patients."
        )
    split = replace(manifest, table=manifest.table.assign(part=parts))
    check_no_overlap(split)
    return split


def check_no_overlap(manifest: Manifest) -> None:
    """Refuse a manifest in which a patient is in two parts, or a row in none.

    Raises:
        DataError: If there is such a patient or row.
    """
    table = manifest.table
    unassigned = table["image"][~table["part"].isin(PARTS)]
    if len(unassigned):
        raise DataError(
            f"{len(unassigned)} of {len(table)} images of {manifest.root} are in none of the parts {PARTS}, "
            f"for instance {list(unassigned[:3])}."
        )
    patients = {name: set(table["patient"][table["part"] == name]) for name in PARTS}
    for one, other in combinations(PARTS, 2):
        shared = sorted(patients[one] & patients[other], key=lambda name: (len(name), name))
        if shared:
            who = "patient is" if len(shared) == 1 else "patients are"
            names = ", ".join(shared[:3]) + (", ..." if len(shared) > 3 else "")
            raise DataError(
                f"{len(shared)} {who} in both {one} and {other}: [{names}]. Set data.split.method=grouped."
            )


def _check_options(method: str, val_fraction: float, test_fraction: float, seed: int) -> None:
    if method not in METHODS:
        raise ConfigError(f"data.split.method={method} is unknown; it is one of {', '.join(METHODS)}.")
    if seed < 0:
        raise ConfigError(f"data.split.seed={seed} must be 0 or more.")
    for key, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 < value < 1:
            raise ConfigError(f"data.split.{key}={value} must lie between 0 and 1, both excluded.")
    if val_fraction + test_fraction >= 1:
        raise ConfigError(
            f"data.split.val_fraction={val_fraction} and data.split.test_fraction={test_fraction} leave "
            "nothing for training; their sum must be below 1."
        )


def _official(manifest: Manifest, val_fraction: float, seed: int) -> npt.NDArray[np.object_]:
    parts = manifest.table["split"].to_numpy(dtype=object, copy=True)
    _check_official(manifest, parts)
    if not (parts == "val").any():
        training = manifest.rows(manifest.table["split"] == "train")
        parts[parts == "train"] = _draw(training, {"val": val_fraction}, seed)
    return parts


def _check_official(manifest: Manifest, parts: npt.NDArray[np.object_]) -> None:
    grouped = "Set data.split.method=grouped."
    if (parts == "").all():
        raise DataError(
            f"data.split.method=official, but {manifest.root} has no official lists or part folders. "
            f"{grouped}"
        )
    unlisted = manifest.table["image"][~np.isin(parts, PARTS)]
    if len(unlisted):
        raise DataError(
            f"data.split.method=official, but {len(unlisted)} of {len(parts)} images of {manifest.root} are "
            f"in no official part, for instance {list(unlisted[:3])}. {grouped}"
        )
    for part in ("train", "test"):
        if not (parts == part).any():
            raise DataError(
                f"data.split.method=official, but no image of the official {part} part is in "
                f"{manifest.root}. Add these images, or draw the parts anew. {grouped}"
            )


def _draw(manifest: Manifest, fractions: dict[str, float], seed: int) -> npt.NDArray[np.object_]:
    """Return a part for each row: those of ``fractions``, the rest being "train"."""
    names: Sequence[str] = ["train", *fractions]
    shares = [1 - sum(fractions.values()), *fractions.values()]
    patients = manifest.table["patient"].to_numpy(dtype=object)
    drawn = stratify_groups(patients, manifest.targets, shares, seed)
    return np.array(names, dtype=object)[drawn]
