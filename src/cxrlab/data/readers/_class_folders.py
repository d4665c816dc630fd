"""The class folders below a root: which they are, in which parts, and the images in them."""

import logging
import shlex
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxrlab.data.manifest import LeftOut
from cxrlab.data.readers._folder_images import (
    BESIDE,
    HIDDEN,
    MASKS,
    NO_IMAGE,
    RUNS,
    Tally,
    count_files,
    entries_of,
    holds_any_images,
    holds_image,
    holds_masks,
    images_below,
    is_hidden,
    is_image,
    is_run,
    log_left_out,
    words_of,
)
from cxrlab.data.readers._healthy import is_healthy
from cxrlab.data.readers._paths import check_root, folders_below, listing
from cxrlab.errors import DataError, MissingFileError

_PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
# What is not for testing; a validation part is cut from it.
_BOTH = frozenset(["trainval", "trainvalid", "trainvalidation", "trainandval", "traindev"])
# Words beside that of a part in the name of its folder.
_OF_PARTS = frozenset(["set", "data", "dataset", "images", "imgs", "folder", "part", "split"])

_TABLES = (".csv", ".tsv", ".xlsx", ".csv.gz")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """The images of a data set in class folders.

    Attributes:
        files: One row an image, sorted by its path within its part and class. Columns ``image`` (path under
            the root), ``part`` ("train", "val", "test" or ""), ``class``, ``file`` (the bare name) and
            ``below`` (path below the class folder).
        left_out: Files that are not used.
    """

    files: pd.DataFrame
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class _ClassFolder:
    name: str  # as it is written
    path: str  # under the root
    images: list[str]


def find_images(root: Path, classes: Sequence[str] | Mapping[str, Sequence[str]] | None) -> Found:
    """Return the images below ``root``, at any depth below their class folders, and what is left out.

    Left out, counted and logged are hidden files and folders, ``__MACOSX``, masks, what cannot be decoded,
    names that are no UTF-8, what lies beside the class folders, and folders that are neither parts nor
    classes.

    Args:
        root: Folder with parts (``train``, ``val``, ``valid`` or ``validation``, ``test``) that hold class
            folders, or with the class folders themselves.
        classes: Names of the class folders, or their other names in lower case by these, each of which must
            be there, in any case; None takes all folders for classes whose names are not those of mere images
            or masks.

    Raises:
        MissingFileError: If there is no root, or folders are missing.
        DataError: If a class folder holds no image, or a folder may not be looked into.
    """
    check_root(root)
    wanted: Mapping[str, Sequence[str]] | None = None
    if classes is not None:
        wanted = classes if isinstance(classes, Mapping) else {name: (name,) for name in classes}
    tally = Tally()
    parts = _parts_in(root, wanted)
    if not parts and not _holds_classes(root, wanted):
        raise MissingFileError(_wrong_layout(root, wanted))
    if parts:
        _tally_beside(root, "", parts, tally)
    rows = []
    for part in parts or [""]:
        for folder in _class_folders(root, part, wanted, tally):
            rows += [
                (image, part_of(part), folder.name, image.rpartition("/")[2],
                 image[len(folder.path) + 1 :])
                for image in folder.images
            ]  # fmt: skip
    files = pd.DataFrame(rows, columns=["image", "part", "class", "file", "below"])
    if not parts:
        files["part"] = _parts_below(files["below"])
    files["class"] = _with_one_spelling(files["class"])
    _warn_of_other_classes(root, files)
    found = Found(files, tally.entries)
    log_left_out(root, found.left_out)
    return found


def part_of(folder: str) -> str:
    """Return the part that a folder's name tells: "train", "val", "test" or "".

    Example:
        >>> part_of("Validation"), part_of("Training Set"), part_of("test_images"), part_of("TB")
        ('val', 'train', 'test', '')
    """
    words = [word for word in words_of(folder) if word not in _OF_PARTS]
    if "".join(words) in _BOTH:
        return "train"
    return _PARTS.get(words[0], "") if len(words) == 1 else ""


def _parts_in(folder: Path, wanted: Mapping[str, Sequence[str]] | None) -> list[str]:
    """Return the folders of parts; of those with more in their name (train_images) such as hold classes.

    One without any class folder, such as a test part whose labels are kept back, is none beside others.
    """
    parts = [
        name
        for name in _folders(folder)
        if name.lower() in _PARTS or (part_of(name) and _holds_several(folder / name, wanted))
    ]
    if wanted is None:
        filled = [name for name in parts if _classes_in(folder / name)]
        beside = [name for name in _classes_in(folder) if name.lower() not in _PARTS]
        return filled or ([] if len(beside) > 1 else parts)
    return [name for name in parts if _named(folder / name, wanted)] or parts


def _holds_several(folder: Path, wanted: Mapping[str, Sequence[str]] | None) -> bool:
    return len(_classes_in(folder)) > 1 if wanted is None else _holds_classes(folder, wanted)


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in entries_of(folder) if entry.is_dir() and not is_hidden(entry.name)]


def _candidates(folder: Path) -> list[str]:
    """Return the folders in a folder that may be classes by their names."""
    return [name for name in _folders(folder) if not holds_masks(name) and not holds_any_images(name)]


def _named(folder: Path, wanted: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the class of each folder in ``folder`` that is one of ``wanted``."""
    class_of = {other.casefold(): name for name, others in wanted.items() for other in (name, *others)}
    return {name: class_of[name.casefold()] for name in _folders(folder) if name.casefold() in class_of}


def _holds_classes(folder: Path, wanted: Mapping[str, Sequence[str]] | None) -> bool:
    if wanted is not None:
        return set(_named(folder, wanted).values()) == set(wanted)
    return bool(_classes_in(folder))


def _classes_in(folder: Path) -> list[str]:
    """Return the class folders in a folder that hold images; none if they are rather data sets or sources."""
    filled = [name for name in _candidates(folder) if holds_image(folder / name)]
    if len(filled) == 1:
        return [] if _is_root(folder / filled[0], alone=True) else filled
    rest = [name for name in filled if not _is_root(folder / name)]
    return rest if len(rest) > 1 else []


def _is_root(folder: Path, *, alone: bool = False) -> bool:
    """Tell whether a folder is no class but holds class folders, one of them healthy, or parts with such.

    Args:
        folder: Without images of its own.
        alone: There is no other folder beside it, so that it can be no class: any two folders are classes.
    """
    inner = _candidates(folder)
    if not inner or any(is_image(entry) for entry in entries_of(folder) if not entry.is_dir()):
        return False
    parts = [name for name in inner if name.lower() in _PARTS]
    if parts:
        return all(len(_candidates(folder / name)) > 1 for name in parts)
    if alone:
        return sum(holds_image(folder / name) for name in inner) > 1
    return len(inner) > 1 and bool(
        not is_healthy(folder.name) and [name for name in inner if is_healthy(name) and not name.isdigit()]
    )


def _fits(folder: Path, wanted: Mapping[str, Sequence[str]] | None) -> bool:
    """Tell whether a folder would do as the root."""
    parts = _parts_in(folder, wanted)
    if parts:
        return any(_holds_classes(folder / name, wanted) for name in parts)
    if wanted is not None:
        return _holds_classes(folder, wanted)
    return len(_classes_in(folder)) > 1


def _wrong_layout(root: Path, wanted: Mapping[str, Sequence[str]] | None) -> str:
    expected = "class folders" if wanted is None else f"class folders {' and '.join(wanted)}"
    message = (
        f"data.root={root} holds neither {expected} nor parts (train, val, test) with them; "
        f"it holds {listing(root)}."
    )
    no_classes = [name for name in _folders(root) if holds_masks(name) or holds_any_images(name)]
    if no_classes and wanted is None:
        message += (
            f" {' and '.join(f'{name}/' for name in no_classes[:2])}: folders of images or of masks are no "
            "classes. Where labels stand in a table or in the names of files, take data=table."
        )
    near = _near_roots(root, wanted)
    tables = [path.name for path in sorted(root.iterdir()) if path.name.lower().endswith(_TABLES)]
    if wanted is None and tables:
        given = shlex.quote(f"data.root={root}")
        message += f" {tables[0]} lies beside: cxrlab prepare data=auto {given} writes a description of it."
    if near:
        choice = near[0] if len(near) == 1 else f"one of {', '.join(map(str, near[:3]))}"
        message += f" Set data.root={choice}." if len(near) == 1 else f" Set data.root to {choice}."
    elif wanted is not None and (others := [name for name in _candidates(root) if holds_image(root / name)]):
        message += f" Other class folders, such as {' and '.join(others[:2])}, are read by data=folder."
    return message


def _near_roots(root: Path, wanted: Mapping[str, Sequence[str]] | None) -> list[Path]:
    """Return the folders that would do as the root: the nearest ones below it, or the one above it.

    That is proposed only if its classes are known as such, one of them being healthy: data sets that lie side
    by side are none.
    """
    below = [folder for folder in folders_below(root) if _can_be_root(folder) and _fits(folder, wanted)]
    below = [folder for folder in below if not _is_of_masks(folder, root)]
    if below:
        depth = min(len(folder.parts) for folder in below)
        return [folder for folder in below if len(folder.parts) == depth]
    folders = _folders(root)
    is_within = any(holds_masks(name) or holds_any_images(name) for name in folders)
    is_within = is_within or (not folders and holds_image(root))
    above = root.resolve().parent
    if not is_within or not _can_be_root(above) or not any(is_healthy(name) for name in _candidates(above)):
        return []
    return [above] if _fits(above, wanted) else []


def class_root(root: Path) -> tuple[Path, list[str]] | None:
    """Return the folder that :func:`read_folder` can read, and its classes; None where there is none.

    That is the root, or else the nearest below it that has parts or a healthy class: other folders in folders
    may be patients.
    """
    for folder in [root, *_near_roots(root, None)]:
        if (folder != root and root not in folder.parents) or not _fits(folder, None):
            continue
        parts = _parts_in(folder, None)
        classes = _classes_in(folder / parts[0] if parts else folder)
        if len(classes) > 1 and (folder == root or parts or any(map(is_healthy, classes))):
            return folder, classes
    return None


def _is_of_masks(folder: Path, root: Path) -> bool:
    """Tell of a folder below the root whether it holds masks only, not images too (Segmentation Data)."""
    is_named_so = any(map(holds_masks, folder.relative_to(root).parts))
    return is_named_so and not any(
        holds_any_images(path.name) for inner in folders_below(folder) for path in folders_below(inner)
    )


def _can_be_root(folder: Path) -> bool:
    try:
        return not is_run(entries_of(folder)) and len(folder.parts) > 1
    except DataError:
        return False


def _class_folders(
    root: Path, part: str, wanted: Mapping[str, Sequence[str]] | None, tally: Tally
) -> Iterator[_ClassFolder]:
    """Give the class folders of a part, each with its images; what lies beside them is counted."""
    folder = root / part
    if wanted is None:
        class_of = {name: name for name in _candidates(folder)}
        if not part:  # a copy of the data set within it, as archives have it, is no class of its own
            class_of = {
                name: name for name in class_of if name.lower() not in _PARTS and not _is_root(folder / name)
            }
    else:
        class_of = _named(folder, wanted)
    missing = [name for name in wanted or () if name not in class_of.values()]
    if missing or not class_of:
        raise MissingFileError(
            f"{folder} lacks {f'the class folders {missing}' if missing else 'class folders'}; "
            f"it holds {listing(folder)}."
        )
    _tally_beside(root, part, list(class_of), tally)
    for name, called in class_of.items():
        path = f"{part}/{name}" if part else name
        beside = Tally()
        images = images_below(root, path, beside)
        is_document = {entry.reason for entry in beside.entries} - {HIDDEN}
        if not images and (wanted is not None or not is_document or is_document - {NO_IMAGE, RUNS}):
            raise DataError(
                f"The class folder {root / path} holds no image that can be decoded; it holds "
                f"{listing(root / path)}. Fill it, or remove it."
            )
        tally.merge(beside)
        if images:
            yield _ClassFolder(called, path, images)
        else:
            _log.warning(f"{root / path} holds no image, and is taken for no class")


def _tally_beside(root: Path, folder: str, kept: Sequence[str], tally: Tally) -> None:
    """Count what lies in a folder beside its parts or classes."""
    others = []
    for entry in entries_of(root / folder):
        path = f"{folder}/{entry.name}" if folder else entry.name
        if entry.name in kept:
            continue
        if not entry.is_dir():
            tally.add_file(path, entry, BESIDE)
        elif is_hidden(entry.name):
            count_files(root, path, HIDDEN, tally)
        elif holds_masks(entry.name):
            count_files(root, path, MASKS, tally)
        elif is_run(entries_of(root / path)):
            count_files(root, path, RUNS, tally)
        elif count_files(root, path, BESIDE, tally, is_loss=True):
            others.append(entry.name)
    if others:
        what = "parts, or hold no class folders," if any(part_of(name) for name in kept) else "classes"
        _log.warning(
            f"reading only the folders {list(kept)} of {root / folder}; {others} are no {what} and are left "
            "out"
        )


def _parts_below(below: "pd.Series[str]") -> "pd.Series[str]":
    """Return the part of each image by a folder below its class; "" where not all lie in such folders."""
    parts = below.map(
        lambda path: next((_PARTS[name] for name in path.lower().split("/")[:-1] if name in _PARTS), "")
    )
    is_split = bool(len(below)) and (parts != "").all() and parts.nunique() > 1
    return parts if is_split else pd.Series("", index=below.index, dtype=str)


def _with_one_spelling(classes: "pd.Series[str]") -> "pd.Series[str]":
    """Give classes that differ in case, blanks or the form of their letters one name: the first in order."""
    spellings: dict[str, str] = {}
    for name in sorted(classes.unique()):
        spellings.setdefault(_comparable(name), name)
    return classes.map(lambda name: spellings[_comparable(name)])


def _comparable(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).replace("_", " ").split()).casefold()


def _warn_of_other_classes(root: Path, files: pd.DataFrame) -> None:
    """Say which classes only some of the parts have."""
    of_part = {
        str(part): set(files["class"][files["part"] == part].tolist()) for part in files["part"].unique()
    }
    lacking = {part: sorted(set(files["class"]) - names) for part, names in of_part.items()}
    if any(lacking.values()):
        named = "; ".join(f"{part} lacks {', '.join(names)}" for part, names in lacking.items() if names)
        _log.warning(f"the parts of {root} have not the same classes: {named}")
