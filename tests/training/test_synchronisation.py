"""A training step asks for no value of the device: on a GPU each would be waited for.

On the meta device there are no values, so that whatever asks for one (``item``, ``bool``, an index by a mask)
fails; ``tests/test_gpu.py`` asks CUDA itself.
"""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cxrlab.augment import NoAugment, RandomAugment
from cxrlab.data.loader import Batch
from cxrlab.losses import BCE, AsymmetricLoss, CrossEntropy, FocalLoss, WeightedBCE
from cxrlab.models.sequential import SequentialNetwork
from cxrlab.models.timm_network import TimmNetwork
from cxrlab.training.callbacks.ema import WeightAveraging
from cxrlab.training.module import Classifier

LABELS = ["Edema", "Mass"]
NETWORKS = {
    "sequential": lambda: SequentialNetwork(
        layers=[{"conv": 4}, "pool", {"dense": 8, "l2": 1e-3}], num_labels=2, channels=1, image_size=32
    ),
    "frozen": lambda: TimmNetwork("resnet10t", num_labels=2, image_size=32, freeze=2),
    "attention": lambda: TimmNetwork("resnet10t", num_labels=2, image_size=32, head="attention"),
    "densenet121": lambda: TimmNetwork("densenet121", num_labels=2, image_size=32),
    "convnext": lambda: TimmNetwork("convnext_atto", num_labels=2, image_size=32),
    "vit": lambda: TimmNetwork("vit_tiny_patch16_224", num_labels=2, image_size=32),
}
STRONG = {
    "brightness": 0.1,
    "contrast": 0.1,
    "gamma": 0.1,
    "noise": 0.05,
    "blur": 1.0,
    "erasing": 0.5,
    "shear": 3.0,
}


def step(network: nn.Module, loss: nn.Module, augment: nn.Module, **settings: Any) -> None:
    """Take two steps as Lightning does, with gradients clipped, without any value."""
    classifier = Classifier(labels=LABELS, network=network, loss=loss, **settings).to("meta").train()
    classifier.trainer = SimpleNamespace(loggers=[], current_epoch=0, world_size=1)  # type: ignore[assignment]
    optimizer = torch.optim.AdamW(classifier.parameters())
    for _ in range(2):
        batch: Batch = {
            "images": augment(torch.empty(4, 1, 32, 32, dtype=torch.uint8, device="meta")),
            "targets": torch.empty(4, 2, device="meta"),
            "index": torch.empty(4, dtype=torch.long, device="meta"),
            "seed": 0,
        }
        classifier.training_step(batch, 0).backward()
        torch.nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_of_a_network_reads_no_value(name: str):
    step(NETWORKS[name](), BCE(), NoAugment(), channels_last=name != "vit")


@pytest.mark.parametrize(
    ("loss", "task"),
    [
        (BCE(label_smoothing=0.1), "multilabel"),
        (WeightedBCE(frequencies=[0.5, 0.1]), "multilabel"),
        (FocalLoss(), "multilabel"),
        (AsymmetricLoss(), "multilabel"),
        (CrossEntropy(frequencies=[0.5, 0.5], is_balanced=True), "multiclass"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_step_with_a_loss_reads_no_value(loss: nn.Module, task: str):
    step(NETWORKS["sequential"](), loss, NoAugment(), task=task)


@pytest.mark.parametrize("options", [{}, STRONG, {"fill": "constant", "zoom_per_axis": True}])
def test_augmentation_reads_no_value(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none on the meta device
    step(NETWORKS["sequential"](), BCE(), RandomAugment(**options))


@pytest.mark.parametrize("normalize", ["image", "none", "imagenet"])
def test_normalising_reads_no_value(normalize: str):
    preprocess = {"normalize": normalize, "image_size": 32, "channels": 1}
    step(NETWORKS["sequential"](), BCE(), NoAugment(), preprocess=preprocess)


def test_the_average_of_the_weights_reads_no_value_of_a_step():
    average, current = torch.empty(3, device="meta"), torch.empty(3, device="meta")
    count = torch.empty((), dtype=torch.long, device="meta")
    assert WeightAveraging(decay=0.9)._averaged(average, current, count).shape == (3,)


def test_the_average_is_what_it_was_by_plain_numbers():
    average, current = torch.randn(50), torch.randn(50)
    for count in (1, 2, 7, 88, 90, 1000):
        decay = min(0.9, (1 + count) / (10 + count))
        found = WeightAveraging(decay=0.9)._averaged(average, current, torch.tensor(count))
        assert torch.equal(found, average.lerp(current, 1.0 - decay))


class Looking(nn.Module):
    """A loss that looks at a value; those that are not cxrlab's own may."""

    handles_unknown = True

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        loss = (logits - targets).square()
        return loss.mean() if bool(loss.isfinite().all()) else loss[loss.isfinite()].mean()


def test_the_meta_device_refuses_what_looks_at_a_value():
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        step(NETWORKS["sequential"](), Looking(), NoAugment())
