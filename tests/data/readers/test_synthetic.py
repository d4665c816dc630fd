import shutil
from pathlib import Path

import numpy as np
import pytest

from cxrlab.data.decode import decode
from cxrlab.data.manifest import Manifest
from cxrlab.data.phantom.patients import FINDINGS, sample
from cxrlab.data.readers import synthetic
from cxrlab.errors import ConfigError, DataError, OutputError

NUMBERS = {"num_patients": 6, "size": 64, "seed": 0}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return synthetic.read(tmp_path_factory.mktemp("synthetic"), **NUMBERS)


def _files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_the_manifest_lists_what_was_sampled(manifest: Manifest):
    radiographs = sample(num_patients=6, seed=0)
    assert manifest.name == "synthetic"
    assert manifest.labels == list(FINDINGS)
    assert manifest.covariates == ["view", "sex", "age"]
    assert len(manifest) == manifest.num_listed == len(radiographs)
    assert manifest.table["patient"].tolist() == [f"{image.patient:05d}" for image in radiographs]
    assert (manifest.table["split"] == "").all()
    assert set(manifest.table["covariate/view"]) <= {"PA", "AP"}
    assert set(manifest.table["covariate/sex"]) <= {"F", "M"}
    expected = [[name in image.findings for name in FINDINGS] for image in radiographs]
    np.testing.assert_array_equal(manifest.targets, np.asarray(expected, dtype=np.float32))


def test_every_image_can_be_decoded(manifest: Manifest):
    for image in manifest.table["image"]:
        assert decode(manifest.root / image, image_size=64, channels=1, resize="stretch").std() > 30


def test_boxes_stand_for_the_positives_and_lie_inside_the_image(manifest: Manifest):
    long = manifest.table.melt("image", [f"label/{name}" for name in FINDINGS])
    positives = {
        (row.image, row.variable.removeprefix("label/")) for row in long[long["value"] == 1].itertuples()
    }
    boxes = manifest.boxes
    assert sorted(zip(boxes["image"], boxes["label"], strict=True)) == sorted(positives)
    assert (boxes[["x", "y"]] >= 0).all(axis=None)
    assert (boxes[["width", "height"]] > 0).all(axis=None)
    assert (boxes["x"] + boxes["width"]).max() <= 1 + 1e-9
    assert (boxes["y"] + boxes["height"]).max() <= 1 + 1e-9


def test_the_same_seed_gives_the_same_bytes(manifest: Manifest, tmp_path: Path):
    assert _files(synthetic.read(tmp_path, **NUMBERS).root) == _files(manifest.root)


def test_another_seed_gives_another_set_beside_it(manifest: Manifest):
    other = synthetic.read(manifest.root.parent, **NUMBERS | {"seed": 1})
    assert other.root != manifest.root
    assert not set(_files(other.root / "images").values()) & set(_files(manifest.root / "images").values())


def test_a_second_read_writes_nothing(manifest: Manifest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(synthetic, "draw", lambda *_, **__: pytest.fail("drawn again"))
    paths = [manifest.root, *manifest.root.rglob("*")]
    before = [path.stat().st_mtime_ns for path in paths]
    again = synthetic.read(manifest.root.parent, **NUMBERS)
    assert again.fingerprint() == manifest.fingerprint()
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_what_a_killed_process_left_is_ignored(manifest: Manifest, tmp_path: Path):
    leftover = tmp_path / f".{manifest.root.name}-0123" / "images"
    leftover.mkdir(parents=True)
    (leftover / "00000_0.png").write_bytes(b"half")
    assert _files(synthetic.read(tmp_path, **NUMBERS).root) == _files(manifest.root)


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic.pd.DataFrame, "to_csv", full_disk)
    with pytest.raises(OutputError, match=r"cannot be written to .*6-patients.*No space left.*data\.root"):
        synthetic.read(tmp_path, **NUMBERS)
    assert list(tmp_path.iterdir()) == []


def test_the_loser_of_a_race_takes_the_set_of_the_winner(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write = synthetic._write

    def write_while_another_finishes(folder: Path, **numbers: int) -> None:
        write(folder, **numbers)
        shutil.copytree(manifest.root, tmp_path / manifest.root.name)

    monkeypatch.setattr(synthetic, "_write", write_while_another_finishes)
    assert synthetic.read(tmp_path, **NUMBERS).fingerprint() == manifest.fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == [manifest.root.name]


def test_a_root_below_a_file_is_an_output_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be written to .*file.*data\.root"):
        synthetic.read(tmp_path / "file" / "synthetic", **NUMBERS)


def test_a_folder_with_something_else_in_it_is_not_overwritten(manifest: Manifest, tmp_path: Path):
    (tmp_path / manifest.root.name).mkdir()
    (tmp_path / manifest.root.name / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        synthetic.read(tmp_path, **NUMBERS)
    assert (tmp_path / manifest.root.name / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["labels.csv", "boxes.csv"])
def test_a_damaged_set_is_named(manifest: Manifest, tmp_path: Path, name: str):
    root = tmp_path / manifest.root.name
    shutil.copytree(manifest.root, root)
    (root / name).write_text("")
    with pytest.raises(DataError, match=r"6-patients.*cannot be read.*Delete that folder"):
        synthetic.read(tmp_path, **NUMBERS)


@pytest.mark.parametrize(("name", "value"), [("num_patients", 0), ("size", 16), ("seed", -1)])
def test_numbers_that_are_too_small(tmp_path: Path, name: str, value: int):
    with pytest.raises(ConfigError, match=rf"data\.reader\.{name}={value} must be at least"):
        synthetic.read(tmp_path, **NUMBERS | {name: value})
