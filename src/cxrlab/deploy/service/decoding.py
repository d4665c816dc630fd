"""Uploads decoded in processes of their own: one that dies, or takes too long, is replaced."""

import asyncio
import contextlib
import json
import logging
import math
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cxrlab.data.cache_worker import CacheSettings, bare_start
from cxrlab.data.decode import DecodedImage
from cxrlab.deploy.service.decoder_process import READY, DecodeSettings, run_decoder
from cxrlab.errors import DataError, UserError

log = logging.getLogger(__name__)

_START_SECONDS = 60.0
_LARGEST_TEXT = 2**20
_LARGEST_PICTURE = 2**24
# The main module and the environment are changed while a process starts.
_starting = threading.Lock()


class DecoderStartError(UserError, RuntimeError):
    """No process that decodes can be started."""


class _DeadDecoderError(Exception):
    """A process that decodes died, of the file or of something else."""


class _SlowDecoderError(Exception):
    """A process that decodes takes too long."""


class DecodedUpload(NamedTuple):
    """An uploaded image.

    Attributes:
        images: One a way.
        picture: A JPEG of what the network sees, for people; empty where none was wanted.
    """

    images: tuple[DecodedImage, ...]
    picture: bytes


class _Decoder:
    """One process that decodes, one file at a time."""

    def __init__(self, settings: DecodeSettings) -> None:
        self._settings = settings
        self._is_ready = False
        context = multiprocessing.get_context("spawn")
        try:
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=run_decoder, args=(theirs, settings), daemon=True)
            with _starting, bare_start():
                self._process.start()
        except OSError as error:
            raise DecoderStartError(f"No process that decodes images can be started: {error}.") from error
        theirs.close()

    def decode(
        self, data: bytes | bytearray, name: str, seconds: float, *, with_picture: bool
    ) -> DecodedUpload:
        """Return an image.

        Raises:
            DataError: If it cannot be decoded.
            DecoderStartError: If the process does not start.
            _DeadDecoderError: If the process died.
            _SlowDecoderError: If it took more than ``seconds``.
        """
        self.wait_until_ready()
        request = json.dumps({"name": name, "with_picture": with_picture})
        # A process that was taken over may stop in the midst of an answer: whatever it is at, it is ended.
        deadline = time.monotonic() + seconds
        watch = threading.Timer(seconds, self._end)
        watch.start()
        try:
            self._connection.send_bytes(request.encode())
            self._connection.send_bytes(data)
            return self._received()
        except UserError:
            raise
        except (EOFError, OSError, ValueError, KeyError, TypeError) as error:
            raise _SlowDecoderError if time.monotonic() >= deadline else _DeadDecoderError from error
        finally:
            watch.cancel()

    def _end(self) -> None:
        with contextlib.suppress(ValueError):  # it was closed meanwhile
            self._process.kill()

    def _received(self) -> DecodedUpload:
        facts: Any = json.loads(self._connection.recv_bytes(_LARGEST_TEXT))
        if isinstance(facts, dict):
            raise DataError(str(facts["error"]))
        pairs = zip(facts, self._settings.ways, strict=True)
        images = tuple(DecodedImage(self._pixels(way), **of_way) for of_way, way in pairs)
        return DecodedUpload(images, self._connection.recv_bytes(_LARGEST_PICTURE))

    def _pixels(self, way: CacheSettings) -> npt.NDArray[np.uint8]:
        shape = (way.channels, way.image_size, way.image_size)
        return np.frombuffer(self._connection.recv_bytes(math.prod(shape)), dtype=np.uint8).reshape(shape)

    def wait_until_ready(self) -> None:
        """Wait until the process has started.

        Raises:
            DecoderStartError: If it does not.
        """
        if self._is_ready:
            return
        try:
            self._is_ready = self._connection.poll(_START_SECONDS) and self._connection.recv_bytes() == READY
        except (EOFError, OSError):
            self._is_ready = False
        if not self._is_ready:
            raise DecoderStartError("The process that decodes images does not start. Is memory short?")

    def kill(self) -> None:
        """End the process, whatever it is at."""
        self._process.kill()
        self._process.join()

    def close(self) -> None:
        """End the process and forget it."""
        self.kill()
        self._connection.close()
        self._process.close()


class DecoderPool:
    """Processes that decode uploads.

    Args:
        settings: How.
        num_decoders: Of the processes.
        seconds: Within which a file must be decoded.

    Attributes:
        num_replaced: Processes that died of a file, or were killed for taking too long.
    """

    def __init__(self, settings: DecodeSettings, num_decoders: int, seconds: float) -> None:
        self._settings, self._seconds = settings, seconds
        self._threads = ThreadPoolExecutor(num_decoders, thread_name_prefix="decoder")
        self._decoders = [_Decoder(settings) for _ in range(num_decoders)]
        self._idle: SimpleQueue[int] = SimpleQueue()
        for number in range(num_decoders):
            self._idle.put(number)
        self._is_closed = False
        self.num_replaced = 0

    async def decode(
        self, data: bytes | bytearray, name: str, *, with_picture: bool = False
    ) -> DecodedUpload:
        """Decode the bytes of an image file.

        Args:
            data: Of the file.
            name: What it is called, for messages.
            with_picture: Make one for people too.

        Raises:
            DataError: If it cannot be decoded, or its decoder dies of it or takes too long.
            DecoderStartError: If no process can be started.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._decode, data, name, with_picture)

    def wait_until_ready(self) -> None:
        """Wait until all processes have started.

        Raises:
            DecoderStartError: If one does not.
        """
        for decoder in self._decoders:
            decoder.wait_until_ready()

    def _decode(self, data: bytes | bytearray, name: str, with_picture: bool) -> DecodedUpload:
        number = self._idle.get()  # there are as many as threads
        what = f"The image {name} ({len(data)} bytes) cannot be read"
        try:
            for _ in range(2):  # it may have been killed for another's want of memory
                try:
                    return self._decoders[number].decode(data, name, self._seconds, with_picture=with_picture)
                except _DeadDecoderError:
                    self._replace(number, "ended")
            raise DataError(f"{what}: the process that decodes it ends each time.")
        except _SlowDecoderError:
            self._replace(number, "took too long")
            raise DataError(f"{what}: decoding takes more than {self._seconds:g} s.") from None
        except DecoderStartError:
            self._replace(number, "did not start")
            raise
        finally:
            self._idle.put(number)

    def _replace(self, number: int, why: str) -> None:
        if self._is_closed:
            raise DecoderStartError("The service is being stopped.")
        self.num_replaced += 1
        log.warning("A process that decodes uploads %s; it is replaced.", why)
        lost, self._decoders[number] = self._decoders[number], _Decoder(self._settings)
        lost.close()

    def close(self) -> None:
        """End the processes; what they are at is given up."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for decoder in self._decoders:
            decoder.close()
