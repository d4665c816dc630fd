"""The files of a request, read into memory and no further than is allowed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath

from fastapi import HTTPException, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from cxrlab.deploy.service.settings import ServiceSettings

# Of a part's header, and of all that stands between files.
_LARGEST_HEADER = 2**14
_LONGEST_NAME = 120
_GONE, _TOO_LATE, _TOO_LARGE, _NOT_FILES, _BUSY = 400, 408, 413, 422, 503


@dataclass
class Upload:
    """A file of a request.

    Attributes:
        name: As the client gives it, for showing: without folders, signs that do not print, and much length.
        data: Its bytes.
    """

    name: str
    data: bytearray = field(default_factory=bytearray)


def shown_name(name: str) -> str:
    r"""Return a file's name as it may be shown; it names nothing on any disk.

    Example:
        >>> shown_name("../../etc/passwd"), shown_name("C:\\scans\\a.dcm"), shown_name("a\x1b[31m\n.png")
        ('passwd', 'a.dcm', 'a[31m.png')
    """
    last = PureWindowsPath(PurePosixPath(name).name).name
    printed = "".join(sign for sign in last if sign.isprintable()).strip()
    return printed[:_LONGEST_NAME] or "unnamed"


class Waiting:
    """Counts the bytes of all uploads that are in memory, so that many clients cannot take all of it.

    Args:
        most: Bytes that may be.
    """

    def __init__(self, most: int) -> None:
        self._most, self.num_bytes = most, 0

    @contextmanager
    def counted(self) -> Iterator["_Share"]:
        """Give what counts the bytes of one request; they are let go at the end."""
        share = _Share(self)
        try:
            yield share
        finally:
            self.num_bytes -= share.num_bytes

    def add(self, count: int) -> None:
        """Count more bytes.

        Raises:
            HTTPException: If there are too many.
        """
        if self.num_bytes + count > self._most:
            raise HTTPException(
                _BUSY, "Too many files are waiting. Send them again in a moment.", {"Retry-After": "2"}
            )
        self.num_bytes += count


class _Share:
    """The bytes of one request among all that wait."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting, self.num_bytes = waiting, 0

    def add(self, count: int) -> None:
        self._waiting.add(count)
        self.num_bytes += count


async def read_uploads(request: Request, settings: ServiceSettings, share: _Share) -> list[Upload]:
    """Read the files of a request of ``multipart/form-data``, under whatever field names.

    Nothing is read where the request says that it is too large; else no more than is allowed.

    Raises:
        HTTPException: 413 if a file, or all together, are too large, or there are too many; 422 if there is
            none, or this is no such request; 408 if it takes too long; 503 if too much is waiting already.
    """
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > settings.max_request_bytes + _LARGEST_HEADER:
        raise _too_large(settings)
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise HTTPException(_NOT_FILES, "Send files as multipart/form-data: curl -F files=@image.png.")
    form = _Form(settings)
    try:
        async with asyncio.timeout(settings.request_seconds):
            await _fill(form, options[b"boundary"], request.stream(), settings, share)
    except ClientDisconnect:
        raise HTTPException(_GONE, "The client left before the files had arrived.") from None
    except TimeoutError:
        late = f"The files did not arrive within {settings.request_seconds:g} s."
        raise HTTPException(_TOO_LATE, late) from None
    if not form.uploads:
        raise HTTPException(_NOT_FILES, "There is no file in this request.")
    return form.uploads


async def _fill(
    form: "_Form", boundary: bytes, stream: AsyncIterator[bytes], settings: ServiceSettings, share: _Share
) -> None:
    parser, num_bytes = MultipartParser(boundary, form.callbacks()), 0  # type: ignore[arg-type]
    try:
        async for chunk in stream:
            num_bytes += len(chunk)
            if num_bytes > settings.max_request_bytes + _LARGEST_HEADER:
                raise _too_large(settings)
            share.add(len(chunk))
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise HTTPException(_NOT_FILES, f"This is no sound multipart/form-data: {error}.") from None
    if not form.is_whole:
        raise HTTPException(_NOT_FILES, "The multipart/form-data ends early.")


def _too_large(settings: ServiceSettings) -> HTTPException:
    detail = f"A request may have {settings.max_request_mb} MB, and this one has more."
    return HTTPException(_TOO_LARGE, detail)


class _Form:
    """What the parser finds: files are kept, other fields are not."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self.uploads: list[Upload] = []
        self.is_whole = False
        self._field, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._current: Upload | None = None

    def callbacks(self) -> dict[str, object]:
        """Return the methods that the parser calls."""
        names = ("header_field", "header_value", "header_end", "headers_finished", "part_begin", "part_data")
        return {**{f"on_{name}": getattr(self, f"_{name}") for name in names}, "on_end": self._end}

    def _part_begin(self) -> None:
        self._current, self._disposition = None, b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._field) + len(self._value) > _LARGEST_HEADER:
            raise FormParserError("a header is too long")

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"filename")
        if name is None:
            return
        if len(self.uploads) == self._settings.max_files:
            many = f"A request may have {self._settings.max_files} files, and this one has more."
            raise HTTPException(_TOO_LARGE, many)
        self._current = Upload(shown_name(name.decode("utf-8", errors="replace")))
        self.uploads.append(self._current)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current is None:
            return
        self._current.data += data[start:end]
        if len(self._current.data) > self._settings.max_file_bytes:
            most = f"the {self._settings.max_file_mb} MB that a file may have"
            raise HTTPException(_TOO_LARGE, f"{self._current.name} has more than {most}.")

    def _end(self) -> None:
        self.is_whole = True
