"""What a config says of the weights that a network starts from: whether they fit it, and their statistics."""

import inspect
import logging
from collections.abc import Sequence
from typing import NamedTuple

import timm
from omegaconf import DictConfig, OmegaConf

from cxrlab.cli import config
from cxrlab.cli.validation import located
from cxrlab.errors import ConfigError
from cxrlab.models.timm_network import TimmNetwork
from cxrlab.models.weights import WeightSource, check_weights_choice, for_channels, weight_names

log = logging.getLogger(__name__)

_OF_WEIGHTS = "${weights.backbone}"


class Statistics(NamedTuple):
    """Mean and standard deviation of images by channel, on the scale 0 to 1, and whose they are."""

    mean: list[float]
    std: list[float]
    owner: str


def check_architecture_is_told(cfg: DictConfig) -> None:
    """Refuse ``model=of_weights`` without weights; references need not be followed yet.

    Raises:
        ConfigError: If no weights are chosen.
    """
    model = OmegaConf.to_container(cfg.model, resolve=False)
    if isinstance(model, dict) and model.get("backbone") == _OF_WEIGHTS and cfg.get("weights") is None:
        raise ConfigError(
            "model=of_weights is the architecture of weights, and none are chosen: set weights=<name>, one "
            f"of {', '.join(weight_names())}."
        )


def chosen_weights(cfg: DictConfig) -> WeightSource | None:
    """Return the named set that a config chooses; None for none.

    Raises:
        ConfigError: If its description does not fit itself.
    """
    if cfg.get("weights") is None:
        return None
    weights: WeightSource = config.build(cfg.weights)
    return weights


def check_weights(cfg: DictConfig) -> None:
    """Refuse a named set that the network cannot start from, or whose conditions are not accepted.

    Args:
        cfg: As in conf/train.yaml, references followed.

    Raises:
        ConfigError: Naming the keys.
    """
    weights = chosen_weights(cfg)
    if weights is None:
        return
    network = located(str(cfg.model.get("_target_")), "model")
    if not (inspect.isclass(network) and issubclass(network, TimmNetwork) and cfg.model.get("_partial_")):
        raise ConfigError(
            f"weights={weights.name} are for a timm architecture, and model is {cfg.model.get('_target_')}: "
            "choose model=of_weights."
        )
    for key in ("pretrained", "checkpoint_path"):
        if cfg.model.get(key):
            raise ConfigError(
                f"weights={weights.name} and model.{key}={cfg.model[key]} exclude each other: set one."
            )
    model = config.plain(cfg.model)
    accepted = bool(model.get("accept_license"))
    check_weights_choice(weights, model["backbone"], model.get("options"), accept_license=accepted)


def log_image_size(weights: WeightSource, image_size: int) -> None:
    """Say at which size weights were trained, where images have another."""
    if weights.image_size != image_size:
        log.info(
            "weights=%s were trained at %d px, and data.image_size=%d. data.image_size=%d shows them images "
            "of the size that they know.",
            weights.name, weights.image_size, image_size, weights.image_size,
        )  # fmt: skip


def expected_statistics(cfg: DictConfig) -> Statistics | None:
    """Return what the weights that a network starts from expect of its images; None where it is not known.

    Known are those of a named set, and of timm's published weights. Both stand in the config or in timm: a
    resumed run has them without the weights.

    Args:
        cfg: As in conf/train.yaml, references followed.
    """
    channels = int(cfg.data.channels)
    weights = chosen_weights(cfg)
    if weights is not None:
        return _for_channels(weights.mean, weights.std, channels, f"weights={weights.name}")
    if cfg.model.get("pretrained") and (backbone := cfg.model.get("backbone")):
        published = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
        if published is not None and published.mean and published.std:
            owner = f"timm's {published.architecture}.{published.tag}"
            return _for_channels(published.mean, published.std, channels, owner)
    return None


def _for_channels(mean: Sequence[float], std: Sequence[float], channels: int, owner: str) -> Statistics:
    return Statistics(for_channels(mean, channels), for_channels(std, channels), owner)
