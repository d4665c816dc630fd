"""The figures of a page: elements in it, and PNG files beside it."""

from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from cxrlab.report.svg import inline_svg, save_png

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
