"""The bytes of a table or list: unpacked, turned into UTF-8, and named where they are no text."""

import gzip
import zlib
from pathlib import Path

from cxrlab.errors import DataError

# The longest public table, with a radiology report in each of 220,000 rows, has some 300 MB.
MOST_BYTES = 2**30
# Tables shrink to a tenth or, where rows repeat, to a hundredth; nothing but blanks shrinks to a thousandth.
_MOST_RATIO = 300
_CHUNK = 2**24
_HEAD = 4096
_GZIP = b"\x1f\x8b"
# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_KINDS = {
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls); save it as .xlsx or CSV",
    b"PAR1": "a Parquet file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "an array of NumPy (.npy)",
    b"\x80\x04": "a pickle, which is never opened",
    b"\x80\x05": "a pickle, which is never opened",
    b"SQLite format 3": "a SQLite database",
    b"%PDF": "a PDF",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
}


def plain_or_gz(path: Path) -> Path | None:
    """Return ``path``, or where there is no such file the one with or without ``.gz``; None without either.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "boxes.csv.gz").write_bytes(b"")
        >>> plain_or_gz(folder / "boxes.csv").name, plain_or_gz(folder / "lists.txt")
        ('boxes.csv.gz', None)
        >>> _ = (folder / "labels.csv").write_bytes(b"")
        >>> plain_or_gz(folder / "labels.csv.gz").name
        'labels.csv'
    """
    other = path.name.removesuffix(".gz") if path.name.endswith(".gz") else f"{path.name}.gz"
    return next((file for file in (path, path.with_name(other)) if file.is_file()), None)


def content_of(path: Path) -> bytes:
    """Return the bytes of a file, unpacked where it is a gzip file.

    Raises:
        DataError: If it cannot be read, is damaged, or unpacks to more than a table ever has.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_GZIP))
            return _unpacked(path) if start == _GZIP else start + file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"The table {path} cannot be read: {error}") from error


def text_of(path: Path) -> str:
    """Return the text of a file, plain or gzip.

    Raises:
        DataError: If it cannot be read, or is no text.
    """
    return as_text(as_utf8(content_of(path), path), path)


def _unpacked(path: Path) -> bytes:
    """Unpack a gzip file as far as a table reaches: a megabyte of it can hold a gigabyte of nothing."""
    packed = path.stat().st_size
    content = bytearray()
    with gzip.open(path) as file:
        while chunk := file.read(_CHUNK):
            content += chunk
            is_bomb = len(content) > max(_CHUNK, _MOST_RATIO * packed)
            if is_bomb or len(content) > MOST_BYTES:
                raise DataError(
                    f"The table {path} cannot be read: its {packed:,} bytes unpack to {len(content):,} and "
                    "more, which no table does. If it is one all the same, unpack it first: gunzip -k."
                )
    return bytes(content)


def as_utf8(content: bytes, path: Path) -> bytes:
    """Return text of any Unicode encoding as UTF-8.

    Raises:
        DataError: If it is no text; the message says what it is instead.
    """
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    head = content[:_HEAD]
    if encoding is None and head[1::2].count(0) > len(head) // 3 and not head[::2].count(0):
        encoding = "utf-16-le"  # Latin letters, whose second bytes are zero
    if encoding is not None:
        try:
            return content.decode(encoding).encode()
        except UnicodeError as error:
            raise DataError(
                f"The table {path} cannot be read: it is damaged {encoding.upper()} text. Save it as UTF-8."
            ) from error
    if (kind := kind_of(content)) is not None:
        raise DataError(f"The table {path} cannot be read as text: it is {kind}.")
    return content


def kind_of(content: bytes) -> str | None:
    r"""Return what a file is that is no text, in words with an article; None for what may be text.

    Example:
        >>> kind_of(b"PK\x03\x04 xl/worksheets/sheet1.xml"), kind_of(b"image,patient")
        ('an Excel file (.xlsx)', None)
    """
    if content.startswith(b"PK\x03\x04"):
        ends = content[:_HEAD] + content[-(2**16) :]  # the list of what an archive holds is at its end
        if b"xl/" in ends or b"[Content_Types].xml" in ends:
            return "an Excel file (.xlsx)"
        return "a file of NumPy arrays (.npz)" if b".npy" in ends else "a ZIP archive; unpack it"
    return next((kind for magic, kind in _KINDS.items() if content.startswith(magic)), None)


def as_text(content: bytes, path: Path, first_line: int = 1) -> str:
    """Return UTF-8 as text, without the mark that may stand before it.

    Args:
        content: Of the file, or of the rest of it.
        path: The file, for messages.
        first_line: The line that ``content`` begins at, for messages.

    Raises:
        DataError: If it is no UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + first_line
        raise DataError(
            f"The table {path} cannot be read: it is not UTF-8 text (byte {content[error.start]:#04x} in "
            f"line {line}). Save it as UTF-8; for Latin-1, iconv -f latin1 -t utf-8 does so."
        ) from error
