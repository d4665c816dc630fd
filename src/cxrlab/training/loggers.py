"""What Lightning's loggers get of a training: settings once, metrics under names that any store can keep.

A metric of a label is ``val/auroc/Edema`` in the trainer and in ``metrics.csv``. A store that makes files of
names, as MLflow's does, has no place for it beside ``val/auroc``: there it is ``val/auroc_by_label/Edema``.
"""

import os
import re
from collections.abc import Mapping, Sequence

import pytorch_lightning as pl
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger
from torch.optim import Optimizer

Setting = str | int | float | bool


def names_for_stores(names: Sequence[str]) -> dict[str, str]:
    """Return names of metrics of labels, such as ``val/auroc/Edema``, as stores of any kind can keep them.

    None is a folder of another, and none holds other signs than letters, digits, blanks, ``_``, ``-`` and
    ``.``; where two would be spelt alike the later one is numbered.

    Args:
        names: Part, metric and label, with ``/`` between them.

    Example:
        >>> names_for_stores(["val/auroc/Edema", "val/auroc/Nodule/Mass", "val/auroc/Nodule_Mass"])
        ... # doctest: +NORMALIZE_WHITESPACE
        {'val/auroc/Edema': 'val/auroc_by_label/Edema',
         'val/auroc/Nodule/Mass': 'val/auroc_by_label/Nodule_Mass',
         'val/auroc/Nodule_Mass': 'val/auroc_by_label/Nodule_Mass_2'}
    """
    stored: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        part, metric, label = name.split("/", 2)
        spelt = f"{part}/{metric}_by_label/" + (re.sub(r"[^\w .-]", "_", label).strip(". ") or "_")
        number, candidate = 1, spelt
        while candidate.lower() in taken:  # files of some systems do not tell case apart
            number += 1
            candidate = f"{spelt}_{number}"
        taken.add(candidate.lower())
        stored[name] = candidate
    return stored


@rank_zero_only
def log_by_label(trainer: pl.Trainer, values: Mapping[str, float]) -> None:
    """Give the metrics of labels to the loggers, beside what the trainer logs of the same step.

    Args:
        trainer: In a training, whose rows of ``metrics.csv`` get them too, or in a test.
        values: By name, such as ``val/auroc/Edema``.
    """
    stored = names_for_stores(list(values))
    for logger in trainer.loggers:
        is_row = is_table(logger)
        named = {name if is_row else stored[name]: value for name, value in values.items()}
        logger.log_metrics({**named, "epoch": trainer.current_epoch}, step=trainer.global_step)
        logger.save()


@rank_zero_only
def log_test(trainer: pl.Trainer, values: Mapping[str, float], by_label: Mapping[str, float]) -> None:
    """Give the metrics of the test part to the loggers but to the table of epochs: it has no row for them."""
    stored = {names[1]: by_label[names[0]] for names in names_for_stores(list(by_label)).items()}
    for logger in trainer.loggers:
        if not is_table(logger):
            logger.log_metrics({**values, **stored}, step=trainer.global_step)
            logger.save()


@rank_zero_only
def log_settings(trainer: pl.Trainer, settings: Mapping[str, object]) -> None:
    """Give the settings of a training to the loggers, once.

    Args:
        trainer: As its training starts.
        settings: Of the classifier: labels, network, preprocessing.
    """
    known = {**_of_optimizer(trainer.optimizers[0]), **settings, **_of_trainer(trainer), **_of_data(trainer)}
    for logger in trainer.loggers:
        logger.log_hyperparams(known)
        logger.save()


def is_table(logger: Logger) -> bool:
    """Tell whether a logger is metrics.csv, which has one row an epoch and the trainer's own names."""
    return bool(getattr(logger, "has_rows_of_epochs", False))


def _of_optimizer(optimizer: Optimizer) -> dict[str, Setting]:
    group = optimizer.param_groups[0]
    names = ("weight_decay", "momentum")
    return {
        "optimizer": type(optimizer).__name__,
        "learning_rate": float(group.get("initial_lr", group["lr"])),
        **{name: float(group[name]) for name in names if isinstance(group.get(name), int | float)},
    }


def _of_trainer(trainer: pl.Trainer) -> dict[str, Setting]:
    schedulers = [type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs]
    seed = os.environ.get("PL_GLOBAL_SEED", "")  # pl.seed_everything leaves it there
    return {
        "scheduler": schedulers[0] if schedulers else "none",
        "max_epochs": trainer.max_epochs if trainer.max_epochs is not None else -1,
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
        **({"seed": int(seed)} if seed.isdecimal() else {}),
    }


def _of_data(trainer: pl.Trainer) -> dict[str, Setting]:
    """Return what is known of the data: no id of a patient, no path."""
    data = getattr(trainer, "datamodule", None)
    manifest = getattr(data, "manifest", None)
    if data is None or manifest is None:
        return {}
    counts = {f"data_{part}_images": int((manifest.table["part"] == part).sum()) for part in _PARTS}
    return {
        "data": manifest.name,
        "data_fingerprint": manifest.fingerprint(),
        "data_split": str(data.split.method),
        "batch_size": int(data.batch_size),
        "sampling": str(data.sampling),
        **counts,
    }


_PARTS = ("train", "val", "test")
