"""Which heatmaps a page shows: the worst errors of each finding beside its best hits, within a budget."""

import base64
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

from cxrlab.report.formats import number
from cxrlab.report.subject import Panel

_PER_KIND = 2  # errors, and hits, of each finding
_MARKUP = 400  # bytes around a picture


class Shown(NamedTuple):
    """A picture as the template takes it."""

    source: str
    words: str
    image: str


class Group(NamedTuple):
    """The pictures of a finding, the most telling first."""

    finding: str
    errors: list[Shown]
    hits: list[Shown]


def gallery(panels: Sequence[Panel], budget: int) -> tuple[list[Group], int]:
    """Choose pictures, and return them by finding with how many were left out for want of room.

    Each finding's most confident errors (false alarms and misses in turn) and its surest hits are taken one
    rank after another, so that a small budget leaves every finding some.

    Args:
        panels: All there are.
        budget: Bytes for them in the page.
    """
    chosen = {finding: _ranked(panels, finding) for finding in dict.fromkeys(one.finding for one in panels)}
    shown: set[int] = set()
    for panel in chain.from_iterable(zip_longest(*chosen.values())):
        if panel is not None and (cost := 4 * len(panel.jpeg) // 3 + _MARKUP) <= budget:
            budget -= cost
            shown.add(id(panel))
    groups = [
        _group(finding, [one for one in ranked if id(one) in shown]) for finding, ranked in chosen.items()
    ]
    num_chosen = sum(map(len, chosen.values()))
    return [group for group in groups if group.errors or group.hits], num_chosen - len(shown)


def _group(finding: str, panels: Sequence[Panel]) -> Group:
    errors = [_shown(one) for one in panels if one.outcome != "TP"]
    return Group(finding, errors, [_shown(one) for one in panels if one.outcome == "TP"])


def _ranked(panels: Sequence[Panel], finding: str) -> list[Panel]:
    """Return errors and hits of a finding in turn, the most telling first."""
    of = {
        outcome: [one for one in panels if one.finding == finding and one.outcome == outcome]
        for outcome in ("FP", "FN", "TP")
    }
    alarms = sorted(of["FP"], key=lambda one: -one.probability)
    misses = sorted(of["FN"], key=lambda one: one.probability)
    hits = sorted(of["TP"], key=lambda one: -one.probability)[:_PER_KIND]
    errors = _in_turn(alarms, misses)[:_PER_KIND]
    return _in_turn(errors, hits)


def _in_turn(first: Sequence[Panel], second: Sequence[Panel]) -> list[Panel]:
    return [one for pair in zip_longest(first, second) for one in pair if one is not None]


def _shown(panel: Panel) -> Shown:
    outcome = {"FP": "False alarm", "FN": "Miss", "TP": "Hit"}[panel.outcome]
    truth = "present" if panel.target == 1 else "absent"
    return Shown(
        source=embedded(panel.jpeg),
        words=f"{outcome}: {truth}, predicted {number(panel.probability, 2)}.",
        image=panel.image,
    )


def embedded(jpeg: bytes) -> str:
    """Return a picture as the source of an element of a page that needs no other file."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
