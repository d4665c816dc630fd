"""The page of a comparison: a leaderboard, and which differences are shown."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

import cxrlab
from cxrlab.errors import OutputError
from cxrlab.evaluation.paired_tests import describe
from cxrlab.evaluation.results import ComparisonResult, Difference, ModelPair, NonInferiority, PairedTests
from cxrlab.files import RunDir, write_text
from cxrlab.metrics.registry import METRICS
from cxrlab.report import text
from cxrlab.report.figures import groups
from cxrlab.report.formatting import MINUS, p
from cxrlab.report.html import figure_html, pages, save_figures
from cxrlab.report.model_info import Session, without_folder_name
from cxrlab.report.tables import Cell, Row, Table, estimate_cell

_MINUS = f" {MINUS} "
_DESCRIPTIONS = {
    "leaderboard": "Mean AUROC of each model, with its interval.",
    "auroc_by_model": "AUROC of each label by each model, with intervals.",
    "differences": "Differences of mean AUROC between the models, with their intervals.",
}


def write_comparison(
    folder: Path, comparison: ComparisonResult, session: Session | None, *, images: bool
) -> Path:
    """Write ``report.html`` and ``figures/*.png`` of a comparison, and return the page's path.

    Args:
        folder: Where to; it is made if it is not there.
        comparison: What was found.
        session: With what it was computed, or None.
        images: False leaves out the command and the names of files and folders; models, which may be called
            by one, are numbered.

    Raises:
        OutputError: If a file cannot be written.
    """
    shown = comparison if images else _numbered(comparison)
    figures = _figures(shown)
    sections = {"leaderboard": "Leaderboard", "differences": "Differences"}
    if shown.margin is not None:
        sections["non_inferiority"] = "Non-inferiority"
    sections["further"] = "Sensitivity, specificity, average precision, Brier score"
    records = text.records({"Comparison": session}, names=images)
    if records:
        sections["repeat"] = "How to repeat it"
    page = pages().get_template("comparison.html.jinja").render(
        title=text.comparison_title(shown),
        headline=text.comparison_headline(shown),
        caveats=list(dict.fromkeys(caveat.message for caveat in shown.flags)),
        evaluated=text.evaluated(shown.data, shown.interval),
        how_to_read=text.HOW_TO_READ,
        figures={
            name: figure_html(figure, alt=_DESCRIPTIONS[name], name=name) if figure else ""
            for name, figure in figures.items()
        },
        models=_leaderboard(shown),
        by_label=_by_label(shown),
        pairs=_differences({_MINUS.join(pair.models): pair for pair in shown.pairs}, "models"),
        pairs_folded=[*_pairs_by_metric(shown), *_pairs_by_label(shown)],
        corrected=text.corrected(shown, "auroc"),
        non_inferiority=_non_inferiority(_of_means(shown)),
        margin=text.margin(shown),
        non_inferiority_folded=_non_inferiority_by_label(shown),
        further=text.further_tests(shown),
        further_folded=[*_further_means(shown), *_further_by_label(shown)],
        records=records,
        names_left_out="" if images else text.NAMES_LEFT_OUT,
        version=cxrlab.__version__,
        sections=list(sections.items()),
    )  # fmt: skip
    run_dir = RunDir(folder)
    try:
        save_figures(run_dir.figures, figures)
        write_text(run_dir.report, page)
    except OSError as error:
        raise OutputError(f"The comparison cannot be written to {folder}: {error}.") from error
    return run_dir.report


def _numbered(comparison: ComparisonResult) -> ComparisonResult:
    """Return the same with a number for the name of each model, which may be a path or a file."""
    names = {model.name: f"model {place}" for place, model in enumerate(comparison.models, start=1)}

    def renamed(pair: ModelPair) -> ModelPair:
        models = (names[pair.models[0]], names[pair.models[1]])

        def described(difference: Difference, metric: str = "auroc") -> str:
            higher_is_better = METRICS[metric].higher_is_better
            return describe(
                models, difference.difference, difference.outcome, higher_is_better=higher_is_better
            )

        def renamed_by_label(labels: Mapping[str, Difference], metric: str) -> dict[str, Difference]:
            return {
                label: replace(difference, description=described(difference, metric))
                for label, difference in labels.items()
            }

        return replace(
            pair,
            models=models,
            labels=renamed_by_label(pair.labels, "auroc"),
            metrics={
                name: replace(difference, description=described(difference, name))
                for name, difference in pair.metrics.items()
            },
            further={
                name: PairedTests(
                    replace(tests.macro, description=described(tests.macro, name)),
                    renamed_by_label(tests.labels, name),
                )
                for name, tests in pair.further.items()
            },
            non_inferiority=[
                replace(test, models=(names[test.models[0]], names[test.models[1]]))
                for test in pair.non_inferiority
            ],
            description=described(pair),
        )

    return replace(
        comparison,
        data=without_folder_name(comparison.data),
        models=[replace(model, name=names[model.name]) for model in comparison.models],
        pairs=[renamed(pair) for pair in comparison.pairs],
        flags=[
            replace(caveat, message=text.PARTS_DIFFER)
            if caveat.kind == "parts_differ"
            else replace(caveat, message=_with_name(caveat.message, names))
            for caveat in comparison.flags
            if caveat.kind != "note"
        ],
    )


def _with_name(message: str, names: Mapping[str, str]) -> str:
    """Return a message with the new name of the model that it begins with, if it does with one."""
    name, colon, rest = message.partition(": ")
    return f"{names[name]}{colon}{rest}" if name in names else message


def _figures(comparison: ComparisonResult) -> dict[str, Figure | None]:
    return {
        "leaderboard": groups.leaderboard(comparison),
        "auroc_by_model": groups.auroc_by_model(comparison),
        "differences": groups.differences(comparison),
    }


def _leaderboard(comparison: ComparisonResult) -> Table:
    rows = [
        Row(
            model.name,
            [
                estimate_cell(model.macro_auroc),
                *([estimate_cell(model.pooled_macro_auroc)] if comparison.num_folds else []),
                estimate_cell(model.macro_average_precision),
                *map(estimate_cell, model.metrics.values()),
            ],
        )
        for model in comparison.models
    ]
    mean = "mean " if _has_several_labels(comparison) else ""
    aurocs = ["AUROC within folds", "AUROC, folds pooled"] if comparison.num_folds else ["AUROC"]
    titles = [*aurocs, "average precision", *(METRICS[name].title for name in comparison.models[0].metrics)]
    return Table(["model", *(f"{mean}{title}" for title in titles)], rows)


def _by_label(comparison: ComparisonResult) -> Table | None:
    if not _has_several_labels(comparison):
        return None
    models = comparison.models
    rows = [
        Row(label, [estimate_cell(model.labels[label]) for model in models]) for label in models[0].labels
    ]
    return Table(["label", *(model.name for model in models)], rows)


def _pairs_by_metric(comparison: ComparisonResult) -> Sequence[tuple[str, Table]]:
    """Return the differences of each of a person's metrics, with its title."""
    return [
        (
            METRICS[name].title,
            _differences(
                {_MINUS.join(pair.models): pair.metrics[name] for pair in comparison.pairs},
                "models",
                METRICS[name].title,
            ),
        )
        for name in comparison.models[0].metrics
        if comparison.pairs
    ]


def _pairs_by_label(comparison: ComparisonResult) -> Sequence[tuple[str, Table]]:
    if not _has_several_labels(comparison):
        return []
    return [
        (f"By label: {_MINUS.join(pair.models)}", _differences(pair.labels, "label"))
        for pair in comparison.pairs
    ]


def _of_means(comparison: ComparisonResult) -> list[tuple[str, NonInferiority]]:
    return [
        (f"{test.models[0]} against {test.models[1]}", test)
        for pair in comparison.pairs
        for test in pair.non_inferiority
    ]


def _non_inferiority(tests: Sequence[tuple[str, NonInferiority]]) -> Table | None:
    """Return the tests against the margin, by the name of the row; None without any."""
    rows = [
        Row(
            name,
            [
                estimate_cell(test.difference),
                Cell(p(test.p)),
                Cell(p(test.p_holm)),
                Cell(test.description),
            ],
        )
        for name, test in tests
    ]
    columns = ["model", "difference of AUROC", "p, one-sided", "p, Holm", "in words"]
    return Table(columns, rows, texts=frozenset({4})) if rows else None


def _non_inferiority_by_label(comparison: ComparisonResult) -> list[tuple[str, Table | None]]:
    if not _has_several_labels(comparison):
        return []
    return [
        (
            f"By label: {' against '.join(mean.models)}",
            _non_inferiority([(label, tests[side]) for label, tests in pair.label_non_inferiority.items()]),
        )
        for pair in comparison.pairs
        for side, mean in enumerate(pair.non_inferiority)
    ]


def _further_means(comparison: ComparisonResult) -> list[tuple[str, Table]]:
    """Return the tests of the metrics besides AUROC as one table, the models of a pair together."""
    rows = {
        f"{_MINUS.join(pair.models)}: {METRICS[name].title}": tests.macro
        for pair in comparison.pairs
        for name, tests in pair.further.items()
    }
    means = " of means over the labels" if _has_several_labels(comparison) else ""
    return [(f"Differences{means}", _differences(rows, "models and metric", ""))] if rows else []


def _further_by_label(comparison: ComparisonResult) -> list[tuple[str, Table]]:
    if not _has_several_labels(comparison):
        return []
    return [
        (
            f"By label: {_MINUS.join(pair.models)}",
            _differences(
                {
                    f"{label}: {METRICS[name].title}": difference
                    for name, tests in pair.further.items()
                    for label, difference in tests.labels.items()
                },
                "label and metric",
                "",
            ),
        )
        for pair in comparison.pairs
    ]


def _has_several_labels(comparison: ComparisonResult) -> bool:
    return len(comparison.models[0].labels) > 1


def _differences(differences: Mapping[str, Difference], first: str, title: str = "AUROC") -> Table:
    rows = [
        Row(
            name,
            [
                estimate_cell(difference.difference),
                Cell(p(difference.p)),
                Cell(p(difference.p_holm)),
                Cell(difference.description),
            ],
        )
        for name, difference in differences.items()
    ]
    difference_title = f"difference of {title}" if title else "difference"
    return Table([first, difference_title, "p", "p, Holm", "in words"], rows, texts=frozenset({4}))
