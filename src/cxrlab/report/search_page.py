"""The page of a search: the best trial, how the search went, what its parameters do, what it cost."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

import cxrlab
from cxrlab.errors import OutputError
from cxrlab.files import write_text
from cxrlab.report import text
from cxrlab.report.figures import search as figures_of
from cxrlab.report.formatting import DASH, count, counted, number, seconds
from cxrlab.report.html import figure_html, pages
from cxrlab.report.model_info import Session
from cxrlab.report.search_result import SearchResult, SearchTrial
from cxrlab.report.tables import Cell, Row, Table

_DESCRIPTIONS = {
    "history": "The monitored metric of each trial in the order of the trials.",
    "curves": "The monitored metric of each trial over its epochs.",
    "importance": "Importance of each parameter (fANOVA over the completed trials).",
    "by_value": "The monitored metric against the value of each parameter.",
}
_HOW = {
    "course": "A point is a trial, at the best epoch that it had. A search that has found what there is "
    "to find improves no more; one that still climbs at its end is worth more trials.",
    "parameters": "The importances (fANOVA) add up to 1: as far as parameters by themselves explain why the "
    "completed trials differ in the metric, each has this share. It says where to look, not which value is "
    "best, and of few trials little. Trials of a sampler that learns lie densely where it hoped for more.",
    "rungs": "Each rung runs the best of the one before again, with more images and for more epochs. Values "
    "of different rungs are not comparable; the best trial is of the last one. Validation decided who went "
    "on.",
    "trials": "Images are those of training, each as often as it was seen. Seconds are of the job with its "
    "start and its evaluation on validation; of one that was interrupted, since it was started last.",
}
_FEW = 10  # completed trials below which an importance says little


def write_search(
    path: Path, result: SearchResult, session: Session | None, *, command: str, images: bool
) -> None:
    """Write the page of a search.

    Args:
        path: Of the HTML file.
        result: What was found, with at least one completed trial.
        session: How it was made.
        command: Trains the best trial again.
        images: False leaves out commands and the names of files.

    Raises:
        OutputError: If it cannot be written.
    """
    sections = {
        "best": "The best trial",
        "course": "The course of the search",
        "parameters": "The parameters",
    }
    if result.rungs:
        sections = {"best": sections["best"], "rungs": "Rungs"} | sections
    sections["trials"] = "All trials and what they cost"
    records = text.records({"": session}, names=images)
    if records:
        sections["repeat"] = "How to repeat it"
    page = pages().get_template("search.html.jinja").render(
        title=f"A search of {counted(len(result.trials), 'trial')} by {result.monitor}",
        headline=_headline(result),
        caveats=_caveats(result),
        facts=_facts(result),
        how_to_read=_HOW,
        chosen=_chosen(result),
        command=command if images else "",
        rung_table=_rungs(result),
        trial_table=_trials(result),
        figures=_figures(result),
        records=records,
        names_left_out="" if images else text.NAMES_LEFT_OUT,
        version=cxrlab.__version__,
        sections=list(sections.items()),
    )  # fmt: skip
    try:
        write_text(path, page)
    except OSError as error:
        raise OutputError(f"The page of the search cannot be written to {path}: {error}.") from error


def _figures(result: SearchResult) -> dict[str, object]:
    drawn: dict[str, Figure | None] = {
        "history": figures_of.history(result),
        "curves": figures_of.curves(result),
        "importance": figures_of.importance(result),
        "by_value": figures_of.by_value(result),
    }
    return {
        name: "" if figure is None else figure_html(figure, alt=_DESCRIPTIONS[name], name=name)
        for name, figure in drawn.items()
    }


def _headline(result: SearchResult) -> str:
    best = result.best
    if best is None:
        return "No trial has come to its end."
    words = ", ".join(f"{name} {value}" for name, value in best.parameters.items())
    return (
        f"The best is trial {best.number} with {result.monitor} {number(best.value)} on validation: {words}."
    )


def _caveats(result: SearchResult) -> list[str]:
    completed = result.count("completed")
    best = number(result.best.value if result.best else None)
    caveats = [
        f"{best} is the best of {counted(len(result.trials), 'trial')} on the same validation images, and so "
        "flatters the winner. The test part was not read: train it again, and read that once."
    ]
    if failed := result.count("failed"):
        caveats.append(f"{counted(failed, 'trial')} failed: the table below says why.")
    if running := result.count("running"):
        caveats.append(f"{counted(running, 'trial')} had not ended when this page was made.")
    if completed < _FEW and len(result.parameters) > 1:
        caveats.append(
            f"With {counted(completed, 'completed trial')} the importance of parameters says little."
        )
    return caveats


def _facts(result: SearchResult) -> list[tuple[str, str]]:
    counts = {state: result.count(state) for state in ("completed", "pruned", "failed", "running")}
    facts = [
        ("trials", f"{len(result.trials)}: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n)),
        ("time", f"{seconds(result.seconds)}, all jobs together"),
        ("training images seen", count(result.images)),
    ]
    if spared := _spared(result):
        facts.append(("spared by pruning", f"about {count(spared)} training images"))
    facts += [(name, words) for name, words in result.settings.items()]
    return facts


def _spared(result: SearchResult) -> int:
    """Return how many images fewer the pruned trials have seen than as many completed ones on average."""
    whole = [trial.images for trial in result.trials if trial.state == "completed" and trial.images]
    parts = [trial.images for trial in result.trials if trial.state == "pruned" and trial.images is not None]
    if not whole or not parts:
        return 0
    return max(0, round(len(parts) * sum(whole) / len(whole) - sum(parts)))


def _chosen(result: SearchResult) -> Table:
    best = result.best
    rows = [
        Row(
            parameter.name,
            [
                Cell(str(best.parameters.get(parameter.name, DASH)) if best else DASH),
                Cell(parameter.space),
                Cell(number(parameter.importance, 2)),
            ],
        )
        for parameter in result.parameters
    ]
    return Table(["parameter", "best trial", "searched", "importance"], rows, texts=frozenset({2}))


def _rungs(result: SearchResult) -> Table:
    rows = []
    for rung, sets in enumerate(result.rungs):
        here = [trial for trial in result.trials if (trial.rung or 0) == rung]
        values = [trial.value for trial in here if trial.state == "completed" and trial.value is not None]
        best = (max if result.maximize else min)(values, default=None)
        cells = [
            Cell(count(len(here))),
            Cell(number(best)),
            Cell(seconds(sum(trial.seconds or 0.0 for trial in here))),
            Cell(count(sum(trial.images or 0 for trial in here))),
            Cell(sets),
        ]
        rows.append(Row(f"rung {rung + 1}", cells))
    columns = ["rung", "trials", f"best {result.monitor}", "time", "training images", "sets"]
    return Table(columns, rows, texts=frozenset({5}))


def _trials(result: SearchResult) -> Table:
    names = [parameter.name for parameter in result.parameters]
    rung = ["rung"] if result.rungs else []
    columns = ["trial", "state", result.monitor, *rung, *names, "epochs", "seconds", "images"]
    errors = ["error"] if any(trial.error for trial in result.trials) else []
    best = result.best
    rows = [
        _trial_row(trial, names, result, is_best=best is not None and trial.number == best.number)
        for trial in _sorted(result)
    ]
    total = [Cell(""), Cell(""), *([Cell("")] * (len(rung) + len(names))), Cell("")]
    total += [Cell(f"{result.seconds:,.0f}"), Cell(count(result.images)), *([Cell("")] * len(errors))]
    columns += errors
    texts = {1} | ({len(columns) - 1} if errors else set())
    return Table(columns, [*rows, Row("total", total, strong=True)], texts=frozenset(texts))


def _trial_row(trial: SearchTrial, names: Sequence[str], result: SearchResult, *, is_best: bool) -> Row:
    source = "" if trial.source is None else f"as trial {trial.source}"
    cells = [Cell(trial.state), Cell(number(trial.value, 4))]
    cells += [Cell(str((trial.rung or 0) + 1), source)] if result.rungs else []
    cells += [Cell(str(trial.parameters.get(name, DASH))) for name in names]
    cells += [
        Cell(count(len(trial.by_epoch)) if trial.by_epoch else DASH),
        Cell(DASH if trial.seconds is None else f"{trial.seconds:,.0f}"),
        Cell(count(trial.images)),
    ]
    cells += [Cell(trial.error)] if any(other.error for other in result.trials) else []
    return Row(str(trial.number), cells, strong=is_best)


def _sorted(result: SearchResult) -> list[SearchTrial]:
    """Return the trials, the best first, by rungs the last one first; those without a result last."""
    order = {"completed": 0, "pruned": 1, "failed": 2, "running": 3}
    sign = -1 if result.maximize else 1

    def key(trial: SearchTrial) -> tuple[int, int, float, int]:
        value = sign * trial.value if trial.value is not None else 0.0
        return (-(trial.rung or 0), order[trial.state], value, trial.number)

    return sorted(result.trials, key=key)
