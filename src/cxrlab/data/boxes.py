"""Boxes around findings: which can be used, and where they lie in an image as the network sees it."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.dataset import FramedImages
from cxrlab.data.manifest import BOX_COLUMNS, Manifest, usable_boxes
from cxrlab.data.readers._box_rows import size_of
from cxrlab.data.readers._content import plain_or_gz
from cxrlab.data.readers._csv import read_cells
from cxrlab.errors import DataError, MissingFileError

Floats = npt.NDArray[np.float64]

_SIDES = list(BOX_COLUMNS[2:])
# How tables call what a box needs, without blanks and signs; NIH's header is "Bbox [x,y,w,h]".
_SPELLINGS = {
    "image": ("imageid", "imageindex", "patientid", "filename", "path", "imagename"),
    "label": ("classname", "findinglabel", "finding", "class"),
    "x": ("xmin", "x1", "bboxx", "left"),
    "y": ("ymin", "y1", "top"),
    "width": ("w",),
    "height": ("h",),
    "x_max": ("xmax", "x2", "right"),
    "y_max": ("ymax", "y2", "bottom"),
}
_MOST_FRACTION = 2.0
_SUFFIX = re.compile(r"\.\w+$")
_NAMED = 3

_log = logging.getLogger(__name__)


def read_boxes(path: Path, manifest: Manifest, synonyms: Mapping[str, str] | None = None) -> Manifest:
    """Return a manifest whose boxes are those of a table.

    Args:
        path: A table, plain or ``.gz``, with the columns ``image, label, x, y, width, height``, as of
            :class:`cxrlab.data.manifest.Manifest`, or as the tables of RSNA, VinDr-CXR and ChestX-ray14 call
            them; ``x_min, y_min, x_max, y_max`` do as well. Where most numbers are above 2 they are pixels of
            the images' files, else fractions. An image is named by its path under the root, or by its bare
            file name, with or without suffix, where that is unique. Without a column of labels, boxes are of
            the manifest's only label. Rows without any number have no box.
        manifest: The images and labels.
        synonyms: What labels of the table are called in the manifest, where that is not the same.

    Returns:
        The manifest; ``unusable_boxes`` tells of every box that was left out.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If a column is missing, a side is no number, or no box is left that can be used.
    """
    found = plain_or_gz(path)
    if found is None:
        raise MissingFileError(f"There is no table of boxes {path}.")
    table = _named(read_cells(found), found, manifest)
    named = table[["image", "label"]]
    table["label"] = table["label"].replace(dict(synonyms or {}))
    table["image"] = _paths(table["image"], manifest)
    is_known = table["image"].notna() & table["label"].isin(manifest.labels)
    matched = table[is_known].reset_index(drop=True)
    if not len(matched):
        labels = sorted(set(table["label"]))[:_NAMED]
        raise DataError(
            f"None of the {len(table)} boxes of {path} is of an image and a label at hand: its labels are "
            f"{labels}, those of the data {manifest.labels}."
        )
    are_pixels = bool(np.mean(matched[_SIDES].max(axis=1) > _MOST_FRACTION) > 0.5)
    if are_pixels:
        _log.info(f"the boxes of {path} are taken as pixels of the images' files")
        matched = _as_fractions(matched, manifest.root)
    usable, unusable = usable_boxes(matched[list(BOX_COLUMNS)])
    if not len(usable):
        raise DataError(
            f"No box of {path} can be used, for instance {unusable[0]}. "
            + (
                "Its numbers are taken as pixels of the images' files, which may be of another size, or not "
                "there: divide them by the width and height that they belong to."
                if are_pixels
                else "Sides are fractions of the image, 0 to 1, or pixels."
            )
        )
    strangers = named[~is_known]
    unknown = tuple(
        f"{label} in {image} is of an image or label that is not at hand"
        for image, label in zip(strangers["image"], strangers["label"], strict=True)
    )
    return replace(manifest, boxes=usable, unusable_boxes=(*unusable, *unknown))


def _named(cells: pd.DataFrame, path: Path, manifest: Manifest) -> pd.DataFrame:
    """Return the columns of a manifest's boxes, the sides as numbers, without rows that have no box."""
    known = {_plain(str(name)): str(name) for name in reversed(list(cells))}
    columns = {
        name: next((known[word] for word in (name, *words) if word in known), None)
        for name, words in _SPELLINGS.items()
    }
    has_corners = columns["x_max"] is not None and columns["y_max"] is not None
    sides = ["x", "y", "x_max", "y_max"] if has_corners else _SIDES
    needed = ["image", *([] if len(manifest.labels) == 1 else ["label"]), *sides]
    missing = [name for name in needed if columns[name] is None]
    if missing:
        raise DataError(f"The boxes {path} lack the columns {missing}; they have {list(cells)}.")
    table = pd.DataFrame({name: cells[columns[name]] for name in needed})
    if "label" not in table:
        label = columns["label"]
        table.insert(1, "label", manifest.labels[0] if label is None else cells[label])
    boxed = np.flatnonzero((table[sides] != "").to_numpy().any(axis=1))
    table = table.take(boxed).reset_index(drop=True)
    numbers = table[sides].apply(pd.to_numeric, errors="coerce").astype(np.float64)
    if has_corners:
        ends = numbers[["x_max", "y_max"]].to_numpy() - numbers[["x", "y"]].to_numpy()
        numbers = numbers[["x", "y"]].assign(width=ends[:, 0], height=ends[:, 1])
    return table[["image", "label"]].join(numbers)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _as_fractions(boxes: pd.DataFrame, root: Path) -> pd.DataFrame:
    sizes = {image: size_of(root / image) for image in boxes["image"].unique()}
    size = np.array([sizes[image] for image in boxes["image"]], dtype=np.float64)
    sides = boxes[_SIDES].to_numpy(dtype=np.float64) / np.tile(size, 2)
    return boxes.assign(**{name: sides[:, place] for place, name in enumerate(_SIDES)})


def _paths(names: "pd.Series[str]", manifest: Manifest) -> "pd.Series[str]":
    images = manifest.table["image"]
    bare = images.str.rpartition("/")[2]
    unique = ~bare.duplicated(keep=False)
    paths = dict(zip(bare[unique], images[unique], strict=True)) | dict(zip(images, images, strict=True))
    stems = bare.str.replace(_SUFFIX, "", regex=True)
    lone = ~stems.duplicated(keep=False)
    return names.map(dict(zip(stems[lone], images[lone], strict=True)) | paths)


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
