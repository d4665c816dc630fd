"""Errors that a person can mend: their message is all that is shown, without a traceback."""

import math


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


class OutputError(UserError, OSError):
    """An output could not be written: no space, or no permission."""


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
