"""The process in which uploads are decoded: it may be killed, or die of a file, and takes nobody along.

What it sends back is plain bytes, never a pickle: a file that takes over the decoder has not taken over the
service.
"""

import io
import json
import os
import sys
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cxrlab.data.cache_worker import CacheSettings, start_worker
from cxrlab.data.decode import DecodedImage, read_image_bytes
from cxrlab.errors import UserError

READY = b"ready"
_GIB = 2**30
# Beside what Python and the decoders have mapped at their start: a picture of 134 million pixels of 16 bits
# takes half of it.
_MOST_MEMORY = 4 * _GIB
_PICTURE_SIDE = 768


@dataclass(frozen=True)
class DecodeSettings:
    """How uploads are decoded.

    Attributes:
        ways: In each of which an image is wanted: one a size and resize rule of the networks.
        max_pixels: Width times height that are allowed.
    """

    ways: tuple[CacheSettings, ...]
    max_pixels: int


def run_decoder(connection: Connection, settings: DecodeSettings) -> None:
    """Decode what comes through a connection until it is closed.

    Args:
        connection: Gives a JSON object with ``name`` and ``with_picture``, then the file's bytes; takes a
            JSON list of what is known of the image in each way, its pixels, a message each way, and a JPEG
            for people; of what cannot be decoded, a JSON object with ``error`` alone.
        settings: How.
    """
    start_worker()
    _silence()
    _limit_memory()
    connection.send_bytes(READY)
    while True:
        try:
            request = json.loads(connection.recv_bytes())
            data = connection.recv_bytes()
        except EOFError:
            return
        _answer(connection, data, str(request["name"]), settings, with_picture=request["with_picture"])


def _answer(
    connection: Connection, data: bytes, name: str, settings: DecodeSettings, *, with_picture: bool
) -> None:
    try:
        images = [_decoded(data, name, way, settings.max_pixels) for way in settings.ways]
        picture = _picture(data, name, settings, images[0]) if with_picture else b""
    except (MemoryError, UserError) as error:
        what = f"The image {name} ({len(data)} bytes) cannot be read: it takes more memory than a file may."
        text = " ".join(str(error).split()) if isinstance(error, UserError) else what
        connection.send_bytes(json.dumps({"error": text}).encode())
        return
    connection.send_bytes(json.dumps([_facts(image) for image in images]).encode())
    for image in images:
        connection.send_bytes(image.pixels.tobytes())
    connection.send_bytes(picture)


def _facts(image: DecodedImage) -> dict[str, object]:
    return {field.name: getattr(image, field.name) for field in fields(image) if field.name != "pixels"}


def _decoded(data: bytes, name: str, way: CacheSettings, max_pixels: int) -> DecodedImage:
    return read_image_bytes(data, name, **asdict(way), max_pixels=max_pixels)


def _picture(data: bytes, name: str, settings: DecodeSettings, image: DecodedImage) -> bytes:
    """Return what the network sees of an image as a JPEG, in more pixels where the file has them."""
    way = settings.ways[0]
    side = min(_PICTURE_SIDE, max(image.width, image.height))
    larger = replace(way, image_size=side)
    shown = image if side <= way.image_size else _decoded(data, name, larger, settings.max_pixels)
    memory = io.BytesIO()
    _as_picture(shown.pixels).save(memory, "JPEG", quality=90)
    return memory.getvalue()


def _as_picture(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def _silence() -> None:
    """Send to nowhere what decoders in C write on the terminal of damaged files."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)


def _limit_memory() -> None:
    """Let a file that unpacks to more memory than any radiograph be refused, where the system can do that."""
    try:
        import resource

        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
        mapped = int(pages) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (mapped + _MOST_MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):  # not on every system
        return
