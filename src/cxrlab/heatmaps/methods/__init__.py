"""Ways to draw what a network looks at.

Decoded images and pairs of an image and a label come in, heatmaps in [0, 1] go out: ``Explainer`` calls a
method by its name, and ``check_fit`` tells beforehand whether a network can have it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cxrlab.heatmaps.methods.attention import attention_maps
from cxrlab.heatmaps.methods.attribution import (
    gradient_shap,
    integrated_gradients,
    occlusion,
    require_package,
)
from cxrlab.heatmaps.methods.cam import Pair, activation_maps, check_finite
from cxrlab.heatmaps.methods.perturbation import as_heatmaps
from cxrlab.heatmaps.settings import ATTENTION_METHODS, CAM_METHODS, ExplanationSettings
from cxrlab.training.module import Classifier

__all__ = ["Explainer", "Pair", "check_fit"]


@dataclass(frozen=True)
class Explainer:
    """A method with all it needs but the network and the images.

    Attributes:
        method: One of ``METHODS``.
        settings: How it is done.
        background: Decoded training images that ``gradient_shap`` compares with, uint8 ``(K, C, H, W)``;
            None for a single grey image.
    """

    method: str
    settings: ExplanationSettings
    background: Tensor | None = None

    def __call__(
        self,
        classifier: Classifier,
        images: Tensor,
        pairs: Sequence[Pair],
        network: nn.Module | None = None,
    ) -> Tensor:
        """Return the heatmap of each pair.

        Args:
            classifier: Whose network is explained, on its own device.
            images: Decoded, values 0 to 255, shape ``(N, C, H, W)``.
            pairs: P of them: the number of an image, and the index of a label.
            network: Explained instead of the classifier's own, such as one with random weights.

        Returns:
            Values in [0, 1] on the CPU, shape ``(P, H, W)``, float32; 0 everywhere where nothing speaks for
            the label.

        Raises:
            ConfigError: If the network cannot have such a map, or a package is missing.
            TrainingError: If a map is not finite.
        """
        if not len(pairs):
            return torch.zeros(0, *images.shape[-2:])
        network = classifier.network if network is None else network
        ready = _ready(classifier, images)
        size, settings = self.settings.batch_size, self.settings
        if self.method in CAM_METHODS:
            return activation_maps(
                network, ready, pairs, method=self.method, layers=settings.layers, batch_size=size
            )
        if self.method in ATTENTION_METHODS:
            return attention_maps(network, ready, pairs, method=self.method, batch_size=size)
        if self.method == "occlusion":
            window = {"window": settings.window, "stride": settings.stride}
            values = occlusion(network, ready, pairs, kind=settings.baseline, batch_size=size, **window)
            maps = as_heatmaps(values, 0.0)
        else:
            values = self._by_pixel(classifier, network, ready, pairs)
            maps = as_heatmaps(values, settings.smoothing)
        check_finite(maps)
        return maps

    def _by_pixel(
        self, classifier: Classifier, network: nn.Module, ready: Tensor, pairs: Sequence[Pair]
    ) -> Tensor:
        size, settings = self.settings.batch_size, self.settings
        if self.method == "integrated_gradients":
            steps = settings.num_steps
            return integrated_gradients(
                network, ready, pairs, kind=settings.baseline, num_steps=steps, batch_size=size
            )
        if self.background is None or not len(self.background):
            behind = ready.mean(dim=(0, 2, 3), keepdim=True).expand(1, *ready.shape[1:])
        else:
            behind = _ready(classifier, self.background)
        samples = {"num_samples": settings.num_samples, "seed": settings.seed}
        return gradient_shap(network, ready, pairs, background=behind, batch_size=size, **samples)


def check_fit(classifier: Classifier, settings: ExplanationSettings) -> None:
    """Refuse methods and layers that a network cannot have, before any time is spent on them.

    Args:
        classifier: Whose network is to be explained; activation maps and those of attention are made of one
            picture of noise.
        settings: Whose methods are wanted.

    Raises:
        ConfigError: If the network lacks such a layer, or cannot have such a map, or a package is missing.
    """
    shape = (1, classifier.preprocess.channels, *[classifier.preprocess.image_size] * 2)
    noise = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for method in settings.methods:
        if method in CAM_METHODS or method in ATTENTION_METHODS:
            Explainer(method, settings)(classifier, noise, [(0, 0)])
        else:
            require_package(method)


def _ready(classifier: Classifier, images: Tensor) -> Tensor:
    ready: Tensor = classifier.preprocess(images.to(classifier.device))
    return ready.contiguous(memory_format=classifier.memory_format)
