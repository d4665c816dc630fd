"""Paths in a raw data set: its root, the images that a table lists, and which of them are there."""

import itertools
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.manifest import escaped, is_utf8
from cxrlab.errors import ConfigError, DataError, MissingFileError

# Listing a folder costs some 8 us and looking for one file 3 us (ext4, warm), but over a network each of them
# is a round trip: a folder is listed where many of its files are wanted.
_FEW = 8
# When the right root is looked for: a folder of 100,000 images is not walked through.
_LOOKED_AT = 200
_ENTRIES_LOOKED_AT = 2000
_ABSOLUTE = re.compile(r"/|[A-Za-z]:")


def check_root(root: Path) -> None:
    """Refuse a root that is no folder.

    Raises:
        MissingFileError: If ``root`` does not exist, or is a file.
        DataError: If its name is no UTF-8.
    """
    if not is_utf8(str(root)):
        raise DataError(
            f"data.root={escaped(str(root))} has a name that is no UTF-8, which no table can hold: rename it."
        )
    if not root.exists():
        raise MissingFileError(f"data.root={root} does not exist; set it to the folder of the data set.")
    if not root.is_dir():
        raise MissingFileError(f"data.root={root} is a file; set it to the folder of the data set, unpacked.")


def listing(folder: Path, most: int = 10) -> str:
    """Return the first names in ``folder``, sorted, for a message."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    if not names:
        return "nothing"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def root_hint(root: Path, names: Sequence[str]) -> str:
    """Return " Set data.root=…." where a folder close to ``root`` holds one of the files that ``root`` lacks.

    Two folders down and two up are looked at, few enough not to walk through a large data set.

    Args:
        root: The folder that was given.
        names: Paths of files or folders, relative to the folder that would be right.
    """
    below = [folder for folder in folders_below(root) if _holds(folder, names)]
    near = below or [folder for folder in list(root.resolve().parents)[:2] if _holds(folder, names)]
    if not near:
        return ""
    return f" Set data.root={near[0]}." if len(near) == 1 else f" Set data.root to one of {_named(near)}."


def folders_below(root: Path) -> list[Path]:
    """Return the folders in ``root`` and in these, sorted, the nearer first; at most 400.

    Hidden ones and ``__MACOSX`` are passed over, and so is what may not be looked into.
    """
    first = _subfolders(root)
    if len(first) == _LOOKED_AT:  # patients rather than parts of a data set
        return first
    return [*first, *(folder for outer in first for folder in _subfolders(outer))][: 2 * _LOOKED_AT]


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in itertools.islice(entries, _ENTRIES_LOOKED_AT)
                if not entry.name.startswith((".", "__MACOSX")) and entry.is_dir()
            ]
    except OSError:
        return []
    return [folder / name for name in sorted(names)[:_LOOKED_AT]]


def _holds(folder: Path, names: Sequence[str]) -> bool:
    return any((folder / name).exists() for name in names)


def _named(folders: Sequence[Path]) -> str:
    return ", ".join(map(str, folders[:3])) + (" …" if len(folders) > 3 else "")


def compiled(pattern: str, key: str) -> re.Pattern[str]:
    """Return a regular expression that the config gave.

    Raises:
        ConfigError: If it is none.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        slash = " Write / in place of \\." if "\\" in pattern and "path_prefix" in key else ""
        raise ConfigError(f"{key}={pattern} is no regular expression: {error}.{slash}") from error


def paths_under_root(
    cells: "pd.Series[str]", *, folder: str, prefix: str | None, suffix: str, path: Path
) -> "pd.Series[str]":
    """Return the paths that a table gives as paths under the root, with forward slashes.

    Only the text of a path is looked at: it may go through a symbolic link, as folders of images often do,
    but may not name anything outside the root by itself.

    Args:
        cells: Paths as the table has them; the index is the line in the file.
        folder: Folder under the root that they are relative to.
        prefix: Regular expression; what it matches at the start of a path is taken off.
        suffix: Put at the end of each path, for tables that name images without ``.png``.
        path: The table, for messages.

    Raises:
        ConfigError: If the prefix is no regular expression, or the folder is outside the root.
        DataError: If a path is empty, absolute or holds ``..``.
    """
    if _is_outside(folder):
        raise ConfigError(f"data.reader.image_folder={folder} must be a folder under data.root, or empty.")
    start = compiled(prefix or "", "data.reader.path_prefix")
    texts = cells.map(lambda cell: _without(start, cell))
    _raise_for(cells[texts == ""], "name no image", "Complete or remove them", path)
    _raise_for(
        cells[[_is_outside(text) for text in texts]],
        "name an image outside data.root",
        "Make them relative to data.root or data.reader.image_folder, or take their start off by "
        "data.reader.path_prefix, with / in place of backslashes",
        path,
    )
    return texts.map(lambda text: _joined(folder, text) + suffix)


def present(root: Path, images: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Tell of each path under ``root`` whether there is such a file; none is opened.

    Raises:
        DataError: If a folder may not be looked into.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        rows[image.rpartition("/")[0]].append(row)
    is_there = np.zeros(len(images), dtype=bool)
    for folder, members in rows.items():
        try:
            # Text, for with Path objects the 180,000 folders of CheXpert take twice as long.
            is_there[members] = _present_in(
                f"{root}/{folder}", [images[row].rpartition("/")[2] for row in members]
            )
        except OSError as error:
            raise DataError(f"The images of {root / folder} cannot be listed: {error}.") from error
    return is_there


def _present_in(folder: str, names: list[str]) -> list[bool]:
    if len(names) < _FEW:
        return [os.access(f"{folder}/{name}", os.F_OK) for name in names]
    try:
        with os.scandir(folder) as entries:
            there = {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        there = set()
    return [name in there for name in names]


def _without(start: re.Pattern[str], cell: str) -> str:
    """Take off what the prefix matches, whether it was written for backslashes or for slashes."""
    text = cell.replace("\\", "/")
    match = start.match(text) or start.match(cell)
    return text[match.end() :] if match else text


def _is_outside(text: str) -> bool:
    text = text.replace("\\", "/")
    return _ABSOLUTE.match(text) is not None or ".." in text.split("/")


def _joined(folder: str, text: str) -> str:
    parts = f"{folder}/{text}".replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in {"", "."})


def _raise_for(cells: "pd.Series[str]", fault: str, remedy: str, path: Path) -> None:
    if len(cells):
        raise DataError(
            f"{len(cells)} rows of {path} {fault}, for instance {cells.iloc[0]!r} in line {cells.index[0]}. "
            f"{remedy}."
        )
