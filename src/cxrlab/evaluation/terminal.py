"""An evaluation, or a comparison, in a few lines for the terminal."""

import pandas as pd

from cxrlab.evaluation.out_of_fold import WITHIN_FOLDS
from cxrlab.evaluation.results import ComparisonResult, EvaluationResult
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.registry import METRICS

_SHOWN = ("auroc", "average_precision", "sensitivity", "specificity")


def interval(estimate: Estimate) -> str:
    """Return an estimate with its interval.

    Example:
        >>> interval(Estimate(0.98765, 0.971, 0.996))
        '0.988 (0.971-0.996)'
        >>> interval(Estimate(None))
        '-'
    """
    if estimate.value is None:
        return "-"
    if estimate.low is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f}-{estimate.high:.3f})"


def terminal_table(result: EvaluationResult) -> str:
    """Return the main metrics by label with their intervals, the macro mean, and what weakens them."""
    columns = {METRICS[name].title: name for name in _SHOWN}
    if result.out_of_fold is not None:
        columns = {"AUROC within folds": WITHIN_FOLDS, "AUROC, pooled": "auroc"} | {
            title: name for title, name in columns.items() if name != "auroc"
        }
    columns |= {metric.title: metric.name for metric in METRICS.added if metric.name in result.macro}
    rows = {
        label: {
            "positives": f"{result.counts[label].positives} of {result.counts[label].images}",
            **{title: interval(metrics[name]) for title, name in columns.items()},
        }
        for label, metrics in result.labels.items()
    }
    if len(rows) > 1:
        macro = {title: interval(result.macro[name]) for title, name in columns.items()}
        rows[f"macro mean of {result.num_macro_labels}"] = {"positives": "", **macro}
    table = pd.DataFrame(rows).T
    shown = table.loc[:, (table != "-").any(axis=0)].to_string()
    heading = f"In brackets {result.interval.level:.0%} intervals, by {result.interval.unit}."
    return "\n".join([shown, heading, *(f"  Note: {caveat.message}" for caveat in result.flags)])


def leaderboard(result: ComparisonResult) -> str:
    """Return the models of a comparison, best first, and what the paired tests say of them."""
    within = " within folds" if result.num_folds else ""
    pooled = [model.pooled_macro_auroc for model in result.models]
    table = pd.DataFrame(
        {
            f"macro AUROC{within}": [interval(model.macro_auroc) for model in result.models],
            **({"pooled": [interval(auroc or Estimate(None)) for auroc in pooled]} if within else {}),
            "macro average precision": [interval(model.macro_average_precision) for model in result.models],
            **{
                f"macro {METRICS[name].title}": [interval(model.metrics[name]) for model in result.models]
                for name in result.models[0].metrics
            },
        },
        index=[model.name for model in result.models],
    )
    pairs = [f"  {' against '.join(pair.models)}: {pair.description}" for pair in result.pairs]
    pairs += [
        f"  {' against '.join(pair.models)}, {METRICS[name].title}: {difference.description}"
        for pair in result.pairs
        for name, difference in pair.metrics.items()
    ]
    pairs += [
        f"  {' against '.join(test.models)}, non-inferiority: {test.description}"
        for pair in result.pairs
        for test in pair.non_inferiority
    ]
    notes = [f"  Note: {caveat.message}" for caveat in result.flags]
    return "\n".join([table.to_string(), *pairs, *notes])
