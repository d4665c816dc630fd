from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from cxrlab.data.loader import Batch
from cxrlab.errors import CheckpointError
from cxrlab.training.module import Classifier

SHAPE = {"image_size": 32, "channels": 1}
PREPROCESS = {"normalize": "training", "mean": [0.5], "std": [0.25], **SHAPE}
NETWORK = {
    "_target_": "cxrlab.models.timm_network.TimmNetwork", "backbone": "mobilenetv3_small_050", "pretrained": False,
    "checkpoint_path": None, "hidden": None, "dropout": 0.0, "feature_dropout": 0.0, "freeze": None, "unfreeze_epoch": None, "num_labels": 2, **SHAPE,
}  # fmt: skip


def batch(count: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return {
        "images": torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8, generator=generator),
        "targets": torch.zeros(count, 2),
        "index": torch.arange(count),
        "seed": 0,
    }


class Own(nn.Module):
    """A network that is not of this package."""

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.layer = nn.Linear(32 * 32, num_labels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.flatten(1))


@pytest.mark.parametrize("channels_last", [False, True])
def test_logits_do_not_depend_on_the_memory_format(channels_last: bool):
    torch.manual_seed(0)
    classifier = Classifier(
        labels=["Edema", "Mass"], preprocess=PREPROCESS, network=NETWORK, channels_last=channels_last
    ).eval()
    images = batch(3)["images"]
    with torch.no_grad():
        logits = classifier(images)
        expected = classifier.network((images.float() / 255 - 0.5) / 0.25)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(classifier.predict_probabilities(images), torch.sigmoid(logits))


def test_a_network_from_elsewhere_is_passed_in_and_never_looked_up(tmp_path: Path):
    description = {"_target_": "somewhere.Own", "num_labels": 2}
    first = Classifier(labels=["Edema", "Mass"], preprocess=PREPROCESS, network=description, module=Own(2))
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.strategy.connect(first)
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    with pytest.raises(CheckpointError, match=r"'somewhere.Own', which is not of this package.*module="):
        Classifier.load_from_checkpoint(tmp_path / "own.ckpt")
    loaded = Classifier.load_from_checkpoint(tmp_path / "own.ckpt", module=Own(2))
    assert torch.equal(loaded.network.layer.weight, first.network.layer.weight)
    assert not loaded.training


def test_a_classifier_loaded_for_prediction_says_what_training_needs():
    classifier = Classifier(labels=["Edema", "Mass"], preprocess=PREPROCESS, network=NETWORK)
    with pytest.raises(ValueError, match=r"give it a loss= to train"):
        classifier.training_step(batch(2), 0)
    with pytest.raises(ValueError, match=r"give it an optimizer= to train"):
        classifier.configure_optimizers()


def test_a_file_cannot_choose_what_is_read_or_downloaded(tmp_path: Path):
    wicked = {**NETWORK, "checkpoint_path": str(tmp_path / "secret.pth"), "pretrained": False}
    Classifier(
        labels=["Edema", "Mass"], preprocess=PREPROCESS, network=wicked
    )  # reads nothing: there is no such file


def test_views_are_averaged_and_the_loss_is_that_of_the_image_as_it_is(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    classifier = Classifier(
        labels=["Edema", "Mass"], preprocess=PREPROCESS, network={"_target_": "somewhere.Own"}, module=Own(2),
        loss=nn.BCEWithLogitsLoss(), views=["identity", "flip"],
    ).eval()  # fmt: skip
    logged = {}
    monkeypatch.setattr(classifier, "log", lambda name, value, **_: logged.update({name: value}))
    classifier.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    one = batch(3)
    with torch.no_grad():
        outputs = classifier.validation_step(one, 0)
        logits, mirrored = classifier(one["images"]), classifier(one["images"].flip(-1))
        alone = classifier.predict_probabilities(one["images"])
    expected = (torch.sigmoid(logits) + torch.sigmoid(mirrored)) / 2
    torch.testing.assert_close(outputs["probabilities"], expected)
    torch.testing.assert_close(alone, expected)
    assert not torch.allclose(expected, torch.sigmoid(logits), atol=1e-3)
    torch.testing.assert_close(
        logged["val/loss"], nn.functional.binary_cross_entropy_with_logits(logits, one["targets"])
    )


def test_views_are_kept_and_a_checkpoint_from_before_them_has_one(tmp_path: Path):
    first = Classifier(
        labels=["Edema", "Mass"], preprocess=PREPROCESS, network=NETWORK, views=["identity", "zoom_in"]
    )
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.strategy.connect(first)
    trainer.save_checkpoint(tmp_path / "views.ckpt")
    assert Classifier.load_from_checkpoint(tmp_path / "views.ckpt").views == ["identity", "zoom_in"]
    saved = torch.load(tmp_path / "views.ckpt", weights_only=True)
    del saved["hyper_parameters"]["views"]
    torch.save(saved, tmp_path / "before.ckpt")
    assert Classifier.load_from_checkpoint(tmp_path / "before.ckpt").views == ["identity"]
