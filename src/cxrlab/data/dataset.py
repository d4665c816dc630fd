"""From a manifest to images that are ready: cached, their copies known, the unreadable ones left out."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from rich.progress import track

from cxrlab.data.audit.run_audit import AuditReport, audit
from cxrlab.data.cache import DONE, CacheSettings, ImageCache, fill, open_cache
from cxrlab.data.decode import read_image
from cxrlab.data.duplicates.search import (
    SMALLEST_SIZE,
    find_near_duplicates,
    identical_groups,
    linked_groups,
    mostly_alike,
)
from cxrlab.data.manifest import LABEL, Manifest
from cxrlab.data.readers._folder_images import Tally, images_below, log_left_out
from cxrlab.errors import DataError, MissingFileError
from cxrlab.files import write_text

# Raised whenever the same data would give another report, or other pairs.
_AUDIT_VERSION = 3
_COPIES_VERSION = 1

_NUM_NAMED = 5

Mask = npt.NDArray[np.bool_]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Images:
    """The images of a manifest in the cache.

    Attributes:
        cache: The cache.
        positions: Row in the cache of each row of the manifest, shape ``(N,)``.
    """

    cache: ImageCache
    positions: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, rows: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Return images by their rows in the manifest, uint8, shape ``(n, C, H, W)``."""
        return self.cache.images[self.positions[np.asarray(rows, dtype=np.intp)]]

    @property
    def facts(self) -> pd.DataFrame:
        """What is known of each file; see :meth:`cxrlab.data.cache.ImageCache.table`."""
        return self.cache.table(self.positions)

    @property
    def key(self) -> bytes:
        """Bytes that are others where other images are meant, or other content of theirs."""
        return self.positions.tobytes() + self.cache.facts()["seal"][self.positions].tobytes()

    @property
    def digests(self) -> list[str]:
        """The digest of each file's bytes; empty where it could not be read."""
        cells: list[bytes] = self.cache.facts()["digest"][self.positions].tolist()
        return [cell.decode("ascii", errors="replace") for cell in cells]

    @property
    def resize(self) -> str:
        """How the images were made square."""
        return str(self.cache.settings.resize)

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """Perceptual hashes, shape ``(N, HASH_WORDS)``."""
        return self.cache.hashes(self.positions)

    def select(self, mask: Mask) -> "Images":
        """Return those of the manifest's rows where ``mask`` holds."""
        return Images(self.cache, self.positions[mask])


@dataclass(frozen=True)
class Copies:
    """Images that show the same exposure.

    Attributes:
        identical: Rows whose files have the same bytes, in groups of two or more.
        pairs: Near-identical rows; see :func:`cxrlab.data.duplicates.search.find_near_duplicates`.
    """

    identical: list[list[int]]
    pairs: pd.DataFrame

    @classmethod
    def none(cls) -> Self:
        """Return no copies at all."""
        return cls([], pd.DataFrame({"one": [], "other": []}, dtype=int))

    def select(self, mask: Mask) -> "Copies":
        """Return what is left of them among those of the manifest's rows where ``mask`` holds."""
        new_row = np.cumsum(mask) - 1
        groups = [[int(new_row[row]) for row in group if mask[row]] for group in self.identical]
        one, other = self.pairs["one"].to_numpy(dtype=int), self.pairs["other"].to_numpy(dtype=int)
        pairs = self.pairs.assign(one=new_row[one], other=new_row[other])[mask[one] & mask[other]]
        return Copies([group for group in groups if len(group) > 1], pairs.reset_index(drop=True))

    def groups(self, manifest: Manifest) -> npt.NDArray[np.object_]:
        """Return a name for each row: patients that share an image are one group, which no draw separates."""
        links = [(group[0], copy) for group in self.identical for copy in group[1:]]
        alike = mostly_alike(self.pairs, len(manifest))
        if alike.any():
            _log.warning(
                "%d of %d images are near-identical to one another: they were decoded wrongly, or are no "
                "radiographs. They are not taken for copies. For instance: %s.",
                int(alike.sum()), len(manifest), manifest.named(np.flatnonzero(alike).tolist()),
            )  # fmt: skip
        pairs = self.pairs[~alike[self.pairs["one"].to_numpy(dtype=int)]]
        links += list(zip(pairs["one"].tolist(), pairs["other"].tolist(), strict=True))
        return linked_groups(manifest.table["patient"].tolist(), links)


@dataclass(frozen=True)
class Unreadable:
    """Images that could not be read, and are left out.

    Attributes:
        table: Their rows of the manifest.
        images: Their rows in the cache, which hold the reasons.
    """

    table: pd.DataFrame
    images: Images

    def __len__(self) -> int:
        return len(self.table)

    @property
    def report(self) -> pd.DataFrame:
        """Columns ``image`` and ``error``."""
        return pd.DataFrame({"image": self.table["image"].tolist(), "error": self.images.facts["error"]})


@dataclass(frozen=True)
class Dataset:
    """A manifest with its images, row by row.

    Attributes:
        manifest: One row an image.
        images: The image of each row.
        unreadable: What was left out because it could not be read.
        copies: Which of its images show the same; none before they were looked for.
    """

    manifest: Manifest
    images: Images
    unreadable: Unreadable
    copies: Copies = field(default_factory=Copies.none)

    def __len__(self) -> int:
        return len(self.manifest)

    @cached_property
    def content(self) -> str:
        """12 hex digits that depend on the bytes of every image's file, by its name, not on the row order."""
        names, digests = self.manifest.table["image"].to_numpy(dtype=object), self.images.digests
        hashed = hashlib.sha256()
        for row in np.argsort(names).tolist():
            hashed.update(f"{names[row]}\t{digests[row]}\n".encode("utf-8", "surrogateescape"))
        return hashed.hexdigest()[:12]

    @cached_property
    def targets(self) -> npt.NDArray[np.float32]:
        """Labels: 1 present, 0 absent, NaN unknown, shape ``(N, L)``."""
        return self.manifest.targets.copy()  # pandas lends its memory read-only

    def select(self, mask: Mask) -> "Dataset":
        """Return the rows where ``mask`` holds; what could not be read stays as it is."""
        manifest = self.manifest.rows(pd.Series(mask, index=self.manifest.table.index))
        return replace(
            self, manifest=manifest, images=self.images.select(mask), copies=self.copies.select(mask)
        )


def cached(
    manifest: Manifest, settings: CacheSettings, *, cache_dir: Path, num_workers: int | None, files: list[str]
) -> Images:
    """Decode the images of a manifest that are not in the cache yet, and return them all.

    Args:
        manifest: What a reader returned, perhaps filtered.
        settings: How they are decoded.
        cache_dir: Folder of all caches.
        num_workers: Processes that decode; None for one a core, 0 for this one.
        files: Every image of the data set, so that each choice of them shares one cache.

    Raises:
        OutputError: If the cache cannot be written.
        DataError: If a process that decodes is killed.
    """
    cache = open_cache(cache_dir, manifest.root, files, settings, manifest.name)
    row_of_file = {file: row for row, file in enumerate(files)}
    positions = np.array([row_of_file[file] for file in manifest.table["image"]], dtype=np.intp)
    fill(cache, positions, num_workers=num_workers)
    return Images(cache, positions)


def without_unreadable(
    manifest: Manifest, images: Images, on_unreadable: Literal["raise", "skip"]
) -> Dataset:
    """Leave out the images that could not be read.

    Raises:
        DataError: If there are any and ``on_unreadable`` is ``raise``, or if none is left.
    """
    is_broken = images.cache.facts()["state"][images.positions] != DONE
    dataset = Dataset(manifest, images, Unreadable(manifest.table[is_broken], images.select(is_broken)))
    if not is_broken.any():
        return dataset
    errors = dataset.unreadable.report["error"].tolist()
    message = f"{len(errors)} of {len(manifest)} images cannot be read: " + " ".join(errors[:_NUM_NAMED])
    if on_unreadable == "raise":
        raise DataError(f"{message} Mend or remove them, or set data.on_unreadable=skip.")
    if is_broken.all():
        raise DataError(message)
    _log.warning("%s They are left out, and listed in unreadable.csv.", message)
    return dataset.select(~is_broken)


def find_copies(images: Images) -> Copies:
    """Return identical and near-identical images; what was found once is kept beside the cache.

    Near-identical ones are not looked for in images of fewer than ``SMALLEST_SIZE`` pixels.
    """
    digests = images.digests
    identical = identical_groups(digests)
    size = images.cache.settings.image_size
    if size < SMALLEST_SIZE:
        _log.warning(
            "data.image_size=%d: near-identical images are looked for from %d pixels on; files of the "
            "same bytes are found.", size, SMALLEST_SIZE,
        )  # fmt: skip
        return replace(Copies.none(), identical=identical)
    key = hashlib.sha256(images.key).hexdigest()[:12]
    path = images.cache.folder / f"pairs-v{_COPIES_VERSION}-{key}.kept"
    if (kept := _kept(path)) is not None:
        return Copies(identical, pd.read_csv(StringIO(kept)))
    pairs = find_near_duplicates(images.hashes, images, digests=digests)
    _keep(path, pairs.to_csv(index=False))
    return Copies(identical, pairs)


def _keep(path: Path, text: str) -> None:
    """Keep what was computed, behind its checksum."""
    try:
        write_text(path, f"{_checksum(text)}\n{text}")
    except OSError as error:  # a cache that others made may be read-only: it is only slower
        _log.debug("%s is not kept: %s", path, error)


def _kept(path: Path) -> str | None:
    """Return what was kept; None where there is nothing, or it was changed since: it is computed again."""
    try:
        found, _, text = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, ValueError):
        return None
    return text if found == _checksum(text) else None


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def audit_dataset(dataset: Dataset) -> AuditReport:
    """Audit a data set with what could not be read; the report of the same data is kept beside the cache.

    Args:
        dataset: Its copies were looked for.
    """
    manifest, unreadable = dataset.manifest, dataset.unreadable
    whole = replace(manifest, table=pd.concat([manifest.table, unreadable.table], ignore_index=True))
    positions = np.concatenate([dataset.images.positions, unreadable.images.positions])
    cache = dataset.images.cache
    path = cache.folder / f"audit-{_audit_key(whole, Images(cache, positions))}.kept"
    root = str(manifest.root.resolve())
    if (kept := _kept(path)) is not None:
        return replace(AuditReport.from_json(json.loads(kept)), root=root)
    report = audit(
        whole,
        Images(cache, positions).facts,
        identical=dataset.copies.identical,
        pairs=dataset.copies.pairs,
        missing=manifest.missing,
        extra=manifest.extra,
        raw=manifest.raw,
    )
    _keep(path, json.dumps(asdict(report)))
    return replace(report, root=root)


def _audit_key(manifest: Manifest, images: Images) -> str:
    """Return a name for all that a report depends on."""
    named = (manifest.name, manifest.num_listed, list(manifest.table), manifest.missing, manifest.extra)
    found = (manifest.left_out, manifest.spellings, manifest.published)
    hashed = hashlib.sha256(repr((_AUDIT_VERSION, *named, *found)).encode() + images.key)
    for table in (manifest.table, manifest.boxes, manifest.raw):
        if table is not None:
            hashed.update(pd.util.hash_pandas_object(table).to_numpy().tobytes())
    return hashed.hexdigest()[:12]


class FramedImages(Protocol):
    """Images by row that know how they were decoded: :class:`Images` or :class:`FileImages`."""

    @property
    def resize(self) -> str:
        """How they were made square: ``stretch``, ``pad`` or ``crop``."""

    @property
    def facts(self) -> pd.DataFrame:
        """With the columns ``width`` and ``height`` of the files in pixels, one row an image."""

    def __getitem__(self, rows: list[int], /) -> npt.NDArray[np.uint8]:
        """Return images, shape ``(n, C, H, W)``."""


class FileImages:
    """Image files that are named one by one, outside any data set, decoded; rows count them in their order.

    Args:
        paths: The files, at least one.
        image_size: Height and width in pixels.
        channels: 1 or 3.
        resize: ``stretch``, ``pad`` or ``crop``.

    Raises:
        MissingFileError: If a file does not exist.
        DataError: If a file is no image.
    """

    def __init__(self, paths: Sequence[Path], *, image_size: int, channels: int, resize: str) -> None:
        self.resize = resize
        gone = [path for path in paths if not path.is_file()]
        if gone:
            others = {1: "", 2: " and 1 other"}.get(len(gone), f" and {len(gone) - 1} others")
            raise MissingFileError(f"There is no image {gone[0]}{others}.")
        shown = track(paths, "Reading images", console=Console(stderr=True))
        decoded = [
            read_image(path, image_size=image_size, channels=channels, resize=resize) for path in shown
        ]
        self._pixels = np.stack([image.pixels for image in decoded])
        self.facts = pd.DataFrame(
            {"width": [image.width for image in decoded], "height": [image.height for image in decoded]}
        )

    def __getitem__(self, rows: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Return images by row, uint8, shape ``(n, C, H, W)``."""
        return np.asarray(self._pixels[np.asarray(rows, dtype=np.intp)])


def image_files(names: Sequence[str]) -> list[Path]:
    """Return the files that are named, and those in folders that are named, in their order, each once.

    Raises:
        MissingFileError: If one is neither, or a folder holds no image.
    """
    paths: dict[Path, Path] = {}
    for name in names:
        for path in _files_of(Path(name).expanduser()):
            paths.setdefault(path.resolve(), path)
    return list(paths.values())


def _files_of(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise MissingFileError(f"images names {path}: there is no such file or folder.")
        yield path
        return
    tally = Tally()
    images = images_below(path, "", tally)
    log_left_out(path, tally.entries)
    if not images:
        raise MissingFileError(f"images names {path}: there is no image that can be decoded in this folder.")
    yield from (path / image for image in images)


def manifest_of(paths: Sequence[Path], labels: Sequence[str]) -> Manifest:
    """Return the manifest of files of which nothing is known: each is a patient of its own."""
    names = [str(path) for path in paths]
    table = pd.DataFrame({"image": names, "patient": names, "split": ""})
    for label in labels:
        table[LABEL + label] = np.nan
    return Manifest(Path(), table, name="image files")
