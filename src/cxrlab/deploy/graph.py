"""A classifier as one graph: grey values in, calibrated probabilities out, everything between inside."""

import copy
import re
from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from cxrlab.deploy.backend import logits_of_features
from cxrlab.errors import ExportError
from cxrlab.metrics.cox import SMALLEST
from cxrlab.runs.features import tells_features
from cxrlab.training.module import Classifier

Precision = Literal["fp32", "fp16"]

INPUT = "images"
OUTPUTS = ("calibrated", "probabilities", "features")


class InferenceGraph(nn.Module):
    """Preprocessing, network, views and calibration of a classifier in one module, for tracing.

    Args:
        classifier: In evaluation mode.

    Attributes:
        has_features: Whether its network tells its features from its head, so that they are an output.
    """

    slopes: Tensor
    intercepts: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        calibrator = classifier.operating_point.calibrator(classifier.calibration)
        self.is_calibrated = calibrator is not None
        if calibrator is not None:
            for name, values in (("slopes", calibrator.slopes), ("intercepts", calibrator.intercepts)):
                self.register_buffer(name, torch.from_numpy(values).float().to(classifier.device))
        self.has_features = tells_features(classifier)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return calibrated probabilities, probabilities before that, and features where there are any.

        Args:
            images: Grey values or colours, uint8, shape ``(B, C, S, S)``.

        Returns:
            float32, shapes ``(B, L)``, ``(B, L)`` and ``(B, F)``, as :data:`OUTPUTS` names them.
        """
        classifier = self.classifier
        features = classifier.embed(images) if self.has_features else None
        known = logits_of_features(classifier, features)
        probabilities = classifier.mean_probabilities(images, known)
        outputs = (self._calibrated(probabilities), probabilities)
        return outputs if features is None else (*outputs, features)

    def _calibrated(self, probabilities: Tensor) -> Tensor:
        """Return what :meth:`cxrlab.metrics.calibration.Calibrator.apply` does, in float32."""
        if not self.is_calibrated:
            return probabilities.clone()
        # 1 - 1e-7 is no float32: both ends are clamped where they are small.
        logits = probabilities.clamp_min(SMALLEST).log() - (1.0 - probabilities).clamp_min(SMALLEST).log()
        calibrated = torch.sigmoid(self.slopes * logits + self.intercepts)
        return torch.where(torch.isnan(probabilities), probabilities, calibrated)


def trace(classifier: Classifier, precision: Precision = "fp32") -> ExportedProgram:
    """Trace a classifier's graph, for any number of images.

    Args:
        classifier: On the CPU; left as it is.
        precision: ``fp16`` holds and applies the network's weights in 16 bits; preprocessing, probabilities
            and calibration stay in 32.

    Raises:
        ExportError: If the network does what no graph can hold, or for one number of images only.
    """
    graph = InferenceGraph(classifier if precision == "fp32" else _in_half(classifier)).eval()
    shape = classifier.preprocess
    black = torch.zeros((2, shape.channels, shape.image_size, shape.image_size), dtype=torch.uint8)
    try:
        with torch.no_grad():
            program = torch.export.export(
                graph, (black,), dynamic_shapes={INPUT: {0: Dim("batch", min=1)}}, strict=False
            )
    except Exception as error:  # a person's own network may do anything
        raise ExportError(
            f"{classifier.network.title} cannot be traced: {_reason(error)} An exported graph takes the same "
            "way for all images: what depends on values, or on their number (len(x), x.shape[0] in an if), "
            "has to be written with tensors."
        ) from error
    _forget_paths(program)
    return program


def _forget_paths(program: ExportedProgram) -> None:
    """Drop where in which file each operator was called: folders of this machine, which files would carry."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def _in_half(classifier: Classifier) -> Classifier:
    """Return a copy whose network is of 16 bits; what prepares its images is not."""
    half = copy.deepcopy(classifier).half()
    half.preprocess = classifier.preprocess
    return half


def _reason(error: Exception) -> str:
    """Return the first sentence of torch's, which goes on with a page of advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = re.sub(r"\x1b\[\d+m", "", lines[0] if lines else "")
    return f"{type(error).__name__}: {first[:300].rstrip('.')}."
