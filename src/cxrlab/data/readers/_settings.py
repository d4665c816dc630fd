"""The small mappings among the settings of a reader, such as ``boxes: {x: left}``, checked."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from cxrlab.errors import ConfigError

# How tables and people call the parts, in any case.
PART_WORDS = {
    "train": "train",
    "training": "train",
    "tr": "train",
    "trn": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "development": "val",
    "test": "test",
    "testing": "test",
    "tst": "test",
}


def section(
    value: object, key: str, defaults: Mapping[str, Any], *, needs: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a mapping of the config with its defaults filled in.

    Args:
        value: As the config gives it.
        key: Dotted path in the config, for messages.
        defaults: The keys that it may have, with their defaults.
        needs: Keys that it must have.

    Raises:
        ConfigError: If it is no mapping, has another key, or lacks one.

    Example:
        >>> section({"on": "id"}, "data.reader.join", {"table": None, "on": None, "take": None})
        {'table': None, 'on': 'id', 'take': None}
        >>> section({"one": "id"}, "data.reader.join", {"on": None})
        Traceback (most recent call last):
        cxrlab.errors.ConfigError: data.reader.join has no key 'one'; did you mean 'on'? It takes ['on'].
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}={value} must be a mapping with keys of {list(defaults)}.")
    value = {
        "on" if name is True else name: setting for name, setting in value.items()
    }  # YAML reads on as true
    for name in value:
        if name not in defaults:
            near = difflib.get_close_matches(str(name), list(defaults), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ConfigError(f"{key} has no key {str(name)!r}{hint} It takes {list(defaults)}.")
    missing = [name for name in needs if value.get(name) is None]
    if missing:
        raise ConfigError(f"{key} lacks {missing}: set {key}.{missing[0]}.")
    return {**defaults, **value}


def names(value: object, key: str) -> list[str]:
    """Return a text, or a list of texts, as a list.

    Raises:
        ConfigError: If it is something else, or empty.
    """
    listed = [value] if isinstance(value, str | int | float) else value
    if not isinstance(listed, Sequence) or not listed or any(isinstance(name, Mapping) for name in listed):
        raise ConfigError(f"{key}={value} must be a name, or a list of names.")
    return [str(name) for name in listed]


def one_of(value: object, key: str, allowed: Sequence[str]) -> str:
    """Return ``value`` where it is allowed.

    Raises:
        ConfigError: If it is not.
    """
    if value not in allowed:
        raise ConfigError(f"{key}={value} must be one of {list(allowed)}.")
    return str(value)
