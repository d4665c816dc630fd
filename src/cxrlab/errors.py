"""Errors that a person can mend: their message is all that is shown, without a traceback."""


class UserError(Exception):
    """Something the user gave cannot be used; the message names it and says what to do."""


class ConfigError(UserError, ValueError):
    """A key or value of the configuration does not fit."""


class DataError(UserError, ValueError):
    """The data on disk, or what a table says of it, cannot be used."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class CheckpointError(UserError, ValueError):
    """Weights or a checkpoint cannot be read, or do not fit the network."""


class TrainingError(UserError, RuntimeError):
    """Training cannot go on, for instance because the loss is not finite."""


class OutputError(UserError, OSError):
    """An output could not be written: no space, or no permission."""
