"""``cxrlab train``: compose the config, check it, train, evaluate, write it down."""

import logging
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import hydra
from omegaconf import DictConfig, OmegaConf

from cxrlab.cli import config, console
from cxrlab.cli.claims import claimed
from cxrlab.sweeps.callback import ending_is_told
from cxrlab.sweeps.resume import with_sweep

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from cxrlab.data.datamodule import DataModule
    from cxrlab.files import RunDir
    from cxrlab.models.network import Network
    from cxrlab.training.module import Classifier
    from cxrlab.training.solvers import Solver

log = logging.getLogger(__name__)

# Types of the plain values in conf/train.yaml; all others are checked against what they build.
_VALUE_TYPES: Mapping[str, object] = {
    "seed": int,
    "reference_images": int,
    "test": bool | Literal["auto"],
    "resume": str | None,
    "resume_sweep": str | None,
    "trust": list[str],
    "task": Literal["multilabel", "multiclass"],
    "views": list[str],
    "metrics": list[str],
    "monitor": str,
    "monitor_mode": Literal["max", "min"],
    "channels_last": bool,
    "decay_norms_and_biases": bool,
    "run_dir": str,
    "preprocess.normalize": Literal[
        "auto", "training", "imagenet", "image", "equalize", "none", "given", "image_then_sample"
    ],
    "preprocess.mean": list[float] | None,
    "preprocess.std": list[float] | None,
    "report.page": bool,
    "report.check_heatmaps": bool,
    "report.images": bool,
    "report.sections": list[str],
}


def checked(cfg: DictConfig) -> DictConfig:
    """Return the config with references followed and every key and value checked; touches no data.

    Raises:
        ConfigError: Naming the key and the value.
    """
    from cxrlab.cli.initial_weights import check_architecture_is_told, check_weights
    from cxrlab.errors import ConfigError, check_range
    from cxrlab.metrics import load_metrics
    from cxrlab.report.section import load_sections
    from cxrlab.training.compilation import check_compile

    check_architecture_is_told(cfg)
    cfg = config.checked(cfg, _VALUE_TYPES, "train")
    check_weights(cfg)
    for name in ("evaluation", "explanation", "layer_rates"):
        config.build(cfg[name])  # refuses a value out of its range
    load_metrics(cfg.metrics)
    load_sections(cfg.report.sections)
    check_range("reference_images", cfg.reference_images, 0)
    for name in ("best", "last"):
        if cfg.callbacks.get(name) is None:
            raise ConfigError(f"callbacks.{name}=null: the run needs this checkpoint to test and to resume.")
    if cfg.callbacks.get("predictions") is None:
        raise ConfigError("callbacks.predictions=null: the evaluation at the end needs the predictions.")
    if cfg.trainer.get("limit_val_batches") == 0:
        raise ConfigError("trainer.limit_val_batches=0: without validation no epoch can be called the best.")
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
        if isinstance(cfg.trainer.get(name), int):
            check_range(f"trainer.{name}", cfg.trainer[name], 1)
    if cfg.trainer.get("fast_dev_run"):
        raise ConfigError(
            f"trainer.fast_dev_run={cfg.trainer.fast_dev_run} writes no checkpoint that could be evaluated: "
            "debug=one_batch sends a batch through everything."
        )
    if (clip := cfg.trainer.get("gradient_clip_val")) is not None and clip < 0:
        raise ConfigError(
            f"trainer.gradient_clip_val={clip} must be at least 0; with a negative norm gradients would not "
            "be clipped at all. 0 or null: no clipping."
        )
    check_compile(cfg.trainer.get("compile", False))
    if cfg.trainer.get("max_epochs") == 0:
        raise ConfigError("trainer.max_epochs=0 trains nothing: give 1 or more.")
    unfreeze_epoch, max_epochs = cfg.model.get("unfreeze_epoch"), cfg.trainer.get("max_epochs")
    is_trial = type(cfg.trainer.get("limit_train_batches")) is int  # of a few batches, as debug=one_batch has
    is_short = isinstance(max_epochs, int) and 0 < max_epochs <= (unfreeze_epoch or 0)
    if is_short and not is_trial:
        raise ConfigError(
            f"model.unfreeze_epoch={unfreeze_epoch}: a training of trainer.max_epochs={max_epochs} never "
            "comes there."
        )
    if unfreeze_epoch is not None and not config.trains_on_one_device(cfg):
        devices, num_nodes = cfg.trainer.get("devices"), cfg.trainer.get("num_nodes")
        raise ConfigError(
            f"model.unfreeze_epoch={unfreeze_epoch} with trainer.devices={devices}, num_nodes={num_nodes}: "
            "processes agree at the start on what learns. Train on one device, or in two runs, the second "
            "with model.checkpoint_path."
        )
    if config.shares_process() and not config.trains_on_one_device(cfg):
        raise ConfigError(
            f"trainer.devices={cfg.trainer.get('devices')}, num_nodes={cfg.trainer.get('num_nodes')} in a "
            "multirun: each process of a job would start the whole sweep anew. Add hydra/launcher=processes, "
            "or hydra/launcher=slurm on a cluster: each job is a command of its own then."
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
    from cxrlab.cli.resume import resumed_config
    from cxrlab.errors import ConfigError

    if cfg.resume_sweep and not config.is_multirun():
        raise ConfigError(f"resume_sweep={cfg.resume_sweep} needs -m: cxrlab train -m resume_sweep=…")
    is_resumed = bool(cfg.resume)
    cfg = resumed_config(cfg) if is_resumed else cfg.copy()
    if cfg.test == "auto":
        # Each fold of a cross-validation is a test part of its own.
        cfg.test = not config.is_multirun() or OmegaConf.select(cfg, "data.split.method") == "folds"
    composed, cfg = cfg, checked(cfg)
    import pytorch_lightning as pl
    import torch

    from cxrlab.cli import build
    from cxrlab.files import RunDir

    console.configure_logging()
    build.check_device(cfg)
    pl.seed_everything(cfg.seed, verbose=False)
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
    files = RunDir(Path(cfg.run_dir))
    if not is_resumed:
        config.check_outside_data(files.path, cfg.data.root, "run_dir")
    with claimed(files.path):
        if not is_resumed:
            config.check_unused_folder(files.path)
        return _train(composed, cfg, files)


def _train(composed: DictConfig, cfg: DictConfig, files: "RunDir") -> float:
    from cxrlab.cli import build
    from cxrlab.training.trackers import tracked

    # What needs no image is told before any is decoded.
    cfg.preprocess = build.decide_normalization(cfg)
    solver = build.build_solver(cfg)
    cfg.trainer.precision = build.decide_precision(cfg, _checked_network(cfg, solver), files)
    build.settle_trainer(cfg, solver)
    trainer = build.build_trainer(cfg)
    with tracked(trainer, files, page=not cfg.report.images):
        return _train_with(trainer, composed, cfg, files, solver)


def _train_with(
    trainer: "pl.Trainer", composed: DictConfig, cfg: DictConfig, files: "RunDir", solver: "Solver"
) -> float:
    from cxrlab.cli import build, summaries
    from cxrlab.cli.checks import check_data_fit, check_seen
    from cxrlab.runs import writing
    from cxrlab.training.processes import tells_of_lost_process

    data: DataModule = config.build(cfg.data)
    network = build.initial_network(cfg, len(data.read().labels))
    check_data_fit(cfg, data.read(), network)
    start = build.start_of(cfg, network)
    check_seen(cfg, start, data, is_decoded=False)
    with console.says_when_stopped("Nothing is trained yet: the same command starts again."):
        data.prepare()
    check_seen(cfg, start, data, is_decoded=True)
    classifier = build.build_classifier(cfg, data, network, solver)
    if cfg.resume:
        writing.check_same_run(data, classifier, files)
    _write_start(composed, cfg, classifier, data, files)
    with (
        tells_of_lost_process(),
        console.says_what_needs_memory(
            f"Start a new run with a smaller data.batch_size (now {cfg.data.batch_size}; "
            "trainer.accumulate_grad_batches makes up for it), or a smaller data.image_size (now "
            f"{cfg.data.image_size})."
        ),
    ):
        build.use_features(cfg, trainer, classifier, data, solver)
        compile_choice = cfg.trainer.get("compile", False)
        build.fit(trainer, classifier, data, files, resume=bool(cfg.resume), compile=compile_choice)
        summaries.log_training(trainer, cfg.monitor, files)
        return _finish(cfg, trainer, classifier, data, files)


def _checks_heatmaps(cfg: DictConfig) -> bool:
    return bool(cfg.report.check_heatmaps and cfg.report.page and cfg.test is True)


def _checked_network(cfg: DictConfig, solver: "Solver") -> "Network":
    """Return a network to be thrown away; say that it cannot be built or trained so, or has no heatmaps.

    Of one without the spatial features that they are read from, none are drawn.
    """
    from cxrlab.cli.build import throwaway_classifier
    from cxrlab.cli.checks import check_image_size, check_optimizer, check_solver
    from cxrlab.errors import ConfigError
    from cxrlab.heatmaps.methods import check_fit
    from cxrlab.heatmaps.methods.attention import check_attention
    from cxrlab.heatmaps.methods.layers import unexplainable_reason

    classifier = throwaway_classifier(cfg)
    check_image_size(classifier.network)
    check_optimizer(cfg, classifier.network)
    check_solver(cfg, classifier.network, solver)
    if not (_checks_heatmaps(cfg) or cfg.callbacks.get("heatmaps")):
        return classifier.network
    settings = config.build(cfg.explanation)
    check_attention(classifier.network, settings.methods)  # no default: somebody wants it
    reason = unexplainable_reason(classifier.network, settings.methods)
    if reason is not None:
        log.warning("Heatmaps are neither drawn nor checked: %s.", reason)
        if "heatmaps" in cfg.callbacks:
            cfg.callbacks.heatmaps = None
    elif _checks_heatmaps(cfg):
        try:
            check_fit(classifier, settings)
        except ConfigError as error:
            log.warning("Heatmaps will not be checked at the end (report.check_heatmaps): %s", error)
    return classifier.network


def _initial_weights(cfg: DictConfig) -> str:
    """Return what the network starts from, in words."""
    if cfg.resume:
        return "weights of the last checkpoint"
    path = cfg.model.get("checkpoint_path")
    if path:
        return f"weights of {Path(path).name}"
    if cfg.get("weights"):
        return f"{cfg.weights.title} (weights={cfg.weights.name})"
    return (
        "published weights" if cfg.model.get("pretrained") or cfg.model.get("weights") else "random weights"
    )


def _device(cfg: DictConfig) -> str:
    """Return where is trained, and in which precision."""
    import torch

    uses_gpu = cfg.trainer.get("accelerator") != "cpu" and torch.cuda.is_available()
    return f"{torch.cuda.get_device_name() if uses_gpu else 'the CPU'} in {cfg.trainer.precision}"


def _write_start(
    composed: DictConfig, cfg: DictConfig, classifier: "Classifier", data: "DataModule", files: "RunDir"
) -> None:
    """Write and say what is known before the first step."""
    from cxrlab.cli import summaries
    from cxrlab.data.audit import summary
    from cxrlab.runs import writing

    is_first_process = console.is_first_process()
    if is_first_process:
        config.save_config(composed, cfg, files)
    report = data.audit()
    writing.save_data(data, report, files)
    writing.save_layers(classifier, files)
    if is_first_process:
        summaries.log_start(classifier, data, weights=_initial_weights(cfg), device=_device(cfg))
        summaries.log_network(classifier, files.layers)
        if cfg.report.page:
            summaries.draw_start(classifier, data, files, images=cfg.report.images)
        summaries.log_data(data, classifier)
        log.info("%s", summary(report.findings))


def _finish(
    cfg: DictConfig, trainer: "pl.Trainer", classifier: "Classifier", data: "DataModule", files: "RunDir"
) -> float:
    """Predict with the best checkpoint, validation and where wanted the test part, and evaluate the run."""
    from cxrlab.models.lora import merge_lora
    from cxrlab.runs.writing import result_rows, save_results

    merge_lora(classifier.network)  # from here on the ordinary network that best.ckpt holds
    best = files.best_checkpoint
    trainer.validate(classifier, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)
    rows = result_rows(trainer, classifier, "val")
    metric = float(trainer.callback_metrics[cfg.monitor])
    if cfg.test is True:
        trainer.test(classifier, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)
        rows += result_rows(trainer, classifier, "test")
    save_results(rows, files)
    if console.is_first_process():
        _keep_reference(cfg, classifier, data, files)
        _evaluate(cfg, classifier, data, files)
    return metric


def _keep_reference(cfg: DictConfig, classifier: "Classifier", data: "DataModule", files: "RunDir") -> None:
    """Keep in the checkpoint what images of the training look like, so that others can be told from them."""
    from cxrlab.runs.reference import fit_reference, keep_reference

    if not cfg.reference_images:
        return
    reference = fit_reference(
        classifier,
        data,
        num_images=cfg.reference_images,
        batch_size=cfg.data.batch_size,
        device="cpu" if cfg.trainer.get("accelerator") == "cpu" else "auto",
        seed=cfg.seed,
    )
    if reference is None:
        log.warning(
            "Training or validation has fewer than 20 patients: the checkpoint cannot tell images that are "
            "unlike those of the training."
        )
    else:
        keep_reference(files.best_checkpoint, reference)


def _evaluate(cfg: DictConfig, classifier: "Classifier", data: "DataModule", files: "RunDir") -> None:
    """Evaluate the run as ``cxrlab evaluate`` would, with the model in memory; check its heatmaps then.

    They take long, and what stops or breaks them must not cost the results.
    """
    from cxrlab.cli import summaries
    from cxrlab.evaluation.terminal import terminal_table
    from cxrlab.heatmaps.checks import explain_training
    from cxrlab.report.evaluate_run import add_heatmap_checks, evaluate_own_part
    from cxrlab.report.section import load_sections
    from cxrlab.runs.run import Run
    from cxrlab.runs.run_data import own_part

    part = "test" if cfg.test is True else "val"
    run = Run(files.path, classifier.eval(), data=data)
    predicted = own_part(run, part)
    settings, images = config.build(cfg.evaluation), cfg.report.images
    if config.is_multirun():
        settings = replace(settings, baselines=False)
    sections = load_sections(cfg.report.sections)
    with console.says_when_stopped(
        f"Checkpoints and predictions are kept in {files}. cxrlab train resume={files} evaluates them."
    ):
        result = evaluate_own_part(
            run, predicted, settings, page=cfg.report.page, images=images, sections=sections
        )
    summaries.log_evaluation(terminal_table(result), part, data, files, page=cfg.report.page)
    if _checks_heatmaps(cfg):
        with console.says_when_stopped(
            f"The results and the page are kept in {files}; only the checks of heatmaps are not finished. "
            f"cxrlab explain run={files} makes them."
        ):
            explain_training(
                files.path,
                classifier,
                data,
                predicted.facts,
                part=part,
                settings=config.build(cfg.explanation),
            )
            add_heatmap_checks(run, predicted, settings, result, images=images, sections=sections)
        log.info("The checks of heatmaps are on the page now.")


@hydra.main(version_base="1.3", config_path=str(config.config_dir()), config_name="train")
def _main(cfg: DictConfig) -> float:
    with ending_is_told():
        return train(cfg)


def _command() -> object:
    sys.argv[1:] = with_sweep(sys.argv[1:])
    return _main()


def main() -> None:
    """Run the command line."""
    console.run_command(_command)


if __name__ == "__main__":
    main()
