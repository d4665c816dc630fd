"""Image files decoded in their order by several processes; one that a file ends is replaced."""

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice

from cxrlab.data.cache_worker import CacheSettings, bare_start, start_worker
from cxrlab.data.decode import DecodedImage, read_image_bytes
from cxrlab.data.inputs import ImageFile
from cxrlab.errors import MissingPackageError, UserError

_AHEAD = 32  # files a process that are under way: enough to keep it busy while the network has a batch


class DecodingError(UserError, RuntimeError):
    """Images cannot be decoded here, whatever they are."""


@dataclass(frozen=True)
class DecodedFile:
    """A file, decoded in each of the ways that were asked for.

    Attributes:
        file: Which.
        images: One a way; empty where it cannot be read.
        error: Why it cannot be read; "" where it can.
    """

    file: ImageFile
    images: tuple[DecodedImage, ...] = ()
    error: str = ""


def decode_file(file: ImageFile, settings: Sequence[CacheSettings]) -> DecodedFile:
    """Decode one file in each of some ways; what is wrong with it is told in the result.

    Raises:
        MissingPackageError: If the package that decodes its format is not installed.
    """
    try:
        data = file.read()
        return DecodedFile(file, tuple(_decoded(data, file, way) for way in settings))
    except MissingPackageError:
        raise
    except UserError as error:
        return DecodedFile(file, error=" ".join(str(error).split()))
    except MemoryError:
        return DecodedFile(file, error=f"The image {file.name} needs more memory than there is.")


def _decoded(data: bytes, file: ImageFile, way: CacheSettings) -> DecodedImage:
    return read_image_bytes(
        data,
        file.name,
        image_size=way.image_size,
        channels=way.channels,
        resize=way.resize,
        bit_depth=way.bit_depth,
    )


def decode_files(
    files: Iterable[ImageFile], settings: Sequence[CacheSettings], *, num_workers: int
) -> Iterator[DecodedFile]:
    """Yield files decoded, in their order; no more are read ahead than the processes need.

    Args:
        files: As many as there are; they are asked for one by one.
        settings: Ways of decoding.
        num_workers: Processes; 0 for this one, in which a file that crashes a decoder ends it.

    Raises:
        MissingPackageError: If the package that decodes a format is not installed.
        DecodingError: If no process can be started.
    """
    if num_workers == 0:
        for file in files:
            yield decode_file(file, settings)
        return
    waiting = iter(files)
    under_way: deque[ImageFile] = deque()
    results: deque[Future[DecodedFile]] = deque()
    pool = _pool(num_workers)
    try:
        while True:
            try:
                for file in islice(waiting, num_workers * _AHEAD - len(under_way)):
                    under_way.append(file)
                    results.append(_submitted(pool, file, settings))
                if not under_way:
                    return
                decoded = results.popleft().result()
            except BrokenProcessPool:
                pool.shutdown(cancel_futures=True)
                results.clear()
                while under_way:
                    yield _alone(under_way.popleft(), settings)
                pool = _pool(num_workers)
            else:
                under_way.popleft()
                yield decoded
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _alone(file: ImageFile, settings: Sequence[CacheSettings]) -> DecodedFile:
    """Decode a file that was under way as a process ended, in one of its own, which it may end too.

    Raises:
        DecodingError: If no process can be started at all: it is no file's fault.
    """
    pool = _pool(1)
    try:
        with bare_start():
            pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise DecodingError(
            "No process that decodes images can be started. Set num_workers=0 to decode in this one."
        ) from error
    try:
        return _submitted(pool, file, settings).result()
    except BrokenProcessPool:
        return DecodedFile(file, error=f"The image {file.name} crashes the program that decodes it.")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _submitted(
    pool: ProcessPoolExecutor, file: ImageFile, settings: Sequence[CacheSettings]
) -> Future[DecodedFile]:
    with bare_start():  # processes are started when there is something to do
        return pool.submit(decode_file, file, settings)


def _pool(num_workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(num_workers, mp_context=context, initializer=start_worker)
