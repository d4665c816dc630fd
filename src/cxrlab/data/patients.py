"""Who is one patient: ids that differ in their spelling only are one, and words for nothing are nobody.

Tables lose and gain zeros, decimals, capitals and blanks on their way through spreadsheets and programs. Two
people taken for one cost nothing: they stand in one part. One taken for two stands in training and in test.
"""

import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

# What programs and people write where nothing is known, in lower case.
_NOBODY = r"""
    nan; na; n/a; n.a.; n.a; #n/a; #na; #null!; #value!; <na>; <nan>; <none>; nat; none; null; nil; missing;
    empty; undefined; unknown; unk; not available; not_available; not applicable; not known; no patient;
    no id; n/d; tbd; n / a; unknown patient; not given; unbekannt; inconnu;
    desconocido; -1; ?; ??; ???; -; --; ---; .; ..; _; []; {}; (); (null); (none); (blank); \N
"""
NOBODY = frozenset(word.strip().lower() for word in _NOBODY.split(";")) | {"", "\u2013", "\u2014"}
# The zeros before a number within a name: those of P001, not those of 1.05.
_ZEROS = re.compile(r"(?<![0-9.,])0+(?=[0-9])")
# 13, 013, 13.0, 13,0 and +13; not 1,000, which is a thousand to many, and not 1e5 or 0x1F.
_NUMBER = re.compile(r"\+?(-?)0*([0-9]+?)(?:\.0*|,00?)?")
# 1.23457E+11 is what a spreadsheet shows, and saves, of a number of many digits; 1e5 may be an id.
_ROUNDED = re.compile(r"[0-9]+(?:[.,][0-9]+)?e(\+?)[0-9]+")
# What :func:`patient_key` changes, but for capitals and leading zeros, between names on a line each.
_CHANGED = ("  ", "\n ", " \n", "\n'", "'\n", '\n"', '"\n', "\n=", "\n+", "\n-")
_DECIMAL = re.compile(r"\n[0-9]+[.,]0*(?=\n)")
_LARGEST = 1e18
_HANDFUL = 10
_NAMED = 3

_log = logging.getLogger(__name__)


def patient_key(name: object) -> str:
    """Return what two spellings of one patient have in common; ``""`` for a word that means nobody.

    The same number, however it is written (``13``, ``00000013``, ``13.0``), is one patient; and so is the
    same text but for case, blanks around it and the width of its letters. All else tells people apart: what
    is not plainly a number, such as ``1e5`` or ``0x1F``, stays text.

    Args:
        name: As a table or a program has it: text, or a number.

    Example:
        >>> patient_key("00000013"), patient_key(13.0), patient_key(" P001"), patient_key("1e5")
        ('13', '13', 'p001', '1e5')
        >>> patient_key("NaN"), patient_key(None)
        ('', '')
    """
    text = _text(name)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        # Signs without width, such as a byte-order mark; and digits of other scripts.
        text = "".join(
            str(unicodedata.decimal(sign, sign)) for sign in text if unicodedata.category(sign) != "Cf"
        )
    text = " ".join(text.split())
    if text[:2] == '="' and text[-1] == '"':  # a spreadsheet's way to keep the zeros of ="0013"
        text = text[2:-1]
    text = text.strip("'\" ").casefold()
    if text.isascii() and text.isdigit():
        return text.lstrip("0") or "0"
    if text in NOBODY:
        return ""
    if number := _NUMBER.fullmatch(text):
        return number[2] if number[2] == "0" else number[1] + number[2]
    return unicodedata.normalize("NFKC", text)


def _text(name: object) -> str:
    if isinstance(name, str):
        return name
    if isinstance(name, float | np.floating) and float(name).is_integer():
        return str(int(name))
    return "" if name is None or name is pd.NA or name is pd.NaT or name != name else str(name)


def patient_keys(names: Iterable[object]) -> list[str]:
    """Return the key of each patient, see :func:`patient_key`; each spelling is looked at once."""
    known: dict[object, str] = {}
    keys = []
    for name in names:
        key = known.get(name)
        if key is None:
            key = known[name] = patient_key(name)
        keys.append(key)
    return keys


def shared_patients(names: Iterable[object], others: Iterable[object]) -> list[str]:
    """Return those of ``names`` who are among ``others``, however they are written; each once, in order.

    Between the patients of two parts it tells whether one leaks into the other.

    Args:
        names: Patients of one table.
        others: Those of another one.

    Example:
        >>> shared_patients(["00000013", "14", "14"], [13.0, 15.0])
        ['00000013']
        >>> shared_patients([0, 1, 2], [3, 4, 5])
        []
    """
    known = set(patient_keys(dict.fromkeys(others))) - {""}
    candidates = list(dict.fromkeys(names))
    shared: dict[str, str] = {}
    for name, key in zip(candidates, patient_keys(candidates), strict=True):
        if key in known:
            shared.setdefault(key, str(name))
    return list(shared.values())


def unified(patients: "pd.Series[Any]") -> tuple["pd.Series[str]", tuple[tuple[str, ...], ...]]:
    """Give each patient one spelling: the most frequent one, of several as frequent the shortest.

    Args:
        patients: Of each image, as text or as numbers.

    Returns:
        Text, ``""`` for nobody; and the spellings of those who had several, the one that is kept first.

    Example:
        >>> names, several = unified(pd.Series(["13", "00000013", "13", "P1", "nan"]))
        >>> names.tolist(), several
        (['13', '13', '13', 'P1', ''], (('13', '00000013'),))
    """
    codes, distinct = pd.factorize(patients)  # -1 where missing
    if not (codes < 0).any() and _are_apart(distinct.tolist()):
        return patients, ()
    texts = [_text(name) for name in distinct]
    keys = patient_keys(distinct)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    order = sorted(range(len(texts)), key=lambda code: (-counts[code], len(texts[code]), texts[code]))
    spellings: dict[str, dict[str, None]] = {}
    for code in order:
        spellings.setdefault(keys[code], {})[texts[code]] = None
    kept = {key: next(iter(of_key)) if key else "" for key, of_key in spellings.items()}
    names = np.array([*(kept[key] for key in keys), ""], dtype=object)[codes]
    several = [tuple(of_key) for key, of_key in spellings.items() if key and len(of_key) > 1]
    return pd.Series(names, index=patients.index, name=patients.name, dtype=str), tuple(sorted(several))


def _are_apart(names: list[Any]) -> bool:
    """Tell quickly of most data sets that their names are of as many patients: 0.3 us a name, not 5."""
    if not names or not all(isinstance(name, str) for name in names):
        return False
    text = "\n".join(names).lower()
    if not text.isascii() or not text.replace("\n", "").isprintable() or text.count("\n") >= len(names):
        return False
    lines = f"\n{text}\n"
    if any(sign in lines for sign in _CHANGED) or _DECIMAL.search(lines):
        return False
    keys = {name.lstrip("0") or "0" for name in text.split("\n")}
    return len(keys) == len(names) and keys.isdisjoint(NOBODY)


def named_spellings(several: Sequence[Sequence[str]]) -> str:
    """Return the first patients with several spellings for a message.

    Example:
        >>> named_spellings([("13", "00000013"), ("14", "14.0")])
        "'13' and '00000013', '14' and '14.0'"
    """
    shown = [" and ".join(repr(name) for name in names[:_NAMED]) for names in several[:_NAMED]]
    return ", ".join(shown) + (", ..." if len(several) > _NAMED else "")


def dominant_patient(patients: "pd.Series[Any]") -> tuple[str, int] | None:
    """Return a patient with a third of all images or more, with their number; None where nobody has so many.

    Such a patient is often a word for people who are not known. Up to a handful of images is nobody's fault.
    """
    if not len(patients):
        return None
    counts = patients.value_counts()
    most = int(counts.iloc[0])
    return (str(counts.index[0]), most) if most >= _HANDFUL and 3 * most >= len(patients) else None


def rounded_patients(patients: "pd.Series[Any]") -> list[str]:
    """Return the patients whose id is a number that a spreadsheet rounded, such as ``1.23457E+11``.

    One such as ``1e5`` only where there is a patient ``100000`` too: whether they are one is not certain.
    """
    names = list(map(str, patients.unique()))
    rounded = []
    keys: set[str] | None = None
    for name in names:
        match = _ROUNDED.fullmatch(name.strip().casefold())
        if match is None:
            continue
        keys = set(patient_keys(names)) if keys is None else keys
        value = float(match[0].replace(",", "."))
        if match[1] or (value < _LARGEST and value.is_integer() and str(int(value)) in keys):
            rounded.append(name)
    return rounded


def padded_patients(patients: "pd.Series[Any]") -> list[tuple[str, str]]:
    """Return pairs of patients whose ids differ in zeros before a number only, such as ``P1`` and ``P001``.

    Whether they are one is not certain: ids may be written with and without zeros, or have another meaning.

    Example:
        >>> padded_patients(pd.Series(["P1", "P2", "P001", "1.05", "1.5"]))
        [('P1', 'P001')]
    """
    names = list(map(str, patients.unique()))
    first: dict[str, str] = {}
    pairs = []
    for name in names:
        short = _ZEROS.sub("", name.casefold())
        if first.setdefault(short, name) != name:
            pairs.append((first[short], name))
    return pairs


def warn_of_patients(patients: "pd.Series[Any]", where: object) -> None:
    """Warn of a patient with a third of all images, and of ids that may be written in two ways or rounded.

    Args:
        patients: Of each image.
        where: Of what data, for the message.
    """
    if (dominant := dominant_patient(patients)) is not None:
        _log.warning(
            "%d of the %d images of %s are of one patient, %r: if that is a word for patients who are not "
            "known, they may stand elsewhere too, and all of these images are in one part",
            dominant[1], len(patients), where, dominant[0],
        )  # fmt: skip
    if padded := padded_patients(patients):
        _log.warning(
            "%d patients of %s have ids that differ in zeros only, such as %r and %r, and count as two: if "
            "they are one, who may be in both training and test, write them alike",
            len(padded), where, *padded[0],
        )  # fmt: skip
    if rounded := rounded_patients(patients):
        _log.warning(
            "%d patients of %s, such as %r, look like numbers that a spreadsheet rounded: several people may "
            "have become one, or one have another id elsewhere. Take the ids from the original table",
            len(rounded), where, rounded[0],
        )  # fmt: skip
