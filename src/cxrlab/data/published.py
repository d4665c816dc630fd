"""The numbers that were published of a data set, set beside those that were read."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from cxrlab.data.manifest import PARTS, Manifest
from cxrlab.errors import ConfigError

# As a config says it: {images: 112120, patients: 30805, parts: {train: 86524}, positives: {Effusion: 13317}};
# null for what is not known. Positives may be given by part: {train: {Edema: 52246}}.
Published = dict[str, int | dict[str, int | dict[str, int]] | None]

_TOTALS = ("images", "patients")
_BY_NAME = ("parts", "positives")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedComparison:
    """How what was read stands to what was published.

    Attributes:
        kind: ``as_published``, ``part_of_published`` or ``differs_from_published``.
        message: One sentence with the numbers.
        count: Images that were read.
        details: Each number that differs.
    """

    kind: str
    message: str
    count: int
    details: tuple[str, ...] = ()


def compared(
    manifest: Manifest, published: Published | None, *, without_positives: Collection[str] = ()
) -> Manifest:
    """Return the manifest with the outcome of the comparison, which is logged too.

    Fewer images than published are a part of the set, of which patients and positives say nothing unless
    there are more of them than published. More, or as many images with other numbers, is a warning.

    Args:
        manifest: Everything that a reader found, before any filter.
        published: Numbers by kind, each of which may be left out: ``images``, ``patients``, ``parts`` (images
            by the data set's own part) and ``positives`` (images by label, or by part and label); None
            compares nothing.
        without_positives: Labels whose positives are not compared, such as those whose uncertain readings
            were asked to count as present.

    Raises:
        ConfigError: If ``published`` has another key, or a value is no number.
    """
    if published is None:
        return manifest
    _check(published)
    comparison = _comparison(manifest, published, without_positives)
    log = _log.warning if comparison.kind == "differs_from_published" else _log.info
    log(f"{manifest.name}: {comparison.message}")
    return replace(manifest, published=comparison)


def _check(published: Published) -> None:
    for key, value in published.items():
        if key not in (*_TOTALS, *_BY_NAME):
            known = ", ".join((*_TOTALS, *_BY_NAME))
            raise ConfigError(f"data.reader.published names {key!r}; it may hold {known}.")
        if value is not None and (key in _BY_NAME) != isinstance(value, dict):
            wanted = "names with a number each" if key in _BY_NAME else "a number"
            raise ConfigError(f"data.reader.published.{key}={value} must be {wanted}.")


def _comparison(
    manifest: Manifest, published: Published, without_positives: Collection[str]
) -> PublishedComparison:
    read = _read(manifest)
    stated = {name: number for name, number in _flat(published) if name in read}
    for label in without_positives:
        for part in ("", *PARTS):
            stated.pop(_positives(label, part), None)
    images, of_images = len(manifest), stated.get("images")
    is_part = of_images is not None and images < of_images
    odd = {
        name: number
        for name, number in stated.items()
        if (read[name] > number if is_part else read[name] != number)
    }
    details = tuple(f"{name}: {read[name]:,} here, {number:,} published" for name, number in odd.items())
    if odd:
        part = f" (a part of the set: {images:,} of {of_images:,} images)" if is_part else ""
        message = (
            f"differs from what was published: {'; '.join(details[:4])}"
            + (f" and {len(details) - 4} more" if len(details) > 4 else "")
            + f"{part}. Other settings of data.reader, another edition or a changed table would explain it."
        )
        return PublishedComparison("differs_from_published", message, images, details)
    if is_part:
        message = f"a part of the set: {images:,} of {of_images:,} images."
        return PublishedComparison("part_of_published", message, images)
    totals = ", ".join(f"{stated[name]:,} {name}" for name in _TOTALS if name in stated)
    message = f"all of it, as published: {totals or f'{images:,} images'}."
    return PublishedComparison("as_published", message, images)


def _positives(label: str, part: str = "") -> str:
    return f"images with {label}" + (f" in part {part}" if part else "")


def _flat(published: Published) -> list[tuple[str, int]]:
    flat = []
    for key, value in published.items():
        if isinstance(value, int):
            flat.append((key, value))
        for name, number in (value if isinstance(value, dict) else {}).items():
            if isinstance(number, dict):
                flat += [(_positives(label, name), of_part) for label, of_part in number.items()]
            else:
                flat.append((_positives(name) if key == "positives" else f"images of part {name}", number))
    return flat


def _read(manifest: Manifest) -> dict[str, int]:
    """Return what was read, under the names that :func:`_flat` gives; a part without images counts 0."""
    table, is_present = manifest.table, manifest.targets == 1
    read = {"images": len(table), "patients": int(table["patient"].nunique())}
    for part in ("", *PARTS):
        rows = (table["split"] == part).to_numpy() if part else np.ones(len(table), dtype=bool)
        if part:
            read[f"images of part {part}"] = int(rows.sum())
        counts = is_present[rows].sum(axis=0)
        read |= {_positives(label, part): int(n) for label, n in zip(manifest.labels, counts, strict=True)}
    return read
