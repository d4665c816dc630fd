"""Image files that are named on a command line: files, folders, zip archives, tables of paths."""

import csv
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from cxrlab.data.decode import SUFFIXES, format_of, image_format
from cxrlab.data.manifest import escaped
from cxrlab.errors import DataError, MissingFileError

_COLUMNS = ("image", "file", "path", "filename", "image_path", "dicom_path")
_MOST_BYTES = 512 * 2**20  # of a member of an archive, unpacked: no radiograph has as many
_NUM_FIRST = 512
_JUNK = ("__MACOSX",)


# What zipfile and the unpackers below it raise of damaged members and of those with a password.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, NotImplementedError, EOFError, KeyError,
    ValueError,
)  # fmt: skip


class ImageFile(NamedTuple):
    """A file that may be an image.

    Attributes:
        name: By which it is told of, on one line; of a member of an archive ``archive.zip/member``.
        path: Of the file, or of the archive.
        member: Of the archive; "" for a file by itself.
    """

    name: str
    path: Path
    member: str = ""

    def read(self) -> bytes:
        """Return its bytes; nothing is unpacked to disk.

        Raises:
            DataError: If they cannot be had.
        """
        try:
            if not self.member:
                if not stat.S_ISREG(self.path.stat().st_mode):  # to open a pipe would wait for ever
                    raise DataError(f"The image {self.name} cannot be read: it is no file.")
                return self.path.read_bytes()
            with _opened(self.path, self.path.stat().st_mtime_ns).open(self.member) as file:
                data = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise DataError(f"The image {self.name} cannot be read: {error.strerror or error}.") from error
        except _DAMAGED as error:
            raise DataError(f"The image {self.name} cannot be unpacked: {error}.") from error
        if len(data) > _MOST_BYTES:
            raise DataError(f"The image {self.name} has more than {_MOST_BYTES:,} bytes once it is unpacked.")
        return data


@lru_cache(maxsize=2)
def _opened(path: Path, changed: int) -> zipfile.ZipFile:
    """Return an archive that stays open: its directory, of all its members, is read once, not for each."""
    return zipfile.ZipFile(path)


def image_inputs(names: Sequence[str]) -> Iterator[ImageFile]:
    """Yield the image files that are named, in an order that only depends on the names.

    Args:
        names: Each a file; a folder, in which and below which all images are taken; a zip archive, whose
            members are; or a CSV file with a column ``image``, ``file`` or ``path``, relative to its folder.
            What is in a folder or an archive is an image by its content, or by its suffix: of the latter one
            that cannot be decoded is an image that cannot be read.

    Raises:
        MissingFileError: If a name is neither file nor folder.
        DataError: If an archive or a table cannot be read.
    """
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            yield from _in_folder(path)
        elif not path.exists():
            raise MissingFileError(f"input={name}: there is no such file or folder.")
        elif path.suffix.lower() == ".csv":
            yield from _in_table(path)
        elif image_format(path) is None and zipfile.is_zipfile(path):
            yield from _in_archive(path)
        else:
            yield ImageFile(_shown(str(path)), path)


def _shown(name: str) -> str:
    """Return a name on one line, in UTF-8."""
    text = escaped(name)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _in_folder(folder: Path, seen: frozenset[str] = frozenset()) -> Iterator[ImageFile]:
    """Yield images of a folder and those below, sorted; hidden ones are passed over, links followed once."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read: {error.strerror or error}.") from error
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _JUNK:
            continue
        path = Path(entry.path)
        if entry.is_dir():
            yield from _in_folder(path, seen | {real})
        elif path.suffix.lower() in SUFFIXES or image_format(path) is not None:
            yield ImageFile(_shown(entry.path), path)


def _in_archive(path: Path) -> Iterator[ImageFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info.filename for info in archive.infolist() if not info.is_dir()]
            images = [member for member in sorted(members) if _is_image(archive, member)]
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"The archive {path} cannot be read: {error}. Give the folder that it was made of."
        ) from error
    yield from (ImageFile(_shown(f"{path}/{member}"), path, member) for member in images)


def _is_image(archive: zipfile.ZipFile, member: str) -> bool:
    """Tell whether a member is one by its name or its first bytes; hidden ones are passed over."""
    if any(part in _JUNK or (part.startswith(".") and part.strip(".")) for part in member.split("/")):
        return False
    if Path(member).suffix.lower() in SUFFIXES:
        return True
    try:
        with archive.open(member) as file:
            return format_of(file.read(_NUM_FIRST)) is not None
    except _DAMAGED:
        return False  # such as one with a password


def _in_table(path: Path) -> Iterator[ImageFile]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            columns = [column for column in _COLUMNS if column in (rows.fieldnames or ())]
            if not columns:
                raise DataError(
                    f"{path} has no column that names images: its columns are "
                    f"{', '.join(rows.fieldnames or ()) or 'none'}; one must be {', '.join(_COLUMNS)}."
                )
            for number, row in enumerate(rows, start=2):
                cell = (row[columns[0]] or "").strip()
                if not cell:
                    raise DataError(f"{path}, line {number}: the column {columns[0]} is empty.")
                image = path.parent / Path(cell).expanduser()
                yield ImageFile(_shown(str(image)), image)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"The table {path} cannot be read: {error}. It must be CSV, in UTF-8.") from error
