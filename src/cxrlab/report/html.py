"""The templates of pages and model cards; whatever is put into them is escaped.

Figures as files and as elements of a page.

The figures of a page: elements in it, and PNG files beside it.

What of a command, a config or a message may stand on a page that is shared: no path and no file name.
"""

import io
import re
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from cxrlab.errors import OutputError
from cxrlab.files import replacing
from cxrlab.report import formatting
from cxrlab.report.figures.style import styled

# What Markdown, or the HTML inside it, would take for more than text.
_MARKDOWN = re.compile(r"([\\`*_\[\]|#~])")


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


def plain_markdown(value: Any) -> Any:
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
        figure: Drawn in :func:`cxrlab.report.figures.style.styled`.
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


_PIXELS_PER_INCH = 96  # of CSS


_LEAST_SCALE = 0.65  # smaller letters than this cannot be read


def inline(drawn: Mapping[str, Figure], descriptions: Mapping[str, str]) -> dict[str, Markup | None]:
    """Return each figure as an element that a template takes as it is; None for those that were not drawn.

    Args:
        drawn: Figures by name.
        descriptions: What each figure of the page shows, for readers who cannot see it, by name.
    """
    return {
        name: _element(drawn[name], name, text) if name in drawn else None
        for name, text in descriptions.items()
    }


def _element(figure: Figure, name: str, description: str) -> Markup:
    """Return the figure in a box that keeps its letters readable on a phone, where it is scrolled instead."""
    least = round(_LEAST_SCALE * _PIXELS_PER_INCH * figure.get_figwidth())
    drawn = inline_svg(figure, name, description)
    element = Markup('<div style="min-width:{}px">{}</div>').format(least, Markup(drawn))
    figure.set_layout_engine("none")  # it stays as it was laid out; the PNG need not do it again
    return element


def save_figures(folder: Path, drawn: Mapping[str, Figure], names: Mapping[str, str]) -> None:
    """Write the figures as PNG; those of an earlier page that were not drawn now are removed.

    Args:
        folder: It is made if it is not there.
        drawn: Figures by name.
        names: Of all the page's figures, drawn or not.

    Raises:
        OSError: If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name in drawn:
            save_png(drawn[name], folder / f"{name}.png")
        else:
            (folder / f"{name}.png").unlink(missing_ok=True)


HIDDEN = "…"


# Values of these keys name files, folders or runs, even where they have no slash.
_PATH_KEY = re.compile(
    r"(^|[._])(root|paths?|files?|filename|folders?|dir|dirpath|resume|runs?|predictions|targets|validation"
    r"|against|tables?|weights|checkpoint)(\.|$)"
)


_HARMLESS = re.compile(r"(?i)[\d.eE+-]*|null|none|true|false|auto|\[\]|\{\}")


_SUFFIX = (
    r"\.(?:png|jpe?g|dcm|dicom|tiff?|bmp|gif|webp|nii|npy|npz|csv|tsv|txt|json|xlsx?|ya?ml|parquet|h5|ckpt|pth?"
    r"|safetensors|onnx|zip|gz|tar|log|html)"
)


_PATHLIKE = re.compile(rf"(?i)[/\\]|^~|{_SUFFIX}$")


_EDGE = r"\s'\"`,;:()\[\]{}=<>"


# A quoted text with a slash may hold blanks; outside quotes a path ends at the next blank.
_IN_TEXT = re.compile(
    r"(?<![^\s(\[{=:,])(?P<quote>['\"])(?=[^'\"\n]*[/\\])[^'\"\n]*(?P=quote)(?!\w)"
    rf"|(?:[A-Za-z]:)?[^{_EDGE}]*[/\\][^{_EDGE}]*|(?i:[^{_EDGE}]+{_SUFFIX})(?![\w-])|(?<!\w)~[^{_EDGE}]+"
)


# The folders that Hydra names by the clock say nothing about a person.
_CLOCK = re.compile(r"(outputs/)?(multirun/)?\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d(/\d+)?/?")


_FOLDER_OPTIONS = ("--config-dir", "-cd", "--config-path", "-cp")


_MARK = "\ue000{}\ue001"


class Redaction:
    """Takes paths and file names out of texts, or leaves them as they are.

    Folders such as ``data.root`` may bear the name of a person, and file names hold patient ids.

    Args:
        labels: Names that stay although they may look like a path, such as "Nodule/Mass".
        active: False leaves everything as it is.

    Example:
        >>> Redaction(["Nodule/Mass"], active=True).text("Nodule/Mass was read from /data/Doe/a.csv.")
        'Nodule/Mass was read from ….'
    """

    def __init__(self, labels: Iterable[str], *, active: bool) -> None:
        self.active = active
        self._kept = sorted({name for name in labels if _PATHLIKE.search(name)}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return a message without paths and file names."""
        if not self.active:
            return text
        for index, label in enumerate(self._kept):
            text = text.replace(label, _MARK.format(index))
        text = _IN_TEXT.sub(_hidden_path, text)
        for index, label in enumerate(self._kept):
            text = text.replace(_MARK.format(index), label)
        return text

    def command(self, command: Sequence[str] | str) -> str:
        """Return a command line; values that name a file or folder are replaced, keys stay."""
        arguments = _split(command) if isinstance(command, str) else list(command)
        return shlex.join(self._arguments(arguments))

    def _arguments(self, arguments: Sequence[str]) -> Iterator[str]:
        earlier = ""
        for argument in arguments:
            key, equals, value = argument.partition("=")
            if earlier in _FOLDER_OPTIONS and self.active:
                yield HIDDEN
            elif equals:
                yield f"{key}={self.value(key.lstrip('+~'), value)}"
            else:
                yield self.value("", argument)
            earlier = argument

    def value(self, key: str, value: str) -> str:
        """Return the value of a key of the config, or what stands for it."""
        if not self.active or _HARMLESS.fullmatch(value) or _CLOCK.fullmatch(value):
            return value
        without_labels = value
        for label in self._kept:
            without_labels = without_labels.replace(label, "")
        named = (part.strip("'\" ") for part in re.split(r"[\[\]{},:]", without_labels))
        return HIDDEN if _PATH_KEY.search(key) or any(map(_PATHLIKE.search, named)) else value

    def config(self, config: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the dotted keys of a config with their values."""
        return [(key, self.value(key, value)) for key, value in _flat(config, "")]


def _hidden_path(found: re.Match[str]) -> str:
    path = found.group()
    if _CLOCK.fullmatch(path.rstrip(".")):
        return path
    end = "." if path.endswith(".") else ""
    return HIDDEN + end


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # an unfinished quotation
        return command.split()


def _flat(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _as_written(value)


def _as_written(value: Any) -> str:
    """Return a value as YAML and the command line have it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
