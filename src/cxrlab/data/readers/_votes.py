"""Several rows of one image, one a reader or one a finding, as one row."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cxrlab.data.manifest import LABEL
from cxrlab.data.readers._settings import one_of, section
from cxrlab.data.readers._sheets import Sheet
from cxrlab.errors import ConfigError, DataError, check_range

READER = "\0reader"  # a column beside those of a manifest
_KEYS = {"rule": "any", "column": None, "reader": None, "threshold": 0.5}
_RULES = ("any", "majority", "mean", "one")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Votes:
    """How the rows of one image become one.

    Within one reader a label is present where any row says so. Between readers, those who know count: ``any``
    of them suffices; ``majority`` needs more than half, and half of them leave it unknown; ``mean`` needs a
    share of ``threshold`` or more; ``one`` takes the rows of ``reader`` alone.
    """

    rule: str = "any"
    column: str | None = None
    reader: str | None = None
    threshold: float = 0.5

    @classmethod
    def read(cls, setting: object) -> "Votes":
        """Read ``data.reader.readers``.

        Raises:
            ConfigError: If a setting does not fit.
        """
        key = "data.reader.readers"
        settings = section({"rule": setting} if isinstance(setting, str) else setting, key, _KEYS)
        one_of(settings["rule"], f"{key}.rule", _RULES)
        check_range(f"{key}.threshold", settings["threshold"], 0.0, 1.0)
        if settings["rule"] == "one" and (settings["column"] is None or settings["reader"] is None):
            raise ConfigError(f"{key}.rule=one needs {key}.column and {key}.reader, the name of one of them.")
        if settings["rule"] != "one" and settings["reader"] is not None:
            raise ConfigError(f"{key}.reader={settings['reader']} needs {key}.rule=one.")
        if settings["rule"] in ("majority", "mean") and settings["column"] is None:
            pass  # every row is a reader's
        if settings["reader"] is not None:
            settings["reader"] = str(settings["reader"])
        return cls(**settings)

    def check_column(self, sheets: Sequence[Sheet]) -> None:
        """Refuse a column of readers that no table has.

        Raises:
            DataError: If none has it.
        """
        if self.column is not None and not any(sheet.find(self.column) for sheet in sheets):
            sheets[0].column(self.column, "data.reader.readers.column")

    def chosen(self, sheets: Sequence[Sheet]) -> list[Sheet]:
        """Return the tables with the rows of the one reader, where one is named.

        Raises:
            DataError: If no row is of that reader.
        """
        if self.rule != "one" or self.column is None:
            return list(sheets)
        kept = [
            sheet
            if (column := sheet.find(self.column)) is None
            else replace(sheet, cells=sheet.cells[sheet.cells[column] == self.reader])
            for sheet in sheets
        ]
        if not any(len(sheet.cells) for sheet in kept):
            readers = sheets[0].column(self.column, "data.reader.readers.column").unique()
            raise DataError(
                f"No row of {sheets[0].path} is of data.reader.readers.reader={self.reader}; readers are "
                f"{sorted(map(str, readers))[:20]}."
            )
        return kept

    def merged(self, table: pd.DataFrame, where: str) -> pd.DataFrame:
        """Return one row an image.

        Args:
            table: Rows of a manifest, with the column ``READER`` where readers are told apart.
            where: The tables, for messages.

        Raises:
            DataError: If rows of one image differ in something else than labels.
        """
        if not table["image"].duplicated().any():
            return table.drop(columns=READER, errors="ignore")
        labels = [str(name) for name in table if str(name).startswith(LABEL)]
        others = [str(name) for name in table if name not in labels and name != READER]
        check_alike(table, [name for name in others if name != "image"], where)
        codes, images = pd.factorize(table["image"])
        votes, places = table[labels], codes
        if READER in table:
            pairs = pd.DataFrame({"image": codes, "reader": pd.factorize(table[READER])[0]})
            votes = votes.groupby(pd.factorize(pd.MultiIndex.from_frame(pairs))[0]).max()
            places = codes[~pairs.duplicated().to_numpy()]
        grouped = votes.groupby(places)
        decided = self._decided(grouped.max(), grouped.mean())
        first = table[others][~table["image"].duplicated()].reset_index(drop=True)
        _log.info(f"{len(table)} rows of {where} are of {len(images)} images; rule: {self.rule}")
        return pd.concat([first, decided.sort_index().reset_index(drop=True).astype(float)], axis=1)

    def _decided(self, most: pd.DataFrame, share: pd.DataFrame) -> pd.DataFrame:
        if self.rule == "majority":
            return (share > 0.5).astype(np.float32).mask((share == 0.5) | share.isna())
        if self.rule == "mean":
            return (share >= self.threshold).astype(np.float32).mask(share.isna())
        return most


def check_alike(table: pd.DataFrame, columns: Sequence[str], where: str) -> None:
    """Refuse rows of one image that differ in one of ``columns``.

    Raises:
        DataError: If some do.
    """
    twice = table[table["image"].duplicated(keep=False)]
    unlike = twice[["image", *columns]].drop_duplicates()
    unlike = unlike[unlike["image"].duplicated(keep=False)]
    if len(unlike):
        images = list(unlike["image"].unique())
        first = unlike[unlike["image"] == images[0]]
        differing = [column for column in columns if first[column].nunique(dropna=False) > 1]
        labels = any(name.startswith(LABEL) for name in differing)
        raise DataError(
            f"{len(images)} images are listed more than once in {where} with different content: "
            f"{images[:3]}, the first of which differs in {differing}. Keep one row of each"
            + (
                ", or say how the rows of several readers become one: data.reader.readers.rule=majority."
                if labels
                else "."
            )
        )


def readers_of(sheet: Sheet, votes: Votes | None) -> Mapping[str, object]:
    """Return the column ``READER`` of a table, where readers are told apart."""
    if votes is None or votes.column is None:
        return {}
    if sheet.find(votes.column) is None:  # another table has it: here one reader, or their consensus, speaks
        return {READER: pd.Series("", index=sheet.cells.index)}
    return {READER: sheet.column(votes.column, "data.reader.readers.column")}
