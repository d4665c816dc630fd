"""The templates of pages and model cards; whatever is put into them is escaped."""

import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cxrlab.report import formats

# What Markdown, or the HTML inside it, would take for more than text.
_MARKDOWN = re.compile(r"([\\`*_\[\]|#~])")


@cache
def pages() -> Environment:
    """Return the environment of HTML pages: names from outside cannot become elements or attributes."""
    environment = Environment(
        loader=PackageLoader("cxrlab.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": formats.number,
        "count": formats.count,
        "percent": formats.percent,
        "seconds": formats.seconds,
    }
    return environment


@cache
def markdown() -> Environment:
    """Return the environment of Markdown texts; every value becomes plain text on one line."""
    return Environment(
        loader=PackageLoader("cxrlab.report", ""),
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
