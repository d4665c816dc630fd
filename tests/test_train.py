import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from sklearn.metrics import roc_auc_score

import cxrlab
from cxrlab.data.manifest import Manifest
from cxrlab.errors import CheckpointError, ConfigError, DataError, MissingFileError, TrainingError
from cxrlab.files import RunDir
from cxrlab.models import TimmNetwork
from cxrlab.train import train
from cxrlab.training.module import Classifier

Tiny = Callable[..., DictConfig]


def test_a_run_directory_holds_what_the_design_says(finished_run: Path):
    names = {str(path.relative_to(finished_run)) for path in finished_run.rglob("*") if path.is_file()}
    assert {
        ".hydra/config.yaml", ".hydra/resolved.yaml", "manifest.csv", "layers.txt", "checkpoints/best.ckpt",
        "checkpoints/last.ckpt", "metrics.csv", "predictions/val.csv", "predictions/test.csv", "results.csv",
        "learning_curves.png", "network.png", "inputs.png", "provenance.json", "heatmaps/test/index.csv",
    } <= names  # fmt: skip
    assert any(name.startswith("tensorboard/events") for name in names)
    assert any(name.startswith("heatmaps/val/") and name.endswith(".png") for name in names)


def test_no_patient_is_in_two_parts(finished_run: Path):
    manifest = pd.read_csv(finished_run / "manifest.csv", dtype={"patient": str})
    assert manifest.groupby("patient")["part"].nunique().max() == 1
    assert set(manifest["part"]) == {"train", "val", "test"}


def test_the_predictions_are_those_that_the_results_evaluate(finished_run: Path):
    results = pd.read_csv(finished_run / "results.csv")
    for part in ("val", "test"):
        table = pd.read_csv(finished_run / "predictions" / f"{part}.csv")
        assert set(table["part"]) == {part}
        assert table["image"].is_unique
        for row in results[(results["part"] == part) & results["auroc"].notna()].itertuples():
            if row.label == "macro mean":
                continue
            target = table[f"target/{row.label}"]
            assert row.positives == target.sum()
            assert row.auroc == pytest.approx(
                roc_auc_score(target, table[f"probability/{row.label}"]), abs=1e-5
            )
    macro = results[(results["part"] == "val") & (results["label"] == "macro mean")]["auroc"].item()
    labels = results[(results["part"] == "val") & (results["label"] != "macro mean")]["auroc"]
    assert macro == pytest.approx(np.nanmean(labels), abs=1e-5)
    assert (results["loss"].notna() == (results["label"] == "macro mean")).all()


def test_metrics_have_one_row_an_epoch(finished_run: Path):
    metrics = pd.read_csv(finished_run / "metrics.csv")
    assert metrics["epoch"].tolist() == [0, 1]
    assert metrics[["train/loss", "val/loss", "val/auroc", "val/auroc/Effusion"]].notna().all(axis=None)
    assert metrics["train/accuracy"].between(0.3, 1).all()
    assert not [name for name in metrics if "penalty" in name]  # of a network that adds none


def test_provenance_says_with_what_the_run_was_made(finished_run: Path):
    session = json.loads((finished_run / "provenance.json").read_text())["sessions"][0]
    assert session["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert session["data"]["split"]["method"] == "grouped"
    assert set(session["seconds"]) == {"read", "cache", "copies", "split", "audit", "fit", "validate", "test"}
    assert session["hardware"]["cores"] >= 1
    fingerprint = session["data"]["fingerprint"]
    manifest = pd.read_csv(finished_run / "manifest.csv", dtype={"patient": str}, keep_default_na=False)
    assert Manifest(Path(), manifest).fingerprint() == fingerprint


def test_checkpoints_load_with_weights_only_and_hold_no_patient_and_no_image(finished_run: Path):
    manifest = pd.read_csv(finished_run / "manifest.csv", dtype=str)
    for name in ("best", "last"):
        path = finished_run / "checkpoints" / f"{name}.ckpt"
        text = repr(torch.load(path, weights_only=True)) + path.read_bytes().decode("latin-1")
        assert not [image for image in manifest["image"] if Path(image).stem in text]
        assert ".png" not in text
        checkpoint = torch.load(path, weights_only=True)
        assert set(checkpoint["hyper_parameters"]) == {
            "labels", "preprocess", "network", "task", "views", "threshold", "calibration", "initial_weights",
            "trained_on",
        }  # fmt: skip
        assert set(checkpoint["hyper_parameters"]["trained_on"]) <= {"data", "parts", "note", "held_out"}


def test_the_metric_of_the_best_epoch_is_returned(tiny: Tiny, tmp_path: Path):
    metric = train(tiny(tmp_path, "trainer.max_epochs=3"))
    assert metric == pytest.approx(pd.read_csv(tmp_path / "metrics.csv")["val/auroc"].max())


def test_no_test_no_test_part(tiny: Tiny, tmp_path: Path):
    train(tiny(tmp_path, "test=false"))
    assert not (tmp_path / "predictions" / "test.csv").exists()
    assert set(pd.read_csv(tmp_path / "results.csv")["part"]) == {"val"}


def test_the_same_seed_gives_the_same_network_and_another_another(tiny: Tiny, tmp_path: Path):
    def weights(name: str, seed: int) -> torch.Tensor:
        train(tiny(tmp_path / name, f"seed={seed}", "test=false"))
        state = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        return torch.cat([tensor.flatten().double() for tensor in state.values()])

    first = weights("first", 1)
    # NaN is equal to itself here: a threshold that could not be chosen is NaN again.
    np.testing.assert_array_equal(first, weights("again", 1))
    assert not np.array_equal(first, weights("other", 2), equal_nan=True)


@pytest.mark.parametrize("scheduler", ["cosine", "plateau", "one_cycle", "frozen"])
def test_a_resumed_run_ends_as_the_uninterrupted_one(scheduler: str, tiny: Tiny, tmp_path: Path, monkeypatch):
    """Weights to the bit, optimizer, schedule, and all rows of metrics.csv."""
    options = [
        f"scheduler={scheduler.replace('frozen', 'cosine')}",
        "test=false",
        "trainer.max_epochs=4",
        "optimizer.lr=3e-3",
    ]
    if scheduler == "frozen":
        options += ["model.freeze=2", "model.unfreeze_epoch=3", "layer_rates.stage_decay=0.5"]
    if scheduler == "plateau":
        options += ["scheduler.patience=1", "scheduler.monitor=val/accuracy", "scheduler.mode=max"]
    train(tiny(tmp_path / "whole", *options))

    class Killed(BaseException):
        pass

    def die(self: Classifier) -> None:
        if self.current_epoch == 2:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Classifier, "on_train_batch_end", lambda self, *_: die(self), raising=False)
        train(tiny(tmp_path / "killed", *options))
    assert len(pd.read_csv(tmp_path / "killed" / "metrics.csv")) == 2
    train(tiny(tmp_path / "killed", *options, f"resume={tmp_path / 'killed'}"))

    whole, resumed = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("whole", "killed")
    )
    assert resumed["epoch"] == whole["epoch"] == 3
    for name, tensor in whole["state_dict"].items():
        torch.testing.assert_close(  # thresholds that could not be chosen are NaN
            resumed["state_dict"][name], tensor, rtol=0, atol=0, equal_nan=True, msg=name
        )
    assert whole["lr_schedulers"] == resumed["lr_schedulers"]
    one, other = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("whole", "killed"))
    pd.testing.assert_frame_equal(one, other[one.columns])
    if scheduler == "frozen":  # at first, and learnt in the end
        record = RunDir(tmp_path / "whole").sessions()[-1]["network"]
        assert record["trainable"] == record["parameters"]
        last_line = (tmp_path / "whole" / "layers.txt").read_text().splitlines()[-1]
        assert re.search(r" of them trainable, all from epoch 3 on$", last_line)


def test_transfer_trains_the_head_and_then_everything_from_the_weights(tiny: Tiny, tmp_path: Path):
    start = tmp_path / "start.pth"
    torch.save(TimmNetwork("resnet10t", num_labels=1).backbone.state_dict(), start)
    overrides = ["experiment=transfer", "weights=none", "model=resnet10t", f"model.checkpoint_path={start}"]
    train(tiny(tmp_path / "run", *overrides, "optimizer.lr=1e-9", "trainer.max_epochs=2", "test=false"))

    run = cxrlab.load_run(tmp_path / "run")
    record = run.files.sessions()[-1]["network"]
    assert record["trainable"] == record["parameters"]
    assert run.config["layer_rates"]["stage_decay"] == 0.8
    weights = run.model.network.backbone.state_dict()
    for name, tensor in torch.load(start, weights_only=True).items():
        if name.endswith("conv1.weight"):
            torch.testing.assert_close(weights[name], tensor, atol=1e-4, rtol=0)


def test_train_says_how_many_images_and_what_each_label_weighs(tiny: Tiny, tmp_path: Path, caplog):
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        train(tiny(tmp_path, "data.labels=[Effusion,Nodule]", "test=false"))
    assert "positive weight" in caplog.text
    assert "split grouped, fingerprint" in caplog.text
    assert "Cardiomegaly" not in caplog.text
    assert f"Everything is in {tmp_path}" in caplog.text


def test_one_label_is_a_binary_task(tiny: Tiny, tmp_path: Path):
    train(tiny(tmp_path, "data.labels=[Effusion]", "loss=bce", "test=false"))
    assert Classifier.load_from_checkpoint(tmp_path / "checkpoints" / "best.ckpt").labels == ["Effusion"]


def test_debug_one_batch_goes_through_everything(tiny: Tiny, tmp_path: Path):
    train(tiny(tmp_path, "debug=one_batch"))
    assert (tmp_path / "predictions" / "test.csv").is_file()


def test_debug_one_batch_takes_parts_that_are_sorted_by_class(composed: Tiny, tmp_path: Path):
    draw_classes(tmp_path / "data")
    options = ["data=folder", f"data.root={tmp_path / 'data'}", "task=multiclass", "loss=cross_entropy"]
    options += ["data.image_size=32", "data.num_workers=0", "trainer=cpu", "trainer.precision=32-true"]
    options += ["callbacks.progress=null", "logger.tensorboard=null", "report.page=false"]
    train(composed(*options, "data.batch_size=2", "debug=one_batch", f"run_dir={tmp_path / 'run'}"))
    assert len(pd.read_csv(tmp_path / "run" / "predictions" / "val.csv")) == 2


def test_the_checkpoint_for_use_holds_nothing_that_only_training_needs(finished_run: Path):
    best, last = (
        torch.load(finished_run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        for name in ("best", "last")
    )
    assert not {"optimizer_states", "lr_schedulers", "callbacks", "loops"} & set(best)
    assert best["state_dict"].keys() == last["state_dict"].keys()
    assert last["optimizer_states"]


def test_a_run_killed_before_its_first_last_checkpoint_starts_again(
    finished_run: Path, tiny: Tiny, tmp_path: Path, caplog
):
    run_dir = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (run_dir / "checkpoints" / "last.ckpt").unlink()
    leftover = run_dir / "checkpoints" / ".last.ckpt.1.part"
    leftover.touch()
    with pytest.raises(ConfigError, match="holds a run already"):
        train(tiny(run_dir))
    train(tiny(run_dir, f"resume={run_dir}"))
    assert "It starts again from the first epoch" in caplog.text
    assert not leftover.exists()
    one, other = (
        torch.load(path / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        for path in (finished_run, run_dir)
    )
    assert all(torch.equal(one[name], other[name]) for name in one if name.startswith("network."))


@pytest.mark.parametrize(
    ("override", "error", "words"),
    [
        (
            "+trainer.max_steps=2",
            ConfigError,
            r"trainer.max_steps=2 ends within the first epoch, which has \d+",
        ),
        (
            "+trainer.val_check_interval=50",
            ConfigError,
            r"trainer.val_check_interval=50 is more than the \d+",
        ),
        ("trainer.limit_train_batches=0.01", ConfigError, "limit_train_batches=0.01 leaves none of the"),
        (
            "trainer.check_val_every_n_epoch=2",
            TrainingError,
            "No epoch was validated.*check_val_every_n_epoch=2",
        ),
        ("+trainer.fast_dev_run=true", ConfigError, "fast_dev_run=True .*debug=one_batch"),
        ("trainer.gradient_clip_val=-1", ConfigError, "gradient_clip_val=-1 must be at least 0"),
    ],
)
def test_a_length_that_gives_no_best_epoch_is_told(
    override: str, error: type[Exception], words: str, tiny: Tiny, tmp_path: Path
):
    with pytest.raises(error, match=words):
        train(tiny(tmp_path, override))


@pytest.mark.slow
def test_debug_overfit_learns_its_images_by_heart(tiny: Tiny, tmp_path: Path):
    assert train(tiny(tmp_path, "debug=overfit", "trainer.max_epochs=40", "optimizer.lr=3e-3")) == 1.0


def test_debug_profile_writes_where_the_time_goes(tiny: Tiny, tmp_path: Path):
    train(tiny(tmp_path, "debug=profile", "trainer.limit_train_batches=2"))
    assert "run_training_batch" in "".join(path.read_text() for path in tmp_path.glob("*profile*.txt"))


def test_a_loss_that_is_not_finite_stops_and_names_the_images(tiny: Tiny, tmp_path: Path):
    with pytest.raises(
        TrainingError, match=r"The loss is nan in epoch 0, step \d+\. The batch's images: images/\d+_"
    ):
        train(tiny(tmp_path, "optimizer=sgd", "optimizer.lr=1e30", "trainer.gradient_clip_val=null"))


def test_an_unreadable_image_stops_with_its_name_or_is_left_out(
    tiny: Tiny, tmp_path: Path, synthetic_root: Path
):
    shutil.copytree(synthetic_root, tmp_path / "data", dirs_exist_ok=True)
    folder = next((tmp_path / "data").iterdir())
    spoilt = []
    for file in sorted((folder / "images").iterdir())[::3]:
        spoilt.append(f"images/{file.name}")
        file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match=r"images/.*\.png \(200 bytes\) cannot be read"):
        train(tiny(tmp_path / "raise", f"data.root={tmp_path / 'data'}", "data.on_unreadable=raise"))
    train(tiny(tmp_path / "skip", f"data.root={tmp_path / 'data'}"))
    manifest = pd.read_csv(tmp_path / "skip" / "manifest.csv")
    assert not set(manifest["image"]) & set(spoilt)
    assert pd.read_csv(tmp_path / "skip" / "unreadable.csv")["image"].tolist() == spoilt
    for part in ("val", "test"):
        table = pd.read_csv(tmp_path / "skip" / "predictions" / f"{part}.csv")
        assert table["image"].tolist() == manifest["image"][manifest["part"] == part].tolist()


def test_a_metric_that_chooses_no_epoch_stops_the_run(tiny: Tiny, tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"monitor=val/auc is no metric of validation; there are .*'val/auroc'"
    ):
        train(tiny(tmp_path / "unknown", "monitor=val/auc"))
    with pytest.raises(
        ConfigError, match=r"monitor_mode=max would choose the worst val/loss: set monitor_mode=min"
    ):
        train(tiny(tmp_path / "worst", "monitor=val/loss"))
    one_class = ["data.labels=[Effusion]", "data.split.val_fraction=0.02", "data.split.seed=1"]
    with pytest.raises(DataError, match=r"val/auroc is NaN: .* monitor=val/loss monitor_mode=min"):
        train(tiny(tmp_path / "nan", *one_class))
    metric = train(tiny(tmp_path / "loss", *one_class, "monitor=val/loss", "monitor_mode=min", "test=false"))
    assert metric > 0


def test_a_root_that_does_not_exist_is_named(composed: Tiny, tmp_path: Path):
    with pytest.raises(MissingFileError, match="data.root=/nowhere/at/all"):
        train(composed("data=nih", "data.root=/nowhere/at/all", f"run_dir={tmp_path}"))


def test_a_checkpoint_of_another_architecture_cannot_be_resumed(
    tiny: Tiny, tmp_path: Path, finished_run: Path
):
    run_dir = tmp_path / "run"
    shutil.copytree(finished_run, run_dir)
    text = (
        (run_dir / ".hydra" / "config.yaml")
        .read_text()
        .replace("backbone: resnet10t", "backbone: mobilenetv3_small_100")
    )
    (run_dir / ".hydra" / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"last.ckpt does not fit"):
        train(tiny(run_dir, f"resume={run_dir}"))


def test_a_resume_on_other_data_is_rejected(
    tiny: Tiny, tmp_path: Path, finished_run: Path, synthetic_root: Path
):
    """A new split of what is left would put patients of training into the test part."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished_run, run_dir)
    shutil.copytree(synthetic_root, tmp_path / "data")
    labels = next((tmp_path / "data").glob("40-patients*/labels.csv"))
    table = pd.read_csv(labels, dtype=str)
    table[table["patient"] != "00007"].to_csv(labels, index=False)
    boxes = pd.read_csv(labels.with_name("boxes.csv"))
    boxes[~boxes["image"].str.contains("00007_")].to_csv(labels.with_name("boxes.csv"), index=False)
    before = (run_dir / "manifest.csv").read_bytes(), (run_dir / ".hydra" / "config.yaml").read_bytes()
    config_path = run_dir / ".hydra" / "config.yaml"
    config_path.write_text(config_path.read_text().replace(str(synthetic_root), str(tmp_path / "data")))
    with pytest.raises(DataError, match=r"are not those that the run was started on .*images/00007_"):
        train(tiny(run_dir, f"resume={run_dir}"))
    assert (run_dir / "manifest.csv").read_bytes() == before[0]


def test_a_resume_on_images_of_another_content_is_rejected(
    tiny: Tiny, tmp_path: Path, finished_run: Path, synthetic_root: Path
):
    """Names, labels and parts are the same."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished_run, run_dir)
    shutil.copytree(synthetic_root, tmp_path / "data")
    images = sorted((tmp_path / "data").glob("40-patients*/images/*.png"))
    images[5].write_bytes(images[6].read_bytes())
    config_path = run_dir / ".hydra" / "config.yaml"
    config_path.write_text(config_path.read_text().replace(str(synthetic_root), str(tmp_path / "data")))
    with pytest.raises(DataError, match=r"images below .* have another content than those that the run was"):
        train(tiny(run_dir, f"resume={run_dir}"))


def test_a_finished_run_says_that_nothing_was_left_to_train(
    tiny: Tiny, finished_run: Path, tmp_path: Path, caplog
):
    run_dir = Path(shutil.copytree(finished_run, tmp_path / "run"))
    with caplog.at_level(logging.INFO, logger="cxrlab"):
        train(tiny(run_dir, f"resume={run_dir}"))
    assert (
        "All 2 epochs were done before: nothing was trained. trainer.max_epochs=<more> goes on."
        in caplog.text
    )


def test_the_progress_bar_can_be_switched_off_in_either_way(tiny: Tiny, tmp_path: Path):
    for name, override in (
        ("flag", "trainer.enable_progress_bar=false"),
        ("callback", "callbacks.progress=null"),
    ):
        cfg = tiny(tmp_path / name, "debug=one_batch", "test=false")
        cfg.trainer.enable_progress_bar = True
        cfg.callbacks.progress = {
            "_target_": "pytorch_lightning.callbacks.TQDMProgressBar",
            "refresh_rate": 1,
        }
        key, _, value = override.partition("=")
        OmegaConf.update(cfg, key, None if value == "null" else False)
        train(cfg)


def test_a_folder_that_holds_a_run_is_not_used_again(tiny: Tiny, finished_run: Path):
    before = (finished_run / "metrics.csv").read_bytes()
    with pytest.raises(ConfigError, match=r"holds a run already \(best.ckpt\). Go on with it by resume="):
        train(tiny(finished_run))
    assert (finished_run / "metrics.csv").read_bytes() == before


def test_a_moved_run_keeps_its_best_epoch(tiny: Tiny, tmp_path: Path, finished_run: Path):
    run_dir = tmp_path / "moved"
    shutil.copytree(finished_run, run_dir)
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert str(finished_run) not in repr(checkpoint)
    # as if an epoch had been better than any to come
    for state in checkpoint["callbacks"].values():
        if state.get("best_k_models"):
            state["best_k_models"] = {"best.ckpt": torch.tensor(2.0)}
            state["best_model_score"] = state["kth_value"] = torch.tensor(2.0)
    torch.save(checkpoint, run_dir / "checkpoints" / "last.ckpt")
    best = (run_dir / "checkpoints" / "best.ckpt").read_bytes()
    config_path = run_dir / ".hydra" / "config.yaml"
    config_path.write_text(config_path.read_text().replace("max_epochs: 2", "max_epochs: 3"))
    train(tiny(run_dir, f"resume={run_dir}"))
    assert torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2
    assert (run_dir / "checkpoints" / "best.ckpt").read_bytes() == best


def test_a_truncated_checkpoint_cannot_be_resumed(tiny: Tiny, tmp_path: Path, finished_run: Path):
    run_dir = tmp_path / "run"
    shutil.copytree(finished_run, run_dir)
    last = run_dir / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"last.ckpt \(1000 bytes\) cannot be loaded"):
        train(tiny(run_dir, f"resume={run_dir}"))


def test_colour_images_of_class_folders_train(composed: Tiny, tmp_path: Path):
    generator = np.random.default_rng(0)
    for number in range(60):
        kind = "Parasitized" if number % 2 else "Uninfected"
        path = tmp_path / "cells" / kind / f"C{number // 3}P{number // 3}thinF_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    options = ["data=malaria", f"data.root={tmp_path / 'cells'}", "data.image_size=32", "data.num_workers=0"]
    options += ["trainer=cpu", "trainer.max_epochs=1", "callbacks.progress=null", "logger.tensorboard=null"]
    train(composed(*options, f"run_dir={tmp_path / 'run'}"))
    loaded = Classifier.load_from_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert loaded.preprocess.channels == 3
    assert list((tmp_path / "run" / "heatmaps" / "test").glob("*.png"))


def draw_classes(root: Path) -> None:
    """Write 36 images of three classes that differ in brightness, one patient each."""
    generator = np.random.default_rng(0)
    for level, name in enumerate(("bacteria", "normal", "virus")):
        (root / name).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(60 * level, 60 * level + 90, (32, 32)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"P{number + 12 * level}_0.png")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["model.unfreeze_epoch=3"],
            r"model\.unfreeze_epoch=3: a training of trainer\.max_epochs=3 never comes there",
        ),
        (
            ["model.unfreeze_epoch=1", "trainer=ddp"],
            r"model\.unfreeze_epoch=1 with trainer\.devices=-1, num_nodes=1: processes agree",
        ),
        (["layer_rates.floor=2"], r"layer_rates\.floor=2 must lie between 0 and 1"),
        (["layer_rates.steps=2"], r"layer_rates\.steps=2 is no parameter of cxrlab.*LayerRates"),
        (["scheduler=plateau", "scheduler.monitor=val/auc"], r"scheduler\.monitor=val/auc is no metric"),
        (
            ["scheduler=plateau", "scheduler.monitor=val/loss"],
            r"scheduler\.mode=max would choose the worst val/loss: set scheduler\.mode=min",
        ),
        (
            ["scheduler.warmup_epochs=3"],
            r"scheduler\.warmup_epochs=3 does not fit into a training of 3 epochs",
        ),
        (["model.freeze=7"], r"model\.freeze=7 does not fit resnet10t, which has 5 stages"),
    ],
)
def test_craft_that_does_not_fit_is_rejected(tiny: Tiny, tmp_path: Path, overrides: list[str], words: str):
    added = [one.replace("layer_rates.steps", "+layer_rates.steps") for one in overrides]
    with pytest.raises(ConfigError, match=words):
        train(tiny(tmp_path / "run", "model.freeze=2", *added, "trainer.max_epochs=3"))


def test_exclusive_classes_are_learnt_with_one_softmax(
    composed: Tiny, tiny_command: list[str], tmp_path: Path
):
    draw_classes(tmp_path / "data")
    options = [one for one in tiny_command if not one.startswith(("data.reader", "data.root"))]
    options += ["data=folder", f"data.root={tmp_path / 'data'}", r"data.reader.patient_pattern='^(P\d+)_'"]
    options += ["task=multiclass", f"run_dir={tmp_path / 'run'}", "data.split.val_fraction=0.25"]
    with pytest.raises(ConfigError, match=r"WeightedBCE is made for task=multilabel.*loss=cross_entropy"):
        train(composed(*options))
    train(composed(*options, "loss=cross_entropy", f"run_dir={tmp_path / 'other'}"))
    run = cxrlab.load_run(tmp_path / "other")
    columns = [f"probability/{label}" for label in ("bacteria", "normal", "virus")]
    files = sorted((tmp_path / "data").rglob("*.png"))
    for table in (run.predictions("test"), run.predict(files[:2])):
        np.testing.assert_allclose(table[columns].sum(axis=1), 1.0, atol=1e-5)


def test_the_published_slip_of_normalisation_is_warned_about(tiny: Tiny, tmp_path: Path, caplog):
    with caplog.at_level(logging.WARNING, logger="cxrlab"):
        train(tiny(tmp_path, "preprocess.normalize=image_then_sample", "test=false"))
    assert "differently normalised images in training and in evaluation" in caplog.text
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]
    assert 0 < saved["preprocess"]["mean"][0] < 1


def test_the_loss_with_its_penalty_can_choose_the_epoch(tiny: Tiny, tmp_path: Path):
    options = [
        "model=sequential",
        "model.layers=[{conv: 4}, pool, {dense: 8, l2: 0.1}]",
        "monitor=val/loss_with_penalty",
        "monitor_mode=min",
        "trainer.max_epochs=2",
        "test=false",
    ]
    best = train(tiny(tmp_path, *options))
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert best == pytest.approx(metrics["val/loss_with_penalty"].min(), rel=1e-4)
    assert (metrics["val/loss_with_penalty"] - metrics["val/loss"]).tolist() == pytest.approx(
        metrics["train/penalty"].tolist(), rel=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["preprocess.mean=[0.5]", "preprocess.std=[0.5]"], "set preprocess.normalize=given"),
        (["preprocess.normalize=given"], "preprocess.normalize=given needs 1 means and deviations"),
        (["monitor=val/loss_with_penalty", "monitor_mode=min"], "adds no penalty: monitor=val/loss"),
    ],
)
def test_values_that_do_not_go_together(tiny: Tiny, tmp_path: Path, changes: list[str], message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        train(tiny(tmp_path, *changes))


def test_heatmaps_that_cannot_be_checked_are_told_before_training(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = ["report.page=true", "explanation.layers=layer9"]
    train(tiny(tmp_path / "run", *changes))
    told = [record.getMessage() for record in caplog.records if "layer9" in record.getMessage()]
    assert told[0].startswith("Heatmaps will not be checked at the end (report.check_heatmaps): explanation.")
    assert told[1].startswith("The heatmaps were not checked to the end: explanation.layers names 'layer9'")
    assert (tmp_path / "run/evaluation.json").is_file()
    caplog.clear()
    train(tiny(tmp_path / "other", *changes, "report.check_heatmaps=false"))
    assert "layer9" not in caplog.text


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)], ids=["Ctrl-C", "SIGTERM"])
def test_what_stops_the_checks_of_heatmaps_leaves_the_results(
    stop: BaseException,
    finished_run: Path,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog,
):
    run_dir = Path(shutil.copytree(finished_run, tmp_path / "run"))

    def fail(*args: object, **kwargs: object) -> None:
        raise stop

    monkeypatch.setattr("cxrlab.heatmaps.checks.save_checks", fail)
    with pytest.raises(type(stop)):
        train(tiny(run_dir, "report.page=true", f"resume={run_dir}"))
    for name in ("report.html", "evaluation.json", "results.csv", "model_card.md"):
        assert (run_dir / name).is_file(), name
    assert f"The results and the page are kept in {run_dir}" in caplog.text
    assert f"cxrlab explain run={run_dir}" in caplog.text
