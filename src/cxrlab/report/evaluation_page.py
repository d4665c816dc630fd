"""The page of an evaluation: one HTML file that needs no network; beside it a model card and the figures.

An evaluation becomes files: evaluation.json, curves, predictions, figures, the page and the model card.

What a run directory tells of its model: for the page of an evaluation.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

import cxrlab
from cxrlab.data.audit import Finding, summary
from cxrlab.data.manifest import PARTS, read_table
from cxrlab.errors import OutputError
from cxrlab.evaluation.evaluate import evaluate
from cxrlab.evaluation.operating_point import Thresholds
from cxrlab.evaluation.results import EvaluationResult
from cxrlab.evaluation.terminal import terminal_table
from cxrlab.files import RunDir, write_text
from cxrlab.heatmaps.results import read_explanation
from cxrlab.metrics.calibration import Calibrator
from cxrlab.metrics.predictions import DataFacts, PredictionTable
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.report import tables as group_tables
from cxrlab.report import tables as label_tables
from cxrlab.report import text
from cxrlab.report.explanation_page import explanation_section
from cxrlab.report.figures.evaluation import DESCRIPTIONS, report_figures
from cxrlab.report.figures.explanation import DESCRIPTIONS as EXPLANATION
from cxrlab.report.figures.explanation import explanation_figures
from cxrlab.report.formatting import counted
from cxrlab.report.html import Redaction, inline, markdown, pages, save_figures
from cxrlab.report.model_card import model_card
from cxrlab.report.model_info import ModelInfo, Panel, TrainingData
from cxrlab.report.panels import gallery, outcomes_at, read_panels
from cxrlab.report.text import records
from cxrlab.training.callbacks.provenance import environment

Numbers = dict[str, Any]


_SHORTCUTS = ("shortcut", "randomization")  # flags of heatmaps that stand at the top of the page


_MOST_BYTES = 4_900_000  # of a page, with its heatmaps


def write_report(
    folder: Path, numbers: Numbers, curves: pd.DataFrame, model_info: ModelInfo, *, images: bool
) -> Path:
    """Write ``report.html``, ``model_card.md`` and ``figures/*.png``, and return the page's path.

    Args:
        folder: Where to; it is made if it is not there.
        numbers: As in ``evaluation.json``.
        curves: As in ``curves.csv``.
        model_info: What was evaluated.
        images: False leaves out what a data-use agreement may protect: radiographs, and the names of images,
            patients, files and folders, also in commands and in the config. The model card never holds any.

    Raises:
        OutputError: If a file cannot be written.
    """
    drawn = report_figures(numbers, curves, model_info.metrics)
    checked = {} if model_info.explanation is None else explanation_figures(model_info.explanation)
    redaction = Redaction(numbers["labels"], active=not images)
    context = _context(numbers, model_info, redaction)
    context["figures"] = inline(drawn, DESCRIPTIONS)
    context["explanation"] = None
    if model_info.explanation is not None:
        context["explanation"] = explanation_section(
            model_info.explanation, checked, model_info.examples, images=images
        )
    page = _with_heatmaps(context, model_info, images=images)
    card = markdown().get_template("model_card.md.jinja").render(context)
    try:
        save_figures(folder / "figures", drawn | checked, DESCRIPTIONS | EXPLANATION)
        write_text(folder / "report.html", page)
        write_text(folder / "model_card.md", card)
    except OSError as error:
        raise OutputError(f"The report cannot be written to {folder}: {error}.") from error
    return folder / "report.html"


def _with_heatmaps(context: dict[str, Any], model_info: ModelInfo, *, images: bool) -> str:
    """Render the page; the heatmaps get the room that the rest leaves."""
    panels = [panel for panel in model_info.panels if images and panel.outcome != "TN"]
    context["sections"] = list(_sections(context, model_info, has_heatmaps=bool(panels)))
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


def _context(numbers: Numbers, model_info: ModelInfo, redaction: Redaction) -> dict[str, Any]:
    """Return what the templates need, apart from figures and heatmaps."""
    title = model_info.title or f"Evaluation on {numbers['data']['name']}"
    hiding = Redaction(numbers["labels"], active=True)  # a model card is there to be shared
    resumed = {f"Training, resumed ({number})": one for number, one in enumerate(model_info.resumed, 1)}
    sessions = {"Training": model_info.provenance, **resumed, "Evaluation": model_info.evaluated}
    return {
        "title": redaction.text(title),
        "training": redaction.text(text.training(model_info)),
        "headline": text.headline(numbers, model_info),
        "flags": _flags(numbers, model_info, redaction),
        "evaluated": [(name, redaction.text(value)) for name, value in text.predicted(numbers)],
        "verdict": redaction.text(_audit_summary(model_info.audit)) if model_info.audit else "",
        "tables": _tables(numbers),
        "thresholds": redaction.text(text.thresholds(numbers)),
        "confusion_caption": text.confusion(numbers),
        "no_threshold": text.no_threshold(numbers),
        "calibration_note": (numbers["calibration"] or {}).get("note", ""),
        "no_recalibration": text.no_recalibration(numbers),
        "published_note": redaction.text(numbers["published"]["note"]) if numbers["published"] else "",
        "sessions": records(sessions, redaction),
        "config": redaction.config(model_info.config or {}),
        "hidden": redaction.active,
        "card_title": hiding.text(title),
        "model_card": model_card(numbers, model_info, _flags(numbers, model_info, hiding), hiding),
        "version": cxrlab.__version__,
    }


def _audit_summary(audit: dict[str, Any]) -> str:
    return summary([Finding(**entry) for entry in audit["findings"]])


def _flags(numbers: Numbers, model_info: ModelInfo, redaction: Redaction) -> list[str]:
    """Return what to beware of, each once."""
    told = [*model_info.notes, *(flag["message"] for flag in numbers["flags"]), *text.caveats(numbers)]
    if model_info.explanation is not None:
        told += [flag.message for flag in model_info.explanation.flags if flag.kind in _SHORTCUTS]
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
    context: Mapping[str, Any], model_info: ModelInfo, *, has_heatmaps: bool
) -> Iterator[tuple[str, str]]:
    """Yield id and title of each section that has something to show, or to say why it has not."""
    figures, tables = context["figures"], context["tables"]
    there = {
        ("audit", "What the audit of the data found"): model_info.audit,
        ("labels", "Results by label"): True,
        ("curves", "ROC and precision-recall"): figures["roc"] or figures["precision_recall"],
        ("calibration", "Calibration"): True,
        ("confusion", "Confusion matrices"): figures["confusion"] or context["no_threshold"],
        ("subgroups", "Subgroups"): figures["forest"] or tables["subgroups"],
        ("learning", "Learning curves"): figures["learning_curves"],
        ("heatmaps", "Heatmaps"): has_heatmaps,
        ("explanation", "Are the heatmaps to be trusted?"): model_info.explanation,
        ("repeat", "How to repeat it"): context["sessions"] or context["config"],
        ("card", "Model card"): True,
    }
    yield from (section for section, is_there in there.items() if is_there)


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, and what its page tells beside the numbers.

    Attributes:
        table: The predictions.
        thresholds: Chosen elsewhere; None for none.
        calibrator: Fitted elsewhere; None for none.
        facts: What the images are.
        model_info: The model.
    """

    table: PredictionTable
    thresholds: Thresholds | None
    calibrator: Calibrator | None
    facts: DataFacts
    model_info: ModelInfo

    def with_thresholds(self, thresholds: Thresholds) -> "Evaluation":
        """Return the same with other thresholds, at which the heatmaps' outcomes are told too."""
        by_finding = dict(zip(self.table.labels, thresholds.values.tolist(), strict=True))
        model_info = replace(self.model_info, panels=outcomes_at(self.model_info.panels, by_finding))
        return replace(self, thresholds=thresholds, model_info=model_info)


def write_evaluation(
    evaluation: Evaluation, settings: EvaluationSettings, folder: Path, *, images: bool
) -> dict[str, Any]:
    """Evaluate, and write everything to a folder of its own.

    Args:
        evaluation: What is evaluated.
        settings: How.
        folder: Where to.
        images: Whether radiographs, and names of images and patients, may stand on the page.

    Returns:
        The numbers of ``evaluation.json``.

    Raises:
        OutputError: If a file cannot be written.
    """
    start = time.perf_counter()
    session = environment("cxrlab.evaluate")
    result = write_results(evaluation, settings, folder, images=images, session=session)
    thresholds = None if evaluation.thresholds is None else evaluation.thresholds.values
    session["seconds"] = {**result.seconds, "everything": round(time.perf_counter() - start, 1)}
    try:
        frame = evaluation.table.to_frame(thresholds)
        write_text(folder / "predictions.csv", frame.to_csv(index=False))
        write_text(folder / "provenance.json", json.dumps({"sessions": [session]}, indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"The evaluation cannot be written to {folder}: {error}.") from error
    log.info("\n%s\n\nThe page: %s", terminal_table(result), folder / "report.html")
    return result.to_json()


def write_results(
    evaluation: Evaluation,
    settings: EvaluationSettings,
    folder: Path,
    *,
    images: bool,
    page: bool = True,
    session: dict[str, Any] | None = None,
) -> EvaluationResult:
    """Evaluate, and write ``evaluation.json``, ``curves.csv``, the page, its figures and the model card.

    Args:
        evaluation: What is evaluated.
        settings: How.
        folder: Where to.
        images: Whether radiographs, and names of images and patients, may stand on the page.
        page: Whether to draw the page and its figures.
        session: With what it is evaluated; None where the training itself does it, and its own record says.

    Returns:
        What ``evaluation.json`` holds.

    Raises:
        OutputError: If a file cannot be written.
    """
    log.info("Evaluating %d images ...", len(evaluation.table))
    result = evaluate(
        evaluation.table,
        settings=settings,
        thresholds=evaluation.thresholds,
        calibrator=evaluation.calibrator,
        data=evaluation.facts,
        notes=evaluation.model_info.notes,
    )
    result.save(folder)
    model_info = evaluation.model_info
    if session is not None:
        model_info = replace(model_info, evaluated=session)
    if page:
        write_report(folder, result.to_json(), result.curves, model_info, images=images)
    return result


_EXAMPLE_BYTES = 500_000


def run_model_info(
    run_dir: Path, config: Mapping[str, Any], *, panels: Sequence[Panel], notes: Sequence[str]
) -> ModelInfo:
    """Return what is known of a run; what it did not write is left out.

    Args:
        run_dir: The run directory.
        config: Its resolved config.
        panels: Heatmaps of the images that are evaluated.
        notes: Sentences for the reader.
    """
    session, *resumed = _sessions(run_dir)
    data = session.get("data", {})
    return ModelInfo(
        title=f"{_network_name(config)} on {data.get('name') or 'its data'}",
        kind="run",
        network=_network(run_dir, config),
        trained_on=_training_data(run_dir, data),
        config=config,
        audit=_read_json(run_dir / "audit.json"),
        metrics=pd.read_csv(run_dir / "metrics.csv") if (run_dir / "metrics.csv").is_file() else None,
        provenance=session or None,
        resumed=resumed,
        panels=panels,
        notes=notes,
    )


def with_checks(model_info: ModelInfo, run_dir: Path) -> ModelInfo:
    """Add what a run found when it checked its heatmaps of the test part, if it did."""
    examples, _ = read_panels(run_dir / "heatmaps" / "flagged", budget_bytes=_EXAMPLE_BYTES)
    explanation = read_explanation(RunDir(run_dir).explanation)
    return replace(model_info, explanation=explanation, examples=examples if explanation else ())


def ensemble_model_info(
    run_dirs: Sequence[Path], configs: Sequence[Mapping[str, Any]], *, notes: Sequence[str]
) -> ModelInfo:
    """Return what is known of several runs whose probabilities are averaged."""
    networks = [_network(run_dir, config) for run_dir, config in zip(run_dirs, configs, strict=True)]
    session = _sessions(run_dirs[0])[0]
    trained = [_training_data(run_dir, _sessions(run_dir)[0].get("data", {})) for run_dir in run_dirs]
    return ModelInfo(
        title=f"An ensemble of {len(run_dirs)} networks",
        kind="ensemble",
        network="; ".join(networks),
        trained_on=trained[0] if all(one == trained[0] for one in trained) else None,
        audit=_read_json(run_dirs[0] / "audit.json"),
        provenance=session or None,
        notes=notes,
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def _sessions(run_dir: Path) -> list[dict[str, Any]]:
    record = _read_json(run_dir / "provenance.json")
    sessions: list[dict[str, Any]] = record["sessions"] if record else [{}]
    return sessions


def _network_name(config: Mapping[str, Any]) -> str:
    model = config.get("model", {})
    return str(model.get("backbone") or str(model.get("_target_", "a network")).rpartition(".")[2])


def _network(run_dir: Path, config: Mapping[str, Any]) -> str:
    """Return a network's name, input and size in words."""
    data, model = config.get("data", {}), config.get("model", {})
    words = [_network_name(config)]
    if "image_size" in data:
        kind = "grey" if data.get("channels") == 1 else "colour"
        words.append(f"{kind} images of {data['image_size']} x {data['image_size']} pixels")
    layers = run_dir / "layers.txt"
    if layers.is_file():
        total, trainable = layers.read_text(encoding="utf-8").strip().splitlines()[-1].split(", ")
        words.append(total if trainable.split()[0] == total.split()[0] else f"{total}, {trainable}")
    if model.get("pretrained"):
        words.append("weights of ImageNet at the start")
    return ", ".join(words)


def _training_data(run_dir: Path, data: Mapping[str, Any]) -> TrainingData | None:
    path = run_dir / "manifest.csv"
    if not path.is_file():
        return None
    table = read_table(path)
    parts = {
        part: (int((table["part"] == part).sum()), int(table.loc[table["part"] == part, "patient"].nunique()))
        for part in PARTS
    }
    split = data.get("split", {}).get("method")
    return TrainingData(
        name=str(data.get("name") or "its data"),
        parts=parts,
        split=split,
        fingerprint=data.get("fingerprint"),
    )
