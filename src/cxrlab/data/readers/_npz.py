"""Images inside a file of NumPy arrays, as MedMNIST comes: written once as PNG files, and listed."""

import json
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from PIL import Image

from cxrlab.errors import ConfigError, DataError, OutputError

PARTS = {"train": "train", "val": "val", "test": "test"}
_IMAGES, _LABELS = "images", "labels"
_SOURCE = "source.json"
_MOST_PIXELS = 2**24

_log = logging.getLogger(__name__)


def read_npz(path: Path, root: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Write the images of a file of arrays as PNG files and return the table of them.

    The arrays are ``train_images``, ``val_images`` and ``test_images``, or ``images`` alone, of bytes, shape
    ``(N, H, W)`` or ``(N, H, W, 3)``, and beside each its ``labels`` of whole numbers, ``(N,)`` or ``(N,
    L)``. The PNG files are ``train_000000.png`` and so on in a folder below the root that is named after the
    file with ``_images``; they are written again where the file's checksums have changed.

    Args:
        path: The file, below the root or elsewhere.
        root: Folder that the folder of images is made in.
        columns: Names of the columns of the labels; None for ``label`` or ``label_0``, ``label_1`` and so on.

    Returns:
        Text: ``image`` (path under the root), ``split`` ("" without parts) and the labels; the index is the
            row, from 1.

    Raises:
        ConfigError: If there are not as many names as labels.
        DataError: If the file cannot be read, or holds other arrays.
        OutputError: If the images cannot be written.
    """
    folder = root / f"{path.name.partition('.')[0]}_images"
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            prefixes = _prefixes(members, path)
            checksums = {name: f"{member.CRC:08x}" for name, member in members.items()}
            if not _is_written(folder, checksums):
                _write(archive, path, prefixes, folder, checksums)
            tables = [_rows(archive, path, part, prefix, folder.name) for prefix, part in prefixes.items()]
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"The arrays of {path} cannot be read: {error}.") from error
    table = pd.concat(tables, ignore_index=True)
    return _named(table, columns, path).rename(index=lambda row: row + 1).rename_axis(index="record")


def _prefixes(members: Mapping[str, object], path: Path) -> dict[str, str]:
    """Return what stands before the names of the arrays, with the part that it is."""
    prefixes = {f"{word}_": part for word, part in PARTS.items() if f"{word}_{_IMAGES}" in members}
    prefixes = prefixes or ({"": ""} if _IMAGES in members else {})
    lacking = [f"{prefix}{_LABELS}" for prefix in prefixes if f"{prefix}{_LABELS}" not in members]
    if not prefixes or lacking:
        raise DataError(
            f"{path} holds the arrays {sorted(members)}; train_images and train_labels (val_, test_), or "
            "images and labels are needed."
        )
    return prefixes


def _is_written(folder: Path, checksums: Mapping[str, str]) -> bool:
    try:
        return bool(json.loads((folder / _SOURCE).read_text(encoding="utf-8")) == checksums)
    except (OSError, ValueError):
        return False


def _write(
    archive: zipfile.ZipFile,
    path: Path,
    prefixes: Mapping[str, str],
    folder: Path,
    checksums: Mapping[str, str],
) -> None:
    """Write all images beside the folder first, so that it is complete wherever it is there."""
    if folder.exists() and not (folder / _SOURCE).is_file():
        raise DataError(f"{folder} is in the way: the images of {path} are written there. Move it.")
    try:
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            number = sum(_write_part(archive, path, prefix, unfinished) for prefix in prefixes)
            (unfinished / _SOURCE).write_text(json.dumps(checksums), encoding="utf-8")
            unfinished.chmod(0o755)
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            if not _is_written(folder, checksums):  # else another process was faster
                raise
            return
    except OSError as error:
        raise OutputError(
            f"The images of {path} cannot be written into {folder}: {error.strerror or error}. Copy the file "
            "to a folder that can be written, and set data.root to it."
        ) from error
    _log.info(f"the {number} images of {path} are written as PNG files into {folder}")


def _write_part(archive: zipfile.ZipFile, path: Path, prefix: str, folder: Path) -> int:
    name = f"{prefix}{_IMAGES}"
    with archive.open(f"{name}.npy") as file:
        shape, kind = _header(file)
        is_image = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
        size = int(np.prod(shape[1:]))
        if kind != np.uint8 or not is_image or not 0 < size <= _MOST_PIXELS:
            raise DataError(
                f"{name} of {path} is of {kind} with the shape {shape}; images are bytes, (N, H, W) or (N, "
                f"H, W, 3)."
            )
        shown = shape[1:3] if len(shape) == 3 or shape[3] == 1 else shape[1:]
        for row in range(shape[0]):
            pixels = np.frombuffer(_exactly(file, size), dtype=np.uint8).reshape(shown)
            Image.fromarray(pixels).save(folder / _file_name(prefix, row), compress_level=1)
    return shape[0]


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError("it ends too early")
    return data


def _file_name(prefix: str, row: int) -> str:
    return f"{prefix}{row:06d}.png"


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the header of an array, which never runs what it holds."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, kind = read(file)
    if is_fortran or kind.hasobject:
        raise ValueError(f"an array of {kind} is stored by columns or as objects, which is never opened")
    return shape, kind


def _rows(archive: zipfile.ZipFile, path: Path, part: str, prefix: str, folder: str) -> pd.DataFrame:
    with archive.open(f"{prefix}{_IMAGES}.npy") as file:
        number = _header(file)[0][0]
    with archive.open(f"{prefix}{_LABELS}.npy") as file:
        labels = np.lib.format.read_array(file, allow_pickle=False)
    if labels.ndim not in (1, 2) or len(labels) != number:
        raise DataError(f"{prefix}{_LABELS} of {path} has the shape {labels.shape}, for {number} images.")
    values = labels.reshape(number, -1)
    table = pd.DataFrame(values).astype(str)
    table.insert(0, "image", [f"{folder}/{_file_name(prefix, row)}" for row in range(number)])
    table.insert(1, "split", part)
    return table


def _named(table: pd.DataFrame, columns: Sequence[str] | None, path: Path) -> pd.DataFrame:
    number = table.shape[1] - 2
    names = list(columns or (["label"] if number == 1 else [f"label_{index}" for index in range(number)]))
    if len(names) != number:
        raise ConfigError(
            f"data.reader.columns names {len(names)} labels, but {path} holds {number} for each image."
        )
    return table.set_axis(["image", "split", *names], axis=1)
