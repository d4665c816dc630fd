"""Whether a model serves all groups alike: forest plots by view, sex, age and other covariates.

Models side by side: a leaderboard, differences to the best, and AUROC by label.
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrlab.report.figures.style import (
    COLOURS,
    INK,
    MARKERS,
    MUTED,
    legend,
    new_figure,
    points,
    shown,
    styled,
)
from cxrlab.report.formatting import level

Numbers = dict[str, Any]


METRICS = {"auroc": "AUROC", "sensitivity": "sensitivity", "specificity": "specificity"}


_ALL = "all images"


_LEAST_SPAN = 0.1


_BORROWED = "*"  # marks groups that are compared with the negatives of all


def forest(
    numbers: Numbers, metrics: Sequence[str] = tuple(METRICS), label: str | None = None
) -> Figure | None:
    """Draw a row a group and a panel a metric, each beside the value of all images.

    Args:
        numbers: Content of ``evaluation.json``.
        metrics: Of :data:`METRICS`; one that is nowhere defined gets no panel.
        label: Whose values; by default the macro mean, or the only label.

    Returns:
        The figure; None where no group has a value.
    """
    chosen = label if label is not None else _default(numbers)
    groups = [row for row in numbers["subgroups"] if row["label"] == chosen]
    drawn = [name for name in metrics if any(row[name]["value"] is not None for row in groups)]
    if not drawn:
        return None
    overall = numbers["macro"] if chosen == "macro" else numbers["labels"][chosen]
    num_images = (numbers["data"] if chosen == "macro" else numbers["counts"][chosen])["images"]
    rows = _rows(groups, overall, num_images)
    with styled():
        figure = new_figure(2.4 + 2.2 * len(drawn), 1.1 + 0.26 * len(rows))
        panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
        for axes, metric in zip(panels, drawn, strict=True):
            _panel(axes, rows, metric)
            axes.set_title(METRICS[metric])
        _share_scale(panels)
        for axes, metric in zip(panels, drawn, strict=True):
            _mark_undefined(axes, rows, metric)
        _name_rows(panels[0], rows)
        of = f"mean of {numbers['num_macro_labels']} labels" if chosen == "macro" else shown(chosen, 60, 1)
        note = f"\n{_BORROWED} compared with the negatives of all groups" if _has_borrowed(groups) else ""
        figure.supxlabel(f"{of}, {level(numbers['interval']['level'])} interval; dashed: all images{note}")
        return figure


def _default(numbers: Numbers) -> str:
    return "macro" if len(numbers["labels"]) > 1 else next(iter(numbers["labels"]))


def _has_borrowed(groups: Sequence[Numbers]) -> bool:
    return any(row["negatives_from"] == "all" for row in groups)


def _rows(groups: Sequence[Numbers], overall: Numbers, num_images: int) -> list[tuple[str, Numbers | None]]:
    """Return names and estimates from top to bottom: all images, then a heading for each covariate."""
    rows: list[tuple[str, Numbers | None]] = [(f"{_ALL} (n = {num_images:,})", overall)]
    for covariate in dict.fromkeys(row["covariate"] for row in groups):
        rows.append((shown(covariate, 36, 1), None))
        for row in groups:
            if row["covariate"] == covariate:
                mark = _BORROWED if row["negatives_from"] == "all" else ""
                rows.append((f"{shown(row['group'], 28, 2)}{mark} (n = {row['images']:,})", row))
    return rows


def _panel(axes: Axes, rows: Sequence[tuple[str, Numbers | None]], metric: str) -> None:
    for place, (_, estimates) in enumerate(rows):
        if estimates is None:
            axes.axhline(place - 0.5, color="#dddddd", linewidth=0.8, zorder=0)
        elif estimates[metric]["value"] is not None:
            marker = {"fmt": "D", "color": INK} if place == 0 else {"fmt": "o", "color": COLOURS[0]}
            points(axes, [estimates[metric]], [place], **marker)
    overall = rows[0][1]
    if overall is not None and overall[metric]["value"] is not None:
        axes.axvline(overall[metric]["value"], color=MUTED, linestyle="--", linewidth=0.9, zorder=1)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _share_scale(panels: Sequence[Axes]) -> None:
    """Make a distance mean the same in every panel, and no small difference look large."""
    span = max(_LEAST_SPAN, *(high - low for low, high in (axes.get_xlim() for axes in panels)))
    for axes in panels:
        low, high = axes.get_xlim()
        start = min((low + high - span) / 2, max(high, 1.0) - span)
        axes.set_xlim(start, start + span)
        axes.locator_params(axis="x", nbins=4)


def _mark_undefined(axes: Axes, rows: Sequence[tuple[str, Numbers | None]], metric: str) -> None:
    middle = sum(axes.get_xlim()) / 2
    for place, (_, estimates) in enumerate(rows):
        if estimates is not None and estimates[metric]["value"] is None:
            axes.text(middle, place, "not defined", ha="center", va="center", color=MUTED, fontsize=8,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip


def _name_rows(axes: Axes, rows: Sequence[tuple[str, Numbers | None]]) -> None:
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.6)
    for text, (_, estimates) in zip(axes.get_yticklabels(), rows, strict=True):
        if estimates is None:
            text.set_fontweight("bold")


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
        _comparison_figures_name_rows(panels[0], [row["name"] for row in models])
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
        _comparison_figures_name_rows(axes, [f"minus {name}" for name, _, _ in rows])
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
        _comparison_figures_name_rows(axes, labels)
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


def _comparison_figures_name_rows(axes: Axes, names: list[str]) -> None:
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
