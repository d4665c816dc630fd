"""Rows and columns made of others: a path from ids, a label from a name, a row for each item of a list."""

import re
import string
from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from cxrlab.data.readers._classes import listed
from cxrlab.data.readers._paths import compiled
from cxrlab.data.readers._settings import names, section
from cxrlab.data.readers._sheets import Sheet
from cxrlab.errors import ConfigError, DataError

_DERIVED = {"from": None, "pattern": None, "default": None}


def made_of(sheet: Sheet, columns: object) -> tuple[dict[str, object], dict[str, object]]:
    """Return the derived columns that a table has all it takes for, and the others, each in their order.

    What needs no joined table is made before the join, so that a join may go by it.

    Raises:
        ConfigError: If ``columns`` is no mapping.
    """
    if columns is not None and not isinstance(columns, Mapping):
        raise ConfigError(f"data.reader.derive={columns} must be a mapping of new columns.")
    now: dict[str, object] = {}
    later: dict[str, object] = {}
    for name, setting in (columns or {}).items():
        is_there = all(source in now or sheet.find(source) is not None for source in _sources(setting))
        (now if is_there else later)[str(name)] = setting
    return now, later


def _sources(setting: object) -> list[str]:
    if isinstance(setting, str):
        try:
            return [name for _, name, _, _ in string.Formatter().parse(setting) if name]
        except ValueError:
            return []
    return [str(setting["from"])] if isinstance(setting, Mapping) and setting.get("from") else []


def derived(sheet: Sheet, columns: Mapping[str, object]) -> Sheet:
    """Return a table with columns made of others, in their order.

    Args:
        sheet: The table.
        columns: By name, a template such as ``p{subject_id:.2}/{subject_id}``, or a mapping with ``from`` (a
            column), ``pattern`` (a regular expression; its first group, or all that it matches) and
            ``default`` (where nothing matches; None refuses such rows).

    Raises:
        ConfigError: If a setting does not fit.
        DataError: If a column is missing, or a pattern does not match.
    """
    for name, setting in columns.items():
        key = f"data.reader.derive.{name}"
        new = (
            _from_template(sheet, setting, key)
            if isinstance(setting, str)
            else _by_pattern(sheet, setting, key)
        )
        sheet = replace(
            sheet, cells=sheet.cells.assign(**{str(name): pd.Series(new, sheet.cells.index, dtype=str)})
        )
    return sheet


def exploded(sheet: Sheet, columns: object) -> Sheet:
    """Return a table with a row for each item of the lists in some columns.

    Args:
        sheet: The table.
        columns: A column or several, whose lists are equally long in each row; None for none. A cell that is
            no list stands for itself, an empty list for no row.

    Raises:
        DataError: If a column is missing, or lists of a row differ in length.
    """
    if columns is None:
        return sheet
    key = "data.reader.explode"
    found = [str(sheet.column(name, key).name) for name in names(columns, key)]
    lists = {name: [_items(str(cell)) for cell in sheet.cells[name]] for name in found}
    for line, row in zip(sheet.cells.index, zip(*lists.values(), strict=True), strict=True):
        if len({len(items) for items in row}) > 1:
            raise DataError(
                f"The lists of {found} differ in length in line {line} of {sheet.path}: "
                f"{[len(items) for items in row]}."
            )
    whole = {name: pd.Series(items, sheet.cells.index) for name, items in lists.items()}
    cells = sheet.cells.assign(**whole).explode(found).dropna(subset=found)
    return replace(sheet, cells=cells.astype(str))


def _items(cell: str) -> list[str]:
    items = listed(cell) if cell.startswith(("[", "(")) else None
    return [cell] if items is None else [str(item).strip() for item in items]


def _from_template(sheet: Sheet, template: str, key: str) -> list[str]:
    try:
        fields = [(text, name, spec) for text, name, spec, _ in string.Formatter().parse(template)]
    except ValueError as error:
        raise ConfigError(f"{key}={template} is no template: {error}.") from error
    if any(re.search(r"\d{4}|[{}]", spec or "") for _, _, spec in fields):
        raise ConfigError(f"{key}={template} has a format that is none of a path.")
    named = dict.fromkeys(name for _, name, _ in fields if name is not None)
    for name in named:  # a template may name columns only, and reach into nothing
        if not name:
            raise ConfigError(f"{key}={template} must name a column in braces, such as {{image}}.")
    cells = {name: sheet.column(name, key) for name in named}
    try:
        return (
            [
                "".join(
                    text + ("" if name is None else format(row[name], spec or ""))
                    for text, name, spec in fields
                )
                for row in (
                    dict(zip(cells, values, strict=True)) for values in zip(*cells.values(), strict=True)
                )
            ]
            if cells
            else [template] * len(sheet.cells)
        )
    except ValueError as error:
        raise ConfigError(f"{key}={template} does not fit text: {error}.") from error


def _by_pattern(sheet: Sheet, setting: object, key: str) -> list[str]:
    settings = section(setting, key, _DERIVED, needs=("from", "pattern"))
    cells = sheet.column(str(settings["from"]), f"{key}.from")
    pattern = compiled(str(settings["pattern"]), f"{key}.pattern")
    group = min(pattern.groups, 1)
    matches = [pattern.search(cell) for cell in cells]
    default = settings["default"]
    missed = cells[[match is None for match in matches]]
    if len(missed) and default is None:
        raise DataError(
            f"{key}.pattern={pattern.pattern} finds nothing in {len(missed)} of {len(cells)} cells of "
            f"{settings['from']!r} of {sheet.path}, for instance {missed.iloc[0]!r} in line "
            f"{missed.index[0]}. Mend it, or set {key}.default."
        )
    return [(match[group] or "") if match else str(default) for match in matches]
