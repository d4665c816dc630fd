"""The section on baselines: what simple models reach that are given less, beside the model."""

from markupsafe import Markup

from cxrlab.evaluation.baselines import BaselineResult, BaselineRow, compared
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.report.formatting import counted, percent
from cxrlab.report.html import folded_html, paragraph_html, part, table_html
from cxrlab.report.section import PageContext
from cxrlab.report.tables import Cell, Row, Table, estimate_cell

_HOW = (
    "Each line is a logistic regression that is given less than the radiograph, fitted on the training part "
    "with its penalty chosen on validation. Where one comes near the model, the labels can be told without "
    "what a radiologist looks at. The difference is the model's AUROC minus the baseline's, on the same "
    "resampled patients. Shuffled labels show what chance gives."
)
_NAMES = {
    "covariates": "covariates alone",
    "grey": "grey values alone",
    "margin": "margin around the lungs",
    "features": "simple features",
    "shuffled": "shuffled labels",
}
_GIVEN = {
    "covariates": "{}; each value, and pairs of values",
    "grey": "mean, standard deviation and quantiles of the image's grey values",
    "margin": "histogram and coarse brightness outside a box around both lungs",
    "features": "histogram of 32 bins, means of 8 by 8 blocks, oriented gradients",
    "shuffled": "the simple features, with the labels of the training images shuffled (mean of {})",
}
_NUM_SHUFFLES = "3"


def baselines_section(context: PageContext) -> Markup | None:
    """Return the section; None where there are no baselines."""
    result = context.result.baselines
    if result is None or not (result.rows or result.left_out):
        return None
    best = result.best_without_anatomy
    features = [row for row in result.rows if row.name == "features"]
    sentences = [compared(row) for row in [*([best] if best else []), *features]]
    return Markup("\n").join(
        [
            part("how", _HOW),
            *map(paragraph_html, sentences),
            *([table_html(_table(result))] if result.rows else []),
            *map(paragraph_html, _remarks(result)),
            folded_html("Baselines by label", _by_label(result)),
        ]
    )


def _table(result: BaselineResult) -> Table:
    model = result.rows[0].macro.model
    mean = f", mean of {len(result.rows[0].labels)} labels" if len(result.rows[0].labels) > 1 else ""
    rows = [Row("the model", [estimate_cell(model), Cell(""), Cell("the radiograph")], strong=True)]
    rows += [
        Row(
            _NAMES[row.name],
            [estimate_cell(row.macro.auroc), estimate_cell(row.macro.difference), Cell(_given(row))],
            mark="within the model's reach" if row.within_reach else "",
        )
        for row in result.rows
    ]
    columns = ["", f"AUROC{mean}", "difference", "what it is given"]
    return Table(columns, rows, texts=frozenset({3}))


def _given(row: BaselineRow) -> str:
    return _GIVEN[row.name].format(_NUM_SHUFFLES if row.name == "shuffled" else ", ".join(row.inputs))


def _remarks(result: BaselineResult) -> list[str]:
    """Return on what baselines were fitted, and why others are not there."""
    remarks = []
    if result.rows:
        remarks.append(
            "The intervals of this section are of the bootstrap, paired with those of the differences; the "
            "model's interval to quote is that of Results by label."
        )
        fitted = result.rows[0].fitted
        patients = "" if fitted.patients is None else f" of {counted(fitted.patients, 'patient')}"
        drawn = f", drawn by patient from {fitted.available:,}" if fitted.available > fitted.images else ""
        remarks.append(
            f"Fitted on {counted(fitted.images, 'image')}{patients} of the {fitted.part} part{drawn}."
        )
    if any(row.name == "margin" for row in result.rows) and result.regions_found is not None:
        remarks.append(
            f"The region of the lungs was found in {percent(result.regions_found, 0)} of the images; in the "
            "others the usual place stands for it. It is rough, so that a little of a lung may lie outside."
        )
    reasons = {
        reason: [name for name in result.left_out if result.left_out[name] == reason]
        for reason in result.left_out.values()
    }
    remarks += [
        f"Left out: {', '.join(_NAMES[name] for name in names)} ({reason})."
        for reason, names in reasons.items()
    ]
    return remarks


def _by_label(result: BaselineResult) -> Table | None:
    labels = list(dict.fromkeys(label for row in result.rows for label in row.labels))
    if len(labels) < 2:
        return None
    rows = [
        Row(
            label,
            [
                estimate_cell(_model(result, label)),
                *(
                    estimate_cell(row.labels[label].auroc if label in row.labels else None)
                    for row in result.rows
                ),
            ],
        )
        for label in labels
    ]
    return Table(["label", "the model", *(_NAMES[row.name] for row in result.rows)], rows)


def _model(result: BaselineResult, label: str) -> Estimate:
    return next(row.labels[label].model for row in result.rows if label in row.labels)
