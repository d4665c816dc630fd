"""Weights from elsewhere: timm's published ones, or a local file; never skipped silently."""

import logging
import re
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from cxrlab.errors import CheckpointError, MissingFileError

log = logging.getLogger(__name__)

# Parameters of a classification head, in the spellings of timm and torchvision.
_HEAD = re.compile(r"(^|\.)(classifier|fc|head|head_dist|heads)(\.|$)")
# What wrappers put before the backbone's own names: DataParallel, Lightning modules, this project.
_PREFIXES = ("module.", "model.", "network.", "backbone.")


def load_pretrained(backbone: str, options: dict[str, Any]) -> nn.Module:
    """Create a timm model with the weights that timm publishes for it.

    Raises:
        CheckpointError: If there are none, or they cannot be fetched.
    """
    try:
        network: nn.Module = timm.create_model(backbone, pretrained=True, **options)
    except Exception as error:  # the hub's client raises errors of many kinds when it is offline
        config = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
        source = (config and (config.hf_hub_id or config.url)) or "no source known to timm"
        reason = (str(error) or "no message").splitlines()[0].rstrip(".")
        raise CheckpointError(
            f"model.pretrained=true: the weights of {backbone} ({source}) could not be loaded: "
            f"{type(error).__name__}: {reason}. "
            "Without a network, fetch model.safetensors elsewhere and set model.checkpoint_path to it, "
            "or train from random weights with model.pretrained=false."
        ) from error
    return network


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors, .pth, .pt or .ckpt file; no code in it is run.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If it is cut short, empty, or holds something else.
    """
    if not path.is_file():
        raise MissingFileError(f"There is no file {path} (model.checkpoint_path).")
    try:
        if path.suffix == ".safetensors":
            weights: Any = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) cannot be read as weights: it is cut short, or no file of "
            f"PyTorch or safetensors ({type(error).__name__}: {str(error)[:200]})."
        ) from error
    except Exception as error:  # torch.load answers pickles that hold code with its own UnpicklingError
        raise CheckpointError(f"{path} holds more than tensors, so it was not loaded: {error}") from error
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(weights, dict) and isinstance(weights.get(key), dict):
            weights = weights[key]
    tensors = {k: v for k, v in weights.items() if isinstance(v, Tensor)} if isinstance(weights, dict) else {}
    if not tensors:
        raise CheckpointError(f"{path} holds no named tensors: it is not a state dict.")
    return tensors


def refuse_other_weights(module: nn.Module, path: Path) -> None:
    """Read a checkpoint and compare its weights with a module's, by name and shape.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If it cannot be read, or a weight is missing, superfluous or of another shape.
    """
    own, weights = module.state_dict(), read_weights(path)
    differing = sorted(own.keys() ^ weights.keys())
    differing += sorted(
        name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape
    )
    if differing:
        raise CheckpointError(
            f"{path} does not fit the network of the config: {len(differing)} of {len(own)} weights differ "
            f"in name or shape, among them {differing[:3]}. Was the run started with another model?"
        )


def load_backbone(backbone: nn.Module, checkpoint_path: str) -> None:
    """Load a file's weights into a backbone: every parameter but the head's must be there and fit.

    Weights of the first layer for another number of input channels are summed or repeated, as timm does.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If it belongs to another architecture.
    """
    path = Path(checkpoint_path).expanduser()
    weights = _without_prefixes(read_weights(path), set(backbone.state_dict()))
    _adapt_first_layer(backbone, weights)
    own = backbone.state_dict()
    wanted = {name for name in own if not name.endswith("num_batches_tracked")}
    missing = sorted(wanted - weights.keys())
    misfits = sorted(n for n in wanted & weights.keys() if own[n].shape != weights[n].shape)
    if missing or misfits:
        shapes = [f"{n} {tuple(weights[n].shape)} for {tuple(own[n].shape)}" for n in misfits[:3]]
        raise CheckpointError(
            f"{path} does not fit the network: {len(missing)} of its {len(wanted)} parameters are missing "
            f"{missing[:3]}, {len(misfits)} have another shape {shapes}. Is model=... the architecture "
            "it was trained with?"
        )
    unused = sorted(weights.keys() - own.keys())
    foreign = [name for name in unused if not _HEAD.search(name)]
    backbone.load_state_dict({name: weights[name] for name in own if name in weights}, strict=False)
    log.info("Loaded %d parameters of %s; not used: %s.", len(wanted), path, unused or "nothing")
    if foreign:
        log.warning(
            "%d parameters of %s are not of the head and were not used: %s.", len(foreign), path, foreign[:5]
        )


def _without_prefixes(weights: dict[str, Tensor], own: set[str]) -> dict[str, Tensor]:
    """Strip what wrappers put before the names, as long as that brings more names to match."""
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            stripped = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
            if len(own & stripped.keys()) > len(own & weights.keys()) or not (own & weights.keys()):
                weights = stripped
    return weights


def _adapt_first_layer(backbone: nn.Module, weights: dict[str, Tensor]) -> None:
    """Convert the first convolution's weights in place where only the number of input channels differs."""
    own = backbone.state_dict()
    for name, tensor in weights.items():
        if name not in own or tensor.ndim != 4 or own[name].ndim != 4 or own[name].shape == tensor.shape:
            continue
        if (
            own[name].shape[0] == tensor.shape[0]
            and own[name].shape[2:] == tensor.shape[2:]
            and tensor.shape[1] == 3
        ):
            weights[name] = adapt_input_conv(own[name].shape[1], tensor)
            log.info("Adapted %s from 3 to %d input channels.", name, own[name].shape[1])
