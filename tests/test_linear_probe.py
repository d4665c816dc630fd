"""A linear probe is the pipeline of scikit-learn, kept as any run is; cached features change no training."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrlab.cli.summaries import _log_strength
from cxrlab.errors import ConfigError
from cxrlab.runs import load_run
from cxrlab.train import train
from cxrlab.training.module import Classifier
from cxrlab.training.solvers import LogisticProbe

Tiny = Callable[..., DictConfig]

FROZEN = ("model.freeze=backbone", "augment=none")
PROBE = (*FROZEN, "solver=logistic", "solver.strengths=[0.0001,0.01,1.0]", "loss=bce")


@pytest.fixture(scope="module")
def probe(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished probe."""
    run_dir = tmp_path_factory.mktemp("probe")
    train(tiny(run_dir, *PROBE, "report.page=true", "report.check_heatmaps=false"))
    return run_dir


def session(run_dir: Path) -> dict[str, object]:
    return json.loads((run_dir / "provenance.json").read_text())["sessions"][-1]


def probabilities(run_dir: Path, part: str) -> np.ndarray:
    table = pd.read_csv(run_dir / "predictions" / f"{part}.csv")
    return table[[name for name in table if name.startswith("probability/")]].to_numpy()


def test_the_saved_network_gives_the_probabilities_of_the_pipeline(probe: Path, synthetic_root: Path):
    run = load_run(probe)
    data = run.data(root=synthetic_root)
    features = {part: run.embed(data.images[data.rows(part)]) for part in ("train", "val", "test")}
    strength = session(probe)["solver"]["strength"]
    targets = data.targets.numpy()[data.rows("train")]
    for column, label in enumerate(run.labels):
        pipeline = make_pipeline(
            StandardScaler(),
            LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-10, max_iter=1000),
        )
        pipeline.fit(features["train"].astype(float), targets[:, column])
        for part in ("val", "test"):
            table = run.predictions(part)
            assert table["image"].tolist() == data.manifest.table["image"].iloc[data.rows(part)].tolist()
            expected = pipeline.predict_proba(features[part].astype(float))[:, 1]
            np.testing.assert_allclose(table[f"probability/{label}"], expected, atol=1e-5)


def test_the_network_alone_gives_what_the_cached_features_gave(probe: Path, synthetic_root: Path):
    run = load_run(probe)
    images = run.predictions("test")["image"].tolist()
    root = run.data(root=synthetic_root).manifest.root
    predicted = run.predict([root / image for image in images])
    columns = [f"probability/{label}" for label in run.labels]
    np.testing.assert_allclose(predicted[columns], probabilities(probe, "test"), atol=1e-5)


def test_each_strength_is_an_epoch_and_the_best_on_validation_is_kept(probe: Path):
    metrics = pd.read_csv(probe / "metrics.csv")
    assert metrics["strength"].tolist() == [0.0001, 0.01, 1.0]
    assert "lr" not in metrics
    assert metrics["train/loss"].is_monotonic_decreasing
    best = int(metrics["val/auroc"].argmax())
    for name, epoch in {"best": best, "last": 2}.items():
        checkpoint = torch.load(probe / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert checkpoint["epoch"] == epoch
    results = pd.read_csv(probe / "results.csv").set_index(["part", "label"])
    assert results.loc[("val", "macro mean"), "auroc"] == pytest.approx(metrics["val/auroc"].max(), abs=1e-5)
    thresholds = load_run(probe).thresholds
    assert np.isfinite([*thresholds.values()]).all()


def test_the_provenance_says_how_the_head_was_found(probe: Path):
    said = session(probe)
    metrics = pd.read_csv(probe / "metrics.csv")
    assert said["solver"]["strength"] == metrics["strength"][metrics["val/auroc"].argmax()]
    assert said["solver"]["strengths"] == [0.0001, 0.01, 1.0]
    manifest = pd.read_csv(probe / "manifest.csv")
    assert said["features"]["images"] == len(manifest)
    assert said["features"]["number"] == 512
    assert said["seconds"]["features"] >= 0
    assert said["network"]["trainable"] == 4 * 513


def test_the_page_speaks_of_strengths_and_not_of_epochs(probe: Path):
    page = (probe / "report.html").read_text(encoding="utf-8")
    assert "Its best strength, C = " in page
    assert "(a linear probe)" in page
    assert "of 3 tried" in page
    assert "best epoch" not in page.split("How to repeat it")[0]
    checklist = (probe / "checklist_claim.md").read_text(encoding="utf-8")
    assert r"strengths C tried \[0.0001, 0.01, 1.0\]" in checklist
    assert "AdamW" not in checklist


def test_a_second_probe_computes_no_features(probe: Path, tiny: Tiny, tmp_path: Path):
    train(tiny(tmp_path, *PROBE))
    assert session(tmp_path)["features"]["computed"] == 0
    for part in ("val", "test"):
        np.testing.assert_array_equal(probabilities(tmp_path, part), probabilities(probe, part))


def test_other_weights_are_other_features(probe: Path, tiny: Tiny, tmp_path: Path):
    num_images = session(probe)["features"]["images"]
    train(tiny(tmp_path, *PROBE, "test=false", "seed=3"))
    assert 0 < session(tmp_path)["features"]["computed"] < num_images  # no test part


def test_a_resumed_probe_ends_as_the_uninterrupted_one(
    probe: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        pass

    solve = LogisticProbe._solve

    def die(self: LogisticProbe, batch: object, strength: float) -> object:
        if strength == 1.0:
            raise Killed
        return solve(self, batch, strength)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(LogisticProbe, "_solve", die)
        train(tiny(tmp_path, *PROBE))
    assert pd.read_csv(tmp_path / "metrics.csv")["strength"].tolist() == [0.0001, 0.01]
    resume = tiny(tmp_path, *PROBE)
    (tmp_path / ".hydra").mkdir(exist_ok=True)
    resume.resume = str(tmp_path)
    train(resume)
    for part in ("val", "test"):
        np.testing.assert_array_equal(probabilities(tmp_path, part), probabilities(probe, part))
    assert session(tmp_path)["solver"] == session(probe)["solver"]


def test_gradients_on_cached_features_train_as_on_images(tiny: Tiny, tmp_path: Path):
    options = [*FROZEN, "trainer.max_epochs=2", "optimizer.lr=1e-2", "model.hidden=16", "callbacks=ema"]
    options += [f"callbacks.{name}=null" for name in ("progress", "heatmaps")]
    train(tiny(tmp_path / "images", *options))
    train(tiny(tmp_path / "features", *options, "solver.caches_features=true"))
    before, after = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("images", "features"))
    assert list(before) == list(after)
    np.testing.assert_allclose(after["val/loss"], before["val/loss"], atol=1e-5)
    np.testing.assert_allclose(after["train/loss"], before["train/loss"], atol=1e-5)
    np.testing.assert_allclose(
        probabilities(tmp_path / "features", "test"), probabilities(tmp_path / "images", "test"), atol=1e-4
    )
    assert "solver" not in session(tmp_path / "features")
    assert session(tmp_path / "features")["features"]["number"] == 512


def test_exclusive_classes_are_probed_too(tiny: Tiny, tmp_path: Path, probe: Path, synthetic_root: Path):
    root = load_run(probe).data(root=synthetic_root).manifest.root
    table = pd.DataFrame({"image": sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))})
    table["patient"] = np.arange(len(table)) // 2
    table["class"] = np.array(["A", "B", "C"])[np.arange(len(table)) % 3]
    table.to_csv(tmp_path / "classes.csv", index=False)
    reader = (
        f"_target_: cxrlab.data.readers.table.read, _partial_: true, tables: ['{tmp_path / 'classes.csv'}'], "
        "image_column: image, patient_column: patient, classes: {columns: class, none: []}"
    )
    multiclass = ["task=multiclass", "loss=cross_entropy", "~data.reader", f"+data.reader={{{reader}}}"]
    train(tiny(tmp_path / "run", *PROBE[:-1], *multiclass, f"data.root={root}"))
    np.testing.assert_allclose(probabilities(tmp_path / "run", "test").sum(axis=1), 1, atol=1e-5)
    assert load_run(tmp_path / "run").labels == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["augment=light"], r"^solver=logistic with RandomAugment in augment: features are computed once"),
        (["model.freeze=null"], r"^solver=logistic with model.freeze=None: the backbone would learn"),
        (["model.freeze=2"], r"^solver=logistic with model.freeze=2: the backbone would learn"),
        (["model.unfreeze_epoch=1", "trainer.max_epochs=3"], r"^solver=logistic with model.unfreeze_epoch=1"),
        (["model.hidden=8"], r"^solver=logistic with model.hidden=8: it solves for one linear layer"),
        (["model.head=attention"], r"^solver=logistic: the head of TimmNetwork reads more than the backbone's pooled"),
        (["model.dropout=0.2"], r"^model.dropout=0.2 has no effect with solver=logistic"),
        (["views=[identity,flip]"], r"^solver=logistic with views=\['identity', 'flip'\]"),
        (["data.sampling=balanced"], r"^data.sampling=balanced has no effect with solver=logistic"),
        (["data.steps_per_epoch=3"], r"^data.steps_per_epoch=3 has no effect with solver=logistic"),
        (["callbacks=ema", "callbacks.heatmaps=null", "callbacks.progress=null"], r"^callbacks.ema averages"),
        (["loss=focal"], r"^solver=logistic minimises the cross-entropy, not FocalLoss: choose loss=bce"),
        (["loss.label_smoothing=0.1"], r"^loss.label_smoothing=0.1: solver=logistic takes targets as they are"),
        (["solver.strengths=[]"], r"^solver.strengths=\[\]: give one"),
        (["solver.strengths=[1.0,-1.0]"], r"^solver.strengths=\[1.0, -1.0\]: -1.0 must be above 0"),
        (["solver.max_iterations=0"], r"^solver.max_iterations=0 must be at least 1"),
        (["preprocess.normalize=image_then_sample"], r"^solver=logistic with preprocess.normalize=image_then"),
        (["trainer.devices=2"], r"^solver=logistic with trainer.devices=2: features are read by one process"),
        (["trainer.precision=64-true"], r"^trainer.precision=64-true: features are computed in 32-true"),
        (
            ["solver=gradient", "solver.caches_features=true", "augment=light"],
            r"^solver.caches_features=true with RandomAugment",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_images_are_decoded(
    overrides: list[str], words: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cxrlab.data.datamodule.DataModule.prepare", lambda self: pytest.fail("decoded"))
    probe = [one for one in PROBE if one.partition("=")[0] not in [o.partition("=")[0] for o in overrides]]
    if overrides[0] == "solver=gradient":
        probe = [one for one in probe if not one.startswith("solver")]
    with pytest.raises(ConfigError, match=words):
        train(tiny(tmp_path / "run", *probe, *overrides))


def test_a_network_without_features_of_its_own_is_refused(tiny: Tiny, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"^SequentialNetwork does not tell its features from its head"):
        train(tiny(tmp_path, "model=vgg_like", *PROBE[1:], "data.image_size=64"))


def test_the_command_line_cannot_name_epochs_beside_strengths(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cxrlab.cli.config.task_overrides", lambda: ["trainer.max_epochs=20"])
    with pytest.raises(ConfigError, match=r"^trainer.max_epochs=20: LogisticSolver has its own, 3: each of"):
        train(tiny(tmp_path, *PROBE, "trainer.max_epochs=20"))


def test_the_end_of_the_strengths_is_said(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        _log_strength({"name": "", "strength": 1e-9, "strengths": [1e-9, 100.0]}, "val/loss", 0.25)
        _log_strength({"name": "", "strength": 1.0, "strengths": [1e-9, 1.0, 100.0]}, "val/loss", 0.25)
        _log_strength({"name": "", "strength": 0.5, "strengths": [0.5]}, "val/loss", 0.25)
    assert "Strengths tried: 2; the best by val/loss (0.2500): C = 1e-09." in caplog.text
    assert "C = 1e-09 is at the end of solver.strengths: one beyond it may be better." in caplog.text
    assert caplog.text.count("at the end") == 1


def test_embed_is_the_forward_before_the_head(probe: Path, synthetic_root: Path):
    run = load_run(probe)
    paths = sorted(synthetic_root.rglob("*.png"))[:5]
    pixels = run.images(paths)
    with torch.no_grad():
        backbone = run.model.network.backbone
        maps = backbone.forward_features(
            (pixels / 255.0 - run.model.preprocess.mean) / run.model.preprocess.std
        )
        expected = maps.mean(dim=(2, 3)).numpy()
    features = run.embed(paths, batch_size=2)
    assert features.dtype == np.float32
    assert features.shape == (5, 512)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    np.testing.assert_allclose(run.embed(pixels), expected, atol=1e-5)
    np.testing.assert_allclose(run.embed(pixels.numpy()), expected, atol=1e-5)
    np.testing.assert_allclose(run.embed(str(paths[0])), expected[:1], atol=1e-5)
    assert run.embed([]).shape == (0, 512)
    with pytest.raises(Exception, match=r"Decoded images of the shape .* and type float32"):
        run.embed(pixels.float())


def test_a_module_without_features_says_so():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    classifier = Classifier(
        labels=["A", "B"], network=network, preprocess={"normalize": "image", "image_size": 8, "channels": 1}
    )
    with pytest.raises(
        ConfigError, match=r"^Sequential does not tell its features from its head. Choose a timm"
    ):
        classifier.embed(torch.zeros(1, 1, 8, 8))
