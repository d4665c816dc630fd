"""Any data set whose images and labels stand in tables, or in the names of its files, as a manifest."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlab.data.manifest import COVARIATE, LABEL, LeftOut, Manifest
from cxrlab.data.published import Published, compared
from cxrlab.data.readers._ages import parse_ages
from cxrlab.data.readers._box_rows import BoxRows, known_boxes
from cxrlab.data.readers._csv import BadLabel, Blank, Uncertain, policies
from cxrlab.data.readers._derive import derived, exploded, made_of
from cxrlab.data.readers._folder_images import Tally, images_below, log_left_out
from cxrlab.data.readers._images import ImageFolders, hint
from cxrlab.data.readers._join import joined
from cxrlab.data.readers._labels import Labels, find_labels
from cxrlab.data.readers._paths import check_root, compiled, listing, present
from cxrlab.data.readers._settings import PART_WORDS, one_of
from cxrlab.data.readers._sheets import Layout, Sheet, list_files, open_sheets, parts_by_word
from cxrlab.data.readers._votes import Votes, check_alike, readers_of
from cxrlab.errors import ConfigError, DataError, MissingFileError, override

__all__ = ["PART_WORDS", "read"]

_NAMED = 3

_log = logging.getLogger(__name__)


def read(
    root: Path,
    *,
    name: str | None = None,
    tables: str | list[str] | dict[str, str | list[str] | None] | None = None,
    files: str | list[str] | None = None,
    columns: str | list[str] | None = None,
    separator: str | None = None,
    explode: str | list[str] | None = None,
    join: list[dict[str, Any]] | None = None,
    derive: dict[str, Any] | None = None,
    image_column: str = "image",
    image_folder: str | list[str] = "",
    search: bool = False,
    path_prefix: str | None = None,
    image_suffix: str = "",
    patient_column: str | None = "patient",
    patient_pattern: str | None = None,
    split_column: str | None = None,
    part_words: dict[Any, str | None] | None = None,
    covariates: dict[str, str | None] | None = None,
    labels: list[str] | dict[str, str] | None = None,
    classes: dict[str, Any] | None = None,
    presence: dict[str, Any] | None = None,
    readers: dict[str, Any] | None = None,
    boxes: dict[str, Any] | None = None,
    uncertain: Uncertain | dict[str, Uncertain] = "ignore",
    blank: Blank = "ignore",
    on_bad_label: BadLabel = "raise",
    published: Published | None = None,
) -> Manifest:
    r"""Return the manifest of those images that tables list and that lie under ``root``.

    Tables are opened, joined by keys and given derived columns; then each row's image, patient and part are
    found, its labels, and its boxes; then rows of one image become one. Columns are found by name, whatever
    blanks stand around it and in any case. A ``manifest.csv`` that a run wrote is read as it is, with its
    columns ``split``, ``covariate/<name>`` and ``label/<name>``.

    Args:
        root: Folder that the tables and the images lie under.
        name: What the data set is called in reports; None for the name of the folder.
        tables: A file under ``root`` (or anywhere, by an absolute path), or several; or one or several for
            each of "train", "val" and "test", which become ``split``; None for the only CSV file of ``root``,
            or its only table. CSV, Excel, JSON, JSON lines, Parquet, each plain or ``.gz``; or npz with
            images inside, which are written as PNG files into a folder beside it.
        files: Instead of tables, a glob pattern of images below ``root``, or several; their columns are
            ``image`` (the path), ``folder`` (the name of the folder it lies in) and ``name``.
        columns: Names of the columns of a table without a header, or of the labels in an npz file; or a
            regular expression of one line, whose named groups are the columns.
        separator: Between the cells of a text file, " " being any number of blanks; None to find it.
        explode: Columns with lists, each item of which gets a row of its own, as where a row is a study and
            lists its images.
        join: Columns of other tables: a list of mappings with ``table``, ``on`` (a column, several, or here:
            there), ``take`` (columns; None for all), ``unmatched`` ("keep" or "drop"), ``columns`` and
            ``separator``.
        derive: Columns made of others, in order: a template such as ``{folder}/{id}.png``; or a mapping with
            ``from`` (a column), ``pattern`` (its first group or all that it matches) and ``default``.
        image_column: Column with the paths of the images.
        image_folder: Folder under ``root`` that these are relative to; "" for ``root`` itself; a glob pattern
            or a list where there are several, in one of which each image is.
        search: Whether images lie anywhere below ``image_folder`` and are found by their names.
        path_prefix: Regular expression; what it matches at the start of a path is taken off.
        image_suffix: Put at the end of each path, such as ".png"; "" for nothing.
        patient_column: Column with the patients; None takes every image for a patient of its own.
        patient_pattern: Regular expression that finds the patient in the path instead, as its first group or
            as the whole of what it matches.
        split_column: Column with each row's part: train, val (valid, validate, validation, dev), test or
            nothing.
        part_words: What other words for parts mean: ``{fold_0: val}``; None for no part.
        covariates: Column of each covariate, by the name that it gets; None leaves one out. Columns of
            numbers only become numbers, NaN where empty. One called ``age`` becomes years.
        labels: Columns with labels, in order, or the column of each label; or, with ``classes``, those of its
            labels to take. None for all columns that hold labels only, have no other use here and no name
            such as sex, fold or view.
        classes: Labels as words: ``columns`` (one or several), ``words`` (the label, the labels or null of
            each; null: every word is a label), ``none`` (words for no finding; null: normal, no finding,
            none, healthy), ``unknown`` (words that leave a row's labels unknown), ``separator`` between words
            (null: lists in a text, ``|`` and ``;``), ``others`` (words that ``words`` lacks: error, ignore,
            label).
        presence: Labels that are present where a column holds anything, such as run lengths, but ``absent``:
            ``{Pneumothorax: {column: EncodedPixels, absent: ["-1", ""]}}``.
        readers: How several rows of an image become one: ``rule`` (any; majority, half of them being unknown;
            mean, from ``threshold`` on; one, named ``reader``) and ``column`` with each row's reader. None:
            any with ``classes`` or ``presence``; else rows of an image must not contradict one another.
        boxes: Boxes around findings: ``label`` or ``label_column``; ``x, y, width, height`` or ``x_min,
            y_min, x_max, y_max``, columns each; or ``column`` with boxes, lists of them or polygons,
            ``corners`` where the last two numbers are one; ``units`` (pixels or fractions); ``size`` ([width,
            height] of the images in pixels, numbers or columns; null looks into their files); ``table`` and
            ``image_column``, where boxes stand in a table of their own.
        uncertain: What -1 means: "ignore" (unknown), "positive" or "negative"; for all labels, or by label,
            those not named being ignored.
        blank: What an empty label means: "ignore" (unknown) or "negative".
        on_bad_label: What a cell that is no label means in a column of labels: "raise" an error, or "ignore"
            (unknown), with a warning.
        published: Numbers of the whole data set to compare with, see
            :func:`cxrlab.data.published.compared`; None for none.

    Raises:
        ConfigError: If a value does not fit the tables, such as a policy for a label that is none.
        MissingFileError: If the root, a table, or every image is missing.
        DataError: If a table cannot be read, lacks a column, holds something else than a label, names an
            image outside the root or one that lies in two places, or lists an image twice with different
            content.
    """
    check_root(root)
    one_of(on_bad_label, "data.reader.on_bad_label", ("raise", "ignore"))
    votes = None if readers is None else Votes.read(readers)
    box_rows = None if boxes is None else BoxRows.read(boxes)
    source = _Source(root, Layout(columns, separator), explode, join, derive, votes)
    sheets = source.sheets(tables, files, part_words)
    covariate_columns = _covariate_columns(sheets[0], covariates)
    taken = [image_column, patient_column, split_column, *covariate_columns.values()]
    found = find_labels(
        sheets,
        labels,
        taken,
        classes=classes,
        presence=presence,
        uncertain=uncertain,
        blank=blank,
        on_bad_label=on_bad_label,
    )
    if box_rows is not None and box_rows.label not in (None, *found.order):
        raise ConfigError(
            f"data.reader.boxes.label={box_rows.label} is none of the labels {list(found.order)}."
        )
    rows = Rows(
        folders=ImageFolders(root, image_folder, search=search),
        image_column=image_column,
        path_prefix=path_prefix,
        image_suffix=image_suffix,
        patient_column=patient_column,
        patient_pattern=patient_pattern,
        split_column=_split_column(sheets, split_column),
        words=parts_by_word(part_words),
        covariates=covariate_columns,
        labels=found,
        votes=votes,
    )
    _warn_of_lacking_covariates(sheets, covariate_columns)
    _warn_of_unread_tables(sheets)
    where = ", ".join(str(sheet.path) for sheet in sheets)
    many_rows = [rows.of(sheet) for sheet in sheets]
    table = pd.concat(many_rows, ignore_index=True)
    table = _numbered(_one_row_an_image(table, votes, found, where))
    there = present(root, list(table["image"]))
    missing = tuple(table["image"][~there])
    _check_present(root, len(table), missing, where, image_suffix)
    kept = table[there].reset_index(drop=True)
    called = name or root.resolve().name
    extra, left_out = _unlisted(root, rows.folders.folders if image_folder else [], table["image"])
    manifest = Manifest(
        root,
        kept,
        num_listed=len(table),
        name=called,
        missing=missing,
        extra=extra,
        left_out=left_out,
    )
    if box_rows is not None:
        manifest = _with_boxes(manifest, box_rows, source, sheets, many_rows, rows)
    return compared(manifest, published, without_positives=_counted_as_present(manifest, uncertain))


def _counted_as_present(manifest: Manifest, uncertain: Uncertain | Mapping[str, Uncertain]) -> list[str]:
    """Return the labels whose uncertain readings were asked to count as present."""
    return [name for name, policy in policies(uncertain, manifest.labels).items() if policy == "positive"]


def _unlisted(
    root: Path, folders: Sequence[str], listed: "pd.Series[str]"
) -> tuple[tuple[str, ...], tuple[LeftOut, ...]]:
    """Return the images in the folders of images that no table lists, and the other files there."""
    tally, found = Tally(), set[str]()
    for folder in folders:
        if (root / folder).is_dir():
            found.update(images_below(root, "/".join(Path(folder).parts), tally))
    extra = tuple(sorted(found - set(listed)))
    if extra:
        _log.info(f"{len(extra)} images below {root} are listed in no table, for instance {extra[0]}")
    log_left_out(root, tally.entries)
    return extra, tally.entries


@dataclass(frozen=True)
class _Source:
    """How tables are opened, joined and given derived columns."""

    root: Path
    layout: Layout
    explode: object
    join: object
    derive: object
    votes: Votes | None

    def sheets(self, tables: Any, files: object, words: Mapping[str, str | None] | None) -> list[Sheet]:
        if files is not None and tables is not None:
            raise ConfigError(
                f"data.reader.files={files} stands in place of a table: set it or "
                f"data.reader.tables={tables} to null."
            )
        if files is not None:
            opened = [list_files(self.root, files)]
        else:
            opened = open_sheets(self.root, tables, self.layout, parts_by_word(words))
        rows = [exploded(sheet, self.explode) for sheet in opened]
        steps = [made_of(sheet, self.derive) for sheet in rows]
        started = [derived(sheet, now) for sheet, (now, _) in zip(rows, steps, strict=True)]
        beside = joined(self.root, started, self.join)
        whole = [derived(sheet, later) for sheet, (_, later) in zip(beside, steps, strict=True)]
        if self.votes:
            self.votes.check_column(whole)
        return self.votes.chosen(whole) if self.votes else whole

    def box_sheets(self, names: Sequence[str]) -> list[Sheet]:
        """Open the tables of boxes; a derived column that they cannot have is left out."""
        opened = open_sheets(self.root, list(names))
        sheets = [derived(sheet, made_of(sheet, self.derive)[0]) for sheet in opened]
        is_read = self.votes is not None and all(sheet.find(self.votes.column or "") for sheet in sheets)
        return self.votes.chosen(sheets) if self.votes and is_read else sheets


@dataclass(frozen=True)
class Rows:
    """Where in a table what is found: the arguments of :func:`cxrlab.data.readers.table.read`, resolved."""

    folders: ImageFolders
    image_column: str
    path_prefix: str | None
    image_suffix: str
    patient_column: str | None
    patient_pattern: str | None
    split_column: str | None
    words: Mapping[str, str]
    covariates: Mapping[str, str]
    labels: Labels
    votes: Votes | None = None

    def of(self, sheet: Sheet) -> pd.DataFrame:
        """Return the rows of one table as a manifest has them, but for the covariates, which are still text.

        Returns:
            Columns ``image``, ``patient``, ``split``, ``covariate/<name>`` and ``label/<name>``; the index is
            the line in the file. A covariate whose column this table lacks is "".

        Raises:
            ConfigError: If a regular expression is none.
            DataError: If a column is missing, or a cell cannot be used.
        """
        images = self.images(sheet, self.image_column)
        columns: dict[str, object] = {
            "image": images,
            "patient": self._patients(sheet, images),
            "split": self._splits(sheet),
        }
        for name, column in self.covariates.items():
            source = sheet.find(column)
            columns[COVARIATE + name] = sheet.cells[source] if source else pd.Series("", index=images.index)
        columns |= readers_of(sheet, self.votes)
        return pd.concat([pd.DataFrame(columns, index=images.index), self.labels.targets(sheet)], axis=1)

    def images(self, sheet: Sheet, column: str) -> "pd.Series[str]":
        """Return the path under the root of each row's image."""
        return self.folders.paths(
            sheet.column(column, "data.reader.image_column"),
            prefix=self.path_prefix,
            suffix=self.image_suffix,
            table=sheet.path,
            part=sheet.part,
        )

    def _patients(self, sheet: Sheet, images: "pd.Series[str]") -> "pd.Series[str]":
        if self.patient_pattern is not None:
            pattern = compiled(self.patient_pattern, "data.reader.patient_pattern")
            group = min(pattern.groups, 1)
            matches = [pattern.search(image) for image in images]
            patients = pd.Series(
                [match[group] or "" if match else "" for match in matches], index=images.index
            )
            source = f"data.reader.patient_pattern={self.patient_pattern} finds no patient in"
        elif self.patient_column is not None:
            patients = sheet.column(self.patient_column, "data.reader.patient_column")
            source = f"The column {self.patient_column!r} of {sheet.path} is empty for"
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
                f"the first in line {missed.index[0]}. Fill the cell in, take the row out, or set "
                "data.reader.patient_column=null: each image is then a patient of its own."
            )
        return patients

    def _splits(self, sheet: Sheet) -> "pd.Series[str]":
        if self.split_column is None:
            return pd.Series(sheet.part, index=sheet.cells.index, dtype=str)
        words = sheet.column(self.split_column, "data.reader.split_column")
        parts = words.str.lower().map({**self.words, "": ""})
        wrong = words[parts.isna()]
        if len(wrong):
            raise DataError(
                f"The column {self.split_column!r} of {sheet.path} holds {wrong.iloc[0]!r} in line "
                f"{wrong.index[0]}; parts are train, val and test. Say what it means by "
                f"data.reader.part_words={{{wrong.iloc[0]}: val}}, or to read none: "
                f"data.reader.split_column=null."
            )
        return parts


def _covariate_columns(sheet: Sheet, covariates: Mapping[str, str | None] | None) -> dict[str, str]:
    named = {name: column for name, column in (covariates or {}).items() if column is not None}
    return sheet.under(COVARIATE) | named


def _split_column(sheets: Sequence[Sheet], column: str | None) -> str | None:
    by_file = any(sheet.part for sheet in sheets)
    if column is not None and by_file:
        raise ConfigError(
            f"data.reader.split_column={column} and data.reader.tables both give the parts; set one to null, "
            "or name the tables without parts."
        )
    is_known = sheets[0].under(LABEL) or sheets[0].path.suffix.lower() == ".npz"
    if column is None and not by_file and is_known:
        return sheets[0].find("split")
    if column is None and not by_file:
        _warn_of_unread_parts(sheets[0])
    return column


def _warn_of_unread_parts(sheet: Sheet) -> None:
    """Name a column that gives parts and that nothing reads: the images are split anew."""
    for name in sheet.names:
        words = {word.lower() for word in sheet.cells[name].unique()} - {""}
        if len(words) > 1 and words <= set(PART_WORDS):
            _log.warning(
                f"The column {name!r} of {sheet.path} names parts ({', '.join(sorted(words))}) and is not "
                f"read. To keep them: {override('data.reader.split_column', name)} data.split.method=official"
            )


def _warn_of_unread_tables(sheets: Sequence[Sheet]) -> None:
    """Name a table beside those of the parts that is called after a part that none of them gives."""
    given, read_already = {sheet.part for sheet in sheets} - {""}, {sheet.path for sheet in sheets}
    for sheet in sheets if given else []:
        name = sheet.path.name
        told = [word for word in PART_WORDS if re.search(rf"(?<![a-z]){word}(?![a-z])", name)]
        for word, part in PART_WORDS.items():
            beside = sheet.path.with_name(name.replace(told[0], word)) if told else sheet.path
            if part not in given and beside not in read_already and beside.is_file():
                _log.warning(
                    f"{beside.name} lies beside {sheet.path} and is not read. To read it too: "
                    f"{override(f'++data.reader.tables.{part}', beside.name)}"
                )
                return


def _warn_of_lacking_covariates(sheets: Sequence[Sheet], columns: Mapping[str, str]) -> None:
    for name, column in columns.items():
        lacking = [sheet.path.name for sheet in sheets if sheet.find(column) is None]
        if len(lacking) == len(sheets):
            sheets[0].column(column, f"data.reader.covariates.{name}")
        if lacking:
            _log.warning(f"{', '.join(lacking)}: no column {column!r}; the covariate {name} is unknown there")


def _one_row_an_image(table: pd.DataFrame, votes: Votes | None, labels: Labels, where: str) -> pd.DataFrame:
    """Make the rows of one image one, as the readers' rule says, or refuse those that contradict."""
    is_by_finding = labels.classes is not None or bool(labels.presence)
    if votes is not None and votes.rule in ("majority", "mean") and votes.column is None and is_by_finding:
        raise ConfigError(
            f"data.reader.readers.rule={votes.rule} needs data.reader.readers.column: a row of {where} is a "
            "finding, and no reader's word on all of them."
        )
    if votes is not None or is_by_finding:
        return (votes or Votes()).merged(table, where)
    return _once(table, where)


def _once(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Drop rows that say the same of the same image, and refuse those that contradict one another."""
    is_shared = table["image"].duplicated(keep=False)
    if not is_shared.any():
        return table
    shared = table[is_shared]
    repeated = shared.index[shared.duplicated()]
    if len(repeated):
        _log.warning(
            f"{len(repeated)} rows of {where} repeat another row, for instance that of "
            f"{table['image'][repeated[0]]}; each image is used once"
        )
    check_alike(shared, [str(column) for column in table if column != "image"], where)
    return table.drop(index=repeated).reset_index(drop=True)


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    """Turn ages into years, and other covariates that are numbers wherever they are known into numbers."""
    for column in table.columns[table.columns.str.startswith(COVARIATE)]:
        if column == f"{COVARIATE}age":
            ages, wrong = parse_ages(table[column].astype(str))
            if wrong and ages.notna().any():
                are = "age is" if len(wrong) == 1 else "ages are"
                _log.warning(f"{len(wrong)} {are} taken as unknown, such as {wrong[:_NAMED]}")
            if ages.notna().any():
                table[column] = ages
            continue
        numbers = pd.to_numeric(table[column].where(table[column] != ""), errors="coerce").astype(float)
        if numbers.notna().any() and not (numbers.isna() & (table[column] != "")).any():
            table[column] = numbers
    return table


def _check_present(root: Path, listed: int, missing: Sequence[str], where: str, suffix: str) -> None:
    if len(missing) == listed:
        raise MissingFileError(
            f"None of the {listed} images listed in {where} is there: there is no {root / missing[0]}. "
            f"{hint(root, missing[0], suffix)}{root} holds {listing(root)}. Set data.root, "
            "data.reader.image_folder, data.reader.path_prefix or data.reader.image_suffix so that the paths "
            "fit."
        )
    if missing:
        _log.warning(
            f"{len(missing)} of {listed} images listed in {where} are missing, for instance "
            f"{list(missing[:3])}; using the {listed - len(missing)} that are there"
        )


def _with_boxes(
    manifest: Manifest,
    settings: BoxRows,
    source: _Source,
    sheets: Sequence[Sheet],
    tables: Sequence[pd.DataFrame],
    rows: Rows,
) -> Manifest:
    """Return the manifest with the boxes of the findings that it calls present."""
    if settings.tables:
        sheets = source.box_sheets(settings.tables)
        column = settings.image_column or rows.image_column
        images = [rows.images(sheet, column) for sheet in sheets]
    else:
        images = [table["image"] for table in tables]
    where = ", ".join(str(sheet.path) for sheet in sheets)
    found = pd.concat(
        [
            settings.boxes(sheet, paths, rows.labels.classes)
            for sheet, paths in zip(sheets, images, strict=True)
        ],
        ignore_index=True,
    )
    known = known_boxes(found, manifest.table, where)
    if not len(known):
        _log.warning(f"{where}: none of {len(found)} boxes is of an image and a label at hand")
        return manifest
    return replace(manifest, boxes=settings.fractions(known, manifest.root))
