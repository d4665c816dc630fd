"""The five tutorials as experiments: every value that they publish, and what Keras means by its words."""

from collections.abc import Callable
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from cxrlab.cli import config
from cxrlab.train import checked

Compose = Callable[..., DictConfig]

# What the tutorials print, by the key of the config. Trainable parameters are as published where they are; else of
# the same network in Keras. None: the tutorial has no such thing.
_LAB = {
    "model.backbone": "mobilenetv1_100", "model.own_head": True, "model.hidden": 224, "model.feature_dropout": 0.2,
    "model.dropout": 0.0, "model.pretrained": False, "model.freeze": None, "trainable": 3_437_026,
    "task": "multiclass", "loss": "CrossEntropy", "optimizer": "RMSprop", "optimizer.lr": 1e-6,
    "data.image_size": 224, "data.channels": 3, "data.batch_size": 32, "data.max_train_images": 900,
    "data.equal_classes": True, "data.steps_per_epoch": None, "trainer.max_epochs": 3, "scheduler": "constant",
    "callbacks.early_stopping": None, "preprocess.normalize": "none", "preprocess.mean": None, "preprocess.std": None,
    "augment": {},
}  # fmt: skip
_LAB_TURNED = _LAB | {"augment": {"rotation": 5, "flip": 0.5, "fill": "reflection"}}
_LAB_ZOOMED = _LAB | {"augment": {"rotation": 5, "flip": 0.5, "fill": "reflection", "zoom": 0.2}}
_LAB_FROZEN = _LAB_ZOOMED | {
    "model.pretrained": True, "model.freeze": "backbone", "trainable": 230_050, "trainer.max_epochs": 10,
}  # fmt: skip
_MALARIA = {
    "task": "multilabel", "loss": "BCE", "optimizer": "RMSprop", "optimizer.lr": 1e-3, "model.padding": "valid",
    "model.output_dropout": 0.5, "data.image_size": 130, "data.channels": 3, "data.batch_size": 16,
    "data.steps_per_epoch": 150, "trainer.max_epochs": 50, "scheduler": "constant", "callbacks.early_stopping": None,
    "preprocess.normalize": "none", "augment": {}, "trainable": 75_937,
    "model.layers": ["conv 32", "pool", "conv 64", "pool", "conv 64 linear", "pool", "conv 32", "pool"],
}  # fmt: skip
_FOUR_CONVS = ["conv 32", "pool", "conv 64", "pool", "conv 128", "pool", "conv 128", "pool"]
_CNN = {
    "task": "multilabel", "loss": "BCE", "optimizer": "Adam", "optimizer.lr": 1e-4, "model.padding": "valid",
    "model.output_dropout": 0.0, "data.image_size": 150, "data.channels": 3, "data.batch_size": 16,
    "data.steps_per_epoch": None, "trainer.max_epochs": 30, "scheduler": "constant", "callbacks.early_stopping": None,
    "preprocess.normalize": "none", "evaluation.threshold": 0.5, "augment": {}, "trainable": 3_485_505,
    "model.layers": [*_FOUR_CONVS, "dense 512", "dense 64"],
}  # fmt: skip
_CNN_2 = _CNN | {
    "trainer.max_epochs": 20,
    "model.layers": [
        *_FOUR_CONVS[:6], "dropout 0.5", *_FOUR_CONVS[6:], "dropout 0.5", "dense 512 l2 0.01", "dropout 0.5",
        "dense 64 l2 0.01",
    ],
}  # fmt: skip
_CNN_3 = _CNN_2 | {"augment": {"shear": 0.2, "zoom": 0.2, "flip": 0.5}}

_LAB_V2 = _LAB_FROZEN | {"model.backbone": "mobilenetv2_100", "trainer.max_epochs": 30, "trainable": 287_394}
# Keras' MobileNetV3 ends in 960 features, and makes x / 127.5 - 1 of its input, which the lab gives from 0 to 1.
_LAB_V3 = _LAB_FROZEN | {
    "model.backbone": "mobilenetv3_large_100", "model.own_head": False, "trainer.max_epochs": 30,
    "trainable": 215_714, "preprocess.normalize": "given", "preprocess.mean": [127.5] * 3,
    "preprocess.std": [127.5] * 3,
}  # fmt: skip
# The zoom is in the text; the other amounts are the author's script's.
_MALARIA_IMPROVED = _MALARIA | {
    "optimizer.lr": 1e-4, "data.batch_size": 32, "data.steps_per_epoch": 100,
    "augment": {"rotation": 40, "shift": 0.1, "shear": 0.1, "zoom": 0.8, "flip": 0.5},
    "callbacks.early_stopping": {"monitor": "val/loss", "mode": "min", "patience": 5}, "trainable": 2_601_153,
    "model.layers": [*_FOUR_CONVS, "dense 512"],
}  # fmt: skip
# Keras' val_loss has the L2 penalty in it.
_CNN_4 = _CNN_3 | {
    "data.image_size": 224, "trainer.max_epochs": 30, "trainable": 9_711_425,
    "callbacks.early_stopping": {"monitor": "val/loss_with_penalty", "mode": "min", "patience": 5},
    "callbacks.best": {"monitor": "val/loss_with_penalty", "mode": "min"},
}  # fmt: skip
_VGG = {
    "task": "multilabel", "loss": "BCE", "optimizer": "RMSprop", "optimizer.lr": 1e-3, "model.padding": "same",
    "model.output_dropout": 0.0, "data.image_size": 150, "data.channels": 1, "data.batch_size": 32,
    "data.steps_per_epoch": None, "trainer.max_epochs": 12, "callbacks.early_stopping": None,
    "scheduler": "plateau", "scheduler.monitor": "val/accuracy", "scheduler.mode": "max", "scheduler.patience": 2,
    "scheduler.factor": 0.3, "scheduler.min_lr": 1e-6, "preprocess.normalize": "none", "evaluation.threshold": 0.5,
    "augment": {"rotation": 30, "zoom": 0.2, "shift": 0.1, "flip": 0.5}, "trainable": 4_308_673,
    "model.layers": [
        "conv 64", "conv 64", "pool", "norm", "conv 128", "pool", "norm", "conv 256", "pool", "norm", "conv 256",
        "pool", "norm", "conv 512", "pool", "dense 256", "dense 128", "dropout 0.2",
    ],
}  # fmt: skip
_CHEXNET = {
    "task": "multilabel", "loss": "WeightedBCE", "optimizer": "Adam", "optimizer.lr": 1e-3,
    "model.backbone": "densenet121", "model.pretrained": True, "model.freeze": None, "model.hidden": None,
    "model.dropout": 0.0, "model.feature_dropout": 0.0, "data.image_size": 320, "data.channels": 3,
    "data.batch_size": 8, "data.steps_per_epoch": 100, "trainer.limit_val_batches": 25, "trainer.max_epochs": 3,
    "scheduler": "constant", "callbacks.early_stopping": None, "preprocess.normalize": "image_then_sample",
    "augment": {}, "trainable": 6_968_206,
}  # fmt: skip

PUBLISHED: dict[str, dict[str, Any]] = {
    "mobilenet_lab": _LAB,
    "mobilenet_lab_turned": _LAB_TURNED,
    "mobilenet_lab_zoomed": _LAB_ZOOMED,
    "mobilenet_lab_frozen": _LAB_FROZEN,
    "mobilenetv2_lab": _LAB_V2,
    "mobilenetv3_lab": _LAB_V3,
    "malaria_baseline": _MALARIA,
    "malaria_improved": _MALARIA_IMPROVED,
    "pneumonia_cnn_1": _CNN,
    "pneumonia_cnn_2": _CNN_2,
    "pneumonia_cnn_3": _CNN_3,
    "pneumonia_cnn_4": _CNN_4,
    "vgg_grayscale": _VGG,
    "chexnet_course": _CHEXNET,
}
NUM_LABELS = {"mobilenet": 2, "chexnet": 14}
_OBJECTS = ("loss", "optimizer", "scheduler")


def recipe(composed: Compose, name: str, *overrides: str) -> DictConfig:
    return checked(composed(f"experiment={name}", "data.root=x", "run_dir=y", *overrides))


def layers(cfg: DictConfig) -> list[str]:
    """Each layer in a word and its numbers: ``conv 64 linear``, ``dense 512 l2 0.01``."""

    def words(layer: Any) -> str:
        if isinstance(layer, str):
            return layer
        return " ".join(name if value is True else f"{name} {value}" for name, value in layer.items())

    return [words(layer) for layer in OmegaConf.to_container(cfg.model.layers)]


def augmentation(cfg: DictConfig) -> Any:
    """The amounts that are not 0, and what stands outside the image where that is not the nearest pixel."""
    node = OmegaConf.to_container(cfg.augment)
    name = node.pop("_target_").rpartition(".")[2]
    if name == "NoAugment":
        return {}
    amounts = (
        "flip",
        "rotation",
        "shift",
        "zoom",
        "shear",
        "brightness",
        "contrast",
        "gamma",
        "noise",
        "blur",
    )
    drawn = {key: node[key] for key in (*amounts, "erasing") if node[key]}
    return drawn | ({} if node["fill"] == "border" else {"fill": node["fill"]})


def value(cfg: DictConfig, key: str) -> Any:
    if key in _OBJECTS:
        return cfg[key]["_target_"].rpartition(".")[2]
    if key == "augment":
        return augmentation(cfg)
    if key == "model.layers":
        return layers(cfg)
    found = OmegaConf.select(cfg, key)
    return OmegaConf.to_container(found) if OmegaConf.is_config(found) else found


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_every_published_value(composed: Compose, name: str):
    cfg = recipe(composed, name)
    wanted = {key: value for key, value in PUBLISHED[name].items() if key != "trainable"}
    found = {key: value(cfg, key) for key in wanted}
    for key, settings in wanted.items():
        if key.startswith("callbacks.") and settings:  # of a callback some values are published
            found[key] = {one: found[key][one] for one in settings}
    assert found == wanted


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_its_published_number_of_trainable_parameters(composed: Compose, name: str):
    # Weights cannot be downloaded here; their number does not depend on them.
    offline = ["model.pretrained=false"] if name.startswith(("mobilenet", "chexnet")) else []
    cfg = recipe(composed, name, *offline)
    num_labels = next((count for start, count in NUM_LABELS.items() if name.startswith(start)), 1)
    network = config.build(cfg.model)(
        num_labels=num_labels, channels=cfg.data.channels, image_size=cfg.data.image_size
    )
    trainable = sum(one.numel() for one in network.parameters() if one.requires_grad)
    assert trainable == PUBLISHED[name]["trainable"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_trains_as_keras_does(composed: Compose, name: str):
    cfg = recipe(composed, name)
    assert cfg.trainer.gradient_clip_val is None
    assert cfg.optimizer.eps == 1e-7
    assert cfg.optimizer.get("weight_decay", 0) == 0
    assert cfg.data.sampling == "uniform"
    if cfg.optimizer["_target_"].endswith("RMSprop"):
        assert (cfg.optimizer.alpha, cfg.optimizer.momentum) == (0.9, 0)
    else:
        assert list(cfg.optimizer.get("betas", [0.9, 0.999])) == [0.9, 0.999]
    if "zoom" in cfg.augment:
        assert cfg.augment.zoom_per_axis
        assert cfg.augment.zoom_of_field


def test_every_experiment_after_a_tutorial_is_in_the_table():
    """What is not succeeds one, or is a recipe of our own."""
    names = {path.stem for path in (config.config_dir() / "experiment").glob("*.yaml")}
    assert names - PUBLISHED.keys() == {
        "linear_probe", "malaria_better", "mobilenet_lab_lite", "nih_speedrun", "pneumonia",
        "pneumonia_better", "pneumonia_transfer", "transfer",
    }  # fmt: skip
