"""Models side by side: a leaderboard, differences to the best, and AUROC by label."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrlab.report.formats import level
from cxrlab.report.style import COLOURS, MARKERS, MUTED, legend, new_figure, points, shown, styled

Numbers = dict[str, Any]

_METRICS = {"macro_auroc": "AUROC", "macro_average_precision": "average precision"}
_MOST_BY_LABEL = len(COLOURS)
_SPREAD = 0.75  # of the models' points within the row of a label


def leaderboard(comparison: Numbers) -> Figure | None:
    """Draw the macro AUROC and average precision of each model, the best first; None where there are none.

    Args:
        comparison: Content of ``comparison.json``.
    """
    models = comparison["models"]
    drawn = [name for name in _METRICS if any(row[name]["value"] is not None for row in models)]
    if not drawn:
        return None
    with styled():
        figure = new_figure(2.6 + 2.7 * len(drawn), 1.0 + 0.3 * len(models))
        panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
        for axes, metric in zip(panels, drawn, strict=True):
            _dots(axes, [row[metric] for row in models])
            axes.set_title(_METRICS[metric])
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
        _name_rows(panels[0], [row["name"] for row in models])
        figure.supxlabel(f"mean of the labels, {level(comparison['interval']['level'])} interval")
        return figure


def differences(comparison: Numbers) -> Figure | None:
    """Draw how far the best model's macro AUROC lies above each other's; None where there is no pair.

    Args:
        comparison: Content of ``comparison.json``.
    """
    rows = _against_the_best(comparison)
    if not any(difference["value"] is not None for _, difference, _ in rows):
        return None
    with styled():
        figure = new_figure(7.4, 1.1 + 0.3 * len(rows))
        axes = figure.subplots()
        _dots(axes, [difference for _, difference, _ in rows])
        axes.axvline(0, color=MUTED, linestyle="--", linewidth=1, zorder=1)
        _name_rows(axes, [f"minus {name}" for name, _, _ in rows])
        beside = axes.twinx()
        beside.set(ylim=axes.get_ylim())
        beside.set_yticks(range(len(rows)), [text for _, _, text in rows])
        beside.tick_params(length=0)
        beside.grid(visible=False)
        best = shown(comparison["models"][0]["name"], 60, 1)
        notes = f"paired, {level(comparison['interval']['level'])} interval, p after Holm"
        axes.set_title(f"{best} (the best) minus each of the others")
        figure.supxlabel(f"difference of the macro AUROC ({notes}); dashed: no difference")
        return figure


def auroc_by_model(comparison: Numbers) -> Figure | None:
    """Draw the AUROC of every label by each model, of at most the seven best; None where there are none.

    Args:
        comparison: Content of ``comparison.json``.
    """
    models = comparison["models"][:_MOST_BY_LABEL]
    labels = list(models[0]["labels"]) if models else []
    if all(row["labels"][label]["value"] is None for row in models for label in labels):
        return None
    with styled():
        figure = new_figure(7.2, 1.0 + 0.12 * len(models) + len(labels) * (0.14 + 0.12 * len(models)))
        axes, entries = figure.subplots(), []
        for number, row in enumerate(models):
            offset = (number / len(models) - 0.5 + 0.5 / len(models)) * _SPREAD
            known = [(place + offset, row["labels"][label]) for place, label in enumerate(labels)
                     if row["labels"][label]["value"] is not None]  # fmt: skip
            look = {"fmt": MARKERS[number], "color": COLOURS[number], "markersize": 4.5, "elinewidth": 1}
            drawn = points(axes, [one for _, one in known], [place for place, _ in known], **look)
            entries.append((drawn, shown(row["name"], 40, 1)))
        for place in range(len(labels) - 1):
            axes.axhline(place + 0.5, color="#dddddd", linewidth=0.6, zorder=0)
        _name_rows(axes, labels)
        figure.supxlabel(f"AUROC ({level(comparison['interval']['level'])} interval){_left_out(comparison)}")
        legend(figure, entries, loc="outside upper left", ncols=2)
        return figure


def _left_out(comparison: Numbers) -> str:
    num = len(comparison["models"])
    return f"; the {_MOST_BY_LABEL} best of {num} models" if num > _MOST_BY_LABEL else ""


def _dots(axes: Axes, estimates: list[Numbers]) -> None:
    for place, one in enumerate(estimates):
        if one["value"] is not None:
            points(axes, [one], [place], color=COLOURS[0])
    axes.locator_params(axis="x", nbins=5)


def _name_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [shown(name, 32, 2) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _against_the_best(comparison: Numbers) -> list[tuple[str, Numbers, str]]:
    """Return, for each other model in order, its name, best minus it, and what the test says."""
    best, *others = [row["name"] for row in comparison["models"]] or [""]
    rows = []
    for name in others:
        for pair in comparison["pairs"]:
            if set(pair["models"]) == {best, name}:
                turned = pair["models"][0] != best
                p = pair["p_holm"]
                text = "" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
                rows.append((name, _turned(pair["difference"]) if turned else pair["difference"], text))
    return rows


def _turned(difference: Numbers) -> Numbers:
    """Return b minus a from a minus b."""
    value, low, high = (
        None if one is None else -one for one in map(difference.get, ("value", "low", "high"))
    )
    return {"value": value, "low": high, "high": low}
