"""The config checked against the signatures of the code it builds, before any data is touched."""

import difflib
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from typeguard import TypeCheckError, check_type

from cxrlab.cli.overrides import split_list
from cxrlab.cli.suggestions import dotted, key_hint
from cxrlab.errors import ConfigError, override

# Nodes whose values are built one by one.
_OBJECTS = ("callbacks", "logger")
# A table of words.
_PLAIN = ("synonyms",)
_RESERVED = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}


def check_node(node: object, key: str = "") -> None:
    """Check every ``_target_`` below a config node: that it exists, knows the keys, and takes the values.

    Args:
        node: Plain dicts, lists and values, references resolved.
        key: Dotted path of the node, for messages.

    Raises:
        ConfigError: With the key and the value, at the first fault.
    """
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_call(node, key)
        for name, value in node.items():
            check_node(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for position, value in enumerate(node):
            check_node(value, f"{key}[{position}]")


def check_keys(node: Mapping[str, Any], command: Mapping[str, Any], *, elsewhere: str = "") -> None:
    """Check that something reads each key at the root of a config, and below nodes that nothing builds.

    What a key below a ``_target_`` fits, :func:`check_node` says. A key of one's own is read where a value
    refers to it, such as ``size`` by ``${size}``.

    Args:
        node: Plain dicts, lists and values, references as they are written.
        command: The YAML file of the command, such as conf/train.yaml.
        elsewhere: Text of configs that may refer to this one.

    Raises:
        ConfigError: At the first key that nothing reads, with its value and what may have been meant.
    """
    groups = {_group(entry) for entry in command.get("defaults", [])}
    texts = "\n".join([elsewhere, *(text for _, text in texts_below(node))])
    for name, value in node.items():
        if re.search(r"\$\{\.*" + re.escape(name) + r"[}.\[]", texts):
            continue
        if name not in command and name not in groups:
            raise ConfigError(_unread(name, value, node))
        if isinstance(value, Mapping) and "_target_" not in value and name not in _PLAIN:
            known = command.get(name)
            if not isinstance(known, Mapping) and name not in _OBJECTS:
                raise ConfigError(f"{name} has no _target_: nothing is built of it. Choose {name}=<option>.")
            _check_plain_node(name, value, known, node)


def _check_plain_node(name: str, value: Mapping[str, Any], known: object, node: Mapping[str, Any]) -> None:
    """Check a node that is read key by key, or whose values are built one by one."""
    for key, inner in value.items():
        is_missing = isinstance(known, Mapping) and key not in known
        is_object = inner is None or (isinstance(inner, Mapping) and "_target_" in inner)
        if is_missing or (name in _OBJECTS and not is_object):
            raise ConfigError(_unread(f"{name}.{key}", inner, node))


def _unread(key: str, value: object, node: Mapping[str, Any]) -> str:
    """Return the message on a key that nothing reads."""
    keys = [name for name in dotted(node) if name != key and not name.startswith(f"{key}.")]
    is_node = isinstance(value, Mapping)
    while isinstance(value, Mapping) and value:
        name, value = next(iter(value.items()))
        key = f"{key}.{name}"
    words = {None: "null", True: "true", False: "false"}
    shown = f"{key}={words[value] if value is None or isinstance(value, bool) else value}"
    group = key.partition(".")[0]
    meant = key_hint(shown, keys)
    if not meant and group in _OBJECTS:
        meant = f"What stands in {group} is built: +{group}.mine={{_target_: my_lab.MyClass}}."
    elif not meant and is_node:
        meant = "A YAML file of your own that sets keys elsewhere starts with the line # @package _global_"
    elif not meant:
        meant = f"A value of your own is read where another refers to it, as ${{{key}}}."
    return f"{shown}: nothing reads this key. {meant}"


def _group(entry: object) -> str:
    """Return the group of an entry of a list of defaults."""
    name = str(next(iter(entry)) if isinstance(entry, Mapping) else entry)
    return name.removeprefix("override ").removeprefix("optional ")


def texts_below(node: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text below a node, with its dotted path."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, Mapping):
        for name, value in node.items():
            yield from texts_below(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from texts_below(value, f"{key}[{place}]")


def check_value(value: object, hint: Any, key: str) -> None:
    """Refuse a value of another type than annotated; a list passes for a tuple, an int for a float.

    Raises:
        ConfigError: With the key, the value, and what would fit.

    Example:
        >>> check_value("abc", float, "optimizer.lr")
        Traceback (most recent call last):
        cxrlab.errors.ConfigError: optimizer.lr='abc' does not fit: it takes float.
    """
    candidates = [value, tuple(value)] if isinstance(value, list) else [value]
    if isinstance(value, bool) and hint in (int, float):
        candidates = []
    for candidate in candidates:
        try:
            check_type(candidate, hint)
        except TypeCheckError:
            continue
        return
    hint_of_list = ""
    if isinstance(value, str) and "list[str]" in str(hint):
        text = value.strip()
        inside = text.startswith("[") and text.endswith("]")
        items = [item.strip("'\"") for item in split_list(text[1:-1])] if inside else [text]
        hint_of_list = f" Write {override(key, items)}."
    raise ConfigError(f"{key}={value!r} does not fit: it takes {_spelled(hint)}.{hint_of_list}")


def located(target: str, key: str) -> Callable[..., Any]:
    """Import what a dotted path names: a module's class or function, or a class's method.

    Raises:
        ConfigError: If there is no such thing; ``key`` says where it was named.
    """
    parts = target.split(".")
    for split in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:split])
        try:
            target_object: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and not (module_name + ".").startswith(error.name + "."):
                raise ConfigError(
                    f"{key}._target_={target} needs the package {error.name}, which is not installed."
                ) from error
            continue
        for part in parts[split:]:
            target_object = getattr(target_object, part, None)
        if callable(target_object):
            return typing.cast("Callable[..., Any]", target_object)
        break
    raise ConfigError(f"{key}._target_={target} does not exist: there is no such class or function.")


def _check_call(node: Mapping[str, Any], key: str) -> None:
    target = located(str(node["_target_"]), key)
    parameters = inspect.signature(target).parameters
    arguments = {str(name): value for name, value in node.items() if name not in _RESERVED}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in arguments:
        if name not in parameters and not takes_any:
            near = difflib.get_close_matches(name, parameters, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"{key}.{name}={arguments[name]!r} is no parameter of {node['_target_']}, "
                f"which takes {', '.join(parameters) or 'no argument'}.{hint}"
            )
    if not node.get("_partial_"):
        required = [n for n, p in parameters.items() if p.default is p.empty and p.kind is p.KEYWORD_ONLY]
        missing = [name for name in required if name not in arguments]
        if missing:
            raise ConfigError(f"{key} lacks {missing}, which {node['_target_']} needs.")
    hints = _hints(target)
    for name, value in arguments.items():
        if name in hints and not _is_built(value):
            check_value(value, hints[name], f"{key}.{name}")


def _hints(target: Callable[..., Any]) -> Mapping[str, object]:
    """Return the annotations of a function or constructor, or none where they cannot be evaluated."""
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return {}


def _is_built(value: object) -> bool:
    """Tell whether a value is, or holds, something that will be built from its own ``_target_``."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(_is_built(inner) for inner in value.values())
    return isinstance(value, list) and any(_is_built(inner) for inner in value)


def _spelled(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(str(option) for option in typing.get_args(hint))
    if inspect.isclass(hint) and not typing.get_args(hint):
        return hint.__name__
    return str(hint).replace("typing.", "").replace("NoneType", "null").replace("None", "null")
