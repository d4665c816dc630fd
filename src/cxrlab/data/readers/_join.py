"""Columns of other tables, found by keys: labels, parts and facts of an image often stand in a file each."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlab.data.readers._settings import names, one_of, section
from cxrlab.data.readers._sheets import Layout, Sheet, open_sheet
from cxrlab.errors import ConfigError, DataError

_JOIN = {"table": None, "on": None, "take": None, "unmatched": "keep", "columns": None, "separator": None}

_log = logging.getLogger(__name__)


def joined(root: Path, sheets: Sequence[Sheet], joins: object) -> list[Sheet]:
    """Return tables with the columns of others, found by keys.

    Args:
        root: Folder that the tables' names are relative to.
        sheets: The tables; many rows may have the same key.
        joins: A list of mappings with ``table``, ``on`` (a column, several, or here: there), ``take``
            (columns; None for all), ``unmatched`` ("keep" rows without a partner, their cells being empty,
            or "drop" them), ``columns`` and ``separator`` (as of the reader).

    Raises:
        ConfigError: If a setting does not fit.
        MissingFileError: If a table does not exist.
        DataError: If a column is missing, a key stands twice with different content, or a column that both
            have differs between them.
    """
    result = list(sheets)
    for number, join in enumerate([joins] if isinstance(joins, Mapping) else _listed(joins)):
        key = f"data.reader.join[{number}]"
        settings = section(join, key, _JOIN, needs=("table", "on"))
        one_of(settings["unmatched"], f"{key}.unmatched", ("keep", "drop"))
        layout = Layout(settings["columns"], settings["separator"])
        others = [
            open_sheet(root, "", name, f"{key}.table", layout)
            for name in names(settings["table"], f"{key}.table")
        ]
        other = replace(others[0], cells=pd.concat([one.cells for one in others]).fillna(""))
        result = [_joined(sheet, other, settings, key) for sheet in result]
    return result


def _listed(joins: object) -> Sequence[Any]:
    if joins is None:
        return []
    if isinstance(joins, str) or not isinstance(joins, Sequence):
        raise ConfigError(f"data.reader.join={joins} must be a list of mappings with table and on.")
    return joins


def _joined(sheet: Sheet, other: Sheet, settings: Mapping[str, Any], key: str) -> Sheet:
    on = settings["on"]
    pairs = dict(on) if isinstance(on, Mapping) else {name: name for name in names(on, f"{key}.on")}
    here = pd.MultiIndex.from_frame(
        pd.DataFrame({n: _without_decimals(sheet.column(str(n), f"{key}.on")) for n in pairs})
    )
    keys = pd.DataFrame(
        {name: _without_decimals(other.column(str(there), f"{key}.on")) for name, there in pairs.items()}
    )
    used = {other.find(str(there)) for there in pairs.values()}
    if settings["take"] is None:
        taken = [name for name in other.names if name not in used]
    else:
        taken = [
            str(other.column(name, f"{key}.take").name) for name in names(settings["take"], f"{key}.take")
        ]
    values = other.cells[taken]
    _check_unique(keys, values, other, key)
    is_first = ~keys.duplicated().to_numpy()
    places = pd.MultiIndex.from_frame(keys[is_first]).get_indexer(here)
    found = places >= 0
    if not found.any():
        raise DataError(
            f"No row of {sheet.path} has a partner in {other.path} by {key}.on={on}: there "
            f"{keys.iloc[0].tolist()}, here {list(here[0])}."
        )
    columns = {str(name): values[name].to_numpy()[is_first][places] for name in taken}
    partner = pd.DataFrame(columns, index=sheet.cells.index)
    partner[~found] = ""
    cells = _merged(sheet, partner, other, found, key)
    if not found.all():
        does = "left out" if settings["unmatched"] == "drop" else f"without {taken[:3]}"
        _log.warning(
            f"{int((~found).sum())} of {len(cells)} rows of {sheet.path} have no partner in {other.path}: "
            f"{does}"
        )
    return replace(sheet, cells=cells[found] if settings["unmatched"] == "drop" else cells)


def _without_decimals(keys: "pd.Series[str]") -> "pd.Series[str]":
    """Return 1.0 as 1: programs write whole numbers so where others of the column are missing."""
    return keys.str.replace(r"^(\d+)\.0+$", r"\1", regex=True)


def _check_unique(keys: pd.DataFrame, values: pd.DataFrame, other: Sheet, key: str) -> None:
    whole = pd.concat([keys.add_prefix("\0"), values], axis=1)
    twice = keys[keys.duplicated() & ~whole.duplicated()]
    if len(twice):
        raise DataError(
            f"{other.path} has several rows for {twice.iloc[0].tolist()}, the second in line "
            f"{twice.index[0]}, so that {key}.on={list(keys)} does not tell which. Name more columns in on, "
            "or in take those that do not differ; or let data.reader.tables name that table, and join the "
            "other to it."
        )


def _merged(sheet: Sheet, partner: pd.DataFrame, other: Sheet, found: Any, key: str) -> pd.DataFrame:
    """Put the partner's columns beside the table's; one that both have must be the same in both."""
    both = {name: here for name in partner if (here := sheet.find(str(name))) is not None}
    for name, here in both.items():
        differs = found & (partner[name] != sheet.cells[here]).to_numpy()
        if differs.any():
            line = sheet.cells.index[differs][0]
            raise DataError(
                f"The column {name!r} is in {sheet.path} and in {other.path} and differs, in line {line} of "
                f"the first: {sheet.cells[here][differs].iloc[0]!r} and {partner[name][differs].iloc[0]!r}. "
                f"Leave it out of {key}.take, or name it in {key}.on."
            )
    return pd.concat([sheet.cells, partner.drop(columns=list(both))], axis=1)
