"""Where the images of a table lie: in one folder, in one of several, or anywhere below."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

import pandas as pd

from cxrlab.data.readers._paths import listing, paths_under_root, present
from cxrlab.data.readers._settings import PART_WORDS, names
from cxrlab.errors import ConfigError, DataError, MissingFileError

_NAMED = 3
_MOST_LOOKED_AT = 50_000


class ImageFolders:
    """The folders that images lie in.

    Args:
        root: The data set's.
        folder: A folder below it, a glob pattern such as ``images_*/images``, or a list of them; "" for the
            root.
        search: Whether an image may lie anywhere below them, and is found by its name.

    Raises:
        ConfigError: If a folder is absolute or leaves the root.
        MissingFileError: If a pattern matches no folder.
    """

    def __init__(self, root: Path, folder: object, *, search: bool) -> None:
        self.root = root
        self.folders = glob_folders(root, folder)
        self._files: dict[str, list[str]] | None = None
        if search:
            self._files = {}
            for one in self.folders:
                for name, paths in walk_images(root, one).items():
                    known = self._files.setdefault(name, [])
                    known += [path for path in paths if path not in known]

    def paths(
        self, cells: "pd.Series[str]", *, prefix: str | None, suffix: str, table: Path, part: str = ""
    ) -> "pd.Series[str]":
        """Return the path of each image that a table names; one that lies nowhere is in the first folder.

        Args:
            cells: As the table has them; the index is the line.
            prefix: Regular expression; what it matches at the start of a path is taken off.
            suffix: Put at the end of each path.
            table: For messages.
            part: Of the whole table, where it has one: of several places, one named after it is meant.

        Raises:
            ConfigError: If the prefix is no regular expression.
            DataError: If a path cannot be used, or an image lies in two places.
        """
        is_plain = self._files is None and len(self.folders) == 1
        folder = self.folders[0] if is_plain else ""
        texts = paths_under_root(cells, folder=folder, prefix=prefix, suffix=suffix, path=table)
        if is_plain:
            return texts
        unique = texts.unique().tolist()
        places = self._searched(unique) if self._files is not None else self._looked_up(unique)
        places = {
            text: [path for path in there if _is_of_part(path, part)] or there if len(there) > 1 else there
            for text, there in places.items()
        }
        twice = [text for text in unique if len(places[text]) > 1]
        if twice:
            raise DataError(
                f"{len(twice)} images of {table} lie in more than one folder, for instance {twice[0]}: "
                f"{places[twice[0]][:_NAMED]} below {self.root}. Remove one, or set data.reader.image_folder "
                "so that only one is looked into."
            )
        first = f"{self.folders[0]}/" if self.folders[0] else ""
        found = {text: there[0] if there else first + text for text, there in places.items()}
        return texts.map(found)

    def _searched(self, texts: Sequence[str]) -> dict[str, list[str]]:
        places = {}
        for text in texts:
            there = (self._files or {}).get(text.rpartition("/")[2], [])
            within = [path for path in there if path == text or path.endswith(f"/{text}")]
            places[text] = within or there
        return places

    def _looked_up(self, texts: Sequence[str]) -> dict[str, list[str]]:
        places: dict[str, list[str]] = {text: [] for text in texts}
        for folder in self.folders:
            paths = [f"{folder}/{text}" if folder else text for text in texts]
            for text, path, is_there in zip(texts, paths, present(self.root, paths), strict=True):
                if is_there:
                    places[text].append(path)
        return places


def _other_suffix(there: Path, suffix: str) -> str:
    """Return what to set where an image is there with another suffix than the table or the config says."""
    if suffix:
        return f"There is {there}: set data.reader.image_suffix={there.suffix or chr(39) * 2}. "
    stem = r"{stem: {from: COLUMN, pattern: '^(.*)[.]'}}"
    return (
        f'There is {there}, with another suffix than in the table: "data.reader.derive={stem}" (COLUMN being '
        "the one with the images), data.reader.image_column=stem and "
        f"data.reader.image_suffix={there.suffix}. "
    )


def hint(root: Path, missing: str, suffix: str = "") -> str:
    """Return a sentence with its blank on what lies near a path that is not there; "" where nothing does.

    Args:
        root: The data set's.
        missing: Path under it.
        suffix: Of the config, which stands at its end.
    """
    place, parts = root, missing.split("/")
    for position, part in enumerate(parts):
        if not place.is_dir():
            return ""
        entries = sorted(path.name for path in place.iterdir())
        if part in entries:
            place /= part
            continue
        if same := [name for name in entries if name.casefold() == part.casefold()]:
            return f"There is {place / same[0]}, which differs in case: write it alike. "
        if same := [name for name in entries if normalize("NFC", name) == normalize("NFC", part)]:
            return (
                f"There is {place / same[0]}, whose accents are written in another form of Unicode: write it "
                "alike; convmv -f utf8 -t utf8 --nfc --notest renames files. "
            )
        if position == len(parts) - 1:
            longer = [Path(name).suffix for name in entries if Path(name).stem == part]
            if longer:
                return f"There is {place / part}{longer[0]}: set data.reader.image_suffix={longer[0]}. "
            stem = re.sub(r"\.[^.]*$", "", part)
            if others := [name for name in entries if Path(name).stem == stem]:
                return _other_suffix(place / others[0], suffix)
        break
    for looked, (folder, _, files) in enumerate(os.walk(root)):
        found = next((name for name in sorted(files) if parts[-1] in (name, Path(name).stem)), None)
        if found is not None:
            suffix = "" if found == parts[-1] else f" and data.reader.image_suffix={Path(found).suffix}"
            keys = f"data.reader.image_folder (or data.reader.search=true){suffix}"
            return f"There is {Path(folder) / found}: set {keys}. "
        if looked > _MOST_LOOKED_AT:
            break
    return ""


def _is_of_part(path: str, part: str) -> bool:
    """Tell whether a folder in a path is named after a part: ``test_images/1.png``."""
    words = re.split(r"[^a-z]+", path.rpartition("/")[0].lower())
    return part != "" and any(PART_WORDS.get(word) == part for word in words)


def walk_images(root: Path, folder: str) -> dict[str, list[str]]:
    """Return the paths under ``root`` of all files below a folder of it, by name; links are followed once."""
    paths: dict[str, list[str]] = {}
    seen: set[str] = set()
    for place, folders, files in os.walk(root / folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        under = os.path.relpath(place, root).replace(os.sep, "/")
        start = "" if under == "." else f"{under}/"
        for name in files:
            paths.setdefault(name, []).append(start + name)
    return paths


def glob_folders(root: Path, folders: object) -> list[str]:
    """Return the folders below ``root`` that names or glob patterns give, sorted within each pattern.

    Raises:
        ConfigError: If one is absolute or leaves the root.
        MissingFileError: If a pattern matches no folder.
    """
    found: list[str] = []
    for folder in names(folders, "data.reader.image_folder") if folders != "" else [""]:
        if not re.search(r"[*?\[]", folder):
            found.append(folder)
            continue
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise ConfigError(
                f"data.reader.image_folder={folder} must be a folder under data.root, or empty."
            )
        matches = sorted(path.relative_to(root).as_posix() for path in root.glob(folder) if path.is_dir())
        if not matches:
            raise MissingFileError(
                f"No folder fits data.reader.image_folder={folder}: data.root={root} holds {listing(root)}."
            )
        found += matches
    return list(dict.fromkeys(found))
