"""The section on calibration: whether probabilities mean what they say, before and after recalibration."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from cxrlab.evaluation.results import EvaluationResult
from cxrlab.metrics.calibration import METHODS, Reliability
from cxrlab.report import text
from cxrlab.report.figures import calibration
from cxrlab.report.formatting import DASH, level, number, p
from cxrlab.report.html import folded_html, paragraph_html, part, table_html
from cxrlab.report.section import PageContext
from cxrlab.report.tables import Cell, Row, Table, estimate_cell

_WEIGHTED = ("WeightedBCE", "AsymmetricLoss")


def calibration_section(context: PageContext) -> Markup:
    """Return the section: how to read it, the reliability figure, and one table for each stage."""
    result = context.result
    stage = "after" if is_recalibrated(result) else "before"
    sentences = (
        weighted_loss(context.model_info.config, result),
        result.calibration.note,
        text.no_recalibration(result),
    )
    table = calibration_table(result, stage)
    parts = [
        part("how", text.HOW_TO_READ["calibration"]),
        *(paragraph_html(sentence) for sentence in sentences if sentence),
        context.figure(
            "reliability",
            calibration.reliability(result),
            alt="Observed share of positives against predicted probability, by label.",
        ),
        "" if table is None else table_html(table),
        folded_html("The same before recalibration, and what was fitted", recalibration_table(result)),
    ]
    return Markup("\n").join(body for body in parts if body)


def is_recalibrated(result: EvaluationResult) -> bool:
    """Return whether probabilities were recalibrated by a fit on other images."""
    return any(label.after is not None for label in result.calibration.labels.values())


def weighted_loss(config: Mapping[str, Any] | None, result: EvaluationResult) -> str:
    """Return what a weighted loss does to probabilities; empty where the loss is not known to be weighted.

    Args:
        config: Of the run; None where it is not known.
        result: Of the evaluation.
    """
    loss = (config or {}).get("loss")
    loss = loss if isinstance(loss, Mapping) else {}
    is_weighted = str(loss.get("_target_", "")).endswith(_WEIGHTED) or loss.get("is_balanced") is True
    if not is_weighted:
        return ""
    stage = "before recalibration" if is_recalibrated(result) else "as they are given here"
    return (
        "The loss of the training gave positives of rare findings more weight, which raises their "
        f"probabilities on purpose: {stage} they are expected to be too high."
    )


def calibration_table(result: EvaluationResult, stage: str) -> Table | None:
    """Return slope, expected/observed, errors and the test's words by label; None without labels.

    Args:
        result: Of the evaluation.
        stage: ``before`` or ``after`` recalibration.
    """
    labels = result.calibration.labels
    if not labels:
        return None
    rows = [Row(label, _cells(getattr(calibration, stage))) for label, calibration in labels.items()]
    found, chance = result.calibration, 1 - result.interval.level
    fitted = (
        f"Probabilities are those after {METHODS.get(found.method, found.method)} fitted on {found.source}."
    )
    tested = (
        f"Each label is tested by itself at {level(chance)}: of {round(1 / chance)} calibrated ones about "
        "one departs by chance."
    )
    caption = " ".join([*([fitted] if stage == "after" else []), *([tested] if len(labels) > 1 else [])])
    return Table(_COLUMNS, rows, caption, texts=frozenset({7}))


_COLUMNS = (
    "label", "slope", "expected/observed", "p of both", "calibration error", "by chance alone",
    "scaled Brier score", "in words",
)  # fmt: skip


def _cells(reliability: Reliability | None) -> list[Cell]:
    if reliability is None:
        return [Cell(DASH)] * (len(_COLUMNS) - 1)
    chance = reliability.ece_by_chance
    return [
        estimate_cell(reliability.slope, 2),
        estimate_cell(reliability.expected_observed, 2),
        Cell(p(reliability.p)),
        estimate_cell(reliability.ece),
        Cell(number(chance.mean), "" if chance.high is None else f"up to {number(chance.high)}"),
        estimate_cell(reliability.scaled_brier),
        Cell(reliability.description),
    ]


def recalibration_table(result: EvaluationResult) -> Table | None:
    """Return the table of the probabilities before recalibration, with the line fitted; None without one."""
    table = calibration_table(result, "before")
    if table is None or not is_recalibrated(result):
        return None
    fitted = [
        [Cell(number(label.slope)), Cell(number(label.intercept))]
        for label in result.calibration.labels.values()
    ]
    rows = [Row(row.name, [*row.cells[:-1], *cells]) for row, cells in zip(table.rows, fitted, strict=True)]
    return Table([*table.columns[:-1], "slope fitted", "intercept fitted"], rows)
