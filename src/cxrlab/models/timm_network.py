"""A timm backbone with a head, and the table of a network's layers."""

import difflib
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import timm
import torch
from torch import Tensor, nn

from cxrlab.errors import ConfigError
from cxrlab.models.attention_head import AttentionHead
from cxrlab.models.batch_norm import batch_norm_layers
from cxrlab.models.freezing import Freeze, num_parameters, stage_parameters
from cxrlab.models.lora import LoRA, add_lora
from cxrlab.models.network import Network
from cxrlab.models.timm_options import as_keywords, check_features, checked_options
from cxrlab.models.weights import (
    BackboneOptions,
    WeightSource,
    check_weights_choice,
    initial_weights,
    load_backbone,
    load_named,
    load_pretrained,
)

Head = Literal["linear", "attention"]


class TimmNetwork(Network):
    """A timm backbone with a head of one or two layers.

    Args:
        backbone: Name of a timm architecture, such as ``densenet121``.
        num_labels: Number of logits, L.
        channels: Channels of the input, C.
        image_size: Height and width of the input in pixels; only transformers depend on it.
        pretrained: Start from the weights that timm publishes for it (ImageNet, mostly). They are summed
            over the colour channels where ``channels`` is 1.
        checkpoint_path: Start from a local .safetensors, .pth or .ckpt file instead.
        weights: Start from a named set instead, such as ``named_weights("efficientnet_lite0")``, of which the
            architecture must be.
        accept_license: Whether the conditions of ``weights`` are accepted, where their licence has any, such
            as no commercial use.
        options: timm's own keywords for the architecture, such as ``{"drop_path_rate": 0.1}``; None for none.
        head: ``linear`` reads the pooled features. ``attention`` takes the place of the pooling too: each
            label looks at the last spatial features by itself, of a transformer at the tokens of patches; see
            :class:`cxrlab.models.attention_head.AttentionHead`.
        own_head: Whether pooled features pass what the architecture itself has behind its pooling, such as
            MobileNetV3's layer from 960 to 1280 features; Keras' ``include_top=False`` leaves it out. The
            attention stands before all that, so that it is left out there.
        hidden: Width of a hidden layer with ReLU in the head, behind the attention where there is one; None
            for no such layer.
        dropout: Probability of dropping a feature before the last layer.
        feature_dropout: The same of a pooled feature of the backbone, before a hidden layer.
        freeze: What does not learn: ``backbone``, the number of its first stages, or ``norm_statistics``;
            None for nothing. See :class:`cxrlab.models.freezing.Freeze`.
        unfreeze_epoch: Epoch, counted from 0, from whose start all of it learns; None for never.
        lora: Low-rank updates of linear layers of the backbone, of which nothing else learns then; None, or
            one without a rank, for none.

    Attributes:
        feature_map: Passes the last spatial features of a convolutional backbone through unchanged, so that
            class activation maps have one place to look at in every family.

    Raises:
        ConfigError: If timm has no such architecture, it takes no such option, more than one source of
            weights is given, the named set is of another architecture or its conditions are not accepted, a
            value is out of its range, or two of them do not go together.
        CheckpointError: If the weights do not fit.
    """

    backbone: Any  # timm adds what nn.Module does not declare

    def __init__(
        self,
        backbone: str,
        *,
        num_labels: int,
        channels: int = 1,
        image_size: int = 224,
        pretrained: bool = False,
        checkpoint_path: str | None = None,
        weights: WeightSource | None = None,
        accept_license: bool = False,
        options: Mapping[str, object] | None = None,
        head: Head = "linear",
        own_head: bool = True,
        hidden: int | None = None,
        dropout: float = 0.0,
        feature_dropout: float = 0.0,
        freeze: str | int | None = None,
        unfreeze_epoch: int | None = None,
        lora: LoRA | None = None,
    ) -> None:
        super().__init__()
        self.image_size, self.channels = image_size, channels
        self._arguments: dict[str, object] = {
            "backbone": backbone, "head": head, "own_head": own_head, "hidden": hidden, "dropout": dropout,
            "feature_dropout": feature_dropout,
        }  # fmt: skip
        if pretrained and checkpoint_path:
            raise ConfigError(
                f"model.pretrained=true and model.checkpoint_path={checkpoint_path} exclude each "
                "other: set one."
            )
        if weights is not None:
            if pretrained or checkpoint_path:
                other = "model.pretrained=true" if pretrained else f"model.checkpoint_path={checkpoint_path}"
                raise ConfigError(f"weights={weights.name} and {other} exclude each other: set one.")
            check_weights_choice(weights, backbone, options, accept_license=accept_license)
        if head not in get_args(Head):
            raise ConfigError(f"model.head={head} must be one of {', '.join(get_args(Head))}.")
        if head == "attention" and not own_head:
            raise ConfigError(
                "model.own_head=false does not go with model.head=attention: the attention looks at the "
                "features before the architecture's own pooling, and leaves out all that stands behind it. "
                "Leave out model.own_head."
            )
        if hidden is not None and hidden < 1:
            raise ConfigError(f"model.hidden={hidden} must be at least 1, or null for a linear head.")
        for name, value in {"dropout": dropout, "feature_dropout": feature_dropout}.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"model.{name}={value} must lie between 0 and 1.")
        self.has_lora = lora is not None and bool(lora.rank)
        if self.has_lora and (freeze is not None or unfreeze_epoch is not None):
            raise ConfigError(
                f"model.lora.rank with model.freeze={freeze} and model.unfreeze_epoch={unfreeze_epoch}: with "
                "LoRA nothing of the backbone learns but the low-rank updates, from the first epoch to the "
                "last. Set both to null; to train all of it afterwards, start a second run from the first "
                "one's best.ckpt by model.checkpoint_path."
            )
        if unfreeze_epoch is not None and (freeze is None or unfreeze_epoch < 1):
            raise ConfigError(
                f"model.unfreeze_epoch={unfreeze_epoch} with model.freeze={freeze}: it is an epoch from 1 "
                "on, of something frozen before."
            )
        settings = _backbone_options(backbone, channels, image_size)
        extra = checked_options(backbone, options)
        self._arguments["options"] = extra or None
        create = load_pretrained if pretrained else _create
        self.backbone = create(backbone, settings, as_keywords(extra))
        _check_patches(self.backbone, backbone, image_size)
        check_features(self.backbone, extra, image_size, channels)
        if checkpoint_path:
            load_backbone(self.backbone, checkpoint_path)
        if weights is not None:
            load_named(self.backbone, weights)
        self.initial_weights = initial_weights(
            backbone, pretrained=pretrained, checkpoint_path=checkpoint_path, weights=weights
        )
        self.feature_map = nn.Identity()
        self.feature_dropout = nn.Dropout(feature_dropout)
        self.head: nn.Sequential | AttentionHead
        if head == "attention":
            num_features = _without_pooling(self.backbone)
            self.head = AttentionHead(
                num_features, num_labels, hidden=hidden, dropout=dropout, feature_dropout=feature_dropout
            )
        else:
            num_features = int(self.backbone.head_hidden_size)
            if not own_head:
                num_features = _without_own_head(self.backbone, backbone)
            layers: list[nn.Module] = []
            if hidden is not None:
                layers += [nn.Linear(num_features, hidden), nn.ReLU()]
            layers += [nn.Dropout(dropout), nn.Linear(num_features if hidden is None else hidden, num_labels)]
            self.head = nn.Sequential(*layers)
        self.unfreeze_epoch = unfreeze_epoch
        self.freeze = None if freeze is None else Freeze(self.backbone, freeze, backbone)
        if lora is not None and self.has_lora:
            add_lora(self.backbone, lora, backbone)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, L)`` of preprocessed images ``(B, C, H, W)``."""
        if isinstance(self.head, AttentionHead):
            of_labels: Tensor = self.head(self._grid(images))
            return of_labels
        return self.classify(self.embed(images))

    def _grid(self, images: Tensor) -> Tensor:
        return self.to_grid(self.feature_map(self.backbone.forward_features(images)))

    def embed(self, images: Tensor) -> Tensor:
        """Return the backbone's pooled features ``(B, F)`` of preprocessed images ``(B, C, H, W)``.

        Where each label looks by itself, nothing is pooled for all of them: it is the mean over places.
        """
        if self.label_attention is not None:
            return self._grid(images).mean(dim=(2, 3))
        features = self.feature_map(self.backbone.forward_features(images))
        pooled: Tensor = self.backbone.forward_head(features, pre_logits=True)
        return pooled

    def classify(self, features: Tensor) -> Tensor:
        """Return the head's logits ``(B, L)`` of pooled features ``(B, F)``.

        Where each label looks by itself, they are those of an image with a single place.
        """
        if isinstance(self.head, AttentionHead):
            of_labels: Tensor = self.head(features[:, :, None, None])
            return of_labels
        logits: Tensor = self.head(self.feature_dropout(features))
        return logits

    @property
    def linear_head(self) -> nn.Linear | None:
        """The head's one layer; None where it has a hidden one, or where each label looks by itself."""
        if isinstance(self.head, AttentionHead):
            return None
        layers = [layer for layer in self.head if not isinstance(layer, nn.Dropout)]
        return layers[0] if len(layers) == 1 and isinstance(layers[0], nn.Linear) else None

    def train(self, mode: bool = True) -> "TimmNetwork":
        """Set the mode of everything but what is frozen, which stays in evaluation mode."""
        super().train(mode)
        if self.freeze:
            self.freeze.hold()
        if self.has_lora:
            for layer in batch_norm_layers(self.backbone).values():
                layer.eval()
        return self

    def at_epoch(self, epoch: int) -> None:
        """Let everything learn where this is the epoch for it; called at every step of training."""
        if self.freeze and self.unfreeze_epoch is not None and epoch >= self.unfreeze_epoch:
            self.freeze.end()
            self.freeze = None
            self.train(self.training)

    def stages(self) -> list[list[nn.Parameter]]:
        """Return the backbone's parameters by stage, the stem's first."""
        return stage_parameters(self.backbone)

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters behind the backbone."""
        return list(self.head.parameters())

    def arguments(self) -> Mapping[str, object]:
        """Return what makes the same network, but for shape, initial weights and training."""
        return dict(self._arguments)

    @property
    def feature_layer(self) -> nn.Module:
        """The layer that class activation maps read.

        The last spatial features, except where the head looks at the class token only: there no gradient
        reaches the other tokens behind the last attention, so the layer before it is taken.
        """
        if self.label_attention is not None:
            return self.feature_map
        blocks = getattr(self.backbone, "blocks", None)
        if getattr(self.backbone, "num_prefix_tokens", 0) and isinstance(blocks, nn.Sequential):
            layer = blocks[-1].norm1
            if isinstance(layer, nn.Module):
                return layer
        return self.feature_map

    @property
    def label_attention(self) -> nn.Module | None:
        """The layer that gives the weights of places by label, where the head is an attention."""
        return self.head.attention if isinstance(self.head, AttentionHead) else None

    @property
    def self_attention(self) -> list[nn.Module]:
        """The attention of each block of a transformer, where it is of all tokens to all; else none."""
        layers = [getattr(block, "attn", None) for block in getattr(self.backbone, "blocks", ())]
        known = [
            layer
            for layer in layers
            if isinstance(layer, nn.Module) and hasattr(layer, "attn_drop") and hasattr(layer, "fused_attn")
        ]
        return known if len(known) == len(layers) else []

    @property
    def reads_class_token(self) -> bool:
        """Whether the head is told of an image by its class token alone."""
        is_token = getattr(self.backbone, "global_pool", None) == "token"
        return is_token and self.label_attention is None

    @property
    def stage_layers(self) -> dict[str, nn.Module]:
        """The layers that end a stage, by name, the finest grid first: other places for activation maps."""
        names = [f"backbone.{stage['module']}" for stage in self.backbone.feature_info]
        return {name: self.get_submodule(name) for name in names}

    def to_grid(self, activations: Tensor) -> Tensor:
        """Bring the output of ``feature_layer`` to ``(B, F, h, w)``, whatever the family's own layout."""
        if activations.ndim == 3:  # tokens (B, T, F)
            tokens = activations[:, int(getattr(self.backbone, "num_prefix_tokens", 0)) :]
            side = math.isqrt(tokens.shape[1])
            return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], side, side)
        if getattr(self.backbone, "output_fmt", "NCHW") == "NHWC":
            return activations.permute(0, 3, 1, 2)
        return activations


def _backbone_options(backbone: str, channels: int, image_size: int) -> BackboneOptions:
    """Return what timm needs beside the name; only architectures of a fixed input size take the size."""
    base_name = backbone.split(".", 1)[0]
    if not timm.is_model(base_name):
        near = difflib.get_close_matches(base_name, timm.list_models(), n=3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise ConfigError(f"timm has no architecture {backbone!r} (model.backbone).{hint}")
    options: BackboneOptions = {"num_classes": 0, "in_chans": channels}
    config = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    if config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    return options


def _create(backbone: str, settings: BackboneOptions, options: Mapping[str, Any]) -> nn.Module:
    try:
        network: nn.Module = timm.create_model(backbone, pretrained=False, **settings, **options)
    except Exception as error:  # timm checks few of its keywords
        chosen = f" and model.options={dict(options)}" if options else ""
        raise ConfigError(
            f"timm cannot build model.backbone={backbone} with {settings}{chosen}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return network


def _without_own_head(network: Any, backbone: str) -> int:
    """Let pooled features past what stands behind the pooling, and return their number."""
    layers = ("conv_head", "norm_head", "act2")
    if network.num_features == network.head_hidden_size or not hasattr(network, "act2"):
        raise ConfigError(
            f"model.own_head=false: {backbone} has no layer of its own behind the pooling, as "
            "MobileNetV3 has. Leave it out."
        )
    for name in layers:
        if hasattr(network, name):
            setattr(network, name, nn.Identity())
    return int(network.num_features)


def _without_pooling(network: Any) -> int:
    """Leave out all that stands behind the last spatial features, and return their number.

    Parameters that are never used would stop a training on several GPUs.
    """
    layers = ["head", "classifier", "fc", "fc_norm", "attn_pool", "pre_logits", "global_pool"]
    if network.num_features != network.head_hidden_size:
        layers += ["conv_head", "norm_head", "act2"]
    for name in layers:
        if isinstance(getattr(network, name, None), nn.Module):
            setattr(network, name, nn.Identity())
    return int(network.num_features)


def _check_patches(network: nn.Module, backbone: str, image_size: int) -> None:
    patches = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if patches and (image_size < patches[0] or image_size % patches[0]):
        raise ConfigError(
            f"{backbone} cuts images into patches of {patches[0]} pixels, and data.image_size={image_size} "
            "is no multiple of that."
        )


def layer_table(network: nn.Module, image_size: int, channels: int) -> str:
    """Return a table of the layers with their output shapes and parameters, for a batch of one image."""
    rows: list[tuple[str, str, str, str]] = []
    handles = []

    def record(name: str, layer: nn.Module) -> None:
        def hook(_: nn.Module, __: object, output: object) -> None:
            shape = "x".join(map(str, output.shape[1:])) if isinstance(output, Tensor) else "-"
            count = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
            rows.append((name, type(layer).__name__, shape, f"{count:,}"))

        handles.append(layer.register_forward_hook(hook))

    for name, layer in network.named_modules():
        if not any(True for _ in layer.children()):
            record(name, layer)
    was_training = network.training
    try:
        with torch.no_grad():
            parameter = next(network.parameters())
            network.eval()(torch.zeros(1, channels, image_size, image_size, device=parameter.device))
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    rows.insert(0, ("layer", "type", "output", "parameters"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}"
        for row in rows
    ]
    return "\n".join([*lines, "", count_parameters(network), ""])


def count_parameters(network: nn.Module) -> str:
    """Return in words how many parameters a network has, and how many of them learn, and from when.

    Example:
        >>> count_parameters(TimmNetwork("resnet10t", num_labels=1, freeze="backbone", unfreeze_epoch=2))
        '4,922,569 parameters, 513 of them trainable, all from epoch 2 on'
    """
    total, trainable = num_parameters(network)
    epoch = getattr(network, "unfreeze_epoch", None)
    later = "" if epoch is None or trainable == total else f", all from epoch {epoch} on"
    return f"{total:,} parameters, {trainable:,} of them trainable{later}"
