"""The page of a command that explains: a gallery of heatmaps, and what the checks found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cxrlab
from cxrlab.atomic import write_text
from cxrlab.errors import OutputError
from cxrlab.report.explanation_figures import DESCRIPTIONS, explanation_figures
from cxrlab.report.explanation_section import headline, section
from cxrlab.report.formats import counted, number
from cxrlab.report.gallery import Shown, embedded
from cxrlab.report.pictures import save_figures
from cxrlab.report.redaction import Redaction
from cxrlab.report.repetition import records
from cxrlab.report.subject import Panel
from cxrlab.report.templates import pages

Numbers = dict[str, Any]

_MOST_BYTES = 4_900_000
_MARKUP = 500  # bytes around a picture
_OUTCOMES = {
    "TP": "Hit",
    "FP": "False alarm",
    "FN": "Miss",
    "TN": "Rightly negative",
    "unknown": "Truth not known",
}


def write_explanation(
    folder: Path,
    title: str,
    numbers: Numbers | None,
    panels: Sequence[Panel],
    examples: Sequence[Panel],
    session: Mapping[str, Any],
    *,
    labels: Sequence[str],
    images: bool,
) -> Path:
    """Write ``report.html`` and ``figures/*.png``, and return the page's path.

    Args:
        folder: Where to.
        title: Of the page.
        numbers: As in ``explanation.json``; None where nothing was checked.
        panels: The heatmaps, in the order in which they are shown.
        examples: Those that show what was flagged.
        session: Of ``provenance.json``.
        labels: Names that stay although they may look like a path.
        images: False leaves out radiographs, and the names of images, patients, files and folders.

    Raises:
        OutputError: If a file cannot be written.
    """
    redaction = Redaction(labels, active=not images)
    drawn = {} if numbers is None else explanation_figures(numbers)
    shown, hidden = (list(panels), list(examples)) if images else ([], [])
    context: dict[str, Any] = {
        "title": redaction.text(title),
        "headline": headline(numbers) if numbers else f"{counted(len(panels), 'heatmap')}, not checked.",
        "explanation": None if numbers is None else section(numbers, drawn, hidden, redaction),
        "facts": _facts(numbers, panels),
        "sessions": records({"Explanation": session}, redaction),
        "hidden": redaction.active,
        "version": cxrlab.__version__,
        "sections": [("heatmaps", "Heatmaps")] * bool(shown)
        + [("checks", "Are they to be trusted?")] * (numbers is not None)
        + [("repeat", "How to repeat it")],
    }
    template = pages().get_template("explanation.html.jinja")
    room = _MOST_BYTES - len(template.render(context, gallery=[], gallery_note="").encode())
    gallery, num_left_out = _within(shown, room)
    note = (
        f"{counted(num_left_out, 'heatmap')} more would not have fitted into a page below 5 MB; all are in "
    )
    context |= {
        "gallery": gallery,
        "gallery_note": f"{note if num_left_out else 'They are also in '}panels/.",
    }
    try:
        save_figures(folder / "figures", drawn, DESCRIPTIONS)
        write_text(folder / "report.html", template.render(context))
    except OSError as error:
        raise OutputError(f"The page cannot be written to {folder}: {error}.") from error
    return folder / "report.html"


def _facts(numbers: Numbers | None, panels: Sequence[Panel]) -> list[tuple[str, str]]:
    facts = [("heatmaps", counted(len(panels), "case"))]
    if numbers is not None:
        facts.append(("checked on", counted(numbers["images"], "image")))
        facts.append(("methods", ", ".join(numbers["methods"].values())))
        facts.append(("labels", ", ".join(numbers["labels"])))
        facts.append(("layers", str(numbers["settings"]["layers"])))
    return facts


def _within(panels: Sequence[Panel], room: int) -> tuple[list[tuple[str, list[Shown]]], int]:
    """Return the panels by finding, as many from the start as there is room for, and how many are left out.

    Findings take turns, so that a small page leaves each some.
    """
    by_finding: dict[str, list[Panel]] = {}
    for panel in panels:
        by_finding.setdefault(panel.finding, []).append(panel)
    turns = sorted((place, finding) for finding, row in by_finding.items() for place in range(len(row)))
    kept: dict[str, list[Shown]] = {finding: [] for finding in by_finding}
    num_kept = 0
    for place, finding in turns:
        panel = by_finding[finding][place]
        room -= 4 * len(panel.jpeg) // 3 + _MARKUP
        if room < 0:
            break
        kept[finding].append(_shown(panel))
        num_kept += 1
    return [(finding, row) for finding, row in kept.items() if row], len(panels) - num_kept


def _shown(panel: Panel) -> Shown:
    truth = {1.0: "present", 0.0: "absent"}.get(panel.target)
    told = f"{truth}, " if truth else ""
    words = f"{_OUTCOMES[panel.outcome]}: {told}predicted {number(panel.probability, 2)}."
    return Shown(embedded(panel.jpeg), words, panel.image)
