"""The page of a command that explains: a gallery of heatmaps, and what the checks found.

What the checks of heatmaps found, ready for a template: of an evaluation's page, or of its own.

What is explained becomes files: panels, arrays, explanation.json and the page.
"""

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.lib.format import open_memmap
from rich.console import Console
from rich.progress import track

import cxrlab
from cxrlab.errors import OutputError
from cxrlab.files import write_text
from cxrlab.heatmaps.cases import choose_images, pick_cases
from cxrlab.heatmaps.checks.case_bootstrap import MACRO
from cxrlab.heatmaps.checks.pointing import RANDOM
from cxrlab.heatmaps.checks.run_checks import check_heatmaps
from cxrlab.heatmaps.drawing import Drawn, draw_panels, write_gallery
from cxrlab.heatmaps.task import draw_examples, save_checks
from cxrlab.heatmaps.settings import METHOD_NAMES
from cxrlab.heatmaps.task import ExplainTask
from cxrlab.report import explanation_tables
from cxrlab.report.figures.explanation import DESCRIPTIONS, explanation_figures
from cxrlab.report.formatting import counted, interval, level, number, percent
from cxrlab.report.html import Redaction, inline, pages, save_figures
from cxrlab.report.model_info import Panel
from cxrlab.report.panels import Shown, embedded, read_panels
from cxrlab.report.text import records

if TYPE_CHECKING:
    from cxrlab.evaluation.external_data import PredictedImages


Numbers = dict[str, Any]


_MISSING = {"mean": "the image's mean grey", "blur": "the blurred image", "black": "black"}


def section(
    numbers: Numbers, drawn: Mapping[str, Figure], examples: Sequence[Panel], redaction: Redaction
) -> dict[str, Any]:
    """Return what ``explanation_parts.html.jinja`` needs.

    Args:
        numbers: As in ``explanation.json``.
        drawn: Figures as of :func:`cxrlab.report.figures.explanation.explanation_figures`.
        examples: Of what was flagged as a possible shortcut; none on a page without images.
        redaction: Takes names of images and files out.
    """
    return {
        "flags": [redaction.text(flag["message"]) for flag in numbers["flags"]],
        "headline": headline(numbers),
        "protocol": protocol(numbers),
        "figures": inline(drawn, DESCRIPTIONS),
        "pointing": explanation_tables.pointing_table(numbers),
        "differences": explanation_tables.difference_table(numbers),
        "sizes": explanation_tables.size_table(numbers),
        "overlaps": explanation_tables.overlap_tables(numbers),
        "randomization": _randomization(numbers),
        "faithfulness": explanation_tables.faithfulness_table(numbers),
        "faithfulness_of": _sample(numbers["faithfulness"]),
        "missing": _MISSING[numbers["settings"]["baseline"]],
        "agreement": explanation_tables.agreement_table(numbers),
        "shortcuts": explanation_tables.shortcut_table(numbers),
        "shortcuts_of": _regions(numbers),
        "examples": [_example(panel) for panel in examples],
    }


def headline(numbers: Numbers) -> str:
    """Return in a sentence whether the first method points; without boxes, that nobody can say."""
    method, name = next(iter(numbers["methods"].items()))
    pointing = numbers["pointing"]
    if not pointing["cases"]:
        return (
            "No boxes are known here, so nobody can say whether the heatmaps point at the findings. What can "
            "be said without boxes: whether they depend on the model, and whether they lie on the lungs."
        )
    found = pointing["findings"][MACRO]
    values = {source: interval(one["pointing"], 2) for source, one in found.items()}
    words = pointing["differences"][method]["words"][MACRO]
    of = f" (mean of {len(pointing['cases'])} findings)" if len(pointing["cases"]) > 1 else ""
    return (
        f"{name} points at the finding in a share of {values[method]} of the cases{of}; a map of where boxes "
        f"usually are, which never sees the image, in {values['box_frequency']}; the same method on networks "
        f"with random weights in {values[RANDOM + method]}; the image centre in {values['image_centre']}; a "
        f"random point in {values['uniform_chance']}. {name} is {words}."
    )


def protocol(numbers: Numbers) -> str:
    """Return how pointing and overlap were measured; nothing where there are no boxes."""
    pointing = numbers["pointing"]
    if not pointing["cases"]:
        return ""
    cases = sum(one["cases"] for one in pointing["cases"].values())
    tolerance = pointing["tolerance"]
    within = f", or no farther from it than {percent(tolerance)} of the image's side" if tolerance else ""
    thresholds = pointing["thresholds"]
    chosen = (
        f"on {counted(thresholds['cases'], 'case')} of the validation part"
        if thresholds["on"] == "validation"
        else f"on the boxes of other patients, in {thresholds['folds']} folds"
    )
    coverage = level(numbers["interval"]["level"])
    return (
        f"{counted(cases, 'case')}: every image with a box of a finding, whatever the network says of it. On "
        "a grid of 256 by 256 cells, of which a box covers each that it touches, a heatmap's hottest cell "
        f"must lie in a box{within}. Its region is what lies at or above a share of its maximum that was "
        f"chosen {chosen}, by the mean IoU. The box-frequency map sums the boxes that other patients have of "
        "the finding; the cells from half its maximum on are its region, as a box of the mean size is that "
        f"of the image centre. In small print: {coverage} intervals from resampling patients."
    )


def _randomization(numbers: Numbers) -> str:
    found = numbers["randomization"]
    ends = ", ".join(
        f"{numbers['methods'][method]} {interval(one['rank_correlation'][-1], 2)}"
        for method, one in found["methods"].items()
    )
    return (
        f"{_sample(found)}, mean of {counted(found['networks'], 'network')} with random "
        f"weights. Rank correlation once nothing learnt is left: {ends}."
    )


def _sample(found: Numbers) -> str:
    """Return of what a check was made: where a label has no known positive, any image was taken."""
    cases, positives = found["cases"], found.get("positives", found["cases"])
    if positives == cases:
        return counted(cases, "positive")
    return f"{counted(cases, 'case')}, {positives or 'none'} of them known to be positive"


def _regions(numbers: Numbers) -> str:
    shortcuts = numbers["shortcuts"]
    if shortcuts["areas"]["outside"] is None:
        return (
            f"{_sample(shortcuts)}. Two lungs were found in {percent(shortcuts['regions_found'], 0)} of "
            "them, too few to say what lies outside: are these frontal radiographs of the chest?"
        )
    return (
        f"{_sample(shortcuts)}. The lungs' bounding region was found by thresholding in "
        f"{percent(shortcuts['regions_found'], 0)} of them; the others got the usual place. It is rough: of "
        "synthetic radiographs, whose lungs are known, the intersection over union is 0.92 in the median."
    )


def _example(panel: Panel) -> Shown:
    truth = {1.0: "present", 0.0: "absent"}.get(panel.target, "not known")
    return Shown(
        embedded(panel.jpeg), f"{panel.finding}: {truth}, predicted {panel.probability:.2f}.", panel.image
    )


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


log = logging.getLogger(__name__)


_ALL_BYTES = 2**40  # the page itself chooses what it has room for


def write_explained(
    explain_task: ExplainTask,
    predicted: "PredictedImages",
    folder: Path,
    *,
    title: str,
    limit: int | None,
    checks: bool,
    images: bool,
    session: dict[str, Any],
    start: float,
) -> Path:
    """Draw heatmaps, check them, and write everything to a folder of its own.

    Args:
        explain_task: What is explained; each image for each of its ``labels``.
        predicted: What the material was made of.
        folder: Where to.
        title: Of the page.
        limit: Images that are drawn, at most; None for all. The checks are of all.
        checks: Whether to check heatmaps.
        images: Whether radiographs, and names of images and patients, may stand on the page.
        session: Of ``provenance.json``.
        start: When it began, by ``time.perf_counter``.

    Returns:
        The path of ``report.html``.

    Raises:
        ConfigError: If a method does not fit the network.
        OutputError: If a file cannot be written.
    """
    cases = drawn_cases(explain_task, limit)
    write_gallery(folder / "panels", _saved(_panels(explain_task, cases), folder / "maps", explain_task, len(cases)),
                  explain_task.manifest)  # fmt: skip
    numbers = None
    if checks:
        numbers, examples = check_heatmaps(explain_task)
        save_checks(folder / "explanation.json", numbers, predicted)
        draw_examples(folder / "flagged", explain_task, examples)
        log.info("\n%s", "\n".join([headline(numbers), *(flag["message"] for flag in numbers["flags"])]))
    session["seconds"] = {"everything": round(time.perf_counter() - start, 1)}
    shown, flagged = (
        read_panels(folder / name, budget_bytes=_ALL_BYTES)[0] for name in ("panels", "flagged")
    )
    page = write_explanation(
        folder, title, numbers, shown, flagged, session, labels=explain_task.names, images=images
    )
    write_text(folder / "provenance.json", json.dumps({"sessions": [session]}, indent=2) + "\n")
    return page


def drawn_cases(explain_task: ExplainTask, limit: int | None) -> pd.DataFrame:
    """Return the cases that are drawn: each label of the images that tell most.

    Args:
        explain_task: What is explained.
        limit: Images, at most; None for all.
    """
    labels = list(explain_task.labels)
    of_labels = explain_task.cases[explain_task.cases["label"].isin(labels)]
    rows = choose_images(of_labels, explain_task.manifest, limit)
    return pick_cases(of_labels, [(row, label) for row in rows for label in labels])


def _panels(explain_task: ExplainTask, cases: pd.DataFrame) -> Iterator[Drawn]:
    methods = explain_task.settings.methods
    drawn = draw_panels(
        cases,
        explain_task.manifest,
        read_image=explain_task.image,
        explain={METHOD_NAMES[method]: explain_task.explain(method) for method in methods},
        num_images=explain_task.settings.batch_size,
    )
    yield from track(drawn, "Drawing heatmaps", total=len(cases), console=Console(stderr=True))


def _saved(
    panels: Iterable[Drawn], folder: Path, explain_task: ExplainTask, num_cases: int
) -> Iterator[Drawn]:
    """Pass panels through, and keep their heatmaps: of each method an array ``(P, H, W)`` in their order."""
    methods: Sequence[str] = explain_task.settings.methods
    files = {METHOD_NAMES[method]: folder / f"{method}.npy" for method in methods}
    arrays: dict[str, np.memmap[Any, Any]] = {}
    number = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, drawn in enumerate(panels, 1):
            for name, heat in drawn.heatmaps.items():
                if name not in arrays:
                    shape = (num_cases, *heat.shape)
                    arrays[name] = open_memmap(files[name], mode="w+", dtype=np.float32, shape=shape)
                arrays[name][number - 1] = heat.numpy()
            yield drawn
        for name, array in arrays.items():
            array.flush()
            if number < num_cases:  # an image could not be read
                np.save(files[name], np.array(array[:number]))
    except OSError as error:
        raise OutputError(f"Heatmaps could not be written to {folder}: {error}. Make room there.") from error
