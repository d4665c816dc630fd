"""A run's predictions are compared with its manifest, and with what its training noted of them."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from cxrlab.errors import DataError
from cxrlab.files import RunDir, write_json
from cxrlab.runs.own_predictions import read_own_predictions
from cxrlab.training.callbacks.provenance import table_hash


@pytest.fixture
def files(tmp_path: Path) -> RunDir:
    """A run of twelve images, six of them of the test part."""
    rows = range(12)
    part = ["test" if row < 6 else "train" for row in rows]
    manifest = pd.DataFrame({"image": [f"{row}.png" for row in rows], "patient": [f"00{row // 2}" for row in rows], "split": "", "part": part, "label/Edema": [1.0, 0, None, 0, 1, 0] * 2})  # fmt: skip
    (tmp_path / "predictions").mkdir()
    manifest.to_csv(tmp_path / "manifest.csv", index=False)
    predicted = manifest.drop(columns="split").rename(columns={"label/Edema": "target/Edema"})
    predicted.assign(**{"probability/Edema": 0.25}).to_csv(tmp_path / "all.csv", index=False)
    predicted.assign(**{"probability/Edema": 0.25})[:6].to_csv(
        tmp_path / "predictions" / "test.csv", index=False
    )
    return RunDir(tmp_path)


def rewritten(files: RunDir, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = files.predictions("test")
    change(pd.read_csv(path, dtype={"patient": str})).to_csv(path, index=False)


def test_a_table_that_fits_is_read_in_any_order(files: RunDir):
    assert len(read_own_predictions(files, "test")) == 6
    rewritten(files, lambda table: table[::-1])
    assert len(read_own_predictions(files, "test")) == 6


def test_spellings_of_one_patient_are_no_other_patient(files: RunDir):
    manifest = pd.read_csv(files.manifest, dtype={"patient": str})
    spelt = ["P1", "p1", "12", "12.0", "0012", "P2"]
    manifest.loc[:5, "patient"] = spelt  # as runs of older versions have them
    manifest.to_csv(files.manifest, index=False)
    rewritten(files, lambda table: table.assign(patient=spelt))
    assert len(read_own_predictions(files, "test")) == 6
    rewritten(files, lambda table: table.assign(patient=["P1", "p1", "12", "12.0", "13", "P2"]))
    with pytest.raises(DataError, match=r"1 images of .* have another patient .*'4.png'"):
        read_own_predictions(files, "test")


def test_a_shorter_table_is_rejected(files: RunDir):
    path = files.predictions("test")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))
    with pytest.raises(
        DataError,
        match=r"test.csv lacks 3 of the 6 images of the part test, such as \['3.png', '4.png', '5.png'\]: it was cut short",
    ):
        read_own_predictions(files, "test")


@pytest.mark.parametrize(
    ("key", "value"), [("limit_test_batches", 2), ("limit_test_batches", 0.5), ("fast_dev_run", True)]
)
def test_a_training_that_was_to_test_fewer_images_is_believed(key: str, value: object, files: RunDir):
    rewritten(files, lambda table: table[:3])
    (files.path / ".hydra").mkdir()
    files.resolved_config.write_text(f"trainer: {{{key}: {str(value).lower()}}}\n")
    assert len(read_own_predictions(files, "test")) == 3


def test_training_images_among_the_test_images_are_rejected(files: RunDir):
    everything = pd.read_csv(files.path / "all.csv", dtype={"patient": str})
    for part in ("train", "test"):  # whatever the table itself calls them
        everything[:8].assign(part=part).to_csv(files.predictions("test"), index=False)
        with pytest.raises(
            DataError,
            match=r"2 images of .*test.csv are of the part train, not test: \['6.png', '7.png'\] \(lines \[8, 9\]\)",
        ):
            read_own_predictions(files, "test")


@pytest.mark.parametrize("value", [0.0, None])
def test_edited_targets_are_rejected(value: float | None, files: RunDir):
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[4, "target/Edema"] = value
        return table

    rewritten(files, change)
    with pytest.raises(DataError, match=r"1 images of .* have other targets .* \['4.png'\] \(lines \[6\]\)"):
        read_own_predictions(files, "test")


def test_another_patient_and_an_unknown_image_are_rejected(files: RunDir):
    rewritten(files, lambda table: table.assign(patient="000"))
    with pytest.raises(DataError, match=r"4 images of .* have another patient"):
        read_own_predictions(files, "test")
    rewritten(files, lambda table: table.assign(image="x" + table["image"]))
    with pytest.raises(DataError, match=r"6 images of .* are not in the run's manifest.csv: \['x0.png'"):
        read_own_predictions(files, "test")


def test_another_run_s_labels_are_rejected(files: RunDir):
    rewritten(files, lambda table: table.rename(columns=lambda name: name.replace("Edema", "Mass")))
    with pytest.raises(DataError, match=r"has the labels \['Mass'\], the run's manifest.csv \['Edema'\]"):
        read_own_predictions(files, "test")


def test_edited_probabilities_are_noticed_by_what_the_training_noted(files: RunDir):
    path = files.predictions("test")
    write_json(files.provenance, {"sessions": [{"predictions": {"test": table_hash(path)}}]})
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(read_own_predictions(files, "test")) == 6
    path.write_text(path.read_text().replace("0.25", "0.75", 1))
    with pytest.raises(
        DataError,
        match=r"test.csv is not the table that the training wrote: its hash is .*provenance.json noted",
    ):
        read_own_predictions(files, "test")


def test_a_folder_without_manifest_has_nothing_to_compare_with(files: RunDir):
    files.manifest.unlink()
    rewritten(files, lambda table: table[:3])
    assert len(read_own_predictions(files, "test")) == 3
