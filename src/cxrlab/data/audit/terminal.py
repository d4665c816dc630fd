"""The audit in a few lines for the terminal."""

from collections.abc import Sequence

import pandas as pd

from cxrlab.data.audit.finding import Finding, counted
from cxrlab.data.audit.run_audit import AuditReport

_NUM_SHOWN = 3
_MARKS = {"fault": "FAULT  ", "warning": "warning", "note": "note   "}


def summary(findings: Sequence[Finding]) -> str:
    """Return one to five lines: how many faults, warnings and notes, the three worst, and how many more.

    Args:
        findings: Faults first.

    Example:
        >>> summary([])
        'Audit: no fault, no warning.'
    """
    severities = [finding.severity for finding in findings]
    numbers = {name: severities.count(name) for name in ("fault", "warning", "note")}
    if not numbers["fault"] and not numbers["warning"]:
        notes = f" {counted(numbers['note'], 'note')} in audit.json." if numbers["note"] else ""
        return f"Audit: no fault, no warning.{notes}"
    counts = [counted(number, name) for name, number in numbers.items() if number]
    worst = [finding for finding in findings if finding.severity != "note"][:_NUM_SHOWN]
    lines = [_line(finding) for finding in worst]
    if len(findings) > len(worst):
        lines.append(f"  ... and {len(findings) - len(worst)} more: audit.json")
    return "\n".join([f"Audit: {', '.join(counts)}; see audit.json.", *lines])


def whole(findings: Sequence[Finding]) -> str:
    """Return how many faults, warnings and notes, and all of them, one a line.

    Args:
        findings: Faults first.

    Example:
        >>> print(whole([Finding("empty", "note", "2 images are even.", 2)]))
        Audit: no fault, no warning. 1 note in audit.json.
          note    2 images are even.
    """
    return "\n".join([summary(findings).splitlines()[0], *map(_line, findings)])


def _line(finding: Finding) -> str:
    return f"  {_MARKS[finding.severity]} {finding.message}"


def terminal_table(report: AuditReport) -> str:
    """Return the counts by part, the prevalence of each label by part, and all findings, one a line."""
    parts = pd.DataFrame(report.parts).set_index("part")
    parts["images/patient"] = [f"{counts.mean:.2f}" for counts in report.images_per_patient]
    labels = pd.DataFrame(report.labels)
    shares = labels.pivot(index="label", columns="part", values="prevalence").astype(float)
    shares = shares.loc[report.data.labels, list(parts.index)]
    if len(shares) > 1:
        nothing = {entry.part: entry.share for entry in report.without_label}
        shares.loc["(none of them)"] = pd.Series(nothing, dtype=float)
    text = shares.map(lambda share: "-" if pd.isna(share) else f"{share:.2%}")
    text.index.name = text.columns.name = None
    findings = [f"{_MARKS[finding.severity]} {finding.message}" for finding in report.findings]
    blocks = [parts.rename_axis(None).T.to_string(), "share of positives", text.to_string()]
    return "\n".join([*blocks, "", *(findings or ["Nothing was found."])])
