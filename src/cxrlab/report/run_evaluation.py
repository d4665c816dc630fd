"""What runs predicted, with their thresholds and all that their pages tell: ready to be evaluated."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cxrlab.evaluation.ensemble import (
    check_no_training_patients,
    check_same_task,
    ensemble,
    ensemble_validation,
    shared_images,
)
from cxrlab.evaluation.evaluate import DataFacts
from cxrlab.evaluation.external_data import PredictedImages, run_decisions
from cxrlab.evaluation.operating_point import Thresholds, from_validation, threshold_source
from cxrlab.metrics.predictions import read_predictions
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.report.evaluation_page import Evaluation, with_checks
from cxrlab.report.model_info import ensemble_model_info, run_model_info
from cxrlab.report.panels import draw_run_panels, read_panels
from cxrlab.runs.run import Run
from cxrlab.training.module import Classifier

# More than a page has room for: it chooses itself, and says how many it left out.
_PANEL_BYTES = 10_000_000


def evaluation_of_training(
    run_dir: Path,
    classifier: Classifier,
    part: str,
    facts: DataFacts,
    config: Mapping[str, Any],
    settings: EvaluationSettings,
) -> Evaluation:
    """Return what a training's best network predicted, evaluated at the end of that training.

    Args:
        run_dir: The run directory, its predictions written.
        classifier: With the weights of the best epoch.
        part: ``val`` or ``test``.
        facts: What the images are.
        config: The resolved config.
        settings: How it is evaluated.
    """
    values = classifier.operating_point.thresholds.double().cpu().numpy()
    calibrator = classifier.operating_point.calibrator(settings.calibration)
    source = threshold_source(settings.threshold, "validation")
    thresholds = Thresholds(values, str(settings.threshold), source)
    if np.isnan(values).all():  # the best checkpoint is from before it kept thresholds
        validation = read_predictions(run_dir / "predictions" / "val.csv")
        thresholds, calibrator = from_validation(validation, settings)
    panels, _ = read_panels(run_dir / "heatmaps" / "test", budget_bytes=_PANEL_BYTES)
    model_info = run_model_info(run_dir, config, panels=panels if part == "test" else (), notes=())
    return Evaluation(
        table=read_predictions(run_dir / "predictions" / f"{part}.csv"),
        thresholds=thresholds,
        calibrator=calibrator,
        facts=facts,
        model_info=with_checks(model_info, run_dir) if part == "test" else model_info,
    )


def evaluation_of_run(
    run: Run, predicted: PredictedImages, settings: EvaluationSettings, folder: Path, heatmaps_per_label: int
) -> Evaluation:
    """Return a run's predictions with its decisions; heatmaps of images that it has not drawn are drawn.

    Args:
        run: The run.
        predicted: What it said of the images.
        settings: How it is evaluated.
        folder: Where heatmaps go.
        heatmaps_per_label: Hits, and errors, of each label; 0 for none.
    """
    thresholds, calibrator = run_decisions(run, settings, predicted.table.labels, predicted.validation)
    heatmaps = run.run_dir / "heatmaps" / "test"
    if predicted.manifest is not None and predicted.images is not None:
        heatmaps = folder / "heatmaps"
        if heatmaps_per_label:
            draw_run_panels(run, predicted, thresholds, heatmaps, per_label=heatmaps_per_label)
    elif predicted.table.part != "test":
        heatmaps = folder / "heatmaps"
    panels, _ = read_panels(heatmaps, budget_bytes=_PANEL_BYTES)
    model_info = run_model_info(run.run_dir, run.config, panels=panels, notes=predicted.notes)
    model_info = replace(model_info, unseen=predicted.unseen)
    if predicted.images is None and predicted.table.part == "test":
        model_info = with_checks(model_info, run.run_dir)
    evaluation = Evaluation(predicted.table, thresholds, calibrator, predicted.facts, model_info)
    return evaluation if thresholds is None else evaluation.with_thresholds(thresholds)


def evaluation_of_ensemble(
    runs: Sequence[Run], predicted: Sequence[PredictedImages], settings: EvaluationSettings
) -> Evaluation:
    """Return the mean of several runs' predictions, with thresholds of the mean on their validation part.

    Raises:
        DataError: If tasks, images, labels or targets differ, or one was trained on patients of another's
            test part.
    """
    check_same_task(runs)
    is_external = predicted[0].is_external
    tables = [one.table for one in predicted]
    table = ensemble(shared_images(tables) if is_external else tables)
    if not is_external:
        check_no_training_patients(runs, table)
    validation = ensemble_validation(runs, table.labels, [one.validation for one in predicted])
    thresholds, calibrator = (None, None) if validation is None else from_validation(validation, settings)
    notes = tuple(dict.fromkeys(note for one in predicted for note in one.notes))
    unseen = all(one.unseen for one in predicted) if is_external else None
    model_info = ensemble_model_info([run.run_dir for run in runs], [run.config for run in runs], notes=notes)
    model_info = replace(model_info, unseen=unseen)
    return Evaluation(table, thresholds, calibrator, predicted[0].facts, model_info)
