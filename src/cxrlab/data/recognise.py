"""Which of the known data sets lies in a folder, by the names of files and the columns of tables."""

import gzip
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from cxrlab.data.readers import nih
from cxrlab.data.readers._content import plain_or_gz
from cxrlab.data.readers._paths import folders_below, listing
from cxrlab.errors import ConfigError

READERS = "cxrlab.data.readers"

# Readers of one data set, by the class folders that it has; those of others stand in their settings.
_CLASS_FOLDERS = {
    f"{READERS}.folders.read_pneumonia": ("NORMAL", "PNEUMONIA"),
    f"{READERS}.folders.read_pneumonia_classes": ("NORMAL", "PNEUMONIA"),
    f"{READERS}.folders.read_malaria": ("Parasitized", "Uninfected"),
}
_SAMPLE = {"nih_sample": ("sample_labels.csv",)}
_PARTS = ("train", "val", "valid", "validation", "test")
_HEAD = 2**16
_SEPARATORS = (",", ";", "\t", "|")
_LINES = 5
_FILES = 3


def read_nothing(root: Path) -> Any:
    """Refuse to read: ``data=auto`` is for looking at a folder only.

    Raises:
        ConfigError: Always.
    """
    raise ConfigError(
        f"data=auto names no data set. What lies in data.root={root} is told by: cxrlab prepare data=auto "
        f"data.root={root}"
    )


@dataclass(frozen=True)
class Recognised:
    """A known data set that was found.

    Attributes:
        option: As ``data=`` takes it.
        root: As ``data.root`` takes it.
        evidence: What was seen, for a person.
    """

    option: str
    root: Path
    evidence: tuple[str, ...]


def recognise(root: Path, settings: Mapping[str, Mapping[str, Any]]) -> list[Recognised]:
    """Return the known data sets whose files lie in a folder, or one or two folders below or above it.

    Names of files and the first lines of tables are looked at, and no image: a folder of 100,000 takes no
    longer than one of ten.

    Args:
        root: The folder.
        settings: The settings of each data set's reader, by the name of its option; see ``conf/data``.

    Returns:
        Those of the folder itself, else of folders below, else of folders above; those with the most evidence
        first.
    """
    places = [[root], folders_below(root), list(root.resolve().parents)[:2]]
    for folders in places:
        found = [
            Recognised(option, folder, tuple(evidence))
            for folder in folders
            for option, reader in settings.items()
            if (evidence := _evidence(folder, option, reader))
        ]
        if found:
            outer = [one for one in found if not any(_is_within(one, other) for other in found)]
            return sorted(outer, key=lambda one: (-len(one.evidence), len(str(one.root)), one.option))
    return []


def _is_within(one: Recognised, other: Recognised) -> bool:
    """Tell whether it is a part of the other, such as the folder train of the same data set."""
    return one.option == other.option and other.root in one.root.parents


def _evidence(folder: Path, option: str, reader: Mapping[str, Any]) -> list[str]:
    """Return what speaks for a data set in a folder; nothing where anything that it needs is missing."""
    target = reader.get("_target_", "")
    try:
        if target == f"{READERS}.table.read":
            return _table_evidence(folder, reader)
        if target == f"{READERS}.nih.read":
            return _nih_evidence(folder, option)
        if target.startswith(f"{READERS}.folders."):
            return _class_evidence(folder, reader)
    except OSError:  # a folder that may not be looked into
        return []
    return []


def _nih_evidence(folder: Path, option: str) -> list[str]:
    own = [name for names in _SAMPLE.values() for name in names]
    tables = _SAMPLE.get(option) or [name for name in nih.TABLES if name not in own]
    table = next((path for name in tables if (path := plain_or_gz(folder / name))), None)
    if table is None or not {"image index", "finding labels", "patient id"} <= columns_of(table):
        return []
    helpers = (*nih.BOXES, *(name for names in nih.LISTS.values() for name in names))
    return [
        f"{table.name} with Image Index, Finding Labels, Patient ID",
        *(path.name for name in helpers if (path := plain_or_gz(folder / name))),
    ]


def _class_evidence(folder: Path, reader: Mapping[str, Any]) -> list[str]:
    counted = (reader.get("published") or {}).get("positives") or {}
    classes = _CLASS_FOLDERS.get(reader["_target_"]) or tuple(counted)
    if len(classes) < 2:
        return []
    parts = [part for part in _PARTS if all((folder / part / name).is_dir() for name in classes)]
    if "pneumonia" not in reader["_target_"]:
        parts += [""] * all((folder / name).is_dir() for name in classes)
    elif "train" not in parts:
        return []
    folders = ", ".join(classes)
    return [f"{part}/ with the folders {folders}" if part else f"the folders {folders}" for part in parts]


def _table_evidence(folder: Path, reader: Mapping[str, Any]) -> list[str]:
    if reader.get("files"):
        return _file_evidence(folder, reader)
    tables = _names(reader.get("tables"))
    joins = reader.get("join") or []
    files = {name: plain_or_gz(folder / name) for name in [*tables, *(join["table"] for join in joins)]}
    if not tables or None in files.values():
        return []
    layout = reader.get("columns")
    first = files[tables[0]]
    if isinstance(layout, str):
        lines = list(islice(_lines(first), _LINES)) if first else []
        if not lines or not all(re.fullmatch(layout, line.strip()) for line in lines):
            return []
        return [f"{path.name} with lines like {lines[0].strip()!r}" for path in files.values() if path]
    if first is not None and first.suffix == ".npz":
        return [f"{first.name} with {', '.join(sorted(_arrays(first))[:_FILES])} …"]
    needed = _needed_columns(reader)
    seen = [columns_of(path) for path in files.values() if path is not None]
    if not needed or not needed <= set().union(*seen) or not needed & seen[0]:
        return []
    shown = [name for name in _written(reader) if name.casefold() in seen[0]][:_FILES]
    return [
        f"{first.name if first else ''} with {', '.join(shown)}",
        *(path.name for name, path in files.items() if path and name != tables[0]),
    ]


def _file_evidence(folder: Path, reader: Mapping[str, Any]) -> list[str]:
    """Look for images by a pattern, and at the names of the first few."""
    patterns = _names(reader["files"])
    images = [path for pattern in patterns for path in islice(folder.glob(pattern), _FILES)]
    tests = [
        setting["pattern"]
        for setting in (reader.get("derive") or {}).values()
        if isinstance(setting, Mapping)
    ]
    tests += [reader["patient_pattern"]] if reader.get("patient_pattern") else []
    names = [path.relative_to(folder).as_posix() for path in images]
    if not names or not all(re.search(test, name) for test in tests for name in names):
        return []
    return [f"images named like {sorted(names)[0]}"]


def _needed_columns(reader: Mapping[str, Any]) -> set[str]:
    """Return the columns without which a table cannot be read, in lower case."""
    return {name.casefold() for name in _written(reader)}


def _written(reader: Mapping[str, Any]) -> list[str]:
    derived = reader.get("derive") or {}
    labels = reader.get("labels")
    classes = (reader.get("classes") or {}).get("columns")
    named = [reader.get("image_column"), reader.get("patient_column"), reader.get("split_column")]
    if classes is not None:
        named += _names(classes)
    elif labels is not None and not isinstance(labels, str):
        named += list(labels.values() if isinstance(labels, Mapping) else labels)
    named += [setting["column"] for setting in (reader.get("presence") or {}).values()]
    for setting in derived.values():
        named += [setting["from"]] if isinstance(setting, Mapping) else re.findall(r"{(\w+)", setting)
    if reader.get("presence"):
        named = [name for name in named if name not in reader["presence"]]
    return list(dict.fromkeys(str(name) for name in named if name is not None and name not in derived))


def _names(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [name for names in value.values() for name in _names(names)]
    if isinstance(value, str):
        return [value]
    return [str(name) for name in value or ()]


def head_of(path: Path) -> str:
    """Return the start of a file as text, unpacked; "" where it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(_HEAD)
        if content.startswith(b"\x1f\x8b"):
            with gzip.open(path) as packed:
                content = packed.read(_HEAD)
    except (OSError, EOFError, zlib.error):
        return ""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "ignore")
    return content.decode("utf-8-sig", "ignore")


def _lines(path: Path) -> Iterator[str]:
    return (line for line in head_of(path).splitlines()[:-1] if line.strip())


def columns_of(path: Path) -> set[str]:
    """Return the columns of a table in lower case, by its first line, or the keys of a JSON file's start."""
    head = head_of(path).lstrip()
    if head.startswith(("[", "{")):
        return {key.casefold() for key in re.findall(r'"([^"\\]*)"\s*:', head)} | _COCO
    line = head.partition("\n")[0].strip("\r")
    separator = max(_SEPARATORS, key=line.count)
    return {cell.strip().strip('"').strip().casefold() for cell in line.split(separator)}


# What a reader of COCO's lists calls the annotations' facts.
_COCO = {"category", "bbox"}


def _arrays(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [member.removesuffix(".npy") for member in archive.namelist()]
    except (OSError, zipfile.BadZipFile):
        return []


def nothing_found(root: Path, options: Sequence[str]) -> str:
    """Return a message for a folder that is none of the known data sets, and holds nothing to start from."""
    return (
        f"data.root={root} holds neither images nor tables, here or one or two folders below: it holds "
        f"{listing(root)}. Known are: {', '.join(options)}."
    )
