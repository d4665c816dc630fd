"""Labels that stand as words in cells: ``Pneumonia``, ``Mass|Nodule``, ``['effusion', 'cardiomegaly']``."""

import ast
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxrlab.data.readers._csv import BLANKS, Blank
from cxrlab.data.readers._healthy import is_healthy
from cxrlab.data.readers._settings import names, one_of, section
from cxrlab.data.readers._sheets import Sheet
from cxrlab.errors import ConfigError, DataError, override

NONE_WORDS = ("normal", "no finding", "no findings", "nofinding", "none", "healthy", "unremarkable")
# The same in other forms, without the signs between their words.
_NONE_FORMS = frozenset(
    """
    normal normals nofinding nofindings healthy unremarkable negative neg control controls nodisease
    noabnormality noabnormalities noabnormalfinding noabnormalfindings nopathology nothing
    nad noabnormalitydetected noabnormalitiesdetected noabnormalityseen noacuteabnormality
    noacuteabnormalities noacutefinding noacutefindings noacutedisease noacutepathology
    noacutecardiopulmonaryabnormality noacutecardiopulmonarydisease noacutecardiopulmonaryprocess
    wnl withinnormallimits normalchest normalstudy normalcxr normalxray
    """.split()  # noqa: SIM905
)
_KEYS = {"columns": None, "words": None, "none": None, "unknown": (), "separator": None, "others": None}
_OTHERS = ("error", "ignore", "label")
_MARKS = re.compile(r"[|;]")
_COMMAS = re.compile(r"[,|;]")
_BARE_LIST = re.compile(r"\[([^\[\]]*)\]")
_PLAIN_LIST = re.compile(r"\['[^'\\]*'(?:, ?'[^'\\]*')*\]")
_ITEM = re.compile(r"'([^'\\]*)'")
_NAMED = 8
_SHOWN = 20
_MOST_COMPARED = 40  # labels of a sheet of one's own, not of a vocabulary

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Classes:
    """What the words in some columns mean.

    Attributes:
        columns: Columns with words.
        meanings: Labels of each word, in lower case; () for a word that means no finding.
        unknown: Words that leave all labels of a row unknown but those that its other words name.
        separator: Between the words of a cell; None for a list in the text, else ``|`` and ``;``.
        others: What a word without a meaning is: "error" or "ignore".
        labels: All labels, in order.
        blank: What a row of empty cells means: "ignore" (unknown) or "negative".
    """

    columns: tuple[str, ...]
    meanings: Mapping[str, tuple[str, ...]]
    unknown: frozenset[str]
    separator: str | None
    others: str
    labels: tuple[str, ...]
    blank: Blank

    @classmethod
    def read(cls, setting: object, sheets: Sequence[Sheet], blank: Blank) -> "Classes":
        """Read ``data.reader.classes``.

        Args:
            setting: A mapping with ``columns``, ``words``, ``none``, ``unknown``, ``separator`` and
                ``others``.
            sheets: The tables, whose words are the labels where ``words`` does not name them.
            blank: What a row of empty cells means.

        Raises:
            ConfigError: If a setting does not fit.
            DataError: If a column is missing.
        """
        key = "data.reader.classes"
        settings = section(setting, key, _KEYS, needs=("columns",))
        words = settings["words"]
        others = settings["others"] or ("label" if words is None else "error")
        one_of(others, f"{key}.others", _OTHERS)
        none = NONE_WORDS if settings["none"] is None else [str(word) for word in settings["none"]]
        columns = tuple(names(settings["columns"], f"{key}.columns"))
        unknown = frozenset(
            map(plain, [settings["unknown"]] if isinstance(settings["unknown"], str) else settings["unknown"])
        )
        meanings: dict[str, tuple[str, ...]] = {plain(word): () for word in none}
        meanings |= _meanings(words or {}, f"{key}.words")
        labels = list(dict.fromkeys(label for named in meanings.values() for label in named))
        if others != "ignore":
            found: dict[str, str] = {}
            for sheet in sheets:
                for column in columns:
                    for cell in sheet.column(column, f"{key}.columns").unique():
                        found |= {
                            plain(word): word
                            for word in reversed(split_words(str(cell), settings["separator"]))
                        }
            named = {*meanings, *unknown, *BLANKS}
            new = {word: name for word, name in found.items() if word not in named}
            if settings["none"] is None:
                healthy = [word for word in new if is_none_word(word)]
                meanings |= {word: () for word in healthy}
                new = {word: name for word, name in new.items() if word not in healthy}
        if others == "label":
            if settings["none"] is None:
                _warn_of_look_alikes(list(new.values()), labels, columns, sheets[0])
            if settings["separator"] is None:
                _warn_of_commas(list(new.values()), columns, sheets[0])
            meanings |= {word: (name,) for word, name in new.items()}
            labels += sorted(set(new.values()) - set(labels), key=str.casefold)
            if labels:
                _log.info(f"labels of {sheets[0].path}, being the words of {list(columns)}: {_shown(labels)}")
        if not labels:
            raise DataError(
                f"The columns {list(columns)} of {sheets[0].path} hold no word that means a finding."
            )
        return cls(columns, meanings, unknown, settings["separator"], others, tuple(labels), blank)

    def targets(self, sheet: Sheet) -> npt.NDArray[np.float32]:
        """Return 1 present, 0 absent, NaN unknown, shape ``(N, L)`` of a table.

        Raises:
            DataError: If a word is unknown, with its line.
        """
        number = len(self.labels)
        present = np.zeros((len(sheet.cells), number), dtype=bool)
        is_blank = np.ones(len(sheet.cells), dtype=bool)
        is_unknown = np.zeros(len(sheet.cells), dtype=bool)
        place = {label: index for index, label in enumerate(self.labels)}
        for column in self.columns:
            cells = sheet.column(column, "data.reader.classes.columns")
            codes, unique = pd.factorize(cells)
            shows = np.zeros((len(unique), number), dtype=bool)
            empty, vague = np.zeros((2, len(unique)), dtype=bool)
            for row, cell in enumerate(map(str, unique)):
                empty[row] = plain(cell) in BLANKS and plain(cell) not in self.meanings
                for word in split_words(cell, self.separator):
                    vague[row] |= plain(word) in self.unknown
                    for label in self._labels_of(word, column, sheet, cells):
                        shows[row, place[label]] = True
            present |= shows[codes]
            is_blank &= empty[codes]
            is_unknown |= vague[codes]
        targets = present.astype(np.float32)
        lacking = is_unknown | (is_blank if self.blank == "ignore" else False)
        targets[lacking[:, None] & ~present] = np.nan
        if is_blank.any() and self.blank == "ignore" and not (targets == 0).all(axis=1).any():
            _log.warning(
                f"{is_blank.sum()} rows of {sheet.path} have no word in {list(self.columns)}: their labels "
                "are unknown; no row says that nothing is found. If an empty cell means no finding: "
                "data.reader.blank=negative"
            )
        return targets

    def _labels_of(self, word: str, column: str, sheet: Sheet, cells: "pd.Series[str]") -> tuple[str, ...]:
        labels = self.meanings.get(plain(word))
        if labels is not None:
            return labels
        if self.others == "ignore" or plain(word) in self.unknown or plain(word) in BLANKS:
            return ()
        line = cells.index[cells.map(lambda cell: word in split_words(str(cell), self.separator))][0]
        more = f" and {len(self.meanings) - _NAMED} more" if len(self.meanings) > _NAMED else ""
        raise DataError(
            f"The column {column!r} of {sheet.path} holds {word!r} in line {line}, which "
            f"data.reader.classes.words lacks; it has {list(self.meanings)[:_NAMED]}{more}. Once words is "
            "given, it must name every word but those for no finding. Name it there (null: no finding), or "
            "set data.reader.classes.others=ignore, which takes the words that it lacks for no finding."
        )

    def of_word(self, word: str) -> tuple[str, ...]:
        """Return the labels of a word, () where it has none."""
        return self.meanings.get(plain(word), ())


# YAML reads these words as booleans, in any case, unless they stand in quotes.
_BOOLEANS = {True: ("yes", "true", "on"), False: ("no", "false", "off")}


def _shown(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(labels[:_SHOWN]) + more


def is_none_word(word: str) -> bool:
    """Tell whether a word means no finding where the config does not say which words do.

    Example:
        >>> [is_none_word(word) for word in ("NAD", "No acute findings", "normal", "Nodule")]
        [True, True, True, False]
    """
    return plain(word) in NONE_WORDS or re.sub(r"[^a-z]", "", plain(word)) in _NONE_FORMS


def look_alikes(words: Sequence[str]) -> dict[str, str | None]:
    """Return the words that may be no labels of their own, and what each may mean; None: no finding.

    Example:
        >>> look_alikes(["Pneumonia", "RLL pneumonia", "pneumonia?", "no disease seen", "Mass"])
        {'RLL pneumonia': 'Pneumonia', 'pneumonia?': 'Pneumonia', 'no disease seen': None}
    """
    if len(words) > _MOST_COMPARED:
        return {}
    pieces = {word: re.findall(r"\w+", plain(word)) for word in words}
    found: dict[str, str | None] = {}
    for word, parts in pieces.items():
        if is_healthy(word):
            found[word] = None
            continue
        text = f" {' '.join(parts)} "
        inner = [
            other
            for other, few in pieces.items()
            if few and f" {' '.join(few)} " in text and (len(few), len(other)) < (len(parts), len(word))
        ]
        if inner:
            found[word] = max(inner, key=lambda other: (len(pieces[other]), -len(other)))
    return found


def _warn_of_look_alikes(
    words: Sequence[str], labels: Sequence[str], columns: Sequence[str], sheet: Sheet
) -> None:
    """Say so where a word that is to be a label of its own looks like another one, or like no finding."""
    alike = {word: meant for word, meant in look_alikes([*labels, *words]).items() if word in words}
    if alike:
        shown = [
            f"{word!r} looks like {'no finding' if meant is None else repr(meant)}"
            for word, meant in list(alike.items())[:_NAMED]
        ]
        more = f" and {len(alike) - _NAMED} more" if len(alike) > _NAMED else ""
        _log.warning(
            f"Words of {list(columns)} in {sheet.path} are each a label: {', '.join(shown)}{more}. "
            "Say what they mean in data.reader.classes.words (null: no finding), or that they say nothing "
            "in data.reader.classes.unknown."
        )


def _warn_of_commas(words: Sequence[str], columns: Sequence[str], sheet: Sheet) -> None:
    """Say so where words look like several with commas between them: one piece stands in two of them."""
    pieces = Counter(piece for word in words for piece in {plain(piece) for piece in word.split(",")})
    several = [
        word for word in words if "," in word and any(pieces[plain(piece)] > 1 for piece in word.split(","))
    ]
    if several:
        _log.warning(
            f"{len(several)} words in {list(columns)} of {sheet.path} have commas, such as {several[0]!r}, "
            "and are a label each. If they are several words: "
            + override("data.reader.classes.separator", ",")
        )


def _meanings(words: object, key: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(words, Mapping):
        raise ConfigError(f"{key}={words} must be a mapping of words to a label, a list of labels, or null.")
    meant: dict[str, tuple[str, ...]] = {}
    for word, meaning in words.items():
        labels = _named(meaning, f"{key}.{word}")
        meant |= dict.fromkeys(_BOOLEANS[word] if isinstance(word, bool) else (plain(str(word)),), labels)
    return meant


def _named(meaning: object, key: str) -> tuple[str, ...]:
    return () if meaning is None or meaning in ("", []) else tuple(names(meaning, key))


@lru_cache(maxsize=2**14)
def plain(word: str) -> str:
    """Return a word as words are compared: in lower case, single blanks, whole numbers without decimals.

    Example:
        >>> plain(" No  Finding"), plain("1.0")
        ('no finding', '1')
    """
    text = " ".join(word.split()).casefold()
    return text[: text.index(".")] if re.fullmatch(r"-?\d+\.0+", text) else text


def split_words(cell: str, separator: str | None = None) -> list[str]:
    """Return the words of a cell.

    Args:
        cell: One word; several with a separator between them; or a list, as Python or JSON write it.
        separator: Between them; None for ``|`` and ``;``.

    Example:
        >>> split_words("Mass | Nodule"), split_words("['COPD signs', ' nodule', nan]"), split_words("[]")
        (['Mass', 'Nodule'], ['COPD signs', 'nodule'], [])
    """
    text = cell.strip()
    values: Sequence[Any] | None = listed(text) if text.startswith(("[", "(", "{")) else None
    if values is None:
        bare = _BARE_LIST.fullmatch(text)  # [Mass, Nodule], as YAML writes a list
        mark = re.compile(re.escape(separator)) if separator else _MARKS if bare is None else _COMMAS
        values = mark.split(text if bare is None else bare[1])
    words = [" ".join(str(value).split()) for value in values if value is not None]
    return [word for word in words if word and (len(values) == 1 or word.casefold() not in BLANKS)]


def listed(text: str) -> Sequence[Any] | None:
    """Return a list that a cell holds as text, whether Python or JSON wrote it; None where it holds none."""
    if _PLAIN_LIST.fullmatch(text):  # as nearly all are: a tenth of the time
        return _ITEM.findall(text)
    if "," not in text:  # ['a' 'b'], as NumPy prints it; Python would join the two
        text = re.sub(r"(['\"])\s+(?=['\"])", r"\1, ", text)
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text if read is json.loads else re.sub(r"\bnan\b", "None", text))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, dict):
            return [value]
        return list(value) if isinstance(value, list | tuple | set) else None
    return None


@dataclass(frozen=True)
class Presence:
    """A label that is present where a column holds anything, such as run lengths of a mask."""

    column: str
    absent: frozenset[str]

    @classmethod
    def read(cls, setting: object) -> "dict[str, Presence]":
        """Read ``data.reader.presence``: ``{label: {column: c, absent: ['-1', '']}}``.

        Raises:
            ConfigError: If a setting does not fit.
        """
        if not isinstance(setting, Mapping) or not setting:
            raise ConfigError(
                f"data.reader.presence={setting} must be a mapping of labels to {{column: ...}}."
            )
        found: dict[str, Presence] = {}
        for label, value in setting.items():
            key = f"data.reader.presence.{label}"
            given = {"column": value} if isinstance(value, str) else value
            settings = section(given, key, {"column": None, "absent": ("-1", "")}, needs=("column",))
            absent = [settings["absent"]] if isinstance(settings["absent"], str) else settings["absent"]
            found[str(label)] = cls(str(settings["column"]), frozenset(plain(str(word)) for word in absent))
        return found

    def targets(self, sheet: Sheet) -> npt.NDArray[np.float32]:
        """Return 1 present and 0 absent, shape ``(N,)``.

        Raises:
            DataError: If the column is missing.
        """
        codes, unique = pd.factorize(sheet.column(self.column, "data.reader.presence"))
        return np.array([plain(str(word)) not in self.absent for word in unique], dtype=np.float32)[codes]
