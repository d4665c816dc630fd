"""Builds what a composed config describes for a training: network, classifier, trainer."""

import functools
import logging
import math
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ProgressBar
from torch import nn

from cxrlab.cli import config
from cxrlab.cli.checks import build_groups
from cxrlab.cli.initial_weights import chosen_weights, expected_statistics, log_image_size
from cxrlab.cli.overrides import key_of
from cxrlab.cli.processes import check_started
from cxrlab.data.datamodule import DataModule
from cxrlab.errors import CheckpointError, ConfigError, UserError
from cxrlab.files import RunDir
from cxrlab.losses import build_loss, check_task, label_frequencies, warn_of_balancing_twice
from cxrlab.models.network import (
    Network,
    architecture,
    described_start,
    make_network,
    without_initial_weights,
)
from cxrlab.models.preprocess import STATISTICS_IMAGES
from cxrlab.models.weights import InitialWeights, plain_seen
from cxrlab.runs.features import image_features
from cxrlab.runs.lineage import saved_start, training_data
from cxrlab.runs.writing import remove_evaluation
from cxrlab.training.callbacks.checkpoints import AtomicCheckpointIO
from cxrlab.training.callbacks.resume import Interruption, StopTogether, TodaysSettings
from cxrlab.training.compilation import compiled
from cxrlab.training.module import Classifier
from cxrlab.training.precision import choose_precision, saved_precision
from cxrlab.training.processes import SyncBatchNorm
from cxrlab.training.solvers import GradientSolver, Solver

log = logging.getLogger(__name__)


def build_solver(cfg: DictConfig) -> Solver:
    """Build what finds the weights; a run of an earlier version has none, and took steps."""
    solver: Solver = config.build(cfg.solver) if cfg.get("solver") else GradientSolver()
    return solver


def settle_trainer(cfg: DictConfig, solver: Solver) -> None:
    """Set, in the config, what follows from the solver: how many epochs, and that none of them is left out.

    Raises:
        ConfigError: If the command line sets another value.
    """
    settings = solver.trainer_settings
    for name, value in settings.items():
        if cfg.trainer.get(name) != value and names_override(f"trainer.{name}"):
            raise ConfigError(
                f"trainer.{name}={cfg.trainer.get(name)}: {type(solver).__name__} has its own, {value}: each "
                "of solver.strengths is an epoch. Leave it out."
            )
        OmegaConf.update(cfg.trainer, name, value, force_add=True)
    if settings:
        for name, node in cfg.callbacks.items():
            if node is not None and str(node.get("_target_")).endswith(".EarlyStopping"):
                cfg.callbacks[name] = None


def use_features(
    cfg: DictConfig, trainer: pl.Trainer, classifier: Classifier, data: DataModule, solver: Solver
) -> None:
    """Compute the features of all images that the training will read, and have them loaded in their place."""
    if not solver.reads_features:
        return
    parts = ("train", "val", "test") if cfg.test is True else ("train", "val")
    features = image_features(
        classifier,
        data.images,
        [row for part in parts for row in data.rows(part)],
        batch_size=cfg.data.batch_size,
        device=str(trainer.strategy.root_device),
        precision=str(cfg.trainer.precision),
    )
    data.use_features(features.store, all_at_once=bool(solver.trainer_settings))
    data.seconds["features"] = features.seconds
    log.info(
        "Features: %s of each of %s images, %s of them computed now in %.1f s, the others from the cache.",
        f"{features.values.shape[1]:,}", f"{len(features.values):,}", f"{features.num_computed:,}",
        features.seconds,
    )  # fmt: skip


def names_override(key: str) -> bool:
    """Tell whether the command line sets a key by itself, not by an option of its group."""
    return any(key_of(override) == key for override in config.task_overrides())


def check_device(cfg: DictConfig) -> None:
    """Refuse a GPU where there is none, and another number of processes than were started.

    Raises:
        ConfigError: Naming what to set.
    """
    check_started(cfg)
    accelerator = cfg.trainer.get("accelerator")
    is_there = torch.cuda.is_available() or (accelerator == "gpu" and torch.backends.mps.is_available())
    if accelerator in ("gpu", "cuda") and not is_there:
        raise ConfigError(
            f"trainer.accelerator={accelerator}, but no GPU is found. Set trainer=auto or trainer=cpu."
        )
    if cfg.trainer.get("sync_batchnorm") and (accelerator == "cpu" or not torch.cuda.is_available()):
        raise ConfigError(
            "trainer.sync_batchnorm=true needs GPUs: torch has no synchronised batch normalisation for CPUs."
        )


def throwaway_classifier(cfg: DictConfig) -> Classifier:
    """Build a classifier of two labels with random weights, to see what it can do before images are decoded.

    The random state is left as it was.

    Raises:
        ConfigError: If it cannot be built.
    """
    description = {**without_initial_weights(config.plain(cfg.model)), "_partial_": True}
    shape = {"image_size": cfg.data.image_size, "channels": cfg.data.channels}
    with torch.random.fork_rng(devices=[]):
        factory = config.guarded(OmegaConf.create(description), "model")
        network = make_network(factory, num_labels=2, **shape, checks_logits=False)  # not the data's number
    return Classifier(
        labels=["first", "second"],
        preprocess={"normalize": "none", "resize": cfg.data.resize, **shape},
        network=architecture(config.plain(cfg.model)),
        module=network,
        channels_last=cfg.channels_last,
    ).eval()


def initial_network(cfg: DictConfig, num_labels: int) -> Network:
    """Build the network with the weights that it starts from; what they lack is named here.

    Raises:
        UserError: If it cannot be built, or its weights cannot be had.
    """
    return make_network(
        _network_factory(cfg),
        num_labels=num_labels,
        channels=cfg.data.channels,
        image_size=cfg.data.image_size,
    )


def build_classifier(
    cfg: DictConfig, data: DataModule, network: Network | None = None, solver: Solver | None = None
) -> Classifier:
    """Build the classifier: what the data decide is passed on to each of its parts.

    Args:
        cfg: As in conf/train.yaml, checked, its normalisation decided by :func:`decide_normalization`.
        data: Prepared.
        network: Of :func:`initial_network`; None to make it here.
        solver: Of :func:`build_solver`; None to make it here.

    Raises:
        UserError: If the config does not fit the data, or a part of it another.
    """
    labels, settings = data.manifest.labels, data.settings
    shape = {"image_size": settings.image_size, "channels": settings.channels}
    description = config.plain(cfg.model)
    mean, std = _statistics(cfg.preprocess, data)
    network = initial_network(cfg, len(labels)) if network is None else network
    start = start_of(cfg, network)
    return (solver or build_solver(cfg)).classifier(
        labels=labels,
        preprocess={
            "normalize": cfg.preprocess.normalize,
            "mean": mean,
            "std": std,
            "resize": settings.resize,
            **shape,
        },
        network={**architecture(description), "num_labels": len(labels), **shape},
        module=network,
        loss=_loss(cfg, data),
        optimizer=config.guarded(cfg.optimizer, "optimizer"),
        scheduler=None if cfg.data.overfit_images else config.guarded(cfg.scheduler, "scheduler"),
        monitor=cfg.monitor,
        channels_last=cfg.channels_last,
        threshold=cfg.evaluation.threshold,
        calibration=cfg.evaluation.calibration,
        referral=config.build(cfg.evaluation).referral,
        task=cfg.task,
        views=cfg.views,
        grouping=functools.partial(build_groups, cfg),
        initial_weights=None if start is None else start.plain(),
        trained_on=plain_seen(training_data(data)),
    )


def start_of(cfg: DictConfig, network: Network) -> InitialWeights | None:
    """Return what the network of a training started from; of a resumed run what its start was.

    Args:
        cfg: As in conf/train.yaml, checked.
        network: With the weights that it starts from.

    Returns:
        None where it is not known, as for a class of one's own that does not say.

    Raises:
        CheckpointError: If the last checkpoint of a resumed run cannot be read.
    """
    if cfg.resume:
        return saved_start(RunDir(Path(cfg.resume)).last_checkpoint, config.plain(cfg.model))
    return network.initial_weights or described_start(config.plain(cfg.model))


def _network_factory(cfg: DictConfig) -> Callable[..., nn.Module]:
    """Return what makes the network; of a resumed run without its initial weights, which it had."""
    description = config.plain(cfg.model)
    if cfg.resume:
        resumed = OmegaConf.create({**without_initial_weights(description), "_partial_": True})
        return config.guarded(resumed, "model")
    weights, frozen_by = chosen_weights(cfg), None
    if description.get("freeze") not in (None, "norm_statistics"):
        frozen_by = f"model.freeze={cfg.model.freeze}"
    elif rank := (description.get("lora") or {}).get("rank"):
        frozen_by = f"model.lora.rank={rank}"
    if frozen_by and not (weights or cfg.model.get("pretrained") or cfg.model.get("checkpoint_path")):
        log.warning(
            "%s keeps random weights: set weights, model.pretrained or model.checkpoint_path", frozen_by
        )
    factory = config.guarded(cfg.model, "model")
    if weights is None:
        return factory
    log_image_size(weights, cfg.data.image_size)
    return functools.partial(factory, weights=weights)


def _loss(cfg: DictConfig, data: DataModule) -> nn.Module:
    targets = data.targets[data.rows("train")]
    loss = build_loss(config.guarded(cfg.loss, "loss"), label_frequencies(targets).tolist())
    check_task(loss, cfg.task)
    warn_of_balancing_twice(loss, cfg.data.sampling)
    return loss


def _statistics(preprocess: DictConfig, data: DataModule) -> tuple[list[float] | None, list[float] | None]:
    """Return the mean and deviation to normalise with: those given, or those of training images."""
    normalize, given = preprocess.normalize, (preprocess.get("mean"), preprocess.get("std"))
    if normalize == "given":
        mean, std = (None if values is None else list(values) for values in given)
        if std is not None and not all(value > 0 for value in std):
            raise ConfigError(f"preprocess.std={std} must be above 0 in each channel.")
        return mean, std
    if given != (None, None):
        raise ConfigError(
            f"preprocess.mean={given[0]} and preprocess.std={given[1]} have no effect with "
            f"preprocess.normalize={normalize}: set preprocess.normalize=given."
        )
    if normalize == "image_then_sample":
        log.warning(
            "preprocess.normalize=image_then_sample shows the network differently normalised images in "
            "training and in evaluation. It is there to repeat a published recipe; use training or image."
        )
    if normalize not in STATISTICS_IMAGES:
        return None, None
    return data.training_statistics(STATISTICS_IMAGES[normalize])


def decide_normalization(cfg: DictConfig) -> dict[str, object]:
    """Return ``cfg.preprocess`` with ``normalize=auto`` decided: as the initial weights expect, or training.

    A checkpoint holds what was decided, so that nothing is looked up when it is loaded.
    """
    preprocess: dict[str, object] = config.plain(cfg.preprocess)
    if preprocess["normalize"] != "auto" or preprocess.get("mean") or preprocess.get("std"):
        return preprocess
    expected = expected_statistics(cfg)
    if expected is None:
        return preprocess | {"normalize": "training"}
    log.info(
        "Images are normalised as %s expects: mean %s, deviation %s (preprocess.normalize=auto).",
        expected.owner, _short(expected.mean), _short(expected.std),
    )  # fmt: skip
    return preprocess | {"normalize": "given", "mean": expected.mean, "std": expected.std}


def _short(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def decide_precision(cfg: DictConfig, network: Network, files: RunDir) -> str:
    """Return the trainer's precision: a resumed run's own, and where that is "auto", what suits."""
    if cfg.trainer.get("precision") != "auto":
        return str(cfg.trainer.get("precision", "32-true"))
    if cfg.resume and (saved := saved_precision(files.path)):
        return saved
    uses_gpu = cfg.trainer.get("accelerator") in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return choose_precision(network, torch.device("cuda" if uses_gpu else "cpu"))


def build_trainer(cfg: DictConfig) -> pl.Trainer:
    """Build the trainer with its callbacks and loggers.

    Raises:
        ConfigError: If one of them cannot be built.
    """
    callbacks = [config.build(node) for node in cfg.callbacks.values() if node is not None]
    callbacks.append(TodaysSettings())
    if not any(isinstance(callback, Interruption) for callback in callbacks):
        callbacks.append(StopTogether(run_dir=cfg.run_dir))
    # Lightning refuses a bar that is switched off, and puts in one of its own where none is given.
    bars = [callback for callback in callbacks if isinstance(callback, ProgressBar)]
    is_shown = bool(bars) and cfg.trainer.get("enable_progress_bar", True)
    settings = OmegaConf.masked_copy(cfg.trainer, [name for name in cfg.trainer if name != "compile"])
    trainer: pl.Trainer = config.guarded(settings, "trainer")(
        callbacks=[callback for callback in callbacks if is_shown or callback not in bars],
        logger=[config.build(node) for node in cfg.logger.values() if node is not None],
        plugins=[AtomicCheckpointIO(), *([SyncBatchNorm()] if cfg.trainer.get("sync_batchnorm") else [])],
        enable_progress_bar=is_shown,
    )
    return trainer


def fit(
    trainer: pl.Trainer,
    classifier: Classifier,
    data: DataModule,
    files: RunDir,
    *,
    resume: bool,
    compile: bool | str = False,
) -> None:
    """Train, from the start or from the last checkpoint of a run.

    Raises:
        ConfigError: If the trainer refuses its settings, they leave nothing to train or to validate, or the
            network cannot be compiled as ``compile`` wants it.
        CheckpointError: If the state of the training in the last checkpoint does not fit.
    """
    _check_length(trainer, data)
    last = files.last_checkpoint if resume else None
    if resume:  # once the checkpoint's state is back, and only where there is more to train
        remove = pl.callbacks.LambdaCallback(on_train_start=lambda *_: remove_evaluation(files))
        trainer.callbacks.append(remove)  # type: ignore[attr-defined]
    try:
        with compiled(classifier.network, compile):
            trainer.fit(classifier, datamodule=data, ckpt_path=last, weights_only=True)
    except UserError:
        raise
    except MisconfigurationException as error:
        raise ConfigError(f"The trainer refuses: {error}") from error
    except Exception as error:
        if last is None or not _is_of_restoring(error):
            raise
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{last} cannot be gone on from ({type(error).__name__}: {reason}): its state of the training is "
            "not what this config and version write. Bring the run's own back, or start a new run from its "
            f"weights by model.checkpoint_path={last}."
        ) from error


def _is_of_restoring(error: Exception) -> bool:
    """Tell whether an error was raised while Lightning put the state of a checkpoint back."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).stem == "checkpoint_connector" for frame in frames)


def _check_length(trainer: pl.Trainer, data: DataModule) -> None:
    """Refuse a training that ends before it was validated once: no epoch could be called the best."""
    limit, num_batches = trainer.limit_train_batches, data.num_training_batches
    num_used = min(limit, num_batches) if isinstance(limit, int) else int(limit * num_batches)
    if num_used < 1:
        raise ConfigError(
            f"trainer.limit_train_batches={limit} leaves none of the {num_batches} batches of an epoch to "
            "train on."
        )
    interval = trainer.val_check_interval
    if isinstance(interval, int) and trainer.check_val_every_n_epoch is not None and interval > num_used:
        raise ConfigError(
            f"trainer.val_check_interval={interval} is more than the {num_used} batches of an epoch: nothing "
            "would be validated. Give fewer, or a share of the epoch, such as 0.5."
        )
    steps_per_epoch = math.ceil(num_used / trainer.accumulate_grad_batches)
    if 0 <= trainer.max_steps < steps_per_epoch:
        raise ConfigError(
            f"trainer.max_steps={trainer.max_steps} ends within the first epoch, which has {steps_per_epoch} "
            f"steps, so that nothing is validated and no epoch can be called the best. Give at least "
            f"{steps_per_epoch}, or a smaller trainer.limit_train_batches."
        )
