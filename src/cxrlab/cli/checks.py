"""What is checked before any image is decoded: parts of a config that do not fit one another, or the labels.

Decoding takes minutes to hours, and a rate below 0 or an image size that a network cannot have needs none
of it.
"""

import logging

import torch
from omegaconf import DictConfig, OmegaConf

from cxrlab.augment import NoAugment
from cxrlab.cli import config
from cxrlab.data.datamodule import DataModule
from cxrlab.data.manifest import Manifest
from cxrlab.errors import ConfigError, UserError
from cxrlab.evaluation.run_contamination import check_before_decoding, check_start
from cxrlab.losses import build_loss, check_task, label_frequencies
from cxrlab.losses.base import known_loss
from cxrlab.metrics.streaming import WITH_PENALTY, check_monitor, label_metrics
from cxrlab.models.network import Network, in_eval_mode
from cxrlab.models.weights import InitialWeights
from cxrlab.runs.features import check_precision
from cxrlab.task import check_exclusive
from cxrlab.training.optim import ParameterGroup, parameter_groups
from cxrlab.training.solvers import LogisticSolver, Solver, check_loss

log = logging.getLogger(__name__)

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


def check_solver(cfg: DictConfig, network: Network, solver: Solver) -> None:
    """Check that a solver which reads the features of a frozen backbone finds one, and nothing beside it.

    Args:
        cfg: As in conf/train.yaml, checked.
        network: That is thrown away.
        solver: Of the config.

    Raises:
        ConfigError: Naming the key that would have no effect, or would make features change.
    """
    if not solver.reads_features:
        return
    name = "solver=logistic" if isinstance(solver, LogisticSolver) else "solver.caches_features=true"
    _check_frozen(cfg, network, name)
    _check_same_images(cfg, name)
    if not config.trains_on_one_device(cfg):
        devices = cfg.trainer.get("devices")
        raise ConfigError(f"{name} with trainer.devices={devices}: features are read by one process. Set 1.")
    if cfg.trainer.get("compile", False) is not False:
        raise ConfigError(
            f"{name} with trainer.compile={cfg.trainer.compile}: features are read, and images pass the "
            "network once. Leave it out."
        )
    if cfg.trainer.get("precision") != "auto":
        check_precision(str(cfg.trainer.get("precision", "32-true")))
    if isinstance(solver, LogisticSolver):
        _check_linear(cfg, network)


def _check_frozen(cfg: DictConfig, network: Network, name: str) -> None:
    """Refuse a network of which more than the head learns, or whose head reads more than pooled features."""
    parameter = next(network.parameters(), torch.zeros(()))
    shape = (1, network.channels, network.image_size, network.image_size)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(shape, generator=generator).to(parameter)
    with in_eval_mode(network), torch.no_grad():
        features = network.embed(image)
        is_same = torch.allclose(network.classify(features), network(image), rtol=1e-3, atol=1e-4)
    if network.label_attention is not None or not is_same:
        raise ConfigError(
            f"{name}: the head of {network.title} reads more than the backbone's pooled features. Set model."
            "head=linear, or solver=gradient solver.caches_features=false."
        )
    of_head = {id(parameter) for parameter in network.head_parameters()}
    if any(parameter.requires_grad and id(parameter) not in of_head for parameter in network.parameters()):
        raise ConfigError(
            f"{name} with model.freeze={cfg.model.get('freeze')}: the backbone would learn, and its features "
            "change. Set model.freeze=backbone, and no model.lora."
        )
    if (epoch := cfg.model.get("unfreeze_epoch")) is not None:
        raise ConfigError(
            f"{name} with model.unfreeze_epoch={epoch}: features that are computed once cannot learn. Leave "
            "it out, or train from this run afterwards: model.checkpoint_path=<its best.ckpt>."
        )


def _check_same_images(cfg: DictConfig, name: str) -> None:
    """Refuse what shows a network other images than those that are decoded, or the same in two ways."""
    augment = config.build(cfg.data.augment) if cfg.data.get("augment") is not None else None
    if augment is not None and not isinstance(augment, NoAugment):
        raise ConfigError(
            f"{name} with {type(augment).__name__} in augment: features are computed once, of images as they "
            "are. Set augment=none."
        )
    if list(cfg.views) != ["identity"]:
        raise ConfigError(
            f"{name} with views={list(cfg.views)}: features are of images as they are. Leave views out; "
            "cxrlab evaluate run=<this run> views=… averages over them afterwards."
        )
    if cfg.preprocess.normalize == "image_then_sample":
        raise ConfigError(
            f"{name} with preprocess.normalize=image_then_sample, which shows training other images than "
            "evaluation: choose another."
        )


def _check_linear(cfg: DictConfig, network: Network) -> None:
    """Refuse what a logistic regression has no place for."""
    if (head := network.linear_head) is None or head.bias is None:
        raise ConfigError(
            f"solver=logistic with model.hidden={cfg.model.get('hidden')}: it solves for one linear layer "
            "with a bias. Set model.hidden=null, or solver=gradient solver.caches_features=true."
        )
    for key in ("model.dropout", "model.feature_dropout"):
        if value := OmegaConf.select(cfg, key):
            raise ConfigError(
                f"{key}={value} has no effect with solver=logistic: its penalty is solver.strengths."
            )
    if cfg.data.sampling != "uniform":
        raise ConfigError(
            f"data.sampling={cfg.data.sampling} has no effect with solver=logistic, which sees all images at "
            "once: loss=weighted_bce weighs them."
        )
    if cfg.data.steps_per_epoch is not None:
        raise ConfigError(
            f"data.steps_per_epoch={cfg.data.steps_per_epoch} has no effect with solver=logistic, which "
            "sees all images at once. Leave it out."
        )
    for key, node in cfg.callbacks.items():
        if node is not None and str(node.get("_target_")).endswith(".WeightAveraging"):
            raise ConfigError(
                f"callbacks.{key} averages the weights of many steps; solver=logistic makes one. Set "
                f"callbacks.{key}=null."
            )
    check_loss(build_loss(config.guarded(cfg.loss, "loss"), [0.5, 0.5]))


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


def check_seen(cfg: DictConfig, start: InitialWeights | None, data: DataModule, *, is_decoded: bool) -> None:
    """Refuse weights to start from that had certainly seen the test part, before hours are spent on them.

    Args:
        cfg: As in conf/train.yaml, checked.
        start: What the network starts from; None where it is not known.
        data: The data set.
        is_decoded: Whether its images are decoded, so that it can be split; else its tables are read only.

    Raises:
        ConfigError: Naming weights, data and key. Where the test part is not read (``test=false``) it is a
            warning.
    """
    allow_seen = cfg.evaluation.allow_seen or cfg.test is not True
    advice = "Start from other weights, or train with test=false, which leaves the test part alone."
    if not is_decoded:
        check_before_decoding(start, data, "test", allow_seen=allow_seen, advice=advice)
        return
    found = check_start(start, data, "test", allow_seen=allow_seen, advice=advice)
    if found.overlap in ("certain", "possible"):
        log.warning("Of the test part: %s", " ".join(found.reasons))


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
