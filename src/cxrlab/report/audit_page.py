"""The page of an audit: one HTML file that needs no network, and an animation for each label beside it."""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup
from PIL import Image

from cxrlab.data.audit import AuditReport
from cxrlab.data.audit.drift import LARGEST
from cxrlab.data.manifest import COVARIATE, PARTS, Manifest
from cxrlab.data.public import public_name
from cxrlab.errors import OutputError
from cxrlab.files import replacing, write_text
from cxrlab.report.figures import audit as figures
from cxrlab.report.html import pages

_JPEG_QUALITY = 80
_GAP = 4
_GRID_IMAGES = 8
_GRID_SIDE = 112
_PAIR_SIDE = 200
_GIF_IMAGES = 100
_GIF_SIDE = 112  # 100 frames stay below 2 MB even for noise, on which GIF takes 1.5 bytes a pixel
_GIF_MILLISECONDS = 150
_LOOKS = ("empty", "inverted", "few_levels", "mostly_alike", "border", "saturated")
_SEED = 0  # the same data give the same page


class Pixels(Protocol):
    """Images by row number: ``pixels[rows]`` is uint8 of shape ``(n, C, S, S)``."""

    def __getitem__(self, rows: npt.NDArray[np.intp], /) -> npt.NDArray[np.uint8]:
        """Return the images of ``rows``."""
        ...


@dataclass(frozen=True)
class Grid:
    """A strip of images with a label, as a data URI, and the file of its animation."""

    label: str
    source: str
    images: list[str]
    gif: str


@dataclass(frozen=True)
class PairPicture:
    """Two images side by side, as a data URI; see :class:`cxrlab.data.audit.leakage_checks.ShownPair`."""

    source: str
    kind: str
    across: list[str]
    images: list[str]


@dataclass(frozen=True)
class Pictures:
    """Pictures of patients for the page: grids by label, duplicates, and images that look odd, by kind."""

    grids: list[Grid] = field(default_factory=list)
    duplicates: list[PairPicture] = field(default_factory=list)
    looks: dict[str, str] = field(default_factory=dict)


def write_audit_page(
    report: AuditReport,
    manifest: Manifest,
    pixels: Pixels,
    facts: pd.DataFrame,
    path: Path,
    *,
    images: bool,
    is_named: bool = False,
) -> None:
    """Write ``audit.html``, and beside it ``<label>.gif`` with a label's first 100 images.

    Images without any label have a strip and an animation too, named by the data set's word: ``Normal.gif``.

    Args:
        report: What :func:`cxrlab.data.audit.audit` returned.
        manifest: The data set it is about.
        pixels: Its images by row number.
        facts: The facts the audit was given; images that could not be read are not shown.
        path: The HTML file; its folder must exist.
        images: False leaves out what a data-use agreement may protect: pictures, animations, and the names of
            images, patients and files.
        is_named: Whether a person gave the data set's name; any other may be that of its folder, and is left
            out with the images.

    Raises:
        OutputError: If a file cannot be written.
    """
    try:
        if not images:
            report = replace(report, data=replace(report.data, name=public_name(report.data.name, is_named)))
        shown = _pictures(report, manifest, pixels, facts, path) if images else Pictures()
        write_text(path, render(report, _figures(report, manifest), shown, images=images))
    except OSError as error:
        raise OutputError(f"The audit's page cannot be written to {path}: {error}.") from error


def render(report: AuditReport, drawn: dict[str, bytes], shown: Pictures, *, images: bool) -> str:
    """Return the page as text; every name from the data is escaped.

    Args:
        report: The audit's report.
        drawn: PNG by the name of the figure; the page leaves out those that are not there.
        shown: Its pictures of patients.
        images: Whether names of images and patients may stand in the page.
    """

    def figure(name: str, caption: str) -> Markup:
        if name not in drawn:
            return Markup("")
        element = '<figure><img src="{}" alt="{}"><figcaption>{}</figcaption></figure>'
        return Markup(element).format(_uri(drawn[name], "png"), caption, caption)

    return (
        pages()
        .get_template("audit.html.jinja")
        .render(
            report=report,
            images=images,
            figure=figure,
            number=lambda value: "-" if value is None else f"{value:.4g}",
            percent=lambda value: "-" if value is None else f"{value:.2%}",
            drifted=[finding for finding in report.findings if finding.kind == "drift"],
            several=len(report.data.labels) > 1,
            largest=LARGEST,
            grids=shown.grids,
            duplicates=shown.duplicates,
            looks=shown.looks,
        )
    )


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _figures(report: AuditReport, manifest: Manifest) -> dict[str, bytes]:
    drawn = {
        "label_frequencies": figures.label_frequencies(report),
        "loss_balance": figures.loss_balance(report),
        "images_per_patient": figures.images_per_patient(report),
    }
    if len(report.data.labels) > 1:
        drawn["cooccurrence"] = figures.cooccurrence(report)
    if (difference := figures.drift(report)) is not None:
        drawn["drift"] = difference
    if years := _ages(manifest):
        drawn["ages"] = figures.ages(years)
    return drawn


def _ages(manifest: Manifest) -> dict[str, npt.NDArray[np.float64]]:
    table, column = manifest.table, COVARIATE + "age"
    if column not in table or not pd.api.types.is_numeric_dtype(table[column]):
        return {}
    with_age = table[table[column].notna()]
    there = [part for part in PARTS if (with_age["part"] == part).any()]
    if not there:
        return {"all": with_age[column].to_numpy(dtype=float)} if len(with_age) else {}
    return {part: with_age.loc[with_age["part"] == part, column].to_numpy(dtype=float) for part in there}


def _pictures(
    report: AuditReport, manifest: Manifest, pixels: Pixels, facts: pd.DataFrame, path: Path
) -> Pictures:
    readable = (facts["error"].fillna("") == "").to_numpy(dtype=bool)
    return Pictures(
        grids=_grids(manifest, pixels, np.flatnonzero(readable), path),
        duplicates=_pairs(report, manifest, pixels, readable),
        looks=_looks(report, manifest, pixels),
    )


def _grids(manifest: Manifest, pixels: Pixels, rows: npt.NDArray[np.intp], path: Path) -> list[Grid]:
    """Return a strip of images for each label that has any, and of those without; write their animations."""
    targets = manifest.targets[rows]
    shown = {label: rows[targets[:, column] == 1] for column, label in enumerate(manifest.labels)}
    shown[without_label(manifest)] = rows[(targets == 0).all(axis=1)]
    grids = []
    for title, name in file_names(list(shown)).items():
        if not len(shown[title]):
            continue
        animate(pixels, shown[title].tolist(), path.with_name(f"{name}.gif"))
        drawn = sample_rows(manifest, shown[title], count=_GRID_IMAGES, seed=_SEED)
        source = _uri(strip(pixels, drawn, side=_GRID_SIDE), "jpeg")
        images = manifest.table["image"].iloc[drawn].tolist()
        grids.append(Grid(title, source, images, f"{name}.gif"))
    return grids


def without_label(manifest: Manifest) -> str:
    """Return what images without any label are called: the data set's word, or ours."""
    if len(manifest.labels) > 1:
        return "none of the labels"
    return manifest.negative or f"no {manifest.labels[0]}"


def _pairs(
    report: AuditReport, manifest: Manifest, pixels: Pixels, readable: npt.NDArray[np.bool_]
) -> list[PairPicture]:
    names = manifest.table["image"]
    return [
        PairPicture(
            source=_uri(strip(pixels, pair.rows, side=_PAIR_SIDE), "jpeg"),
            kind=pair.kind,
            across=pair.across,
            images=names.iloc[pair.rows].tolist(),
        )
        for pair in report.duplicates
        if readable[pair.rows].all()
    ]


def _looks(report: AuditReport, manifest: Manifest, pixels: Pixels) -> dict[str, str]:
    """Return, by kind, a strip of the images that look wrong."""
    row_of_image = pd.Series(range(len(manifest)), index=manifest.table["image"])
    return {
        finding.kind: _uri(strip(pixels, row_of_image[finding.images].tolist(), side=_GRID_SIDE), "jpeg")
        for finding in report.findings
        if finding.kind in _LOOKS
    }


def sample_rows(manifest: Manifest, rows: npt.NDArray[np.intp], *, count: int, seed: int) -> list[int]:
    """Return up to ``count`` of ``rows``, drawn by the seed.

    No patient stands in twice as long as there are others: one with many images would fill the grid.
    """
    drawn = np.random.default_rng(seed).permutation(rows)
    again = manifest.table["patient"].iloc[drawn].duplicated().to_numpy()
    return [int(row) for row in np.concatenate([drawn[~again], drawn[again]])[:count]]


def strip(pixels: Pixels, rows: Sequence[int], *, side: int) -> bytes:
    """Return the images of ``rows`` side by side, each ``side`` pixels high, as JPEG."""
    images = _resized(pixels, rows, side)
    sheet = Image.new(images[0].mode, (len(images) * (side + _GAP) - _GAP, side), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index * (side + _GAP), 0))
    memory = io.BytesIO()
    sheet.save(memory, format="JPEG", quality=_JPEG_QUALITY)
    return memory.getvalue()


def animate(pixels: Pixels, rows: Sequence[int], path: Path) -> None:
    """Write an endless GIF of the first 100 of ``rows``, 112 pixels wide and below 2 MB.

    Raises:
        OSError: If the file cannot be written.
    """
    frames = _resized(pixels, rows[:_GIF_IMAGES], _GIF_SIDE)
    with replacing(path) as temporary:
        frames[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=_GIF_MILLISECONDS,
            loop=0,
        )


def _resized(pixels: Pixels, rows: Sequence[int], side: int) -> list[Image.Image]:
    order = np.argsort(rows, kind="stable")  # a file is read faster from its beginning to its end
    images = np.asarray(pixels[np.asarray(rows)[order]])[np.argsort(order, kind="stable")]
    size = (side, side)
    return [_image(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0) for image in images]


def _image(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    if len(pixels) == 1 or (np.array_equal(pixels[0], pixels[1]) and np.array_equal(pixels[1], pixels[2])):
        return Image.fromarray(np.ascontiguousarray(pixels[0]))
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def file_names(labels: Sequence[str]) -> dict[str, str]:
    """Return a file name, without its ending, for each label; no two are the same, also on case-blind disks.

    Example:
        >>> file_names(["Pleural Thickening", "a/b", "A b", ".."])
        {'Pleural Thickening': 'Pleural_Thickening', 'a/b': 'a_b', 'A b': 'A_b_2', '..': 'label'}
    """
    names: dict[str, str] = {}
    for label in labels:
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", label).strip("_")[:60] or "label"
        name, number, taken = stem, 1, {used.lower() for used in names.values()}
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}"
        names[label] = name
    return names
