"""What the checks of heatmaps found, ready for a template: of an evaluation's page, or of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from cxrlab.explain.case_bootstrap import MACRO
from cxrlab.explain.pointing_check import RANDOM
from cxrlab.report import explanation_tables
from cxrlab.report.explanation_figures import DESCRIPTIONS
from cxrlab.report.formats import counted, interval, level, percent
from cxrlab.report.gallery import Shown, embedded
from cxrlab.report.pictures import inline
from cxrlab.report.redaction import Redaction
from cxrlab.report.subject import Panel

Numbers = dict[str, Any]

_MISSING = {"mean": "the image's mean grey", "blur": "the blurred image", "black": "black"}


def section(
    numbers: Numbers, drawn: Mapping[str, Figure], examples: Sequence[Panel], redaction: Redaction
) -> dict[str, Any]:
    """Return what ``explanation_parts.html.jinja`` needs.

    Args:
        numbers: As in ``explanation.json``.
        drawn: Figures as of :func:`cxrlab.report.explanation_figures.explanation_figures`.
        examples: Of what was flagged as a possible shortcut; none on a page without images.
        redaction: Takes names of images and files out.
    """
    return {
        "flags": [redaction.text(flag["message"]) for flag in numbers["flags"]],
        "headline": headline(numbers),
        "protocol": protocol(numbers),
        "figures": inline(drawn, DESCRIPTIONS),
        "pointing": explanation_tables.pointing_table(numbers),
        "differences": explanation_tables.difference_table(numbers),
        "sizes": explanation_tables.size_table(numbers),
        "overlaps": explanation_tables.overlap_tables(numbers),
        "randomization": _randomization(numbers),
        "faithfulness": explanation_tables.faithfulness_table(numbers),
        "faithfulness_of": _sample(numbers["faithfulness"]),
        "missing": _MISSING[numbers["settings"]["baseline"]],
        "agreement": explanation_tables.agreement_table(numbers),
        "shortcuts": explanation_tables.shortcut_table(numbers),
        "shortcuts_of": _regions(numbers),
        "examples": [_example(panel) for panel in examples],
    }


def headline(numbers: Numbers) -> str:
    """Return in a sentence whether the first method points; without boxes, that nobody can say."""
    method, name = next(iter(numbers["methods"].items()))
    pointing = numbers["pointing"]
    if not pointing["cases"]:
        return (
            "No boxes are known here, so nobody can say whether the heatmaps point at the findings. What can "
            "be said without boxes: whether they depend on the model, and whether they lie on the lungs."
        )
    found = pointing["findings"][MACRO]
    values = {source: interval(one["pointing"], 2) for source, one in found.items()}
    words = pointing["differences"][method]["words"][MACRO]
    of = f" (mean of {len(pointing['cases'])} findings)" if len(pointing["cases"]) > 1 else ""
    return (
        f"{name} points at the finding in a share of {values[method]} of the cases{of}; a map of where boxes "
        f"usually are, which never sees the image, in {values['box_frequency']}; the same method on networks "
        f"with random weights in {values[RANDOM + method]}; the image centre in {values['image_centre']}; a "
        f"random point in {values['uniform_chance']}. {name} is {words}."
    )


def protocol(numbers: Numbers) -> str:
    """Return how pointing and overlap were measured; nothing where there are no boxes."""
    pointing = numbers["pointing"]
    if not pointing["cases"]:
        return ""
    cases = sum(one["cases"] for one in pointing["cases"].values())
    tolerance = pointing["tolerance"]
    within = f", or no farther from it than {percent(tolerance)} of the image's side" if tolerance else ""
    thresholds = pointing["thresholds"]
    chosen = (
        f"on {counted(thresholds['cases'], 'case')} of the validation part"
        if thresholds["on"] == "validation"
        else f"on the boxes of other patients, in {thresholds['folds']} folds"
    )
    coverage = level(numbers["interval"]["level"])
    return (
        f"{counted(cases, 'case')}: every image with a box of a finding, whatever the network says of it. On "
        "a grid of 256 by 256 cells, of which a box covers each that it touches, a heatmap's hottest cell "
        f"must lie in a box{within}. Its region is what lies at or above a share of its maximum that was "
        f"chosen {chosen}, by the mean IoU. The box-frequency map sums the boxes that other patients have of "
        "the finding; the cells from half its maximum on are its region, as a box of the mean size is that "
        f"of the image centre. In small print: {coverage} intervals from resampling patients."
    )


def _randomization(numbers: Numbers) -> str:
    found = numbers["randomization"]
    ends = ", ".join(
        f"{numbers['methods'][method]} {interval(one['rank_correlation'][-1], 2)}"
        for method, one in found["methods"].items()
    )
    return (
        f"{_sample(found)}, mean of {counted(found['networks'], 'network')} with random "
        f"weights. Rank correlation once nothing learnt is left: {ends}."
    )


def _sample(found: Numbers) -> str:
    """Return of what a check was made: where a label has no known positive, any image was taken."""
    cases, positives = found["cases"], found.get("positives", found["cases"])
    if positives == cases:
        return counted(cases, "positive")
    return f"{counted(cases, 'case')}, {positives or 'none'} of them known to be positive"


def _regions(numbers: Numbers) -> str:
    shortcuts = numbers["shortcuts"]
    if shortcuts["areas"]["outside"] is None:
        return (
            f"{_sample(shortcuts)}. Two lungs were found in {percent(shortcuts['regions_found'], 0)} of "
            "them, too few to say what lies outside: are these frontal radiographs of the chest?"
        )
    return (
        f"{_sample(shortcuts)}. The lungs' bounding region was found by thresholding in "
        f"{percent(shortcuts['regions_found'], 0)} of them; the others got the usual place. It is rough: of "
        "synthetic radiographs, whose lungs are known, the intersection over union is 0.92 in the median."
    )


def _example(panel: Panel) -> Shown:
    truth = {1.0: "present", 0.0: "absent"}.get(panel.target, "not known")
    return Shown(
        embedded(panel.jpeg), f"{panel.finding}: {truth}, predicted {panel.probability:.2f}.", panel.image
    )
