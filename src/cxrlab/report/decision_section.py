"""The section on net benefit: what acting on the model's probabilities is worth."""

import math
from collections.abc import Mapping

from markupsafe import Markup

from cxrlab.evaluation.decision_curve import DecisionPoint, Decisions, LabelDecisions
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.report.figures.decisions import decision_curves
from cxrlab.report.formatting import interval, level, percent
from cxrlab.report.html import folded_html, paragraph_html, part, table_html
from cxrlab.report.section import PageContext
from cxrlab.report.tables import Cell, Row, Table, estimate_cell

HOW_TO_READ = (
    "Who would act (treat, read at once, call in) from a probability of 10 % on accepts nine needless "
    "actions for one that is needed. Net benefit counts the needed actions and takes off the needless ones "
    "at that price. The model is worth using at thresholds where its curve lies above both acting on "
    "everybody and acting on nobody."
)


def decision_section(context: PageContext) -> Markup | None:
    """Return the decision curves and the table; nothing where no net benefit was computed."""
    decisions = context.result.decisions
    if decisions is None or not decisions.labels:
        return None
    drawn = context.figure(
        "net_benefit",
        decision_curves(context.result),
        alt="Net benefit of each label by threshold probability, beside acting on everybody and on nobody.",
        caption=f"Decision curves, by {decisions.probabilities}. Every panel has axes of its own.",
    )
    tables = []
    if any(found.points for found in decisions.labels.values()):
        tables = [
            table_html(difference_table(decisions)),
            folded_html("Net benefit of the model and of acting on everybody", net_benefit_table(decisions)),
        ]
    sentence = in_words(decisions)
    said = [paragraph_html(sentence)] if sentence else []
    return Markup("\n").join([part("how", HOW_TO_READ), *said, drawn, *tables])


def in_words(decisions: Decisions) -> str:
    """Return whether the model is worth using, at the threshold nearest to each label's prevalence."""
    nearest = {label: _nearest(found) for label, found in decisions.labels.items() if found.points}
    if not nearest:
        return ""
    shown = [label for label, point in nearest.items() if (point.difference.low or 0) > 0]
    if len(nearest) > 1:
        names = f": {', '.join(shown)}" if shown and len(shown) < len(nearest) else ""
        return (
            "At the threshold of the table that is nearest to the prevalence, acting on the model is shown "
            "to be "
            f"worth more than acting on everybody or on nobody for {len(shown)} of {len(nearest)} "
            f"labels{names}."
        )
    (point,) = nearest.values()
    if not shown:
        return (
            f"At a threshold of {level(point.threshold)} acting on the model is not shown to be worth more "
            "than acting on everybody or on nobody."
        )
    return (
        f"At a threshold of {level(point.threshold)} acting on the model is worth "
        f"{interval(_per_1000(point.difference), 1)} findings more per 1,000 images, at no more needless "
        "actions, than acting on everybody or on nobody."
    )


def _nearest(found: LabelDecisions) -> DecisionPoint:
    """Return the point whose threshold is nearest to the prevalence, as ratios go."""
    prevalence = max(found.prevalence, 1e-9)
    return min(found.points, key=lambda point: abs(math.log(point.threshold / prevalence)))


def _points(decisions: Decisions) -> Mapping[str, Mapping[float, DecisionPoint]]:
    return {
        label: {point.threshold: point for point in found.points} for label, found in decisions.labels.items()
    }


def difference_table(decisions: Decisions) -> Table:
    """Return the net benefit of the model minus that of the better of all and none, per 1,000 images."""
    points = _points(decisions)
    thresholds = list(next(iter(points.values())))
    rows = [
        Row(
            label,
            [
                Cell(percent(decisions.labels[label].prevalence)),
                *(estimate_cell(_per_1000(by_threshold[at].difference), 1) for at in thresholds),
            ],
        )
        for label, by_threshold in points.items()
    ]
    caption = (
        "Findings more per 1,000 images that are acted on, at no more needless actions, than by the better "
        "of acting on everybody and on nobody; by the probability from which one would act."
    )
    return Table(["label", "have it", *(f"from {level(at)}" for at in thresholds)], rows, caption)


def net_benefit_table(decisions: Decisions) -> Table:
    """Return the net benefit of the model, and of acting on all images, per 1,000 images."""
    points = _points(decisions)
    thresholds = list(next(iter(points.values())))
    rows = []
    for label, by_threshold in points.items():
        for name, of_point in (("the model", "net_benefit"), ("everybody", "act_on_all")):
            estimates = (getattr(by_threshold[at], of_point) for at in thresholds)
            rows.append(Row(label, [Cell(name), *(estimate_cell(_per_1000(each), 1) for each in estimates)]))
    return Table(
        ["label", "acting on", *(f"from {level(at)}" for at in thresholds)], rows, "", frozenset({1})
    )


def _per_1000(share: Estimate) -> Estimate:
    return Estimate(*(None if end is None else 1000 * end for end in (share.value, share.low, share.high)))
