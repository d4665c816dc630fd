"""Heatmaps of any network from its inputs alone, by the packages captum and shap: no layer is looked at."""

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cxrlab.errors import ConfigError
from cxrlab.heatmaps.methods.cam import Pair
from cxrlab.heatmaps.methods.layers import undisturbed
from cxrlab.heatmaps.methods.perturbation import baseline

_PACKAGES = {
    "integrated_gradients": "captum.attr",
    "occlusion": "captum.attr",
    "gradient_shap": "shap",
}


def require_package(method: str) -> Any:
    """Return the package that a method is of.

    Raises:
        ConfigError: If it cannot be imported; the message says how to install it.
    """
    package = _PACKAGES[method]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the package imports, about itself
            return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"The method {method} needs the package {package.partition('.')[0]}, which cannot be imported "
            f"({error}). "
            "Install it by: pip install 'cxrlab[explain]'"
        ) from error


def integrated_gradients(
    network: nn.Module, images: Tensor, pairs: Sequence[Pair], *, kind: str, num_steps: int, batch_size: int
) -> Tensor:
    """Return what each pixel adds to a label's logit on the straight way from a baseline to the image.

    Over all pixels the values sum to the difference of the two logits.

    Args:
        network: Any network with logits ``(B, L)``.
        images: Preprocessed floats, shape ``(N, C, H, W)``.
        pairs: P of them: the number of an image, and the index of a label.
        kind: See :func:`cxrlab.heatmaps.methods.perturbation.baseline`.
        num_steps: Points on the way.
        batch_size: Images that go through the network at once.

    Returns:
        Shape ``(P, C, H, W)``, on the CPU.

    References:
        Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017.
    """
    captum = require_package("integrated_gradients")
    attributions = [torch.zeros(0, *images.shape[1:])]
    with undisturbed(network):
        for start in range(0, len(pairs), batch_size):
            chosen, labels = _chosen(network, images, pairs[start : start + batch_size])
            values = captum.IntegratedGradients(network).attribute(
                chosen,
                baselines=baseline(chosen, kind),
                target=labels,
                n_steps=num_steps,
                internal_batch_size=batch_size,
            )
            attributions.append(_plain(values))
    return torch.cat(attributions)


def occlusion(
    network: nn.Module,
    images: Tensor,
    pairs: Sequence[Pair],
    *,
    kind: str,
    window: float,
    stride: float,
    batch_size: int,
) -> Tensor:
    """Return by how much a label's logit falls when a square window over each pixel shows a baseline.

    Args:
        network: Any network with logits ``(B, L)``.
        images: Preprocessed floats, shape ``(N, C, H, W)``.
        pairs: P of them: the number of an image, and the index of a label.
        kind: See :func:`cxrlab.heatmaps.methods.perturbation.baseline`.
        window: Side of the window as a share of the image's.
        stride: From one window to the next, likewise.
        batch_size: Images that go through the network at once.

    Returns:
        Means over the windows that hold a pixel, shape ``(P, C, H, W)``.

    References:
        Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014.
    """
    captum = require_package("occlusion")
    channels, height, width = images.shape[1:]
    sides = [max(1, round(window * side)) for side in (height, width)]
    steps = [
        min(size, max(1, round(stride * side))) for size, side in zip(sides, (height, width), strict=True)
    ]
    attributions = []
    with undisturbed(network), torch.no_grad():
        for start in range(0, len(pairs), batch_size):
            chosen, labels = _chosen(network, images, pairs[start : start + batch_size])
            attributions.append(
                captum.Occlusion(network).attribute(
                    chosen,
                    baselines=baseline(chosen, kind),
                    target=labels,
                    sliding_window_shapes=(channels, *sides),
                    strides=(channels, *steps),
                    perturbations_per_eval=max(1, batch_size // len(chosen)),
                )
            )
    return _plain(torch.cat(attributions)) if attributions else torch.zeros(0, *images.shape[1:])


class _OneLabel(nn.Module):
    """A network that says one label's logit only: the package would explain all of them."""

    def __init__(self, network: nn.Module, label: int) -> None:
        super().__init__()
        self.network = network
        self.label = label

    def forward(self, images: Tensor) -> Tensor:
        data_type = next(self.network.parameters()).dtype
        logits: Tensor = self.network(images.to(data_type))[:, self.label : self.label + 1]
        return logits.float()


def gradient_shap(
    network: nn.Module,
    images: Tensor,
    pairs: Sequence[Pair],
    *,
    background: Tensor,
    num_samples: int,
    batch_size: int,
    seed: int,
) -> Tensor:
    """Return SHAP values by expected gradients: integrated gradients from many images instead of a baseline.

    Args:
        network: Any network with logits ``(B, L)``.
        images: Preprocessed floats, shape ``(N, C, H, W)``.
        pairs: P of them: the number of an image, and the index of a label.
        background: Preprocessed images that stand for the population, such as some of the training part.
        num_samples: Points on ways from the background to the image.
        batch_size: Images that go through the network at once.
        seed: Of the choice of these points; the global random state is left as it was.

    Returns:
        Shape ``(P, C, H, W)``.

    References:
        Erion et al., Nature Machine Intelligence 3:620, 2021; Lundberg and Lee, NeurIPS 2017.
    """
    shap = require_package("gradient_shap")
    random_state = np.random.get_state()  # noqa: NPY002 - the package draws from it
    try:
        with undisturbed(network):
            attributions = torch.zeros(len(pairs), *images.shape[1:])
            chosen, _ = _chosen(network, images, pairs)
            # In what NumPy has, and the package asks for.
            chosen, behind = chosen.float(), background.float().clone()
            explainers = {
                label: shap.GradientExplainer(_OneLabel(network, label), behind, batch_size=batch_size)
                for label in {label for _, label in pairs}
            }
            # One by one: each image gets the same points, whichever others are explained with it.
            for place, (_, label) in enumerate(pairs):
                values = explainers[label].shap_values(
                    chosen[place : place + 1], nsamples=num_samples, rseed=seed
                )
                attributions[place] = torch.as_tensor(np.asarray(values), dtype=torch.float32).reshape(
                    attributions[place].shape
                )
    finally:
        np.random.set_state(random_state)  # noqa: NPY002
    return attributions


def _chosen(network: nn.Module, images: Tensor, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Return the image of each pair, copied, and its label.

    Raises:
        ValueError: If there is no such image, or a label is negative.
    """
    wrong = [pair for pair in pairs if not 0 <= pair[0] < len(images) or pair[1] < 0]
    if wrong:
        raise ValueError(f"There is no image {wrong[0][0]} of {len(images)}, or no label {wrong[0][1]}.")
    data_type = next(network.parameters()).dtype
    rows = torch.tensor([image for image, _ in pairs], dtype=torch.int64, device=images.device)
    labels = torch.tensor([label for _, label in pairs], dtype=torch.int64, device=images.device)
    return images[rows].to(data_type, copy=True).detach(), labels


def _plain(values: Tensor) -> Tensor:
    return values.detach().float().cpu()
