"""What runs predicted, with their thresholds and all that their pages tell: ready to be judged."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cxrlab.evaluation.ensemble import (
    ensemble,
    ensemble_validation,
    refuse_members_training,
    refuse_mixed_tasks,
    shared_images,
)
from cxrlab.evaluation.evaluate import DataFacts
from cxrlab.evaluation.external_data import Judged, run_decisions
from cxrlab.evaluation.operating_point import Thresholds, from_validation, threshold_source
from cxrlab.metrics.predictions import read_predictions
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.report.evaluation_page import Evaluation, ensemble_subject, run_subject, with_checks
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
    """Return what a training's best network predicted, judged at the end of that training.

    Args:
        run_dir: The run directory, its predictions written.
        classifier: With the weights of the best epoch.
        part: ``val`` or ``test``.
        facts: What the images are.
        config: The resolved config.
        settings: How it is judged.
    """
    values = classifier.decision.thresholds.double().cpu().numpy()
    calibrator = classifier.decision.calibrator(settings.calibration)
    source = threshold_source(settings.threshold, "validation")
    thresholds = Thresholds(values, str(settings.threshold), source)
    if np.isnan(values).all():  # the best checkpoint is from before it kept thresholds
        validation = read_predictions(run_dir / "predictions" / "val.csv")
        thresholds, calibrator = from_validation(validation, settings)
    panels, _ = read_panels(run_dir / "heatmaps" / "test", budget_bytes=_PANEL_BYTES)
    subject = run_subject(run_dir, config, panels=panels if part == "test" else (), notes=())
    return Evaluation(
        table=read_predictions(run_dir / "predictions" / f"{part}.csv"),
        thresholds=thresholds,
        calibrator=calibrator,
        facts=facts,
        subject=with_checks(subject, run_dir) if part == "test" else subject,
    )


def evaluation_of_run(
    run: Run, judged: Judged, settings: EvaluationSettings, folder: Path, heatmaps_per_label: int
) -> Evaluation:
    """Return a run's predictions with its decisions; heatmaps of images that it has not drawn are drawn.

    Args:
        run: The run.
        judged: What it said of the images.
        settings: How it is judged.
        folder: Where heatmaps go.
        heatmaps_per_label: Hits, and errors, of each label; 0 for none.
    """
    thresholds, calibrator = run_decisions(run, settings, judged.table.labels, judged.validation)
    heatmaps = run.run_dir / "heatmaps" / "test"
    if judged.manifest is not None and judged.images is not None:
        heatmaps = folder / "heatmaps"
        if heatmaps_per_label:
            draw_run_panels(run, judged, thresholds, heatmaps, per_label=heatmaps_per_label)
    elif judged.table.part != "test":
        heatmaps = folder / "heatmaps"
    panels, _ = read_panels(heatmaps, budget_bytes=_PANEL_BYTES)
    subject = run_subject(run.run_dir, run.config, panels=panels, notes=judged.notes)
    subject = replace(subject, unseen=judged.unseen)
    if judged.images is None and judged.table.part == "test":
        subject = with_checks(subject, run.run_dir)
    evaluation = Evaluation(judged.table, thresholds, calibrator, judged.facts, subject)
    return evaluation if thresholds is None else evaluation.with_thresholds(thresholds)


def evaluation_of_ensemble(
    runs: Sequence[Run], judged: Sequence[Judged], settings: EvaluationSettings
) -> Evaluation:
    """Return the mean of several runs' predictions, with thresholds of the mean on their validation part.

    Raises:
        DataError: If tasks, images, labels or targets differ, or one was trained on patients of another's
            test part.
    """
    refuse_mixed_tasks(runs)
    is_external = judged[0].is_external
    tables = [one.table for one in judged]
    table = ensemble(shared_images(tables) if is_external else tables)
    if not is_external:
        refuse_members_training(runs, table)
    validation = ensemble_validation(runs, table.labels, [one.validation for one in judged])
    thresholds, calibrator = (None, None) if validation is None else from_validation(validation, settings)
    notes = tuple(dict.fromkeys(note for one in judged for note in one.notes))
    unseen = all(one.unseen for one in judged) if is_external else None
    subject = ensemble_subject([run.run_dir for run in runs], [run.config for run in runs], notes=notes)
    subject = replace(subject, unseen=unseen)
    return Evaluation(table, thresholds, calibrator, judged[0].facts, subject)
