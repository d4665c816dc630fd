"""Class activation maps: float images and labels -> heatmaps in [0, 1].

The arithmetic is done in torch where the network is, and one copy brings the maps of a call to the CPU: the
package grad-cam, whose formulas these are, computes them in NumPy. It is what tests compare the maps with.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxrlab.errors import ConfigError, TrainingError
from cxrlab.heatmaps.methods.layers import layer_name, target_layers, undisturbed
from cxrlab.heatmaps.methods.perturbation import as_heatmaps
from cxrlab.models.network import Network

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
        shape = (len(pairs), *images.shape[-2:])
        if not len(pairs):
            return torch.zeros(shape)
        # A copy is no inference tensor, and the first layer may write into it.
        chosen = target_layers(network, layers, images[:1].to(data_type, copy=True))
        # Pinned, so that the copies need not be waited for one by one.
        maps = torch.empty(shape, pin_memory=images.is_cuda)
        order: list[int] = []
        checks: list[_Checks] = []
        for start in range(0, len(images), batch_size):
            places = [place for place, (image, _) in enumerate(pairs) if start <= image < start + batch_size]
            if not places:
                continue
            copies = images[start : start + batch_size].to(data_type, copy=True)
            of_batch = [(pairs[place][0] - start, pairs[place][1]) for place in places]
            shown, found = _maps_of_batch(network, copies, of_batch, chosen, method)
            maps[len(order) : len(order) + len(places)].copy_(shown, non_blocking=shown.is_cuda)
            order += places
            checks.append(found)
        if images.is_cuda:
            torch.cuda.current_stream(images.device).synchronize()
    for activations in zip(*(found.is_finite for found in checks), strict=True):
        _check_all_finite(torch.cat(activations))
    if blind := [found.is_blind for found in checks if found.is_blind is not None]:
        _check_places(cast(Network, network), chosen, blind)
    if order != sorted(order):
        maps = maps[torch.tensor(order).argsort()]
    check_finite(maps)
    return maps


class _Checks(NamedTuple):
    """What is looked at once all batches are done: on a GPU each look waits for it.

    Attributes:
        is_finite: Of each layer, whether the activations of each image are finite, ``(B,)``.
        is_blind: Of each layer, whether gradients reach it and none of its places, ``(layers,)``; None where
            none are asked for.
    """

    is_finite: list[Tensor]
    is_blind: Tensor | None


def _maps_of_batch(
    network: nn.Module, images: Tensor, pairs: Sequence[Pair], layers: list[nn.Module], method: str
) -> tuple[Tensor, _Checks]:
    """Return the maps of pairs, ``(P, H, W)``, on the network's device."""
    with _recorded(layers) as kept:
        logits = network(images)
    check_labels(pairs, logits.shape[1])
    spatial = cast(Network, network)
    _check_reached(network, layers, kept)
    activations = [_grid(spatial, kept[layer]) for layer in layers]
    if all(min(values.shape[-2:]) < 2 for values in activations):
        log.warning(
            "Heatmaps are empty: the layer they are read from has a single place for an image of %d pixels. "
            "Choose an earlier one by explanation.layers, or train on larger images (data.image_size).",
            images.shape[-1],
        )
    checks = [values.isfinite().flatten(1).all(dim=1) for values in activations]
    rows = [image for image, _ in pairs]
    if method == "eigencam":
        by_layer, is_blind = [_eigen_cam(values) for values in activations], None
    else:
        by_layer, is_blind = _by_gradients(
            spatial, logits, [kept[layer] for layer in layers], activations, pairs, METHODS[method]
        )
        rounds = enumerate(_rounds(pairs))
        turns = {place: number for number, places in rounds for place in places}
        rows = [turns[place] * len(images) + row for place, row in enumerate(rows)]
    cells = _to_device(torch.tensor(rows), images.device)
    maps = upsampled([shown.index_select(0, cells) for shown in by_layer], images.shape[-2:])
    return maps, _Checks(checks, is_blind)


def _by_gradients(
    network: Network,
    logits: Tensor,
    read: list[Tensor],
    activations: list[Tensor],
    pairs: Sequence[Pair],
    method: Callable[[Tensor, Tensor], Tensor],
) -> tuple[list[Tensor], Tensor]:
    """Return what each layer shows of each image in each round, ``(rounds * B, h, w)``, and if it is blind.

    Each backward pass asks for one label of each image.
    """
    rounds = _rounds(pairs)
    wanted = _wanted(pairs, rounds, logits)
    by_layer: list[list[Tensor]] = [[] for _ in read]
    is_blind = torch.zeros(len(read), dtype=torch.bool, device=logits.device)
    for number in range(len(rounds)):
        gradients = torch.autograd.grad(
            logits, read, grad_outputs=wanted[number], retain_graph=number + 1 < len(rounds)
        )
        grids = [_grid(network, values) for values in gradients]
        pairs_of = zip(gradients, grids, strict=True)
        is_blind |= torch.stack([values.any() & ~grid.any() for values, grid in pairs_of])
        for shown, features, slopes in zip(by_layer, activations, grids, strict=True):
            shown.append(method(features, slopes))
    return [torch.cat(shown) for shown in by_layer], is_blind


def _wanted(pairs: Sequence[Pair], rounds: list[list[int]], logits: Tensor) -> Tensor:
    """Return, for each round, of which logit of each image gradients are asked: ``(rounds, B, L)``."""
    wanted = torch.zeros(len(rounds), *logits.shape, dtype=logits.dtype)
    for number, places in enumerate(rounds):
        for place in places:
            wanted[(number, *pairs[place])] = 1
    return _to_device(wanted, logits.device)


def _to_device(values: Tensor, device: torch.device) -> Tensor:
    return values.to(device, non_blocking=device.type == "cuda")


def _grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1)


def _grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Chattopadhay et al., equations 10 and 19, with the package's 1e-6 against a division by 0."""
    squares = gradients**2
    sums = activations.sum(dim=(2, 3), keepdim=True)
    shares = squares / (2 * squares + sums * squares * gradients + 1e-6)
    weights = (gradients.clamp_min(0) * shares).sum(dim=(2, 3), keepdim=True)
    return (weights * activations).sum(dim=1)


def _hires_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients * activations).sum(dim=1)


def _layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.clamp_min(0) * activations).sum(dim=1)


def _eigen_cam(activations: Tensor) -> Tensor:
    """Return where places lie along the features' first principal axis, its larger extreme up.

    Of products in double precision, on the smaller side: a GPU has no fast singular values of many matrices.

    References:
        Chung and Ying, Seg-Eigen-CAM, Appl. Sci. 15:7562, 2025, equation 13, for the side.
    """
    places = activations.flatten(2).transpose(1, 2).double().nan_to_num(0.0, 0.0, 0.0)  # (B, h w, F)
    places = places - places.mean(dim=1, keepdim=True)
    if places.shape[1] <= places.shape[2]:
        values, vectors = torch.linalg.eigh(places @ places.transpose(1, 2))
        shown = vectors[..., -1] * values[:, -1:].clamp_min(0).sqrt()
    else:
        axis = torch.linalg.eigh(places.transpose(1, 2) @ places)[1][..., -1:]
        shown = (places @ axis)[..., 0]
    is_upside_down = shown.amin(dim=1).abs() > shown.amax(dim=1).abs()
    shown = torch.where(is_upside_down[:, None], -shown, shown)
    return shown.view(len(shown), *activations.shape[-2:]).float()


METHODS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": _grad_cam,
    "gradcam++": _grad_cam_plus_plus,
    "hirescam": _hires_cam,
    "layercam": _layer_cam,
}
"""Of activations and the logit's gradients, both ``(B, F, h, w)``: what a layer shows, ``(B, h, w)``."""


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
    """Return activations or gradients as ``(B, F, h, w)`` in float32."""
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


def _check_places(network: Network, layers: list[nn.Module], is_blind: Sequence[Tensor]) -> None:
    """Refuse a layer of which only what stands for the whole image, a class token, is read behind it."""
    for layer, blind in zip(layers, torch.stack(list(is_blind)).any(dim=0).tolist(), strict=True):
        if blind:
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
    _check_all_finite(maps.isfinite().flatten(1).all(dim=1))


def _check_all_finite(is_finite: Tensor) -> None:
    wrong = (~is_finite).nonzero().flatten().tolist()
    if wrong:
        raise TrainingError(
            f"{len(wrong)} of {len(is_finite)} heatmaps are not finite (images {wrong[:3]}): the network's "
            "weights or activations hold NaN or infinity. "
            "Use an earlier checkpoint, or a lower learning rate."
        )
