import argparse
import io
import logging
import os
import pickle
import re
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from cxrlab.errors import CheckpointError, MissingFileError
from cxrlab.models.timm_network import TimmNetwork
from cxrlab.models.weights.families import looks_like
from cxrlab.models.weights.fitting import is_head
from cxrlab.models.weights.layouts import translated
from cxrlab.models.weights.loading import read_weights
from cxrlab.runs.run import load_classifier

OPTIONS = {
    "pretrained": False,
    "hidden": None,
    "dropout": 0.0,
    "feature_dropout": 0.0,
    "freeze": None,
    "unfreeze_epoch": None,
    "num_labels": 2,
    "channels": 1,
    "image_size": 64,
}


def network(path: Path, backbone: str = "resnet10t", **changes: object) -> TimmNetwork:
    return TimmNetwork(backbone=backbone, checkpoint_path=str(path), **{**OPTIONS, **changes})


@pytest.fixture(scope="module")
def donor() -> nn.Module:
    """A colour classifier of 1,000 classes, as published weights are."""
    torch.manual_seed(5)
    return timm.create_model("resnet10t", pretrained=False, num_classes=1000, in_chans=3)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
def test_weights_load_from_every_format_but_for_the_head(
    donor: nn.Module, tmp_path: Path, suffix: str, prefix: str, caplog: pytest.LogCaptureFixture
):
    state = {prefix + name: tensor.contiguous() for name, tensor in donor.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if suffix == ".ckpt" else state, path)
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        loaded = network(path)
    own = loaded.backbone.state_dict()
    assert all(torch.equal(own[name], donor.state_dict()[name]) for name in own if name != "conv1.0.weight")
    assert "not used: ['fc.bias', 'fc.weight']" in caplog.text
    assert "Adapted conv1.0.weight from 3 to 1 input channels" in caplog.text


def test_one_channel_weights_answer_a_grey_image_as_three_channels_do(donor: nn.Module, tmp_path: Path):
    path = tmp_path / "weights.pth"
    torch.save(donor.state_dict(), path)
    grey = torch.randn(2, 1, 64, 64)
    one, three = network(path).eval(), network(path, channels=3).eval()
    with torch.no_grad():
        features = one.backbone.forward_features(grey)
        expected = three.backbone.forward_features(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)


def test_one_channel_weights_answer_equal_channels_as_the_one(tmp_path: Path):
    one = TimmNetwork(backbone="resnet10t", checkpoint_path=None, **OPTIONS).eval()
    torch.save(one.state_dict(), tmp_path / "weights.pth")
    three = network(tmp_path / "weights.pth", channels=3).eval()
    grey = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = one.backbone.forward_features(grey)
        found = three.backbone.forward_features(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_run_s_backbone_starts_another_and_its_head_stays_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    first = TimmNetwork(backbone="resnet10t", checkpoint_path=None, **{**OPTIONS, "hidden": 7})
    state = {f"network.{name}": tensor for name, tensor in first.state_dict().items()}
    state |= {"preprocess.mean": torch.zeros(1), "operating_point.thresholds": torch.zeros(2)}
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": state, "hyper_parameters": {"labels": ["Edema", "Mass"]}}, path)
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        second = network(path)
    for name, tensor in first.backbone.state_dict().items():
        assert torch.equal(second.backbone.state_dict()[name], tensor), name
    assert "not used: ['network.head.0.weight'" in caplog.text
    assert "operating_point.thresholds" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def old_spelling(name: str) -> str:
    """``denselayer1.norm1.weight`` as torchvision wrote it before 0.3."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name)


def re_implementation(name: str) -> str:
    """A name as CheXNet's re-implementations save it: DataParallel, a module's name, a sequential head."""
    return "module.densenet121." + old_spelling(name).replace("classifier.", "classifier.0.")


@pytest.fixture(scope="module")
def chexnet() -> nn.Module:
    """torchvision's DenseNet-121 with 14 outputs, whose batch normalisation has seen images."""
    torch.manual_seed(3)
    densenet = torchvision.models.densenet121(weights=None, num_classes=14)
    with torch.no_grad():
        densenet(torch.randn(2, 3, 64, 64))
    return densenet.eval()


@pytest.mark.parametrize("spelling", [str, old_spelling, re_implementation])
def test_a_densenet_of_torchvision_gives_torchvision_s_features(
    chexnet: nn.Module, tmp_path: Path, spelling: Callable[[str], str]
):
    state = {spelling(name): tensor for name, tensor in chexnet.state_dict().items()}
    if spelling is re_implementation:
        state = {name: tensor for name, tensor in state.items() if "num_batches" not in name}
        assert "module.densenet121.features.denseblock1.denselayer1.norm.1.weight" in state
    torch.save(state, tmp_path / "weights.pth")
    loaded = network(tmp_path / "weights.pth", "densenet121", channels=3, num_labels=14).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = torch.relu(chexnet.features(images)).mean(dim=(2, 3))
        found = loaded.backbone.forward_head(loaded.backbone.forward_features(images), pre_logits=True)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.equal(loaded.head[-1].weight, chexnet.classifier.weight)  # in no known order


@pytest.mark.parametrize(
    ("architecture", "backbone"), [("resnet18",) * 2, ("mobilenet_v2", "mobilenetv2_100")]
)
def test_other_networks_of_torchvision_give_torchvision_s_features(
    tmp_path: Path, architecture: str, backbone: str
):
    theirs = torchvision.models.get_model(architecture, weights=None)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        theirs(images)
    theirs.eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    loaded = network(tmp_path / "weights.pth", backbone, channels=3).eval()
    *layers, _ = theirs.children() if architecture == "resnet18" else (theirs.features, theirs.classifier)
    with torch.no_grad():
        features = nn.Sequential(*layers)(images)
        expected = features.mean(dim=(2, 3))
        found = loaded.backbone.forward_head(loaded.backbone.forward_features(images), pre_logits=True)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_zip", [True, False])
def test_what_training_programs_keep_beside_the_weights_does_no_harm(tmp_path: Path, is_zip: bool):
    layer = nn.Linear(2, 1)
    extras = {
        "epoch": 3,
        "best_loss": np.float64(0.25),
        "seen": np.int64(7),
        "args": argparse.Namespace(lr=0.1),
        "optimizer": torch.optim.Adam(layer.parameters()).state_dict(),
    }
    torch.save(
        {**extras, "state_dict": layer.state_dict()}, tmp_path / "m.pth.tar",
        _use_new_zipfile_serialization=is_zip,
    )  # fmt: skip
    weights = read_weights(tmp_path / "m.pth.tar")
    assert weights.keys() == {"weight", "bias"}
    assert torch.equal(weights["weight"], layer.weight)


def test_a_whole_pickled_network_is_rejected_with_what_to_do(tmp_path: Path):
    torch.save(nn.Linear(2, 1), tmp_path / "model.pt")
    with pytest.raises(
        CheckpointError, match=r"an object of torch.nn.modules.linear.Linear.*save its state dict alone"
    ):
        read_weights(tmp_path / "model.pt")


def test_weights_of_another_architecture_are_rejected(donor: nn.Module, tmp_path: Path):
    path = tmp_path / "weights.pth"
    torch.save(donor.state_dict(), path)
    with pytest.raises(
        CheckpointError,
        match=r"weights.pth does not fit the network: \d+ of its \d+ parameters are missing.* "
        r"By its names and shapes the file is of a ResNet-10 with basic blocks, and fits model=timm "
        r"model.backbone=resnet10t\.",
    ):
        network(path, backbone="mobilenetv3_small_100")
    state = donor.state_dict() | {"layer4.0.conv1.weight": torch.zeros(1, 2, 3, 3)}
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"layer4.0.conv1.weight \(1, 2, 3, 3\) for"):
        network(path)


def test_a_missing_parameter_is_not_skipped_silently(donor: nn.Module, tmp_path: Path):
    state = donor.state_dict()
    del state["layer2.0.bn1.running_mean"]
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"1 of its .*\['layer2.0.bn1.running_mean'\]"):
        network(tmp_path / "weights.pth")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(MissingFileError, match=r"no file .*absent.pth \(model.checkpoint_path\)"):
        network(tmp_path / "absent.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_truncated_file_is_named(donor: nn.Module, tmp_path: Path, suffix: str, keep: float):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in donor.state_dict().items()}, path)
    else:
        torch.save(donor.state_dict(), path)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=rf"weights{suffix} \(\d+ bytes\) cannot be read as weights"):
        read_weights(path)


def zip_of(*names: str) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), "x")
    return memory.getvalue()


OTHER_FILES = [
    (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 4\n",
        "a Git LFS pointer.*git lfs pull",
    ),
    (b"\xef\xbb\xbfversion https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    (b"/annex/objects/MD5E-s12--abc\n", "a git-annex pointer"),
    (b"../.git/annex/objects/MD5E-s12--abc\n", "a git-annex pointer"),
    (b"<!DOCTYPE html><html><body>Sign in</body></html>", "an HTML page"),
    (b"\n\n  <html lang='en'>", "an HTML page"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an XML answer"),
    (b'{"error": "not found"}', "a JSON text"),
    (b"Quota exceeded", "a text"),
    ("\u00dcberschritten".encode(), "a text"),
    (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file, as Keras writes"),
    (b"\x1f\x8b\x08" + bytes(50), "a gzip file"),
    (b"\x93NUMPY\x01\x00" + bytes(50), "a NumPy array"),
    (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG picture"),
    (bytes(257) + b"ustar" + bytes(300), "a tar file"),
    (zip_of("config.json", "metadata.json", "model.weights.h5"), "a model of Keras"),
    (zip_of("a.npy", "b.npy"), "a file of NumPy arrays"),
    (zip_of("chest/1.png", "chest/2.png"), r"a zip file of something else \(chest/1.png"),
    (zip_of("model/data.pkl", "model/code/model.py"), "a TorchScript program"),
    (zip_of("a.txt")[:20], "cut short or damaged"),
    (b"", "empty"),
]


@pytest.mark.parametrize(("content", "kind"), OTHER_FILES)
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights.ckpt"])
def test_what_is_no_weights_file_is_told_for_what_it_is(name: str, content: bytes, kind: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        CheckpointError, match=rf"{name} \(\d+ bytes\) cannot be read as weights: it is {kind}"
    ) as error:
        read_weights(tmp_path / name)
    assert "weights_only" not in str(error.value)


def test_no_message_repeats_the_advice_to_load_unsafely(tmp_path: Path):
    torch.save({"state_dict": {"weight": Payload()}}, tmp_path / "a.pth")
    torch.save(
        {"state_dict": {"weight": Payload()}}, tmp_path / "b.pth", _use_new_zipfile_serialization=False
    )
    (tmp_path / "c.pth").write_bytes(pickle.dumps(Payload()))
    (tmp_path / "d.pth").write_bytes(pickle.dumps({"weight": 1.0}, protocol=0))
    (tmp_path / "e.pth").write_bytes(bytes(range(256)) * 4)
    for name in "abcde":
        for read in (read_weights, load_classifier):
            with pytest.raises(CheckpointError, match=rf"{name}.pth") as error:
                read(tmp_path / f"{name}.pth")
            assert not re.search("weights_only|likely succeed|safe_globals", str(error.value))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_the_content_counts_and_not_the_name(donor: nn.Module, tmp_path: Path, suffix: str):
    weights = {name: tensor.contiguous() for name, tensor in donor.state_dict().items()}
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    assert read_weights(path).keys() == weights.keys()


def test_weights_that_are_not_finite_are_rejected_when_they_are_read(donor: nn.Module, tmp_path: Path):
    for value in (float("nan"), float("inf")):
        weights = {name: tensor.clone() for name, tensor in donor.state_dict().items()}
        name = next(name for name, tensor in weights.items() if tensor.ndim == 4)
        weights[name].view(-1)[5] = value
        torch.save(weights, tmp_path / "weights.pth")
        with pytest.raises(
            CheckpointError, match=rf"weights.pth: 1 of the \d+ values of {name} are NaN or infinite"
        ):
            network(tmp_path / "weights.pth")


def test_of_two_state_dicts_it_is_said_which_was_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    torch.save({"model_ema": {"w": torch.ones(1)}, "model": {"w": torch.zeros(1)}}, tmp_path / "two.pth")
    assert read_weights(tmp_path / "two.pth")["w"] == 0
    assert "holds weights below model, model_ema: those below model are taken" in caplog.text


def test_a_file_that_holds_itself_comes_to_an_end(tmp_path: Path):
    content: dict = {}
    content["model"] = content
    torch.save(content, tmp_path / "own.pth")
    with pytest.raises(CheckpointError, match="holds no named tensors"):
        read_weights(tmp_path / "own.pth")


class Payload:
    """Runs when unpickled."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("it-ran"),))


def test_a_file_with_code_in_it_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"weight": Payload()}}, "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil.pth holds more than tensors"):
        read_weights(Path("evil.pth"))
    assert not Path("it-ran").exists()


def test_a_file_without_tensors_is_rejected(tmp_path: Path):
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(CheckpointError, match=r"holds no named tensors"):
        read_weights(tmp_path / "empty.pth")


def test_pretrained_without_a_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        CheckpointError,
        match=r"model.pretrained=true: the weights of resnet10t .* set model.checkpoint_path.*HF_HUB",
    ):
        TimmNetwork(backbone="resnet10t", checkpoint_path=None, **{**OPTIONS, "pretrained": True})


ASK = """
import time
from cxrlab.errors import CheckpointError
from cxrlab.models import TimmNetwork
start = time.monotonic()
try:
    TimmNetwork("resnet10t", num_labels=2, pretrained=True)
except CheckpointError as error:
    print(round(time.monotonic() - start), error)
"""


@pytest.mark.parametrize("answers", [False, True])
def test_a_hub_that_cannot_be_reached_is_told_in_seconds(answers: bool, tmp_path: Path):
    """Nobody listens at the port, or someone who never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not answers:
            server.close()
        place = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        printed = subprocess.run(
            [sys.executable, "-c", ASK], env={**kept, **place}, capture_output=True, text=True, check=True
        ).stdout
    seconds, message = printed.split(maxsplit=1)
    assert int(seconds) <= 15
    assert "the weights of resnet10t" in message


def publish(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let timm find the weights of its registry in a local file."""
    from timm.models import _builder

    monkeypatch.setattr("cxrlab.models.weights.loading._check_hub", lambda repository: None)
    original = _builder._resolve_pretrained_source
    monkeypatch.setattr(
        _builder, "_resolve_pretrained_source", lambda config: original({**config, "file": str(path)})
    )


def test_pretrained_weights_come_through_timms_own_loading(
    donor: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """timm reads the file that its registry names; here one that the test wrote."""
    save_file(
        {name: tensor.contiguous() for name, tensor in donor.state_dict().items()},
        tmp_path / "model.safetensors",
    )
    publish(tmp_path / "model.safetensors", monkeypatch)
    loaded = TimmNetwork(backbone="resnet10t", checkpoint_path=None, **{**OPTIONS, "pretrained": True})
    own = loaded.backbone.state_dict()
    assert torch.equal(own["layer4.0.conv1.weight"], donor.state_dict()["layer4.0.conv1.weight"])
    torch.testing.assert_close(
        own["conv1.0.weight"], donor.state_dict()["conv1.0.weight"].sum(1, keepdim=True)
    )


@pytest.mark.parametrize("level", [logging.WARNING, logging.DEBUG])
def test_pretrained_weights_that_leave_one_at_random_are_refused(
    donor: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, level: int
):
    """timm says so in its log alone."""
    state = {name: tensor.contiguous() for name, tensor in donor.state_dict().items()}
    del state["layer2.0.bn1.running_mean"], state["layer2.0.bn1.num_batches_tracked"]
    save_file(state, tmp_path / "model.safetensors")
    publish(tmp_path / "model.safetensors", monkeypatch)
    timm_log = logging.getLogger("timm.models._builder")
    monkeypatch.setattr(timm_log, "level", level)
    with pytest.raises(CheckpointError, match=r"have none for \['layer2.0.bn1.running_mean'\], 1 in all"):
        TimmNetwork(backbone="resnet10t", checkpoint_path=None, **{**OPTIONS, "pretrained": True})
    assert timm_log.level == level
    assert not timm_log.filters


@pytest.mark.parametrize(
    "name", ["fc.weight", "classifier.0.bias", "module.head.fc.weight", "heads.1.weight"]
)
def test_heads_are_told_by_their_names(name: str):
    assert is_head(name)
    assert not is_head(name.replace("fc", "conv").replace("class", "cl").replace("head", "hat"))


def test_the_prefix_that_brings_most_names_to_match_is_stripped():
    one = torch.zeros(1)
    weights = {"ema.stem.weight": one, "net.stem.weight": one, "net.stem.bias": one, "net.head.weight": one}
    inside, outside = translated(weights, {"stem.weight", "stem.bias"})
    assert list(inside) == ["stem.weight", "stem.bias", "head.weight"]
    assert outside == ["ema.stem.weight"]


def test_names_of_another_network_stay_as_they_are():
    inside, outside = translated({"a.weight": torch.zeros(1)}, {"stem.bias"})
    assert (list(inside), outside) == (["a.weight"], [])


def test_timm_s_own_names_are_left_alone():
    with torch.device("meta"):
        own = timm.create_model("mobilenetv2_100", num_classes=0).state_dict()
    inside, outside = translated(own, own.keys())
    assert inside.keys() == own.keys()
    assert not outside


def test_torchvision_s_mobilenet_has_all_of_timm_s_weights_in_their_shapes():
    with torch.device("meta"):
        own = timm.create_model("mobilenetv2_100", num_classes=0).state_dict()
        theirs = torchvision.models.mobilenet_v2().state_dict()
    inside, _ = translated({f"module.model.{name}": tensor for name, tensor in theirs.items()}, own.keys())
    assert {name: inside[name].shape for name in own} == {name: own[name].shape for name in own}
    assert inside.keys() - own.keys() == {"classifier.1.weight", "classifier.1.bias"}


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("densenet121", "a DenseNet-121"),
        ("densenet201", "a DenseNet-201"),
        ("resnet18", "a ResNet-18 with basic blocks"),
        ("resnet50", "a ResNet-50 with bottlenecks"),
        ("mobilenet_v2", "a MobileNetV2 of torchvision"),
        ("mobilenet_v3_large", "a MobileNetV3 of torchvision"),
        ("vit_b_16", "a vision transformer of torchvision"),
        ("vgg11", "a VGG or AlexNet of torchvision"),
    ],
)
def test_a_torchvision_architecture_is_recognised(architecture: str, words: str):
    with torch.device("meta"):
        state = torchvision.models.get_model(architecture, weights=None).state_dict()
    assert looks_like([f"module.{name}" for name in state]) == words


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("mobilenetv3_small_100", "a MobileNet or EfficientNet of timm"),
        ("vit_tiny_patch16_224", "a vision transformer"),
        ("convnext_atto", "a ConvNeXt of timm"),
    ],
)
def test_a_timm_architecture_is_recognised(backbone: str, words: str):
    with torch.device("meta"):
        state = timm.create_model(backbone).state_dict()
    assert looks_like(state) == words
