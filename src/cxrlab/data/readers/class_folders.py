"""A tree that keeps each class in a folder, ``<class>/<image>`` or ``<part>/<class>/<image>``, as a table."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cxrlab.data.images import SUFFIXES
from cxrlab.data.readers.roots import check_root, listing
from cxrlab.errors import DataError, MissingFileError

_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

_log = logging.getLogger(__name__)


def scan(root: Path, classes: Sequence[str] | None) -> pd.DataFrame:
    """Return one row for each image below ``root``, sorted by part, class and name.

    Hidden files and folders, ``__MACOSX`` and files of other types are passed over.

    Args:
        root: Folder with parts (``train``, ``val``, ``valid`` or ``validation``, ``test``) that hold class
            folders, or with the class folders themselves.
        classes: Names of the class folders, each of which must be there; None takes all folders for classes.

    Returns:
        Columns ``image`` (path under the root), ``part`` ("train", "val", "test" or ""), ``class``, ``file``.

    Raises:
        MissingFileError: If there is no root, or folders are missing.
        DataError: If a class folder holds no image.
    """
    check_root(root)
    parts = [name for name in _folders(root) if name.lower() in _PARTS]
    if not parts and not _holds_classes(root, classes):
        raise MissingFileError(_wrong_layout(root, classes))
    _warn_of_others(root, parts, classes)
    rows = [
        (f"{folder}/{name}", _PARTS.get(part.lower(), ""), folder.rpartition("/")[2], name)
        for part in parts or [""]
        for folder in _class_folders(root, part, classes)
        for name in _images(root / folder)
    ]
    return pd.DataFrame(rows, columns=["image", "part", "class", "file"])


def _folders(folder: Path) -> list[str]:
    hidden = (".", "__MACOSX")
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(hidden)
    )


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    return [name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]


def _holds_classes(folder: Path, classes: Sequence[str] | None) -> bool:
    names = _folders(folder)
    if classes is None:
        return any(_names(folder / name) for name in names)
    return set(classes) <= set(names)


def _fits(folder: Path, classes: Sequence[str] | None) -> bool:
    return any(name.lower() in _PARTS for name in _folders(folder)) or _holds_classes(folder, classes)


def _wrong_layout(root: Path, classes: Sequence[str] | None) -> str:
    wanted = "class folders" if classes is None else f"class folders {' and '.join(classes)}"
    message = (
        f"data.root={root} holds neither {wanted} nor parts (train, val, test) with them; "
        f"it holds {listing(root)}."
    )
    nested = [root / name for name in _folders(root) if _fits(root / name, classes)]
    return f"{message} Set data.root={nested[0]}." if len(nested) == 1 else message


def _warn_of_others(root: Path, parts: list[str], classes: Sequence[str] | None) -> None:
    others = [name for name in _folders(root) if name not in parts]
    if parts and others and classes is None:
        _log.warning(f"reading only the folders {parts} of {root}; {others} are no parts and are left out")


def _class_folders(root: Path, part: str, classes: Sequence[str] | None) -> list[str]:
    folder = root / part
    names = _folders(folder)
    missing = [name for name in classes or () if name not in names]
    if missing or not names:
        raise MissingFileError(
            f"{folder} lacks {f'the class folders {missing}' if missing else 'class folders'}; "
            f"it holds {listing(folder)}."
        )
    return [f"{part}/{name}" if part else name for name in classes or names]


def _images(folder: Path) -> list[str]:
    names = _names(folder)
    if not names:
        raise DataError(
            f"The class folder {folder} holds no image ({', '.join(SUFFIXES)}); it holds {listing(folder)}. "
            "Fill it, or remove it."
        )
    return names
