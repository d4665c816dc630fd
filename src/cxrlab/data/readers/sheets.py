"""The CSV files of a data set: which they are, whose part they list, and their columns by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxrlab.data.readers.csv_cells import read_cells
from cxrlab.data.readers.roots import listing
from cxrlab.errors import ConfigError, DataError, MissingFileError

# How tables and people call the parts, in any case.
PART_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Sheet:
    """One CSV file.

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
        found = self.find(name)
        if found is None:
            raise DataError(f"{self.path} lacks the column {name!r} of {key}; it has {self.names}.")
        return self.cells[found]

    def under(self, prefix: str) -> dict[str, str]:
        """Return the columns that start with ``prefix``, by what follows it."""
        return {name.removeprefix(prefix): name for name in self.names if name.startswith(prefix)}


def open_sheets(root: Path, tables: str | Mapping[str, str | list[str] | None] | None) -> list[Sheet]:
    """Read the tables of a data set.

    Args:
        root: Folder that the names of the tables are relative to.
        tables: One file; or one or several for each part, null for none; or None for the only CSV file there.

    Raises:
        ConfigError: If a part is unknown, or no table is named.
        MissingFileError: If a table does not exist.
        DataError: If a table cannot be read, or lists nothing.
    """
    named: list[tuple[str, str]] = []
    if isinstance(tables, Mapping):
        for word, names in tables.items():
            files = [names] if isinstance(names, str) else names or []
            named += [(_part(word), name) for name in files]
    else:
        named.append(("", _only_table(root) if tables is None else tables))
    if not named:
        raise ConfigError(f"data.reader.tables={tables} names no table.")
    return [_open(root, part, name) for part, name in named]


def _part(word: str) -> str:
    if word.lower() not in PART_WORDS:
        raise ConfigError(f"data.reader.tables names the part {word!r}; parts are train, val and test.")
    return PART_WORDS[word.lower()]


def _only_table(root: Path) -> str:
    names = sorted(path.name for path in root.iterdir() if path.name.lower().endswith((".csv", ".csv.gz")))
    if len(names) == 1:
        return names[0]
    if not names:
        raise MissingFileError(f"data.root={root} holds no CSV file; it holds {listing(root)}.")
    raise ConfigError(
        f"data.root={root} holds {len(names)} CSV files, {names[:5]}: set data.reader.tables to one, or to "
        "one for each part."
    )


def _open(root: Path, part: str, name: str) -> Sheet:
    path = root / Path(name).expanduser()
    if not path.is_file():
        elsewhere = Path(name).resolve()
        raise MissingFileError(
            f"There is no table {path}, which data.reader.tables names; {root} holds {listing(root)}."
            + (f" For the one in the working directory write {elsewhere}." if elsewhere.is_file() else "")
        )
    cells = read_cells(path)
    if cells.empty:
        raise DataError(f"The table {path} lists nothing: below its header {list(cells)} there is no row.")
    return Sheet(path, part, cells)
