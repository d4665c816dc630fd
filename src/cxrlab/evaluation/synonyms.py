"""Labels that mean the same under other names: Effusion and Pleural Effusion."""

import re
from collections.abc import Mapping, Sequence

from cxrlab.errors import ConfigError, DataError

_IGNORED = re.compile(r"[\s_-]+")


def plain_name(name: str) -> str:
    """Return a name as it is compared: without case, blanks, underscores and hyphens.

    Example:
        >>> plain_name("Pleural_Thickening") == plain_name("pleural thickening")
        True
    """
    return _IGNORED.sub("", name).casefold()


def match_labels(
    wanted: Sequence[str], available: Sequence[str], groups: Sequence[Sequence[str]]
) -> dict[str, str]:
    """Return the column that means the same as each wanted label.

    A column of the very same spelling comes first, then one that differs in case, blanks, underscores or
    hyphens only, then one of the same group of synonyms.

    Args:
        wanted: Labels to find.
        available: Columns to find them among.
        groups: Lists of names that mean the same.

    Returns:
        In the order of ``wanted``; labels that match nothing are left out.

    Raises:
        ConfigError: If a name stands in two groups.
        DataError: If two columns fit a label equally well, or one column fits two labels.

    Example:
        >>> match_labels(["Effusion", "Edema"], ["Pleural Effusion"], [["Effusion", "Pleural Effusion"]])
        {'Effusion': 'Pleural Effusion'}
    """
    meanings = _meanings(groups)
    matched: dict[str, str] = {}
    for label in wanted:
        columns = _candidates(label, available, meanings)
        if len(columns) > 1:
            raise DataError(
                f"The columns {columns} all fit the label {label!r}, and none is spelled like it. Rename or "
                "remove all but one."
            )
        if columns:
            matched[label] = columns[0]
    _check_unambiguous(matched)
    return matched


def check_groups(groups: Sequence[Sequence[str]]) -> None:
    """Check that synonyms can be used.

    Raises:
        ConfigError: If a group is no list of names, or a name stands in two of them.
    """
    _meanings(groups)


def _meanings(groups: Sequence[Sequence[str]]) -> dict[str, int]:
    """Return the number of each name's group."""
    meanings: dict[str, int] = {}
    for number, group in enumerate(groups):
        if not isinstance(group, list | tuple) or not all(isinstance(name, str) for name in group):
            raise ConfigError(
                f"synonyms.groups[{number}]={group!r} is no list of names, such as [Effusion, "
                "Pleural Effusion]."
            )
        for name in group:
            first = meanings.setdefault(plain_name(name), number)
            if first != number:
                raise ConfigError(
                    f"{name!r} stands in two groups of synonyms.groups, {list(groups[first])} and "
                    f"{list(group)}. Join them where all of it means the same, or remove the name from one."
                )
    return meanings


def _candidates(label: str, available: Sequence[str], meanings: Mapping[str, int]) -> list[str]:
    """Return the columns that fit best: by spelling, else nearly so, else by meaning."""
    if label in available:
        return [label]
    plain = plain_name(label)
    alike = [name for name in available if plain_name(name) == plain]
    if alike or plain not in meanings:
        return alike
    return [name for name in available if meanings.get(plain_name(name)) == meanings[plain]]


def _check_unambiguous(matched: Mapping[str, str]) -> None:
    owners: dict[str, str] = {}
    for label, column in matched.items():
        if column in owners:
            raise DataError(
                f"The labels {owners[column]!r} and {label!r} both fit the column {column!r}. Rename or "
                "remove one of the labels, or take them out of one group of synonyms.groups."
            )
        owners[column] = label
