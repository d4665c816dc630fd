"""Finding the cache of a list of files, or making it, empty but for what an older one can give."""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from cxrlab.atomic import write_text
from cxrlab.data.cache import DONE, FACTS, CacheSettings, ImageCache, checksum
from cxrlab.errors import OutputError

log = logging.getLogger(__name__)

# Raised whenever the same file would give other pixels or facts, so that no older cache is taken for new.
_VERSION = 1
# A cache that is out of date stays for a week after its last use.
_KEPT_SECONDS = 7 * 24 * 3600


def open_cache(
    cache_dir: Path, root: Path, files: Sequence[str], settings: CacheSettings, name: str
) -> ImageCache:
    """Return the cache of these files, made empty where there is none.

    What it is keyed by: the files' names, sizes and modification times, the settings, and the version of
    the decoder. Images of an older cache of the same folder whose files have not changed are taken over, and
    a cache whose files have changed or are gone is removed a week after its last use.

    Args:
        cache_dir: Folder of all caches.
        root: Folder that the files are relative to.
        files: Path of each image under the root.
        settings: How they are decoded.
        name: What the data set is called; it begins the folder's name.

    Raises:
        OutputError: If the folder cannot be written, or the disk has no room for the pixels.
    """
    stamps = [stamp(root / file) for file in files]
    key = hashlib.sha256(json.dumps([_VERSION, asdict(settings), list(files), stamps]).encode()).hexdigest()[
        :12
    ]
    stem = re.sub(r"[^\w.-]+", "_", name or "images")
    stem = f"{stem}-{settings.image_size}px-{settings.channels}ch-{settings.resize}"
    # The same files may be read under another name, as a folder or as a table.
    named = [path for path in sorted(cache_dir.glob(f"*-{key}")) if path.is_dir()]
    folder = named[0] if named else cache_dir / f"{stem}-{key}"
    cache = ImageCache(folder, root, tuple(files), settings)
    if _is_sound(cache):
        with contextlib.suppress(OSError):  # others' caches may be read-only
            cache.used_path.touch()
        return cache
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache.lock_path):
            if not _is_sound(cache):
                _create(cache, stamps)
        _is_sound(cache)  # maps it: what is mapped stays, whatever becomes of the folder
    except OSError as error:
        remedy = "Set data.cache_dir to another folder."
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            needed, free = _num_bytes(cache), _num_free(cache_dir)
            remedy = f"It needs {needed:,} bytes; {free:,} are free there. Make room, or {remedy.lower()}"
        raise OutputError(
            f"The cache of decoded images cannot be written to {cache.folder}: {error}. {remedy}"
        ) from error
    return cache


def _is_sound(cache: ImageCache) -> bool:
    """Tell whether a folder holds what a cache must: somebody may have cleaned up in it."""
    size = cache.settings.image_size
    try:
        json.loads((cache.folder / "files.json").read_text(encoding="utf-8"))
        shapes = cache.pixels().shape, cache.facts().shape
        is_known = cache.facts().dtype == FACTS
    except (OSError, ValueError):
        cache.__dict__.pop("_kept_pixels", None)
        cache.__dict__.pop("_kept_facts", None)
        return False
    count = len(cache.files)
    return is_known and shapes == ((count, cache.settings.channels, size, size), (count,))


def stamp(path: Path) -> tuple[int, int]:
    """Return size and modification time (ns) of a file; (-1, -1) where it cannot be reached."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _num_bytes(cache: ImageCache) -> int:
    settings = cache.settings
    return len(cache.files) * (settings.channels * settings.image_size**2 + FACTS.itemsize)


def _num_free(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _create(cache: ImageCache, stamps: list[tuple[int, int]]) -> None:
    """Make an empty cache beside its place and rename it, with the images that an older one can give."""
    for left in (cache.folder, *cache.folder.parent.glob(f".{cache.folder.name}-*")):
        shutil.rmtree(left, ignore_errors=True)  # damaged, or cut off while it was made
    unfinished = cache.folder.with_name(f".{cache.folder.name}-{uuid.uuid4().hex[:8]}")
    size = cache.settings.image_size
    try:
        unfinished.mkdir()
        shape = (len(cache.files), cache.settings.channels, size, size)
        _allocate(unfinished / "pixels.npy", np.dtype("u1"), shape)
        _allocate(unfinished / "facts.npy", FACTS, shape[:1])
        description = {"version": _VERSION, "root": str(cache.root.resolve()), **asdict(cache.settings)}
        write_text(
            unfinished / "files.json", json.dumps({**description, "files": cache.files, "stamps": stamps})
        )
        _take_over(cache, stamps, unfinished)
        unfinished.rename(cache.folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _allocate(path: Path, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> None:
    """Write zeros whose bytes are really there: a full disk is told now, not by a signal later."""
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    num_bytes = path.stat().st_size
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        else:
            header = num_bytes - int(np.prod(shape)) * dtype.itemsize
            file.seek(header)
            for start in range(header, num_bytes, 1 << 24):
                file.write(bytes(min(1 << 24, num_bytes - start)))


def _take_over(cache: ImageCache, stamps: list[tuple[int, int]], unfinished: Path) -> None:
    """Copy unchanged images from other caches of the same root, and remove those that are out of date."""
    wanted = {(file, *one): row for row, (file, one) in enumerate(zip(cache.files, stamps, strict=True))}
    description = {"version": _VERSION, "root": str(cache.root.resolve()), **asdict(cache.settings)}
    for path in sorted(cache.folder.parent.glob("[!.]*/files.json")):
        try:
            older = json.loads(path.read_text(encoding="utf-8"))
            if any(older.get(key) != value for key, value in description.items()):
                continue
            keys = [(file, *one) for file, one in zip(older["files"], older["stamps"], strict=True)]
            _copy(path.parent, keys, unfinished, wanted)
        except (OSError, ValueError, KeyError, AttributeError) as error:
            log.debug("Nothing is taken from %s: %s", path.parent, error)
            continue
        if any(stamp(cache.root / file) != (size, changed) for file, size, changed in keys):
            _remove(path.parent)


def _copy(
    source: Path, keys: list[tuple[str, int, int]], target: Path, wanted: dict[tuple[str, int, int], int]
) -> None:
    facts = np.load(source / "facts.npy", mmap_mode="r")
    shared = [
        (row, wanted[key]) for row, key in enumerate(keys) if key in wanted and facts["state"][row] == DONE
    ]
    if not shared:
        return
    new_facts, new_pixels = (np.load(target / name, mmap_mode="r+") for name in ("facts.npy", "pixels.npy"))
    pixels = np.load(source / "pixels.npy", mmap_mode="r")
    is_whole = not (source / "unfinished").exists()
    for old, new in shared:
        if not is_whole and checksum(pixels[old]) != facts["checksum"][old]:
            continue
        new_pixels[new] = pixels[old]
        new_facts[new] = facts[old]
    log.info("%d of %d images are taken over from an older cache.", len(shared), len(wanted))


def _remove(folder: Path) -> None:
    """Delete a cache that is out of date, unless it was used of late: a training may be at work on it."""
    used = folder / "used"
    if time.time() - (used if used.exists() else folder).stat().st_mtime < _KEPT_SECONDS:
        return
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        with lock.acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
    except Timeout:
        return
    Path(lock.lock_file).unlink(missing_ok=True)
