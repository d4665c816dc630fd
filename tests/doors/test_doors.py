"""Each door, as a researcher opens it: a package of their own beside cxrlab, a folder of YAML files, one command."""

import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from sklearn.metrics import roc_auc_score

import cxrlab
from cxrlab.errors import ConfigError, DataError, UserError
from cxrlab.evaluate import evaluate
from cxrlab.explain import explain
from cxrlab.heatmaps import file_heatmaps
from cxrlab.train import train

Compose = Callable[..., DictConfig]

LAB = Path(__file__).parent / "lab"
MINE = f"hydra.searchpath=[file://{LAB}/conf]"  # what --config-dir does on the command line
TRUST = "trust=[my_lab]"


def evaluated(composed: Compose, run_dir: Path, out: Path, *overrides: str) -> dict:
    small = (f"run={run_dir}", f"run_dir={out}", "evaluation.num_resamples=100")
    evaluate(composed(*small, *overrides, config_name="evaluate"))
    return json.loads((out / "evaluation.json").read_text())


def explained(composed: Compose, run_dir: Path, out: Path, *overrides: str) -> Path:
    small = ("limit=4", "checks=false", "explanation.num_resamples=100", "labels=all")
    explain(composed(f"run={run_dir}", f"run_dir={out}", *small, *overrides, config_name="explain"))
    return out


# Losses


def test_torchs_own_loss_trains(tiny: Compose, tmp_path: Path):
    train(tiny(tmp_path, MINE, "loss=torchs"))
    assert (tmp_path / "evaluation.json").is_file()


@pytest.mark.parametrize("loss", ["squared", "rare"])
def test_a_loss_of_ones_own_trains_with_and_without_class_frequencies(
    tiny: Compose, composed: Compose, tmp_path: Path, loss: str
):
    train(tiny(tmp_path / "run", MINE, f"loss={loss}"))
    run = cxrlab.load_run(tmp_path / "run")  # the loss is no part of what is loaded: nothing to trust
    numbers = evaluated(composed, tmp_path / "run", tmp_path / "again", "part=val")
    assert numbers["labels"].keys() == set(run.labels)


def test_unknown_targets_never_reach_a_loss_that_does_not_handle_them():
    from my_lab.losses import SquaredLoss

    from cxrlab.losses import build_loss, known_loss, masked_bce

    logits = torch.tensor([[0.5, -1.0], [2.0, 0.3], [0.1, 0.2]], requires_grad=True)
    targets = torch.tensor([[1.0, torch.nan], [0.0, 1.0], [torch.nan, 0.0]])
    own = known_loss(build_loss(SquaredLoss, [0.5, 0.5]), logits, targets)
    known = ~torch.isnan(targets)
    expected = (torch.sigmoid(logits)[known] - targets[known]).square().mean()
    torch.testing.assert_close(own, expected)
    own.backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[~known] == 0).all()
    torchs = known_loss(build_loss(torch.nn.BCEWithLogitsLoss, [0.5, 0.5]), logits, targets)
    torch.testing.assert_close(torchs, masked_bce(logits, targets))


def test_a_loss_that_does_not_exist_is_named_with_its_key(tiny: Compose, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"loss.*my_lab\.losses\.Missing"):
        train(tiny(tmp_path, MINE, "loss=missing"))


# Networks


def test_a_plain_network_trains_is_drawn_and_comes_back(tiny: Compose, composed: Compose, tmp_path: Path):
    run_dir = tmp_path / "run"
    train(tiny(run_dir, MINE, "model=plain", TRUST, "report.page=true"))
    with pytest.raises(ConfigError, match=r"my_lab\.networks\.PlainNet.*trust=\[my_lab\]"):
        cxrlab.load_run(run_dir)
    run = cxrlab.load_run(run_dir, trust=("my_lab",))
    images = sorted(Path(run.config["data"]["root"]).rglob("*.png"))[:3]
    heatmaps = file_heatmaps(run, images, run.labels[0])
    assert heatmaps.shape == (3, 32, 32)
    assert torch.isfinite(heatmaps).all()
    with pytest.raises(UserError, match="trust"):
        evaluated(composed, run_dir, tmp_path / "untrusted", "part=train")
    first = json.loads((run_dir / "evaluation.json").read_text())
    again = evaluated(composed, run_dir, tmp_path / "again", TRUST, "part=test")
    for label, metrics in first["labels"].items():
        assert again["labels"][label]["auroc"] == metrics["auroc"]
    assert list(explained(composed, run_dir, tmp_path / "heat", TRUST).rglob("*.png"))


def test_a_run_with_a_trusted_network_is_resumed(tiny: Compose, composed: Compose, tmp_path: Path):
    run_dir = tmp_path / "run"
    cfg = tiny(run_dir, MINE, "model=plain", TRUST)
    train(cfg)
    (run_dir / ".hydra").mkdir(exist_ok=True)
    with pytest.raises(ConfigError, match="trust"):
        train(composed(f"resume={run_dir}", "trainer.max_epochs=2"))


def test_a_network_without_spatial_features_is_evaluated_and_its_heatmaps_are_skipped_with_one_warning(
    tiny: Compose, composed: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    run_dir = tmp_path / "run"
    heatmaps = (
        "{_target_:cxrlab.heatmaps.callback.Heatmaps,"
        "dirpath:'${run_dir}/heatmaps',explanation:'${explanation}'}"
    )
    train(tiny(run_dir, MINE, "model=flat", TRUST, "report.page=true", f"callbacks.heatmaps={heatmaps}"))
    warned = [
        record.getMessage()
        for record in caplog.records
        if record.levelname == "WARNING" and "heatmap" in record.getMessage().lower()
    ]
    assert len(warned) == 1, warned
    assert not list((run_dir / "heatmaps").rglob("*.png"))
    assert evaluated(composed, run_dir, tmp_path / "again", TRUST, "part=val")["labels"]
    with pytest.raises(ConfigError, match="occlusion"):
        explained(composed, run_dir, tmp_path / "heat", TRUST)


def test_a_torchvision_model_trains_and_comes_back(tiny: Compose, tmp_path: Path):
    small = ("data.channels=3", "data.image_size=64")
    train(tiny(tmp_path / "run", MINE, "model=squeezenet", "trust=[torchvision]", *small))
    with pytest.raises(UserError, match="trust"):
        cxrlab.load_run(tmp_path / "run")
    run = cxrlab.load_run(tmp_path / "run", trust=("torchvision",))
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    assert run.model.predict_probabilities(images).shape == (1, len(run.labels))


# Data


def test_a_reader_of_ones_own_is_used_in_training_and_again_later(
    composed: Compose, tiny_command: list[str], tmp_path: Path, lab_root: Path
):
    small = [word for word in tiny_command if not word.startswith(("data.reader", "data.root"))]
    run_dir = tmp_path / "run"
    reader = ("data=lab", "+data.reader.finding=Spot", f"data.root={lab_root}", f"run_dir={run_dir}")
    train(composed(MINE, *reader, *small, TRUST))
    run = cxrlab.load_run(run_dir)  # the network is cxrlab's
    assert run.labels == ["Spot"]
    with pytest.raises(UserError, match=r"my_lab\.readers\.read.*trust=\[my_lab\]"):
        evaluated(composed, run_dir, tmp_path / "untrusted", "part=train")
    assert evaluated(composed, run_dir, tmp_path / "train", TRUST, "part=train")["data"]["name"] == "my lab"
    assert list(explained(composed, run_dir, tmp_path / "heat", TRUST).rglob("*.png"))


# Metrics


def test_a_metric_of_ones_own_goes_everywhere(tiny: Compose, composed: Compose, tmp_path: Path):
    run_dir = tmp_path / "run"
    metrics = "metrics=[my_lab.metrics.squared_error,my_lab.metrics.youden]"
    monitor = ("monitor=val/squared_error", "monitor_mode=min")
    best = train(tiny(run_dir, metrics, *monitor, "trainer.max_epochs=2", "report.page=true", TRUST))
    curves = pd.read_csv(run_dir / "metrics.csv")
    assert curves["val/squared_error"].min() == pytest.approx(best, abs=1e-5)
    numbers = json.loads((run_dir / "evaluation.json").read_text())
    predictions = pd.read_csv(run_dir / "predictions" / "test.csv")
    for label, values in numbers["labels"].items():
        error = ((predictions[f"probability/{label}"] - predictions[f"target/{label}"]) ** 2).mean()
        assert values["squared_error"]["value"] == pytest.approx(error, abs=1e-6)
        assert (
            values["squared_error"]["low"]
            < values["squared_error"]["value"]
            < values["squared_error"]["high"]
        )
        if values["sensitivity"]["value"] is not None and values["specificity"]["value"] is not None:
            expected = values["sensitivity"]["value"] + values["specificity"]["value"] - 1
            assert values["youden"]["value"] == pytest.approx(expected, abs=1e-6)
    page = (run_dir / "report.html").read_text()
    assert "Squared error" in page
    assert "Youden&#39;s J" in page or "Youden's J" in page
    again = evaluated(composed, run_dir, tmp_path / "again", metrics, "part=test")
    for label, values in numbers["labels"].items():
        assert again["labels"][label]["youden"] == values["youden"]


def test_a_metric_that_is_to_be_minimised_cannot_be_monitored_the_wrong_way_round(
    tiny: Compose, tmp_path: Path
):
    wrong = ("metrics=[my_lab.metrics.squared_error]", "monitor=val/squared_error", "monitor_mode=max")
    with pytest.raises(ConfigError, match="min"):
        train(tiny(tmp_path, *wrong))


def test_a_metric_that_does_not_exist_is_named(tiny: Compose, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"my_lab\.metrics\.missing"):
        train(tiny(tmp_path, "metrics=[my_lab.metrics.missing]"))


# Training


def test_callback_optimizer_schedule_augmentation_and_logger_of_ones_own(tiny: Compose, tmp_path: Path):
    run_dir = tmp_path / "run"
    train(
        tiny(
            run_dir,
            f"+callbacks.count={{_target_:my_lab.training.CountEpochs,path:{tmp_path}/epochs.txt}}",
            MINE,
            "optimizer=sign",
            "scheduler=halving",
            "augment=noise",
            f"+logger.lab={{_target_:my_lab.training.LabLogger,save_dir:{tmp_path}/lab}}",
            "trainer.max_epochs=2",
        )
    )
    assert (tmp_path / "epochs.txt").read_text() == "2"
    rates = pd.read_csv(run_dir / "metrics.csv")["lr"]
    assert rates.iloc[-1] < rates.iloc[0]
    assert list((tmp_path / "lab").rglob("metrics.csv"))


# Sections


def test_a_section_of_ones_own_stands_in_the_page_and_its_contents(tiny: Compose, tmp_path: Path):
    train(tiny(tmp_path, "report.page=true", "report.sections=[my_lab.report.our_section]"))
    page = (tmp_path / "report.html").read_text()
    assert 'id="our-lab"' in page
    assert 'href="#our-lab"' in page
    assert "What our lab adds." in page


# All doors at once, from the command line


@pytest.mark.slow
def test_a_sweep_over_ones_own_parts_with_ones_own_yaml(
    command, tiny_command: list[str], tmp_path: Path, lab_root: Path
):
    mine = [word for word in tiny_command if not word.startswith(("data.", "report."))]
    data = [
        "data=lab",
        f"data.root={lab_root}",
        "data.image_size=32",
        "data.num_workers=0",
        "data.batch_size=16",
    ]
    out = tmp_path / "sweep"
    command(
        "train", "-m", *mine, *data, "model=plain,flat", "loss=rare", TRUST, "report.page=false",
        "metrics=[my_lab.metrics.squared_error]", f"hydra.sweep.dir={out}",
    )  # fmt: skip
    table = pd.read_csv(out / "sweep.csv")
    assert len(table) == 2
    assert "val/squared_error" in table.columns
    done = command(
        "compare",
        f"runs={out}",
        "metrics=[my_lab.metrics.squared_error]",
        f"hydra.run.dir={tmp_path}/compared",
    )
    assert "squared_error" in (tmp_path / "compared" / "comparison.json").read_text(), done.stdout


def test_python_without_hydra_in_about_ten_lines(tmp_path: Path, synthetic_root: Path):
    import pytorch_lightning as pl

    from cxrlab import Classifier, DataModule
    from cxrlab.data.readers import synthetic

    reader = functools.partial(synthetic.read, num_patients=40, size=64)
    data = DataModule(synthetic_root, reader=reader, image_size=32, batch_size=16, num_workers=0)
    data.prepare()
    from cxrlab.models import TimmNetwork

    model = Classifier(
        labels=data.manifest.labels,
        network=TimmNetwork("resnet10t", num_labels=len(data.manifest.labels), channels=1, image_size=32),
    )
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, datamodule=data)
    assert np.isfinite(float(trainer.callback_metrics["val/auroc"]))

    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    loaded = Classifier.load_from_checkpoint(tmp_path / "mine.ckpt")
    (validated,) = trainer.validate(loaded, datamodule=data, verbose=False)
    assert validated["val/auroc"] == pytest.approx(float(trainer.callback_metrics["val/auroc"]))
    (tested,) = trainer.test(loaded, datamodule=data, verbose=False)
    rows = data.rows("test")
    probabilities = torch.cat(trainer.predict(loaded, datamodule=data))
    expected = loaded.predict_probabilities(torch.from_numpy(data.images[rows]))
    torch.testing.assert_close(probabilities, expected, atol=1e-5, rtol=1e-4)
    by_label = [roc_auc_score(t, p) for t, p in zip(data.targets[rows].T, probabilities.T, strict=True)]
    assert tested["test/auroc"] == pytest.approx(np.mean(by_label), abs=1e-4)
    bare = torch.utils.data.DataLoader(torch.from_numpy(data.images[rows[:3]]), batch_size=2)
    torch.testing.assert_close(torch.cat(trainer.predict(loaded, dataloaders=bare)), expected[:3])


def test_a_classifier_is_not_tested_on_labels_in_another_order(synthetic_root: Path):
    import pytorch_lightning as pl

    from cxrlab import Classifier, DataModule
    from cxrlab.data.readers import synthetic
    from cxrlab.models import SequentialNetwork

    reader = functools.partial(synthetic.read, num_patients=40, size=64)
    data = DataModule(
        synthetic_root, reader=reader, labels=["Nodule", "Effusion"], image_size=32, num_workers=0
    )
    model = Classifier(
        labels=["Effusion", "Nodule"], network=SequentialNetwork(num_labels=2, channels=1, image_size=32)
    )
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(DataError, match=r"\['Effusion', 'Nodule'\].*\['Nodule', 'Effusion'\]"):
        trainer.test(model, datamodule=data)
