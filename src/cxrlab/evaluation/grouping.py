"""Images by the values of a covariate: views, sexes, bands of age, thirds of any other number."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

UNKNOWN = "unknown"
MAX_VALUES = 12

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """Some of the images.

    Attributes:
        name: What they have in common.
        members: Shape ``(N,)``.
        is_compared: False where the images need not have anything in common: unknown and rare values.
    """

    name: str
    members: Mask
    is_compared: bool = True


def covariate_groups(name: str, values: "pd.Series[Any]", ages: Sequence[float]) -> list[Group]:
    """Return the groups of one covariate; each image is in one of them, and none is empty.

    ``age`` is cut into bands, any other number of more than 12 values into thirds. All else goes by value:
    the 12 most frequent ones and the others together. Images without a value are "unknown".

    Args:
        name: Of the covariate.
        values: Shape ``(N,)``; NaN or empty text where unknown.
        ages: Edges of the bands in years, ascending; a band includes its lower edge.

    Example:
        >>> groups = covariate_groups("age", pd.Series([17.9, 18.0, 95.0, np.nan]), [0, 18, 80])
        >>> [(group.name, int(group.members.sum())) for group in groups]
        [('0-17 years', 1), ('18-79 years', 1), ('80+ years', 1), ('unknown', 1)]
    """
    text = values.astype(object).where(values.notna(), "").map(lambda value: str(value).strip())
    is_unknown = text.str.lower().isin(["", UNKNOWN]).to_numpy(dtype=bool)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
    is_number = bool((~np.isnan(numbers) == ~is_unknown).all()) and not is_unknown.all()
    if is_number and name == "age" and len(ages):
        groups = _bands(numbers, ages)
    elif is_number and len(np.unique(numbers[~is_unknown])) > MAX_VALUES:
        groups = _thirds(numbers)
    elif is_number:
        groups = [Group(f"{value:.12g}", numbers == value) for value in np.unique(numbers[~is_unknown])]
    else:
        groups = _values(text, is_unknown)
    groups.append(Group(UNKNOWN, is_unknown, is_compared=False))
    return [group for group in groups if group.members.any()]


def _bands(ages: npt.NDArray[np.float64], edges: Sequence[float]) -> list[Group]:
    """Return images by age; who is younger than the first edge has a band too."""
    names = [f"under {edges[0]:g} years"]
    for lower, upper in pairwise(edges):
        is_whole = float(lower).is_integer() and float(upper).is_integer()
        last = f"{upper - 1:g}" if is_whole else f"under {upper:g}"
        names.append(f"{lower:g}-{last} years" if is_whole else f"{lower:g} to {last} years")
    names.append(f"{edges[-1]:g}+ years")
    places = np.where(np.isnan(ages), -1, np.digitize(ages, edges))
    return [Group(name, places == place) for place, name in enumerate(names)]


def _thirds(numbers: npt.NDArray[np.float64]) -> list[Group]:
    low, high = np.nanquantile(numbers, [1 / 3, 2 / 3])
    with np.errstate(invalid="ignore"):
        return [
            Group(f"up to {low:.4g}", numbers <= low),
            Group(f"above {low:.4g} to {high:.4g}", (numbers > low) & (numbers <= high)),
            Group(f"above {high:.4g}", numbers > high),
        ]


def _values(text: "pd.Series[str]", is_unknown: Mask) -> list[Group]:
    counts = text[~is_unknown].value_counts()
    frequent = sorted(counts.index[:MAX_VALUES])
    groups = [Group(value, (text == value).to_numpy(dtype=bool)) for value in frequent]
    rest = len(counts) - len(frequent)
    rare = ~text.isin(frequent).to_numpy(dtype=bool) & ~is_unknown
    rest_name = f"{rest} other value{'s' if rest > 1 else ''}"
    return [*groups, Group(rest_name, rare, is_compared=False)]
