"""``python -m cxrlab.train``: compose the config, check it, train, evaluate, write it down."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import hydra
from omegaconf import DictConfig, OmegaConf

from cxrlab import config

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from cxrlab.data.datamodule import DataModule
    from cxrlab.models.classifier import Classifier

log = logging.getLogger(__name__)

# Types of the plain values at the top of conf/train.yaml; all others are checked against what they build.
_TOP_LEVEL: dict[str, Any] = {
    "seed": int,
    "test": bool | Literal["auto"],
    "resume": str | None,
    "monitor": str,
    "monitor_mode": Literal["max", "min"],
    "channels_last": bool,
    "run_dir": str,
}


def checked(cfg: DictConfig) -> DictConfig:
    """Return the config with references followed and every key and value checked; touches no data.

    Raises:
        ConfigError: Naming the key and the value.
    """
    from cxrlab.errors import ConfigError
    from cxrlab.signatures import check_node, check_value

    cfg = config.resolved(cfg)
    for key, hint in _TOP_LEVEL.items():
        check_value(cfg[key], hint, key)
    check_node(config.plain(cfg))
    for name in ("best", "last"):
        if cfg.callbacks.get(name) is None:
            raise ConfigError(f"callbacks.{name}=null: the run needs this checkpoint to test and to resume.")
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
        cfg.test = not config.is_multirun()
    original, cfg = cfg, checked(cfg)
    import pytorch_lightning as pl
    import torch

    from cxrlab import recording
    from cxrlab.models.weights import refuse_other_weights

    run_dir = Path(cfg.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    recording.save_config(original, run_dir)
    recording.quieten()
    pl.seed_everything(cfg.seed, verbose=False)
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")

    data: DataModule = config.build(cfg.data)
    manifest = data.prepare()
    recording.save_manifest(manifest, run_dir)
    classifier = _classifier(cfg, data)
    recording.save_layers(classifier, run_dir)
    recording.log_data(data, classifier)

    callbacks = {name: config.build(node) for name, node in cfg.callbacks.items() if node is not None}
    loggers = [config.build(node) for node in cfg.logger.values() if node is not None]
    trainer: pl.Trainer = config.build(cfg.trainer)(callbacks=list(callbacks.values()), logger=loggers)
    last = run_dir / "checkpoints" / "last.ckpt" if cfg.resume else None
    if last is not None:
        refuse_other_weights(classifier, last)
    trainer.fit(classifier, datamodule=data, ckpt_path=last, weights_only=True)
    recording.save_learning_curves(run_dir)
    return _evaluate(cfg, trainer, classifier, data, str(callbacks["best"].best_model_path))


def _classifier(cfg: DictConfig, data: "DataModule") -> "Classifier":
    """Build the classifier: what the data decide is passed on to each of its parts."""
    from cxrlab.losses import label_frequencies
    from cxrlab.models.classifier import Classifier
    from cxrlab.models.networks import without_initial_weights

    labels = data.manifest.labels
    shape = {"image_size": data.image_size, "channels": data.channels}
    mean, std = data.training_statistics()
    description = without_initial_weights(config.plain(cfg.model))
    model = OmegaConf.create({**description, "_partial_": True}) if cfg.resume else cfg.model
    targets = data.dataset.targets[data.rows("train")]
    return Classifier(
        labels=labels,
        preprocess={"normalize": cfg.preprocess.normalize, "mean": mean, "std": std, **shape},
        network={**description, "num_labels": len(labels), **shape},
        module=config.build(model)(num_labels=len(labels), **shape),
        loss=config.build(cfg.loss)(frequencies=label_frequencies(targets).tolist()),
        optimizer=config.build(cfg.optimizer),
        scheduler=config.build(cfg.scheduler),
        monitor=cfg.monitor,
        channels_last=cfg.channels_last,
    )


def _evaluate(
    cfg: DictConfig, trainer: "pl.Trainer", classifier: "Classifier", data: "DataModule", best: str
) -> float:
    """Judge the best checkpoint on validation, and on the test part where that is wanted."""
    from cxrlab import recording

    trainer.validate(classifier, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)
    results = recording.results(trainer, classifier, "val")
    metric = float(trainer.callback_metrics[cfg.monitor])
    if cfg.test is True:
        trainer.test(classifier, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)
        results += recording.results(trainer, classifier, "test")
    recording.save_results(results, Path(cfg.run_dir))
    return metric


@hydra.main(version_base="1.3", config_path=str(config.config_dir()), config_name="train")
def _main(cfg: DictConfig) -> float:
    return train(cfg)


def main() -> None:
    """Run the command line."""
    config.run_command(_main)


if __name__ == "__main__":
    main()
