"""The figure of another data set beside the run's own."""

from matplotlib.figure import Figure

from cxrlab.evaluation.external_comparison import ExternalComparison
from cxrlab.report.figures.style import COLOURS, legend, new_figure, points, shown, styled
from cxrlab.report.formatting import level


def external(comparison: ExternalComparison, coverage: float) -> Figure | None:
    """Draw the AUROC of each label on both data sets; None for one label, or where none is known of both."""
    known = {
        label: row.metrics["auroc"]
        for label, row in comparison.labels.items()
        if "auroc" in row.metrics and row.metrics["auroc"].difference.value is not None
    }
    if len(known) < 2:
        return None
    order = sorted(known, key=lambda label: -(known[label].own.value or 0.0))
    with styled():
        figure = new_figure(7.2, 1.4 + 0.42 * len(order))
        axes = figure.subplots()
        own = points(
            axes,
            [known[label].own for label in order],
            [place - 0.14 for place in range(len(order))],
            color=COLOURS[0],
        )
        here = points(
            axes, [known[label].here for label in order], [place + 0.14 for place in range(len(order))],
            color=COLOURS[1], fmt="s",
        )  # fmt: skip
        axes.set_yticks(range(len(order)), [shown(label, 32, 2) for label in order])
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.set_xlim(min(0.5, axes.get_xlim()[0]), max(1.0, axes.get_xlim()[1]))
        figure.supxlabel(f"AUROC ({level(coverage)} interval); 0.5 is chance")
        axes.grid(axis="y", visible=False)
        legend(figure, [(own, "the run's own data"), (here, "these data")], loc="outside upper left", ncols=2)
        return figure
