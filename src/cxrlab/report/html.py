"""Pages as text: the templates, in which every value is escaped, and tables and figures as HTML.

A section of one's own is put together from ``paragraph_html``, ``table_html`` and ``figure_html``.
"""

import base64
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from cxrlab.errors import OutputError
from cxrlab.files import replacing
from cxrlab.report import formatting
from cxrlab.report.figures.style import styled
from cxrlab.report.tables import Cell, Row, Table

# What Markdown, or the HTML inside it, would take for more than text.
_MARKDOWN = re.compile(r"([\\`*_\[\]|#~])")
_DPI = 150  # of PNG files
_PIXELS_PER_INCH = 96  # of CSS
_LEAST_SCALE = 0.65  # of a figure: smaller letters than this cannot be read
_NO_METADATA: dict[str, None] = {"Date": None, "Creator": None, "Format": None, "Type": None}


@cache
def pages() -> Environment:
    """Return the environment of HTML pages: names from outside cannot become elements or attributes."""
    environment = Environment(
        loader=PackageLoader("cxrlab.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": formatting.number,
        "count": formatting.count,
        "percent": formatting.percent,
        "seconds": formatting.seconds,
    }
    return environment


@cache
def markdown() -> Environment:
    """Return the environment of Markdown texts; every value becomes plain text on one line."""
    return Environment(
        loader=PackageLoader("cxrlab.report", "templates"),
        autoescape=False,
        finalize=plain_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def plain_markdown(value: object) -> object:
    r"""Return a value as Markdown that shows it as it is; Markup and what is no text pass.

    Example:
        >>> plain_markdown("a_b <b>")
        'a\\_b &lt;b&gt;'
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = " ".join(value.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", text)


def part(name: str, *arguments: object) -> Markup:
    """Return what a macro of ``parts.html.jinja`` makes of the arguments, which it escapes."""
    return Markup(getattr(pages().get_template("parts.html.jinja").module, name)(*arguments).strip())


def picture_html(content: bytes, alt: str, caption: str) -> Markup:
    """Return a PNG with its caption, within the page.

    Args:
        content: The PNG.
        alt: What it shows, for those who do not see it.
        caption: Below it.
    """
    figure = '<figure><img src="{}" alt="{}"><figcaption>{}</figcaption></figure>'
    return Markup(figure).format(data_uri(content, "png"), alt, caption)


def paragraph_html(text: str) -> Markup:
    """Return a paragraph; the text is escaped, Markup is not.

    Example:
        >>> paragraph_html("p < 0.05")
        Markup('<p>p &lt; 0.05</p>')
    """
    return Markup("<p>{}</p>").format(text)


def table_html(table: Table | pd.DataFrame) -> Markup:
    """Return a table, which is scrolled where it is wider than the page; every cell is escaped.

    Args:
        table: Or a data frame: its index becomes the first column, and numbers are rounded to three digits.
    """
    return part("table", _from_frame(table) if isinstance(table, pd.DataFrame) else table)


def folded_html(title: str, table: Table | None) -> Markup:
    """Return a table that a reader unfolds; nothing for None."""
    return part("folded", title, table)


def figure_html(figure: Figure, *, alt: str, caption: str = "", name: str = "figure") -> Markup:
    """Return a figure with its caption, scrolled where its letters would become too small; texts are escaped.

    Args:
        figure: Best drawn in :func:`cxrlab.report.figures.style.styled`.
        alt: What it shows, for readers who cannot see it.
        caption: A sentence beneath it; by default ``alt``.
        name: The same figure under the same name gives the same characters.
    """
    return part("figure", _img(figure, alt, name), caption or alt)


def inline(figures: Mapping[str, Figure], descriptions: Mapping[str, str]) -> dict[str, Markup | None]:
    """Return each figure as an ``<img>`` for the macro ``figure``; None for those that were not drawn.

    Args:
        figures: By name.
        descriptions: What each figure of the page shows, for readers who cannot see it, by name.
    """
    return {
        name: _img(figures[name], text, name) if name in figures else None
        for name, text in descriptions.items()
    }


def _img(figure: Figure, alt: str, name: str) -> Markup:
    """Return a figure as ``<img>`` of a drawing of lines: none of its ids and styles meets the page's."""
    width, height = (round(_PIXELS_PER_INCH * inches) for inches in figure.get_size_inches())
    element = Markup('<img src="{}" alt="{}" width="{}" height="{}" style="min-width:{}px">')
    return element.format(
        data_uri(svg(figure, name), "svg+xml"), alt, width, height, round(_LEAST_SCALE * width)
    )


def data_uri(content: bytes, kind: str) -> str:
    """Return a picture as the source of an ``<img>`` of a page that needs no other file.

    Args:
        content: The file.
        kind: ``jpeg``, ``png`` or ``svg+xml``.

    Example:
        >>> data_uri(b"abc", "png")
        'data:image/png;base64,YWJj'
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def svg(figure: Figure, name: str) -> bytes:
    """Return a figure as SVG with its texts as texts; the same figure and name give the same bytes."""
    memory = io.BytesIO()
    with _saving(figure, {"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(memory, format="svg", metadata=_NO_METADATA)
    return memory.getvalue()


def png(figure: Figure, dpi: int = _DPI) -> bytes:
    """Return a figure as PNG of so many pixels an inch."""
    memory = io.BytesIO()
    with _saving(figure, {}):
        figure.savefig(memory, format="png", dpi=dpi)
    return memory.getvalue()


def save_png(figure: Figure, path: Path, dpi: int = _DPI) -> None:
    """Write a figure as PNG of so many pixels an inch.

    Raises:
        OutputError: If it cannot be written.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(png(figure, dpi))
    except OSError as error:
        raise OutputError(f"The figure cannot be written to {path}: {error}.") from error


def save_figures(folder: Path, figures: Mapping[str, Figure | None]) -> None:
    """Write figures as PNG; those of an earlier page that are None now are removed.

    Args:
        folder: It is made if it is not there.
        figures: By the name of their file.

    Raises:
        OSError: If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        if figure is not None:
            save_png(figure, folder / f"{name}.png")
        else:
            (folder / f"{name}.png").unlink(missing_ok=True)


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
            figure.set_layout_engine(None)  # it stays as it was laid out; the next file need not do it again
        yield


def _from_frame(frame: pd.DataFrame) -> Table:
    rows = [
        Row(str(name), [Cell(_shown(value)) for value in values])
        for name, values in zip(frame.index, frame.to_numpy(dtype=object), strict=True)
    ]
    return Table([str(frame.index.name or ""), *map(str, frame.columns)], rows)


def _shown(value: object) -> str:
    return formatting.number(value) if isinstance(value, float) else str(value)
