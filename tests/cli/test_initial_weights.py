"""What a config says of the weights that a network starts from, checked before any data is touched."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from cxrlab.cli.build import decide_normalization, initial_network
from cxrlab.cli.config import config_dir
from cxrlab.cli.initial_weights import expected_statistics
from cxrlab.cli.suggestions import option_hint
from cxrlab.errors import ConfigError, MissingFileError
from cxrlab.runs.run import load_run
from cxrlab.train import checked, train

Compose = Callable[..., DictConfig]
ROOT = ("data.root=/nowhere", "run_dir=/nowhere/run")
LITE = ("weights=efficientnet_lite0", "model=of_weights")


def test_no_weights_are_chosen_unasked(composed: Compose):
    cfg = checked(composed(*ROOT))
    assert cfg.weights is None
    assert cfg.preprocess.normalize == "auto"


def test_the_architecture_is_that_of_the_weights(composed: Compose):
    cfg = checked(composed(*LITE, *ROOT))
    assert cfg.model.backbone == "tf_efficientnet_lite0"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model=of_weights"], r"model=of_weights is the architecture .* one of .*efficientnet_lite0"),
        ([LITE[0]], r"weights=efficientnet_lite0 is of tf_efficientnet_lite0, not of .*=resnet10t: .*=of_weights"),
        ([LITE[0], "model=sequential"], r"for a timm architecture, and model is .*SequentialNetwork: choose"),
        ([*LITE, "model.pretrained=true"], "weights=efficientnet_lite0 and model.pretrained=True exclude"),
        ([*LITE, "model.checkpoint_path=x.pth"], r"and model.checkpoint_path=x\.pth exclude"),
        ([*LITE, "weights.channels=1"], r"mean=\[0.5, 0.5, 0.5\] and std=.* channels=1"),
        ([*LITE, "+weights.is_non_commercial=true"], r"no commercial use .*set model.accept_license=true"),
        ([*LITE, "weights.image_size=large"], r"weights.image_size='large' does not fit: it takes int"),
        ([*LITE, "+weights.seen.0.part=x"], r"weights.seen\[0\].part='x' is no parameter of .*SeenData"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_data_is_touched(
    composed: Compose, overrides: list[str], words: str
):
    with pytest.raises(ConfigError, match=words):
        checked(composed(*overrides, *ROOT))


def test_an_accepted_licence_goes_on(composed: Compose):
    checked(composed(*LITE, "+weights.is_non_commercial=true", "model.accept_license=true", *ROOT))


def test_a_misspelt_name_and_a_file_are_told_what_is_meant():
    names = ["efficientnet_lite0", "none"]
    assert option_hint("weights", "efficientnet-lite0", names) == "Did you mean weights=efficientnet_lite0?"
    assert "model.checkpoint_path=<file>" in option_hint("weights/x", "y.pth", names)


# How images are normalised.


def test_images_are_normalised_as_the_weights_expect(composed: Compose, caplog: pytest.LogCaptureFixture):
    cfg = checked(composed(*LITE, "data.channels=1", *ROOT))
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        assert decide_normalization(cfg) == {"normalize": "given", "mean": [0.5], "std": [0.5]}
    assert "as weights=efficientnet_lite0 expects: mean 0.5, deviation 0.5" in caplog.text


def test_timm_s_published_weights_bring_timm_s_statistics(composed: Compose):
    colour = checked(composed("model=densenet121", "model.pretrained=true", "data.channels=3", *ROOT))
    expected = expected_statistics(colour)
    assert expected is not None
    assert expected.mean == [0.485, 0.456, 0.406]
    assert expected.owner == "timm's densenet121.ra_in1k"
    grey = checked(composed("model=densenet121", "model.pretrained=true", "data.channels=1", *ROOT))
    assert decide_normalization(grey)["mean"] == pytest.approx([0.449], abs=1e-9)
    half = checked(composed("model=vit_small", "model.pretrained=true", "data.channels=3", *ROOT))
    assert decide_normalization(half)["std"] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    "overrides",
    [[], ["model.checkpoint_path=x.pth"], ["model=sequential"], ["model=vit_small", "data.image_size=64"]],
)
def test_other_weights_leave_the_training_part_s_statistics(composed: Compose, overrides: list[str]):
    decided = decide_normalization(checked(composed(*overrides, *ROOT)))
    assert decided == {"normalize": "training", "mean": None, "std": None}


def test_what_is_said_of_the_normalisation_counts(composed: Compose):
    cfg = checked(composed(*LITE, "preprocess.normalize=equalize", *ROOT))
    assert decide_normalization(cfg)["normalize"] == "equalize"
    both = checked(composed(*LITE, "preprocess.mean=[0.4]", *ROOT))
    assert decide_normalization(both)["normalize"] == "auto"  # refused where the numbers are used


@pytest.mark.parametrize(
    "path",
    sorted((config_dir() / "experiment").glob("*.yaml")),
    ids=lambda path: path.stem,
)
def test_an_experiment_with_timm_s_weights_says_how_it_normalises(path: Path, composed: Compose):
    """Their values are published: the default must not come in between."""
    cfg = composed(f"experiment={path.stem}", *ROOT)
    assert not cfg.model.get("pretrained") or cfg.preprocess.normalize != "auto"


def test_another_size_than_the_weights_is_told(
    composed: Compose, colour_file: Path, caplog: pytest.LogCaptureFixture
):
    overrides = ["weights=resnet10t_imagenet", f"weights.path={colour_file}", "model=of_weights", *ROOT]
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        initial_network(checked(composed(*overrides, "data.image_size=64")), 2)
    assert "trained at 176 px, and data.image_size=64" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        initial_network(checked(composed(*overrides, "data.image_size=176")), 2)
    assert "px" not in caplog.text
    assert "weights=resnet10t_imagenet: ResNet-10-T on ImageNet-1k" in caplog.text


def test_frozen_named_weights_are_not_called_random(
    composed: Compose, colour_file: Path, caplog: pytest.LogCaptureFixture
):
    overrides = [
        "weights=resnet10t_imagenet",
        f"weights.path={colour_file}",
        "model=of_weights",
        "model.freeze=backbone",
    ]
    initial_network(checked(composed(*overrides, *ROOT)), 2)
    assert "keeps random weights" not in caplog.text
    initial_network(checked(composed("model.freeze=backbone", *ROOT)), 2)
    assert "keeps random weights" in caplog.text


# A set of one's own.


def test_a_set_of_ones_own_is_chosen_by_its_name(tmp_path: Path, colour_file: Path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "ours.yaml").write_text(f"""
_target_: cxrlab.models.weights.WeightSource
name: ours
title: Our hospital's
backbone: resnet10t
path: {colour_file}
image_size: 64
mean: [0.25, 0.25, 0.25]
std: [0.25, 0.25, 0.25]
licence: MIT
source: Our paper
seen: null
""")
    overrides = ["weights=ours", "model=resnet10t", f"hydra.searchpath=[file://{tmp_path}]", *ROOT]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = checked(compose("train", overrides=overrides))
    assert decide_normalization(cfg)["mean"] == [0.25]
    network = initial_network(cfg, 3)
    donor = timm.create_model("resnet10t", num_classes=1000)
    assert network.state_dict()["backbone.layer4.0.conv1.weight"].shape == donor.layer4[0].conv1.weight.shape


# A run from named weights.


@pytest.fixture(scope="module")
def run_from_weights(
    tiny: Compose, colour_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A run of one epoch from a named set, whose file is gone afterwards; and that file."""
    run_dir = tmp_path_factory.mktemp("run")
    copy = run_dir.with_name("weights.safetensors")
    copy.write_bytes(colour_file.read_bytes())
    train(
        tiny(
            run_dir,
            "weights=resnet10t_imagenet",
            f"weights.path={copy}",
            "model=of_weights",
            "optimizer.lr=0",
        )
    )
    copy.unlink()
    return run_dir, copy


def test_a_run_starts_from_the_weights(run_from_weights: tuple[Path, Path], colour_file: Path):
    from safetensors.torch import load_file

    run_dir, _ = run_from_weights
    state = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    saved = state["network.backbone.layer4.0.conv1.weight"]
    assert torch.equal(
        saved, load_file(colour_file)["layer4.0.conv1.weight"]
    )  # nothing was learnt, at rate 0


def test_the_checkpoint_holds_the_numbers_and_needs_no_weights(run_from_weights: tuple[Path, Path]):
    run_dir, _ = run_from_weights
    saved = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)["hyper_parameters"]
    assert saved["preprocess"]["normalize"] == "given"
    assert saved["preprocess"]["mean"] == pytest.approx([0.449])
    assert saved["network"]["checkpoint_path"] is None
    assert not {"weights", "accept_license"} & saved["network"].keys()
    assert load_run(run_dir).labels
    resolved = OmegaConf.load(run_dir / ".hydra" / "resolved.yaml")
    assert resolved.preprocess.normalize == "given"


def test_a_resumed_run_needs_neither_package_nor_network(
    run_from_weights: tuple[Path, Path], tiny: Compose, caplog: pytest.LogCaptureFixture
):
    run_dir, copy = run_from_weights
    assert not copy.exists()
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        train(tiny(run_dir, f"resume={run_dir}", "trainer.max_epochs=2"))
    assert "weights of the last checkpoint" in caplog.text


def test_a_missing_file_of_weights_is_told_before_images_are_decoded(tiny: Compose, tmp_path: Path):
    with pytest.raises(
        MissingFileError, match=r"no file /no/x.pth \(weights.path, for weights=resnet10t_ima"
    ):
        train(tiny(tmp_path, "weights=resnet10t_imagenet", "weights.path=/no/x.pth", "model=of_weights"))
