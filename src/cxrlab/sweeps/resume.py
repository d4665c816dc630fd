"""``resume_sweep=<folder>``: the command line of a sweep that goes on, from what its folder says."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxrlab.cli.overrides import key_of
from cxrlab.errors import ConfigError, MissingFileError, override
from cxrlab.files import read_yaml

_KEY = "resume_sweep"

# Of Hydra's own settings, those that a folder may bring back; the others could choose what code runs.
_HYDRA = ("hydra/launcher", "hydra.launcher.", "hydra/sweeper", "hydra.sweeper.")

# What the folder's files are written by, and not settings of the sweep.
_NOT_KEPT = ("hydra.mode", "hydra.sweep.dir", _KEY)

_CODE = re.compile(
    r"trust\b.*|metrics\b.*|report|report\.sections\b.*"
    r"|hydra\.launcher\.(setup|python|command|additional_parameters)\b.*"
)

# Neither a function of the config nor a shell's signs; the features of a node are combined by & and |.
_PLAIN = re.compile(r"[^$`;|&]*")
_FEATURES = "hydra.launcher.constraint"


def with_sweep(arguments: Sequence[str]) -> list[str]:
    """Return a command line with the settings of the sweep that ``resume_sweep=`` names.

    Hydra's settings given beside it, such as ``hydra.launcher.workers=4``, take the place of the sweep's own.

    Args:
        arguments: Of the command line.

    Returns:
        The same where no sweep is named.

    Raises:
        MissingFileError: If the folder is no sweep's.
        ConfigError: If other settings are given than the sweep's, or the folder's could choose what code
            runs and were not given again.
    """
    folders = [word.partition("=")[2].strip("'\"") for word in arguments if key_of(word) == _KEY]
    if not folders or not {"-m", "--multirun"} & set(arguments):
        return list(arguments)
    folder = Path(folders[-1])
    path = folder / "multirun.yaml"
    if not path.is_file():
        raise MissingFileError(f"resume_sweep={folder} is no sweep's folder: it holds no multirun.yaml.")
    saved: Any = read_yaml(path, "Start a new sweep.")
    overrides = (saved.get("hydra") or {}).get("overrides") if isinstance(saved, dict) else None
    if not isinstance(overrides, dict):
        raise ConfigError(f"{path} has no hydra.overrides: it was cut short or edited. Start a new sweep.")
    task, of_hydra = (
        [str(word) for word in overrides.get(name) or [] if key_of(str(word)) not in _NOT_KEPT]
        for name in ("task", "hydra")
    )
    given = [word for word in arguments if "=" in word and not word.startswith("-") and key_of(word) != _KEY]
    for word in given:
        if not key_of(word).startswith("hydra") and word not in task:
            raise ConfigError(
                f"{word} is not of the sweep in {folder}, whose settings are {' '.join(task) or 'none'}: "
                "start a new sweep for it, or leave it out."
            )
    keys = {key_of(word) for word in given}
    kept = [word for word in of_hydra if key_of(word) not in keys]
    for word in [*task, *kept]:
        _check(word, given, path)
    _check_config_dir(saved, arguments, path)
    if not any(
        key_of(word) == "hydra/launcher" for word in [*kept, *given]
    ) and "hydra/sweeper" not in keys | {key_of(word) for word in kept}:
        kept.append("hydra/launcher=processes")  # jobs in the sweep's own process cannot go on
    return [*arguments, *(word for word in task if word not in given), *kept]


def _check(word: str, given: Sequence[str], path: Path) -> None:
    """Refuse a setting of a folder, which may be a stranger's, that could choose what code runs."""
    key, value = key_of(word), word.partition("=")[2]
    is_known = not key.startswith("hydra") or key.startswith(_HYDRA)
    is_plain = "_target_" not in word and (key == _FEATURES or _PLAIN.fullmatch(value) is not None)
    if word in given or (is_known and is_plain and not _CODE.fullmatch(key)):
        return
    raise ConfigError(
        f"{path} sets {word}, which could choose what code runs: if it is yours, give it on the command line "
        f"again: {override(key, value)}"
    )


def _check_config_dir(saved: Any, arguments: Sequence[str], path: Path) -> None:
    """Ask for a folder of configs again that the sweep was started with."""
    if any(word.partition("=")[0] in ("--config-dir", "-cd") for word in arguments):
        return
    sources = ((saved.get("hydra") or {}).get("runtime") or {}).get("config_sources") or []
    for source in sources:
        if isinstance(source, dict) and source.get("provider") == "command-line":
            raise ConfigError(
                f"{path} was written with --config-dir={source.get('path')}: give it on the command line "
                "again, or the folder of configs that is to take its place."
            )
