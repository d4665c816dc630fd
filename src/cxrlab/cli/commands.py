"""``cxrlab <command>``: the commands, and how one is started."""

import difflib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

COMMANDS = {
    "prepare": "decode a data set into the cache, split it by patient, and audit it",
    "train": "train a classifier, evaluate it on patients it has not seen, and write a report",
    "evaluate": "evaluate a run, an ensemble of runs, or another program's predictions",
    "predict": "predict new images by a run, a checkpoint, an exported file or a shared folder",
    "compare": "rank runs or predictions over the same images, with paired differences",
    "explain": "draw heatmaps of a run, and check whether they are to be trusted",
    "share": "write a model as a folder that can be passed on, or to the Hugging Face Hub",
    "export": "write a model as one file for other programs, where it computes the same",
    "review": "list labels that are probably wrong, with pictures, as a table to correct",
    "serve": "answer requests with a model's predictions, and show a page for a person",
    "config": "show a command's config, each key with its comment; runs nothing",
    "init": "write a small project of one's own, with a network, a config and a test, that trains at once",
    "completion": "print the lines by which bash, zsh or fish complete the command line",
}
"""What each command does, in the order in which a person meets them."""

_WITHOUT_WORKING_FOLDER = ("init", "completion")
"""Commands that need no package of a person's own: they import nothing from the folder they start in."""


def overview() -> str:
    """Return what ``cxrlab --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {description}" for name, description in COMMANDS.items()]
    return "\n".join(
        [
            "Usage: cxrlab <command> [key=value ...]",
            "",
            *lines,
            "",
            "cxrlab <command> --help shows a command's groups and examples, cxrlab --version the version.",
        ]
    )


def run(arguments: Sequence[str]) -> int:
    """Start a command as ``python -m cxrlab.<command>`` would, so that its subprocesses find it as well.

    Args:
        arguments: Of the command line, the command first.

    Returns:
        The exit status: 0, or 2 where there is no such command. A command that fails exits by itself.
    """
    command, *rest = arguments or ["--help"]
    if command in ("--help", "-h", "help"):
        print(overview())
        return 0
    if command == "--version":
        import cxrlab

        print(f"cxrlab {cxrlab.__version__}")
        return 0
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        print(f"cxrlab has no command {command!r}.{hint}\n\n{overview()}", file=sys.stderr)
        return 2
    sys.argv = [sys.argv[0], *rest]
    if command in _WITHOUT_WORKING_FOLDER:  # the tab key must not run what lies in the folder
        sys.path[:] = path_without_working_folder()
    elif str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as python -m does: a person's own package may lie here
    runpy.run_module(f"cxrlab.{command}", run_name="__main__", alter_sys=True)
    return 0


def path_without_working_folder() -> list[str]:
    """Return where Python looks for packages, without the working folder that ``python -m`` puts first."""
    is_first = not sys.flags.safe_path and sys.path[:1] in ([""], [str(Path.cwd())])
    return sys.path[1:] if is_first else list(sys.path)
