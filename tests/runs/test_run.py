import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import cxrlab
from cxrlab.errors import CheckpointError, DataError, MissingFileError, UserError
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.metrics.referral import choose_referral
from cxrlab.metrics.settings import EvaluationSettings


@pytest.fixture(scope="module")
def images(synthetic_root: Path) -> list[Path]:
    return sorted(next(synthetic_root.iterdir()).glob("images/*.png"))[:5]


def test_a_run_gives_model_labels_config_and_tables(finished_run: Path):
    run = cxrlab.load_run(finished_run)
    assert run.labels == ["Effusion", "Nodule", "Opacity", "Cardiomegaly"]
    assert not run.model.training
    assert run.config["optimizer"]["lr"] == 1e-3
    assert run.config["run_dir"] == str(finished_run)
    assert set(run.manifest["part"]) == {"train", "val", "test"}
    assert len(run.metrics) == 2
    assert "auroc" in run.results
    assert (run.predictions("test")["part"] == "test").all()


def test_predictions_of_files_equal_those_of_the_run(finished_run: Path, synthetic_root: Path):
    run = cxrlab.load_run(finished_run)
    table = run.predictions("test")
    root = next(synthetic_root.iterdir())
    again = run.predict([root / image for image in table["image"]], batch_size=7)
    columns = [f"probability/{label}" for label in run.labels]
    np.testing.assert_allclose(again[columns], table[columns], atol=1e-5)
    assert again["image"].tolist() == [str(root / image) for image in table["image"]]


def test_rules_to_refer_were_chosen_on_its_validation_part_by_patient(finished_run: Path):
    run = cxrlab.load_run(finished_run)
    rules = run.model.operating_point.referral()
    assert rules is not None
    assert rules.targets == EvaluationSettings().referral
    validation = PredictionTable.from_frame(run.predictions("val"), "val.csv")
    wanted = choose_referral(validation.probabilities, validation.targets, validation.patients, rules.targets)
    np.testing.assert_allclose((rules.rule_in, rules.rule_out), wanted, rtol=1e-4)


def test_one_file_and_no_file(finished_run: Path, images: list[Path]):
    run = cxrlab.load_run(finished_run)
    assert len(run.predict(images[0])) == 1
    assert list(run.predict([]).columns) == [
        "image",
        *(f"{prefix}/{label}" for prefix in ("probability", "prediction") for label in run.labels),
    ]


def test_an_image_that_is_gone_or_no_image_is_named(finished_run: Path, tmp_path: Path):
    run = cxrlab.load_run(finished_run)
    with pytest.raises(MissingFileError, match=r"no image .*gone.png"):
        run.predict([tmp_path / "gone.png"])
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(DataError, match=r"text.png \(12 bytes\) cannot be read"):
        run.predict([tmp_path / "text.png"])


def test_a_fresh_python_needs_neither_the_data_nor_hydra_nor_the_config(
    finished_run: Path, images: list[Path], tmp_path: Path
):
    """Only the checkpoint and one new image travel."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    shutil.copy(finished_run / "checkpoints" / "best.ckpt", tmp_path / "run" / "checkpoints")
    shutil.copy(images[0], tmp_path / "new.png")
    code = (
        "import sys; sys.modules['hydra'] = None; sys.modules['omegaconf'] = None\n"
        "import cxrlab\n"
        "table = cxrlab.load_run('run').predict(['new.png'])\n"
        "model = cxrlab.Classifier.load_from_checkpoint('run/checkpoints/best.ckpt')\n"
        "print(table.shape, model.training)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(1, 9) False"


def test_importing_the_package_is_quick_because_torch_waits():
    code = "import sys, cxrlab, cxrlab.train; print('torch' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_a_missing_run_checkpoint_or_table_is_named(finished_run: Path, tmp_path: Path):
    with pytest.raises(MissingFileError, match=r"no run directory .*absent"):
        cxrlab.load_run(tmp_path / "absent")
    with pytest.raises(MissingFileError, match=r"no checkpoint .*best.ckpt"):
        cxrlab.load_run(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(finished_run / "checkpoints" / "best.ckpt", tmp_path / "checkpoints")
    with pytest.raises(MissingFileError, match=r"has no predictions/test.csv; did it finish\?"):
        cxrlab.load_run(tmp_path).predictions("test")


@pytest.fixture
def copied(finished_run: Path, tmp_path: Path) -> Path:
    """A run directory of which only the checkpoint is there, to be spoilt."""
    (tmp_path / "checkpoints").mkdir()
    return Path(shutil.copy(finished_run / "checkpoints" / "best.ckpt", tmp_path / "checkpoints"))


def test_a_truncated_checkpoint_is_named(copied: Path):
    copied.write_bytes(copied.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"best.ckpt \(5000 bytes\) cannot be loaded: it is cut short"):
        cxrlab.load_run(copied.parents[1])


def test_a_checkpoint_with_a_missing_weight_is_not_loaded_in_part(copied: Path):
    checkpoint = torch.load(copied, weights_only=True)
    del checkpoint["state_dict"]["network.head.1.weight"]
    torch.save(checkpoint, copied)
    with pytest.raises(CheckpointError, match=r"network.head.1.weight"):
        cxrlab.load_run(copied.parents[1])


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "timm.create_model",
        "cxrlab.runs.run.load_run",
        "cxrlab.models.timm_network.timm.create_model",
        "",
    ],
)
def test_a_checkpoint_cannot_choose_what_code_runs(copied: Path, target: str):
    checkpoint = torch.load(copied, weights_only=True)
    checkpoint["hyper_parameters"]["network"]["_target_"] = target
    torch.save(checkpoint, copied)
    with pytest.raises(UserError, match="names .*so it was not built"):
        cxrlab.load_run(copied.parents[1])


def test_a_checkpoint_with_code_in_it_is_not_run(
    copied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    class Payload:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "it-ran",))

    torch.save({"state_dict": {}, "hyper_parameters": Payload()}, copied)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        cxrlab.load_run(copied.parents[1])
    assert not (tmp_path / "it-ran").exists()


def test_an_image_of_the_manifest_keeps_its_patient_as_text(finished_run: Path):
    table = cxrlab.load_run(finished_run).predictions("val")
    assert pd.api.types.is_string_dtype(table["patient"])
    assert table["patient"].str.len().eq(5).all()
