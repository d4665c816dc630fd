"""An evaluation in a few lines for the terminal."""

from typing import Any

import pandas as pd

_COLUMNS = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}


def interval(estimate: dict[str, Any]) -> str:
    """Return an estimate with its interval.

    Example:
        >>> interval({"value": 0.98765, "low": 0.971, "high": 0.996})
        '0.988 (0.971-0.996)'
        >>> interval({"value": None, "low": None, "high": None})
        '-'
    """
    if estimate["value"] is None:
        return "-"
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f}-{estimate['high']:.3f})"


def terminal_table(numbers: dict[str, Any]) -> str:
    """Return the main metrics by label with their intervals, the macro mean, and what weakens them."""
    rows = {
        label: {
            "positives": f"{numbers['counts'][label]['positives']} of {numbers['counts'][label]['images']}",
            **{name: interval(metrics[key]) for key, name in _COLUMNS.items()},
        }
        for label, metrics in numbers["labels"].items()
    }
    if len(rows) > 1:
        macro = {name: interval(numbers["macro"][key]) for key, name in _COLUMNS.items()}
        rows[f"macro mean of {numbers['num_macro_labels']}"] = {"positives": "", **macro}
    table = pd.DataFrame(rows).T
    shown = table.loc[:, (table != "-").any(axis=0)].to_string()
    unit, level = numbers["interval"]["unit"], numbers["interval"]["level"]
    heading = f"In brackets {level:.0%} intervals, by the {unit} bootstrap."
    return "\n".join([shown, heading, *(f"  Note: {one['message']}" for one in numbers["flags"])])


def leaderboard(numbers: dict[str, Any]) -> str:
    """Return the models of a comparison, best first, and what the paired tests say of them."""
    table = pd.DataFrame(
        {
            "macro AUROC": [interval(model["macro_auroc"]) for model in numbers["models"]],
            "macro average precision": [
                interval(model["macro_average_precision"]) for model in numbers["models"]
            ],
        },
        index=[model["name"] for model in numbers["models"]],
    )
    words = [f"  {' against '.join(pair['models'])}: {pair['words']}" for pair in numbers["pairs"]]
    notes = [f"  Note: {one['message']}" for one in numbers["flags"]]
    return "\n".join([table.to_string(), *words, *notes])
