import importlib
import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from cxrlab.data.loader import Batch
from cxrlab.errors import ConfigError
from cxrlab.losses import WeightedBCE
from cxrlab.models import SequentialNetwork, TimmNetwork
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


def save(classifier: Classifier, path: Path) -> Path:
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.strategy.connect(classifier)
    trainer.save_checkpoint(path)
    return path


def test_a_network_from_elsewhere_is_passed_in_and_never_looked_up(tmp_path: Path):
    description = {"_target_": "somewhere.Own", "num_labels": 2, **SHAPE}
    first = Classifier(labels=["Edema", "Mass"], preprocess=PREPROCESS, network=description, module=Own(2))
    path = save(first, tmp_path / "own.ckpt")
    with pytest.raises(ConfigError, match=r"network\._target_.*somewhere.Own.*trust=\[somewhere\]"):
        Classifier.load_from_checkpoint(path)
    loaded = Classifier.load_from_checkpoint(path, module=Own(2))
    assert torch.equal(loaded.network.module.layer.weight, first.network.module.layer.weight)
    assert not loaded.training


def fit(network: nn.Module, *batches: Batch, **options: object) -> dict[str, float]:
    """Train one epoch on batches, validate on them, and return what was logged."""
    classifier = Classifier(labels=["Edema", "Mass"], network=network, monitor="val/accuracy", **options)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, max_epochs=1, num_sanity_val_steps=0,
    )  # fmt: skip
    loader = DataLoader(list(batches), batch_size=None)
    trainer.fit(classifier, loader, loader)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def still(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.0)


@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning"
)
def test_an_epoch_tells_the_accuracy_of_training_and_the_loss_with_its_penalty():
    """Of a network that does not change, training and validation tell the same, but for the penalty."""
    layers = [{"conv": 2}, "pool", {"dense": 3, "l2": 0.5}, {"dense": 4, "l2": 0.1}]
    network = SequentialNetwork(layers, num_labels=2, image_size=32)
    one, other = batch(5), batch(3)
    one["targets"][:2, 0] = 1.0
    other["targets"][1] = math.nan
    logged = fit(network, one, other, optimizer=still)
    penalty = 0.5 * float(network.head[1].weight.square().sum()) + 0.1 * float(
        network.head[3].weight.square().sum()
    )
    assert logged["train/accuracy"] == pytest.approx(logged["val/accuracy"])
    assert logged["train/penalty"] == pytest.approx(penalty)
    assert logged["val/loss_with_penalty"] == pytest.approx(logged["val/loss"] + penalty)
    plain = SequentialNetwork([{"conv": 2}, "pool"], num_labels=2, image_size=32)
    assert not [name for name in fit(plain, one, optimizer=still) if "penalty" in name]


LAB = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_labels, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_labels))

    def forward(self, images):
        return self.layers(images)
"""


def test_a_network_of_a_trusted_package_is_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "lab_of_classifiers.py").write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path)
    lab = importlib.import_module("lab_of_classifiers")
    first = Classifier(labels=["Edema", "Mass"], preprocess=PREPROCESS, network=lab.Net(2))
    path = save(first, tmp_path / "own.ckpt")
    with pytest.raises(ConfigError, match=r"lab_of_classifiers.Net.*trust=\[lab_of_classifiers\]"):
        Classifier.load_from_checkpoint(path)
    loaded = Classifier.load_from_checkpoint(path, trust=["lab_of_classifiers"])
    images = batch(3)["images"]
    with torch.no_grad():
        assert torch.equal(loaded(images), first.eval()(images))
    wide = Classifier(labels=["Edema", "Mass"], preprocess=PREPROCESS, network=lab.Net(2, width=6))
    path = save(wide, tmp_path / "wide.ckpt")  # a network in Python does not say what its arguments were
    assert Classifier.load_from_checkpoint(path, module=lab.Net(2, width=6)).network.title == "Net"


@pytest.mark.parametrize(
    "network",
    [
        TimmNetwork("mobilenetv3_small_050", num_labels=2, image_size=32, freeze="backbone"),
        SequentialNetwork([{"conv": 4}, "pool"], num_labels=2, image_size=32),
    ],
)
def test_a_classifier_made_in_python_is_loaded_again(network: nn.Module, tmp_path: Path):
    first = Classifier(labels=("Edema", "Mass"), network=network, task="multiclass").eval()
    loaded = Classifier.load_from_checkpoint(save(first, tmp_path / "own.ckpt"))
    assert (loaded.labels, loaded.task, loaded.preprocess.image_size) == (["Edema", "Mass"], "multiclass", 32)
    images = batch(3)["images"]
    with torch.no_grad():
        assert torch.equal(loaded(images), first(images))


def test_names_in_a_checkpoint_are_those_of_the_network():
    classifier = Classifier(labels=["Edema", "Mass"], preprocess=PREPROCESS, network=NETWORK)
    names = {name for name in classifier.state_dict() if name.startswith("network.")}
    assert names == {f"network.{name}" for name in classifier.network.state_dict()}
    assert "network.backbone.conv_stem.weight" in names


def test_a_loss_with_values_of_its_own_does_not_hinder_loading(tmp_path: Path):
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0, 3.0]))
    first = Classifier(labels=["Edema", "Mass"], preprocess=PREPROCESS, network=NETWORK, loss=loss)
    path = save(first, tmp_path / "own.ckpt")
    assert "loss.pos_weight" in torch.load(path, weights_only=True)["state_dict"]
    assert Classifier.load_from_checkpoint(path).loss is None


class Images(pl.LightningDataModule):
    """Two batches a part, and what a schedule asks of a data module."""

    num_training_batches = 2

    def train_dataloader(self) -> DataLoader[Batch]:
        targets = torch.tensor([[1.0, 0.0], [0.0, torch.nan], [1.0, 1.0], [0.0, 0.0]])
        return DataLoader([{**batch(4), "targets": targets}] * 2, batch_size=None)  # type: ignore[arg-type]

    val_dataloader = test_dataloader = train_dataloader


@pytest.mark.parametrize("loss", [None, nn.BCEWithLogitsLoss(), WeightedBCE(frequencies=[0.5, 0.3])])
def test_a_notebook_trains_with_a_few_lines(loss: nn.Module | None, tmp_path: Path):
    classifier = Classifier(
        labels=["Edema", "Mass"], network=SequentialNetwork(num_labels=2, image_size=32), loss=loss
    )
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path,
    )  # fmt: skip
    before = {name: value.clone() for name, value in classifier.network.state_dict().items()}
    trainer.fit(classifier, datamodule=Images())
    assert any(
        not torch.equal(value, before[name]) for name, value in classifier.network.state_dict().items()
    )
    assert torch.isfinite(torch.tensor(classifier.operating_point.threshold_values())).all()
    assert 0 < float(trainer.callback_metrics["val/loss"]) < 2
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    assert Classifier.load_from_checkpoint(tmp_path / "trained.ckpt").labels == ["Edema", "Mass"]


@pytest.mark.filterwarnings("ignore:Found .* in eval mode")  # Lightning's, which does not say what to do
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
def test_a_training_warns_of_a_network_in_evaluation_mode(caplog: pytest.LogCaptureFixture):
    """It is left as it is: batch normalisation learns no statistics, which a count of batches shows."""

    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    for chosen, warned, batches in ((network(), False, 1), (network().eval(), True, 0)):
        caplog.clear()
        fit(chosen, batch(4), preprocess=PREPROCESS, loss=nn.BCEWithLogitsLoss())
        assert chosen[1].num_batches_tracked == batches
        assert ("Call classifier.train() before trainer.fit()" in caplog.text) is warned
    partly = network()
    partly[1].eval()  # frozen on purpose
    caplog.clear()
    fit(partly, batch(4), preprocess=PREPROCESS, loss=nn.BCEWithLogitsLoss())
    assert "classifier.train()" not in caplog.text


def test_a_step_outside_a_training_needs_a_loss():
    classifier = Classifier(labels=["Edema", "Mass"], preprocess=PREPROCESS, network=NETWORK)
    with pytest.raises(ValueError, match=r"give it loss="):
        classifier.training_step(batch(2), 0)
    optimizer = classifier.configure_optimizers()
    assert (type(optimizer).__name__, optimizer.defaults["lr"]) == ("AdamW", 1e-3)


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


def test_views_are_kept(tmp_path: Path):
    first = Classifier(
        labels=["Edema", "Mass"], preprocess=PREPROCESS, network=NETWORK, views=["identity", "zoom_in"]
    )
    assert Classifier.load_from_checkpoint(save(first, tmp_path / "views.ckpt")).views == [
        "identity",
        "zoom_in",
    ]
