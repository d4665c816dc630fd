import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig
from PIL import Image

import cxrlab
from cxrlab.errors import ConfigError, DataError, MissingFileError
from cxrlab.explain import LISTS, checked, explain
from cxrlab.heatmaps.image_files import file_heatmaps

Explained = Callable[..., Path]

SMALL = (
    "device=cpu",
    "explanation.num_random_networks=1",
    "explanation.num_checked=4",
    "explanation.num_located=4",
    "explanation.num_curve_steps=3",
    "explanation.num_resamples=100",
)


@pytest.fixture
def explained(composed: Callable[..., DictConfig], finished_run: Path, tmp_path: Path) -> Explained:
    """Explain the finished run into tmp_path/out, and return that folder."""

    def function(*overrides: str) -> Path:
        out = tmp_path / "out"
        page = explain(
            composed(*SMALL, f"run={finished_run}", f"run_dir={out}", *overrides, config_name="explain")
        )
        assert page == out / "report.html"
        return out

    return function


@pytest.fixture
def files(finished_run: Path, synthetic_root: Path) -> list[Path]:
    """The image files of three test images of the run."""
    root = next(synthetic_root.iterdir())
    test = pd.read_csv(finished_run / "predictions" / "test.csv", dtype={"patient": str})
    return [root / name for name in test["image"][:3]]


def index_of(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "panels" / "index.csv")


def words(out: Path) -> str:
    return (out / "report.html").read_text()


def test_heatmaps_of_a_part_are_drawn_kept_and_checked(explained: Explained, finished_run: Path):
    out = explained("method=[gradcam,layercam]", "limit=3")
    index = index_of(out)
    run = cxrlab.load_run(finished_run)
    assert index["image"].nunique() == 3
    assert len(index) == 3 * len(run.labels)
    test = run.predictions("test").set_index("image")
    for row in index.itertuples():
        assert row.probability == pytest.approx(test.loc[row.image, f"probability/{row.finding}"])
        assert row.target == test.loc[row.image, f"target/{row.finding}"]
        with Image.open(out / "panels" / row.file) as picture:
            assert picture.width == 3 * 256 + 2 * 4  # the radiograph and two methods
    numbers = json.loads((out / "explanation.json").read_text())
    assert list(numbers["methods"]) == ["gradcam", "layercam"]
    assert numbers["images"] == len(test)  # the checks are of the whole part
    assert numbers["data"]["part"] == "test"
    assert set(numbers["pointing"]["cases"]) == set(run.labels)
    for name in ("provenance.json", "figures/pointing.png", "figures/randomization.png"):
        assert (out / name).stat().st_size > 300
    assert "Are they to be trusted?" in words(out)
    assert words(out).count("data:image/jpeg") >= len(index)


def test_the_arrays_are_the_heatmaps_of_the_index(
    explained: Explained, finished_run: Path, synthetic_root: Path
):
    out = explained("method=[gradcam,layercam]", "limit=4", "labels=[Nodule,Effusion]", "checks=false")
    index, run = index_of(out), cxrlab.load_run(finished_run)
    root = next(synthetic_root.iterdir())
    for method in ("gradcam", "layercam"):
        maps = np.load(out / "maps" / f"{method}.npy")
        assert maps.dtype == np.float32
        assert maps.shape == (8, 32, 32)
        for number, row in enumerate(index.itertuples()):
            expected = file_heatmaps(run, [root / row.image], row.finding, method=method)[0]
            np.testing.assert_allclose(maps[number], expected, atol=2e-3)
    assert not (out / "explanation.json").exists()
    assert "not checked" in words(out)


def test_hits_and_errors_of_each_label_are_drawn_first(explained: Explained, finished_run: Path):
    out = explained("limit=4", "labels=Nodule", "checks=false")
    test = cxrlab.load_run(finished_run).predictions("test")
    is_hit = (test["target/Nodule"] == 1) & (test["prediction/Nodule"] == 1)
    is_error = test["target/Nodule"] != test["prediction/Nodule"]
    outcomes = index_of(out)["outcome"]
    assert outcomes.isin(["TP"]).sum() >= min(1, is_hit.sum())
    assert outcomes.isin(["FP", "FN"]).sum() >= min(2, is_error.sum())


def test_the_labels_are_those_of_the_highest_validation_auroc(explained: Explained, finished_run: Path):
    results = pd.read_csv(finished_run / "results.csv")
    validation = results[(results["part"] == "val") & (results["label"] != "macro")].dropna(subset="auroc")
    validation = validation[validation["label"].isin(cxrlab.load_run(finished_run).labels)]
    best = validation.sort_values("auroc", ascending=False)["label"].tolist()[:2]
    out = explained("labels=top2", "limit=2", "checks=false", "method=gradcam")
    assert set(index_of(out)["finding"]) == set(best)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("all", ["Effusion", "Nodule", "Opacity", "Cardiomegaly"]),
        ("[Opacity,Nodule]", ["Opacity", "Nodule"]),
        ("Nodule", ["Nodule"]),
    ],
)
def test_labels_may_be_named(labels: str, expected: list[str], explained: Explained):
    out = explained(f"labels={labels}", "limit=1", "checks=false", "method=gradcam")
    assert index_of(out)["finding"].tolist() == expected


def test_another_part_is_predicted_where_the_run_has_not(explained: Explained, finished_run: Path):
    out = explained("part=train", "limit=2", "checks=false", "method=gradcam")
    manifest = pd.read_csv(finished_run / "manifest.csv").set_index("image")
    assert set(manifest.loc[index_of(out)["image"], "part"]) == {"train"}


def test_image_files_are_explained(explained: Explained, files: list[Path], finished_run: Path):
    named = ",".join(f'"{path}"' for path in files)
    out = explained(f"images=[{named}]", "labels=[Nodule]", "method=occlusion")
    index = index_of(out)
    assert index["image"].tolist() == [str(path) for path in files]
    assert index["target"].isna().all()
    assert set(index["outcome"]) == {"unknown"}
    predicted = cxrlab.load_run(finished_run).predict(files)
    np.testing.assert_allclose(index["probability"], predicted["probability/Nodule"], atol=1e-5)
    assert not (out / "explanation.json").exists()
    assert "Truth not known" in words(out)


def test_a_folder_of_files_up_to_the_limit(
    explained: Explained, files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = tmp_path / "mine"
    folder.mkdir()
    for number, path in enumerate(files):
        shutil.copy(path, folder / f"{number}.png")
    out = explained(f"images={folder}", "limit=2", "labels=Nodule", "method=gradcam")
    assert index_of(out)["image"].tolist() == [str(folder / "0.png"), str(folder / "1.png")]
    assert "images names 3 files; the first limit=2 are explained" in caplog.text


def test_image_files_can_be_checked_against_a_table_of_boxes(
    explained: Explained, files: list[Path], tmp_path: Path
):
    table = tmp_path / "boxes.csv"
    lines = [f"{path.name},Nodule,0.2,0.2,0.3,0.3" for path in files]
    lines += [f"{files[0].name},Nodule,1.2,0.2,0.3,0.3", f"{files[0].name},Nodule,0.2,0.2,0,0.3"]
    table.write_text("\n".join(["image,label,x,y,width,height", *lines]))
    named = ",".join(f'"{path}"' for path in files)
    out = explained(f"images=[{named}]", "labels=Nodule", f"boxes={table}", "checks=true", "method=gradcam")
    numbers = json.loads((out / "explanation.json").read_text())
    assert numbers["pointing"]["cases"] == {"Nodule": {"cases": 3, "patients": 3}}
    assert numbers["pointing"]["unusable"]["boxes"] == 2
    assert "2 boxes could not be used" in words(out)
    with Image.open(out / "panels" / index_of(out)["file"][0]) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert (pixels == (0, 255, 255)).all(axis=1).sum() > 100  # the outline


def test_another_data_set_is_explained_by_the_labels_it_shares(
    explained: Explained, finished_run: Path, synthetic_root: Path, tmp_path: Path
):
    table = pd.read_csv(finished_run / "predictions" / "test.csv")
    root = next(synthetic_root.iterdir())
    for row in table.head(24).itertuples():
        target = tmp_path / "other" / ("Pleural Effusion" if row.Index % 2 else "Healthy")
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / row.image, target / f"q{row.Index}.png")
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("image,label,x,y,width,height\nq1.png,Pleural Effusion,0.1,0.5,0.3,0.3\n")
    out = explained(
        "data=folder", f"data.root={tmp_path / 'other'}", 'data.reader.patient_pattern="^(q[0-9]+)"',
        "data.reader.positive_class=Pleural Effusion", "data.num_workers=0", "limit=2",
        "method=gradient_shap", "explanation.num_samples=4", f"boxes={boxes}",
    )  # fmt: skip
    assert set(index_of(out)["finding"]) == {"Effusion"}
    numbers = json.loads((out / "explanation.json").read_text())
    assert numbers["pointing"]["cases"]["Effusion"]["cases"] == 1


def test_a_page_without_images_names_none(explained: Explained, finished_run: Path, tmp_path: Path):
    out = explained("limit=2", "report.images=false", "method=gradcam")
    manifest = pd.read_csv(finished_run / "manifest.csv")
    assert not [name for name in manifest["image"] if name in words(out)]
    assert "data:image/jpeg" not in words(out)
    assert str(tmp_path) not in words(out)
    assert "Do they point at the findings?" in words(out)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=gradcan"], "method=gradcan is no method; choose from gradcam.*Did you mean gradcam"),
        (["method=[gradcam,gradcam]"], "none twice"),
        (["images=[]"], "images= names nothing"),
        (["labels=[]"], "labels= names nothing"),
        (["images=a.png", "part=test"], "part= has no place beside images="),
        (["images=a.png", "root=/x"], "root= has no place beside images="),
        (["part=all"], "part=all needs data="),
        (["limit=0"], "limit=0 must be at least 1"),
        (["checks=perhaps"], "checks=perhaps is no check; choose from pointing, lungs"),
        (["explanation.smoothing=2"], "explanation.smoothing=2 must be at least 0"),
        (["run=null"], "Give run="),
    ],
)
def test_what_does_not_fit_together_is_rejected(
    overrides: list[str], message: str, composed: Callable[..., DictConfig]
):
    with pytest.raises(ConfigError, match=message):
        checked(composed("run=/a", "run_dir=/nowhere", *overrides, config_name="explain"))


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["labels=Nodul"], ConfigError, "labels names 'Nodul'; the labels at hand are Effusion, Nodule"),
        (
            ["explanation.layers=[backbone.layer9]", "method=gradcam"],
            ConfigError,
            r"backbone\.layer9.*backbone\.layer4",
        ),
        (["images=/gone.png"], MissingFileError, "images names /gone.png: there is no such file"),
        (["boxes=/gone.csv"], MissingFileError, "no table of boxes /gone.csv"),
        (["device=tpu9"], ConfigError, "device=tpu9 cannot be used"),
    ],
)
def test_what_is_not_there_is_named(
    overrides: list[str], error: type[Exception], message: str, explained: Explained
):
    with pytest.raises(error, match=message):
        explained("limit=1", "checks=false", *overrides)


def test_a_label_that_is_not_there_is_named_before_anything_is_predicted(
    explained: Explained, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cxrlab.explain._predicted_images", None)
    with pytest.raises(ConfigError, match=r"labels names 'nodule'.* Did you mean Nodule\?"):
        explained("labels=[Effusion,nodule]", "checks=false")


def test_a_file_that_is_no_image_is_named(explained: Explained, tmp_path: Path):
    wrong = tmp_path / "notes.png"
    wrong.write_text("no image")
    with pytest.raises(DataError, match="notes.png"):
        explained(f"images={wrong}")


@pytest.mark.slow
def test_the_command_takes_commas_and_writes_below_the_run(finished_run: Path, tmp_path: Path):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))

    def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "cxrlab.explain", f"run={run}", *SMALL, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    done = command("method=gradcam++,eigencam", "labels=Nodule,Opacity", "limit=2", "checks=false")
    assert done.returncode == 0, done.stderr
    assert "The page:" in done.stdout + done.stderr
    out = run / "explanations" / "test"
    assert {path.name for path in (out / "maps").iterdir()} == {"gradcam++.npy", "eigencam.npy"}
    assert len(index_of(out)) == 4
    wrong = command("images=/gone/one.png,/gone/two.png")
    assert wrong.returncode == 1
    said = wrong.stdout + wrong.stderr
    assert "images names /gone/one.png: there is no such file or folder" in said
    assert "Traceback" not in said


def test_the_keys_with_commas_are_keys_of_the_config(composed: Callable[..., DictConfig]):
    assert set(LISTS) < set(composed(config_name="explain"))
