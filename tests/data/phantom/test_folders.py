from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from cxrlab.cli.datasets import known_readers
from cxrlab.data import Split, shared_patients
from cxrlab.data.phantom import draw_cell_folder, draw_pneumonia_folder
from cxrlab.data.readers.folders import read_malaria, read_pneumonia, read_pneumonia_classes
from cxrlab.data.recognise import recognise
from cxrlab.errors import ConfigError, OutputError


@pytest.fixture(scope="module")
def pneumonia(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pneumonia_folder(tmp_path_factory.mktemp("drawn") / "chest_xray", num_patients=60, size=64)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "cell_images"
    return draw_cell_folder(folder, num_patients=20, num_cells=10, size=64)


def test_the_pneumonia_folder_is_read_and_keeps_its_parts_apart(pneumonia: Path):
    manifest = read_pneumonia(pneumonia)
    table = manifest.table
    parts = {part: table[table["split"] == part] for part in ("train", "test")}
    assert {part: rows["patient"].nunique() for part, rows in parts.items()} == {"train": 42, "test": 18}
    assert not shared_patients(parts["train"]["patient"], parts["test"]["patient"])
    # The numbers alone start again, as in the published set.
    bare = [set(rows["patient"].str.rpartition("/")[2]) for rows in parts.values()]
    assert len(bare[0] & bare[1]) == 18
    assert 0.45 < manifest.targets.mean() < 0.75
    assert set(table["covariate/cause"]) == {"", "bacteria", "virus"}
    assert table.groupby("patient").size().max() == 3


def test_the_pneumonia_folder_tells_the_cause(pneumonia: Path):
    manifest = read_pneumonia_classes(pneumonia, by_cause=True)
    assert manifest.labels == ["Normal", "Bacterial Pneumonia", "Viral Pneumonia"]
    assert (manifest.targets.sum(axis=0) > 5).all()
    assert (manifest.table.groupby("patient")["covariate/cause"].nunique() == 1).all()


def test_the_cells_are_read_and_their_patients_can_be_kept_apart(cells: Path):
    manifest = Split("grouped", val_fraction=0.2, test_fraction=0.2)(read_malaria(cells))
    patients = {part: manifest.part(part).table["patient"] for part in ("train", "val", "test")}
    assert sum(names.nunique() for names in patients.values()) == 20
    assert not shared_patients(patients["train"], patients["test"])
    by_patient = manifest.table.groupby("patient")["label/Parasitized"].agg(["mean", "size"])
    assert (by_patient["size"] == 10).all()
    assert (by_patient["mean"] == 0).sum() == 5  # the healthy
    assert 0.35 < manifest.targets.mean() < 0.55


def test_sizes_differ_and_the_same_seed_gives_the_same_files(cells: Path, pneumonia: Path, tmp_path: Path):
    for drawn, again in (
        (cells, draw_cell_folder(tmp_path / "cells", num_patients=20, num_cells=10, size=64)),
        (pneumonia, draw_pneumonia_folder(tmp_path / "xray", num_patients=60, size=64)),
    ):
        files = sorted(path for path in drawn.rglob("*.*") if path.is_file())
        assert all(path.read_bytes() == (again / path.relative_to(drawn)).read_bytes() for path in files)
        sizes = {_size(path) for path in files}
        assert len(sizes) > 20
        assert all(max(width, height) < 2 * min(width, height) for width, height in sizes)
    other = draw_cell_folder(tmp_path / "other", num_patients=20, num_cells=10, size=64, seed=1)
    assert {path.name for path in other.rglob("*.png")} != {path.name for path in cells.rglob("*.png")}


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _pixels(path: Path, mode: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert(mode).resize((64, 64)), dtype=float)


def _violet(path: Path) -> float:
    red, green, blue = np.moveaxis(_pixels(path, "RGB"), 2, 0)
    violet = (red + blue) / 2 - green
    cell = red + green + blue > 150
    return float(np.quantile(violet[cell], 0.99) - np.median(violet[cell]))


def _asymmetry(path: Path) -> float:
    grey = _pixels(path, "L")
    right, left = grey[16:36, 13:25].mean(), grey[16:36, 39:51].mean()
    return float(abs(right - left))


@pytest.mark.parametrize(
    ("folder", "measure", "positive"),
    [("cells", _violet, "Parasitized"), ("pneumonia", _asymmetry, "PNEUMONIA")],
)
def test_classes_differ_but_not_by_a_single_number(
    folder: str, measure: Callable[[Path], float], positive: str, request: pytest.FixtureRequest
):
    paths = [path for path in request.getfixturevalue(folder).rglob("*.*") if path.is_file()]
    auroc = roc_auc_score([path.parent.name == positive for path in paths], [measure(path) for path in paths])
    assert 0.6 < auroc < 0.97, auroc


@pytest.mark.parametrize("draw", [draw_cell_folder, draw_pneumonia_folder])
def test_a_folder_that_holds_something_is_left_alone(draw: Callable[..., Path], tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"is not empty.*name a new folder"):
        draw(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ConfigError, match="num_patients"):
        draw(tmp_path / "new", num_patients=1)


@pytest.mark.parametrize(("folder", "option"), [("cells", "malaria"), ("pneumonia", "pneumonia")])
def test_a_drawn_folder_is_recognised(folder: str, option: str, request: pytest.FixtureRequest):
    root = request.getfixturevalue(folder)
    assert option in {one.option for one in recognise(root, known_readers()) if one.root == root}


@pytest.mark.parametrize("draw", [draw_pneumonia_folder, draw_cell_folder])
@pytest.mark.parametrize("below", ["", "below"])
def test_a_file_in_the_place_of_the_folder_is_an_error(draw: Callable[..., Path], below: str, tmp_path: Path):
    file = tmp_path / "taken.txt"
    file.write_text("mine")
    with pytest.raises(OutputError, match=r"taken\.txt.* is a file, no folder to draw into"):
        draw(file / below)
    assert file.read_text() == "mine"
