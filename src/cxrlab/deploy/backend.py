"""What computes: decoded images in, probabilities and features out; a classifier, or an exported file."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cxrlab.errors import DataError
from cxrlab.runs.features import tells_features
from cxrlab.runs.predict import named_device
from cxrlab.training.module import Classifier

Pixels = npt.NDArray[np.uint8]


class BatchOutput(NamedTuple):
    """What a model makes of a batch of images.

    Attributes:
        probabilities: Mean over the views, before calibration: thresholds are on their scale, ``(B, L)``.
        calibrated: The same after calibration, or without one the same, ``(B, L)``.
        features: Pooled, of the image as it is, ``(B, F)``; None where the network does not tell them.
    """

    probabilities: npt.NDArray[np.float64]
    calibrated: npt.NDArray[np.float64]
    features: npt.NDArray[np.float32] | None


class Backend(Protocol):
    """What computes."""

    def __call__(self, images: Pixels, /) -> BatchOutput:
        """Return what a model makes of images, decoded to its size, ``(B, C, H, W)``."""


def check_pixels(images: Pixels, shape: tuple[int, int, int]) -> None:
    """Refuse images that an exported file was not made for.

    Args:
        images: ``(B, C, H, W)``.
        shape: ``(C, H, W)`` of the file.

    Raises:
        DataError: If they are not of its size, or no uint8.
    """
    if images.shape[1:] != shape or images.dtype != np.uint8:
        raise DataError(
            f"Images of shape {images.shape[1:]} and type {images.dtype} were given to an exported model "
            f"of {shape} (channels, height, width), uint8."
        )


class TorchBackend:
    """A classifier that computes, in 32-bit precision.

    Args:
        classifier: Left in evaluation mode, on the device.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: If there is no such device.
    """

    def __init__(self, classifier: Classifier, device: str = "cpu") -> None:
        self.classifier = classifier.to(named_device(device)).eval()
        self.calibrator = classifier.operating_point.calibrator(classifier.calibration)
        self.has_features = tells_features(classifier)

    def __call__(self, images: Pixels, /) -> BatchOutput:
        """Return what the classifier makes of images, ``(B, C, H, W)``.

        Raises:
            DataError: If they are not of its size.
        """
        classifier = self.classifier
        with torch.inference_mode():
            pixels = torch.from_numpy(images).to(classifier.device)
            features = classifier.embed(pixels) if self.has_features else None
            means = classifier.mean_probabilities(pixels, logits_of_features(classifier, features))
        probabilities = means.double().cpu().numpy()
        calibrated = probabilities if self.calibrator is None else self.calibrator.apply(probabilities)
        return BatchOutput(probabilities, calibrated, None if features is None else features.cpu().numpy())


def logits_of_features(classifier: Classifier, features: Tensor | None) -> dict[str, Tensor]:
    """Return the logits ``(B, L)`` of images as they are, where pooled features give them, else nothing.

    Where each label looks at places by itself, pooled features are not what its logits are computed from.

    Args:
        classifier: Whose features they are.
        features: Shape ``(B, F)``; None where it does not tell them.
    """
    network = classifier.network
    if features is None or network.label_attention is not None:
        return {}
    return {"identity": network.classify(features.to(classifier.dtype))}
