"""The five tutorials as experiments: their numbers of parameters as published, and what Keras means by its words."""

from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from cxrlab.cli import config
from cxrlab.train import checked

Compose = Callable[..., DictConfig]

# Trainable parameters as published, where they were; else counted by hand from the layers.
TRAINABLE = {
    "mobilenet_lab": 3_437_026,
    "mobilenet_lab_turned": 3_437_026,
    "mobilenet_lab_zoomed": 3_437_026,
    "mobilenet_lab_frozen": 229_600 + 450,
    "mobilenetv2_lab": 1280 * 224 + 224 + 450,
    "mobilenetv3_lab": 1280 * 224 + 224 + 450,
    "malaria_baseline": 75_937,
    "malaria_improved": 2_601_153,
    "pneumonia_cnn_1": 3_485_505,
    "pneumonia_cnn_2": 3_485_505,
    "pneumonia_cnn_3": 3_485_505,
    "pneumonia_cnn_4": 9_711_425,
    "vgg_grayscale": 4_308_673,
    "chexnet_course": 6_968_206,
}
NUM_LABELS = {"mobilenet": 2, "chexnet": 14}


def recipe(composed: Compose, name: str, *overrides: str) -> DictConfig:
    return checked(composed(f"experiment={name}", "data.root=x", "run_dir=y", *overrides))


@pytest.mark.parametrize(("name", "published"), TRAINABLE.items())
def test_a_recipe_has_its_published_number_of_trainable_parameters(
    composed: Compose, name: str, published: int
):
    # Weights cannot be downloaded here; their number does not depend on them.
    offline = ["model.pretrained=false"] if name.startswith("mobilenet") else []
    cfg = recipe(composed, name, *offline)
    num_labels = next((count for start, count in NUM_LABELS.items() if name.startswith(start)), 1)
    network = config.build(cfg.model)(
        num_labels=num_labels, channels=cfg.data.channels, image_size=cfg.data.image_size
    )
    assert sum(one.numel() for one in network.parameters() if one.requires_grad) == published


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_recipe_trains_as_keras_does(composed: Compose, name: str):
    cfg = recipe(composed, name)
    assert cfg.trainer.gradient_clip_val is None
    assert cfg.optimizer.eps == 1e-7
    if "alpha" in cfg.optimizer:
        assert cfg.optimizer.alpha == 0.9
    if "zoom" in cfg.augment:
        assert cfg.augment.zoom_per_axis
        assert cfg.augment.zoom_of_field
        assert cfg.augment.fill == ("reflection" if "turned" in name or "zoomed" in name else "border")
    assert (cfg.preprocess.normalize == "image_then_sample") == (name == "chexnet_course")
    if name != "chexnet_course":
        assert cfg.preprocess.normalize == "none"


@pytest.mark.parametrize(
    ("name", "lr", "batch_size", "epochs"),
    [
        ("mobilenet_lab", 1e-6, 32, 3),
        ("mobilenet_lab_frozen", 1e-6, 32, 10),
        ("mobilenetv2_lab", 1e-6, 32, 30),
        ("malaria_improved", 1e-4, 32, 50),
        ("pneumonia_cnn_1", 1e-4, 16, 30),
        ("pneumonia_cnn_3", 1e-4, 16, 20),
        ("vgg_grayscale", 1e-3, 32, 12),
        ("chexnet_course", 1e-3, 8, 3),
    ],
)
def test_a_recipe_has_its_published_rate_batch_and_epochs(
    composed: Compose, name: str, lr: float, batch_size: int, epochs: int
):
    cfg = recipe(composed, name)
    assert (cfg.optimizer.lr, cfg.data.batch_size, cfg.trainer.max_epochs) == (lr, batch_size, epochs)
