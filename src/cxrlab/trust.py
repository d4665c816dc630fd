"""What a file may have built: only what is listed for its place, and what a person trusts by name."""

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cxrlab.errors import ConfigError


def build(
    node: Mapping[str, Any], allowed: Collection[str], trust: Sequence[str], *, source: str, **arguments: Any
) -> Any:
    """Build what a file describes, if its class or function is listed; plain arguments, no nesting.

    A stranger's checkpoint or config must not choose what code runs, so that a prefix would be no boundary:
    a module of ours also holds functions that write files.

    Args:
        node: ``_target_``, a dotted path, and its arguments; with ``_partial_``, it waits for more.
        allowed: Dotted paths that may be built.
        trust: Packages whose classes and functions may be built too, such as ``["my_lab"]``.
        source: The file, for messages.
        arguments: Further arguments, from the code.

    Raises:
        ConfigError: If the target is neither listed nor trusted, does not exist, or an argument is itself a
            description of something to be built.
    """
    target = str(node.get("_target_"))
    function = locate(target, allowed, trust, source=source)
    plain = {key: value for key, value in node.items() if key not in _RESERVED}
    for key, value in plain.items():
        _check_plain(value, f"{target}({key}=...)", source)
    if node.get("_partial_"):
        inspect.signature(function).bind_partial(**plain, **arguments)  # a TypeError now, not at the call
        return functools.partial(function, **plain, **arguments)
    return function(**plain, **arguments)


def locate(target: str, allowed: Collection[str], trust: Sequence[str], *, source: str) -> Any:
    """Import a class or function that a file names, if it is listed or of a trusted package.

    Raises:
        ConfigError: If it is neither, or does not exist.
    """
    check_trust(trust)
    package = target.partition(".")[0]
    if target not in allowed and package not in trust:
        raise ConfigError(
            f"{source} names {target}, which is none of cxrlab's own classes for this place, so it was not "
            f"built: a file must not choose what code runs.{trust_advice(target)}"
        )
    loaded = import_path(target, f"{source} names {target}, which")
    if not (inspect.isclass(loaded) or inspect.isfunction(loaded)):
        raise ConfigError(f"{source} names {target}, which is no class and no function.")
    home = str(loaded.__module__).partition(".")[0]
    if target not in allowed and home not in trust:  # my_lab.files.read_pickle may be pandas' own
        raise ConfigError(
            f"{source} names {target}, which is of the package {home}: trust=[{package}] is for what "
            f"{package} itself defines."
        )
    return loaded


def trust_advice(target: object) -> str:
    """Return the sentence that offers ``trust`` for what a file names; nothing for what is never trusted."""
    package = str(target).partition(".")[0]
    if not re.fullmatch(r"[A-Za-z_]\w*", package) or package in _NEVER_TRUSTED:
        return ""
    return f" If you know its package, add trust=[{package}]."


def check_trust(trust: Sequence[str]) -> None:
    """Refuse to trust packages that hold functions which run, load, fetch or write what they are told.

    Raises:
        ConfigError: If there is one: then a file could choose what code runs.
    """
    for package in trust:
        if package in _NEVER_TRUSTED:
            raise ConfigError(
                f"trust=[{package}]: it holds functions that run or write whatever a file tells them, so it "
                "is not to be trusted with files of others. Trust a package of your own, or name what is to "
                "be built on the command line."
            )


def import_path(path: str, subject: str) -> Any:
    """Import what a dotted path names, such as ``my_lab.metrics.squared_error``.

    Args:
        path: A module and a name in it. The caller answers for it: importing a module runs its code.
        subject: What the message says of it first, such as ``metrics=my_lab.metrics.squared_error``.

    Raises:
        ConfigError: If there is no such module, or no such name in it.
    """
    module_name, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{subject} cannot be imported ({error}). Is the package {path.partition('.')[0]} installed, or "
            "its folder on PYTHONPATH? A dotted path names a module and a name in it."
        ) from error


_RESERVED = {"_target_", "_partial_", "_convert_", "_recursive_"}

# None of them is where a person keeps networks and readers.
_NEVER_TRUSTED = frozenset(sys.stdlib_module_names) | {
    "cxrlab", "hydra", "omegaconf", "yaml", "numpy", "pandas", "torch", "pytorch_lightning", "lightning",
    "lightning_fabric", "joblib", "cloudpickle", "dill", "fsspec", "requests", "urllib3", "huggingface_hub",
    "PIL", "pydicom", "scipy", "sklearn", "pytest", "setuptools", "pip", "pkg_resources",
}  # fmt: skip

# What pandas, fsspec and others open as an address: two letters or more, for C:/ is a drive.
_ADDRESS = re.compile(r"\s*[a-z][a-z0-9.+-]+(::[a-z][a-z0-9.+-]+)*:/", re.IGNORECASE)


def is_address(text: str) -> bool:
    """Tell whether a text would be fetched from somewhere where a file is expected.

    Example:
        >>> is_address("https://example.org/labels.csv"), is_address("file:/etc/passwd")
        (True, True)
        >>> is_address("labels.csv"), is_address("C:/data/labels.csv")
        (False, False)
    """
    return _ADDRESS.match(text) is not None


def _check_plain(value: object, where: str, source: str) -> None:
    if isinstance(value, Mapping):
        if "_target_" in value:
            raise ConfigError(f"{source} holds {value.get('_target_')} inside {where}: not built.")
        values: list[object] = [*value, *value.values()]
    elif isinstance(value, list | tuple):
        values = list(value)
    else:
        if isinstance(value, str) and "${" in value:
            raise ConfigError(f"{source} holds {value!r} in {where}, which is no plain value: not built.")
        if isinstance(value, str) and is_address(value):
            raise ConfigError(
                f"{source} holds {value!r} in {where}: nothing is fetched for a file. Download it yourself."
            )
        return
    for inner in values:
        _check_plain(inner, where, source)
