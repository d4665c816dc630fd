"""A training with LoRA: what its checkpoints hold, what is evaluated, and how it is resumed."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import timm
import torch
from omegaconf import DictConfig

import cxrlab
from cxrlab.errors import CheckpointError, ConfigError
from cxrlab.evaluate import evaluate
from cxrlab.models import LoRA, TimmNetwork
from cxrlab.models.lora import lora_parameters, merged
from cxrlab.train import train
from cxrlab.training.checkpoint import checkpoint_hash
from cxrlab.training.module import Classifier

Tiny = Callable[..., DictConfig]
VIT = ("model=timm", "model.backbone=test_vit")
OPTIONS = (*VIT, "model.lora.rank=4", "model.lora.dropout=0.1", "optimizer.lr=1e-2")
LAYERS = 12  # qkv and proj of six blocks


def checkpoint(run_dir: Path, name: str) -> dict[str, Any]:
    return torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)


def same_tables(one: pd.DataFrame, other: pd.DataFrame, tolerance: float = 0.0) -> None:
    columns = [name for name in one if name.startswith("probability/")]
    assert columns
    assert one["image"].tolist() == other["image"].tolist()
    np.testing.assert_allclose(one[columns], other[columns], rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights to start from, random ones."""
    path = tmp_path_factory.mktemp("start") / "test_vit.pth"
    torch.manual_seed(7)
    torch.save(timm.create_model("test_vit", num_classes=0, in_chans=1, img_size=32).state_dict(), path)
    return path


@pytest.fixture(
    scope="module", params=[(), ("callbacks=ema", "callbacks.ema.decay=0.8")], ids=["plain", "ema"]
)
def run_dir(
    request: pytest.FixtureRequest, start: Path, tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run of two epochs."""
    folder = tmp_path_factory.mktemp("lora")
    ema = [*request.param, "callbacks.progress=null", "callbacks.heatmaps=null"] if request.param else []
    train(tiny(folder, *OPTIONS, *ema, f"model.checkpoint_path={start}", "trainer.max_epochs=2"))
    return folder


def test_the_best_checkpoint_is_an_ordinary_one(run_dir: Path):
    best = checkpoint(run_dir, "best")
    plain = TimmNetwork("test_vit", num_labels=len(best["hyper_parameters"]["labels"]), image_size=32)
    names = [name.removeprefix("network.") for name in best["state_dict"] if name.startswith("network.")]
    assert names == list(plain.state_dict())
    assert "optimizer_states" not in best
    assert not best["hyper_parameters"]["network"].get("lora")
    plain.load_state_dict({name: best["state_dict"][f"network.{name}"] for name in names})
    last = checkpoint(run_dir, "last")
    updates = [name for name in last["state_dict"] if name.rpartition(".")[2] in ("lora_A", "lora_B")]
    assert len(updates) == 2 * LAYERS
    moments = last["optimizer_states"][0]["state"]
    assert len(moments) == 2 * LAYERS + 2  # with the head's


def test_logits_of_the_trained_network_are_those_of_the_merged_one(run_dir: Path):
    last = checkpoint(run_dir, "last")["state_dict"]
    weights = {
        name.removeprefix("network."): tensor for name, tensor in last.items() if name.startswith("network.")
    }
    num_labels = len(weights["head.1.bias"])
    low_rank = TimmNetwork("test_vit", num_labels=num_labels, image_size=32, lora=LoRA(rank=4))
    low_rank.load_state_dict(weights)
    images = torch.randint(0, 256, (6, 1, 32, 32), dtype=torch.uint8)
    model = cxrlab.load_run(run_dir, checkpoint="last").model
    assert not lora_parameters(model.network)
    ready = model.preprocess(images)
    expected = low_rank.train()(ready)  # W and the update apart, as in training
    assert (low_rank.backbone.blocks[0].attn.qkv.lora_B != 0).any()
    torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-5)
    assert torch.equal(model(images), low_rank.eval()(ready))


def test_evaluation_gives_the_predictions_of_the_training(run_dir: Path, composed: Any, tmp_path: Path):
    run = cxrlab.load_run(run_dir)
    root = Path(json.loads((run_dir / "audit.json").read_text())["root"])
    for part in ("val", "test"):
        table = run.predictions(part)
        again = run.predict([root / image for image in table["image"]], batch_size=16)
        same_tables(table, again.assign(image=table["image"]), 1e-6)
    copied = Path(shutil.copytree(run_dir, tmp_path / "run"))
    (copied / "predictions" / "test.csv").unlink()  # so that it is predicted anew
    small = ("evaluation.num_resamples=100", "evaluation.baselines=false")
    cfg = composed(f"run={copied}", f"run_dir={tmp_path / 'out'}", *small, config_name="evaluate")
    again, own = evaluate(cfg).to_json(), json.loads((run_dir / "evaluation.json").read_text())
    assert again["labels"].keys() == own["labels"].keys()
    for label, metrics in own["labels"].items():
        for metric, numbers in metrics.items():
            if isinstance(numbers, dict) and numbers.get("value") is not None:
                assert again["labels"][label][metric]["value"] == pytest.approx(numbers["value"], abs=1e-6), (
                    metric
                )


def test_validation_in_training_is_of_the_weights_that_are_saved(run_dir: Path):
    """To the last digit, also of thresholds: an evaluation multiplies with the merged weights."""
    epochs = pd.read_csv(run_dir / "metrics.csv")
    results = pd.read_csv(run_dir / "results.csv").set_index(["part", "label"])
    best = epochs.loc[epochs["val/auroc"].idxmax()]
    for metric in ("auroc", "average_precision", "loss"):
        assert results.loc[("val", "macro mean"), metric] == pytest.approx(best[f"val/{metric}"], abs=1e-6)
    table = pd.read_csv(run_dir / "predictions" / "val.csv")
    thresholds = cxrlab.load_run(run_dir).thresholds
    for label, threshold in thresholds.items():
        called = table[f"probability/{label}"] >= threshold
        assert called.astype(float).equals(table[f"prediction/{label}"].astype(float))


def test_last_and_best_can_be_read_back_and_are_told_by_their_hashes(run_dir: Path):
    session = json.loads((run_dir / "provenance.json").read_text())["sessions"][-1]
    for name in ("best", "last"):
        run = cxrlab.load_run(run_dir, checkpoint=name)
        assert not lora_parameters(run.model.network)
        assert session["checkpoints"][name] == checkpoint_hash(run_dir / "checkpoints" / f"{name}.ckpt")
    num_lora = 6 * 4 * (64 + 192 + 64 + 64)
    num_labels = len(cxrlab.load_run(run_dir).labels)
    assert session["network"]["lora"] == num_lora
    assert session["network"]["trainable"] == num_lora + 65 * num_labels
    assert f"{session['network']['trainable']:,} of them trainable" in (run_dir / "layers.txt").read_text()


@pytest.mark.parametrize("name", ["best", "last"])
def test_either_checkpoint_starts_another_network(run_dir: Path, name: str):
    path = run_dir / "checkpoints" / f"{name}.ckpt"
    trained = cxrlab.load_run(run_dir, checkpoint=name).model.network
    for lora in (None, LoRA(rank=2, targets=["fc1"])):
        started = TimmNetwork(
            "test_vit", num_labels=5, image_size=32, checkpoint_path=str(path), lora=lora
        ).eval()
        images = torch.randn(2, 1, 32, 32)
        features = [one.backbone(images) for one in (started, trained)]
        assert torch.equal(*features)


def test_what_does_not_learn_is_what_the_training_started_from(run_dir: Path, start: Path):
    """Neither drawn anew, nor averaged away, nor decayed."""
    best, last = (checkpoint(run_dir, name)["state_dict"] for name in ("best", "last"))
    for name, tensor in torch.load(start, weights_only=True).items():
        assert torch.equal(last[f"network.backbone.{name}"], tensor), name
        is_adapted = name.endswith(("qkv.weight", "attn.proj.weight"))
        assert torch.equal(best[f"network.backbone.{name}"], tensor) != is_adapted, name


@pytest.mark.parametrize("ema", [False, True], ids=["plain", "ema"])
def test_a_training_that_is_stopped_within_an_epoch_resumes_to_the_same_end(
    ema: bool, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = [*OPTIONS, "test=false", "trainer.max_epochs=2", "data.batch_size=8"]
    if ema:
        options += ["callbacks=ema", "callbacks.progress=null", "callbacks.heatmaps=null"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(tiny(whole, *options))
    step = Classifier.training_step

    def stop(self: Classifier, batch: Any, batch_idx: int) -> torch.Tensor:
        if (self.current_epoch, batch_idx) == (1, 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Classifier, "training_step", stop)
        train(tiny(stopped, *options))
    saved = checkpoint(stopped, "last")
    assert saved["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] == 1
    train(tiny(stopped, *options, f"resume={stopped}"))
    for name in ("best", "last"):
        one, other = checkpoint(whole, name), checkpoint(stopped, name)
        for key in ("state_dict", "current_model_state"):
            for weight, tensor in one.get(key, {}).items():
                np.testing.assert_array_equal(tensor, other[key][weight], err_msg=weight)
    pd.testing.assert_frame_equal(
        pd.read_csv(whole / "predictions" / "val.csv"), pd.read_csv(stopped / "predictions" / "val.csv")
    )


def test_a_copy_of_the_best_checkpoint_is_no_training_to_go_on_from(
    run_dir: Path, tiny: Tiny, tmp_path: Path
):
    copied = Path(shutil.copytree(run_dir, tmp_path / "run"))
    shutil.copy(copied / "checkpoints" / "best.ckpt", copied / "checkpoints" / "last.ckpt")
    with pytest.raises(CheckpointError, match="holds no optimizer_states.*is it a copy of best.ckpt"):
        train(tiny(copied, f"resume={copied}", "trainer.max_epochs=3"))


def test_lightnings_own_checkpoint_and_trainer_take_either_form(tmp_path: Path):
    """A notebook: a classifier of its own, Lightning's checkpoint, and an evaluation that loads it."""
    torch.manual_seed(0)
    network = TimmNetwork("test_vit", num_labels=2, image_size=32, lora=LoRA(rank=4))
    for layer in network.modules():
        if hasattr(layer, "lora_B"):
            torch.nn.init.normal_(layer.lora_B, std=0.1)
    classifier = Classifier(labels=["Edema", "Mass"], network=network).eval()
    images = torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8)
    expected = classifier(images)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, max_epochs=0)
    trainer.strategy.connect(classifier)
    trainer.save_checkpoint(tmp_path / "own.ckpt", weights_only=True)
    loaded = Classifier.load_from_checkpoint(tmp_path / "own.ckpt")
    assert not lora_parameters(loaded.network)
    assert torch.equal(loaded(images), expected)
    own = torch.load(tmp_path / "own.ckpt", weights_only=True)
    torch.save({**own, "state_dict": merged(own["state_dict"])}, tmp_path / "merged.ckpt")
    for layer in network.modules():
        if hasattr(layer, "lora_B"):
            torch.nn.init.normal_(layer.lora_B)
    loader = torch.utils.data.DataLoader(images, batch_size=4)
    for name in ("own", "merged"):
        (probabilities,) = trainer.predict(
            classifier, loader, ckpt_path=tmp_path / f"{name}.ckpt", weights_only=True
        )
        assert torch.equal(probabilities, expected.sigmoid()), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("model=densenet121", "model.lora.rank=8"),
            r"targets=\[qkv,proj\]: densenet121 has no linear layers",
        ),
        ((*VIT, "model.lora.rank=8", "model.freeze=backbone"), "model.lora.rank with model.freeze=backbone"),
        ((*VIT, "model.lora.rank=8", "model.lora.targets=qkv"), "model.lora.targets='qkv' must list names"),
        ((*VIT, "model.lora.rank=eight"), r"model.lora.rank='eight' does not fit: it takes int \| null"),
        ((*VIT, "model.lora.rank=-1"), "model.lora.rank=-1 must be a whole number"),
        ((*VIT, "model.lora.rank=100"), "model.lora.rank=100 is more than the layer blocks.0.attn.qkv"),
        ((*VIT, "model.lora.alpha=8"), "no effect without model.lora.rank"),
        ((*VIT, "+model.lora.ranks=8"), "model.lora.ranks=8 is no parameter of .*Did you mean rank"),
        ((*VIT, "model.lora.rank=8", "model.lora.dropout=1.5"), "model.lora.dropout=1.5 must be"),
    ],
)
def test_what_cannot_be_is_said_before_any_image_is_read(
    options: tuple[str, ...], message: str, tiny: Tiny, tmp_path: Path
):
    with pytest.raises(ConfigError, match=message):
        train(tiny(tmp_path / "run", *options, "data.root=/nowhere"))


def test_a_training_says_what_learns_and_that_the_rest_is_random(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level("INFO", "cxrlab"):
        train(tiny(tmp_path, *OPTIONS, "test=false"))
    assert "model.lora.rank=4 keeps random weights: set weights, model.pretrained or model." in caplog.text
    assert "9,476 of them trainable (9,216 of LoRA); the layers are in" in caplog.text
