"""Which labels a data set has, and where each of them stands: in a column, as words, as run lengths."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from cxrlab.data.manifest import LABEL
from cxrlab.data.readers._classes import Classes, Presence
from cxrlab.data.readers._csv import (
    BadLabel,
    Blank,
    Uncertain,
    bad_labels,
    holds_labels,
    is_word,
    parse_labels,
    policies,
    values_of,
)
from cxrlab.data.readers._sheets import Sheet
from cxrlab.errors import ConfigError, DataError, override, quoted

# A name with one of these words is no finding, though a column of it may hold 0 and 1 only.
_NO_FINDING = frozenset(
    """
    sex gender male female man woman age adult adults pediatric paediatric child fold folds split view
    viewposition frontal lateral portable bedside index idx id unnamed pixel representation reader rater
    race ethnicity insurance smoker smoking pregnant survival survived deceased died death dead
    mortality icu
    """.split()  # noqa: SIM905
)
# A name that is made of these alone is none either; AP alone is a view, but a PA catheter is a device.
_NO_FINDING_ALONE = frozenset(
    """
    is in the set part subset train training test testing val valid validation dev ap pa pos position row
    number no nr year date study patient image offset flag
    """.split()  # noqa: SIM905
)
_NAMED = 6
_MOST_WORDS = 50

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """Where each label stands.

    Attributes:
        order: All labels.
        columns: Column of each label that is one of 1, 0 and -1.
        classes: What words mean, or None.
        presence: Labels that are present where a column holds anything.
        uncertain: What -1 means, by label.
        blank: What an empty cell means.
        on_bad_label: What a cell that is no label means.
    """

    order: tuple[str, ...]
    columns: Mapping[str, str]
    classes: Classes | None
    presence: Mapping[str, Presence]
    uncertain: Mapping[str, Uncertain]
    blank: Blank
    on_bad_label: BadLabel = "raise"

    def targets(self, sheet: Sheet) -> pd.DataFrame:
        """Return the labels of a table, ``label/<name>`` in order: 1 present, 0 absent, NaN unknown.

        Raises:
            DataError: If a column is missing, or a cell holds something else than a label.
        """
        words = self.classes.targets(sheet) if self.classes else None
        found: dict[str, object] = {}
        for label in self.order:
            if label in self.columns:
                found[LABEL + label] = parse_labels(
                    sheet.column(self.columns[label], "data.reader.labels"),
                    name=self.columns[label],
                    path=sheet.path,
                    uncertain=self.uncertain[label],
                    blank=self.blank,
                    on_bad_label=self.on_bad_label,
                    advice=_advice(sheet, self.columns[label]),
                )
                self._warn_of_one_value(sheet, label)
            elif label in self.presence:
                found[LABEL + label] = self.presence[label].targets(sheet)
            elif self.classes is not None and words is not None and label in self.classes.labels:
                found[LABEL + label] = words[:, self.classes.labels.index(label)]
            else:
                found[LABEL + label] = 0.0
        return pd.DataFrame(found, index=sheet.cells.index).astype(float)

    def _warn_of_one_value(self, sheet: Sheet, label: str) -> None:
        """Name the key that says what is meant where nothing is called absent."""
        column = self.columns[label]
        values = values_of(sheet.column(column, "data.reader.labels"))
        if 0.0 in values or 1.0 not in values:
            return
        if -1.0 in values and self.uncertain[label] == "ignore":
            _log.warning(
                f"The column {column!r} of {sheet.path} holds 1 and -1, never 0. Here -1 means uncertain, so "
                "that nothing is absent; if -1 means absent: data.reader.uncertain=negative"
            )
        elif None in values and self.blank == "ignore":
            _log.warning(
                f"The column {column!r} of {sheet.path} holds 1 and empty cells, never 0. An empty cell is "
                "unknown, so that nothing is absent; if empty means absent: data.reader.blank=negative"
            )


def _advice(sheet: Sheet, column: str) -> str:
    """Return what to do about a cell that is no label: a slip, or a column of words."""
    cells = sheet.column(column, "data.reader.labels")
    if _are_words(cells) or 2 < cells.nunique() <= _MOST_WORDS < len(cells):
        classes = f"data.reader.classes={{columns: {quoted(column)}}}"
        return f" For words: {classes!r}; for run lengths: data.reader.presence."
    return " Mend it, or take such cells for unknown: data.reader.on_bad_label=ignore."


def _are_words(cells: "pd.Series[str]") -> bool:
    """Tell whether most cells that hold something hold a word that is no label, and no number."""
    unique = [str(cell) for cell in cells.unique()[:_MOST_WORDS] if str(cell).strip()]
    return sum(map(is_word, unique)) > len(unique) / 2


def _are_numbers(cells: "pd.Series[str]") -> bool:
    """Tell whether a column holds few whole numbers only, as classes are numbered."""
    return 2 < cells.nunique() <= _MOST_WORDS and bool(cells.str.fullmatch(r"[0-9]{1,2}(\.0)?|").all())


def find_labels(
    sheets: Sequence[Sheet],
    labels: Sequence[str] | Mapping[str, str] | None,
    taken: Sequence[str | None],
    *,
    classes: object = None,
    presence: object = None,
    uncertain: Uncertain | Mapping[str, Uncertain] = "ignore",
    blank: Blank = "ignore",
    on_bad_label: BadLabel = "raise",
) -> Labels:
    """Find the labels of a data set.

    Args:
        sheets: Its tables.
        labels: As of :func:`cxrlab.data.readers.table.read`.
        taken: Columns with another use.
        classes: As of the same.
        presence: As of the same.
        uncertain: As of the same.
        blank: As of the same.
        on_bad_label: As of the same.

    Raises:
        ConfigError: If a setting does not fit.
        DataError: If no column holds labels, or one does but for some cells.
    """
    words = None if classes is None else Classes.read(classes, sheets, blank)
    masks = {} if presence is None else Presence.read(presence)
    columns: dict[str, str] = {}
    if labels is None:
        order = list(dict.fromkeys([*(words.labels if words else ()), *masks]))
        if not order:
            columns = _columns_with_labels(sheets, taken, on_bad_label)
            order = list(columns)
    else:
        order = list(labels)
        if isinstance(labels, str) or not order or len(set(order)) != len(order):
            raise ConfigError(f"data.reader.labels={labels} must name one column or more, none twice.")
        columns = _named_columns(sheets, labels, words, masks)
    return Labels(
        order=tuple(map(str, order)),
        columns=columns,
        classes=words,
        presence=masks,
        uncertain=policies(uncertain, [str(label) for label in order]),
        blank=blank,
        on_bad_label=on_bad_label,
    )


def _named_columns(
    sheets: Sequence[Sheet],
    labels: Sequence[str] | Mapping[str, str],
    words: Classes | None,
    masks: Mapping[str, Presence],
) -> dict[str, str]:
    """Return the column of each label that the config names and that is neither a word nor run lengths."""
    if isinstance(labels, Mapping):
        return {str(label): str(column) for label, column in labels.items()}
    known = {*(words.labels if words else ()), *masks}
    rest = [str(label) for label in labels if label not in known]
    if words is None:
        return {label: label for label in rest}
    columns = {label: label for label in rest if sheets[0].find(label) is not None}
    never = [label for label in rest if label not in columns]
    if never:
        _log.warning(
            f"{never} of data.reader.labels stand nowhere in the columns {list(words.columns)} of "
            f"{sheets[0].path}: absent in every image. Words there: {', '.join(words.labels[:_NAMED])}"
        )
    return columns


def _columns_with_labels(
    sheets: Sequence[Sheet], taken: Sequence[str | None], on_bad_label: BadLabel
) -> dict[str, str]:
    """Return the columns that hold labels only, by name, but for those whose name is no finding's."""
    first = sheets[0]
    if own := first.under(LABEL):
        return own
    used = {name.casefold() for name in taken if name is not None}
    free = [name for name in first.names if name.casefold() not in used]
    candidates = [name for name in free if _all_hold_labels(sheets, name, on_bad_label)]
    others = [name for name in candidates if is_no_finding(name)]
    labelled = [name for name in candidates if name not in others]
    _refuse_bad_cells(sheets, [name for name in free if name not in candidates and not is_no_finding(name)])
    if others:
        _log.warning(
            f"{first.path}: not taken as labels, for their names are no finding's: {', '.join(others)}. To "
            f"learn one of them: {override('data.reader.labels', [*labelled, others[0]])}"
        )
    if not labelled:
        raise DataError(_no_labels(sheets, free))
    _log.info(f"labels of {first.path}, being the columns that hold labels only: {', '.join(labelled)}")
    return {name: name for name in labelled}


def is_no_finding(name: str) -> bool:
    """Tell whether the name of a column is that of a covariate, a part or the like.

    Example:
        >>> is_no_finding("sex_male"), is_no_finding("PixelRepresentation_DICOM"), is_no_finding("AP/PA")
        (True, True, True)
        >>> is_no_finding("Support Devices"), is_no_finding("PA catheter"), is_no_finding("No Finding")
        (False, False, False)
    """
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)
    lower = {word.lower() for word in words if not word.isdigit()}
    return bool(lower & _NO_FINDING) or lower <= _NO_FINDING_ALONE


def _all_hold_labels(sheets: Sequence[Sheet], name: str, on_bad_label: BadLabel) -> bool:
    columns = [sheet.cells[column] for sheet in sheets if (column := sheet.find(name)) is not None]
    if len(columns) < len(sheets):
        return False
    cells = pd.concat(columns) if len(columns) > 1 else columns[0]
    return holds_labels(cells) or (on_bad_label == "ignore" and len(bad_labels(cells)) > 0)


def _refuse_bad_cells(sheets: Sequence[Sheet], columns: Sequence[str]) -> None:
    """Refuse a column of labels with a slip in it: unasked, it would be left out in silence."""
    for sheet in sheets:
        for name in columns:
            column = sheet.find(name)
            if column is not None and len(wrong := bad_labels(sheet.cells[column])):
                raise DataError(
                    f"The column {name!r} of {sheet.path} holds {wrong.iloc[0]!r} in line "
                    f"{wrong.index.tolist()[0]}, and labels in the others. Mend the cell; or take such "
                    "cells for unknown: data.reader.on_bad_label=ignore; or name the labels without it: "
                    "data.reader.labels=[...]."
                )


def _no_labels(sheets: Sequence[Sheet], free: Sequence[str]) -> str:
    """Return why tables have no labels, and what may help."""
    sheet = sheets[0]
    for other in sheets[1:]:
        lacking = [
            name
            for name in free
            if other.find(name) is None and not is_no_finding(name) and holds_labels(sheet.cells[name])
        ]
        if lacking:
            return (
                f"{other.path} lacks the columns {lacking[:_NAMED]}, which hold the labels of {sheet.path}: "
                "a part without labels can be neither learned nor tested. Leave it out of data.reader.tables."
            )
    words = [
        name
        for name in free
        if 2 <= sheet.cells[name].nunique() <= _MOST_WORDS
        and not is_no_finding(name)
        and _are_words(sheet.cells[name])
    ]
    advice = "Name the columns by data.reader.labels."
    if any(re.search(r"\.(png|jpe?g|dcm)\b", name, re.IGNORECASE) for name in sheet.names):
        advice += " If its first line is no header: data.reader.columns=[image, ...]."
    elif words:
        advice += (
            f" If labels stand as words in a column: 'data.reader.classes={{columns: {quoted(words[0])}}}'. "
            "For run lengths: data.reader.presence."
        )
    elif numbers := [name for name in free if _are_numbers(sheet.cells[name]) and not is_no_finding(name)]:
        meant = "words: {0: null, 1: NAME, 2: NAME}"
        advice += (
            f" If whole numbers stand for classes (null: no finding): "
            f"'data.reader.classes={{columns: {quoted(numbers[0])}, {meant}}}'."
        )
    return (
        f"No column of {sheet.path} holds labels only (1, 0, -1, yes, no or empty): it has "
        f"{[name[:80] for name in sheet.names[:60]]}. {advice}"
    )
