"""The parts that a table gives to images: a published split, or the manifest of an earlier run."""

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.manifest import PARTS, Manifest
from cxrlab.errors import DataError, MissingFileError

log = logging.getLogger(__name__)

_COLUMNS = ["image", "part"]


def check_file(file: str) -> None:
    """Refuse a table of parts that is not there.

    Raises:
        MissingFileError: If there is no such file.
    """
    if not Path(file).expanduser().is_file():
        raise MissingFileError(
            f"data.split.file={file} is no file; it takes a CSV, such as the manifest.csv of a run directory."
        )


def parts_from_file(manifest: Manifest, file: str) -> npt.NDArray[np.object_]:
    """Return the part that a CSV gives to each image.

    Images that the file names and the data set lacks are left out with a warning, for part of a data set is
    enough to work with. An image that the file does not name is refused: its patient may stand in any part.

    Args:
        manifest: A data set.
        file: A CSV with the columns ``image``, spelt as in the manifest, and ``part``: train, val or test.

    Returns:
        Shape ``(N,)``.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it is no such table, gives an image two parts, does not name an image of the data set,
            or names a part of which the data set has no image.
    """
    check_file(file)
    table = _read(Path(file).expanduser())
    _check_table(table, file)
    of_image = table.drop_duplicates("image").set_index("image")["part"]
    images = manifest.table["image"]
    unnamed = images[~images.isin(of_image.index)]
    if len(unnamed):
        raise DataError(
            f"data.split.file={file} does not name {len(unnamed)} of the {len(images)} images of "
            f"{manifest.root}, for instance {list(unnamed[:3])}; it names images such as "
            f"{of_image.index[0]!r}. A patient of theirs could stand in another part: add them to the file. "
            "A run with data.fraction or data.filter leaves images out of its manifest.csv: take that of a "
            "run without them, and set them beside data.split.file."
        )
    parts = of_image.loc[images].to_numpy(dtype=object, copy=True)
    for part in dict.fromkeys(["train", "test", *of_image]):
        if not (parts == part).any():
            raise DataError(f"data.split.file={file} puts no image of {manifest.root} into the {part} part.")
    absent = of_image.index[~of_image.index.isin(images)]
    if len(absent):
        log.warning(
            "%d of the %d images that %s names are not in %s, for instance %s; they are left out.",
            len(absent), len(of_image), file, manifest.root, list(absent[:3]),
        )  # fmt: skip
    return parts


def _read(path: Path) -> pd.DataFrame:
    """Return the columns ``image`` and ``part`` as text."""
    try:
        columns = list(pd.read_csv(path, nrows=0))
        missing = [name for name in _COLUMNS if name not in columns]
        if missing:
            raise DataError(f"data.split.file={path} lacks the columns {missing}; it has {columns[:8]}.")
        return pd.read_csv(path, usecols=_COLUMNS, dtype=str, keep_default_na=False)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"data.split.file={path} cannot be read as a CSV: {error}") from error


def _check_table(table: pd.DataFrame, file: str) -> None:
    wrong = table[~table["part"].isin(PARTS)]
    if len(wrong):
        raise DataError(
            f"data.split.file={file} has the parts {sorted(set(wrong['part']))[:3]}, for instance of "
            f"{list(wrong['image'][:3])}; parts are spelt {', '.join(PARTS)}."
        )
    pairs = table.drop_duplicates()
    twice = pairs["image"][pairs["image"].duplicated()].unique()
    if len(twice):
        raise DataError(
            f"data.split.file={file} puts {len(twice)} images into two parts: {list(twice[:3])}. "
            "Name each once."
        )
