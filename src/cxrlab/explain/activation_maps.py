"""Class activation maps: float images and a label for each -> heatmaps in [0, 1]."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor, nn

from cxrlab.errors import TrainingError

if TYPE_CHECKING:
    from pytorch_grad_cam.base_cam import BaseCAM


class SpatialNetwork(Protocol):
    """What an activation map asks of a network, beside its logits."""

    @property
    def feature_layer(self) -> nn.Module:
        """The layer whose output is weighted and summed."""

    def to_grid(self, activations: Tensor) -> Tensor:
        """Bring the output of ``feature_layer`` to ``(B, F, h, w)``."""


@dataclass(frozen=True)
class _PositiveLogit:
    """A label's own logit: what speaks for the finding, also where it is the only one."""

    label: int

    def __call__(self, logits: Tensor) -> Tensor:
        if not 0 <= self.label < len(logits):
            raise ValueError(
                f"There is no label {self.label}: the network has {len(logits)} logits, counted from 0."
            )
        return logits[self.label]


@contextmanager
def _undisturbed(network: nn.Module) -> Iterator[None]:
    """Record gradients in evaluation mode and full precision; leave the network as it was.

    Parameters need no gradient here, and the package's ``zero_grad`` would drop the ones that training has
    accumulated. Inference mode, ``no_grad`` and autocast may be active around the call.
    """
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in network.parameters()]
    modes = [(module, module.training) for module in network.modules()]
    autocast_off = torch.autocast(parameters[0][0].device.type, enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), autocast_off:
        try:
            network.eval()
            for parameter, _, _ in parameters:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter, requires_grad, gradient in parameters:
                parameter.requires_grad_(requires_grad)
                parameter.grad = gradient
            for module, training in modes:
                module.training = training


@contextmanager
def _explainer(network: nn.Module) -> Iterator["BaseCAM"]:
    """Attach the package to the network's feature layer; its hooks are removed whatever happens."""
    # Importing it takes more than a second, which runs without heatmaps need not pay.
    from pytorch_grad_cam import GradCAM

    spatial = cast(SpatialNetwork, network)

    def to_grid(activations: Tensor) -> Tensor:
        # On the CPU the package's copy shares memory with the network, whose next layer may write in place.
        # NumPy, which the package computes in, has no bfloat16.
        return spatial.to_grid(activations).to(torch.float32, copy=True)

    explainer = GradCAM(network, [spatial.feature_layer], reshape_transform=to_grid)
    try:
        yield explainer
    finally:
        # The package's own context manager would swallow an IndexError.
        explainer.activations_and_grads.release()


def grad_cam(
    network: nn.Module, images: Tensor, labels: Sequence[int] | Tensor, *, batch_size: int
) -> Tensor:
    """Return a Grad-CAM heatmap of each image, for its own label's positive logit.

    Channels of the feature layer are weighted by their mean gradient and summed; what speaks against the
    label is cut off, and the rest is scaled to [0, 1] and resized to the image. A map is 0 everywhere where
    nothing speaks for the label. The network comes back as it was: modes, statistics, gradients and hooks.

    Args:
        network: A network with ``feature_layer`` and ``to_grid`` (see ``SpatialNetwork``), such as
            ``cxrlab.models.networks.TimmNetwork``.
        images: Preprocessed floats on the network's device, shape ``(N, C, H, W)``.
        labels: For each image the index of the label to explain, N of them.
        batch_size: Images explained at once; more are done in turns.

    Returns:
        Values in [0, 1] on the CPU, shape ``(N, H, W)``, float32.

    Raises:
        ValueError: If there are not N labels, or the network has no such label.
        TrainingError: If a map is not finite.

    References:
        Selvaraju et al., Grad-CAM, ICCV 2017; computed by the grad-cam package.
    """
    indices = [int(label) for label in labels]
    if len(indices) != len(images):
        raise ValueError(f"{len(indices)} labels were given for {len(images)} images: each image needs one.")
    data_type = next(network.parameters()).dtype
    with _undisturbed(network):
        maps = torch.zeros(len(images), *images.shape[-2:])
        for start in range(0, len(images), batch_size):
            chunk = slice(start, start + batch_size)
            # An inference tensor cannot require a gradient, but its copy can; without that none would reach
            # the feature layer. The second copy is no leaf, so that the first layer may write in place.
            copies = images[chunk].to(data_type, copy=True).detach().requires_grad_().clone()
            with _explainer(network) as explainer:
                targets: list[Callable[[Tensor], Tensor]] = [
                    _PositiveLogit(label) for label in indices[chunk]
                ]
                maps[chunk] = torch.from_numpy(explainer(copies, targets))
    _check_finite(maps)
    return maps


def _check_finite(maps: Tensor) -> None:
    wrong = (~maps.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
    if wrong:
        raise TrainingError(
            f"{len(wrong)} of {len(maps)} heatmaps are not finite (images {wrong[:3]}): the network's "
            "weights or activations hold NaN or infinity. "
            "Use an earlier checkpoint, or a lower learning rate."
        )
