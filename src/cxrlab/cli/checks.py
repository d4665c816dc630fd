"""What is checked before any image is decoded: parts of a config that do not fit one another, or the labels.

Decoding takes minutes to hours, and a rate below 0 or an image size that a network cannot have needs none
of it.
"""

import torch
from omegaconf import DictConfig

from cxrlab.cli import config
from cxrlab.data.manifest import Manifest
from cxrlab.errors import ConfigError, UserError
from cxrlab.losses import build_loss, check_task, label_frequencies
from cxrlab.losses.base import known_loss
from cxrlab.metrics.streaming import WITH_PENALTY, check_monitor, label_metrics
from cxrlab.models.network import Network
from cxrlab.task import check_exclusive
from cxrlab.training.optim import ParameterGroup, parameter_groups

_STEPS_PER_EPOCH = 10  # of a schedule that is made for its errors only


def check_image_size(network: Network) -> None:
    """Send one black image through a network, which is left as it was.

    Raises:
        ConfigError: If the network cannot have images of this size.
    """
    size, channels = network.image_size, network.channels
    parameter = next(network.parameters(), torch.zeros(()))
    images = torch.zeros((1, channels, size, size), dtype=parameter.dtype, device=parameter.device)
    was_training = network.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            network.eval()(images)
    except UserError:
        raise
    except Exception as error:  # whatever the layers of any network raise
        raise ConfigError(
            f"The network {network.arguments().get('backbone', network.title)} cannot have "
            f"data.image_size={size} (data.channels={channels}): "
            f"{_first_line(error)}"
        ) from error
    finally:
        network.train(was_training)


def check_optimizer(cfg: DictConfig, network: Network) -> None:
    """Build the optimizer and its schedule for a network that is thrown away.

    Raises:
        ConfigError: If one of them refuses its values, naming the keys of those that it quotes.
    """
    groups = [dict(group) for group in build_groups(cfg, network)]
    optimizer = config.guarded(cfg.optimizer, "optimizer")(groups)
    if cfg.data.overfit_images:
        return
    num_epochs = cfg.trainer.get("max_epochs")
    num_epochs = num_epochs if isinstance(num_epochs, int) and num_epochs > 0 else 8
    with torch.random.fork_rng(devices=[]):
        config.guarded(cfg.scheduler, "scheduler")(
            optimizer, num_steps=_STEPS_PER_EPOCH * num_epochs, num_epochs=num_epochs
        )


def build_groups(cfg: DictConfig, network: Network) -> list[ParameterGroup]:
    """Return a network's parameters in the groups that the optimizer takes."""
    return parameter_groups(
        network,
        rates=config.build(cfg.layer_rates),
        lr=cfg.optimizer.get("lr"),
        decay_norms_and_biases=cfg.decay_norms_and_biases,
    )


def check_data_fit(cfg: DictConfig, manifest: Manifest, network: Network) -> None:
    """Check what the labels of a data set decide: metrics that are monitored, the loss, the task.

    Args:
        cfg: As in conf/train.yaml, checked.
        manifest: As it was read, before any split.
        network: That is trained, or one like it.

    Raises:
        ConfigError: If the monitored metric, a metric of one's own or the loss does not fit.
        DataError: If the labels are no exclusive classes, and the task says so.
    """
    labels, targets = manifest.labels, torch.tensor(manifest.targets, dtype=torch.float32)
    check_monitor(cfg.monitor, cfg.monitor_mode, labels, keys=("monitor", "monitor_mode"))
    if "monitor" in cfg.scheduler:
        keys = ("scheduler.monitor", "scheduler.mode")
        check_monitor(cfg.scheduler.monitor, cfg.scheduler.mode, labels, keys=keys)
    with torch.no_grad():
        penalty = float(network.penalty())
    for key, monitor in {"monitor": cfg.monitor, "scheduler.monitor": cfg.scheduler.get("monitor")}.items():
        if monitor == WITH_PENALTY and not penalty:
            raise ConfigError(f"{key}={monitor}, but {network.title} adds no penalty: {key}=val/loss.")
    if cfg.task == "multiclass":
        check_exclusive(targets, labels)
    _check_loss(cfg, targets)
    _check_metrics(cfg, targets, labels)


def _check_loss(cfg: DictConfig, targets: torch.Tensor) -> None:
    """Compute the loss of a few images of which nothing is known yet: logits of 0."""
    sample = targets[: min(len(targets), 8)]
    with torch.random.fork_rng(devices=[]):
        loss = build_loss(config.guarded(cfg.loss, "loss"), label_frequencies(targets).tolist())
        check_task(loss, cfg.task)
        try:
            known_loss(loss, torch.zeros_like(sample), sample)
        except UserError:
            raise
        except Exception as error:  # a person's own code may fail in any way
            raise ConfigError(
                f"The loss {type(loss).__name__} fails on logits and targets of the shape "
                f"{tuple(sample.shape)}: {_first_line(error)}"
            ) from error


def _check_metrics(cfg: DictConfig, targets: torch.Tensor, labels: list[str]) -> None:
    """Compute the metrics of a few made-up images, one's own among them."""
    if not cfg.metrics:
        return
    made_up = (torch.arange(16 * len(labels)) % 2).reshape(16, len(labels)).float()
    probabilities = torch.linspace(0.1, 0.9, 16)[:, None].expand(16, len(labels))
    try:
        label_metrics(probabilities, made_up, labels, cfg.task)
    except UserError:
        raise
    except Exception as error:  # a person's own code may fail in any way
        raise ConfigError(
            f"metrics={config.plain(cfg.metrics)}: one of them fails on 16 images: {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
