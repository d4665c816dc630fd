"""The images in a folder, at any depth and recognised by content; what else lies there is counted."""

import logging
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cxrlab.data.decode import SUFFIXES, image_format
from cxrlab.data.manifest import LeftOut, escaped, is_utf8
from cxrlab.errors import DataError

HIDDEN = "hidden, or of the system"
MASKS = "masks, annotations or thumbnails, which are no class"
NO_IMAGE = "no image"
UNDECODABLE = "no image that can be decoded"
NOT_UTF8 = "names that are no UTF-8"
RUNS = "outputs of a run"
BESIDE = "beside the class folders"

# Of the system and of programs that pack, in lower case.
_SYSTEM = frozenset(
    ["__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found",
     "dicomdir", "system volume information", "__pycache__"]
)  # fmt: skip
# Of files that lie beside images and never hold one.
_DOCUMENTS = frozenset(
    [".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".xls", ".xlsx", ".ods", ".pdf", ".md", ".html",
     ".htm", ".doc", ".docx", ".rtf", ".yaml", ".yml", ".toml", ".ini", ".log", ".py", ".ipynb", ".sh",
     ".m", ".r", ".bib", ".tex", ".license", ".sha256", ".md5", ".parquet", ".db", ".url", ".lnk"]
)  # fmt: skip
# A word of a script without capitals, such as Chinese, is what stands between two signs.
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|[^\W\d_a-zA-Z]+")
# Letters that Unicode does not take apart into a Latin one and its accent.
_LATIN = str.maketrans({"\u0131": "i", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ß": "ss"})
_MASK_WORDS = frozenset(
    ["mask", "masks", "segmentation", "segmentations", "annotation", "annotations", "label", "labels",
     "contour", "contours", "groundtruth", "gt", "overlay", "overlays", "bbox", "bboxes", "heatmap",
     "heatmaps", "thumbs", "thumbnail", "thumbnails"]
)  # fmt: skip
_IMAGE_WORDS = frozenset(
    ["image", "images", "img", "imgs", "png", "pngs", "jpg", "jpgs", "jpeg", "jpegs", "dcm", "dicom",
     "dicoms", "tif", "tiff", "bmp", "picture", "pictures", "photo", "photos", "scan", "scans",
     "radiograph", "radiographs", "files"]
)  # fmt: skip
_ABOUT_IMAGES = frozenset(
    ["cxr", "cxrs", "chest", "x", "xray", "xrays", "ray", "rays", "raw", "original", "originals",
     "resized", "data", "all", "px", "train", "val", "valid", "test"]
)  # fmt: skip
_MASK_FILE = re.compile(
    r"^(.+?)[ _.-]*(?:mask|masks|seg|segmentation|annotation|label|gt)(?:[ _.-]?[0-9]+)?$", re.IGNORECASE
)
_MASK_HINT = re.compile("mask|seg|annotation|label|gt", re.IGNORECASE)
_EXAMPLES = 3
_MOST_NAMED = 8

_log = logging.getLogger(__name__)


class Tally:
    """Counts the files that are left out, by reason and suffix."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, bool]] = Counter()
        self._examples: dict[tuple[str, str, bool], list[str]] = defaultdict(list)

    def add(self, path: str, reason: str, *, is_loss: bool = False) -> None:
        """Count a file; ``is_loss`` says that it may be an image that should be there."""
        key = (reason, suffix_of(path.rpartition("/")[2]), is_loss)
        self._counts[key] += 1
        if len(self._examples[key]) < _EXAMPLES:
            self._examples[key].append(escaped(path))

    def add_file(self, path: str, entry: "os.DirEntry[str]", reason: str) -> None:
        """Count a file that is not used: if it is an image, for ``reason``."""
        if is_hidden(entry.name):
            self.add(path, HIDDEN)
        elif not is_utf8(path):
            self.add(path, NOT_UTF8, is_loss=True)
        elif is_image(entry):
            self.add(path, reason, is_loss=True)
        else:
            is_document = suffix_of(entry.name) in _DOCUMENTS
            self.add(path, NO_IMAGE if is_document else UNDECODABLE, is_loss=not is_document)

    def merge(self, other: "Tally") -> None:
        """Add what another tally counted."""
        self._counts.update(other._counts)
        for key, examples in other._examples.items():
            self._examples[key] = [*self._examples[key], *examples][:_EXAMPLES]

    @property
    def entries(self) -> tuple[LeftOut, ...]:
        """What was left out, losses first, and the most frequent first."""
        order = sorted(self._counts.items(), key=lambda item: (not item[0][2], -item[1], item[0]))
        return tuple(
            LeftOut(reason, escaped(suffix), count, tuple(self._examples[reason, suffix, is_loss]), is_loss)
            for (reason, suffix, is_loss), count in order
        )


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case, with its point; "" where it has none."""
    stem, point, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if stem and point and len(suffix) <= 8 else ""


def is_hidden(name: str) -> bool:
    """Tell of a file's or folder's name whether it is hidden or the system's: ``.DS_Store``, ``__MACOSX``."""
    return name.startswith(".") or name.lower() in _SYSTEM


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case and without accents.

    Example:
        >>> words_of("ManualMask"), words_of("CXR_png"), words_of("NoFinding-2"), words_of("Négatif")
        (['manual', 'mask'], ['cxr', 'png'], ['no', 'finding', '2'], ['negatif'])
    """
    if not name.isascii():
        letters = unicodedata.normalize("NFKD", name.translate(_LATIN))
        name = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return [word.lower() for word in _WORD.findall(name)]


def holds_masks(name: str) -> bool:
    """Tell of a folder's name whether it is one for masks, annotations or thumbnails: no class.

    Example:
        >>> holds_masks("leftMask"), holds_masks("png_masks"), holds_masks("Segmentations"), holds_masks("TB")
        (True, True, True, False)
    """
    words = words_of(name)
    return bool(_MASK_WORDS.intersection(words)) or any(word.endswith(("mask", "masks")) for word in words)


def holds_any_images(name: str) -> bool:
    """Tell of a folder's name whether it says no more than that images are in it: it is no class.

    Example:
        >>> [name for name in ("images", "CXR_png", "COVID", "1", "chest_xray") if holds_any_images(name)]
        ['images', 'CXR_png', 'chest_xray']
    """
    words = set(words_of(name))
    rest = {word for word in words - _IMAGE_WORDS - _ABOUT_IMAGES if not word.isdigit()}
    return bool(words & (_IMAGE_WORDS | {"data", "cxr", "xray", "xrays"})) and not rest


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, sorted by name.

    Raises:
        DataError: If it may not be looked into.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"The folder {escaped(str(folder))} of the data set cannot be listed: {error.strerror or error}. "
            "Make it readable, or move it out of data.root."
        ) from error


def images_below(root: Path, folder: str, tally: Tally) -> list[str]:
    """Return the images in a folder and in those below it, as paths under ``root``, sorted.

    A file whose suffix is one of images is taken without a look, and found out when it is decoded; of any
    other the first bytes are read: 100,000 files with such suffixes take 1 s, and 100,000 without one 4 s
    (one core of a busy server, local disk). Symbolic links are followed, but no folder is entered twice. Left
    out, and counted by ``tally``, are what is hidden, masks (folders of them, and ``a_mask.png`` beside
    ``a.png``), the outputs of runs, and what cannot be decoded.

    Args:
        root: Folder of the data set.
        folder: Below ``root``, with forward slashes; "" for itself.
        tally: Counts what is left out.

    Raises:
        DataError: If a folder may not be looked into.
    """
    images: list[str] = []
    for path, entries in _walk(root, folder, tally):
        stems = {entry.name.rpartition(".")[0] for entry in entries}
        for entry in entries:
            name = f"{path}/{entry.name}" if path else entry.name
            if is_hidden(entry.name) or not is_utf8(name) or not is_image(entry):
                tally.add_file(name, entry, UNDECODABLE)
            elif _is_mask_of(entry.name, stems):
                tally.add(name, MASKS)
            else:
                images.append(name)
    return sorted(images)


def _walk(root: Path, folder: str, tally: Tally) -> Iterator[tuple[str, list["os.DirEntry[str]"]]]:
    """Give each folder with its files; what is in folders that are left out is counted."""
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        entries = entries_of(root / path)
        status = (root / path).stat()
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        if is_run(entries):
            count_files(root, path, RUNS, tally)
            continue
        files = []
        for entry in entries:
            name = f"{path}/{entry.name}" if path else entry.name
            if not entry.is_dir():
                files.append(entry)
            elif is_hidden(entry.name):
                count_files(root, name, HIDDEN, tally)
            elif holds_masks(entry.name):
                count_files(root, name, MASKS, tally)
            else:
                waiting.append(name)
        yield path, files


def is_run(entries: Iterable["os.DirEntry[str]"]) -> bool:
    """Tell of what lies in a folder whether a run wrote it."""
    return any(entry.name == ".hydra" and entry.is_dir() for entry in entries)


def is_image(entry: "os.DirEntry[str]") -> bool:
    """Tell of a file by its suffix, or else by its first bytes, whether it can be decoded."""
    name = entry.name.lower()
    return name.endswith(SUFFIXES) or image_format(Path(entry.path)) is not None


def _is_mask_of(name: str, stems: set[str]) -> bool:
    """Tell whether a file is the mask of one beside it: ``a_mask.png`` of ``a.png``."""
    if _MASK_HINT.search(name) is None:
        return False
    match = _MASK_FILE.match(name.rpartition(".")[0] or name)
    return match is not None and match[1] in stems


def count_files(root: Path, folder: str, reason: str, tally: Tally, *, is_loss: bool = False) -> int:
    """Count all files in a folder and below it as left out; return how many they are.

    Of a folder that may not be looked into nothing is counted.
    """
    total = 0
    for path, _, files in os.walk(root / folder):
        inner = os.path.relpath(path, root).replace(os.sep, "/")
        for name in files:
            total += 1
            tally.add(
                f"{inner}/{name}",
                HIDDEN if is_hidden(name) else reason,
                is_loss=is_loss and not is_hidden(name),
            )
    return total


def holds_image(folder: Path, most: int = 2000) -> bool:
    """Tell whether an image lies in a folder or below it; of very many files the first are looked at."""
    looked_at = 0
    for path, folders, files in os.walk(folder, followlinks=True):
        if ".hydra" in folders or path.count(os.sep) - str(folder).count(os.sep) > 8:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not is_hidden(name) and not holds_masks(name))
        for name in sorted(files):
            looked_at += 1
            if looked_at > most:
                return False
            if is_hidden(name):
                continue
            if name.lower().endswith(SUFFIXES) or image_format(Path(path, name)) is not None:
                return True
    return False


def log_left_out(root: Path, left_out: Sequence[LeftOut]) -> None:
    """Say how many files are not used, and why: a warning where they may be images that should be there."""
    for is_loss, level in ((True, logging.WARNING), (False, logging.INFO)):
        entries = [entry for entry in left_out if entry.is_loss is is_loss]
        if entries:
            more = f"; and {len(entries) - _MOST_NAMED} other kinds" if len(entries) > _MOST_NAMED else ""
            _log.log(
                level,
                "%d files of %s are left out: %s%s; for instance %s",
                sum(entry.count for entry in entries), root,
                "; ".join(str(entry) for entry in entries[:_MOST_NAMED]), more, entries[0].examples[0],
            )  # fmt: skip
