"""Boxes around findings: which can be used, and where they lie in an image as the network sees it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.dataset import FramedImages
from cxrlab.data.manifest import BOX_COLUMNS, Manifest, usable_boxes
from cxrlab.errors import DataError, MissingFileError

Floats = npt.NDArray[np.float64]

_SIDES = list(BOX_COLUMNS[2:])
_NAMED = 3


def read_boxes(path: Path, manifest: Manifest, synonyms: Mapping[str, str] | None = None) -> Manifest:
    """Return a manifest whose boxes are those of a table.

    Args:
        path: A CSV file with the columns ``image, label, x, y, width, height``, as of
            :class:`cxrlab.data.manifest.Manifest`. An image is named by its path under the root, or by its
            bare file name where that is unique.
        manifest: The images and labels.
        synonyms: What labels of the table are called in the manifest, where that is not the same.

    Returns:
        The manifest; ``unusable_boxes`` tells of every box that was left out.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If a column is missing, a side is no number, or no box is left that can be used.
    """
    if not path.is_file():
        raise MissingFileError(f"There is no table of boxes {path}.")
    try:
        table = pd.read_csv(path, dtype={"image": str, "label": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"The boxes {path} cannot be read as CSV: {error}") from error
    missing = [name for name in BOX_COLUMNS if name not in table]
    if missing:
        raise DataError(f"The boxes {path} lack the columns {missing}; they have {list(table)}.")
    named = table[["image", "label"]]
    table["label"] = table["label"].replace(dict(synonyms or {}))
    sides = table[_SIDES].apply(pd.to_numeric, errors="coerce")
    table = table.assign(image=_paths(table["image"], manifest), **{side: sides[side] for side in _SIDES})
    is_known = table["image"].notna() & table["label"].isin(manifest.labels)
    matched = table[is_known].reset_index(drop=True)
    if not len(matched):
        labels = sorted(set(table["label"]))[:_NAMED]
        raise DataError(
            f"None of the {len(table)} boxes of {path} is of an image and a label at hand: its labels are "
            f"{labels}, those of the data {manifest.labels}."
        )
    usable, unusable = usable_boxes(matched[list(BOX_COLUMNS)])
    if not len(usable):
        raise DataError(
            f"No box of {path} can be used, for instance {unusable[0]}. Sides are fractions of the image, "
            "0 to 1: divide pixels by its width and height."
        )
    strangers = named[~is_known]
    unknown = tuple(
        f"{label} in {image} is of an image or label that is not at hand"
        for image, label in zip(strangers["image"], strangers["label"], strict=True)
    )
    return replace(manifest, boxes=usable, unusable_boxes=(*unusable, *unknown))


def _paths(names: "pd.Series[str]", manifest: Manifest) -> "pd.Series[str]":
    images = manifest.table["image"]
    bare = images.str.rpartition("/")[2]
    unique = ~bare.duplicated(keep=False)
    paths = dict(zip(bare[unique], images[unique], strict=True)) | dict(zip(images, images, strict=True))
    return names.map(paths)


def framed(manifest: Manifest, images: FramedImages) -> Manifest:
    """Return a manifest whose boxes are fractions of the images as they were decoded, not of the files.

    Boxes that lie outside what was kept of an image are listed in ``unusable_boxes``.

    Args:
        manifest: Its boxes are fractions of the files' images.
        images: The images of the manifest, which know how they were decoded and how large the files' are.
    """
    resize = images.resize
    if resize == "stretch" or not len(manifest.boxes):
        return manifest
    facts = images.facts.set_index(manifest.table["image"])[["width", "height"]]
    boxes = manifest.boxes[manifest.boxes["image"].isin(facts.index)]
    sizes = facts.loc[boxes["image"]].to_numpy(dtype=np.float64)
    moved = boxes.assign(
        **dict(zip(_SIDES, _moved(boxes[_SIDES].to_numpy(float), sizes, resize).T, strict=True))
    )
    is_inside = (moved["width"] > 0) & (moved["height"] > 0)
    lost = boxes[~is_inside]
    outside = tuple(
        f"{label} in {image} lies outside the square that data.resize={resize} keeps"
        for image, label in zip(lost["image"], lost["label"], strict=True)
    )
    return replace(
        manifest,
        boxes=moved[is_inside].reset_index(drop=True),
        unusable_boxes=(*manifest.unusable_boxes, *outside),
    )


def _moved(boxes: Floats, sizes: Floats, resize: str) -> Floats:
    """Return boxes ``(K, 4)`` in the square that ``pad`` or ``crop`` makes of images of ``sizes`` ``(K, 2)``.

    What a crop cuts off is cut off the box; a box outside it gets a width or height of 0.

    Example:
        >>> _moved(np.array([[0.0, 0.0, 0.5, 1.0]]), np.array([[200.0, 100.0]]), "pad").tolist()
        [[0.0, 0.25, 0.5, 0.5]]
        >>> _moved(np.array([[0.0, 0.0, 0.5, 1.0]]), np.array([[200.0, 100.0]]), "crop").tolist()
        [[0.0, 0.0, 0.5, 1.0]]
    """
    side = (sizes.max if resize == "pad" else sizes.min)(axis=1, keepdims=True)
    start = (boxes[:, :2] * sizes + (side - sizes) / 2) / side
    end = start + boxes[:, 2:] * sizes / side
    start, end = start.clip(0, 1), end.clip(0, 1)
    return np.concatenate([start, end - start], axis=1)
