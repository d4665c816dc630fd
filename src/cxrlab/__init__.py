"""Chest X-ray classification with honest splits: from a folder of radiographs to a test in one command.

What a notebook needs comes from here: the data (`Manifest`, `DataModule`), the model (`Classifier`), a
finished run (`load_run`, `Run`) and a model for new images (`load_model`, `Model`). All else comes from the
rooms, such as `cxrlab.evaluation`.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxrlab.data.datamodule import DataModule
    from cxrlab.data.manifest import Manifest
    from cxrlab.deploy.loading import load_model
    from cxrlab.deploy.model import Model
    from cxrlab.runs.run import Run, load_run
    from cxrlab.training.module import Classifier

__all__ = ["Classifier", "DataModule", "Manifest", "Model", "Run", "load_model", "load_run"]

_HOMES = {
    "Classifier": "cxrlab.training.module",
    "DataModule": "cxrlab.data.datamodule",
    "Manifest": "cxrlab.data.manifest",
    "Model": "cxrlab.deploy.model",
    "Run": "cxrlab.runs.run",
    "load_model": "cxrlab.deploy.loading",
    "load_run": "cxrlab.runs.run",
}

try:
    __version__ = version("cxrlab")
except PackageNotFoundError:  # a copy of the sources that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds, and --help needs none of it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cxrlab' has no attribute {name!r}; it exports {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)
