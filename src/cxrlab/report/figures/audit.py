"""Figures of an audit, each drawn from the audit's report and returned as PNG."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from cxrlab.data.audit import AuditReport
from cxrlab.data.audit.drift import LARGEST
from cxrlab.report.figures.style import COLOURS, SEQUENTIAL, new_figure, styled
from cxrlab.report.html import png

Numbers = npt.NDArray[np.float64]

_DPI = 110
_PART_COLOURS = {"train": COLOURS[0], "val": COLOURS[2], "test": COLOURS[1], "all": COLOURS[0]}
_HATCHES = {"train": "", "val": "//", "test": "xx", "all": ""}
_MOST_LABELS_WITH_NUMBERS = 20  # beyond, the cells of the heat map are too small for a number
_MOST_DRIFT = 24
_NUM_AGE_BINS = 20


def _legend_beside(axes: Axes) -> None:
    """Put the legend outside, where no bar or point can lie under it."""
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _parts(report: AuditReport) -> list[str]:
    return [counts.part for counts in report.parts]


def _prevalence_by_part(report: AuditReport) -> dict[str, list[float]]:
    """Return each label's share of positives, in the labels' order, for each part; NaN where unknown."""
    shares = {
        (counts.part, counts.label): np.nan if counts.prevalence is None else counts.prevalence
        for counts in report.labels
    }
    return {part: [shares[part, label] for label in report.data.labels] for part in _parts(report)}


def _grouped_bars(axes: Axes, names: Sequence[str], values: dict[str, list[float]]) -> None:
    height = 0.8 / len(values)
    for number, (part, lengths) in enumerate(values.items()):
        places = np.arange(len(names)) + (number - (len(values) - 1) / 2) * height
        axes.barh(places, lengths, height, label=part, color=_PART_COLOURS[part], hatch=_HATCHES[part],
                  edgecolor="white", linewidth=0.5)  # fmt: skip
    axes.set_yticks(range(len(names)), list(names))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    if len(values) > 1:
        _legend_beside(axes)


def label_frequencies(report: AuditReport) -> bytes:
    """Draw the share of positives among the known, by label and part."""
    labels = report.data.labels
    with styled():
        figure = new_figure(8, 1.2 + 0.16 * len(labels) * (1 + len(_parts(report))))
        axes = figure.subplots()
        shares = _prevalence_by_part(report)
        _grouped_bars(axes, labels, {part: [100 * v for v in values] for part, values in shares.items()})
        axes.set_xlabel("positives among the known (%)")
        return png(figure, _DPI)


def loss_contributions(prevalence: Sequence[float]) -> dict[str, Numbers]:
    """Return the mean weight of a known target's positive and negative term, without and with weighting.

    A label with the share p of positives gives the plain loss p positive and 1 - p negative terms per known
    target. ``cxrlab.losses.WeightedBCE`` multiplies them with 1 - p and p, so that both give p (1 - p).

    Args:
        prevalence: Share of positives by label, shape ``(L,)``.

    Returns:
        ``plain_positive``, ``plain_negative``, ``weighted_positive``, ``weighted_negative``, each ``(L,)``.

    References:
        Rajpurkar et al., CheXNet, arXiv:1711.05225, equation 2.
    """
    share = np.asarray(prevalence, dtype=np.float64)
    return {
        "plain_positive": share,
        "plain_negative": 1 - share,
        "weighted_positive": (1 - share) * share,
        "weighted_negative": share * (1 - share),
    }


def loss_balance(report: AuditReport) -> bytes:
    """Draw what positives and negatives contribute to the loss before and after weighting, by label."""
    labels, part = report.data.labels, _parts(report)[0]
    weights = loss_contributions(_prevalence_by_part(report)[part])
    with styled():
        figure = new_figure(10, 1.4 + 0.3 * len(labels))
        axes = figure.subplots(1, 2, sharey=True)
        for panel, kind, title in zip(axes, ("plain", "weighted"), ("bce", "weighted_bce"), strict=True):
            for number, sign in enumerate(("positive", "negative")):
                places = np.arange(len(labels)) + (number - 0.5) * 0.38
                panel.barh(places, weights[f"{kind}_{sign}"], 0.38, label=f"{sign} term",
                           color=COLOURS[1 - number], hatch="" if number else "//", edgecolor="white",
                           linewidth=0.5)  # fmt: skip
            panel.set_title(f"loss={title}")
            panel.set_xlabel(f"mean weight per known target in {part}" if part != "all" else "mean weight")
            panel.set_xlim(0, None)
            panel.grid(axis="y", visible=False)
        axes[0].set_yticks(range(len(labels)), labels)
        axes[0].invert_yaxis()
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
        )
        return png(figure, _DPI)


def cooccurrence(report: AuditReport) -> bytes:
    """Draw, as a heat map, which share of the images with one label has another one too."""
    labels = report.cooccurrence.labels
    counts = np.array(report.cooccurrence.counts, dtype=float)
    share = 100 * counts / np.maximum(np.diag(counts)[:, None], 1)
    np.fill_diagonal(share, np.nan)
    with styled():
        side = 3.2 + 0.42 * len(labels)
        figure = new_figure(side + 0.8, side - 0.4)
        axes = figure.subplots()
        image = axes.imshow(share, cmap=SEQUENTIAL, vmin=0, vmax=max(float(np.nanmax(share, initial=1)), 1))
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(labels)), labels)
        axes.set_xlabel("… has this one too (%)")
        axes.set_ylabel("an image with this label …")
        if len(labels) <= _MOST_LABELS_WITH_NUMBERS:
            _numbers(axes, share)
        axes.grid(visible=False)
        figure.colorbar(image, ax=axes, shrink=0.7)
        return png(figure, _DPI)


def _numbers(axes: Axes, share: Numbers) -> None:
    highest = np.nanmax(share, initial=1)
    for (row, column), value in np.ndenumerate(share):
        if np.isfinite(value):
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8,
                      color="white" if value > 0.6 * highest else "black")  # fmt: skip


def images_per_patient(report: AuditReport) -> bytes:
    """Draw the share of each part's patients by their number of images."""
    rows = {entry.part: entry.patients for entry in report.images_per_patient}
    names = sorted(
        {name for counts in rows.values() for name in counts}, key=lambda name: int(name.rstrip("+"))
    )
    with styled():
        figure = new_figure(8, 3.2)
        axes = figure.subplots()
        width = 0.8 / len(rows)
        for number, (part, counts) in enumerate(rows.items()):
            total = sum(counts.values())
            places = np.arange(len(names)) + (number - (len(rows) - 1) / 2) * width
            shares = [100 * counts.get(name, 0) / total for name in names]
            axes.bar(places, shares, width, label=part,
                     color=_PART_COLOURS[part], hatch=_HATCHES[part],
                     edgecolor="white", linewidth=0.5)  # fmt: skip
        axes.set_xticks(range(len(names)), names)
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("images of a patient")
        axes.set_ylabel("patients (%)")
        if len(rows) > 1:
            _legend_beside(axes)
        return png(figure, _DPI)


def drift(report: AuditReport) -> bytes | None:
    """Draw the standardised mean differences between the parts, the largest first; None for one part."""
    known = [(entry, entry.smd) for entry in report.drift if entry.smd is not None]
    largest: dict[str, float] = {}
    for entry, smd in known:
        largest[entry.variable] = max(largest.get(entry.variable, 0.0), abs(smd))
    names = sorted(largest, key=lambda name: -largest[name])[:_MOST_DRIFT]
    if not names:
        return None
    pairs = list(dict.fromkeys((entry.reference, entry.part) for entry, _ in known))
    with styled():
        figure = new_figure(8, 1.4 + 0.25 * len(names))
        axes = figure.subplots()
        for number, (pair, marker) in enumerate(zip(pairs, "osD", strict=False)):
            for entry, smd in known:
                if (entry.reference, entry.part) == pair and entry.variable in names:
                    axes.plot(smd, names.index(entry.variable), marker, color=COLOURS[number],
                              fillstyle="full" if entry.flagged else "none")  # fmt: skip
            axes.plot([], [], marker, color=COLOURS[number], label=f"{pair[0]} to {pair[1]}")
        axes.axvspan(-LARGEST, LARGEST, color="0.92", zorder=0)
        axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel(f"standardised mean difference (grey: below {LARGEST:g}; filled: beyond chance too)")
        _legend_beside(axes)
        return png(figure, _DPI)


def ages(years: dict[str, Numbers]) -> bytes:
    """Draw the distribution of the ages, by part.

    Args:
        years: The known ages of each part, shape ``(n,)`` each, at least one of them not empty.
    """
    everything = np.concatenate(list(years.values()))
    edges = np.linspace(everything.min(), max(everything.max(), everything.min() + 1), _NUM_AGE_BINS + 1)
    with styled():
        figure = new_figure(8, 3.2)
        axes = figure.subplots()
        for part, line in zip(years, ("-", "--", ":"), strict=False):
            counts = np.histogram(years[part], edges)[0]
            axes.stairs(100 * counts / max(counts.sum(), 1), edges, label=part, color=_PART_COLOURS[part],
                        linestyle=line, linewidth=2)  # fmt: skip
        axes.set_xlabel("age (years)")
        axes.set_ylabel("images (%)")
        if len(years) > 1:
            _legend_beside(axes)
        return png(figure, _DPI)
