"""The section that sets another data set beside the run's own test part."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from cxrlab.evaluation.external_comparison import AT_THRESHOLD, Beside, DriftRow, ExternalComparison
from cxrlab.evaluation.external_comparison import METRICS as COMPARED
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.report.figures import external as figures
from cxrlab.report.formatting import counted, interval, number, percent
from cxrlab.report.html import folded_html, paragraph_html, part, table_html
from cxrlab.report.section import PageContext
from cxrlab.report.tables import Cell, Row, Table, estimate_cell, metric_title

HOW_TO_READ = (
    "The same network on its own data and on these. A difference is this data set minus the own, with its "
    "interval; of many, some lie on one side of 0 by chance. A fall has several possible reasons: other "
    "patients, other devices, another share of findings, or labels that were made in another way. What is "
    "apart is listed below; that it is the reason is not shown."
)
_MOST_NAMED = 4  # variables in the sentence on drift


def external_section(context: PageContext) -> Markup | None:
    """Return metrics, prevalence, calibration in the large and drift, beside the run's own part."""
    external = context.result.external
    if external is None:
        return None
    drawn = context.figure(
        "external",
        figures.external(external, context.result.interval.level),
        alt="AUROC of each label on the run's own data and on these.",
    )
    return Markup("\n").join(
        [
            part("how", HOW_TO_READ),
            paragraph_html(summary(external)),
            *(table_html(table) for table in [_metric_table(external)] if table),
            drawn,
            Markup("<h3>Prevalence, and recalibration in the large</h3>"),
            part(
                "how",
                "Predicted is the mean probability, after what was fitted on the training's validation part; "
                "the shift of the log odds is what would bring it to the share present. It mends the mean "
                "only.",
            ),
            table_html(_large_table(external)),
            Markup("<h3>Drift</h3>"),
            paragraph_html(drift_summary(external)),
            folded_html("Drift of patients, views and pixels", _drift_table(external.drift)),
            folded_html("Drift of the scores", _score_table(external)),
            *map(paragraph_html, external.left_out),
        ]
    )


def own_part_name(external: ExternalComparison) -> str:
    """Return what the run's own part is called."""
    of_patients = "" if external.patients is None else f" of {counted(external.patients, 'patient')}"
    name = "test part" if external.part == "test" else "validation part, on which its epoch was chosen"
    return f"the run's own {name} ({counted(external.images, 'image')}{of_patients})"


def summary(external: ExternalComparison) -> str:
    """Return the mean AUROC on both data sets and their difference, or that of the only label."""
    labels = list(external.labels)
    name, beside = ("Mean AUROC", external.macro.get("auroc"))
    if len(labels) == 1:
        name, beside = f"AUROC of {labels[0]}", external.labels[labels[0]].metrics.get("auroc")
    if beside is None or beside.own.value is None or beside.here.value is None:
        return f"Set beside {own_part_name(external)}."
    return (
        f"{name}: {interval(beside.own)} on {own_part_name(external)}, {interval(beside.here)} here; "
        f"{_change(beside.difference)}."
    )


def _change(difference: Estimate) -> str:
    amount = interval(difference)
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return f"no difference shown: {amount}"
    return f"{'higher' if difference.low > 0 else 'lower'} here: {amount}"


def _metric_table(external: ExternalComparison) -> Table | None:
    blocks: dict[str, Mapping[str, Beside]] = {label: row.metrics for label, row in external.labels.items()}
    if len(blocks) > 1 and external.macro:
        blocks["mean"] = external.macro
    names = [name for name in COMPARED if any(name in block for block in blocks.values())]
    names = [name for name in names if name == "auroc" or name in AT_THRESHOLD]
    if not names:
        return None
    columns, rows = ["label"], []
    for name in names:
        title = metric_title(name)
        columns += [f"{title}, own", "here", *(["difference"] if name == "auroc" else [])]
    for label, block in blocks.items():
        cells: list[Cell] = []
        for name in names:
            beside = block.get(name)
            both = (None, None, None) if beside is None else (beside.own, beside.here, beside.difference)
            cells += map(estimate_cell, both if name == "auroc" else both[:2])
        rows.append(Row(label, cells, strong=label == "mean"))
    return Table(columns, rows)


def _large_table(external: ExternalComparison) -> Table:
    rows = [
        Row(
            label,
            [
                _share_cell(row.prevalence.own),
                _share_cell(row.prevalence.here),
                _share_cell(row.mean_probability.own),
                _share_cell(row.mean_probability.here),
                estimate_cell(row.log_odds_shift.own, 2),
                estimate_cell(row.log_odds_shift.here, 2),
                Cell(row.description),
            ],
        )
        for label, row in external.labels.items()
    ]
    columns = [
        "label",
        "present, own",
        "here",
        "predicted, own",
        "here",
        "log-odds shift, own",
        "here",
        "in words",
    ]
    return Table(columns, rows, texts=frozenset({7}))


def _share_cell(estimate: Estimate) -> Cell:
    around = (
        ""
        if estimate.low is None or estimate.high is None
        else f"{percent(estimate.low)} to {percent(estimate.high)}"
    )
    return Cell(percent(estimate.value), around)


def drift_summary(external: ExternalComparison) -> str:
    """Return in a sentence or two what is apart."""
    flagged = sorted((row for row in external.drift if row.is_flagged), key=lambda row: -abs(row.smd or 0.0))
    sentences = []
    if flagged:
        shown = "; ".join(
            f"{row.variable} {_value(row, row.own)} there, {_value(row, row.here)} here"
            for row in flagged[:_MOST_NAMED]
        )
        more = f"; and {len(flagged) - _MOST_NAMED} more" if len(flagged) > _MOST_NAMED else ""
        sentences.append(f"Apart by more than chance and a small effect: {shown}{more}.")
    elif external.drift:
        sentences.append(
            "No covariate and nothing of the pixels is apart by more than chance and a small effect."
        )
    far = [
        label
        for label, row in external.labels.items()
        if row.scores is not None and row.scores.description in ("apart", "far apart")
    ]
    if far:
        sentences.append(f"The scores are apart for {', '.join(far)}.")
    return " ".join(sentences) or "No covariate is known of both data sets."


def _value(row: DriftRow, value: float) -> str:
    return percent(value) if row.is_share else number(value, 1)


def _drift_table(rows: Sequence[DriftRow]) -> Table | None:
    lines = [
        Row(
            row.variable,
            [
                Cell(_value(row, row.own), _deviation(row.own_deviation)),
                Cell(_value(row, row.here), _deviation(row.here_deviation)),
                Cell(number(row.smd, 2)),
                Cell("apart" if row.is_flagged else ""),
            ],
        )
        for row in rows
    ]
    caption = (
        "Share or mean of each variable; standardised mean difference, from 0.2 on a small effect (Austin, "
        "Stat Med 28:3083, 2009), and called apart only where it is more than three standard errors."
    )
    columns = ["variable", "own", "here", "standardised difference", ""]
    return Table(columns, lines, caption, frozenset({4})) if lines else None


def _deviation(value: float | None) -> str:
    return "" if value is None else f"SD {number(value, 1)}"


def _score_table(external: ExternalComparison) -> Table | None:
    rows = [
        Row(
            label,
            [
                Cell(number(scores.stability_index, 2), f"by chance below {number(scores.by_chance, 2)}"),
                Cell(number(scores.distance, 2)),
                Cell(number(scores.distance_positives, 2)),
                Cell(number(scores.distance_negatives, 2)),
                Cell(scores.description),
            ],
        )
        for label, row in external.labels.items()
        if (scores := row.scores) is not None
    ]
    caption = (
        "Population stability index over tenths of the own scores (0.1 and 0.25 are the usual bounds of a "
        "little and far apart), and the largest distance of the distribution functions (Kolmogorov and "
        "Smirnov), of all images and of those with and without the finding: where only the first is large, "
        "the share of findings is what differs."
    )
    columns = ["label", "stability index", "distance", "with the finding", "without it", "in words"]
    return Table(columns, rows, caption, frozenset({5})) if rows else None
