"""Heatmaps of a network's own attention: where a label's query looks, and rollout through a transformer.

Neither needs a gradient, and neither shows what raised a score: attention says what was read, not what for.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cxrlab.errors import ConfigError
from cxrlab.heatmaps.methods.cam import Pair, check_finite, check_images, check_labels, upsampled
from cxrlab.heatmaps.methods.layers import undisturbed
from cxrlab.heatmaps.settings import ATTENTION_METHODS
from cxrlab.models.network import Network

log = logging.getLogger(__name__)

_ROUNDING = 0.02  # of the sum of 200 weights in bfloat16


def attention_maps(
    network: nn.Module, images: Tensor, pairs: Sequence[Pair], *, method: str, batch_size: int
) -> Tensor:
    """Return where a network's attention lies, for each pair of an image and a label.

    Each image goes forward once, however many of its labels are explained. The network comes back as it was:
    modes, hooks, and whether its attention is computed in one fused step.

    Args:
        network: A :class:`cxrlab.models.Network`.
        images: Preprocessed floats on the network's device, shape ``(N, C, H, W)``.
        pairs: P of them: the number of an image, and the index of a label.
        method: ``attention``: the weights of the places in the label's own attention, mean over its heads.
            ``rollout``: how much of each patch has come to what the head reads, see :func:`rollout`; that is
            the class token where it reads it, else the mean over the patches. It is the same for all labels.
        batch_size: Images that go through the network at once.

    Returns:
        Values in [0, 1] on the CPU, divided by each map's maximum, shape ``(P, H, W)``, float32.

    Raises:
        ValueError: If there is no such image or label.
        ConfigError: If the network has no such attention.
        TrainingError: If a map is not finite.
    """
    check_attention(network, [method])
    check_images(pairs, len(images))
    data_type = next(network.parameters()).dtype
    of_network = _by_label if method == "attention" else _by_rollout
    with undisturbed(network), torch.no_grad():
        maps = torch.zeros(len(pairs), *images.shape[-2:])
        for start in range(0, len(images), batch_size):
            chosen = [place for place, (image, _) in enumerate(pairs) if start <= image < start + batch_size]
            if not chosen:
                continue
            logits, grids = of_network(network, images[start : start + batch_size].to(data_type, copy=True))
            check_labels([pairs[place] for place in chosen], logits.shape[1])
            grids = grids.expand(-1, logits.shape[1], -1, -1)
            shown = torch.stack([grids[pairs[place][0] - start, pairs[place][1]] for place in chosen])
            maps[chosen] = upsampled([shown.float().cpu()], images.shape[-2:])
            if grids.shape[-2:].numel() == 1:
                log.warning(
                    "Heatmaps are empty: the features that %s is read from have a single place for an image "
                    "of %d pixels. Train on larger images (data.image_size).",
                    method,
                    images.shape[-1],
                )
    check_finite(maps)
    return maps


def check_attention(network: nn.Module, methods: Sequence[str]) -> None:
    """Refuse methods of attention that a network has none for; nothing is passed through it.

    Raises:
        ConfigError: Saying what the method reads.

    Example:
        >>> check_attention(nn.Linear(2, 1), ["gradcam"])
    """
    for method in methods:
        if method in ATTENTION_METHODS and not _has_attention(network, method):
            raise _misfit(network, method)


def _has_attention(network: nn.Module, method: str) -> bool:
    if not isinstance(network, Network):
        return False
    return network.label_attention is not None if method == "attention" else bool(network.self_attention)


def _misfit(network: nn.Module, method: str) -> ConfigError:
    name = type(network).__name__
    if isinstance(network, Network):
        name = str(network.arguments().get("backbone", network.title))
    if method == "attention":
        return ConfigError(
            "The method attention reads a head in which each label looks at places by itself, and this "
            f"network ({name}) has none. Train with model.head=attention, or choose another method, such as "
            "gradcam (explanation.methods)."
        )
    return ConfigError(
        f"The method rollout reads the attention of all tokens to all in every layer, and {name} gives none, "
        "as vision transformers such as vit_small_patch16_224 do. Choose another method, such as gradcam "
        "(explanation.methods)."
    )


def _by_label(network: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits ``(B, L)``, and where each label looks, ``(B, L, h, w)``."""
    kept: list[Tensor] = []
    handle = network.label_attention.register_forward_hook(lambda _, __, weights: kept.append(weights))
    try:
        logits: Tensor = network(images)
    finally:
        handle.remove()
    return logits, kept[0].float().mean(dim=1)


def _by_rollout(network: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits ``(B, L)``, and how much of each patch the head reads, ``(B, 1, h, w)``."""
    with _unfused(network.self_attention) as matrices:
        logits: Tensor = network(images)
    num_tokens = matrices[0].shape[-1] if matrices else 0
    if len(matrices) != len(network.self_attention) or any(
        matrix.shape != (len(images), num_tokens, num_tokens) or not _is_of_rows(matrix)
        for matrix in matrices
    ):
        raise _misfit(network, "rollout")
    arrived = rollout(matrices)
    try:
        read = arrived[:, 0] if network.reads_class_token else network.to_grid(arrived).mean(dim=(2, 3))
        return logits, network.to_grid(read[:, :, None])
    except RuntimeError as error:  # as many rows as there are no patches
        raise _misfit(network, "rollout") from error


@contextmanager
def _unfused(layers: Sequence[Any]) -> Iterator[list[Tensor]]:
    """Keep the attention matrices of layers, mean over heads, ``(B, T, T)``, in the order of the pass.

    The fused computation never forms them, so it is off meanwhile; the results differ by rounding.
    """
    matrices: list[Tensor] = []
    was_fused = [layer.fused_attn for layer in layers]

    def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        matrices.append(given[0].float().mean(dim=1))

    handles = [layer.attn_drop.register_forward_pre_hook(keep) for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = False
        yield matrices
    finally:
        for layer, fused in zip(layers, was_fused, strict=True):
            layer.fused_attn = fused
        for handle in handles:
            handle.remove()


def _is_of_rows(matrix: Tensor) -> bool:
    """Tell whether rows are shares that sum to 1; what is not finite is left to a later check."""
    sums = matrix.sum(dim=-1)
    return bool(((sums - 1).abs() < _ROUNDING).logical_or(~sums.isfinite()).all())


def rollout(matrices: Sequence[Tensor]) -> Tensor:
    """Return what share of each token at the end comes from each token at the start.

    A block adds what its attention gives to what there was, so half of each token is taken to stay: the mean
    of the attention over heads and the identity are multiplied through the layers. What the layers compute of
    the tokens is not looked at.

    Args:
        matrices: Attention by layer, first to last, mean over heads; row t says where token t looks,
            shape ``(B, T, T)``, rows sum to 1.

    Returns:
        Shape ``(B, T, T)``; rows sum to 1.

    Example:
        >>> rollout([torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])])
        tensor([[[0.5000, 0.5000],
                 [0.0000, 1.0000]]])

    References:
        Abnar and Zuidema, Quantifying Attention Flow in Transformers, ACL 2020.
    """
    identity = torch.eye(matrices[0].shape[-1], device=matrices[0].device)
    arrived = identity.expand_as(matrices[0])
    for matrix in matrices:
        mixed = matrix + identity
        arrived = (mixed / mixed.sum(dim=-1, keepdim=True)) @ arrived
    return arrived
