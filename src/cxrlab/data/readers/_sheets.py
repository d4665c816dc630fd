"""The tables of a data set: which files they are, and of which part."""

import itertools
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlab.data.decode import image_format
from cxrlab.data.manifest import escaped, is_utf8
from cxrlab.data.readers._content import plain_or_gz
from cxrlab.data.readers._formats import SUFFIXES, read_file
from cxrlab.data.readers._npz import read_npz
from cxrlab.data.readers._paths import listing, root_hint
from cxrlab.data.readers._settings import PART_WORDS, names
from cxrlab.errors import ConfigError, DataError, MissingFileError

IMAGE_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jfif",
    ".jpe",
    ".dcm",
    ".dicom",
    ".tif",
    ".tiff",
    ".bmp",
    ".webp",
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sheet:
    """One table.

    Attributes:
        path: Where it lies.
        part: "train", "val" or "test" where all of it is of that part, else "".
        cells: Text; the index is the line in the file.
    """

    path: Path
    part: str
    cells: pd.DataFrame

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [str(name) for name in self.cells]

    def find(self, name: str) -> str | None:
        """Return the column called ``name``, if need be in other case; None where there is none.

        Raises:
            DataError: If several columns differ from it and from one another in case only.
        """
        if name in self.names:
            return name
        near = [column for column in self.names if column.casefold() == name.strip().casefold()]
        if len(near) > 1:
            raise DataError(f"{self.path} has the columns {near}: write {name!r} as one of them is written.")
        return near[0] if near else None

    def column(self, name: str, key: str) -> "pd.Series[str]":
        """Return the cells of the column called ``name``.

        Args:
            name: Name of the column, in any case.
            key: Key of the config that gave the name, for messages.

        Raises:
            DataError: If there is no such column.
        """
        existing = self.find(name)
        if existing is None:
            without = (
                " Without patients: data.reader.patient_column=null."
                if key.endswith("patient_column")
                else ""
            )
            raise DataError(f"{self.path} lacks the column {name!r} of {key}; it has {self.names}.{without}")
        return self.cells[existing]

    def under(self, prefix: str) -> dict[str, str]:
        """Return the columns that start with ``prefix``, by what follows it."""
        return {name.removeprefix(prefix): name for name in self.names if name.startswith(prefix)}


@dataclass(frozen=True)
class Layout:
    """How the files of a data set are written; see :func:`cxrlab.data.readers.table.read`."""

    columns: Sequence[str] | str | None = None
    separator: str | None = None


def parts_by_word(own: Mapping[Any, str | None] | None) -> dict[str, str]:
    """Return the part that each word stands for, in lower case, with a data set's ``own`` words.

    Raises:
        ConfigError: If one of them stands for something else than a part.

    Example:
        >>> words = parts_by_word({"Fold0": "val", "unused": None})
        >>> words["fold0"], words["unused"], words["dev"]
        ('val', '', 'val')
    """
    words = dict(PART_WORDS)
    for word, part in (own or {}).items():
        if part is not None and part not in ("train", "val", "test", ""):
            raise ConfigError(
                f"data.reader.part_words says that {word!r} is {part!r}; parts are train, val and test, or "
                f"null."
            )
        words[str(word).strip().lower()] = part or ""
    return words


def open_sheets(
    root: Path,
    tables: str | Sequence[str] | Mapping[str, str | list[str] | None] | None,
    layout: Layout | None = None,
    words: Mapping[str, str] = PART_WORDS,
) -> list[Sheet]:
    """Read the tables of a data set.

    Args:
        root: Folder that the names of the tables are relative to.
        tables: One file; or one or several for each part, null for none; or None for the only table there.
        layout: How they are written.
        words: The part that each word stands for.

    Raises:
        ConfigError: If a part is unknown, or no table is named.
        MissingFileError: If a table does not exist.
        DataError: If a table cannot be read, or lists nothing.
    """
    named: list[tuple[str, str]] = []
    if isinstance(tables, Mapping):
        for word, files in tables.items():
            listed = names(files, f"data.reader.tables.{word}") if files else []
            named += [(_part(str(word), words), name) for name in listed]
    elif tables is None:
        named.append(("", _only_table(root)))
    else:
        named += [("", name) for name in names(tables, "data.reader.tables")]
    if not named:
        raise ConfigError(f"data.reader.tables={tables} names no table.")
    return [open_sheet(root, part, name, "data.reader.tables", layout or Layout()) for part, name in named]


def _part(word: str, words: Mapping[str, str]) -> str:
    if word.lower() not in words:
        raise ConfigError(
            f"data.reader.tables names the part {word!r}; parts are train, val and test. For another word: "
            f"data.reader.part_words={{{word}: val}}."
        )
    return words[word.lower()]


def _only_table(root: Path) -> str:
    files = sorted(path.name for path in root.iterdir() if _suffix(path.name) in SUFFIXES and path.is_file())
    csvs = [name for name in files if _suffix(name) == ".csv"]
    files = csvs or files
    if len(files) == 1:
        return files[0]
    if not files:
        raise MissingFileError(
            f"data.root={root} holds no CSV file; it holds {listing(root)}. Set data.reader.tables, or "
            "without a table data.reader.files."
        )
    raise ConfigError(
        f"data.root={root} holds {len(files)} {'CSV files' if csvs else 'tables'}, {files[:5]}: set "
        "data.reader.tables to one, or to one for each part."
    )


def _suffix(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


def open_sheet(root: Path, part: str, name: str, key: str, layout: Layout) -> Sheet:
    path = plain_or_gz(root / Path(name).expanduser())
    if path is None:
        elsewhere = Path(name).resolve()
        raise MissingFileError(
            f"There is no table {root / Path(name).expanduser()}, which {key} names; {root} holds "
            f"{listing(root)}."
            + (
                f" For the one in the working directory write {elsewhere}."
                if elsewhere.is_file()
                else root_hint(root, [name, f"{name}.gz"])
            )
        )
    if path.suffix.lower() == ".npz":
        columns = None if layout.columns is None else names(layout.columns, "data.reader.columns")
        return Sheet(path, part, read_npz(path, root, columns))
    cells = read_file(path, columns=layout.columns, separator=layout.separator)
    if cells.empty:
        raise DataError(f"The table {path} lists nothing: below its header {list(cells)} there is no row.")
    return Sheet(path, part, cells)


def _literal_starts(patterns: Sequence[str]) -> list[str]:
    """Return the folders that patterns name before their first wildcard.

    Example:
        >>> _literal_starts(["CXR_png/*.png", "*.png"])
        ['CXR_png']
    """
    starts = (
        itertools.takewhile(lambda part: not re.search(r"[*?\[]", part), Path(one).parts) for one in patterns
    )
    return ["/".join(start) for start in map(list, starts) if start]


def list_files(root: Path, patterns: object) -> Sheet:
    """Return the images below ``root`` that glob patterns match, in place of a table.

    Returns:
        Its columns are ``image`` (path under the root), ``folder`` (the name of the folder that it lies in)
        and ``name`` (the file's, without suffix).

    Raises:
        ConfigError: If a pattern is absolute or leaves the root.
        MissingFileError: If no image matches.
    """
    paths: set[str] = set()
    others: set[str] = set()
    bad_names: list[str] = []
    for pattern in names(patterns, "data.reader.files"):
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise ConfigError(
                f"data.reader.files={pattern} must be a pattern below data.root, such as images/*.png."
            )
        for path in root.glob(pattern):
            is_hidden = any(part.startswith((".", "__MACOSX")) for part in path.relative_to(root).parts)
            if not is_utf8(str(path)):
                bad_names.append(escaped(path.relative_to(root).as_posix()))
            elif path.is_file() and not is_hidden:
                is_image = path.suffix.lower() in IMAGE_SUFFIXES or image_format(path) is not None
                kind = paths if is_image else others
                kind.add(path.relative_to(root).as_posix())
    if not paths:
        raise MissingFileError(
            f"No image fits data.reader.files={patterns}: data.root={root} holds {listing(root)}."
            f"{root_hint(root, _literal_starts(names(patterns, 'data.reader.files')))}"
        )
    if bad_names:
        _log.warning(
            f"{len(bad_names)} files that fit data.reader.files={patterns} have names that are no UTF-8, "
            f"such as {bad_names[0]}, and are left out"
        )
    if others:
        _log.warning(
            f"{len(others)} files that fit data.reader.files={patterns} are no images, such as {min(others)}"
        )
    images = [Path(path) for path in sorted(paths)]
    columns = {
        "image": [path.as_posix() for path in images],
        "folder": [path.parent.name for path in images],
        "name": [path.stem for path in images],
    }
    return Sheet(root, "", pd.DataFrame(columns, index=pd.RangeIndex(1, len(images) + 1), dtype=str))
