"""What weights had been trained on, as far as they tell."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import cxrlab
from cxrlab.data.public import PUBLIC, canonical
from cxrlab.errors import CheckpointError
from cxrlab.evaluation.contamination import EvaluatedImages, contamination
from cxrlab.models import SequentialNetwork, TimmNetwork
from cxrlab.models.network import described_start
from cxrlab.models.weights import (
    RANDOM,
    InitialWeights,
    SeenData,
    WeightSource,
    initial_weights,
    named_weights,
    weight_names,
)
from cxrlab.models.weights.seen import (
    UNKNOWN_DATA,
    UNKNOWN_FILE,
    checkpoint_weights,
    file_weights,
    read_initial_weights,
    timm_weights,
)
from cxrlab.runs.run import load_classifier

HERE = Path("x.ckpt")


@pytest.mark.parametrize(
    ("backbone", "tag", "data"),
    [
        ("resnet10t", "c3_in1k", ["imagenet-1k"]),
        ("vit_small_patch16_224", "augreg_in21k_ft_in1k", ["imagenet-21k", "imagenet-1k"]),
        ("vit_small_patch14_dinov2", "lvd142m", ["lvd-142m"]),
        ("vit_small_patch16_dinov3", "lvd1689m", ["lvd-1689m"]),
        ("vit_base_patch32_clip_224.laion2b_ft_in12k_in1k", "laion2b_ft_in12k_in1k",
         ["laion-2b", "imagenet-12k", "imagenet-1k"]),
    ],
)  # fmt: skip
def test_tags_of_timm_say_what_their_weights_were_trained_on(backbone, tag, data):
    weights = timm_weights(backbone)
    assert weights.name == f"{backbone.partition('.')[0]}.{tag}"
    assert [seen.data for seen in weights.seen or ()] == data
    assert weights.licence


def test_a_tag_that_says_nothing_is_unknown():
    assert timm_weights("resnet10t.of_somebody").seen is None


def test_most_of_timms_own_weights_are_known():
    names = timm.list_pretrained()
    unknown = [name for name in names if timm_weights(name).seen is None]
    assert len(unknown) < 0.1 * len(names)


def test_a_named_set_brings_what_it_says(tmp_path: Path):
    source = WeightSource(
        name="theirs", title="theirs", backbone="resnet10t", image_size=224, channels=1, mean=[0.5], std=[0.5], fetch="Ask them.",
        licence="MIT", source="Somebody 2020", seen=[SeenData(data="rsna", parts=["train"])],
    )  # fmt: skip
    weights = initial_weights("resnet10t", weights=source)
    assert (weights.name, weights.licence, weights.source) == ("theirs", "MIT", "Somebody 2020")
    assert weights.seen == (SeenData(data="rsna", parts=("train",)),)
    assert initial_weights("resnet10t", weights=replace(source, seen=None)).seen is None


def test_networks_say_what_they_start_from(tmp_path: Path):
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "jane_doe.pth")
    started = TimmNetwork(
        "resnet10t", num_labels=1, image_size=64, checkpoint_path=str(tmp_path / "jane_doe.pth")
    )
    assert started.initial_weights == UNKNOWN_FILE
    assert "jane" not in str(started.initial_weights)
    assert TimmNetwork("resnet10t", num_labels=1, image_size=64).initial_weights == RANDOM
    assert SequentialNetwork([{"conv": 2}], num_labels=1, image_size=32).initial_weights == RANDOM


@pytest.mark.parametrize(
    ("description", "start"),
    [
        ({"_target_": "torchvision.models.resnet18"}, RANDOM),
        ({"_target_": "my_lab.Net"}, None),
        ({"_target_": "cxrlab.models.timm_network.TimmNetwork", "backbone": "resnet10t"}, RANDOM),
        ({"_target_": "cxrlab.models.timm_network.TimmNetwork", "checkpoint_path": "x.pth"}, UNKNOWN_FILE),
        ({"_target_": "cxrlab.models.timm_network.TimmNetwork", "backbone": "resnet10t", "pretrained": True},
         timm_weights("resnet10t")),
    ],
)  # fmt: skip
def test_a_config_tells_what_a_network_starts_from(description, start):
    assert described_start(description) == start


def checkpoint(path: Path, **records: Any) -> Path:
    network = TimmNetwork("resnet10t", num_labels=1, image_size=64)
    classifier = cxrlab.Classifier(labels=["Edema"], network=network)
    content = {
        "state_dict": classifier.state_dict(),
        "hyper_parameters": {**classifier.hparams, **records},
        "pytorch-lightning_version": "2.5.0",
    }
    torch.save(content, path)
    return path


NIH = {"data": "nih", "parts": ["train"], "note": "fingerprint f00", "held_out": "abc"}
START = InitialWeights(
    name="theirs", title="theirs", licence="CC BY-NC 4.0", seen=(SeenData(data="rsna", parts=("train",)),)
).plain()


def test_a_checkpoint_tells_its_data_and_what_it_started_from(tmp_path: Path):
    path = checkpoint(tmp_path / "best.ckpt", trained_on=NIH, initial_weights=START)
    network = TimmNetwork("resnet10t", num_labels=3, image_size=64, checkpoint_path=str(path))
    start = network.initial_weights
    assert start is not None
    assert start.title == "a checkpoint of cxrlab"
    assert start.licence == "CC BY-NC 4.0"
    assert [seen.data for seen in start.seen or ()] == ["nih", "rsna"]
    classifier = load_classifier(path)
    assert classifier.trained_on == SeenData(
        data="nih", parts=("train",), note="fingerprint f00", held_out="abc"
    )
    assert classifier.initial_weights is not None
    assert classifier.initial_weights.plain() == START


def test_a_checkpoint_of_a_checkpoint_hands_on_what_both_saw():
    first = checkpoint_weights(SeenData(data="nih"), timm_weights("resnet10t"))
    second = checkpoint_weights(SeenData(data="rsna"), first)
    assert [seen.data for seen in second.seen or ()] == ["rsna", "nih", "imagenet-1k"]


def test_what_a_checkpoint_does_not_tell_is_unknown(tmp_path: Path):
    path = checkpoint(tmp_path / "best.ckpt", trained_on=NIH, initial_weights=UNKNOWN_FILE.plain())
    assert [seen.data for seen in file_weights(path).seen or ()] == ["nih", UNKNOWN_DATA]
    old = checkpoint(tmp_path / "old.ckpt", trained_on=None)
    assert [seen.data for seen in file_weights(old).seen or ()] == [UNKNOWN_DATA]


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ("nothing", "initial_weights='nothing' must be an object with name"),
        ({**START, "name": ""}, "initial_weights.name='' must be a text"),
        ({**START, "title": "<script>"}, "initial_weights.title=.* without HTML"),
        ({**START, "licence": "a\nb"}, "initial_weights.licence=.* without HTML or control"),
        ({**START, "title": "x" * 600}, "initial_weights.title=.* at most 500"),
        ({**START, "path": "/home/jane"}, "initial_weights.path='/home/jane' must be left out"),
        ({"name": "a", "title": "b"}, "initial_weights.seen=None must be a list of data sets, or null"),
        ({**START, "seen": "nih"}, "initial_weights.seen='nih' must be a list"),
        ({**START, "seen": [None]}, r"initial_weights.seen\[0\]=None must be a data set"),
        ({**START, "seen": [{"parts": []}]}, r"initial_weights.seen\[0\].data=None must be the name"),
        ({**START, "seen": [{"data": 3}]}, r"initial_weights.seen\[0\].data=3 must be a text"),
        ({**START, "seen": [{"data": "nih", "parts": ["probe"]}]}, r"seen\[0\].parts=\['probe'\] must be a list of train"),
        ({**START, "seen": [{"data": "nih", "parts": [["train"]]}]}, r"seen\[0\].parts="),
        ({**START, "seen": [{"data": "nih"}] * 101}, "a list of at most 100"),
        ({1: 2}, "must be an object"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_meant_is_named(record: Any, fault: str, tmp_path: Path):
    path = checkpoint(tmp_path / "best.ckpt", initial_weights=record)
    with pytest.raises(CheckpointError, match=f"hyper_parameters.*{fault}"):
        load_classifier(path)
    with pytest.raises(CheckpointError, match=fault):
        TimmNetwork("resnet10t", num_labels=1, image_size=64, checkpoint_path=str(path))


def test_a_record_of_training_data_that_cannot_be_meant_is_named(tmp_path: Path):
    path = checkpoint(tmp_path / "best.ckpt", trained_on={"data": "nih", "folder": "/home/jane"})
    with pytest.raises(
        CheckpointError, match=r"hyper_parameters.trained_on.folder='/home/jane' must be left out"
    ):
        load_classifier(path)


def test_a_record_comes_back_as_it_was():
    for weights in (RANDOM, UNKNOWN_FILE, timm_weights("vit_small_patch14_dinov2")):
        read = read_initial_weights(weights.plain(), HERE, "initial_weights")
        assert read is not None
        assert read.plain() == weights.plain()
    assert read_initial_weights(None, HERE, "initial_weights") is None


OTHER_DATA = {"imagenet-1k", "imagenet-12k", "imagenet-21k", "lvd-142m", "lvd-1689m"}
"""What named sets were trained on that are no radiographs, or of nobody's public set."""


def named_starts() -> dict[str, InitialWeights]:
    named = {name: named_weights(name) for name in weight_names()}
    return {name: initial_weights(source.backbone, weights=source) for name, source in named.items()}


def test_every_named_set_says_what_it_saw_in_words_that_are_understood():
    for name, start in named_starts().items():
        read = read_initial_weights(start.plain(), HERE, name)
        assert read is not None
        assert read.plain() == start.plain()
        for seen in start.seen or ():
            assert canonical(seen.data) in PUBLIC | OTHER_DATA, name


def test_named_sets_of_photographs_have_seen_no_radiograph():
    images = EvaluatedImages(data="nih", parts=frozenset({"train", "test"}))
    starts = {name: start for name, start in named_starts().items() if name.endswith("_imagenet")}
    assert len(starts) > 5
    assert all(contamination([start], images).overlap == "none" for start in starts.values())
