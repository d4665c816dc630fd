"""Every network of conf/model leaves as an ONNX file that computes the same, for labels and for classes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cxrlab import Classifier
from cxrlab.cli import config
from cxrlab.cli.config import config_dir
from cxrlab.deploy.backend import TorchBackend
from cxrlab.deploy.graph import trace
from cxrlab.deploy.metadata import texts_of
from cxrlab.deploy.onnx_file import add_metadata, read_onnx, write_onnx
from cxrlab.deploy.parity import agreement, check_agreement
from cxrlab.deploy.record import record_of
from cxrlab.models.network import make_network

SIZE = 64
MODELS = sorted(path.stem for path in (config_dir() / "model").glob("*.yaml"))
# Fewer layers of the same kinds, where an architecture takes them.
OPTIONS = {
    "convnext_tiny": ["model.options={depths:[1,1,1,1]}"],
    "densenet121": ["model.options={block_config:[2,2,2,2]}"],
    "of_weights": ["weights=efficientnet_lite0"],
    "resnet50": ["model.options={layers:[1,1,1,1]}"],
    "timm": ["model.backbone=regnety_002"],
    "vit_small": ["model.options={depth:2}"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_it_computes_what_the_classifier_does(composed, name: str, tmp_path: Path):
    cfg = composed(f"model={name}", *OPTIONS.get(name, []))
    torch.manual_seed(0)
    network = make_network(config.build(cfg.model), num_labels=3, channels=1, image_size=SIZE)
    task = "multiclass" if MODELS.index(name) % 2 else "multilabel"
    classifier = Classifier(labels=["A", "B", "C"], network=network, task=task).eval()
    point = classifier.operating_point
    point.thresholds.fill_(0.4)
    point.slopes.fill_(1.3)
    point.intercepts.fill_(-0.2)
    write_onnx(trace(classifier), tmp_path / "model.onnx")
    add_metadata(tmp_path / "model.onnx", texts_of(record_of(classifier)))
    record, backend, _ = read_onnx(tmp_path / "model.onnx")
    assert record.task == task
    pixels = np.random.default_rng(0).integers(0, 256, (64, 1, SIZE, SIZE), dtype=np.uint8)
    found = agreement(
        TorchBackend(classifier), backend, pixels, point.threshold_values(), tolerance=1e-4, batch_size=32
    )
    check_agreement(found)
    assert found.largest < 1e-5
