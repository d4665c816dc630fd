"""What the checks of heatmaps found, for a page: a section of an evaluation's, or a page of its own.

The page of ``cxrlab explain`` is a gallery of heatmaps and that section; beside it lie panels, arrays and
``explanation.json``.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.lib.format import open_memmap
from rich.console import Console
from rich.progress import track

import cxrlab
from cxrlab.errors import OutputError
from cxrlab.files import RunDir, write_json, write_text
from cxrlab.heatmaps.cases import choose_images, pick_cases
from cxrlab.heatmaps.checks import RANDOM, save_checks
from cxrlab.heatmaps.checks.flags import unusable_boxes
from cxrlab.heatmaps.drawing import Drawn, draw_task, write_gallery
from cxrlab.heatmaps.results import (
    ExplanationResult,
    FaithfulnessResult,
    LungsResult,
    RandomizationResult,
)
from cxrlab.heatmaps.settings import CHECKS, METHOD_NAMES, METHOD_NOTES, Check
from cxrlab.heatmaps.task import ExplainTask
from cxrlab.metrics.bootstrap import MACRO
from cxrlab.report import explanation_tables
from cxrlab.report.figures.explanation import DESCRIPTIONS, explanation_figures
from cxrlab.report.formatting import counted, interval, level, number, percent
from cxrlab.report.html import inline, pages, save_figures
from cxrlab.report.model_info import Panel, Session
from cxrlab.report.panels import Shown, embedded, read_panels
from cxrlab.report.tables import Table
from cxrlab.report.text import NAMES_LEFT_OUT, records
from cxrlab.training.callbacks.provenance import SessionRecord

log = logging.getLogger(__name__)

_MISSING = {"mean": "the image's mean grey", "blur": "the blurred image", "black": "black"}
_OUTCOMES = {
    "TP": "True positive",
    "FP": "False positive",
    "FN": "False negative",
    "TN": "True negative",
    "unknown": "Truth not known",
}
_CHECK_NAMES: Mapping[Check, str] = {
    "pointing": "whether they point at boxes (pointing game, overlap)",
    "lungs": "whether they lie on the lungs",
    "randomization": "model randomisation",
    "faithfulness": "insertion and deletion",
    "agreement": "agreement of the methods",
}
_MOST_BYTES = 4_900_000  # of a page
_MARKUP = 500  # bytes around a picture
_ALL_BYTES = 2**40  # the page itself chooses what it has room for


@dataclass(frozen=True, kw_only=True)
class ExplanationSection:
    """What ``explanation_parts.html.jinja`` shows; what was not checked is None or empty.

    Attributes:
        headline: Whether the first method points at the findings.
        notes: What methods show that do not show what raised the score.
        not_made: Which checks were not made, and how to make them.
        flags: What to beware of.
        protocol: How pointing and overlap were measured.
        figures: Elements by name.
        pointing: Pointing game by finding and method.
        differences: Against random weights, and of the methods against one another.
        sizes: Pointing game by size.
        overlaps: IoU and IoBB, with titles.
        randomization: Caption of the figure.
        faithfulness: Areas under the curves.
        faithfulness_of: Caption of the figure.
        agreement: Rank correlations.
        shortcuts: Shares of the heat outside the lungs, at the border and in the corners.
        shortcuts_of: Caption of the table.
        examples: Heatmaps that show what is flagged.
    """

    headline: str
    notes: Sequence[str]
    not_made: str
    flags: Sequence[str]
    protocol: str
    figures: Mapping[str, Markup | None]
    pointing: Table | None
    differences: Table | None
    sizes: Table | None
    overlaps: Sequence[tuple[str, Table]]
    randomization: str
    faithfulness: Table | None
    faithfulness_of: str
    agreement: Table | None
    shortcuts: Table | None
    shortcuts_of: str
    examples: Sequence[Shown]


def explanation_section(
    result: ExplanationResult, drawn: Mapping[str, Figure], examples: Sequence[Panel], *, images: bool
) -> ExplanationSection:
    """Return what the section on heatmaps shows, of an evaluation's page or of its own.

    Args:
        result: What the checks found.
        drawn: Figures as of :func:`cxrlab.report.figures.explanation.explanation_figures`.
        examples: Of what was flagged as a possible shortcut.
        images: False leaves out radiographs, and names of images.
    """
    names = result.methods
    return ExplanationSection(
        headline=headline(result),
        notes=method_notes(result.methods),
        not_made=not_made(result.checks),
        flags=_flags(result, images=images),
        protocol=protocol(result),
        figures=inline(drawn, DESCRIPTIONS),
        pointing=explanation_tables.pointing_table(result),
        differences=explanation_tables.difference_table(result),
        sizes=explanation_tables.size_table(result),
        overlaps=explanation_tables.overlap_tables(result),
        randomization=_randomization(result.randomization, names) if result.randomization else "",
        faithfulness=(
            explanation_tables.faithfulness_table(result.faithfulness, names) if result.faithfulness else None
        ),
        faithfulness_of=_faithfulness(result) if result.faithfulness else "",
        agreement=explanation_tables.agreement_table(result.agreement, names) if result.agreement else None,
        shortcuts=explanation_tables.shortcut_table(result.shortcuts, names) if result.shortcuts else None,
        shortcuts_of=_regions(result.shortcuts) if result.shortcuts else "",
        examples=[_example(panel) for panel in examples] if images else [],
    )


def _flags(result: ExplanationResult, *, images: bool) -> list[str]:
    """Return what to beware of; without images, nothing that names one."""
    messages = [flag.message for flag in result.flags if images or flag.kind != "unusable_boxes"]
    if not images and result.pointing is not None and result.pointing.unusable.boxes:
        messages.append(unusable_boxes(result.pointing.unusable, name_images=False))
    return messages


def method_notes(names: Mapping[str, str]) -> list[str]:
    """Return what to know of methods that do not show what raised the score.

    Args:
        names: Of the methods, as a page has them.

    Example:
        >>> method_notes({"gradcam": "Grad-CAM", "eigencam": "Eigen-CAM"})
        ['Eigen-CAM knows nothing of the finding: all findings of an image have the same map.']
    """
    return [f"{name} {METHOD_NOTES[method]}." for method, name in names.items() if method in METHOD_NOTES]


def not_made(checks: Sequence[Check]) -> str:
    """Return which checks were not made and how to make them; nothing where all were."""
    missing = [check for check in CHECKS if check not in checks]
    if not missing:
        return ""
    names = ", ".join(_CHECK_NAMES[check] for check in missing)
    return f"Not checked here: {names}. cxrlab explain run=<the run> checks={','.join(missing)} does it."


def headline(result: ExplanationResult) -> str:
    """Return in a sentence whether the first method points; without boxes, that nobody can say."""
    method, name = next(iter(result.methods.items()))
    pointing = explanation_tables.boxed_pointing(result)
    if result.pointing is None:
        return "Whether the heatmaps point at the findings was not checked."
    if pointing is None:
        about_model = {"randomization", "faithfulness"} & set(result.checks)
        questions = ["whether they depend on the model"] if about_model else []
        questions += ["whether they lie on the lungs"] if "lungs" in result.checks else []
        return (
            "No boxes are known here, so nobody can say whether the heatmaps point at the findings."
            + f" What can be said without boxes: {', and '.join(questions)}." * bool(questions)
        )
    values = {
        source: interval(estimates["pointing"], 2) for source, estimates in pointing.findings[MACRO].items()
    }
    description = pointing.differences[method].box_frequency[MACRO].description
    of = f" (mean of {len(pointing.cases)} findings)" if len(pointing.cases) > 1 else ""
    return (
        f"{name} points at the finding in a share of {values[method]} of the cases{of}; a map of where boxes "
        f"usually are, which never sees the image, in {values['box_frequency']}; the same method on networks "
        f"with random weights in {values[RANDOM + method]}; the image centre in {values['image_centre']}; a "
        f"random point in {values['uniform_chance']}. {name} is {description}."
    )


def protocol(result: ExplanationResult) -> str:
    """Return how pointing and overlap were measured; nothing where there are no boxes."""
    pointing = explanation_tables.boxed_pointing(result)
    if pointing is None or pointing.thresholds is None:
        return ""
    tolerance, thresholds = pointing.tolerance, pointing.thresholds
    within = f", or no farther from it than {percent(tolerance)} of the image's side" if tolerance else ""
    chosen = (
        f"on {counted(thresholds.cases or 0, 'case')} of the validation part"
        if thresholds.on == "validation"
        else f"on the boxes of other patients, in {thresholds.folds} folds"
    )
    coverage = level(result.interval.level)
    return (
        f"{counted(pointing.num_cases, 'case')}: every image with a box of a finding, whatever the network "
        "says of it. On a grid of 256 by 256 cells, of which a box covers each that it touches, a heatmap's "
        f"hottest cell must lie in a box{within}. Its region is what lies at or above a share of its maximum "
        f"that was chosen {chosen}, by the mean IoU. The box-frequency map sums the boxes that other "
        "patients have of the finding; the cells from half its maximum on are its region, as a box of "
        f"the mean size is that of the image centre. In small print: {coverage} intervals from resampling "
        "patients."
    )


def _randomization(randomization: RandomizationResult, names: Mapping[str, str]) -> str:
    ends = ", ".join(
        f"{names[method]} {interval(likeness.rank_correlation[-1], 2)}"
        for method, likeness in randomization.methods.items()
    )
    return (
        f"{_sample(randomization)}, mean of {counted(randomization.networks, 'network')} with random "
        f"weights. Rank correlation once nothing learnt is left: {ends}."
    )


def _faithfulness(result: ExplanationResult) -> str:
    return (
        "Mean probability of the finding as pixels change; of "
        f"{_sample(result.faithfulness) if result.faithfulness else ''}. Deletion puts "
        f"{_MISSING[result.settings.baseline]} in place of pixels; insertion starts from the blurred image."
    )


def _sample(measured: RandomizationResult | FaithfulnessResult | LungsResult) -> str:
    """Return of what a check was made: where a label has no known positive, any image was taken."""
    if measured.positives == measured.cases:
        return counted(measured.cases, "positive")
    return f"{counted(measured.cases, 'case')}, {measured.positives or 'none'} of them known to be positive"


def _regions(shortcuts: LungsResult) -> str:
    share = percent(shortcuts.regions_found, 0)
    if shortcuts.areas["outside"] is None:
        return (
            f"{_sample(shortcuts)}. Two lungs were found in {share} of them, too few to say what lies "
            "outside: are these frontal radiographs of the chest?"
        )
    return (
        f"{_sample(shortcuts)}. The lungs' bounding region was found by thresholding in {share} of them; the "
        "others got the usual place. It is rough: of synthetic radiographs, whose lungs are known, the "
        "intersection over union is 0.92 in the median."
    )


def _example(panel: Panel) -> Shown:
    truth = {1.0: "present", 0.0: "absent"}.get(panel.target, "not known")
    return Shown(
        embedded(panel.jpeg), f"{panel.finding}: {truth}, predicted {panel.probability:.2f}.", panel.image
    )


def _shown(panel: Panel) -> Shown:
    truth = {1.0: "present, ", 0.0: "absent, "}.get(panel.target, "")
    description = f"{_OUTCOMES[panel.outcome]}: {truth}predicted {number(panel.probability, 2)}."
    return Shown(embedded(panel.jpeg), description, panel.image)


def write_explanation(
    folder: Path,
    title: str,
    result: ExplanationResult | None,
    panels: Sequence[Panel],
    examples: Sequence[Panel],
    session: Mapping[str, Any],
    *,
    images: bool,
) -> Path:
    """Write ``report.html`` and ``figures/*.png``, and return the page's path.

    Args:
        folder: Where to.
        title: Of the page.
        result: What the checks found; None where nothing was checked.
        panels: The heatmaps, in the order in which they are shown.
        examples: Those that show what was flagged.
        session: Of ``provenance.json``.
        images: False leaves out radiographs, the command, and names of images, patients, files and folders.

    Raises:
        OutputError: If a file cannot be written.
    """
    drawn = {} if result is None else explanation_figures(result)
    shown = list(panels) if images else []
    context: dict[str, object] = {
        "title": title if images else "Heatmaps",
        "headline": headline(result) if result else f"{counted(len(panels), 'heatmap')}, not checked.",
        "explanation": explanation_section(result, drawn, examples, images=images) if result else None,
        "facts": _facts(result, panels),
        "sessions": records({"Explanation": Session.from_json(session)}, names=images),
        "names_left_out": "" if images else NAMES_LEFT_OUT,
        "version": cxrlab.__version__,
        "sections": [("heatmaps", "Heatmaps")] * bool(shown)
        + [("checks", "Are they to be trusted?")] * (result is not None)
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
    run_dir = RunDir(folder)
    try:
        save_figures(run_dir.figures, {name: drawn.get(name) for name in DESCRIPTIONS})
        write_text(run_dir.report, template.render(context))
    except OSError as error:
        raise OutputError(f"The page cannot be written to {folder}: {error}.") from error
    return run_dir.report


def _facts(result: ExplanationResult | None, panels: Sequence[Panel]) -> list[tuple[str, str]]:
    facts = [("heatmaps", counted(len(panels), "case"))]
    if result is not None:
        layers = result.settings.layers
        facts.append(("checked on", counted(result.images, "image")))
        facts.append(("methods", ", ".join(result.methods.values())))
        facts.append(("labels", ", ".join(result.labels)))
        facts.append(("layers", layers if isinstance(layers, str) else ", ".join(layers)))
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


def write_explained(
    explain_task: ExplainTask,
    folder: Path,
    *,
    title: str,
    limit: int | None,
    checks: Sequence[Check],
    images: bool,
    session: SessionRecord,
    start: float,
) -> Path:
    """Draw heatmaps, check them, and write everything to a folder of its own.

    Args:
        explain_task: What is explained; each image for each of its ``labels``.
        folder: Where to.
        title: Of the page.
        limit: Images that are drawn, at most; None for all. The checks are of all.
        checks: Which checks are made; none where there is none.
        images: Whether radiographs, and names of images and patients, may stand on the page.
        session: Of ``provenance.json``.
        start: When it began, by ``time.perf_counter``.

    Returns:
        The path of ``report.html``.

    Raises:
        ConfigError: If a method does not fit the network.
        OutputError: If a file cannot be written.
    """
    run_dir = RunDir(folder)
    cases = drawn_cases(explain_task, limit)
    panels = _saved(_panels(explain_task, cases), run_dir.maps, explain_task, len(cases))
    write_gallery(run_dir.panels, panels, explain_task.manifest)
    shown, _ = read_panels(run_dir.panels, budget_bytes=_ALL_BYTES)

    def write_page(result: ExplanationResult | None) -> Path:
        session["seconds"] = {"everything": round(time.perf_counter() - start, 1)}
        flagged, _ = read_panels(run_dir.flagged_panels, budget_bytes=_ALL_BYTES)
        page = write_explanation(folder, title, result, shown, flagged, session, images=images)
        write_json(run_dir.provenance, {"sessions": [session]}, indent=2)
        return page

    page = write_page(None)  # before the checks: they take long, and may be stopped
    if checks:
        result = save_checks(explain_task, run_dir.explanation, run_dir.flagged_panels, checks)
        log.info("\n%s", "\n".join([headline(result), *(flag.message for flag in result.flags)]))
        page = write_page(result)
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
    drawn = draw_task(explain_task, cases, explain_task.settings.methods)
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
