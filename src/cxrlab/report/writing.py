"""An evaluation becomes files: evaluation.json, curves, predictions, figures, the page and the model card."""

import json
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cxrlab.atomic import write_text
from cxrlab.errors import OutputError
from cxrlab.evaluation.calibration import Calibrator
from cxrlab.evaluation.decisions import Thresholds
from cxrlab.evaluation.flags import flag
from cxrlab.evaluation.judgement import DataFacts, judge
from cxrlab.evaluation.prediction_table import PredictionTable
from cxrlab.evaluation.settings import EvaluationSettings
from cxrlab.evaluation.summary import terminal_table
from cxrlab.provenance import environment
from cxrlab.report.panels import judged_at
from cxrlab.report.report_page import write_report
from cxrlab.report.subject import Subject

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What is judged, and what its page tells beside the numbers.

    Attributes:
        table: The predictions.
        thresholds: Chosen elsewhere; None for none.
        calibrator: Fitted elsewhere; None for none.
        facts: What the images are.
        subject: The model.
    """

    table: PredictionTable
    thresholds: Thresholds | None
    calibrator: Calibrator | None
    facts: DataFacts
    subject: Subject

    def with_thresholds(self, thresholds: Thresholds) -> "Evaluation":
        """Return the same with other thresholds, at which the heatmaps' outcomes are told too."""
        by_finding = dict(zip(self.table.labels, thresholds.values.tolist(), strict=True))
        subject = replace(self.subject, panels=judged_at(self.subject.panels, by_finding))
        return replace(self, thresholds=thresholds, subject=subject)


def write_evaluation(
    evaluation: Evaluation, settings: EvaluationSettings, folder: Path, *, images: bool
) -> dict[str, Any]:
    """Judge, and write everything to a folder of its own.

    Args:
        evaluation: What is judged.
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
    numbers = write_judgement(evaluation, settings, folder, images=images, session=session)
    thresholds = None if evaluation.thresholds is None else evaluation.thresholds.values
    session["seconds"] = {**numbers["seconds"], "everything": round(time.perf_counter() - start, 1)}
    try:
        frame = evaluation.table.to_frame(thresholds)
        write_text(folder / "predictions.csv", frame.to_csv(index=False))
        write_text(folder / "provenance.json", json.dumps({"sessions": [session]}, indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"The evaluation cannot be written to {folder}: {error}.") from error
    log.info("\n%s\n\nThe page: %s", terminal_table(numbers), folder / "report.html")
    return numbers


def write_judgement(
    evaluation: Evaluation,
    settings: EvaluationSettings,
    folder: Path,
    *,
    images: bool,
    page: bool = True,
    session: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Judge, and write ``evaluation.json``, ``curves.csv``, the page, its figures and the model card.

    Args:
        evaluation: What is judged.
        settings: How.
        folder: Where to.
        images: Whether radiographs, and names of images and patients, may stand on the page.
        page: Whether to draw the page and its figures.
        session: With what it is judged; None where the training itself does it, and its own record says.

    Returns:
        The numbers of ``evaluation.json``.

    Raises:
        OutputError: If a file cannot be written.
    """
    log.info("Judging %d images ...", len(evaluation.table))
    judgement = judge(
        evaluation.table,
        settings=settings,
        thresholds=evaluation.thresholds,
        calibrator=evaluation.calibrator,
        data=evaluation.facts,
    )
    notes = [flag("note", note) for note in evaluation.subject.notes]
    judgement.numbers["flags"] = notes + judgement.numbers["flags"]
    judgement.save(folder)
    subject = evaluation.subject
    if session is not None:
        subject = replace(subject, evaluated=session)
    if page:
        write_report(folder, judgement.numbers, judgement.curves, subject, images=images)
    return judgement.numbers
