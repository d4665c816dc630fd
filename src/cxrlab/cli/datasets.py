"""``data=auto``: which data set of conf/data lies in a folder; else a description of it to start from."""

import functools
import logging
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from cxrlab.cli.config import config_dir, plain
from cxrlab.errors import MissingFileError, OutputError

if TYPE_CHECKING:
    from cxrlab.data.guess import Guess
    from cxrlab.data.recognise import Recognised

# What reads anything of its kind is no data set.
_GENERAL = ("folder", "synthetic", "table")
TARGET = "cxrlab.data.recognise.read_nothing"

log = logging.getLogger(__name__)


def is_auto(cfg: DictConfig) -> bool:
    """Tell whether the command was asked to look at a folder instead of reading a data set."""
    return bool(OmegaConf.select(cfg, "data.reader._target_") == TARGET)


@functools.cache
def known_readers() -> Mapping[str, Mapping[str, Any]]:
    """Return the settings of the reader of each data set of conf/data, by the name of its option."""
    files = sorted((config_dir() / "data").glob("*.yaml"))
    readers = {path.stem: _reader(path.stem) for path in files if path.stem != "base"}
    return {name: reader for name, reader in readers.items() if reader.get("_target_") != TARGET}


@functools.cache
def _reader(option: str) -> Mapping[str, Any]:
    """Return the reader's settings of one file with those of the files that it builds on."""
    own = OmegaConf.load(config_dir() / "data" / f"{option}.yaml")
    if not isinstance(own, DictConfig):
        return {}
    merged: dict[str, Any] = {}
    for above in own.get("defaults", []):
        if above not in ("_self_", "base"):
            merged |= _reader(str(above))
    reader = own.get("reader")
    return merged | (plain(reader) if isinstance(reader, DictConfig) else {})


def look(root: Path, run_dir: Path) -> None:
    """Say which data set lies in a folder and how to go on, or write a description to start from.

    Args:
        root: The folder.
        run_dir: Where the description goes, as ``conf/data/<name>.yaml``, called after the folder.

    Raises:
        MissingFileError: If there is no such folder, or neither images nor tables are in it.
        OutputError: If the description cannot be written.
    """
    from cxrlab.data.guess import guess
    from cxrlab.data.readers._paths import check_root
    from cxrlab.data.recognise import nothing_found, recognise

    check_root(root)
    readers = known_readers()
    found = recognise(root, readers)
    if found:
        _tell(root, found)
        return
    guessed = guess(root)
    if guessed is None:
        raise MissingFileError(nothing_found(root, [name for name in readers if name not in _GENERAL]))
    log.info("%s is none of the data sets that cxrlab has a description of.", root)
    for line in guessed.seen:
        log.info("  seen: %s", line)
    if guessed.classes:
        command = _command("folder", guessed.root or root)
        log.info("A folder for each class: data=folder reads it. Go on with:\n  %s", command)
        log.info("%s", _patients_of(guessed))
        return
    path = run_dir / "conf" / "data" / f"{_name_of(root, readers)}.yaml"
    _write(path, guessed.lines)
    for line in guessed.needed:
        log.info("  to check: %s", line)
    log.info("A description to start from: %s", path)
    command = _command(path.stem, root, path.parents[1])
    log.info("Fill it in and check it (its folder conf may be moved), and go on with:\n  %s", command)


def _name_of(root: Path, known: Mapping[str, Any]) -> str:
    """Return the folder's name as an option of ``data`` may be called, and as none of cxrlab's is."""
    name = re.sub(r"[^a-z0-9]+", "_", root.resolve().name.lower()).strip("_")[:40].strip("_")
    if not name:
        return "mine"
    is_taken = name in (*known, "base", "auto", "null", "true", "false", "nan", "inf")
    return f"my_{name}" if is_taken or not name[0].isalpha() else name


def _patients_of(guessed: "Guess") -> str:
    """Return how patients are found in the names of files in class folders."""
    named = f"Its files are named like {guessed.name}. " if guessed.name else ""
    if guessed.patient_pattern is not None:
        option = f"'data.reader.patient_pattern=\"{guessed.patient_pattern}\"'"
        return (
            f"{named}Where the start of a name is the patient, add {option}: no patient is then in two parts."
        )
    return (
        f"{named}Where a name tells the patient, add a pattern whose first group is the patient, such as "
        "'data.reader.patient_pattern=\"^([^_]+)_\"' for what stands before the first _. Without one, each "
        "file counts as a patient."
    )


def _tell(root: Path, found: "Sequence[Recognised]") -> None:
    for one in found:
        where = "" if one.root == root else f", in {one.root}"
        log.info("data=%s%s: %s", one.option, where, "; ".join(one.evidence))
    log.info("Go on with:" if len(found) == 1 else "Go on with one of:")
    for one in found:
        log.info("  %s", _command(one.option, one.root))


def _command(option: str, root: Path, conf: Path | None = None) -> str:
    """Return the command to go on with, as a shell takes it."""
    start = "cxrlab prepare" + (f" --config-dir {shlex.quote(str(conf))}" if conf is not None else "")
    return f"{start} data={option} {shlex.quote(f'data.root={_value_of(str(root))}')}"


def _value_of(text: str) -> str:
    """Return a path as Hydra takes it: in quotes where it holds a character of its grammar."""
    plain_text = all(
        character.isalnum() or character in "/._-:+@ ~%" or ord(character) > 127 for character in text
    )
    if plain_text and not text.startswith("~") and text.strip() == text:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _write(path: Path, lines: list[str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    except OSError as error:
        raise OutputError(
            f"The description cannot be written to {path}: {error.strerror or error}."
        ) from error
