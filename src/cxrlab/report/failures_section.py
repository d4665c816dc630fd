"""The section on failures: where misses and false positives gather, beyond chance."""

from collections.abc import Sequence

from markupsafe import Markup

from cxrlab.evaluation.failures import LEAST_PATIENTS, FailureAnalysis, FailurePattern
from cxrlab.report.formatting import count, counted, p, percent
from cxrlab.report.html import folded_html, paragraph_html, part, table_html
from cxrlab.report.section import PageContext
from cxrlab.report.tables import Cell, Row, Table, estimate_cell

_HOW = (
    "At the threshold, which images with a finding are missed, and which without it are false positives, "
    "more often than the others? Shown is what is beyond chance after Holm's correction for all "
    "comparisons. A pattern is no cause: sicker patients, say, are X-rayed in another view."
)
_NUM_SHOWN = 6  # the others are folded
_NAMES = {
    "brightness": "brightness {} (mean grey value)",
    "contrast": "contrast {} (standard deviation of the grey values)",
    "box": "box {} of the image",
    "co-finding": "{}",
}


def failures_section(context: PageContext) -> Markup | None:
    """Return the section; None where nothing has a threshold."""
    analysis = context.result.failures
    if analysis is None:
        return None
    patterns = analysis.patterns
    parts = [
        part("how", _HOW),
        paragraph_html(summary(analysis)),
        table_html(pattern_table(patterns[:_NUM_SHOWN])) if patterns else "",
        folded_html("Further patterns", _folded(patterns[_NUM_SHOWN:])),
    ]
    return Markup("\n").join(body for body in parts if body)


def summary(analysis: FailureAnalysis) -> str:
    """Return in a few sentences what stands out, and what was compared."""
    if not analysis.num_tests:
        return (
            f"Nothing could be compared: no group and its others have {LEAST_PATIENTS} patients each, with "
            "enough errors among them."
        )
    compared = f"{counted(analysis.num_tests, 'comparison')} (by {', '.join(analysis.compared)})"
    unseen = [name for name in ("brightness", "box") if name not in analysis.compared]
    left_out = (
        f" Not compared, for want of images or boxes: {', '.join(map(_noun, unseen))}." if unseen else ""
    )
    if not analysis.patterns:
        return f"No pattern shown among {compared}; errors need not be spread evenly.{left_out}"
    clearest = pattern_words(analysis.patterns[0])
    number = counted(len(analysis.patterns), "pattern")
    verb = "is" if len(analysis.patterns) == 1 else "are"
    return f"{number} {verb} shown among {compared}. The clearest: {clearest}.{left_out}"


def _noun(by: str) -> str:
    return {"brightness": "brightness and contrast", "box": "size of boxes"}[by]


def pattern_words(pattern: FailurePattern) -> str:
    """Return a pattern in words.

    Example:
        >>> from cxrlab.metrics.bootstrap import Estimate
        >>> rates = Estimate(0.6, 0.5, 0.7), Estimate(0.2, 0.1, 0.3)
        >>> pattern_words(FailurePattern("Edema", "missed", "view", "PA", 40, 30, *rates, 1e-5, 1e-3))
        'Edema is missed in 60.0 % of images with view PA and in 20.0 % of the others'
    """
    what = {"missed": "is missed", "false positive": "is falsely positive"}[pattern.error]
    there, elsewhere = percent(pattern.rate.value), percent(pattern.others.value)
    where = _where(pattern) if pattern.by == "co-finding" else f"with {_where(pattern)}"
    return f"{pattern.label} {what} in {there} of images {where} and in {elsewhere} of the others"


def _where(pattern: FailurePattern) -> str:
    return _NAMES.get(pattern.by, f"{pattern.by} {{}}").format(pattern.group)


def pattern_table(patterns: Sequence[FailurePattern]) -> Table:
    """Return a line for each pattern."""
    rows = [
        Row(
            pattern.label,
            [
                Cell(pattern.error),
                Cell(_where(pattern)),
                estimate_cell(pattern.rate),
                estimate_cell(pattern.others),
                _images(pattern),
                Cell(p(pattern.p_holm)),
            ],
        )
        for pattern in patterns
    ]  # fmt: skip
    columns = ["label", "error", "more often", "share there", "elsewhere", "images there", "p, corrected"]
    return Table(columns, rows, texts=frozenset({1, 2}))


def _images(pattern: FailurePattern) -> Cell:
    patients = "" if pattern.patients is None else f"of {counted(pattern.patients, 'patient')}"
    return Cell(count(pattern.images), patients)


def _folded(patterns: Sequence[FailurePattern]) -> Table | None:
    return pattern_table(patterns) if patterns else None
