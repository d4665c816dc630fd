"""A draw of whole groups that gives each part its share of the rows and of every label."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_Counts = npt.NDArray[np.float64]


def stratify_groups(
    groups: npt.NDArray[np.object_], targets: npt.NDArray[np.float32], shares: Sequence[float], seed: int
) -> npt.NDArray[np.intp]:
    """Draw a part for each group, so that the parts agree in their labels as far as whole groups allow.

    Iterative stratification, carried from rows to groups: the rarest label goes first, and each group that
    has it goes to the part that lacks most of that label, measured against the part's share. It differs from
    the source in three points. Counts are of rows, so a group weighs what it holds, and the heaviest go
    first, which leaves the light ones to even things out. Known absences are stratified like presences, and
    the number of rows after them, while NaN counts as neither. And a part that has its rows takes no more:
    it exceeds its share by less than the largest group, and, with K parts, falls short by less than K - 1
    of them. No part is empty unless there are fewer groups than parts.

    Args:
        groups: Name of the group of each row, shape ``(N,)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
        shares: Positive shares of the rows that sum to 1, one a part.
        seed: Breaks ties between groups; neither this nor anything else depends on the order of the rows.

    Returns:
        Index of the part of each row, shape ``(N,)``.

    Example:
        >>> groups = np.array(["a", "a", "b", "b", "c", "d"], dtype=object)
        >>> targets = np.array([[1], [0], [1], [0], [0], [0]], dtype=np.float32)
        >>> stratify_groups(groups, targets, [0.5, 0.5], seed=0).tolist()
        [0, 0, 1, 1, 0, 1]

    References:
        Sechidis, Tsoumakas and Vlahavas, On the stratification of multi-label data, ECML PKDD 2011.
    """
    names, codes = np.unique(groups.astype(str), return_inverse=True)
    rows = np.concatenate([targets == 1, targets == 0, np.ones((len(groups), 1), dtype=bool)], axis=1)
    counts = np.zeros((len(names), rows.shape[1]))  # (G, 2L + 1): present, absent, rows
    np.add.at(counts, codes, rows.astype(float))
    order = np.random.default_rng(seed).permutation(len(names))
    parts = np.empty(len(names), dtype=np.intp)
    parts[order] = _deal(counts[order], shares)
    return parts[codes]


def nested_share(
    groups: npt.NDArray[np.object_], targets: npt.NDArray[np.float32], fraction: float, seed: int
) -> npt.NDArray[np.bool_]:
    """Draw a share of the groups, of which a smaller share is always a part of a larger one.

    The groups are halved, stratified by label, and the halves halved again; a share is filled from the
    first half before the second. The halves do not depend on the share, which nests the draws, and a share
    is made of stratified pieces, each half as large as the one before.

    Args:
        groups: Name of the group of each row, shape ``(N,)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
        fraction: Share of the groups to draw, 0 to 1, rounded to whole groups.
        seed: Gives other groups; the order of the rows has no influence.

    Returns:
        Whether each row is drawn, shape ``(N,)``.

    Example:
        >>> groups = np.array(["a", "a", "b", "c", "d"], dtype=object)
        >>> nested_share(groups, np.zeros((5, 1), dtype=np.float32), 0.5, seed=0).tolist()
        [False, False, True, True, False]
    """
    return _nested(groups, targets, round(fraction * len(set(groups))), seed, by_group=True)


def nested_rows(
    groups: npt.NDArray[np.object_], targets: npt.NDArray[np.float32], count: int, seed: int
) -> npt.NDArray[np.bool_]:
    """Draw a number of rows, of which a smaller number is always a part of a larger one.

    As :func:`nested_share` draws them: group after group, and of the last one its first rows, as many as are
    wanted.

    Args:
        groups: Name of the group of each row, shape ``(N,)``.
        targets: 1 present, 0 absent, NaN unknown, shape ``(N, L)``.
        count: Rows to draw; all where there are no more.
        seed: Gives other groups; the order of the rows decides only within the last one.

    Returns:
        Whether each row is drawn, shape ``(N,)``.

    Example:
        >>> groups = np.array(["a", "a", "b", "c", "d"], dtype=object)
        >>> nested_rows(groups, np.zeros((5, 1), dtype=np.float32), 4, seed=0).tolist()
        [True, False, True, True, True]
    """
    return _nested(groups, targets, count, seed, by_group=False)


def _nested(
    groups: npt.NDArray[np.object_],
    targets: npt.NDArray[np.float32],
    num_wanted: int,
    seed: int,
    *,
    by_group: bool,
) -> npt.NDArray[np.bool_]:
    """Return whether each row is drawn, where ``num_wanted`` counts groups or rows."""

    def size(rows: npt.NDArray[np.intp]) -> int:
        return len(set(groups[rows])) if by_group else len(rows)

    drawn = np.zeros(len(groups), dtype=bool)
    rows = np.arange(len(groups))
    # Which half comes first is a toss: the draw deals the heaviest group to the same half each time.
    tosses = np.random.default_rng(seed)
    while num_wanted:
        if num_wanted >= size(rows):
            drawn[rows] = True
            break
        if len(set(groups[rows])) == 1:
            drawn[rows[:num_wanted]] = True
            break
        first = stratify_groups(groups[rows], targets[rows], (0.5, 0.5), seed) == tosses.integers(2)
        half, other_half = rows[first], rows[~first]
        if num_wanted >= size(half):
            drawn[half] = True
            num_wanted, rows = num_wanted - size(half), other_half
        else:
            rows = half
    return drawn


def _deal(counts: _Counts, shares: Sequence[float]) -> npt.NDArray[np.intp]:
    """Return the part of each group; ``counts`` has shape ``(G, C)``, its last column being the rows."""
    parts = np.full(len(counts), -1, dtype=np.intp)
    filled = np.zeros((len(shares), counts.shape[1]))
    full = np.array(shares) * counts[:, -1].sum() - 1e-6  # in rows; less than one row, against rounding
    while (waiting := parts < 0).any():
        remaining = counts[waiting].sum(axis=0)
        column = int(np.argmin(np.where(remaining > 0, remaining, np.inf)))
        members = np.flatnonzero(waiting & (counts[:, column] > 0))
        for group in members[np.argsort(-counts[members, column], kind="stable")]:
            # Plain tuples: for two or three parts they are faster than arrays.
            needs = [
                (row[-1] < limit, -row[column] / share, -row[-1] / share, share)
                for row, limit, share in zip(filled, full, shares, strict=True)
            ]
            part = needs.index(max(needs))
            parts[group] = part
            filled[part] += counts[group]
    return parts
