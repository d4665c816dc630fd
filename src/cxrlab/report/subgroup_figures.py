"""Whether a model serves all groups alike: forest plots by view, sex, age and other covariates."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrlab.report.formats import level
from cxrlab.report.style import COLOURS, INK, MUTED, new_figure, points, shown, styled

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
