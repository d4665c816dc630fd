"""The page of an evaluation: one HTML file that needs no network; beside it a model card and the figures."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

import cxrlab
from cxrlab.atomic import write_text
from cxrlab.data.audit.summary import verdict
from cxrlab.errors import OutputError
from cxrlab.report import group_tables, label_tables, sentences
from cxrlab.report.explanation_figures import DESCRIPTIONS as EXPLANATION
from cxrlab.report.explanation_figures import explanation_figures
from cxrlab.report.explanation_section import section
from cxrlab.report.formats import counted
from cxrlab.report.gallery import gallery
from cxrlab.report.model_card import model_card
from cxrlab.report.pictures import inline, save_figures
from cxrlab.report.redaction import Redaction
from cxrlab.report.repetition import records
from cxrlab.report.report_figures import DESCRIPTIONS, report_figures
from cxrlab.report.subject import Subject
from cxrlab.report.templates import markdown, pages

Numbers = dict[str, Any]

_SHORTCUTS = ("shortcut", "randomization")  # flags of heatmaps that stand at the top of the page
_MOST_BYTES = 4_900_000  # of a page, with its heatmaps


def write_report(
    folder: Path, numbers: Numbers, curves: pd.DataFrame, subject: Subject, *, images: bool
) -> Path:
    """Write ``report.html``, ``model_card.md`` and ``figures/*.png``, and return the page's path.

    Args:
        folder: Where to; it is made if it is not there.
        numbers: As in ``evaluation.json``.
        curves: As in ``curves.csv``.
        subject: What was judged.
        images: False leaves out what a data-use agreement may protect: radiographs, and the names of images,
            patients, files and folders, also in commands and in the config. The model card never holds any.

    Raises:
        OutputError: If a file cannot be written.
    """
    drawn = report_figures(numbers, curves, subject.metrics)
    checked = {} if subject.explanation is None else explanation_figures(subject.explanation)
    redaction = Redaction(numbers["labels"], active=not images)
    context = _context(numbers, subject, redaction)
    context["figures"] = inline(drawn, DESCRIPTIONS)
    context["explanation"] = None
    if subject.explanation is not None:
        examples = subject.examples if images else []
        context["explanation"] = section(subject.explanation, checked, examples, redaction)
    page = _with_heatmaps(context, subject, images=images)
    card = markdown().get_template("model_card.md.jinja").render(context)
    try:
        save_figures(folder / "figures", drawn | checked, DESCRIPTIONS | EXPLANATION)
        write_text(folder / "report.html", page)
        write_text(folder / "model_card.md", card)
    except OSError as error:
        raise OutputError(f"The report cannot be written to {folder}: {error}.") from error
    return folder / "report.html"


def _with_heatmaps(context: dict[str, Any], subject: Subject, *, images: bool) -> str:
    """Render the page; the heatmaps get the room that the rest leaves."""
    panels = [panel for panel in subject.panels if images and panel.outcome != "TN"]
    context["sections"] = list(_sections(context, subject, has_heatmaps=bool(panels)))
    template = pages().get_template("report.html.jinja")
    page = template.render(context, gallery=[], left_out="")
    if not panels:
        return page
    groups, num_left_out = gallery(panels, _MOST_BYTES - len(page.encode()))
    left_out = (
        f"{counted(num_left_out, 'heatmap')} more would not have fitted into a page below 5 MB."
        if num_left_out
        else ""
    )
    return template.render(context, gallery=groups, left_out=left_out)


def _context(numbers: Numbers, subject: Subject, redaction: Redaction) -> dict[str, Any]:
    """Return what the templates need, apart from figures and heatmaps."""
    title = subject.title or f"Evaluation on {numbers['data']['name']}"
    hiding = Redaction(numbers["labels"], active=True)  # a model card is there to be shared
    resumed = {f"Training, resumed ({number})": one for number, one in enumerate(subject.resumed, 1)}
    sessions = {"Training": subject.provenance, **resumed, "Evaluation": subject.evaluated}
    return {
        "title": redaction.text(title),
        "training": redaction.text(sentences.training(subject)),
        "headline": sentences.headline(numbers, subject),
        "flags": _flags(numbers, subject, redaction),
        "judged": [(name, redaction.text(value)) for name, value in sentences.judged(numbers)],
        "verdict": redaction.text(verdict(subject.audit)) if subject.audit else "",
        "tables": _tables(numbers),
        "thresholds": redaction.text(sentences.thresholds(numbers)),
        "confusion_caption": sentences.confusion(numbers),
        "no_threshold": sentences.no_threshold(numbers),
        "calibration_note": (numbers["calibration"] or {}).get("note", ""),
        "no_recalibration": sentences.no_recalibration(numbers),
        "published_note": redaction.text(numbers["published"]["note"]) if numbers["published"] else "",
        "sessions": records(sessions, redaction),
        "config": redaction.config(subject.config or {}),
        "hidden": redaction.active,
        "card_title": hiding.text(title),
        "model_card": model_card(numbers, subject, _flags(numbers, subject, hiding), hiding),
        "version": cxrlab.__version__,
    }


def _flags(numbers: Numbers, subject: Subject, redaction: Redaction) -> list[str]:
    """Return what to beware of, each once."""
    told = [*subject.notes, *(flag["message"] for flag in numbers["flags"]), *sentences.reservations(numbers)]
    if subject.explanation is not None:
        told += [flag["message"] for flag in subject.explanation["flags"] if flag["kind"] in _SHORTCUTS]
    return [redaction.text(message) for message in dict.fromkeys(told)]


def _tables(numbers: Numbers) -> dict[str, Any]:
    return {
        "main": label_tables.main_table(numbers),
        "further": label_tables.further_table(numbers),
        "counts": label_tables.count_table(numbers),
        "classes": label_tables.class_table(numbers),
        "published_labels": label_tables.published_by_label(numbers),
        "published_means": label_tables.published_means(numbers),
        "calibration": group_tables.calibration_table(numbers),
        "recalibration": group_tables.recalibration_table(numbers),
        "gaps": group_tables.gap_table(numbers),
        "subgroups": group_tables.subgroup_tables(numbers),
    }


def _sections(
    context: Mapping[str, Any], subject: Subject, *, has_heatmaps: bool
) -> Iterator[tuple[str, str]]:
    """Yield id and title of each section that has something to show, or to say why it has not."""
    figures, tables = context["figures"], context["tables"]
    there = {
        ("audit", "What the audit of the data found"): subject.audit,
        ("labels", "Results by label"): True,
        ("curves", "ROC and precision-recall"): figures["roc"] or figures["precision_recall"],
        ("calibration", "Calibration"): True,
        ("confusion", "Confusion matrices"): figures["confusion"] or context["no_threshold"],
        ("subgroups", "Subgroups"): figures["forest"] or tables["subgroups"],
        ("learning", "Learning curves"): figures["learning_curves"],
        ("heatmaps", "Heatmaps"): has_heatmaps,
        ("explanation", "Are the heatmaps to be trusted?"): subject.explanation,
        ("repeat", "How to repeat it"): context["sessions"] or context["config"],
        ("card", "Model card"): True,
    }
    yield from (section for section, is_there in there.items() if is_there)
