"""Class activation maps: float images and labels -> heatmaps in [0, 1], by the grad-cam package."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrlab.errors import ConfigError, TrainingError
from cxrlab.heatmaps.methods.layers import layer_name, target_layers, undisturbed
from cxrlab.heatmaps.methods.perturbation import as_heatmaps
from cxrlab.heatmaps.settings import CAM_METHODS
from cxrlab.models.network import Network

if TYPE_CHECKING:
    from pytorch_grad_cam.base_cam import BaseCAM

log = logging.getLogger(__name__)

Pair = tuple[int, int]


def activation_maps(
    network: nn.Module,
    images: Tensor,
    pairs: Sequence[Pair],
    *,
    method: str,
    layers: str | Sequence[str],
    batch_size: int,
) -> Tensor:
    """Return the heatmap of each pair of an image and a label, for the label's own positive logit.

    What speaks against the label is cut off, the rest is resized to the image and divided by its maximum; a
    map is 0 everywhere where nothing speaks for the label. Each image goes forward once, however many of its
    labels are explained, and gradients go back no farther than to the layers that are read. The network comes
    back as it was: modes, statistics, gradients and hooks.

    Args:
        network: A :class:`cxrlab.models.Network` with a ``feature_layer``.
        images: Preprocessed floats on the network's device, shape ``(N, C, H, W)``.
        pairs: P of them: the number of an image, and the index of a label.
        method: One of ``CAM_METHODS``. ``eigencam`` shows the main pattern of the features, whatever the
            label; of its two sides, which a singular vector leaves open, the one with the larger extreme.
        layers: See :func:`cxrlab.heatmaps.methods.layers.target_layers`.
        batch_size: Images explained at once; more are done in turns.

    Returns:
        Values in [0, 1] on the CPU, shape ``(P, H, W)``, float32.

    Raises:
        ValueError: If there is no such image or label.
        ConfigError: If the network lacks such a layer, or the layer has no grid.
        TrainingError: If a map is not finite.

    References:
        Selvaraju et al., Grad-CAM, ICCV 2017; Chattopadhay et al., Grad-CAM++, WACV 2018; Draelos and Carin,
        HiResCAM, arXiv:2011.08891; Jiang et al., LayerCAM, IEEE TIP 2021; Muhammad and Yeasin, Eigen-CAM,
        IJCNN 2020.
    """
    check_images(pairs, len(images))
    data_type = next(network.parameters()).dtype
    with undisturbed(network):
        maps = torch.zeros(len(pairs), *images.shape[-2:])
        if not len(pairs):
            return maps
        # A copy is no inference tensor, and the first layer may write into it.
        chosen = target_layers(network, layers, images[:1].to(data_type, copy=True))
        for start in range(0, len(images), batch_size):
            places = [place for place, (image, _) in enumerate(pairs) if start <= image < start + batch_size]
            if not places:
                continue
            copies = images[start : start + batch_size].to(data_type, copy=True)
            of_batch = [(pairs[place][0] - start, pairs[place][1]) for place in places]
            maps[places] = _maps_of_batch(network, copies, of_batch, chosen, method)
    check_finite(maps)
    return maps


def _maps_of_batch(
    network: nn.Module, images: Tensor, pairs: Sequence[Pair], layers: list[nn.Module], method: str
) -> Tensor:
    with _recorded(layers) as kept:
        logits = network(images)
    check_labels(pairs, logits.shape[1])
    spatial = cast(Network, network)
    _check_reached(network, layers, kept)
    activations = [_grid(spatial, kept[layer]) for layer in layers]
    for values in activations:
        check_finite(values)
    if all(min(values.shape[-2:]) < 2 for values in activations):
        log.warning(
            "Heatmaps are empty: the layer they are read from has a single place for an image of %d pixels. "
            "Choose an earlier one by explanation.layers, or train on larger images (data.image_size).",
            images.shape[-1],
        )
    explainer = _explainer(network, layers, method)
    maps = torch.zeros(len(pairs), *images.shape[-2:])
    rounds = _rounds(pairs)
    for number, places in enumerate(rounds):
        rows = [pairs[place][0] for place in places]
        scores = torch.stack([logits[pairs[place]] for place in places])
        gradients = torch.autograd.grad(
            scores.sum(), [kept[layer] for layer in layers], retain_graph=number + 1 < len(rounds)
        )
        if method != "eigencam":
            _check_places(spatial, layers, gradients)
        grids = zip(layers, activations, (_grid(spatial, values) for values in gradients), strict=True)
        by_layer = [
            explainer.get_cam_image(
                images[rows], layer, [], *(grid[rows].cpu().numpy() for grid in both), False
            )
            for layer, *both in grids
        ]
        maps[places] = upsampled([torch.from_numpy(shown) for shown in by_layer], images.shape[-2:])
    return maps


def upsampled(by_layer: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Return the mean of what layers show, ``(P, h, w)`` each, as heatmaps ``(P, *size)``.

    The package would subtract each map's smallest value too: heat that a map has everywhere would be lost,
    and energy measured of another map than methods by pixel are measured of.
    """
    scaled = []
    for shown in by_layer:
        positive = shown[:, None].float().clamp_min(0)
        if positive.shape[-2:].numel() == 1:  # it shows no place
            positive = positive.where(positive.isnan(), 0.0)
        scaled.append(as_heatmaps(F.interpolate(positive, size, mode="bilinear"), 0.0))
    return scaled[0] if len(scaled) == 1 else as_heatmaps(torch.stack(scaled, dim=1), 0.0)


@contextmanager
def _recorded(layers: list[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Keep what layers give, as that of which gradients are asked; nothing before the first is recorded."""
    kept: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, _: object, output: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise ConfigError(
                f"explanation.layers: a {type(layer).__name__} gives a {type(output).__name__}, no features."
            )
        kept[layer] = output if output.requires_grad else output.detach().requires_grad_()
        return kept[layer].clone()  # what follows may write in place

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _grid(network: Network, values: Tensor) -> Tensor:
    """Return activations or gradients as ``(B, F, h, w)`` in what NumPy has: it lacks bfloat16."""
    try:
        grid = network.to_grid(values.detach()).float() if values.ndim in (3, 4) else values
    except RuntimeError:  # tokens that make no square
        grid = values
    if grid.ndim != 4:
        raise ConfigError(
            f"explanation.layers names a layer whose output has the shape {tuple(values.shape[1:])} for each "
            "image: there are no places in it to show on a map. Choose another one."
        )
    return grid


def _rounds(pairs: Sequence[Pair]) -> list[list[int]]:
    """Return the places of the pairs in rounds, in each of which an image comes up once at most."""
    rounds: list[list[int]] = []
    seen: dict[int, int] = {}
    for place, (image, _) in enumerate(pairs):
        turn = seen.get(image, 0)
        seen[image] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(place)
    return rounds


def _check_reached(network: nn.Module, layers: list[nn.Module], kept: dict[nn.Module, Tensor]) -> None:
    for layer in layers:
        if layer not in kept:
            raise ConfigError(
                f"explanation.layers names {layer_name(network, layer)!r}, through which no image passes: it "
                "is not called itself. Choose a layer inside it, or another one."
            )


def _check_places(network: Network, layers: list[nn.Module], gradients: Sequence[Tensor]) -> None:
    """Refuse a layer of which only what stands for the whole image, a class token, is read behind it."""
    for layer, values in zip(layers, gradients, strict=True):
        if values.any() and not _grid(network, values).any():
            last = network.feature_layer
            raise ConfigError(
                f"explanation.layers names {layer_name(network, layer)!r}, of which only the class token is "
                "read behind it: no place in it speaks for a finding. Choose an earlier layer; the last one "
                f"that can be read is {layer_name(network, last) if last else 'none'}."
            )


def check_images(pairs: Sequence[Pair], num_images: int) -> None:
    """Refuse pairs of images that there are not.

    Raises:
        ValueError: Naming the first one.
    """
    wrong = [image for image, _ in pairs if not 0 <= image < num_images]
    if wrong:
        raise ValueError(f"There is no image {wrong[0]}: there are {num_images}, counted from 0.")


def check_labels(pairs: Sequence[Pair], num_labels: int) -> None:
    """Refuse pairs of labels that a network has no logit of.

    Raises:
        ValueError: Naming the first one.
    """
    wrong = [label for _, label in pairs if not 0 <= label < num_labels]
    if wrong:
        raise ValueError(
            f"There is no label {wrong[0]}: the network has {num_labels} logits, counted from 0."
        )


def _explainer(network: nn.Module, layers: list[nn.Module], method: str) -> "BaseCAM":
    """Return the package's arithmetic for a method, without its hooks: the passes are our own."""
    # Importing it takes more than a second, which runs without heatmaps need not pay.
    import pytorch_grad_cam

    make: Any = getattr(pytorch_grad_cam, CAM_METHODS[method])
    if method == "eigencam":
        make = _oriented(make)
    explainer: BaseCAM = make(network, layers)
    explainer.activations_and_grads.release()
    return explainer


def _oriented(eigen_cam: Any) -> Any:
    """Return Eigen-CAM with the side of its singular vector settled, which the decomposition leaves open.

    References:
        Chung and Ying, Seg-Eigen-CAM, Appl. Sci. 15:7562, 2025, equation 13.
    """

    class OrientedEigenCAM(eigen_cam):  # type: ignore[misc]
        def get_cam_image(self, *args: Any, **kwargs: Any) -> Any:
            maps = super().get_cam_image(*args, **kwargs)
            is_upside_down = np.abs(maps.min(axis=(1, 2))) > np.abs(maps.max(axis=(1, 2)))
            return np.where(is_upside_down[:, None, None], -maps, maps)

    return OrientedEigenCAM


def grad_cam(
    network: nn.Module, images: Tensor, labels: Sequence[int] | Tensor, *, batch_size: int
) -> Tensor:
    """Return a Grad-CAM heatmap of each image for a label of its own, see :func:`activation_maps`.

    Args:
        network: A network with ``feature_layer`` and ``to_grid``.
        images: Preprocessed floats on the network's device, shape ``(N, C, H, W)``.
        labels: For each image the index of the label to explain, N of them.
        batch_size: Images explained at once.

    Returns:
        Values in [0, 1] on the CPU, shape ``(N, H, W)``, float32.

    Raises:
        ValueError: If there are not N labels, or the network has no such label.
        TrainingError: If a map is not finite.
    """
    indices = [int(label) for label in labels]
    if len(indices) != len(images):
        raise ValueError(f"{len(indices)} labels were given for {len(images)} images: each image needs one.")
    pairs = list(enumerate(indices))
    return activation_maps(network, images, pairs, method="gradcam", layers="auto", batch_size=batch_size)


def check_finite(maps: Tensor) -> None:
    """Refuse heatmaps, or activations, shape ``(N, ...)``, of which one is not finite.

    Raises:
        TrainingError: Naming the first ones.
    """
    wrong = (~maps.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
    if wrong:
        raise TrainingError(
            f"{len(wrong)} of {len(maps)} heatmaps are not finite (images {wrong[:3]}): the network's "
            "weights or activations hold NaN or infinity. "
            "Use an earlier checkpoint, or a lower learning rate."
        )
