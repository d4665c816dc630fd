"""The audit in a few lines for the terminal."""

from typing import Any

import pandas as pd

from cxrlab.data.audit.evidence import counted

_NUM_TOLD = 3
_MARKS = {"fault": "FAULT  ", "warning": "warning", "note": "note   "}


def verdict(report: dict[str, Any]) -> str:
    """Return one to four lines: how many faults, warnings and notes, and the three worst of them.

    Example:
        >>> verdict({"findings": []})
        'Audit: no fault, no warning.'
    """
    findings = report["findings"]
    severities = [found["severity"] for found in findings]
    numbers = {name: severities.count(name) for name in _MARKS}
    told = [counted(number, name) for name, number in numbers.items() if number]
    if not numbers["fault"] and not numbers["warning"]:
        notes = f" {counted(numbers['note'], 'note')} in audit.json." if numbers["note"] else ""
        return f"Audit: no fault, no warning.{notes}"
    worst = [found for found in findings if found["severity"] != "note"][:_NUM_TOLD]
    lines = [f"  {_MARKS[found['severity']]} {found['message']}" for found in worst]
    return "\n".join([f"Audit: {', '.join(told)}; see audit.json.", *lines])


def terminal_table(report: dict[str, Any]) -> str:
    """Return the counts by part, the prevalence of each label by part, and all findings, one a line."""
    parts = pd.DataFrame(report["parts"]).set_index("part")
    parts["images/patient"] = [f"{row['mean']:.2f}" for row in report["images_per_patient"]]
    labels = pd.DataFrame(report["labels"])
    shares = labels.pivot(index="label", columns="part", values="prevalence").astype(float)
    shares = shares.loc[report["data"]["labels"], list(parts.index)]
    if len(shares) > 1:
        nothing = {row["part"]: row["share"] for row in report["without_label"]}
        shares.loc["(none of them)"] = pd.Series(nothing, dtype=float)
    text = shares.map(lambda share: "-" if pd.isna(share) else f"{share:.2%}")
    text.index.name = text.columns.name = None
    findings = [f"{_MARKS[found['severity']]} {found['message']}" for found in report["findings"]]
    blocks = [parts.rename_axis(None).T.to_string(), "share of positives", text.to_string()]
    return "\n".join([*blocks, "", *(findings or ["Nothing was found."])])
