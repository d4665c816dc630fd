"""Images of files that are named one by one, outside any data set."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from rich.progress import track

from cxrlab.data.images import SUFFIXES, read_image
from cxrlab.data.manifest import LABEL, Manifest
from cxrlab.errors import MissingFileError


class FramedImages(Protocol):
    """Images by row that know how they were decoded, such as :class:`cxrlab.data.preparation.Images`."""

    @property
    def resize(self) -> str:
        """How they were made square: ``stretch``, ``pad`` or ``crop``."""

    @property
    def facts(self) -> pd.DataFrame:
        """With the columns ``width`` and ``height`` of the files in pixels, one row an image."""

    def __getitem__(self, rows: list[int], /) -> npt.NDArray[np.uint8]:
        """Return images, shape ``(n, C, H, W)``."""


class FileImages:
    """Image files, decoded; rows count them in their order.

    Args:
        paths: The files, at least one.
        image_size: Height and width in pixels.
        channels: 1 or 3.
        resize: ``stretch``, ``pad`` or ``crop``.

    Raises:
        MissingFileError: If a file does not exist.
        DataError: If a file is no image.
    """

    def __init__(self, paths: Sequence[Path], *, image_size: int, channels: int, resize: str) -> None:
        self.resize = resize
        gone = [path for path in paths if not path.is_file()]
        if gone:
            others = {1: "", 2: " and 1 other"}.get(len(gone), f" and {len(gone) - 1} others")
            raise MissingFileError(f"There is no image {gone[0]}{others}.")
        shown = track(paths, "Reading images", console=Console(stderr=True))
        found = [read_image(path, image_size=image_size, channels=channels, resize=resize) for path in shown]
        self._pixels = np.stack([one.pixels for one in found])
        self.facts = pd.DataFrame(
            {"width": [one.width for one in found], "height": [one.height for one in found]}
        )

    def __getitem__(self, rows: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Return images by row, uint8, shape ``(n, C, H, W)``."""
        return np.asarray(self._pixels[np.asarray(rows, dtype=np.intp)])


def image_files(named: Sequence[str]) -> list[Path]:
    """Return the files that are named, and those in folders that are named, in their order, each once.

    Raises:
        MissingFileError: If one is neither, or a folder holds no image.
    """
    found: dict[Path, Path] = {}
    for name in named:
        for path in _files_of(Path(name).expanduser()):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _files_of(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise MissingFileError(f"images names {path}: there is no such file or folder.")
        yield path
        return
    images = (one for one in path.rglob("*") if one.suffix.lower() in SUFFIXES and one.is_file())
    found = sorted(one for one in images if not one.name.startswith("."))
    if not found:
        raise MissingFileError(f"images names {path}: there is no {', '.join(SUFFIXES)} file in this folder.")
    yield from found


def manifest_of(paths: Sequence[Path], labels: Sequence[str]) -> Manifest:
    """Return the manifest of files of which nothing is known: each is a patient of its own."""
    names = [str(path) for path in paths]
    table = pd.DataFrame({"image": names, "patient": names, "split": ""})
    for label in labels:
        table[LABEL + label] = np.nan
    return Manifest(Path(), table, name="image files")
