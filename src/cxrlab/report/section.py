"""A section of the page of an evaluation: one of cxrlab's own, or a person's."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup
from matplotlib.figure import Figure

from cxrlab.errors import ConfigError
from cxrlab.evaluation.results import EvaluationResult
from cxrlab.report.html import figure_html
from cxrlab.report.model_info import ModelInfo
from cxrlab.trust import import_path

_BEFORE = "repeat"  # where a section of one's own goes by default


@dataclass(frozen=True)
class PageContext:
    """What a section is made of.

    Attributes:
        result: Every number of the evaluation, with ``result.curves``.
        model_info: What was evaluated; on a page without names, without them.
        images: Whether radiographs, and names of images, patients and files, may stand on the page.
        room: Bytes that are left on the page, for a section that fills it.
        figures: Every figure of the page by the name of its PNG file; None for one that was not drawn.
    """

    result: EvaluationResult
    model_info: ModelInfo
    images: bool
    room: int = 0
    figures: dict[str, Figure | None] = field(default_factory=dict)

    def figure(self, name: str, figure: Figure | None, *, alt: str, caption: str = "") -> Markup:
        """Return a figure as HTML, and have it written to ``figures/<name>.png``; nothing for None.

        Args:
            name: Letters, digits, ``_`` and ``-``.
            figure: Best drawn in :func:`cxrlab.report.figures.style.styled`.
            alt: What it shows, for readers who cannot see it.
            caption: A sentence beneath it; by default ``alt``.
        """
        self.figures[name] = figure
        return Markup("") if figure is None else figure_html(figure, alt=alt, caption=caption, name=name)


@dataclass(frozen=True)
class Section:
    """A part of the page with its place in the contents.

    Attributes:
        id: Of its anchor: letters, digits, ``_`` and ``-``, beginning with a letter; no other section has it.
        title: Its heading.
        build: Returns its HTML, or None where it has nothing to show. A text is escaped and becomes a
            paragraph; ``markupsafe.Markup``, as :mod:`cxrlab.report.html` makes it, is not.
        after: Id of the section that it follows; None for a place before "How to repeat it".
        fills_page: Whether it takes the room that the others leave: it is built last.
    """

    id: str
    title: str
    build: Callable[[PageContext], str | None]
    after: str | None = None
    fills_page: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", self.id):
            raise ConfigError(
                f"A section of the report has the id {self.id!r}: take letters, digits, '_' and '-', and "
                "begin with a letter."
            )


def with_sections(sections: Sequence[Section], own: Sequence[Section]) -> list[Section]:
    """Return the sections of a page with a person's own at their places.

    Args:
        sections: Of the page.
        own: A person's, in their order.

    Raises:
        ConfigError: If an id stands twice, or a section shall follow one that is not there.
    """
    placed = list(sections)
    for section in own:
        ids = [other.id for other in placed]
        if section.id in ids:
            raise ConfigError(f"Two sections of the report have the id {section.id!r}: give yours another.")
        if section.after is not None and section.after not in ids:
            raise ConfigError(
                f"The section {section.id!r} shall stand after {section.after!r}, which is none of {ids}."
            )
        if section.after is None:
            place = ids.index(_BEFORE) if _BEFORE in ids else len(ids)
        else:
            place = ids.index(section.after) + 1
            while place < len(placed) and placed[place].after == section.after:
                place += 1  # those that were given first stand first
        placed.insert(place, section)
    return placed


def load_sections(paths: Sequence[str]) -> list[Section]:
    """Return the sections that a config names.

    Args:
        paths: Dotted paths of sections, or of functions without arguments that return one.

    Raises:
        ConfigError: If one cannot be imported or is no section.
    """
    return [_load_section(path) for path in paths]


def _load_section(path: str) -> Section:
    section = import_path(path, f"report.sections={path}")
    if callable(section):
        section = section()
    if not isinstance(section, Section):
        raise ConfigError(
            f"report.sections={path} is a {type(section).__name__}, and must be a cxrlab.report.Section or a "
            "function that returns one."
        )
    return section
