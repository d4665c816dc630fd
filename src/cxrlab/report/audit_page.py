"""The page of an audit: one HTML file that needs no network, and an animation for each label beside it."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from cxrlab.atomic import write_text
from cxrlab.data.audit.drift import LARGEST
from cxrlab.data.manifest import COVARIATE, PARTS, Manifest
from cxrlab.errors import OutputError
from cxrlab.report import audit_figures as figures
from cxrlab.report.audit_pictures import Pixels, animate, file_names, sample_rows, strip
from cxrlab.report.templates import pages

_GRID_IMAGES = 8
_GRID_SIDE = 112
_PAIR_SIDE = 200
_LOOKS = ("empty", "inverted", "border", "saturated")
_SEED = 0  # the same data give the same page


def write_audit_page(
    report: dict[str, Any],
    manifest: Manifest,
    pixels: Pixels,
    facts: pd.DataFrame,
    path: Path,
    *,
    images: bool,
) -> None:
    """Write ``audit.html``, and beside it ``<label>.gif`` with a label's first 100 images.

    Args:
        report: What :func:`cxrlab.data.audit.audit.audit` returned.
        manifest: The data set it is about.
        pixels: Its images by row number.
        facts: The facts the audit was given; images that could not be read are not shown.
        path: The HTML file; its folder must exist.
        images: False leaves out what a data-use agreement may protect: pictures, animations, and the names of
            images, patients and files.

    Raises:
        OutputError: If a file cannot be written.
    """
    try:
        shown = _pictures(report, manifest, pixels, facts, path) if images else _nothing()
        write_text(path, render(report, _figures(report, manifest), shown, images=images))
    except OSError as error:
        raise OutputError(f"The audit's page cannot be written to {path}: {error}.") from error


def render(report: dict[str, Any], drawn: dict[str, bytes], shown: dict[str, Any], *, images: bool) -> str:
    """Return the page as text; every name from the data is escaped.

    Args:
        report: The audit's report.
        drawn: PNG by the name of the figure; the page leaves out those that are not there.
        shown: ``grids``, ``duplicates`` and ``looks``, with their pictures as data URIs.
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
            drifted=[found for found in report["findings"] if found["kind"] == "drift"],
            several=len(report["data"]["labels"]) > 1,
            largest=LARGEST,
            **shown,
        )
    )


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _nothing() -> dict[str, Any]:
    return {"grids": [], "duplicates": [], "looks": {}}


def _figures(report: dict[str, Any], manifest: Manifest) -> dict[str, bytes]:
    drawn = {
        "label_frequencies": figures.label_frequencies(report),
        "loss_balance": figures.loss_balance(report),
        "images_per_patient": figures.images_per_patient(report),
    }
    if len(report["data"]["labels"]) > 1:
        drawn["cooccurrence"] = figures.cooccurrence(report)
    if (difference := figures.drift(report)) is not None:
        drawn["drift"] = difference
    if years := _ages(manifest):
        drawn["ages"] = figures.ages(years)
    return drawn


def _ages(manifest: Manifest) -> dict[str, Any]:
    table, column = manifest.table, COVARIATE + "age"
    if column not in table or not pd.api.types.is_numeric_dtype(table[column]):
        return {}
    known = table[table[column].notna()]
    there = [part for part in PARTS if (known["part"] == part).any()]
    if not there:
        return {"all": known[column].to_numpy(dtype=float)} if len(known) else {}
    return {part: known.loc[known["part"] == part, column].to_numpy(dtype=float) for part in there}


def _pictures(
    report: dict[str, Any], manifest: Manifest, pixels: Pixels, facts: pd.DataFrame, path: Path
) -> dict[str, Any]:
    readable = (facts["error"].fillna("") == "").to_numpy()
    return {
        "grids": _grids(manifest, pixels, np.flatnonzero(readable), path),
        "duplicates": _pairs(report, manifest, pixels, readable),
        "looks": _looks(report, manifest, pixels),
    }


def _grids(manifest: Manifest, pixels: Pixels, rows: Any, path: Path) -> list[dict[str, Any]]:
    """Return a strip of images for each label that has any, and write its animation."""
    grids = []
    for label, name in file_names(manifest.labels).items():
        positive = rows[manifest.targets[rows, manifest.labels.index(label)] == 1]
        if not len(positive):
            continue
        animate(pixels, positive.tolist(), path.with_name(f"{name}.gif"))
        drawn = sample_rows(manifest, label, rows, count=_GRID_IMAGES, seed=_SEED)
        source = _uri(strip(pixels, drawn, side=_GRID_SIDE), "jpeg")
        images = manifest.table["image"].iloc[drawn].tolist()
        grids.append({"label": label, "source": source, "images": images, "gif": f"{name}.gif"})
    return grids


def _pairs(report: dict[str, Any], manifest: Manifest, pixels: Pixels, readable: Any) -> list[dict[str, Any]]:
    names = manifest.table["image"]
    return [
        {
            "source": _uri(strip(pixels, pair["rows"], side=_PAIR_SIDE), "jpeg"),
            "kind": pair["kind"],
            "across": pair["across"],
            "images": names.iloc[pair["rows"]].tolist(),
        }
        for pair in report["duplicates"]
        if readable[pair["rows"]].all()
    ]


def _looks(report: dict[str, Any], manifest: Manifest, pixels: Pixels) -> dict[str, str]:
    """Return, by kind, a strip of the images that look wrong."""
    rows = pd.Series(range(len(manifest)), index=manifest.table["image"])
    odd = {
        found["kind"]: rows[found["images"]].tolist()
        for found in report["findings"]
        if found["kind"] in _LOOKS
    }
    return {kind: _uri(strip(pixels, chosen, side=_GRID_SIDE), "jpeg") for kind, chosen in odd.items()}
