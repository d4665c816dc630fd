"""Figures of a search: its history, the curves of its trials, and what the parameters have to do with it."""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from cxrlab.report.figures.style import (
    COLOURS,
    INK,
    MARKERS,
    MUTED,
    legend,
    new_figure,
    shown,
    small_multiples,
    styled,
)
from cxrlab.report.search_result import SearchParameter, SearchResult, SearchTrial

_PRUNED = COLOURS[1]
_MOST_PANELS = 12


def history(result: SearchResult) -> Figure | None:
    """Draw each trial's metric in the order of the trials, and the best so far; None without any value."""
    valued = [trial for trial in result.trials if trial.value is not None and trial.state != "failed"]
    if not valued:
        return None
    with styled():
        figure = new_figure(8.2, 3.9)
        axes = figure.subplots()
        entries = _points_by_kind(axes, result, valued)
        failed = [trial.number for trial in result.trials if trial.state == "failed"]
        if failed:
            low = axes.get_ylim()[0]
            entries.append((axes.scatter(failed, [low] * len(failed), marker="x", color=MUTED), "failed"))
        if not result.rungs:
            steps = _best_so_far(result)
            (line,) = axes.step(
                [number for number, _ in steps],
                [value for _, value in steps],
                where="post",
                color=INK,
                linewidth=1.4,
            )
            entries.append((line, "best so far"))
        axes.set_xlabel("trial")
        axes.set_ylabel(shown(result.monitor, 30, 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend(figure, entries, loc="outside upper left", ncols=4)
        return figure


def _points_by_kind(
    axes: Axes, result: SearchResult, trials: Sequence[SearchTrial]
) -> list[tuple[Artist, str]]:
    """Draw completed trials, by rung where there are rungs, and pruned ones."""
    entries: list[tuple[Artist, str]] = []
    for rung in range(max(1, len(result.rungs))):
        here = [trial for trial in trials if trial.state == "completed" and (trial.rung or 0) == rung]
        if here:
            drawn = axes.scatter(
                [trial.number for trial in here], _values(here),
                color=COLOURS[_colour(rung)], marker=MARKERS[rung % len(MARKERS)], zorder=3,
            )  # fmt: skip
            entries.append((drawn, _rung_title(rung) if result.rungs else "completed"))
    pruned = [trial for trial in trials if trial.state == "pruned"]
    if pruned:
        drawn = axes.scatter(
            [trial.number for trial in pruned], _values(pruned),
            facecolors="none", edgecolors=_PRUNED, marker="s", zorder=2,
        )  # fmt: skip
        entries.append((drawn, "pruned, at its last epoch"))
    return entries


def _values(trials: Sequence[SearchTrial]) -> list[float]:
    return [float("nan") if trial.value is None else trial.value for trial in trials]


def _colour(rung: int) -> int:
    return (0, 2, 3, 4, 5)[rung % 5]  # _PRUNED is another's


def _rung_title(rung: int) -> str:
    return f"rung {rung + 1}"


def _best_so_far(result: SearchResult) -> list[tuple[int, float]]:
    steps: list[tuple[int, float]] = []
    best = max if result.maximize else min
    for trial in result.trials:
        if trial.state == "completed" and trial.value is not None:
            steps.append((trial.number, best(trial.value, steps[-1][1]) if steps else trial.value))
    if steps:
        steps.append((result.trials[-1].number, steps[-1][1]))
    return steps


def curves(result: SearchResult) -> Figure | None:
    """Draw the metric of each trial over its epochs; None where no trial has two."""
    drawn = [trial for trial in result.trials if trial.by_epoch]
    if all(len(trial.by_epoch) < 2 for trial in drawn):
        return None
    best = result.best
    with styled():
        figure = new_figure(8.2, 3.9)
        axes = figure.subplots()
        entries: dict[str, Artist] = {}
        for trial in drawn:
            epochs = sorted(trial.by_epoch)
            is_best = best is not None and trial.number == best.number
            is_pruned = trial.state == "pruned"
            colour = INK if is_best else _PRUNED if is_pruned else COLOURS[_colour(trial.rung or 0)]
            (line,) = axes.plot(
                [epoch + 1 for epoch in epochs], [trial.by_epoch[epoch] for epoch in epochs], color=colour,
                linewidth=2.2 if is_best else 1.0, alpha=1.0 if is_best else 0.65,
                linestyle="--" if is_pruned else "-", marker="o", markersize=2.5, zorder=3 if is_best else 2,
            )  # fmt: skip
            of_rung = _rung_title(trial.rung) if trial.rung is not None and result.rungs else "completed"
            kind = f"the best, trial {trial.number}" if is_best else "pruned" if is_pruned else of_rung
            entries.setdefault(kind if trial.state != "failed" else "failed", line)
        axes.set_xlabel("epoch")
        axes.set_ylabel(shown(result.monitor, 30, 1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend(figure, [(line, name) for name, line in entries.items()], loc="outside upper left", ncols=5)
        return figure


def importance(result: SearchResult) -> Figure | None:
    """Draw the importance of each parameter, the greatest first; None where it is not known."""
    known = [parameter for parameter in result.parameters if parameter.importance is not None]
    if len(known) < 2:
        return None
    known.sort(key=lambda parameter: -(parameter.importance or 0.0))
    with styled():
        figure = new_figure(7.2, 1.0 + 0.42 * len(known))
        axes = figure.subplots()
        bars = axes.barh(
            range(len(known)),
            [parameter.importance or 0.0 for parameter in known],
            height=0.6,
            color=COLOURS[0],
        )
        axes.bar_label(bars, [f"{parameter.importance:.2f}" for parameter in known], padding=3, fontsize=8.5)
        axes.set_yticks(range(len(known)), [shown(parameter.name, 32, 2) for parameter in known])
        axes.set_ylim(len(known) - 0.5, -0.5)
        axes.set_xlim(0, 1.08)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("importance (fANOVA): share of what single parameters explain")
        return figure


def by_value(result: SearchResult) -> Figure | None:
    """Draw the metric against each parameter; of a successive halving in the first rung, which has all."""
    trials = [
        trial
        for trial in result.trials
        if trial.value is not None and trial.state in ("completed", "pruned") and not trial.rung
    ]
    parameters = list(result.parameters)[:_MOST_PANELS]
    if len(trials) < 2:
        return None
    with styled():
        figure, grid = small_multiples([shown(parameter.name, 26, 2) for parameter in parameters], around=1.0)
        ends = [trial.value for trial in trials if trial.value is not None]
        margin = 0.05 * (max(ends) - min(ends)) or 0.05
        entries: dict[str, Artist] = {}
        for axes, parameter in zip(grid, parameters, strict=True):
            _panel(axes, parameter, trials, entries)
            axes.set_ylim(min(ends) - margin, max(ends) + margin)
            axes.tick_params(labelbottom=True)  # each has its own axis
        figure.supylabel(shown(result.monitor, 30, 1))
        legend(figure, [(line, name) for name, line in entries.items()], loc="outside upper left", ncols=2)
        return figure


def _panel(
    axes: Axes, parameter: SearchParameter, trials: Sequence[SearchTrial], entries: dict[str, Artist]
) -> None:
    choices = None if parameter.choices is None else list(parameter.choices)
    for state, look in (
        ("completed", {"color": COLOURS[0], "zorder": 3}),
        ("pruned", {"facecolors": "none", "edgecolors": _PRUNED, "marker": "s", "zorder": 2}),
    ):
        here = [trial for trial in trials if trial.state == state and parameter.name in trial.parameters]
        if not here:
            continue
        places = [trial.parameters[parameter.name] for trial in here]
        at = [choices.index(str(place)) for place in places] if choices is not None else places
        drawn = axes.scatter(at, _values(here), s=22, **look)  # type: ignore[arg-type]
        entries.setdefault(state, drawn)
    if choices is not None:
        axes.set_xticks(range(len(choices)), [shown(choice, 12, 2) for choice in choices], fontsize=8)
        axes.set_xlim(-0.5, len(choices) - 0.5)
    elif parameter.is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        # matplotlib's own writes powers as mathematics, which is switched off here.
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
