"""A run evaluated, at the end of its training and by ``cxrlab evaluate`` alike; and an ensemble of runs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cxrlab.errors import DataError
from cxrlab.evaluation.cohort import Cohort, external_cohort, run_cohort
from cxrlab.evaluation.ensemble import (
    check_no_training_patients,
    check_same_task,
    ensemble,
    ensemble_validation,
    shared_images,
)
from cxrlab.evaluation.external_data import own_part
from cxrlab.evaluation.image_facts import run_image_facts
from cxrlab.evaluation.interventions import intervene
from cxrlab.evaluation.operating_point import (
    from_validation,
    run_operating_point,
    run_referral,
    run_validation,
)
from cxrlab.evaluation.results import EvaluationResult
from cxrlab.evaluation.run_baselines import run_baselines
from cxrlab.evaluation.run_contamination import run_contamination
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.report.evaluation_page import Evaluation, with_checks, write_report, write_results
from cxrlab.report.model_info import ModelInfo, ensemble_model_info, run_model_info
from cxrlab.report.panels import draw_run_panels, read_panels
from cxrlab.report.section import Section
from cxrlab.runs.lineage import run_start
from cxrlab.runs.run import Run
from cxrlab.runs.run_data import PredictedImages, with_pixels

# More than a page has room for: it chooses itself, and says how many it left out.
_PANEL_BYTES = 10_000_000

_OTHER_WEIGHTS = (
    "The weights are not those that the run's training noted (check_weights=false): what is said of the "
    "training may be of another network."
)


def evaluate_own_part(
    run: Run,
    predicted: PredictedImages,
    settings: EvaluationSettings,
    *,
    page: bool,
    images: bool,
    sections: Sequence[Section] = (),
) -> EvaluationResult:
    """Evaluate what a run predicted of one of its parts, into its own folder, as its training ends.

    Args:
        run: The run, with the weights of its best epoch.
        predicted: Of its test part, or of validation where the test part was not read.
        settings: How it is evaluated.
        page: Whether to draw the page and its figures.
        images: Whether radiographs, and names of images and patients, may stand on the page.
        sections: A person's own sections of the page.

    Returns:
        What ``evaluation.json`` holds.
    """
    evaluation = run_evaluation(run, predicted, settings, run.run_dir, heatmaps_per_label=0)
    evaluation = replace(evaluation, image_facts=run_image_facts(run, predicted, keeps=True))
    if settings.baselines:
        evaluation = replace(evaluation, baselines=run_baselines(run, predicted, settings, keeps=True))
    return write_results(evaluation, settings, run.run_dir, page=page, images=images, sections=sections)


def add_heatmap_checks(
    run: Run,
    predicted: PredictedImages,
    settings: EvaluationSettings,
    result: EvaluationResult,
    *,
    images: bool,
    sections: Sequence[Section] = (),
) -> None:
    """Write the page of a run's own evaluation again, with the checks of heatmaps that were made since.

    Args:
        run: As it was evaluated.
        predicted: The same.
        settings: The same.
        result: What the evaluation found.
        images: Whether radiographs, and names of images and patients, may stand on the page.
        sections: A person's own sections of the page.
    """
    evaluation = run_evaluation(run, predicted, settings, run.run_dir, heatmaps_per_label=0)
    write_report(run.run_dir, result, evaluation.model_info, images=images, sections=sections)


def run_evaluation(
    run: Run,
    predicted: PredictedImages,
    settings: EvaluationSettings,
    folder: Path,
    *,
    heatmaps_per_label: int,
) -> Evaluation:
    """Return a run's predictions with its operating point; heatmaps it has not drawn are drawn.

    Args:
        run: The run.
        predicted: What it predicts of the images.
        settings: How it is evaluated.
        folder: Where heatmaps go.
        heatmaps_per_label: Hits, and errors, of each label; 0 for none.

    Raises:
        ConfigError: If the images were certainly seen by what the training started from, and are not to be
            evaluated then.
    """
    found = run_contamination([run], [predicted], allow_seen=settings.allow_seen)
    thresholds, calibrator = run_operating_point(run, settings, predicted.table.labels, predicted.validation)
    is_drawn = predicted.images is None and predicted.table.part == "test"  # by the training
    heatmaps_dir = run.files.test_heatmaps if is_drawn else folder / "heatmaps"
    if predicted.manifest is not None and predicted.images is not None and heatmaps_per_label:
        draw_run_panels(run, predicted, thresholds, heatmaps_dir, per_label=heatmaps_per_label)
    panels, _ = read_panels(heatmaps_dir, budget_bytes=_PANEL_BYTES)
    notes = predicted.notes if run.has_own_weights else (_OTHER_WEIGHTS, *predicted.notes)
    model_info = run_model_info(run.run_dir, run.config, panels=panels, notes=notes)
    model_info = replace(model_info, initial_weights=[run_start(run)])
    model_info = _of_other_data(model_info, predicted) if predicted.is_external else model_info
    if is_drawn:
        model_info = with_checks(model_info, run.run_dir)
    labels = predicted.table.labels
    is_validation = predicted.table.part == "val" and not predicted.is_external
    has_own_rules = not is_validation and predicted.validation is None
    validation = None if is_validation else run_validation(run, labels, predicted.validation)
    evaluation = Evaluation(
        predicted.table,
        thresholds,
        calibrator,
        predicted.facts,
        model_info,
        predicted.audit,
        _cohort([run], predicted, len(predicted.table)),
        own_part(run, predicted) if predicted.is_external else None,
        validation=validation,
        referral=run_referral(run, settings, labels) if has_own_rules else None,
        contamination=found,
    )
    return evaluation if thresholds is None else evaluation.with_thresholds(thresholds)


def with_interventions(
    evaluation: Evaluation,
    run: Run,
    predicted: PredictedImages,
    settings: EvaluationSettings,
    *,
    most: int,
    root: Path | str | None,
    batch_size: int,
    device: str,
) -> Evaluation:
    """Add what is left of the AUROC where images are changed; see :mod:`cxrlab.evaluation.interventions`.

    Args:
        evaluation: Of the run.
        run: Who predicts.
        predicted: What is evaluated.
        settings: How.
        most: Images at most.
        root: Folder of the run's data, where it was moved; None for where it was.
        batch_size: Images at a time.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        DataError: If the images are no longer those of the run.
        ConfigError: If no label has enough positives and negatives among the images.
    """
    if predicted.images is None:
        predicted = with_pixels(predicted, run.data(root))
    if predicted.images is None:
        raise DataError(f"The images that {run.run_dir} predicted are not at hand.")
    found = intervene(
        run.model,
        predicted.table,
        predicted.images,
        predicted.rows,
        settings,
        most=most,
        batch_size=batch_size,
        device=device,
    )
    model_info = replace(evaluation.model_info, changed=found.examples)
    return replace(evaluation, interventions=found.result, model_info=model_info)


def ensemble_evaluation(
    runs: Sequence[Run], predicted: Sequence[PredictedImages], settings: EvaluationSettings
) -> Evaluation:
    """Return the mean of several runs' predictions, with thresholds of the mean on their validation part.

    Raises:
        ConfigError: If the images were certainly seen by what a member started from, and are not to be
            evaluated then.
        DataError: If tasks, images, labels or targets differ, or one was trained on patients of another's
            test part.
    """
    check_same_task(runs)
    found = run_contamination(runs, predicted, allow_seen=settings.allow_seen)
    is_external = predicted[0].is_external
    tables = [member.table for member in predicted]
    table = ensemble(shared_images(tables) if is_external else tables)
    if not is_external:
        check_no_training_patients(runs, table)
    validation = ensemble_validation(runs, table.labels, [member.validation for member in predicted])
    is_validation = table.part == "val" and not is_external
    thresholds, calibrator = (None, None) if validation is None else from_validation(validation, settings)
    notes = tuple(dict.fromkeys(note for member in predicted for note in member.notes))
    model_info = ensemble_model_info([run.run_dir for run in runs], [run.config for run in runs], notes=notes)
    model_info = replace(model_info, initial_weights=[run_start(run) for run in runs])
    if is_external:
        unseen = all(member.unseen for member in predicted)
        model_info = _of_other_data(model_info, replace(predicted[0], unseen=unseen))
    return Evaluation(
        table,
        thresholds,
        calibrator,
        predicted[0].facts,
        model_info,
        predicted[0].audit,
        _cohort(runs, predicted[0], len(table)),
        validation=None if is_validation else validation,
        contamination=found,
    )


def _cohort(runs: Sequence[Run], predicted: PredictedImages, num_evaluated: int) -> Cohort | None:
    """Return images and patients of all parts; None where runs were not trained on the same ones."""
    if predicted.is_external:
        manifest = predicted.manifest
        if manifest is None or len(predicted.rows) != num_evaluated:
            return None
        num_asked = predicted.num_asked or num_evaluated
        return external_cohort(manifest.table, predicted.rows, num_asked, predicted.audit)
    first, *others = runs
    if not first.files.manifest.is_file():
        return None
    parts = _parts(first)
    if any(not other.files.manifest.is_file() or not _parts(other).equals(parts) for other in others):
        return None
    return run_cohort(first.files, first.manifest, predicted.table.part, num_evaluated)


def _parts(run: Run) -> pd.DataFrame:
    """Return which image is in which part, in an order of their own."""
    return run.manifest[["image", "part"]].sort_values("image", ignore_index=True)


def _of_other_data(model_info: ModelInfo, predicted: PredictedImages) -> ModelInfo:
    """Return what is known of a model whose evaluated images are of another data set: that one's audit."""
    audit = None if predicted.audit is None else predicted.audit.findings
    return replace(model_info, is_external=True, unseen=predicted.unseen, audit=audit)
