"""What points at findings without looking at the image: chance, the centre, and where boxes usually are."""

from collections.abc import Callable

import numpy as np

from cxrlab.explain.box_cases import GRID, BoxCases, Floats, box_mask, dilated
from cxrlab.explain.localization import Pointing, hottest

HALF = 0.5
"""Share of its maximum from which a box-frequency map is its region."""


def uniform_chance(cases: BoxCases, tolerance: float) -> Pointing:
    """Return a point thrown anywhere, and a map that is the same everywhere: its region is the image."""
    areas = cases.areas
    hits = np.array([dilated(cases.mask(case), tolerance).mean() for case in range(len(cases))])
    return Pointing(hits, areas, areas, areas)


def image_centre(cases: BoxCases, tolerance: float) -> Pointing:
    """Return the centre of the image; its region is a box there, of the mean size of other patients' boxes.

    The region is undefined, and so is all but the point, where no other patient has a box of the finding.
    """
    rows = []
    for case in range(len(cases)):
        mask = cases.mask(case)
        hit = bool(dilated(mask, tolerance)[GRID // 2, GRID // 2])
        others = (cases.findings == cases.findings[case]) & (cases.patients != cases.patients[case])
        sizes = [cases.boxes[other][:, 2:] for other in np.flatnonzero(others)]
        if not sizes:
            rows.append((float(hit), np.nan, np.nan, np.nan))
            continue
        width, height = np.concatenate(sizes).mean(axis=0)
        region = box_mask([[HALF - width / 2, HALF - height / 2, width, height]])
        rows.append(Pointing.of_region(region, mask, hit, float(mask[region].mean())))
    return _pointing(rows)


def box_frequency(
    cases: BoxCases, tolerance: float, point: Callable[[Floats], tuple[int, int]] = hottest
) -> Pointing:
    """Return the map of how often other patients have a box of the finding in each cell.

    Its maximum is the point, chosen of several as a heatmap's is; the cells from half its maximum on are the
    region. Undefined where no other patient has a box of the finding.

    Args:
        cases: With boxes.
        tolerance: Of the pointing game, as a share of the image's side.
        point: Gives row and column of a map's maximum.
    """
    rows: list[tuple[float, float, float, float]] = [(np.nan,) * 4] * len(cases)
    for name in cases.names:
        of_finding = np.flatnonzero(cases.findings == name)
        total = _sum_of_boxes(cases, of_finding)
        for patient in dict.fromkeys(cases.patients[of_finding].tolist()):
            own = of_finding[cases.patients[of_finding] == patient]
            others = total - _sum_of_boxes(cases, own)
            if others.max() < 1:
                continue
            region, place = others >= HALF * others.max(), point(others)
            for case in own:
                mask = cases.mask(case)
                hit = bool(dilated(mask, tolerance)[place])
                rows[case] = Pointing.of_region(region, mask, hit, float(others[mask].sum() / others.sum()))
    return _pointing(rows)


def _sum_of_boxes(cases: BoxCases, chosen: "np.typing.NDArray[np.int64]") -> Floats:
    """Return how many boxes cover each cell, ``(256, 256)``."""
    total = np.zeros((GRID, GRID))
    for case in chosen:
        for box in cases.boxes[case]:
            total += box_mask(box)
    return total


def _pointing(rows: list[tuple[float, float, float, float]]) -> Pointing:
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return Pointing(*columns)
