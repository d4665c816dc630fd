"""How well heatmaps point, in numbers: by finding and in the mean, beside what never saw the image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cxrlab.explain.box_cases import BoxCases, Floats
from cxrlab.explain.case_bootstrap import MACRO, CaseBootstrap, Estimate
from cxrlab.explain.localization import Pointing

OVERLAP_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Overlaps from which a region counts as a hit, as in the founding paper of the NIH set."""

_ROUNDING = 1e-9

Sources = Mapping[str, Sequence[Pointing]]
"""By name; a source that is several, such as networks of different seeds, counts as their mean."""


def measures(pointing: Pointing) -> tuple[list[str], Floats]:
    """Return the names of K measures, and their values by case, shape ``(P, K)``."""
    columns = {"pointing": pointing.hits, "energy": pointing.energies}
    columns |= {"iou": pointing.ious, "iobb": pointing.iobbs}
    for overlap in ("iou", "iobb"):
        values = columns[overlap]
        for level in OVERLAP_LEVELS:
            columns[f"{overlap}@{level}"] = np.where(np.isnan(values), np.nan, values > level)
    return list(columns), np.stack(list(columns.values()), axis=1)


def _means_of(pointings: Sequence[Pointing]) -> tuple[list[str], Floats]:
    """Return the measures of a source that is several, such as networks of different seeds: their mean."""
    found = [measures(pointing) for pointing in pointings]
    return found[0][0], np.mean([values for _, values in found], axis=0)


def by_finding(
    sources: Sources, cases: BoxCases, bootstrap: CaseBootstrap
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Return the estimates of each source by finding, and in the mean over findings.

    Returns:
        ``[finding or macro][source][measure]``, measures being ``pointing``, ``energy``, the means ``iou``
        and ``iobb``, and the shares of cases above an overlap, such as ``iobb@0.1``.
    """
    result: dict[str, dict[str, dict[str, Estimate]]] = {name: {} for name in (*cases.names, MACRO)}
    for source, pointings in sources.items():
        columns, values = _means_of(pointings)
        for name, row in bootstrap.by_group(values, cases.findings).items():
            result[name][source] = dict(zip(columns, row, strict=True))
    return result


def difference(
    one: Sequence[Pointing], other: Sequence[Pointing], cases: BoxCases, bootstrap: CaseBootstrap
) -> dict[str, Estimate]:
    """Return by how much one source points at the finding more often than another, by finding and macro.

    The two are compared case by case, where both have a say.

    Returns:
        Estimates, with how many patients are ``discordant``: of whose cases one source hits more than the
        other.
    """
    hits = [np.mean([pointing.hits for pointing in pointings], axis=0) for pointings in (one, other)]
    differences = hits[0] - hits[1]
    found = bootstrap.by_group(differences[:, None], cases.findings, signed=True)
    result = {}
    for name, (row,) in found.items():
        chosen = (cases.findings == name) | (name == MACRO)
        discordant = _num_apart(differences[chosen], bootstrap.patients[chosen])
        result[name] = {**row, "discordant": discordant}
    return result


def _num_apart(differences: Floats, patients: npt.NDArray[np.int64]) -> int:
    """Return of how many patients the differences do not sum to 0; what is NaN counts as 0."""
    sums = np.bincount(patients, weights=np.nan_to_num(differences))
    return int((np.abs(sums) > _ROUNDING).sum())


def verdict(found: Estimate, level: float, than: str) -> str:
    """Return in words whether a heatmap points better than something else.

    Where few patients are discordant, the bootstrap's interval is too narrow. At a level of 0.95 there must
    be 6: fewer would all differ in the same way by chance more often than once in 20 times.

    Args:
        found: Their difference, see :func:`difference`.
        level: Of the interval.
        than: What it is compared with.

    Example:
        >>> verdict({"value": 0.2, "low": 0.1, "high": 0.3, "discordant": 9}, 0.95, "the box-frequency map")
        'better than the box-frequency map'
        >>> verdict({"value": 0.2, "low": -0.1, "high": 0.5, "discordant": 9}, 0.95, "the box-frequency map")
        'not shown to be better than the box-frequency map'
    """
    if found["value"] is None:
        return "not compared: no other patient has a box of it"
    is_above, is_below = (
        end is not None and sign * end > 0 for end, sign in ((found["low"], 1), (found["high"], -1))
    )
    are_few = 2 * 0.5 ** found["discordant"] > 1 - level + _ROUNDING
    if (is_above or is_below) and not are_few:
        return f"{'better' if is_above else 'worse'} than {than}"
    return f"not shown to be better than {than}{' (too few patients to tell)' if is_above else ''}"


def by_size(
    sources: Sources, edges: Sequence[float], cases: BoxCases, bootstrap: CaseBootstrap
) -> list[dict[str, Any]]:
    """Return how often each source points at the finding, by the share of the image that its boxes cover.

    Args:
        sources: What points.
        edges: Shares at which sizes are told apart, ascending.
        cases: With their boxes.
        bootstrap: Of the cases.

    Returns:
        For each size that there is ``from``, ``to``, ``cases``, ``patients`` and ``pointing`` by source.
    """
    areas, names = cases.areas, list(sources)
    hits = np.stack([np.mean([one.hits for one in sources[name]], axis=0) for name in names], axis=1)
    result = []
    for low, high in zip((0.0, *edges), (*edges, 1.0), strict=True):
        chosen = np.flatnonzero((areas > low) & (areas <= high))
        if len(chosen):
            pointing = dict(zip(names, bootstrap.mean(hits, chosen), strict=True))
            counts = {"cases": len(chosen), "patients": bootstrap.num_patients(chosen)}
            result.append({"from": low, "to": high, **counts, "pointing": pointing})
    return result
