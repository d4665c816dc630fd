"""docs/reference/datasets.md: every data set has a row, and the examples of one's own read what they say."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from cxrlab.cli import config
from cxrlab.cli.datasets import known_readers
from cxrlab.data.manifest import Manifest

Compose = Callable[..., DictConfig]

PAGE = config.config_dir().parent / "docs" / "reference" / "datasets.md"


@pytest.fixture(scope="module")
def text() -> str:
    if not PAGE.is_file():
        pytest.skip("docs is not part of an installed package")
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture
def read(text: str, composed: Compose, tmp_path: Path) -> Callable[[int], Manifest]:
    """Read the drawn folder by the example of a number, put together with data=table as --config-dir does."""

    def function(number: int) -> Manifest:
        example = OmegaConf.create(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[number])
        del example["defaults"]
        cfg = composed("data=table", f"data.root={tmp_path}", config_name="prepare")
        merged = OmegaConf.merge(cfg.data, example)
        manifest: Manifest = config.build(merged.reader)(tmp_path)
        return manifest

    return function


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((100, 200), dtype=np.uint8)).save(path, format="PNG")


def test_every_data_set_has_a_row(text: str):
    rows = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == set(known_readers()) - {"folder", "table", "synthetic"}


def test_the_sheet_with_words(read: Callable[[int], Manifest], tmp_path: Path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    rows = [["a.png", 7, "Effusion; Mass", "A"], ["b.png", 7, "normal", "B"], ["c.png", 8, "poor image", "A"]]
    for row in [["file", "MRN", "reading", "site"], *rows]:
        book.active.append(row)
    book.save(tmp_path / "scans.xlsx")
    for name in ("2019/a.png", "2020/b.png", "2020/c.png"):
        image(tmp_path / "png" / name)
    manifest = read(0)
    assert manifest.table["image"].tolist() == ["png/2019/a.png", "png/2020/b.png", "png/2020/c.png"]
    assert manifest.table["patient"].tolist() == ["7", "7", "8"]
    assert np.array_equal(manifest.targets, [[1, 1], [0, 0], [np.nan, np.nan]], equal_nan=True)


def test_the_three_tables_with_two_readers(read: Callable[[int], Manifest], tmp_path: Path):
    (tmp_path / "studies.csv").write_text("study,patient,age\ns1,P1,071Y\ns2,P2,18\n")
    (tmp_path / "images.csv").write_text("study,uid\ns1,ab12\ns2,cd34\n")
    readings = ["uid,reader,Edema,Effusion", "ab12,R1,1,0", "ab12,R2,1,1", "cd34,R1,0,0", "cd34,R2,0,0"]
    (tmp_path / "readings.csv").write_text("\n".join(readings))
    for name in ("ab/ab12.dcm", "cd/cd34.dcm"):
        image(tmp_path / "dicom" / name)
    manifest = read(1)
    assert manifest.table["image"].tolist() == ["dicom/ab/ab12.dcm", "dicom/cd/cd34.dcm"]
    assert manifest.table["covariate/age"].tolist() == [71, 18]
    assert manifest.targets.tolist() == [[1, 0], [0, 0]]


def test_the_names_that_tell_everything(read: Callable[[int], Manifest], tmp_path: Path):
    for name in ("P017_2_tb.png", "P017_1_normal.png", "P018_1_normal.png"):
        image(tmp_path / "images" / name)
    boxes = [{"image": "images/P017_2_tb.png", "x": 20, "y": 10, "width": 100, "height": 50}]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    manifest = read(2)
    assert manifest.labels == ["Tuberculosis"]
    assert manifest.table["patient"].tolist() == ["P017", "P017", "P018"]
    assert manifest.boxes.iloc[0].tolist() == ["images/P017_2_tb.png", "Tuberculosis", 0.1, 0.1, 0.5, 0.5]
    assert manifest.published is not None
    assert manifest.published.kind == "part_of_published"
