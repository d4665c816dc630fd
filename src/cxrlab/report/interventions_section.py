"""The section on interventions: what a model still tells where part of the image is taken away."""

from collections.abc import Sequence

from markupsafe import Markup

from cxrlab.evaluation.interventions import TITLES, InterventionResult, InterventionRow, kept_without_lungs
from cxrlab.report.figures.interventions import changed_images
from cxrlab.report.formatting import counted, percent
from cxrlab.report.html import folded_html, paragraph_html, part, table_html
from cxrlab.report.section import PageContext
from cxrlab.report.tables import Cell, Row, Table, estimate_cell

_HOW = (
    "The same images were predicted again after a change. What is kept is the AUROC above 0.5 of the changed "
    "images, as a share of that of the unchanged ones: 1 is all of it, 0 none. A model that needs the lungs "
    "loses most of it without them. Blanked parts have the mean grey of their image. No network was trained "
    "on such images, so a loss may also come from their looking strange; what is kept cannot."
)
_CHANGES = {
    "no_lungs": "a box around both lungs blanked, a little wider than they are",
    "lungs_only": "everything outside that box blanked",
    "no_border": "a frame of 5 % of the side and squares of 15 % in the corners blanked",
    "half_resolution": "reduced to half the height and width, and stretched again",
    "gamma_down": "greys, from 0 to 1, to the power of 0.7",
    "gamma_up": "greys, from 0 to 1, to the power of 1.4",
    "contrast_down": "greys 0.7 times as far from the mean of their image",
    "contrast_up": "greys 1.3 times as far from the mean of their image",
    "equal_histograms": "greys exchanged so that all images, of either class, have one histogram",
}


def interventions_section(context: PageContext) -> Markup | None:
    """Return the section; None where no interventions were asked for."""
    result = context.result.interventions
    if result is None:
        return None
    without = result.row("no_lungs")
    parts = [
        part("how", _HOW),
        *([paragraph_html(kept_without_lungs(without))] if without else []),
        table_html(_table(result)),
        context.figure(
            "interventions",
            changed_images(context.model_info.changed) if context.images else None,
            alt="One of the images as it is and as it was changed.",
        ),
        *map(paragraph_html, _remarks(result)),
        folded_html("Share of the AUROC above 0.5 that is kept, by label", _by_label(result)),
    ]
    return Markup("\n").join(part for part in parts if part)


def _table(result: InterventionResult) -> Table:
    num_labels = len(result.unchanged)
    mean = f", mean of {num_labels} labels" if num_labels > 1 else ""
    rows = [
        Row("unchanged", [estimate_cell(result.unchanged_macro), Cell(""), Cell("as decoded")], strong=True)
    ]
    rows += [
        Row(
            TITLES[row.name],
            [
                estimate_cell(row.macro.auroc),
                estimate_cell(row.macro.kept, 2),
                Cell(_CHANGES[row.name]),
            ],
        )
        for row in result.rows
    ]
    return Table(["images", f"AUROC{mean}", "kept", "what was changed"], rows, texts=frozenset({3}))


def _remarks(result: InterventionResult) -> list[str]:
    patients = "" if result.patients is None else f" of {counted(result.patients, 'patient')}"
    drawn = f", drawn by patient from {result.available:,}" if result.available > result.images else ""
    remarks = [
        f"On {counted(result.images, 'image')}{patients}{drawn}. The region of the lungs was found in "
        f"{percent(result.regions_found, 0)} of them; in the others the usual place stands for it."
    ]
    reasons = {
        reason: [TITLES[name] for name in result.left_out if result.left_out[name] == reason]
        for reason in result.left_out.values()
    }
    return remarks + [f"Left out: {', '.join(names)} ({reason})." for reason, names in reasons.items()]


def _by_label(result: InterventionResult) -> Table | None:
    if len(result.unchanged) < 2:
        return None
    rows = [_label_row(label, result.rows) for label in result.unchanged]
    return Table(["label", *(TITLES[row.name] for row in result.rows)], rows)


def _label_row(label: str, rows: Sequence[InterventionRow]) -> Row:
    return Row(label, [estimate_cell(row.labels[label].kept, 2) for row in rows])
