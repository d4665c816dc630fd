"""Chest X-ray classification with honest splits: from a folder of radiographs to a test in one command."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxrlab.runs.run import Run, load_run
    from cxrlab.training.module import Classifier

__all__ = ["Classifier", "Run", "load_run"]

try:
    __version__ = version("cxrlab")
except PackageNotFoundError:  # a copy of the sources that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: torch takes seconds, and --help needs none of it."""
    if name == "Classifier":
        from cxrlab.training.module import Classifier

        return Classifier
    if name in {"Run", "load_run"}:
        from cxrlab.runs import run

        return getattr(run, name)
    raise AttributeError(f"module 'cxrlab' has no attribute {name!r}")
