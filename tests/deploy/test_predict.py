"""``cxrlab predict``: every file has its own row, whatever is wrong with others."""

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

import cxrlab
from cxrlab.deploy.loading import load_model
from cxrlab.deploy.model import Model
from cxrlab.deploy.prediction_folder import PredictionFolder, PredictionSettings
from cxrlab.errors import CheckpointError, ConfigError, DataError, MissingFileError, OutputError
from cxrlab.predict import predict

Predict = Callable[..., Path]


@pytest.fixture
def images(finished_run: Path, tmp_path: Path) -> Path:
    """Nine images of the test part, one file that is none, and a text."""
    folder = tmp_path / "images"
    folder.mkdir()
    run = cxrlab.load_run(finished_run)
    names = run.predictions("test")["image"].tolist()[:9]
    for number, name in enumerate(names):
        source = run.image_path(name)
        shutil.copyfile(source, folder / f"{number}{source.suffix}")
    (folder / "3b.png").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def predicted(composed, tmp_path: Path) -> Predict:
    """Run the command into a folder of its own and return that."""

    def function(*overrides: str, output: Path | None = None) -> Path:
        folder = tmp_path / "predicted" if output is None else output
        given = [f"output={folder}", "device=cpu", "num_workers=0", *overrides]
        predict(composed(*given, config_name="predict"))
        return folder

    return function


def table_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "predictions.csv", dtype={"file": str})


def test_each_file_has_its_own_row_and_the_run_s_own_probabilities(finished_run, images, predicted):
    table = table_of(predicted(f"run={finished_run}", f"input={images}", "batch_size=4"))
    run = cxrlab.load_run(finished_run)
    own = run.predictions("test").head(9)
    assert [Path(file).stem for file in table["file"]] == ["0", "1", "2", "3", "3b", "4", "5", "6", "7", "8"]
    assert table["status"].tolist() == ["ok"] * 4 + ["unreadable"] + ["ok"] * 5
    readable = table[table["status"] == "ok"].reset_index(drop=True)
    for label in run.labels:
        np.testing.assert_allclose(readable[f"probability/{label}"], own[f"probability/{label}"], atol=1e-5)
        assert readable[f"prediction/{label}"].tolist() == own[f"prediction/{label}"].tolist()
        assert readable[f"threshold/{label}"].unique() == pytest.approx([run.thresholds[label]], rel=1e-6)
    calibrator = run.model.operating_point.calibrator("platt")
    expected = calibrator.apply(own[[f"probability/{label}" for label in run.labels]].to_numpy())
    np.testing.assert_allclose(readable[[f"calibrated/{label}" for label in run.labels]], expected, atol=1e-5)


def test_a_row_without_a_prediction_has_a_reason_and_no_number(finished_run, images, predicted):
    table = table_of(predicted(f"run={finished_run}", f"input={images}"))
    row = table[table["status"] == "unreadable"].iloc[0]
    assert "3b.png (8 bytes) cannot be read: its content is none of PNG" in row["reason"]
    numbers = row[[name for name in table if name.startswith(("probability/", "calibrated/", "prediction/"))]]
    assert numbers.isna().all()


def test_one_image_gives_the_same_in_any_company(finished_run, images, predicted, tmp_path):
    together = table_of(predicted(f"run={finished_run}", f"input={images}"))
    alone = table_of(predicted(f"run={finished_run}", f"input={images}/5.png", output=tmp_path / "alone"))
    columns = [name for name in together if name.startswith("probability/")]
    row = together[together["file"] == str(images / "5.png")]
    np.testing.assert_allclose(row[columns], alone[columns], atol=1e-6)


@pytest.mark.parametrize("kind", ["checkpoint", "archive", "table"])
def test_other_forms_of_model_and_input_give_the_same(finished_run, images, predicted, tmp_path, kind):
    expected = table_of(predicted(f"run={finished_run}", f"input={images}"))
    run, given = finished_run, images
    if kind == "checkpoint":
        run = tmp_path / "alone.ckpt"
        shutil.copyfile(finished_run / "checkpoints" / "best.ckpt", run)
    elif kind == "archive":
        given = tmp_path / "images.zip"
        with zipfile.ZipFile(given, "w") as archive:
            for path in sorted(images.iterdir()):
                archive.write(path, path.name)
    else:
        given = tmp_path / "list.csv"
        pd.DataFrame({"image": expected["file"]}).to_csv(given, index=False)
    table = table_of(predicted(f"run={run}", f"input={given}", output=tmp_path / "other"))
    pd.testing.assert_frame_equal(
        table.drop(columns=["file", "reason"]), expected.drop(columns=["file", "reason"])
    )


def test_the_same_image_by_python_and_by_the_command(finished_run, images, predicted):
    table = table_of(predicted(f"run={finished_run}", f"input={images}"))
    model = cxrlab.load_model(finished_run)
    frame = model.predict(sorted(path for path in images.iterdir() if path.suffix == ".png"))
    assert list(frame) == list(table) == model.columns
    pd.testing.assert_frame_equal(frame, table.fillna({"reason": ""}), rtol=1e-6)
    assert model.labels == cxrlab.load_run(finished_run).labels
    assert model.card.threshold_rule == "youden"
    assert model.card.calibration == "platt"


def test_views_average_and_say_that_thresholds_are_of_others(
    finished_run, images, predicted, tmp_path, caplog
):
    plain = table_of(predicted(f"run={finished_run}", f"input={images}"))
    turned = tmp_path / "turned"
    turned.mkdir()
    for path in images.glob("?.png"):
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(turned / path.name)
    flipped = table_of(predicted(f"run={finished_run}", f"input={turned}", output=tmp_path / "turned_out"))
    both = table_of(
        predicted(f"run={finished_run}", f"input={images}", "views=[identity,flip]", output=tmp_path / "both")
    )
    columns = [name for name in plain if name.startswith("probability/")]
    mean = (plain[plain["status"] == "ok"][columns].to_numpy() + flipped[columns].to_numpy()) / 2
    np.testing.assert_allclose(both[both["status"] == "ok"][columns], mean, atol=1e-5)
    assert "other views than those of the training" in caplog.text


def test_several_runs_are_an_ensemble_with_thresholds_of_its_own(finished_run, images, predicted, tmp_path):
    single = table_of(predicted(f"run={finished_run}", f"input={images}"))
    twin = tmp_path / "twin"
    shutil.copytree(finished_run, twin)
    both = table_of(
        predicted(f"run=[{finished_run},{twin}]", f"input={images}", output=tmp_path / "ensemble")
    )
    for kind in ("probability", "threshold", "prediction"):
        columns = [name for name in single if name.startswith(f"{kind}/")]
        np.testing.assert_allclose(both[columns], single[columns], atol=1e-6)


def test_checkpoints_without_validation_give_an_ensemble_without_thresholds(
    finished_run, images, predicted, caplog
):
    path = finished_run / "checkpoints" / "best.ckpt"
    table = table_of(predicted(f"run=[{path},{path}]", f"input={images}"))
    assert (
        table[[name for name in table if name.startswith(("prediction/", "threshold/"))]]
        .isna()
        .all(axis=None)
    )
    assert table.loc[table["status"] == "ok", "probability/Effusion"].notna().all()
    assert "No thresholds could be chosen for the ensemble" in caplog.text


def test_features_stand_in_the_rows_of_the_table(finished_run, images, predicted):
    folder = predicted(f"run={finished_run}", f"input={images}", "embeddings=true", "batch_size=3")
    features, index = np.load(folder / "features.npy"), pd.read_csv(folder / "features.csv")
    assert index["file"].tolist() == table_of(folder)["file"].tolist()
    assert np.isnan(features[4]).all()
    expected = cxrlab.load_run(finished_run).embed([index["file"][7]])
    np.testing.assert_allclose(features[7:8], expected, rtol=1e-4, atol=1e-5)


def test_heatmaps_are_drawn_of_what_is_predicted_positive(finished_run, images, predicted):
    folder = predicted(f"run={finished_run}", f"input={images}", "heatmaps=true")
    table = table_of(folder)
    positives = int((table[[name for name in table if name.startswith("prediction/")]] == 1).sum().sum())
    drawn = sorted((folder / "heatmaps").glob("*.png"))
    assert len(drawn) == positives > 0
    with Image.open(drawn[0]) as picture:
        assert picture.width > 500  # the image, and the heatmap over it
    page = (folder / "predictions.html").read_text()
    assert "Grad-CAM of" in page
    assert "no output is a diagnosis" in page
    label = next(name for name in table if name.startswith("prediction/")).removeprefix("prediction/")
    numbers = [
        f"{table.loc[0, f'{kind}/{label}']:.3f}" for kind in ("probability", "threshold", "calibrated")
    ]
    decision = {1: "positive", 0: "negative"}[table.loc[0, f"prediction/{label}"]]
    cells = "".join(f"<td>{cell}</td>" for cell in (*numbers[:2], decision, numbers[2]))
    assert f"<th>{label}</th>{cells}" in page


def test_the_page_escapes_names_and_lists_what_is_not_ok(finished_run, images, predicted):
    (images / "0.png").rename(images / "<script>.png")
    page = (predicted(f"run={finished_run}", f"input={images}") / "predictions.html").read_text()
    assert "<script>.png" not in page
    assert "&lt;script&gt;.png" in page
    assert "its content is none of PNG" in page


def test_a_heatmap_in_python_has_the_size_of_what_the_network_sees(finished_run, images):
    model = load_model(finished_run)
    maps = model.heatmaps([images / "0.png", images / "1.png"], labels=["Nodule"])
    assert maps.shape == (2, 1, 32, 32)
    assert maps.min() >= 0
    assert maps.max() <= 1
    with pytest.raises(ConfigError, match=r"labels names 'Hernia'"):
        model.heatmaps(images / "0.png", labels=["Hernia"])


def test_a_dicom_that_names_another_modality_is_told_or_rejected(finished_run, predicted, tmp_path):
    pytest.importorskip("pydicom")
    path = ct_slice(tmp_path / "slice.dcm")
    warned = table_of(predicted(f"run={finished_run}", f"input={path}", output=tmp_path / "a"))
    assert warned["status"].tolist() == ["warned"]
    assert "modality CT" in warned["reason"][0]
    assert warned["probability/Nodule"].notna().all()
    rejected = table_of(
        predicted(f"run={finished_run}", f"input={path}", "on_unlike=reject", output=tmp_path / "b")
    )
    assert rejected["status"].tolist() == ["rejected"]
    assert rejected["probability/Nodule"].isna().all()
    ignored = table_of(
        predicted(f"run={finished_run}", f"input={path}", "on_unlike=ignore", output=tmp_path / "c")
    )
    assert ignored["status"].tolist() == ["ok"]


def ct_slice(path: Path) -> Path:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PhotometricInterpretation = "CT", "MONOCHROME2"
    dataset.Rows = dataset.Columns = 64
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 7, 0, 1
    dataset.PixelData = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8).tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_a_run_that_was_cut_off_goes_on_and_ends_as_if_it_had_not(
    finished_run, images, predicted, tmp_path, monkeypatch
):
    whole = table_of(
        predicted(f"run={finished_run}", f"input={images}", "embeddings=true", output=tmp_path / "whole")
    )
    write, calls = PredictionFolder.add, []

    def stops(self, predictions):
        if len(calls) == 2:
            self._file.write("half a ro")  # as a kill in the midst of a write leaves it
            raise KeyboardInterrupt
        calls.append(1)
        write(self, predictions)

    monkeypatch.setattr(PredictionFolder, "add", stops)
    arguments = (f"run={finished_run}", f"input={images}", "embeddings=true", "batch_size=2")
    with pytest.raises(KeyboardInterrupt):
        predicted(*arguments)
    monkeypatch.setattr(PredictionFolder, "add", write)
    folder = tmp_path / "predicted"
    assert (folder / "predictions.csv").read_text().count("\n") == 1 + 4
    predicted(*arguments)
    pd.testing.assert_frame_equal(table_of(folder), whole, rtol=1e-5)
    np.testing.assert_allclose(
        np.load(folder / "features.npy"), np.load(tmp_path / "whole" / "features.npy"), atol=1e-4
    )
    assert json.loads((folder / "predict.json").read_text())["is_finished"] is True


@pytest.mark.slow
def test_a_killed_process_goes_on_where_it_was(finished_run, images, tmp_path):
    for number in range(300):
        shutil.copyfile(images / "0.png", images / f"copy{number:03d}.png")
    output = tmp_path / "killed"
    command = [
        sys.executable, "-m", "cxrlab.predict", f"run={finished_run}", f"input={images}", f"output={output}",
        "batch_size=1", "num_workers=1", "page=false",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    table, deadline = output / "predictions.csv", time.monotonic() + 120
    while time.monotonic() < deadline and (not table.is_file() or table.read_bytes().count(b"\n") < 20):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = [line for line in table.read_bytes().split(b"\n")[:-1] if line]
    assert len(kept) >= 20
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 3  # 3b.png is no image
    lines = table.read_bytes().split(b"\n")[:-1]
    assert lines[: len(kept)] == kept
    assert len(lines) == 1 + 310
    assert len({line.split(b",")[0] for line in lines}) == len(lines)
    assert "files have their row already" in again.stdout


def test_the_exit_status_says_whether_all_is_well(finished_run, images, tmp_path):
    def status(given: Path, name: str) -> tuple[int, str]:
        command = [
            sys.executable, "-m", "cxrlab", "predict", f"run={finished_run}", f"input={given}",
            f"output={tmp_path / name}", "page=false", "num_workers=0",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    assert status(images / "0.png", "ok")[0] == 0
    code, text = status(images, "some")
    assert code == 3
    assert "1 file is not ok" in text
    code, text = status(images / "gone.png", "none")
    assert code == 1
    assert "gone.png: there is no such file or folder" in text
    assert "Traceback" not in text


BAD = {
    "no model": ([], ConfigError, r"Give run=<a run directory"),
    "no input": (["run={run}"], ConfigError, r"Give input=<image files"),
    "nothing of that name": (["run=outputs/gone", "input={images}"], Exception, r"gone"),
    "a folder of other things": (["run={run}", "input={texts}"], MissingFileError, r"texts holds no image"),
    "no run": (
        ["run={texts}", "input={images}"],
        MissingFileError,
        r"holds neither checkpoints nor config.json",
    ),
    "a folder too high": (
        ["run={run}/..", "input={images}"],
        MissingFileError,
        r"no run directory and no shared folder\. Run directories below it: .*\. Give a run directory",
    ),
    "no checkpoint": (
        ["run={images}/0.png", "input={images}"],
        CheckpointError,
        r"0.png .* cannot be loaded",
    ),
    "a program": (["run={texts}/model.pt2", "input={images}"], ConfigError, r"model.pt2: torch unpickles"),
    "an unknown method": (
        ["run={run}", "input={images}", "method=cam"],
        ConfigError,
        r"method=cam is no method",
    ),
    "an unknown view": (
        ["run={run}", "input={images}", "views=[upside]"],
        ConfigError,
        r"'upside' is none of",
    ),
}


@pytest.mark.parametrize(("overrides", "error", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_used_is_named(finished_run, images, predicted, tmp_path, overrides, error, message):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no image")
    (tmp_path / "texts" / "model.pt2").write_bytes(b"")
    places = {"run": finished_run, "images": images, "texts": tmp_path / "texts"}
    with pytest.raises(error, match=message):
        predicted(*(override.format(**places) for override in overrides))


def test_a_network_of_a_package_that_is_not_trusted_is_named_and_not_built(
    finished_run, images, predicted, tmp_path
):
    path = tmp_path / "theirs.ckpt"
    content = torch.load(finished_run / "checkpoints" / "best.ckpt", weights_only=True)
    content["hyper_parameters"]["network"]["_target_"] = "their_lab.Network"
    torch.save(content, path)
    with pytest.raises(ConfigError, match=r"their_lab.Network, .* add trust=\[their_lab\]"):
        predicted(f"run={path}", f"input={images}")


def test_a_run_without_a_best_checkpoint_is_named(finished_run, images, predicted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(MissingFileError, match=r"There is no checkpoint .*best.ckpt"):
        predicted(f"run={run}", f"input={images}")


def test_a_folder_of_other_predictions_is_left_alone(finished_run, images, predicted, tmp_path):
    folder = predicted(f"run={finished_run}", f"input={images}")
    before = (folder / "predictions.csv").read_bytes()
    with pytest.raises(ConfigError, match=r"holds these predictions already, to the end"):
        predicted(f"run={finished_run}", f"input={images}")
    with pytest.raises(ConfigError, match=r"holds other predictions \(inputs differ\)"):
        predicted(f"run={finished_run}", f"input={images}/0.png")
    assert (folder / "predictions.csv").read_bytes() == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "predictions.csv").write_text("file\n")
    with pytest.raises(ConfigError, match=r"that is not of cxrlab predict"):
        predicted(f"run={finished_run}", f"input={images}", output=other)
    assert (other / "predictions.csv").read_text() == "file\n"


def test_a_run_that_goes_on_writes_the_same_beside_the_table(finished_run, images, predicted, monkeypatch):
    def stops(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("cxrlab.deploy.prediction_page.write_page", stops)
        with pytest.raises(KeyboardInterrupt):
            predicted(f"run={finished_run}", f"input={images}")
    with pytest.raises(ConfigError, match=r"holds other predictions \(extras differ\)"):
        predicted(f"run={finished_run}", f"input={images}", "embeddings=true")
    folder = predicted(f"run={finished_run}", f"input={images}")  # what was missing is the page alone
    assert (folder / "predictions.html").is_file()
    assert len(table_of(folder)) == 10


def test_an_output_that_is_not_finite_is_no_prediction(finished_run, images):
    model = load_model(finished_run)
    with torch.no_grad():
        next(model.members[0].classifier.network.parameters()).fill_(torch.nan)
    table = model.predict(images / "0.png")
    assert table["status"].tolist() == ["rejected"]
    assert "not finite" in table["reason"][0]
    assert table["prediction/Nodule"].isna().all()


def test_maps_and_features_that_cannot_be_had_are_refused_before_anything_is_decoded(
    finished_run, images, predicted, tmp_path
):
    with pytest.raises(ConfigError, match=r"attention"):
        predicted(f"run={finished_run}", f"input={images}", "heatmaps=true", "method=attention")
    with pytest.raises(ConfigError, match=r"on_unlike=rejct must be one of warn, reject, ignore"):
        load_model(finished_run).predict(images / "0.png", on_unlike="rejct")
    assert not (tmp_path / "predicted" / "predictions.csv").exists()


def test_a_reference_of_another_network_is_named(finished_run, tmp_path):
    from cxrlab.runs.reference import Spread, TrainingReference, keep_reference

    path = tmp_path / "best.ckpt"
    shutil.copyfile(finished_run / "checkpoints" / "best.ckpt", path)
    spreads = [Spread(torch.zeros(size), torch.eye(size)) for size in (64, 16, 11)]
    keep_reference(path, TrainingReference(torch.zeros(2, 5), *spreads, torch.ones(4)))
    with pytest.raises(CheckpointError, match=r"reference holds 5 features and 11 numbers on detail"):
        load_model(path)


def test_an_ensemble_s_record_says_only_what_all_members_share(finished_run):
    from dataclasses import replace

    from cxrlab.deploy.loading import _ensemble

    member = load_model(finished_run).members[0]
    other = replace(member, record=replace(member.record, licence="MIT", trained_on={"data": "nih"}))
    record = _ensemble([member, other], [None, None], changes_views=False).record
    assert (record.licence, record.trained_on) == ("", None)
    assert record.initial_weights == member.record.initial_weights
    assert len(record.checkpoint) == 16


@pytest.mark.parametrize("name", ["outputs/best.ckpt", "models/a.onnx", "src/gone"])
def test_a_path_that_is_misspelt_is_not_asked_for_at_the_hub(name, monkeypatch):
    def asks(_: str) -> Path:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr("cxrlab.deploy.hub.download", asks)
    with pytest.raises(MissingFileError, match=r"there is no such file or folder"):
        load_model(name)


def test_members_that_do_not_fit_are_named(finished_run, tmp_path):
    model = load_model(finished_run)
    from dataclasses import replace

    other = replace(
        model.members[0],
        record=replace(model.record, labels=("Other",), thresholds={"Other": 0.5}),
    )
    with pytest.raises(DataError, match=r"the members of an ensemble have the same, in the same order"):
        Model([model.members[0], other])


def test_a_full_disk_keeps_what_was_written_and_says_how_to_go_on(
    finished_run, images, predicted, tmp_path, monkeypatch
):
    write, calls = PredictionFolder._write, []

    def fills(self, rows):
        calls.append(1)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, rows)

    monkeypatch.setattr(PredictionFolder, "_write", fills)
    arguments = (f"run={finished_run}", f"input={images}", "batch_size=2")
    with pytest.raises(OutputError, match=r"output=.*predicted cannot be written: No space left .* goes on"):
        predicted(*arguments)
    monkeypatch.setattr(PredictionFolder, "_write", write)
    folder = tmp_path / "predicted"
    assert len(table_of(folder)) == 4
    predicted(*arguments)
    assert len(table_of(folder)) == 10


def test_labels_and_thresholds_are_the_checkpoint_s_own(finished_run):
    model, run = load_model(finished_run), cxrlab.load_run(finished_run)
    assert model.thresholds == run.thresholds
    record = model.card
    assert (record.image_size, record.channels, record.resize) == (32, 1, run.model.preprocess.resize)
    assert record.trained_on["data"] == "synthetic"
    assert len(record.checkpoint) == 16
    assert "resnet10t" in record.title


def test_settings_of_a_folder_are_plain(finished_run):
    settings = PredictionSettings("0" * 16, ["A"], ["a"], ["identity"], "warn")
    assert json.loads(json.dumps(settings.plain())) == settings.plain()


def test_the_config_has_a_place_for_every_key(composed):
    cfg: DictConfig = composed(config_name="predict")
    assert cfg.on_unlike == "warn"
    assert cfg.heatmaps is False
