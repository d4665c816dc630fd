"""Groups of images, and models, side by side: forest plots, a leaderboard, differences, AUROC by label."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrlab.evaluation.results import ComparisonResult, Estimates, EvaluationResult, SubgroupRow
from cxrlab.metrics.bootstrap import Estimate
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
from cxrlab.report.formatting import counted, level

_METRICS: dict[str, str] = {"auroc": "AUROC", "sensitivity": "sensitivity", "specificity": "specificity"}
_ALL = "all images"
_LEAST_SPAN = 0.1
_BORROWED = "*"  # marks groups that are compared with the negatives of all
_MEANS = {"macro_auroc": "AUROC", "macro_average_precision": "average precision"}
_MOST_BY_LABEL = len(COLOURS)
_SPREAD = 0.75  # of the models' points within the row of a label


class _ForestRow(NamedTuple):
    """A group, or all images, with its estimates by metric; None for the heading of a covariate."""

    name: str
    estimates: Estimates | None
    is_all: bool = False


def forest(
    result: EvaluationResult, metrics: Sequence[str] = tuple(_METRICS), label: str | None = None
) -> Figure | None:
    """Draw a row a group and a panel a metric, each beside the value of all images.

    Args:
        result: Of the evaluation.
        metrics: ``auroc``, ``sensitivity``, ``specificity``; one that is nowhere defined gets no panel.
        label: Whose values; by default the macro mean, or the only label.

    Returns:
        The figure; None where no group has a value.
    """
    chosen = label if label is not None else _default(result)
    groups = [group for group in result.subgroups if group.label == chosen]
    drawn = [name for name in metrics if any(_estimates(group)[name].value is not None for group in groups)]
    if not drawn:
        return None
    means = result.subgroup_means if chosen == "macro" else ()
    rows = _rows_beside_their_means(groups, means) if _differ(means) else _rows(groups, _all(result, chosen))
    with styled():
        figure = new_figure(2.4 + 2.2 * len(drawn), 1.1 + 0.26 * len(rows))
        panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
        for axes, metric in zip(panels, drawn, strict=True):
            _panel(axes, rows, metric)
            axes.set_title(_METRICS[metric])
        _share_scale(panels)
        for axes, metric in zip(panels, drawn, strict=True):
            _mark_undefined(axes, rows, metric)
        _name_rows(panels[0], rows)
        of = _mean_of(groups) if chosen == "macro" else shown(chosen, 60, 1)
        has_borrowed = any(group.negatives_from == "all" for group in groups)
        note = f"\n{_BORROWED} compared with the negatives of all groups" if has_borrowed else ""
        figure.supxlabel(f"{of}, {level(result.interval.level)} interval; dashed: all images{note}")
        return figure


def _default(result: EvaluationResult) -> str:
    return "macro" if len(result.labels) > 1 else next(iter(result.labels))


def _estimates(group: SubgroupRow) -> Estimates:
    return {"auroc": group.auroc, "sensitivity": group.sensitivity, "specificity": group.specificity}


def _differ(means: Sequence[SubgroupRow]) -> bool:
    """Tell whether covariates' means are of different labels, so that no one value stands beside all."""
    return len({tuple(mean.mean_of) for mean in means}) > 1


def _mean_of(groups: Sequence[SubgroupRow]) -> str:
    sizes = sorted({group.num_labels for group in groups})
    if len(sizes) == 1:
        return f"mean of {counted(sizes[0], 'label')}"
    return "means of the labels that have enough patients in every group"


def _all(result: EvaluationResult, label: str) -> _ForestRow:
    """Return the row of all images: the mean of the labels that the groups' means are of, or the label."""
    if label != "macro":
        num_images, estimates = result.counts[label].images, result.labels[label]
    else:
        mean = next(iter(result.subgroup_means), None)
        num_images, estimates = result.data.images, _estimates(mean) if mean else result.macro
    return _ForestRow(f"{_ALL} (n = {num_images:,})", estimates, is_all=True)


def _rows(groups: Sequence[SubgroupRow], of_all: _ForestRow) -> list[_ForestRow]:
    """Return names and estimates from top to bottom: all images, then a heading for each covariate."""
    rows = [of_all]
    for covariate in dict.fromkeys(group.covariate for group in groups):
        rows.append(_ForestRow(shown(covariate, 36, 1), None))
        rows += _of_covariate(groups, covariate)
    return rows


def _rows_beside_their_means(groups: Sequence[SubgroupRow], means: Sequence[SubgroupRow]) -> list[_ForestRow]:
    """Return the same with all images beneath each heading: each covariate's means are of its own labels."""
    rows = []
    for mean in means:
        of = counted(mean.num_labels, "label")
        rows.append(_ForestRow(f"{shown(mean.covariate, 24, 1)}, mean of {of}", None))
        rows.append(_ForestRow(f"{_ALL} (n = {mean.images:,})", _estimates(mean), is_all=True))
        rows += _of_covariate(groups, mean.covariate)
    return rows


def _of_covariate(groups: Sequence[SubgroupRow], covariate: str) -> list[_ForestRow]:
    rows = []
    for group in groups:
        if group.covariate == covariate:
            mark = _BORROWED if group.negatives_from == "all" else ""
            name = f"{shown(group.group, 28, 2)}{mark} (n = {group.images:,})"
            rows.append(_ForestRow(name, _estimates(group)))
    return rows


def _panel(axes: Axes, rows: Sequence[_ForestRow], metric: str) -> None:
    for place, row in enumerate(rows):
        if row.estimates is None:
            axes.axhline(place - 0.5, color="#dddddd", linewidth=0.8, zorder=0)
        elif metric in row.estimates and row.estimates[metric].value is not None:
            marker = {"fmt": "D", "color": INK} if row.is_all else {"fmt": "o", "color": COLOURS[0]}
            points(axes, [row.estimates[metric]], [place], **marker)
    starts = [place for place, row in enumerate(rows) if row.is_all]
    for start, after in pairwise([*starts, len(rows) + 1]):
        overall = rows[start].estimates or {}
        if metric in overall and (value := overall[metric].value) is not None:
            axes.plot(
                [value, value],
                [start - 0.5, after - 1.5],
                color=MUTED,
                linestyle="--",
                linewidth=0.9,
                zorder=1,
            )
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


def _mark_undefined(axes: Axes, rows: Sequence[_ForestRow], metric: str) -> None:
    middle = sum(axes.get_xlim()) / 2
    for place, row in enumerate(rows):
        if row.estimates is not None and (metric not in row.estimates or row.estimates[metric].value is None):
            axes.text(middle, place, "not defined", ha="center", va="center", color=MUTED, fontsize=8,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip


def _name_rows(axes: Axes, rows: Sequence[_ForestRow]) -> None:
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.6)
    for text, row in zip(axes.get_yticklabels(), rows, strict=True):
        if row.estimates is None:
            text.set_fontweight("bold")


def leaderboard(comparison: ComparisonResult) -> Figure | None:
    """Draw the macro AUROC and average precision of each model, the best first; None where there are none."""
    means = [
        {"macro_auroc": model.macro_auroc, "macro_average_precision": model.macro_average_precision}
        for model in comparison.models
    ]
    drawn = [name for name in _MEANS if any(estimates[name].value is not None for estimates in means)]
    if not drawn:
        return None
    with styled():
        figure = new_figure(2.6 + 2.7 * len(drawn), 1.0 + 0.3 * len(means))
        panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
        for axes, name in zip(panels, drawn, strict=True):
            _dots(axes, [estimates[name] for estimates in means])
            axes.set_title(_MEANS[name])
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
        _name_models(panels[0], [model.name for model in comparison.models])
        figure.supxlabel(f"mean of the labels, {level(comparison.interval.level)} interval")
        return figure


def differences(comparison: ComparisonResult) -> Figure | None:
    """Draw how far the best model's macro AUROC lies above each other's; None where there is no pair."""
    rows = _against_the_best(comparison)
    if all(difference.value is None for _, difference, _ in rows):
        return None
    with styled():
        figure = new_figure(7.4, 1.1 + 0.3 * len(rows))
        axes = figure.subplots()
        _dots(axes, [difference for _, difference, _ in rows])
        axes.axvline(0, color=MUTED, linestyle="--", linewidth=1, zorder=1)
        _name_models(axes, [f"minus {name}" for name, _, _ in rows])
        beside = axes.twinx()
        beside.set(ylim=axes.get_ylim())
        beside.set_yticks(range(len(rows)), [text for _, _, text in rows])
        beside.tick_params(length=0)
        beside.grid(visible=False)
        best = shown(comparison.models[0].name, 60, 1)
        notes = f"paired, {level(comparison.interval.level)} interval, p after Holm"
        axes.set_title(f"{best} (the best) minus each of the others")
        figure.supxlabel(f"difference of the macro AUROC ({notes}); dashed: no difference")
        return figure


def auroc_by_model(comparison: ComparisonResult) -> Figure | None:
    """Draw the AUROC of every label by each model, of at most the seven best; None where there are none."""
    models = comparison.models[:_MOST_BY_LABEL]
    labels = list(models[0].labels) if models else []
    if all(model.labels[label].value is None for model in models for label in labels):
        return None
    with styled():
        figure = new_figure(7.2, 1.0 + 0.12 * len(models) + len(labels) * (0.14 + 0.12 * len(models)))
        axes, entries = figure.subplots(), []
        for number, model in enumerate(models):
            offset = (number / len(models) - 0.5 + 0.5 / len(models)) * _SPREAD
            known = [(place + offset, model.labels[label]) for place, label in enumerate(labels)
                     if model.labels[label].value is not None]  # fmt: skip
            look = {"fmt": MARKERS[number], "color": COLOURS[number], "markersize": 4.5, "elinewidth": 1}
            drawn = points(axes, [estimate for _, estimate in known], [place for place, _ in known], **look)
            entries.append((drawn, shown(model.name, 40, 1)))
        for place in range(len(labels) - 1):
            axes.axhline(place + 0.5, color="#dddddd", linewidth=0.6, zorder=0)
        _name_models(axes, labels)
        figure.supxlabel(f"AUROC ({level(comparison.interval.level)} interval){_only_the_best(comparison)}")
        legend(figure, entries, loc="outside upper left", ncols=2)
        return figure


def _only_the_best(comparison: ComparisonResult) -> str:
    num_models = len(comparison.models)
    return f"; the {_MOST_BY_LABEL} best of {num_models} models" if num_models > _MOST_BY_LABEL else ""


def _dots(axes: Axes, estimates: Sequence[Estimate]) -> None:
    for place, estimate in enumerate(estimates):
        if estimate.value is not None:
            points(axes, [estimate], [place], color=COLOURS[0])
    axes.locator_params(axis="x", nbins=5)


def _name_models(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [shown(name, 32, 2) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _against_the_best(comparison: ComparisonResult) -> list[tuple[str, Estimate, str]]:
    """Return, for each other model in order, its name, best minus it, and what the test says."""
    best, *others = [model.name for model in comparison.models] or [""]
    pairs = {frozenset(pair.models): pair for pair in comparison.pairs}
    rows = []
    for name in others:
        if (pair := pairs.get(frozenset((best, name)))) is not None:
            p = pair.p_holm
            text = "" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
            rows.append((name, pair.difference if pair.models[0] == best else -pair.difference, text))
    return rows
