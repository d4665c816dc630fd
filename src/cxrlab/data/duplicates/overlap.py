"""Images of one data set in another: a test on data that a network was trained on is none."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cxrlab.data.duplicates.search import find_across
from cxrlab.data.manifest import Manifest, read_table
from cxrlab.data.patients import shared_patients
from cxrlab.errors import DataError, MissingFileError
from cxrlab.files import RunDir

if TYPE_CHECKING:
    from cxrlab.data.dataset import Dataset


def read_other(path: Path, root: Path | None) -> Manifest:
    """Read a manifest that a run or ``cxrlab.prepare`` wrote.

    Args:
        path: A ``manifest.csv``, or the run directory with it.
        root: Folder that its images are relative to; None where the ``audit.json`` beside it says so.

    Raises:
        MissingFileError: If there is no such file, its root is not known, or its first image is not there.
        DataError: If it is no manifest.
    """
    if path.is_dir():
        path = RunDir(path).manifest
    if not path.is_file():
        raise MissingFileError(
            f"against={path}: there is no such file; give the directory of a run or of cxrlab.prepare, or "
            "its manifest.csv."
        )
    try:
        table = read_table(path)
    except ValueError as error:
        raise DataError(f"against={path} cannot be read: {error}") from error
    root = root or read_root(path)
    try:
        other = Manifest(root, table, name=root.name)
    except DataError as error:
        raise DataError(f"against={path} is no manifest: {error}") from error
    if not len(other):
        raise DataError(f"against={path} lists no image.")
    outside = [name for name in table["image"] if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise DataError(f"against={path} names files outside its folder, such as {outside[0]}.")
    first = root / table["image"].iloc[0]
    if not first.exists():
        raise MissingFileError(f"against={path}: there is no image {first}. Set against_root=<folder>.")
    return other


def read_root(manifest: Path) -> Path:
    """Return the folder of the images of a run, as the audit beside its manifest.csv says.

    Raises:
        MissingFileError: If it does not.
    """
    try:
        return Path(json.loads(RunDir(manifest.parent).audit.read_text(encoding="utf-8"))["root"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MissingFileError(
            f"against={manifest}: no audit.json beside it says where its images are. "
            "Set against_root=<folder>."
        ) from error


def find_shared_patients(manifest: Manifest, other: Manifest) -> list[str]:
    """Return the patients who have the same id in another data set, however it is written.

    Where patients are not known, so that each image counts for one, nobody is returned. Whether people with
    the same id are the same depends on who gave the ids.
    """
    ids, others = (
        table.loc[table["patient"] != table["image"], "patient"] for table in (manifest.table, other.table)
    )
    return shared_patients(ids, others)


def find_shared(dataset: "Dataset", other: "Dataset") -> pd.DataFrame:
    """Return the images of another data set that are in this one, byte-identical ones first.

    Args:
        dataset: This data set.
        other: The other one, decoded alike: see :meth:`cxrlab.data.datamodule.DataModule.decode`.

    Returns:
        Columns ``image, part, other_image, other_part, distance, difference, mirrored, inverted, identical``.
    """
    digests, other_digests = dataset.images.facts["digest"], other.images.facts["digest"]
    pairs = find_across(dataset.images.hashes, dataset.images, other.images.hashes, other.images)
    pairs = _with_identical(pairs, digests, other_digests)
    rows, other_rows = pairs["one"].to_numpy(dtype=int), pairs["other"].to_numpy(dtype=int)
    named = pd.DataFrame(
        {
            "image": dataset.manifest.table["image"].to_numpy()[rows],
            "part": dataset.manifest.table["part"].to_numpy()[rows],
            "other_image": other.manifest.table["image"].to_numpy()[other_rows],
            "other_part": other.manifest.table["part"].to_numpy()[other_rows],
        }
    )
    shared = pd.concat([named, pairs.drop(columns=["one", "other"])], axis=1)
    shared["identical"] = digests.to_numpy()[rows] == other_digests.to_numpy()[other_rows]
    return shared.sort_values(["identical", "difference"], ascending=[False, True], ignore_index=True)


def _with_identical(pairs: pd.DataFrame, digests: "pd.Series[str]", others: "pd.Series[str]") -> pd.DataFrame:
    """Add the files of the same bytes that no picture told, being black for instance."""
    ones = pd.DataFrame({"one": range(len(digests)), "digest": digests.to_numpy()})
    same = ones.merge(pd.DataFrame({"other": range(len(others)), "digest": others.to_numpy()}), on="digest")
    same = same[["one", "other"]].assign(distance=0, difference=0.0, mirrored=False, inverted=False)
    return same if not len(pairs) else pd.concat([pairs, same]).drop_duplicates(["one", "other"])
