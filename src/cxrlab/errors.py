"""Errors that a person can mend: their message is all that is shown, without a traceback."""

import math
import re
import signal
from collections.abc import Sequence


class UserError(Exception):
    """Something the user gave cannot be used; the message names it and says what to do."""


class ConfigError(UserError, ValueError):
    """A key or value of the configuration does not fit."""


class DataError(UserError, ValueError):
    """The data on disk, or what a table says of it, cannot be used."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class MissingPackageError(UserError, ImportError):
    """An optional package is needed and not installed; the message says how to install it."""


class CheckpointError(UserError, ValueError):
    """Weights or a checkpoint cannot be read, or do not fit the network."""


class TrainingError(UserError, RuntimeError):
    """Training cannot go on, for instance because the loss is not finite."""


class OutOfMemoryError(UserError, MemoryError):
    """The memory of the machine or of the GPU is too small for what was asked."""


class ExportError(UserError, RuntimeError):
    """A model cannot be exported, or the exported file does not compute what the model does."""


class OutputError(UserError, OSError):
    """An output could not be written: no space, or no permission."""


def stop_reason(stop: BaseException, status: object = None) -> str | None:
    """Return by what somebody stops a command, ``Ctrl-C``, ``SIGTERM`` or ``SIGUSR1``; None where by none.

    Args:
        stop: The exception on its way.
        status: The exit status that it stands for, where that is not ``SystemExit``'s own.

    Example:
        >>> stop_reason(KeyboardInterrupt()), stop_reason(SystemExit(143)), stop_reason(SystemExit(1))
        ('Ctrl-C', 'SIGTERM', None)
    """
    if isinstance(stop, KeyboardInterrupt):
        return "Ctrl-C"
    if not isinstance(stop, SystemExit):
        return None
    wanted = ("SIGTERM", "SIGUSR1")  # Windows has no SIGUSR1
    reasons = {128 + number: number.name for number in signal.Signals if number.name in wanted}
    code = stop.code if status is None else status
    return (reasons | {130: "Ctrl-C"}).get(code) if isinstance(code, int) else None


def check_range(key: str, value: float | None, least: float, most: float = math.inf) -> None:
    """Refuse a number of the configuration that is out of its range; None, which means "not set", passes.

    Args:
        key: Dotted path in the configuration, for the message.
        value: What was given.
        least: The smallest value that is allowed.
        most: The largest.

    Raises:
        ConfigError: If the value is outside, or NaN.

    Example:
        >>> check_range("data.batch_size", 0, 1)
        Traceback (most recent call last):
        cxrlab.errors.ConfigError: data.batch_size=0 must be at least 1.
    """
    if value is None or least <= value <= most:
        return
    if most == math.inf:
        raise ConfigError(f"{key}={value} must be at least {least}.")
    raise ConfigError(f"{key}={value} must lie between {least} and {most}.")


# What Hydra's grammar reads without quotes: words, with single blanks between them.
_PLAIN = re.compile(r"[A-Za-z_][\w-]*( [A-Za-z_][\w-]*)*", re.ASCII)
_NO_TEXT = {"null", "true", "false", "nan", "inf"}


def quoted(text: str) -> str:
    r"""Return a text as Hydra's command line needs it: in double quotes unless it is a plain word.

    Example:
        >>> quoted("Edema"), quoted("Nodule/Mass"), quoted('5" tube')
        ('Edema', '"Nodule/Mass"', '"5\\" tube"')
    """
    if _PLAIN.fullmatch(text) and text.lower() not in _NO_TEXT:
        return text
    escaped = re.sub(r'(\\*)(")', lambda match: match[1] * 2 + '\\"', text)
    escaped = re.sub(r"(\\+)$", lambda match: match[1] * 2, escaped)
    return f'"{escaped}"'


def override(key: str, values: str | Sequence[str]) -> str:
    r"""Return what to type for a text or a list of texts, in the shell's quotes where it needs them.

    Example:
        >>> override("data.labels", ["Edema", "Mass"]), override("data.labels", ["Nodule/Mass"])
        ('data.labels=[Edema,Mass]', '\'data.labels=["Nodule/Mass"]\'')
    """
    value = quoted(values) if isinstance(values, str) else "[" + ",".join(map(quoted, values)) + "]"
    text = f"{key}={value}"
    is_plain = re.fullmatch(r"[\w.=\[\],-]*", text, re.ASCII)
    return text if is_plain else "'" + text.replace("'", "'\\''") + "'"
