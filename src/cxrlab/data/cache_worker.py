"""The process that decodes images into a cache: it reads lists of rows, and answers each when it is done."""

import json
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cxrlab.data.cache import AT_WORK, DONE, EMPTY, UNREADABLE, CacheSettings, ImageCache, checksum
from cxrlab.data.decode import read_image
from cxrlab.data.duplicates.search import perceptual_hash
from cxrlab.data.image_statistics import measure
from cxrlab.errors import UserError

Rows = npt.NDArray[np.intp]


def write_rows(cache: ImageCache, rows: Rows) -> None:
    """Decode the images of ``rows`` into the cache; those that cannot be read get the reason instead."""
    pixels, facts = cache.pixels("r+"), cache.facts("r+")
    for row in rows:
        facts["state"][row] = AT_WORK
        facts["state"][row] = _write(cache, pixels, facts, int(row))


def _may_pass(error: UserError) -> bool:
    """Tell whether the file may be readable later: it is the system's fault, or a decoder is missing."""
    cause = error.__cause__
    return (isinstance(cause, OSError) and cause.errno is not None) or "cxrlab[dicom]" in str(error)


def _write(cache: ImageCache, pixels: npt.NDArray[np.uint8], facts: npt.NDArray[np.void], row: int) -> int:
    settings = cache.settings
    path = cache.root / cache.files[row]
    try:
        image = read_image(
            path, image_size=settings.image_size, channels=settings.channels, resize=settings.resize
        )
    except UserError as error:
        facts["error"][row] = str(error).encode()[:400]
        return EMPTY if _may_pass(error) else UNREADABLE
    pixels[row] = image.pixels
    known = {
        "checksum": checksum(image.pixels),
        "digest": image.digest.encode(),
        "width": image.width,
        "height": image.height,
        "mode": image.mode.encode()[:16],
        "warning": image.warning.encode()[:400],
        "error": b"",
        "hash": perceptual_hash(image.pixels),
        **measure(image.pixels)._asdict(),
    }
    for name, value in known.items():
        facts[name][row] = value
    return DONE


def main(folder: Path, root: Path) -> None:
    """Serve until standard input ends."""
    described = json.loads((folder / "files.json").read_text(encoding="utf-8"))
    settings = CacheSettings(described["image_size"], described["channels"], described["resize"])
    cache = ImageCache(folder, root, tuple(described["files"]), settings)
    for line in sys.stdin:
        write_rows(cache, np.array(json.loads(line), dtype=np.intp))
        print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
