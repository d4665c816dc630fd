"""The section on readers: how far people agree, and the model against each of them."""

from markupsafe import Markup

from cxrlab.evaluation.readers import LabelReaders, ReaderStudy
from cxrlab.report.formatting import count
from cxrlab.report.html import folded_html, part, table_html
from cxrlab.report.section import PageContext
from cxrlab.report.tables import Cell, Row, Table, estimate_cell

HOW_TO_READ = (
    "Readers are set beside the targets, and the model beside each reader: its sensitivity where it has the "
    "reader's specificity, and how much more it finds than the reader. Where the targets were made from "
    "these very readings they flatter the readers. Kappa is the agreement beyond chance: 1 is all of it, 0 "
    "none."
)


def readers_section(context: PageContext) -> Markup | None:
    """Return the section; None where no readings came with the targets."""
    study = context.result.readers
    if study is None or not study.labels:
        return None
    tables = [model_table(study), agreement_table(study)]
    shown = [table_html(tables[0])] if tables[0].rows else []
    return Markup("\n").join(
        [
            part("how", HOW_TO_READ),
            *shown,
            *([folded_html("How far readers agree", tables[1])] if tables[1].rows else []),
        ]
    )


def model_table(study: ReaderStudy) -> Table:
    """Return each reader beside the model, by label."""
    rows = [row for of_label in study.labels for row in _model_rows(of_label)]
    columns = [
        "label", "reader", "images", "positives", "sensitivity", "specificity", "model's sensitivity there",
        "more than the reader",
    ]  # fmt: skip
    return Table(columns, rows, "", frozenset({1}))


def _model_rows(of_label: LabelReaders) -> list[Row]:
    return [
        Row(
            of_label.label,
            [
                Cell(row.reader),
                Cell(count(row.images)),
                Cell(count(row.positives)),
                *map(
                    estimate_cell, (row.sensitivity, row.specificity, row.model_sensitivity, row.difference)
                ),
            ],
        )
        for row in of_label.rows
    ]


def agreement_table(study: ReaderStudy) -> Table:
    """Return the agreement of every two readers, by label."""
    rows = [
        Row(
            of_label.label,
            [
                Cell(" and ".join(pair.readers)),
                Cell(count(pair.images)),
                estimate_cell(pair.agreement),
                estimate_cell(pair.kappa),
            ],
        )
        for of_label in study.labels
        for pair in of_label.pairs
    ]
    return Table(["label", "readers", "images", "agreement", "kappa"], rows, "", frozenset({1}))
