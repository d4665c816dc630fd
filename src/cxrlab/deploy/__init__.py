"""A model that leaves the laboratory.

In: a run, a checkpoint, an exported file or a shared folder. Out: a ``Model`` that predicts image files, and
what is made of its predictions elsewhere: exported files, shared folders, a service, DICOM results.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cxrlab.deploy.loading import load_model
    from cxrlab.deploy.model import ImagePrediction, Model
    from cxrlab.deploy.record import ModelRecord

__all__ = ["ImagePrediction", "Model", "ModelRecord", "load_model"]

_HOMES = {
    "ImagePrediction": "cxrlab.deploy.model",
    "Model": "cxrlab.deploy.model",
    "ModelRecord": "cxrlab.deploy.record",
    "load_model": "cxrlab.deploy.loading",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: processes that only decode need no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'cxrlab.deploy' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
