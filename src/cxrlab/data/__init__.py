"""From a raw data set on disk to batches on the device: a folder comes in, batches of uint8 images go out.

A reader makes the manifest, filter and split choose from it, and ``DataModule`` serves the cached images.
"""

from typing import TYPE_CHECKING, Any

from cxrlab.data.dataset import Copies, Dataset, FileImages, Images
from cxrlab.data.filters import apply_filters
from cxrlab.data.manifest import Manifest
from cxrlab.data.patients import shared_patients
from cxrlab.data.splits import Split

if TYPE_CHECKING:
    from cxrlab.data.datamodule import DataModule

__all__ = [
    "BUILDABLE",
    "Copies",
    "DataModule",
    "Dataset",
    "FileImages",
    "Images",
    "Manifest",
    "Split",
    "apply_filters",
    "shared_patients",
]

BUILDABLE = (
    "cxrlab.augment.NoAugment",
    "cxrlab.augment.RandomAugment",
    "cxrlab.data.filters.apply_filters",
    "cxrlab.data.readers.folders.read_folder",
    "cxrlab.data.readers.folders.read_malaria",
    "cxrlab.data.readers.folders.read_pneumonia",
    "cxrlab.data.readers.folders.read_pneumonia_classes",
    "cxrlab.data.readers.nih.read",
    "cxrlab.data.readers.synthetic.read",
    "cxrlab.data.readers.table.read",
    "cxrlab.data.splits.Split",
)
"""What the data of a run may be built from: none of these runs code that its arguments name."""


def __getattr__(name: str) -> Any:
    """Import the data module when it is first used: the processes that decode images need no torch."""
    if name == "DataModule":
        from cxrlab.data.datamodule import DataModule

        return DataModule
    raise AttributeError(f"module 'cxrlab.data' has no attribute {name!r}")
