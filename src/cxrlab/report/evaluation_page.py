"""An evaluation becomes files: its numbers, its page, the figures and the model card.

The page is one HTML file that needs no network: the sections of ``SECTIONS`` and a person's own.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

import cxrlab
from cxrlab.data.audit import AuditReport
from cxrlab.errors import OutputError
from cxrlab.evaluation.baselines import Baselines
from cxrlab.evaluation.cohort import Cohort
from cxrlab.evaluation.contamination import Contamination
from cxrlab.evaluation.evaluate import evaluate
from cxrlab.evaluation.external_comparison import OwnPart
from cxrlab.evaluation.image_facts import ImageFacts
from cxrlab.evaluation.interventions import InterventionResult
from cxrlab.evaluation.operating_point import Thresholds
from cxrlab.evaluation.results import EvaluationResult
from cxrlab.evaluation.terminal import terminal_table
from cxrlab.files import RunDir, write_json, write_text
from cxrlab.heatmaps.results import read_explanation
from cxrlab.metrics.calibration import Calibrator
from cxrlab.metrics.predictions import DataFacts, PredictionTable
from cxrlab.metrics.referral import ReferralRules
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.report import tables, text
from cxrlab.report.baselines_section import baselines_section
from cxrlab.report.calibration_section import calibration_section
from cxrlab.report.checklists import Case, checklist
from cxrlab.report.cohort_section import cohort_section
from cxrlab.report.decision_section import decision_section
from cxrlab.report.explanation_page import explanation_section
from cxrlab.report.external_section import external_section
from cxrlab.report.failures_section import failures_section
from cxrlab.report.figures import learning, performance
from cxrlab.report.figures.explanation import DESCRIPTIONS as EXPLANATION_FIGURES
from cxrlab.report.figures.explanation import explanation_figures
from cxrlab.report.html import (
    folded_html,
    markdown,
    pages,
    paragraph_html,
    part,
    picture_html,
    save_figures,
    table_html,
)
from cxrlab.report.interventions_section import interventions_section
from cxrlab.report.model_card import model_card
from cxrlab.report.model_info import ModelInfo, Session, without_folder_names, without_names
from cxrlab.report.operating_points_section import operating_points_section
from cxrlab.report.panels import gallery, outcomes_at, read_panels
from cxrlab.report.readers_section import readers_section
from cxrlab.report.section import PageContext, Section, with_sections
from cxrlab.report.subgroup_section import subgroup_section
from cxrlab.runs.writing import save_audit
from cxrlab.training.callbacks.provenance import SessionRecord, environment

log = logging.getLogger(__name__)

_MOST_BYTES = 4_900_000  # of a page, with its heatmaps
_EXAMPLE_BYTES = 500_000
_HEADING_BYTES = 300  # around a section, and of its line in the contents


def _audit(context: PageContext) -> Markup | None:
    findings = context.model_info.audit
    if findings is None:
        return None
    summary = Markup('<p class="verdict">{}</p>').format(text.audit(findings))
    return _joined(
        _how_to_read("audit"), _sentence(text.audited(context.result.data, context.model_info)), summary
    )


def _labels(context: PageContext) -> Markup:
    result = context.result
    several = len(result.labels) > 1  # of one label the figure would be a dot alone
    return _joined(
        _how_to_read("labels"),
        _sentence(text.no_threshold(result) or text.thresholds(result)),
        table_html(tables.main_table(result)),
        _sentence(text.left_out_of_means(result)),
        context.figure(
            "auroc_by_label",
            performance.auroc_by_label(result) if several else None,
            alt="AUROC of each label with its interval.",
        ),
        folded_html("Precision, recall and F1 by class", tables.class_table(result)),
        folded_html(
            "Further metrics, and the AUROC's interval by other methods", tables.further_table(result)
        ),
        folded_html("Counts and thresholds", tables.count_table(result)),
        *_published(result),
    )


def _published(result: EvaluationResult) -> Iterator[Markup]:
    means = tables.published_means(result)
    if result.published is not None and means is not None:
        yield _heading("Published results")
        yield _sentence(result.published.note)
        yield table_html(means)
        yield folded_html("Published AUROC by label", tables.published_by_label(result))


def _curves(context: PageContext) -> Markup | None:
    result = context.result
    roc = context.figure(
        "roc",
        performance.roc(result),
        alt="ROC curve of each label with its band.",
        caption="ROC curves: sensitivity (of the images with the finding, the share that is predicted "
        "positive) against 1 \u2212 specificity (of those without it, the share that is predicted positive).",
    )
    precision_recall = context.figure(
        "precision_recall",
        performance.precision_recall(result),
        alt="Precision-recall curve of each label with its band.",
        caption="Precision-recall curves: PPV (of the positive predictions, the share that is right) against "
        "sensitivity (of the images with the finding, the share that is predicted positive).",
    )
    return _joined(_how_to_read("curves"), roc, precision_recall) if roc or precision_recall else None


def _confusion(context: PageContext) -> Markup | None:
    result = context.result
    figure = context.figure("confusion", performance.confusion(result), alt=text.confusion(result))
    reason = "" if figure else text.no_threshold(result)
    return _joined(_how_to_read("confusion"), _sentence(reason), figure) if figure or reason else None


def _learning(context: PageContext) -> Markup | None:
    metrics = context.model_info.metrics
    figure = context.figure(
        "learning_curves",
        None if metrics is None else learning.draw_learning_curves(metrics),
        alt="Losses, accuracies and validation AUROC by epoch, or by strength of a linear probe.",
    )
    of_training = _sentence(text.trained_elsewhere(context.model_info))
    how = _how_to_read("probe" if metrics is not None and learning.STRENGTH in metrics else "learning")
    return _joined(how, of_training, figure) if figure else None


def _heatmaps(context: PageContext) -> Markup | None:
    panels = [panel for panel in context.model_info.panels if panel.outcome != "TN"]
    if not panels:
        return None
    how = _how_to_read("heatmaps")
    thresholds = {label: threshold.value for label, threshold in context.result.thresholds.items()}
    findings, num_left_out = gallery(panels, context.room - len(how.encode()), thresholds)
    shown = (part("gallery", finding.finding, finding.errors, finding.hits) for finding in findings)
    return _joined(how, _sentence(text.left_out(num_left_out)), *shown)


def _explanation(context: PageContext) -> Markup | None:
    explanation = context.model_info.explanation
    figures = {} if explanation is None else explanation_figures(explanation)
    context.figures.update({name: figures.get(name) for name in EXPLANATION_FIGURES})
    if explanation is None:
        return None
    content = explanation_section(explanation, figures, context.model_info.examples, images=context.images)
    template = pages().get_template("explanation_parts.html.jinja")
    return Markup(template.make_module().section(content))  # type: ignore[attr-defined]


def _repeat(context: PageContext) -> Markup | None:
    records = text.records(context.model_info.sessions, names=context.images)
    config = list(_flat(context.model_info.config or {}))
    if not records and not config:
        return None
    return _joined(
        part("sessions", records),
        part("folded_facts", text.configuration(context.model_info), config) if config else "",
        "" if context.images else part("small", text.NAMES_LEFT_OUT),
    )


def _card(context: PageContext) -> Markup:
    return _joined(
        part("small", text.CARD_FORM),
        *(
            part("points", *points)
            for points in model_card(*without_names(context.result, context.model_info))
        ),
    )


def _network(context: PageContext) -> Markup | None:
    info = context.model_info
    drawn = [
        picture_html(picture, alt, alt + end)
        for picture, alt, end in (
            (info.network, "The network, from the image to the logits", "; layers.txt has every layer."),
            (
                info.inputs if context.images else None,
                "Training images as they are decoded, augmented, and as the network gets them",
                ", with the least and the largest value of each.",
            ),
        )
        if picture is not None
    ]
    return _joined(*drawn) if drawn else None


SECTIONS = (
    Section("cohort", "Images and patients", cohort_section),
    Section("audit", "What the audit of the data found", _audit),
    Section("labels", "Results by label", _labels),
    Section("external", "Beside the run's own data", external_section),
    Section("baselines", "What simple models reach", baselines_section),
    Section("interventions", "Does it need the lungs?", interventions_section),
    Section("curves", "ROC and precision-recall", _curves),
    Section("calibration", "Calibration", calibration_section),
    Section("operating-points", "Operating points", operating_points_section),
    Section("decisions", "Net benefit", decision_section),
    Section("readers", "Readers", readers_section),
    Section("confusion", "Confusion matrices", _confusion),
    Section("subgroups", "Subgroups", subgroup_section),
    Section("failures", "Where it fails", failures_section),
    Section("learning", "Learning curves", _learning),
    Section("network", "The network, and what it sees", _network),
    Section("heatmaps", "Heatmaps", _heatmaps, fills_page=True),
    Section("explanation", "Are the heatmaps to be trusted?", _explanation),
    Section("repeat", "How to repeat it", _repeat),
    Section("card", "Model card", _card),
)
"""Of the page of an evaluation, in their order; one that has nothing to show is left out."""


def _joined(*parts: str) -> Markup:
    return Markup("\n").join(part for part in parts if part)


def _how_to_read(id: str) -> Markup:
    return part("how", text.HOW_TO_READ[id])


def _sentence(sentence: str) -> Markup:
    return paragraph_html(sentence) if sentence else Markup("")


def _heading(title: str) -> Markup:
    return Markup("<h3>{}</h3>").format(title)


def _table(table: tables.Table | None) -> Markup:
    return Markup("") if table is None else table_html(table)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted keys of a config with their values, as the command line has them."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif value is None:
            yield f"{prefix}{name}", "null"
        else:
            yield f"{prefix}{name}", str(value).lower() if isinstance(value, bool) else str(value)


def write_report(
    folder: Path | str,
    result: EvaluationResult,
    model_info: ModelInfo | None = None,
    *,
    images: bool = True,
    sections: Sequence[Section] = (),
) -> Path:
    """Write ``report.html``, ``model_card.md``, checklists and ``figures/*.png``; return the page's path.

    Args:
        folder: Where to; it is made if it is not there.
        result: Every number of the evaluation.
        model_info: What was evaluated; None where nothing is known but its numbers.
        images: False leaves out what a data-use agreement may protect: radiographs, commands, the config, and
            the names of images, patients, files and folders. Model card and checklists never hold any.
        sections: A person's own.

    Raises:
        ConfigError: If one of the sections has no place.
        OutputError: If a file cannot be written.
    """
    folder, model_info = Path(folder), model_info or ModelInfo()
    config = model_info.config
    nameless_result, nameless_info = without_names(result, model_info)
    if not images:
        result, model_info = nameless_result, nameless_info
    context = PageContext(result, model_info, images)
    placed = with_sections(SECTIONS, sections)
    bodies = _bodies_within_room(context, placed)
    page = _page(context, placed, bodies)
    case = Case(
        nameless_result, nameless_info, config, {part.id: part.title for part in placed if part.id in bodies}
    )
    card = _render_card(nameless_result, nameless_info)
    run_dir = RunDir(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_figures(run_dir.figures, context.figures)
        write_text(run_dir.report, page)
        write_text(run_dir.model_card, card)
        write_text(run_dir.checklist_claim, checklist("claim", case))
        write_text(run_dir.checklist_tripod_ai, checklist("tripod_ai", case))
    except OSError as error:
        raise OutputError(f"The report cannot be written to {folder}: {error}.") from error
    return run_dir.report


def _bodies_within_room(context: PageContext, sections: Sequence[Section]) -> dict[str, Markup]:
    """Return the sections' HTML by id; one that fills the page is built last, in what room there is left."""
    bodies = _bodies(context, [section for section in sections if not section.fills_page])
    filling = [section for section in sections if section.fills_page]
    for section in filling:
        room = _MOST_BYTES - len(_page(context, sections, bodies).encode()) - _HEADING_BYTES * len(filling)
        bodies |= _bodies(replace(context, room=room), [section])
    return bodies


def _bodies(context: PageContext, sections: Iterable[Section]) -> dict[str, Markup]:
    """Return the HTML of the sections that have something to show, by id."""
    built = {section.id: section.build(context) for section in sections}
    return {
        id: body if isinstance(body, Markup) else paragraph_html(body) for id, body in built.items() if body
    }


def _page(context: PageContext, sections: Sequence[Section], bodies: Mapping[str, Markup]) -> str:
    result, model_info = context.result, context.model_info
    return pages().get_template("report.html.jinja").render(
        title=text.title(result, model_info),
        training=text.training(model_info),
        headline=text.headline(result, model_info),
        caveats=text.caveats(result, model_info),
        evaluated=text.evaluated(result.data, result.interval, result.cohort),
        sections=[(part.id, part.title, bodies[part.id]) for part in sections if part.id in bodies],
        version=cxrlab.__version__,
    )  # fmt: skip


def _render_card(result: EvaluationResult, model_info: ModelInfo) -> str:
    return markdown().get_template("model_card.md.jinja").render(
        title=text.title(result, model_info),
        headline=text.headline(result, model_info),
        model_card=model_card(result, model_info),
    )  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, and what its page says beside the numbers.

    Attributes:
        table: The predictions.
        thresholds: Chosen elsewhere; None for none.
        calibrator: Fitted elsewhere; None for none.
        facts: What the images are.
        model_info: The model.
        audit: Of the images' data set; None where another page has it, or none was made.
        cohort: Images and patients of all parts; None where only those of ``table`` are known.
        own: The run's own part, where the table is of another data set.
        baselines: What simple models predict of the same images; None for none.
        validation: Predictions of the validation part, of the same labels, for what is chosen on it beside
            the thresholds; None where there are none, or they are what is evaluated.
        referral: Rules to rule in, rule out, or refer; None to choose them on ``validation``.
        image_facts: Brightness, contrast and sizes of boxes of the images, where they are at hand.
        interventions: What changes of the images do; None where that was not asked for.
        contamination: Whether the weights that the training started from had seen the images; None where
            nothing is known of the model.
    """

    table: PredictionTable
    thresholds: Thresholds | None
    calibrator: Calibrator | None
    facts: DataFacts
    model_info: ModelInfo
    audit: AuditReport | None = None
    cohort: Cohort | None = None
    own: OwnPart | None = None
    baselines: Baselines | None = None
    validation: PredictionTable | None = None
    referral: ReferralRules | None = None
    image_facts: ImageFacts | None = None
    interventions: InterventionResult | None = None
    contamination: Contamination | None = None

    def with_thresholds(self, thresholds: Thresholds) -> "Evaluation":
        """Return the same with other thresholds, by which the heatmaps' outcomes go too."""
        by_finding = dict(zip(self.table.labels, thresholds.values.tolist(), strict=True))
        model_info = replace(self.model_info, panels=outcomes_at(self.model_info.panels, by_finding))
        return replace(self, thresholds=thresholds, model_info=model_info)


def write_evaluation(
    evaluation: Evaluation,
    settings: EvaluationSettings,
    folder: Path,
    *,
    images: bool,
    sections: Sequence[Section] = (),
    draw: Callable[[], Evaluation] | None = None,
) -> EvaluationResult:
    """Evaluate, and write everything to a folder of its own.

    Args:
        evaluation: What is evaluated.
        settings: How.
        folder: Where to.
        images: Whether radiographs, commands, and names of images, patients and files may stand on the page.
        sections: A person's own sections of the page.
        draw: Draws heatmaps and returns the same evaluation with them. It is called once all else is
            written, and the page is then written again: drawing takes long, and may be stopped or fail.

    Returns:
        What ``evaluation.json`` holds.

    Raises:
        OutputError: If a file cannot be written.
    """
    start = time.perf_counter()
    session = environment("cxrlab.evaluate")
    session["data"] = evaluation.facts.record()
    run_dir = RunDir(folder)
    try:
        # Decisions are those of this evaluation's thresholds, if it has any.
        thresholds = None if evaluation.thresholds is None else evaluation.thresholds.values
        frame = replace(evaluation.table, decisions=None).to_frame(thresholds)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "predictions.csv", frame.to_csv(index=False))
        result = write_results(
            evaluation, settings, folder, images=images, sections=sections, session=session
        )
        session["seconds"] = {**result.seconds, "everything": round(time.perf_counter() - start, 1)}
        write_json(run_dir.provenance, {"sessions": [session]}, indent=2)
        if evaluation.audit is not None:
            save_audit(evaluation.audit, run_dir)
    except OSError as error:
        raise OutputError(f"The evaluation cannot be written to {folder}: {error}.") from error
    log.info("\n%s\n\nThe page: %s", terminal_table(result), run_dir.report)
    if draw is not None:
        model_info = replace(
            draw().model_info, evaluated=Session.from_json(session), changed=evaluation.model_info.changed
        )
        write_report(folder, result, model_info, images=images, sections=sections)
        log.info("It has the heatmaps now.")
    return result


def write_results(
    evaluation: Evaluation,
    settings: EvaluationSettings,
    folder: Path,
    *,
    images: bool,
    page: bool = True,
    sections: Sequence[Section] = (),
    session: SessionRecord | None = None,
) -> EvaluationResult:
    """Evaluate, and write ``evaluation.json``, ``curves.csv``, the page, its figures and the model card.

    Args:
        evaluation: What is evaluated.
        settings: How.
        folder: Where to.
        images: Whether radiographs, commands, and names of images, patients and files may stand on the page.
        page: Whether to draw the page and its figures.
        sections: A person's own sections of the page.
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
        validation=evaluation.validation,
        referral=evaluation.referral,
        cohort=evaluation.cohort,
        own=evaluation.own,
        baselines=evaluation.baselines,
        image_facts=evaluation.image_facts,
        interventions=evaluation.interventions,
        contamination=evaluation.contamination,
    )
    kept = result if images else without_folder_names(result)
    kept.save(folder)
    model_info = evaluation.model_info
    if session is not None:
        model_info = replace(model_info, evaluated=Session.from_json(session))
    if page:
        write_report(folder, result, model_info, images=images, sections=sections)
    return result


def with_checks(model_info: ModelInfo, folder: Path) -> ModelInfo:
    """Add what a run found when it checked its heatmaps of the test part, if it did.

    Args:
        model_info: Of the run.
        folder: The run directory.
    """
    run_dir = RunDir(folder)
    explanation = read_explanation(run_dir.explanation)
    examples, _ = read_panels(run_dir.flagged_heatmaps, budget_bytes=_EXAMPLE_BYTES)
    return replace(model_info, explanation=explanation, examples=examples if explanation else ())
