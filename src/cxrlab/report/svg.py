"""Figures as files and as elements of a page."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from cxrlab.atomic import replacing
from cxrlab.errors import OutputError
from cxrlab.report.style import styled

_DPI = 150
_PIXELS_PER_POINT = 96 / 72  # of CSS
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_LONG_NUMBER = re.compile(r"(\d+\.\d\d)\d+")
_NO_METADATA: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """Return a figure as an ``<svg>`` element that stands in an HTML page.

    It takes the width it is given, up to its own size. Texts stay texts: they can be searched and read out.
    The same figure gives the same characters, and several figures on a page do not meet: every id begins
    with the name, and no rule of style leaves the element.

    Args:
        figure: Drawn in :func:`cxrlab.report.style.styled`.
        name: Letters, digits, ``_`` and ``-``, beginning with a letter; no other figure of the page has it.
        description: What the figure shows, for readers who cannot see it.

    Raises:
        ValueError: If the name is no such word.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise ValueError(f"name={name!r} cannot begin an id: take letters, digits, '_' and '-'.")
    memory = io.StringIO()
    with _saving(figure, {"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(memory, format="svg", metadata=_NO_METADATA)
    root = ElementTree.fromstring(memory.getvalue())
    _strip(root)
    for element in root.iter():
        _rewrite(element, name)
    width = float(root.get("viewBox", "").split()[2])
    root.attrib = {
        "viewBox": root.get("viewBox", ""),
        "role": "img",
        "aria-label": description,
        # What matplotlib says of every element of the page in a <style> of its own.
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
        "style": f"display:block;width:100%;height:auto;max-width:{width * _PIXELS_PER_POINT:.0f}px",
    }
    return ElementTree.tostring(root, encoding="unicode")


def png(figure: Figure, dpi: int = _DPI) -> bytes:
    """Return a figure as PNG of so many pixels an inch."""
    memory = io.BytesIO()
    with _saving(figure, {}):
        figure.savefig(memory, format="png", dpi=dpi)
    return memory.getvalue()


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG of 150 pixels an inch.

    Raises:
        OutputError: If it cannot be written.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(png(figure))
    except OSError as error:
        raise OutputError(f"The figure cannot be written to {path}: {error}.") from error


@contextmanager
def _saving(figure: Figure, settings: Any) -> Iterator[None]:
    """Apply the style, and lay the figure out once for all its files, which takes as long as drawing it.

    A letter that matplotlib's own font lacks is measured as a box, and no warning is due: in SVG the browser
    draws it with a font that has it; in PNG the box stands for it.
    """
    with styled(), matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine(None)
        yield


def _strip(element: ElementTree.Element) -> None:
    """Remove what serves files only, and rules of style, which in a page would reach everything."""
    for child in list(element):
        if child.tag.rpartition("}")[2] in ("metadata", "style"):
            element.remove(child)
        else:
            _strip(child)


def _rewrite(element: ElementTree.Element, name: str) -> None:
    """Drop namespaces, which HTML has not, and prefix every id and every reference to one."""
    element.tag = element.tag.rpartition("}")[2]
    attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    for key, value in attributes.items():
        if key == "id":
            attributes[key] = f"{name}-{value}"
        elif key == "href" and value.startswith("#"):
            attributes[key] = f"#{name}-{value[1:]}"
        elif key == "d":
            attributes[key] = _LONG_NUMBER.sub(r"\1", value)
        else:
            attributes[key] = _REFERENCE.sub(rf"url(#{name}-\1)", value)
    element.attrib = attributes
