"""All checks of heatmaps in one: the numbers of explanation.json, and what to beware of in words."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from cxrlab.errors import ConfigError
from cxrlab.heatmaps.checks.case_bootstrap import MACRO
from cxrlab.heatmaps.checks.pointing import RANDOM, check_pointing
from cxrlab.heatmaps.checks.randomization import RANDOM_ORDER, check_model
from cxrlab.heatmaps.checks.shortcuts import check_shortcuts
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.methods.names import METHOD_NAMES
from cxrlab.heatmaps.task import ExplainTask

Numbers = dict[str, Any]

_STILL_ALIKE = 0.5
"""Rank correlation with the trained network's maps from which random weights seem to make no difference."""
_MANY_EMPTY = 0.1
"""Share of empty heatmaps that a reader is told of."""


def check_heatmaps(explain_task: ExplainTask) -> tuple[Numbers, list[Pair]]:
    """Run every check.

    Args:
        explain_task: What is explained; it must hold at least one image.

    Returns:
        The numbers of ``explanation.json``, and the cases, as pairs of a row and an output, that show best
        what the check of shortcuts flags.

    Raises:
        ConfigError: If there is no image, or a method does not fit the network.
    """
    if not len(explain_task.cases):
        raise ConfigError("There is no image to explain.")
    settings = explain_task.settings
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    pointing = check_pointing(explain_task)
    seconds["pointing"] = time.perf_counter() - start
    model = check_model(explain_task)
    seconds["model"] = time.perf_counter() - start - seconds["pointing"]
    shortcuts, examples = check_shortcuts(explain_task)
    seconds["everything"] = time.perf_counter() - start
    numbers: Numbers = {
        "methods": {method: METHOD_NAMES[method] for method in settings.methods},
        "labels": [explain_task.names[label] for label in explain_task.labels],
        "images": int(explain_task.cases["row"].nunique()),
        "interval": {"level": settings.level, "resamples": settings.num_resamples},
        "settings": {name: _plain(value) for name, value in asdict(settings).items()},
        "pointing": pointing,
        **model,
        "shortcuts": shortcuts,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    numbers["flags"] = list(flags(numbers))
    return numbers, examples


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else list(value)


def flags(numbers: Numbers) -> Iterator[dict[str, str]]:
    """Yield what a reader of the heatmaps must beware of: ``kind`` and ``message``.

    Args:
        numbers: As in ``explanation.json``.
    """
    for method, name in numbers["methods"].items():
        for kind, message in (
            ("empty", _of_empty(numbers, method)),
            ("pointing", _of_pointing(numbers, method)),
            ("random_pointing", _of_random_pointing(numbers, method)),
            ("randomization", _of_randomization(numbers, method)),
            ("random_empty", _of_random_empty(numbers, method)),
            ("faithfulness", _of_faithfulness(numbers, method)),
        ):
            if message:
                yield {"kind": kind, "message": f"{name} {message}"}
    for one in numbers["shortcuts"]["unlike"]:
        yield {"kind": "shortcut", "message": _of_shortcut(numbers, one["method"], one["zone"])}
    without = numbers["pointing"]["without_boxes"]
    if without and numbers["pointing"]["cases"]:
        names = ", ".join(without)
        yield {
            "kind": "without_boxes",
            "message": f"There are no boxes of {names}: not checked where it points.",
        }
    unusable = numbers["pointing"]["unusable"]
    if unusable["boxes"]:
        boxes = "1 box" if unusable["boxes"] == 1 else f"{unusable['boxes']} boxes"
        message = f"{boxes} could not be used, such as {'; '.join(unusable['such_as'][:2])}."
        yield {"kind": "unusable_boxes", "message": message}


def _of_pointing(numbers: Numbers, method: str) -> str:
    pointing = numbers["pointing"]
    if not pointing["cases"]:
        return ""
    words = pointing["differences"][method]["words"]
    if words[MACRO].startswith("better"):
        behind = [name for name in pointing["cases"] if not words[name].startswith("better")]
        names = ", ".join(behind)
        return (
            f"points better than the box-frequency map on average, but that is not shown for {names}."
            if behind
            else ""
        )
    rows = [pointing["findings"][name] for name in pointing["cases"]]
    pairs = [[row[source]["pointing"]["value"] for source in (method, "box_frequency")] for row in rows]
    compared = [(own, prior) for own, prior in pairs if prior is not None]
    if not compared:
        return f"could not be compared with a box-frequency map; {words[MACRO]}."
    own, prior = (sum(values) / len(compared) for values in zip(*compared, strict=True))
    of = " on average over the findings" if len(compared) > 1 else ""
    return (
        f"is {words[MACRO]}: it points at the finding in {own:.1%} of the cases{of}, the map in {prior:.1%}."
    )


def _of_random_pointing(numbers: Numbers, method: str) -> str:
    pointing = numbers["pointing"]
    if not pointing["cases"]:
        return ""
    words = pointing["differences"][method]["random_words"][MACRO]
    if words.startswith("better"):
        return ""
    found = pointing["findings"][MACRO]
    own, random = (found[name]["pointing"]["value"] for name in (method, RANDOM + method))
    of = " on average over the findings" if len(pointing["cases"]) > 1 else ""
    return (
        f"is {words}: it points at the finding in {own:.1%} of the cases{of}, with random weights in "
        f"{random:.1%}."
    )


def _of_empty(numbers: Numbers, method: str) -> str:
    """Tell of empty maps: of boxed findings, and where there are none, of the sample of positives."""
    pointing = numbers["pointing"]
    share = numbers["randomization"]["methods"][method]["empty"]
    if pointing["cases"]:
        share = pointing["empty"][method] / sum(one["cases"] for one in pointing["cases"].values())
    if share <= _MANY_EMPTY:
        return ""
    counted = "; they count as not pointing at it" if pointing["cases"] else ""
    return f"is empty in {share:.0%} of the cases: nothing in these speaks for the finding{counted}."


def _of_random_empty(numbers: Numbers, method: str) -> str:
    share = numbers["randomization"]["methods"][method]["random_empty"]
    if share <= _MANY_EMPTY:
        return ""
    return (
        f"is empty in {share:.0%} of the cases on networks with random weights: rank correlation and SSIM "
        "are of the others only, and where they should point, an empty map counts as a miss."
    )


def _of_randomization(numbers: Numbers, method: str) -> str:
    last = numbers["randomization"]["methods"][method]["rank_correlation"][-1]["value"]
    if last is None or last < _STILL_ALIKE:
        return ""
    return (
        "hardly depends on what was learnt: with random weights in every layer its maps still resemble those "
        f"of the trained network (rank correlation {last:.2f})."
    )


def _of_faithfulness(numbers: Numbers, method: str) -> str:
    found = numbers["faithfulness"]["methods"][method]
    sides = {"deletion": ("high", -1), "insertion": ("low", 1)}
    failed = [
        kind
        for kind, (end, sign) in sides.items()
        if found[kind]["difference"][end] is None or sign * found[kind]["difference"][end] <= 0
    ]
    if not failed:
        return ""
    return (
        f"is not shown to tell where the score comes from better than a {RANDOM_ORDER} of pixels "
        f"({', '.join(failed)})."
    )


def _of_shortcut(numbers: Numbers, method: str, zone: str) -> str:
    shortcuts = numbers["shortcuts"]
    share, area = shortcuts["methods"][method][MACRO][zone]["value"], shortcuts["areas"][zone]
    where = {
        "outside": "outside the lungs' bounding region",
        "border": "at the image's border",
        "corners": "in the corners, where text marks sit",
    }[zone]
    return (
        f"{share:.0%} of the heat of {numbers['methods'][method]} lies {where}, which is {area:.0%} of the "
        "image: does the network use what is no sign of disease?"
    )
