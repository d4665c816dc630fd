"""``python -m cxrlab.train``: compose the config, check it, train, evaluate, write it down."""

import functools
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hydra
from omegaconf import DictConfig, OmegaConf

from cxrlab.cli import config, console

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from cxrlab.data.datamodule import DataModule
    from cxrlab.training.module import Classifier

# Types of the plain values in conf/train.yaml; all others are checked against what they build.
_PLAIN: dict[str, Any] = {
    "seed": int,
    "test": bool | Literal["auto"],
    "resume": str | None,
    "task": Literal["multilabel", "multiclass"],
    "views": list[str],
    "monitor": str,
    "monitor_mode": Literal["max", "min"],
    "channels_last": bool,
    "decay_norms_and_biases": bool,
    "run_dir": str,
    "preprocess.normalize": Literal["training", "imagenet", "image", "equalize", "none", "image_then_sample"],
    "report.page": bool,
    "report.check_heatmaps": bool,
    "report.images": bool,
}


def checked(cfg: DictConfig) -> DictConfig:
    """Return the config with references followed and every key and value checked; touches no data.

    Raises:
        ConfigError: Naming the key and the value.
    """
    from cxrlab.errors import ConfigError

    cfg = config.checked(cfg, _PLAIN)
    for name in ("evaluation", "explanation", "layer_rates"):
        config.build(cfg[name])  # refuses a value out of its range
    for name in ("best", "last"):
        if cfg.callbacks.get(name) is None:
            raise ConfigError(f"callbacks.{name}=null: the run needs this checkpoint to test and to resume.")
    if cfg.callbacks.get("predictions") is None:
        raise ConfigError("callbacks.predictions=null: the evaluation at the end needs the predictions.")
    if cfg.trainer.get("limit_val_batches") == 0:
        raise ConfigError("trainer.limit_val_batches=0: without validation no epoch can be called the best.")
    if cfg.trainer.get("max_epochs") == 0:
        raise ConfigError("trainer.max_epochs=0 trains nothing: give 1 or more.")
    unfreeze_epoch, max_epochs = cfg.model.get("unfreeze_epoch"), cfg.trainer.get("max_epochs")
    if unfreeze_epoch is not None and isinstance(max_epochs, int) and 0 < max_epochs <= unfreeze_epoch:
        raise ConfigError(
            f"model.unfreeze_epoch={unfreeze_epoch}: a training of trainer.max_epochs={max_epochs} never comes there."
        )
    devices, num_nodes = cfg.trainer.get("devices"), cfg.trainer.get("num_nodes")
    if unfreeze_epoch is not None and (devices not in (1, "1") or num_nodes not in (1, None)):
        raise ConfigError(
            f"model.unfreeze_epoch={unfreeze_epoch} with trainer.devices={devices}, num_nodes={num_nodes}: processes "
            "agree at the start on what learns. Train on one device, or in two runs, the second with "
            "model.checkpoint_path."
        )
    if config.is_multirun() and cfg.trainer.get("devices") not in (1, "1"):
        raise ConfigError(
            f"trainer.devices={cfg.trainer.get('devices')} in a multirun: each process would start the sweep "
            "anew. Sweep on one device, or start the jobs one by one."
        )
    return cfg


def train(cfg: DictConfig) -> float:
    """Run one training from a composed config and return the monitored metric of the best epoch.

    Args:
        cfg: The config of conf/train.yaml; ``run_dir`` names the folder that everything is written to.

    Returns:
        The validation metric ``cfg.monitor`` of the best checkpoint.

    Raises:
        UserError: If the config, the data or a checkpoint cannot be used; the message says what to do.
    """
    cfg = config.resumed_config(cfg) if cfg.resume else cfg.copy()
    if cfg.test == "auto":
        # Each fold of a cross-validation is a test part of its own.
        cfg.test = not config.is_multirun() or OmegaConf.select(cfg, "data.split.method") == "folds"
    original, cfg = cfg, checked(cfg)
    import pytorch_lightning as pl
    import torch

    from cxrlab.runs import recording

    recording.configure_logging()
    _check_gpu(cfg)
    pl.seed_everything(cfg.seed, verbose=False)
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    run_dir = Path(cfg.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    if not cfg.resume:
        config.check_unused_folder(run_dir)
    data: DataModule = config.build(cfg.data)
    data.prepare()
    classifier = _classifier(cfg, data)
    if cfg.resume:
        recording.check_same_run(data.manifest, classifier, run_dir)
    cfg.trainer.precision = _precision(cfg, classifier, run_dir)
    recording.save_config(original, cfg, run_dir)
    report = data.audit()
    recording.save_data(data, report, run_dir)
    recording.save_layers(data, classifier, run_dir)
    recording.log_audit(report)
    if cfg.resume:
        recording.remove_evaluation(run_dir)
    if cfg.report.check_heatmaps and cfg.report.page and cfg.test is True:
        recording.check_explainable(classifier, config.build(cfg.explanation))
    trainer = _fit(cfg, classifier, data, run_dir)
    return _evaluate(cfg, trainer, classifier, data, run_dir)


def _check_gpu(cfg: DictConfig) -> None:
    import torch

    from cxrlab.errors import ConfigError

    accelerator = cfg.trainer.get("accelerator")
    is_there = torch.cuda.is_available() or (accelerator == "gpu" and torch.backends.mps.is_available())
    if accelerator in ("gpu", "cuda") and not is_there:
        raise ConfigError(
            f"trainer.accelerator={accelerator}, but no GPU is found. Set trainer=auto or trainer=cpu."
        )


def _precision(cfg: DictConfig, classifier: "Classifier", run_dir: Path) -> str:
    """Return the trainer's precision: a resumed run's own, and where that is "auto", what suits the processor."""
    if cfg.trainer.get("precision") != "auto":
        return str(cfg.trainer.get("precision", "32-true"))
    import torch

    from cxrlab.training.precision import choose_precision, saved_precision

    if cfg.resume and (saved := saved_precision(run_dir)):
        return saved
    uses_gpu = cfg.trainer.get("accelerator") in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return choose_precision(classifier.network, torch.device("cuda" if uses_gpu else "cpu"))


def _fit(cfg: DictConfig, classifier: "Classifier", data: "DataModule", run_dir: Path) -> "pl.Trainer":
    """Train, from the start or from the last finished epoch."""
    from lightning_fabric.utilities.exceptions import MisconfigurationException
    from pytorch_lightning.callbacks import ProgressBar

    from cxrlab.errors import ConfigError
    from cxrlab.runs import recording
    from cxrlab.training.callbacks.checkpoints import AtomicCheckpointIO

    callbacks = [config.build(node) for node in cfg.callbacks.values() if node is not None]
    # Lightning refuses a bar that is switched off, and puts in one of its own where none is given.
    bars = [one for one in callbacks if isinstance(one, ProgressBar)]
    is_shown = bool(bars) and cfg.trainer.get("enable_progress_bar", True)
    trainer: pl.Trainer = config.guarded(cfg.trainer, "trainer")(
        callbacks=[one for one in callbacks if is_shown or one not in bars],
        logger=[config.build(node) for node in cfg.logger.values() if node is not None],
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=is_shown,
    )
    last = run_dir / "checkpoints" / "last.ckpt" if cfg.resume else None
    try:
        trainer.fit(classifier, datamodule=data, ckpt_path=last, weights_only=True)
    except MisconfigurationException as error:
        raise ConfigError(f"The trainer refuses: {error}") from error
    recording.log_training(trainer, cfg.monitor, run_dir)
    return trainer


def _classifier(cfg: DictConfig, data: "DataModule") -> "Classifier":
    """Build the classifier: what the data decide is passed on to each of its parts."""
    from cxrlab.losses import build_loss, check_task, label_frequencies, warn_of_balancing_twice
    from cxrlab.metrics.streaming import check_monitor
    from cxrlab.models.network import architecture, make_network, without_initial_weights
    from cxrlab.task import check_exclusive
    from cxrlab.training.module import Classifier
    from cxrlab.training.optim import parameter_groups

    labels, settings = data.manifest.labels, data.settings
    shape = {"image_size": settings.image_size, "channels": settings.channels}
    mean, std = _statistics(cfg.preprocess.normalize, data)
    described = config.plain(cfg.model)
    resumed = {**without_initial_weights(described), "_partial_": True}
    model = OmegaConf.create(resumed) if cfg.resume else cfg.model
    keeps = described.get("freeze") not in (None, "norm_statistics")
    if keeps and not (cfg.resume or model.get("pretrained") or model.get("checkpoint_path")):
        logging.getLogger(__name__).warning(
            "model.freeze=%s keeps random weights: set model.pretrained or model.checkpoint_path",
            model.freeze,
        )
    targets = data.targets[data.rows("train")]
    check_monitor(cfg.monitor, cfg.monitor_mode, labels, keys=("monitor", "monitor_mode"))
    if "monitor" in cfg.scheduler:
        keys = ("scheduler.monitor", "scheduler.mode")
        check_monitor(cfg.scheduler.monitor, cfg.scheduler.mode, labels, keys=keys)
    loss = build_loss(config.guarded(cfg.loss, "loss"), label_frequencies(targets).tolist())
    check_task(loss, cfg.task)
    warn_of_balancing_twice(loss, cfg.data.sampling)
    if cfg.task == "multiclass":
        check_exclusive(data.targets, labels)
    return Classifier(
        labels=labels,
        preprocess={"normalize": cfg.preprocess.normalize, "mean": mean, "std": std, **asdict(settings)},
        network={**architecture(described), "num_labels": len(labels), **shape},
        module=make_network(config.guarded(model, "model"), num_labels=len(labels), **shape),
        loss=loss,
        optimizer=config.guarded(cfg.optimizer, "optimizer"),
        scheduler=None if cfg.data.overfit_images else config.guarded(cfg.scheduler, "scheduler"),
        monitor=cfg.monitor,
        channels_last=cfg.channels_last,
        threshold=cfg.evaluation.threshold,
        calibration=cfg.evaluation.calibration,
        task=cfg.task,
        views=cfg.views,
        grouping=functools.partial(
            parameter_groups,
            rates=config.build(cfg.layer_rates),
            lr=cfg.optimizer.get("lr"),
            decay_norms_and_biases=cfg.decay_norms_and_biases,
        ),
    )


def _statistics(normalize: str, data: "DataModule") -> tuple[list[float] | None, list[float] | None]:
    """Return mean and deviation of training images, where the normalisation needs them."""
    from cxrlab.models.preprocess import STATISTICS_IMAGES

    if normalize == "image_then_sample":
        logging.getLogger(__name__).warning(
            "preprocess.normalize=image_then_sample shows the network differently normalised images in "
            "training and in evaluation. It is there to repeat a published recipe; use training or image."
        )
    if normalize not in STATISTICS_IMAGES:
        return None, None
    return data.training_statistics(STATISTICS_IMAGES[normalize])


def _evaluate(
    cfg: DictConfig, trainer: "pl.Trainer", classifier: "Classifier", data: "DataModule", run_dir: Path
) -> float:
    """Evaluate the best checkpoint on validation, and on the test part where that is wanted."""
    from cxrlab.runs import recording

    best = run_dir / "checkpoints" / "best.ckpt"
    trainer.validate(classifier, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)
    results = recording.results(trainer, classifier, "val")
    metric = float(trainer.callback_metrics[cfg.monitor])
    if cfg.test is True:
        trainer.test(classifier, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)
        results += recording.results(trainer, classifier, "test")
    recording.save_results(results, run_dir)
    recording.save_evaluation(
        data,
        classifier,
        run_dir,
        part="test" if cfg.test is True else "val",
        config=config.plain(cfg),
        settings=config.build(cfg.evaluation),
        page=cfg.report.page,
        images=cfg.report.images,
        explanation=config.build(cfg.explanation) if cfg.report.check_heatmaps else None,
    )
    return metric


@hydra.main(version_base="1.3", config_path=str(config.config_dir()), config_name="train")
def _main(cfg: DictConfig) -> float:
    return train(cfg)


def main() -> None:
    """Run the command line."""
    console.run_command(_main)


if __name__ == "__main__":
    main()
