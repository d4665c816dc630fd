"""Names of patients, images and folders, none of which may stand in what is passed on."""

import html
import json
import re
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

import pandas as pd

from cxrlab.errors import ConfigError
from cxrlab.files import RunDir, read_json

_LEAST = 6  # characters of a name that is told from an ordinary word or number
_TEXTS = (".json", ".md", ".csv")
_BETWEEN = re.compile(r"[^\w./-]+")  # words of a text; a name that holds such a sign is no word
_ESCAPED = re.compile(r"\\([^\w\s]|_)")  # in Markdown


def run_names(files: RunDir, manifest: pd.DataFrame) -> set[str]:
    """Return the names in a run: its images and patients, as far as they are distinctive, and its folders.

    A patient by the name of 17 is not looked for, since 17 may stand anywhere.

    Args:
        files: Of the run.
        manifest: With the columns ``image`` and ``patient``.

    Raises:
        ConfigError: If its ``audit.json`` is damaged.
    """
    root = str(read_json(files.audit).get("root", "")) if files.audit.is_file() else ""
    folders = {folder for folder in (root, str(files.path.resolve())) if folder.count("/") > 1}
    images = {name for image in manifest["image"].astype(str) for name in _image_names(image)}
    patients = {name for name in manifest["patient"].dropna().astype(str) if _is_distinctive(name)}
    return folders | images | patients


def _image_names(image: str) -> Iterator[str]:
    path = PurePosixPath(image)
    yield image
    if len(path.name) >= _LEAST:
        yield path.name
    if _is_distinctive(path.stem):
        yield path.stem


def _is_distinctive(name: str) -> bool:
    """Tell whether a name is no ordinary word and no number.

    Example:
        >>> [_is_distinctive(name) for name in ("00000001_000", "person17", "pneumonia", "112120")]
        [True, True, False, False]
    """
    return len(name) >= _LEAST and bool(re.search(r"\d", name)) and not name.isdecimal()


def check_no_names(folder: Path, names: Collection[str]) -> None:
    """Refuse texts in a folder in which a name stands.

    Args:
        folder: Its text files are searched as a reader would see them, without JSON's and Markdown's escapes.
        names: Of patients, images and folders, such as :func:`run_names` gives.

    Raises:
        ConfigError: Naming the file and what stands in it.
    """
    plain_names = {_plain(name) for name in names} - {""}
    if not plain_names:
        return
    no_words = {name for name in plain_names if name[0] == "/" or _BETWEEN.search(name)}
    for path in sorted(path for path in folder.iterdir() if path.suffix in _TEXTS):
        text = _readable(path)
        found = sorted((_words(text) & plain_names) | {name for name in no_words if name in text})
        if found:
            raise ConfigError(
                f"{path.name} would hold {found[0]}, the name of an image, a patient or a folder of the "
                "training, and nothing was written. Take it out of name=, licence= or the run's own "
                "model_card.md."
            )


def _plain(text: str) -> str:
    """Return a text on one line, its letters and their accents composed, as file names of a Mac are not."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _readable(path: Path) -> str:
    """Return the text of a file as it stands, and as it is read."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        read = "\n".join(_strings(json.loads(text)))
    else:
        read = html.unescape(_ESCAPED.sub(r"\1", text))
    return _plain(f"{text}\n{read}")


def _strings(value: object) -> Iterator[str]:
    """Give the texts in what a JSON file holds, keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in (*value, *value.values()):
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _words(text: str) -> set[str]:
    words = set(_BETWEEN.split(text))
    words |= {word.strip(".") for word in words}
    return words | {part for word in words for part in word.split("/")}
