"""Where a command writes what it finds about a run: below the run, and never over what is there."""

import datetime
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from cxrlab.errors import ConfigError, MissingFileError


def evaluation_dir(run: object, name: str | None, part: str | None, data: str | None) -> str:
    """Return where an evaluation goes: below its run, or for several runs into a folder of its own.

    Args:
        run: A run directory, or a list of them.
        name: Of the folder; None for the data set's name and the part.
        part: That is evaluated; None for the default.
        data: Option of the data group; None for the run's own.

    Raises:
        MissingFileError: If the run is none.
        ConfigError: If the name cannot be that of a folder, or is taken.
    """
    one = _single(run)
    if one is None:
        return f"outputs/evaluate/{datetime.datetime.now():%Y-%m-%d/%H-%M-%S}"
    stem = "-".join(word for word in (data, part or ("all" if data else "test")) if word)
    return _below(one, "evaluations", name, stem, made="evaluation.json")


def explanation_dir(run: object, name: str | None, part: str | None, data: str | None, images: object) -> str:
    """Return where heatmaps go: below their run.

    Args:
        run: A run directory.
        name: Of the folder; None for ``images``, or the data set's name and the part.
        part: That is explained; None for the default.
        data: Option of the data group; None for the run's own.
        images: Files that are explained; None for a part of a data set.

    Raises:
        MissingFileError: If the run is none.
        ConfigError: If there is none, or the name cannot be that of a folder, or is taken.
    """
    one = _single(run)
    if one is None:
        raise ConfigError("Give run=<a run directory>: whose heatmaps are wanted?")
    stem = "-".join(word for word in (data, part or ("all" if data else "test")) if word)
    return _below(one, "explanations", name, "images" if images else stem, made="provenance.json")


def _single(run: object) -> str | None:
    """Return the one run that is named, be it alone or in a list; None for several."""
    if isinstance(run, Sequence) and not isinstance(run, str) and len(run) == 1:
        run = run[0]
    return run if isinstance(run, str) else None


def _below(run: str, kind: str, name: str | None, stem: str, *, made: str) -> str:
    run_dir = Path(run).expanduser()
    if not (run_dir / "checkpoints").is_dir():
        raise MissingFileError(
            f"run={run} is no run directory: it holds no checkpoints.{run_above(run_dir, 'run')}"
        )
    folder = run_dir / kind
    if name is not None:
        if not re.fullmatch(r"[\w+=-][\w.+=-]*", str(name)):
            raise ConfigError(f"name={name} must be a plain name of a folder: letters, digits, - and _.")
        if (folder / str(name) / made).is_file():
            raise ConfigError(f"name={name}: {folder / str(name)} holds results already. Choose another.")
        return str(folder / str(name))
    taken = {path.parent.name for path in folder.glob(f"*/{made}")}
    numbered = (f"{stem}-{number}" for number in itertools.count(2))
    return str(folder / next(one for one in itertools.chain([stem], numbered) if one not in taken))


def run_above(path: Path, key: str) -> str:
    """Return a hint for a message where a folder above a path is a run directory; else nothing."""
    runs = [str(parent) for parent in path.parents if (parent / ".hydra").is_dir()]
    return f" Did you mean {key}={runs[0]}?" if runs else ""
