"""Any data set whose images, patients and labels stand in CSV tables, as a manifest."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxrlab.data.manifest import COVARIATE, LABEL, Manifest
from cxrlab.data.readers._csv import Blank, Uncertain, holds_labels, parse_labels, policies, read_cells
from cxrlab.data.readers._paths import check_root, compiled, listing, paths_under_root, present
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

_log = logging.getLogger(__name__)


def read(
    root: Path,
    *,
    name: str | None = None,
    tables: str | dict[str, str | list[str] | None] | None = None,
    image_column: str = "image",
    image_folder: str = "",
    path_prefix: str | None = None,
    image_suffix: str = "",
    patient_column: str | None = "patient",
    patient_pattern: str | None = None,
    split_column: str | None = None,
    covariates: dict[str, str | None] | None = None,
    labels: list[str] | None = None,
    uncertain: Uncertain | dict[str, Uncertain] = "ignore",
    blank: Blank = "ignore",
) -> Manifest:
    r"""Return the manifest of those images that CSV tables list and that lie under ``root``.

    Columns are found by name, whatever blanks stand around it and in any case. A ``manifest.csv`` that a run
    wrote is read as it is, with its columns ``split``, ``covariate/<name>`` and ``label/<name>``.

    Args:
        root: Folder that the tables and the images lie under.
        name: What the data set is called in reports; None for the name of the folder.
        tables: A file under ``root`` (or anywhere, by an absolute path); or one or several for each of
            "train", "val" and "test", which become ``split``; None for the only CSV file of ``root``.
        image_column: Column with the paths of the images.
        image_folder: Folder under ``root`` that these are relative to; "" for ``root`` itself.
        path_prefix: Regular expression; what it matches at the start of a path is taken off.
        image_suffix: Put at the end of each path, such as ".png"; "" for nothing.
        patient_column: Column with the patients; None takes every image for a patient of its own.
        patient_pattern: Regular expression that finds the patient in the path instead, as its first group or
            as the whole of what it matches.
        split_column: Column with each row's part: train, val (valid, validation, dev), test or nothing.
        covariates: Column of each covariate, by the name that it gets; None leaves one out. Columns of
            numbers only become numbers, NaN where empty.
        labels: Columns with labels, in order; None for all columns that hold labels only and have no other
            use here.
        uncertain: What -1 means: "ignore" (unknown), "positive" or "negative"; for all labels, or by label,
            those not named being ignored.
        blank: What an empty label means: "ignore" (unknown) or "negative".

    Raises:
        ConfigError: If a value does not fit the tables, such as a policy for a label that is none.
        MissingFileError: If the root, a table, or every image is missing.
        DataError: If a table cannot be read, lacks a column, holds something else than a label, names an
            image outside the root, or lists an image twice with different content.
    """
    check_root(root)
    sheets = open_sheets(root, tables)
    columns = _covariate_columns(sheets[0], covariates)
    taken = [image_column, patient_column, split_column, *columns.values()]
    label_columns = _label_columns(sheets, labels, taken)
    layout = Layout(
        image_column=image_column,
        image_folder=image_folder,
        path_prefix=path_prefix,
        image_suffix=image_suffix,
        patient_column=patient_column,
        patient_pattern=patient_pattern,
        split_column=_split_column(sheets, split_column),
        covariates=columns,
        labels=label_columns,
        uncertain=policies(uncertain, list(label_columns)),
        blank=blank,
    )
    _warn_of_lacking_covariates(sheets, columns)
    table = _numbered(_once(pd.concat([rows(sheet, layout) for sheet in sheets], ignore_index=True), sheets))
    there = present(root, list(table["image"]))
    missing = tuple(table["image"][~there])
    _check_present(root, len(table), missing, sheets)
    called = name or root.resolve().name
    return Manifest(root, table[there], num_listed=len(table), name=called, missing=missing)


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
        existing = self.find(name)
        if existing is None:
            raise DataError(f"{self.path} lacks the column {name!r} of {key}; it has {self.names}.")
        return self.cells[existing]

    def under(self, prefix: str) -> dict[str, str]:
        """Return the columns that start with ``prefix``, by what follows it."""
        return {name.removeprefix(prefix): name for name in self.names if name.startswith(prefix)}


@dataclass(frozen=True)
class Layout:
    """Where in a table what is found: the arguments of :func:`cxrlab.data.readers.table.read`, resolved."""

    image_column: str
    image_folder: str
    path_prefix: str | None
    image_suffix: str
    patient_column: str | None
    patient_pattern: str | None
    split_column: str | None
    covariates: Mapping[str, str]
    labels: Mapping[str, str]
    uncertain: Mapping[str, Uncertain]
    blank: Blank


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


def _covariate_columns(sheet: Sheet, covariates: Mapping[str, str | None] | None) -> dict[str, str]:
    named = {name: column for name, column in (covariates or {}).items() if column is not None}
    return sheet.under(COVARIATE) | named


def _label_columns(
    sheets: Sequence[Sheet], labels: Sequence[str] | None, taken: Sequence[str | None]
) -> dict[str, str]:
    """Return the column of each label."""
    if labels is not None:
        if not labels or len(set(labels)) != len(labels):
            raise ConfigError(f"data.reader.labels={list(labels)} must name one column or more, none twice.")
        return {name: name for name in labels}
    own = sheets[0].under(LABEL)
    if own:
        return own
    used = {name.casefold() for name in taken if name is not None}
    free = [name for name in sheets[0].names if name.casefold() not in used]
    labelled = [name for name in free if _all_hold_labels(sheets, name)]
    if not labelled:
        raise DataError(
            f"No column of {sheets[0].path} holds labels only (1, 0, -1 or empty): it has "
            f"{sheets[0].names}. Name the columns by data.reader.labels."
        )
    _log.info(f"labels of {sheets[0].path}, being the columns that hold labels only: {', '.join(labelled)}")
    return {name: name for name in labelled}


def _all_hold_labels(sheets: Sequence[Sheet], name: str) -> bool:
    columns = [sheet.cells[column] for sheet in sheets if (column := sheet.find(name)) is not None]
    return len(columns) == len(sheets) and holds_labels(pd.concat(columns))


def _split_column(sheets: Sequence[Sheet], column: str | None) -> str | None:
    by_file = any(sheet.part for sheet in sheets)
    if column is not None and by_file:
        raise ConfigError(
            f"data.reader.split_column={column} and data.reader.tables both give the parts; set one to null, "
            "or name the tables without parts."
        )
    if column is None and not by_file and sheets[0].under(LABEL):
        return sheets[0].find("split")
    return column


def _warn_of_lacking_covariates(sheets: Sequence[Sheet], columns: Mapping[str, str]) -> None:
    for name, column in columns.items():
        lacking = [sheet.path.name for sheet in sheets if sheet.find(column) is None]
        if len(lacking) == len(sheets):
            sheets[0].column(column, f"data.reader.covariates.{name}")
        if lacking:
            _log.warning(f"{', '.join(lacking)}: no column {column!r}; the covariate {name} is unknown there")


def _once(table: pd.DataFrame, sheets: Sequence[Sheet]) -> pd.DataFrame:
    """Drop rows that say the same of the same image, and refuse those that contradict one another."""
    where = ", ".join(str(sheet.path) for sheet in sheets)
    repeated = table.duplicated()
    if repeated.any():
        images = list(table["image"][repeated].unique())
        _log.warning(
            f"{int(repeated.sum())} rows of {where} repeat another row, for instance that of {images[0]}; "
            "each image is used once"
        )
        table = table[~repeated]
    twice = table[table["image"].duplicated(keep=False)]
    if len(twice):
        images = list(twice["image"].unique())
        first = twice[twice["image"] == images[0]]
        differing = [column for column in table if first[column].nunique(dropna=False) > 1]
        raise DataError(
            f"{len(images)} images are listed more than once in {where} with different content: "
            f"{images[:3]}, the first of which differs in {differing}. Keep one row of each."
        )
    return table.reset_index(drop=True)


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    """Turn the covariates that are numbers wherever they are known into numbers."""
    for column in table.columns[table.columns.str.startswith(COVARIATE)]:
        numbers = pd.to_numeric(table[column].where(table[column] != ""), errors="coerce").astype(float)
        if numbers.notna().any() and not (numbers.isna() & (table[column] != "")).any():
            table[column] = numbers
    return table


def _check_present(root: Path, listed: int, missing: Sequence[str], sheets: Sequence[Sheet]) -> None:
    where = ", ".join(str(sheet.path) for sheet in sheets)
    if len(missing) == listed:
        raise MissingFileError(
            f"None of the {listed} images listed in {where} is there: there is no {root / missing[0]}. "
            f"{root} holds {listing(root)}. Set data.root, data.reader.image_folder, data.reader.path_prefix "
            "or data.reader.image_suffix so that the paths fit."
        )
    if missing:
        _log.warning(
            f"{len(missing)} of {listed} images listed in {where} are missing, for instance "
            f"{list(missing[:3])}; using the {listed - len(missing)} that are there"
        )


def rows(sheet: Sheet, layout: Layout) -> pd.DataFrame:
    """Return the rows of one table as a manifest has them, but for the covariates, which are still text.

    Returns:
        Columns ``image``, ``patient``, ``split``, ``covariate/<name>`` and ``label/<name>``; the index is the
        line in the file. A covariate whose column this table lacks is "".

    Raises:
        ConfigError: If a regular expression of the layout is none.
        DataError: If a column is missing, or a cell cannot be used.
    """
    images = paths_under_root(
        sheet.column(layout.image_column, "data.reader.image_column"),
        folder=layout.image_folder,
        prefix=layout.path_prefix,
        suffix=layout.image_suffix,
        path=sheet.path,
    )
    columns: dict[str, object] = {
        "image": images,
        "patient": _patients(sheet, images, layout),
        "split": _splits(sheet, layout),
    }
    for name, column in layout.covariates.items():
        source = sheet.find(column)
        columns[COVARIATE + name] = sheet.cells[source] if source else pd.Series("", index=images.index)
    for name, column in layout.labels.items():
        columns[LABEL + name] = parse_labels(
            sheet.column(column, "data.reader.labels"),
            name=column,
            path=sheet.path,
            uncertain=layout.uncertain[name],
            blank=layout.blank,
        )
    return pd.DataFrame(columns)


def _patients(sheet: Sheet, images: "pd.Series[str]", layout: Layout) -> "pd.Series[str]":
    if layout.patient_pattern is not None:
        pattern = compiled(layout.patient_pattern, "data.reader.patient_pattern")
        group = min(pattern.groups, 1)
        matches = [pattern.search(image) for image in images]
        patients = pd.Series([match[group] or "" if match else "" for match in matches], index=images.index)
        source = f"data.reader.patient_pattern={layout.patient_pattern} finds no patient in"
    elif layout.patient_column is not None:
        patients = sheet.column(layout.patient_column, "data.reader.patient_column")
        source = f"The column {layout.patient_column!r} of {sheet.path} is empty for"
    else:
        _log.warning(
            f"data.reader.patient_column is null: every image of {sheet.path} counts as a patient of its "
            "own, so that patients cannot be kept apart, and images of one may be in both train and test"
        )
        return images
    missed = images[patients == ""]
    if len(missed):
        raise DataError(
            f"{source} {len(missed)} of {len(images)} images, for instance {list(missed[:3])}, "
            f"the first in line {missed.index[0]}."
        )
    return patients


def _splits(sheet: Sheet, layout: Layout) -> "pd.Series[str]":
    if layout.split_column is None:
        return pd.Series(sheet.part, index=sheet.cells.index)
    words = sheet.column(layout.split_column, "data.reader.split_column")
    parts = words.str.lower().map(PART_WORDS | {"": ""})
    wrong = words[parts.isna()]
    if len(wrong):
        raise DataError(
            f"The column {layout.split_column!r} of {sheet.path} holds {wrong.iloc[0]!r} in line "
            f"{wrong.index[0]}; parts are train, val and test. To read none: data.reader.split_column=null."
        )
    return parts
