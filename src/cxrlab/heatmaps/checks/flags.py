"""What a reader of heatmaps must beware of, in sentences made of the results."""

from collections.abc import Callable, Iterator, Mapping

from cxrlab.heatmaps.checks.faithfulness import RANDOM_ORDER
from cxrlab.heatmaps.checks.pointing import RANDOM
from cxrlab.heatmaps.results import (
    ExplanationResult,
    FlaggedZone,
    FlagKind,
    HeatmapFlag,
    LungsResult,
    PointingResult,
    UnusableBoxes,
)
from cxrlab.metrics.bootstrap import MACRO

_STILL_ALIKE = 0.5
"""Rank correlation with the trained network's maps from which random weights seem to make no difference."""

_MANY_EMPTY = 0.1
"""Share of empty heatmaps that a reader is told of."""

_PLACES = {
    "outside": "outside the lungs' bounding region",
    "border": "at the image's border",
    "corners": "in the corners, where text marks sit",
}


def flags(result: ExplanationResult) -> Iterator[HeatmapFlag]:
    """Yield what a reader of the heatmaps must beware of; checks that were not made say nothing."""
    for method, name in result.methods.items():
        for kind, sentence in _SENTENCES.items():
            if message := sentence(result, method):
                yield HeatmapFlag(kind, f"{name} {message}")
    if result.shortcuts is not None:
        for zone in result.shortcuts.unlike:
            yield HeatmapFlag("shortcut", _of_shortcut(result.shortcuts, zone, result.methods))
    if result.pointing is not None:
        yield from _of_boxes(result.pointing)


def _of_boxes(pointing: PointingResult) -> Iterator[HeatmapFlag]:
    if pointing.without_boxes and pointing.cases:
        names = ", ".join(pointing.without_boxes)
        yield HeatmapFlag("without_boxes", f"There are no boxes of {names}: not checked where it points.")
    if pointing.unusable.boxes:
        yield HeatmapFlag("unusable_boxes", unusable_boxes(pointing.unusable))


def unusable_boxes(unusable: UnusableBoxes, *, name_images: bool = True) -> str:
    """Return how many boxes could not be used, and what is wrong with the first ones, which names images."""
    boxes = "1 box" if unusable.boxes == 1 else f"{unusable.boxes} boxes"
    such_as = f", such as {'; '.join(unusable.such_as[:2])}" if name_images else ""
    return f"{boxes} could not be used{such_as}."


def _of_pointing(result: ExplanationResult, method: str) -> str:
    pointing = result.pointing
    if pointing is None or not pointing.cases:
        return ""
    differences = pointing.differences[method].box_frequency
    macro = differences[MACRO]
    if macro.outcome == "better":
        behind = ", ".join(name for name in pointing.cases if differences[name].outcome != "better")
        sentence = "points better than the box-frequency map on average, but that is not shown for"
        return f"{sentence} {behind}." if behind else ""
    rows = [pointing.findings[name] for name in pointing.cases]
    pairs = [[row[source]["pointing"].value for source in (method, "box_frequency")] for row in rows]
    compared = [(own, prior) for own, prior in pairs if own is not None and prior is not None]
    if not compared:
        return f"could not be compared with a box-frequency map; {macro.description}."
    own, prior = (sum(values) / len(compared) for values in zip(*compared, strict=True))
    of = " on average over the findings" if len(compared) > 1 else ""
    return (
        f"is {macro.description}: it points at the finding in {own:.1%} of the cases{of}, the map in "
        f"{prior:.1%}."
    )


def _of_random_pointing(result: ExplanationResult, method: str) -> str:
    pointing = result.pointing
    if pointing is None or not pointing.cases:
        return ""
    macro = pointing.differences[method].random_network[MACRO]
    if macro.outcome == "better":
        return ""
    own, random = (pointing.findings[MACRO][source]["pointing"].value for source in (method, RANDOM + method))
    of = " on average over the findings" if len(pointing.cases) > 1 else ""
    return (
        f"is {macro.description}: it points at the finding in {own:.1%} of the cases{of}, with random "
        f"weights in {random:.1%}."
    )


def _of_empty(result: ExplanationResult, method: str) -> str:
    """Tell of empty maps: of boxed findings, and where there are none, of a sample of positives."""
    pointing, share, counted = result.pointing, 0.0, ""
    if pointing is not None and pointing.cases:
        share = pointing.empty[method] / pointing.num_cases
        counted = "; they count as not pointing at it"
    elif result.randomization is not None:
        share = result.randomization.methods[method].empty
    elif result.shortcuts is not None:
        share = result.shortcuts.empty[method]
    if share <= _MANY_EMPTY:
        return ""
    return f"is empty in {share:.0%} of the cases: nothing in these speaks for the finding{counted}."


def _of_random_empty(result: ExplanationResult, method: str) -> str:
    if result.randomization is None:
        return ""
    share = result.randomization.methods[method].random_empty
    if share <= _MANY_EMPTY:
        return ""
    return (
        f"is empty in {share:.0%} of the cases on networks with random weights: rank correlation and SSIM "
        "are of the others only, and where they should point, an empty map counts as a miss."
    )


def _of_randomization(result: ExplanationResult, method: str) -> str:
    if result.randomization is None:
        return ""
    last = result.randomization.methods[method].rank_correlation[-1].value
    if last is None or last < _STILL_ALIKE:
        return ""
    return (
        "hardly depends on what was learnt: with random weights in every layer its maps still resemble those "
        f"of the trained network (rank correlation {last:.2f})."
    )


def _of_faithfulness(result: ExplanationResult, method: str) -> str:
    if result.faithfulness is None:
        return ""
    curves = result.faithfulness.methods[method]
    deletion, insertion = curves.deletion.difference, curves.insertion.difference
    is_shown = {
        "deletion": deletion is not None and deletion.high is not None and deletion.high < 0,
        "insertion": insertion is not None and insertion.low is not None and insertion.low > 0,
    }
    failed = [kind for kind, shown in is_shown.items() if not shown]
    if not failed:
        return ""
    return (
        f"is not shown to tell where the score comes from better than a {RANDOM_ORDER} of pixels "
        f"({', '.join(failed)})."
    )


def _of_shortcut(shortcuts: LungsResult, flagged: FlaggedZone, names: Mapping[str, str]) -> str:
    share = shortcuts.methods[flagged.method][MACRO][flagged.zone].value
    return (
        f"{share:.0%} of the heat of {names[flagged.method]} lies {_PLACES[flagged.zone]}, which is "
        f"{shortcuts.areas[flagged.zone]:.0%} of the image: does the network use what is no sign of disease?"
    )


_SENTENCES: dict[FlagKind, Callable[[ExplanationResult, str], str]] = {
    "empty": _of_empty,
    "pointing": _of_pointing,
    "random_pointing": _of_random_pointing,
    "randomization": _of_randomization,
    "random_empty": _of_random_empty,
    "faithfulness": _of_faithfulness,
}
