"""LoRA: low-rank updates of a backbone's linear layers, the only thing of it that learns.

A layer of weights W gives ``W' x + b`` with ``W' = W + (alpha / rank) B A``. W and everything else of the
backbone stay as they are; A and B learn, and the head behind the backbone does. For use the update is merged
into W, so that the network is an ordinary one again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cxrlab.errors import CheckpointError, ConfigError

# What a layer adds to a state dict.
_NAMES = ("lora_A", "lora_B", "lora_scaling")


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Which linear layers of a backbone learn by low-rank updates, and of what rank.

    Args:
        rank: Of the updates, r; None or 0 for no LoRA.
        targets: Last names of the layers, such as ``qkv``, ``proj``, ``fc1`` and ``fc2`` of timm's
            transformers; ``attn.proj`` tells those of the attention from others of that name.
        alpha: The update is scaled by alpha / rank, so that the rate need not follow the rank.
        dropout: Probability of dropping an input of the update, in training.

    Raises:
        ConfigError: If a value is out of its range, or has no effect for want of a rank.

    References:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022.
    """

    rank: int | None = None
    targets: Sequence[str] = ("qkv", "proj")
    alpha: float = 16.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        is_whole = isinstance(self.rank, int) and not isinstance(self.rank, bool) and self.rank >= 0
        if self.rank is not None and not is_whole:
            raise ConfigError(
                f"model.lora.rank={self.rank} must be a whole number from 1 on; null or 0: no LoRA."
            )
        if isinstance(self.targets, str) or not self.targets:
            raise ConfigError(
                f"model.lora.targets={self.targets!r} must list names of layers, as "
                "model.lora.targets=[qkv,proj] does."
            )
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"model.lora.alpha={self.alpha} must be above 0 and finite; 16 is usual.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.lora.dropout={self.dropout} must be at least 0 and below 1.")
        object.__setattr__(self, "targets", tuple(self.targets))
        given = (self.targets, self.alpha, self.dropout)
        if self.rank is None and given != (LoRA.targets, LoRA.alpha, LoRA.dropout):
            raise ConfigError(
                f"model.lora: targets={list(self.targets)}, alpha={self.alpha} and dropout={self.dropout} "
                "have no effect without model.lora.rank: set it, such as 8 (0 for no LoRA)."
            )


class LoRALinear(nn.Linear):
    """A linear layer with a low-rank update beside its weight, which does not learn.

    In evaluation it multiplies with the merged weight, as the network that is saved does, so that both give
    the same numbers in any precision. A state dict without A and B is of merged weights, to which no update
    is added: B is 0 then.

    Args:
        layer: Whose weight and bias it takes over.
        rank: Of the update, r.
        alpha: The update is scaled by ``alpha / rank``.
        dropout: Probability of dropping an input of the update, in training.

    Attributes:
        lora_A: Shape ``(r, in_features)``; Kaiming's uniform distribution at the start.
        lora_B: Shape ``(out_features, r)``; 0 at the start, so that the layer gives what it gave.
        lora_scaling: ``alpha / rank``; a buffer, so that a state dict can be merged by itself.
    """

    lora_scaling: Tensor

    def __init__(self, layer: nn.Linear, *, rank: int, alpha: float, dropout: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        # Under its plain name, though the attribute of that name gives the merged one.
        self._parameters["weight"] = cast("nn.Parameter", layer.weight)
        self.register_parameter("bias", layer.bias)
        self.lora_A = nn.Parameter(layer.weight.new_empty(rank, layer.in_features))
        self.lora_B = nn.Parameter(layer.weight.new_empty(layer.out_features, rank))
        self.register_buffer("lora_scaling", layer.weight.new_tensor(alpha / rank))
        self.dropout = dropout
        self.train(layer.training)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw A anew and set B to 0."""
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B)

    @property
    def frozen_weight(self) -> Tensor:
        """W, shape ``(out_features, in_features)``."""
        return cast("Tensor", self._parameters["weight"])

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """W', also for those that read it and do not call the layer, such as Swin V2's attention."""
        return _merged_weight(self.frozen_weight, self.lora_A, self.lora_B, self.lora_scaling)

    def forward(self, input: Tensor) -> Tensor:
        """Return ``(..., out_features)`` of ``(..., in_features)``."""
        if not self.training:
            return functional.linear(input, self.weight, self.bias)
        output = functional.linear(input, self.frozen_weight, self.bias)
        narrow = functional.linear(functional.dropout(input, self.dropout), self.lora_A)
        return output + functional.linear(narrow * self.lora_scaling, self.lora_B)

    def extra_repr(self) -> str:
        """Return the shape, the rank and the scaling."""
        rank, scaling = len(self.lora_A), float(self.lora_scaling)
        return f"{super().extra_repr()}, rank={rank}, scaling={scaling:g}, dropout={self.dropout:g}"

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        """Take a state dict without A and B for what it is: of merged weights."""
        names = [prefix + name for name in _NAMES]
        if prefix + "weight" in state_dict and not any(name in state_dict for name in names):
            values = (self.lora_A.detach(), torch.zeros_like(self.lora_B), self.lora_scaling)
            state_dict.update(zip(names, values, strict=True))
        super()._load_from_state_dict(state_dict, prefix, *args)


def add_lora(backbone: nn.Module, lora: LoRA, name: str) -> None:
    """Freeze a backbone and give its linear layers low-rank updates, in place.

    Args:
        backbone: With the weights that it starts from.
        lora: Of a rank.
        name: What the backbone is called, for messages.

    Raises:
        ConfigError: If a target is no linear layer of it, or the rank is larger than one of the layers.
    """
    rank, layers = lora.rank or 0, _targeted(backbone, lora.targets, name)
    largest = min(min(layer.weight.shape) for layer in layers.values())
    if not 1 <= rank <= largest:
        path, layer = min(layers.items(), key=lambda item: min(item[1].weight.shape))
        raise ConfigError(
            f"model.lora.rank={rank} is more than the layer {path} of {name} has, with {layer.in_features} "
            f"inputs and {layer.out_features} outputs: give at most {largest}; 4 to 16 are usual."
        )
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    for path, layer in layers.items():
        _replace(backbone, path, LoRALinear(layer, rank=rank, alpha=lora.alpha, dropout=lora.dropout))


def _targeted(backbone: nn.Module, targets: Sequence[str], name: str) -> dict[str, nn.Linear]:
    """Return the linear layers that targets name, by their dotted path."""
    linear = {path: layer for path, layer in backbone.named_modules() if type(layer) is nn.Linear}
    layers_of = {target: {path for path in linear if f".{path}".endswith(f".{target}")} for target in targets}
    idle = [target for target, paths in layers_of.items() if not paths]
    if not linear:
        raise ConfigError(
            f"model.lora.targets=[{','.join(targets)}]: {name} has no linear layers, the only ones that LoRA "
            "works on. It is for transformers, such as model=vit_small; leave model.lora.rank out."
        )
    if idle:
        raise ConfigError(
            f"model.lora.targets=[{','.join(targets)}]: no linear layer of {name} is called "
            f"{' or '.join(idle)}. Those that it has are {', '.join(_short_names(linear))}."
        )
    chosen = set().union(*layers_of.values())
    return {path: layer for path, layer in linear.items() if path in chosen}


def _short_names(paths: Sequence[str] | Mapping[str, object]) -> list[str]:
    """Return what dotted paths end with, each once: a name, with the one before it where it is a number."""
    names = []
    for path in paths:
        parts = path.split(".")
        num_numbers = next((n for n, part in enumerate(reversed(parts)) if not part.isdecimal()), 0)
        names.append(".".join(parts[-1 - num_numbers :]))
    return list(dict.fromkeys(names))


def lora_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the low-rank updates, A and B of each layer; empty without LoRA."""
    layers = [layer for layer in network.modules() if isinstance(layer, LoRALinear)]
    return [parameter for layer in layers for parameter in (layer.lora_A, layer.lora_B)]


def merge_lora(network: nn.Module) -> None:
    """Make an ordinary network of one with LoRA, in place: each update goes into the weight of its layer."""
    layers = {path: layer for path, layer in network.named_modules() if isinstance(layer, LoRALinear)}
    for path, layer in layers.items():
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        plain.weight = nn.Parameter(layer.weight.detach(), requires_grad=False)
        plain.bias = layer.bias
        _replace(network, path, plain.train(layer.training))


def _replace(network: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, layer)


def merged(weights: dict[str, Tensor], source: str = "The weights") -> dict[str, Tensor]:
    """Return a state dict as an ordinary network has it: each low-rank update added to its layer's weight.

    Args:
        weights: By name; without updates they come back themselves.
        source: What they are of, for messages.

    Raises:
        CheckpointError: If an update lacks a part, or does not fit its layer.
    """
    own = {name: tensor for name, tensor in weights.items() if name.rpartition(".")[2] not in _NAMES}
    layers = dict.fromkeys(name.rpartition(".")[0] for name in weights if name not in own)
    if not layers:
        return weights
    for layer in layers:
        prefix = f"{layer}." if layer else ""
        missing = [name for name in ("weight", *_NAMES) if prefix + name not in weights]
        if missing:
            raise CheckpointError(
                f"{source} hold a low-rank update of {layer} without {', '.join(missing)}, so that it cannot "
                "be merged. Merge it with the program that made it, or take the weights without it."
            )
        weight, lora_A, lora_B, scaling = (weights[prefix + name] for name in ("weight", *_NAMES))
        if (lora_B.shape[:1] + lora_A.shape[1:], lora_A.shape[:1]) != (weight.shape, lora_B.shape[1:]):
            shapes = [tuple(tensor.shape) for tensor in (lora_A, lora_B, weight)]
            raise CheckpointError(
                f"{source} hold a low-rank update of {layer} that does not fit it: A {shapes[0]} and B "
                f"{shapes[1]} for a weight {shapes[2]}."
            )
        own[prefix + "weight"] = _merged_weight(weight, lora_A, lora_B, scaling)
    return own


def _merged_weight(weight: Tensor, lora_A: Tensor, lora_B: Tensor, scaling: Tensor) -> Tensor:
    """Return W + scaling B A, rounded once: neither autocast nor TF32 touches float64."""
    wide = torch.float32 if weight.device.type == "mps" else torch.float64  # which Apple's GPUs lack
    update = scaling.to(wide) * (lora_B.to(wide) @ lora_A.to(wide))
    return (weight.to(wide) + update).to(weight.dtype)
