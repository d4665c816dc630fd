"""docs/start/own_folder.md and docs/howto/dicom.md: what they show is what happens."""

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import DictConfig
from PIL import Image

from cxrlab.data.phantom.patients import sample
from cxrlab.data.phantom.render import draw
from cxrlab.errors import DataError
from cxrlab.prepare import prepare

DOCS = Path(__file__).parents[1] / "docs"
NAMES = ("P{}_{}.png", "P{} chest PA ({}).PNG", "p{}-{}.jpg", "P{}_{}.jpeg")


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Radiographs in two folders, named as people do, with what lies about beside them."""
    root = tmp_path_factory.mktemp("own") / "mine"
    radiographs = sample(num_patients=24, seed=5)
    for number, radiograph in enumerate(radiographs):
        folder = root / ("Effusion" if "Effusion" in radiograph.findings else "normal")
        folder.mkdir(parents=True, exist_ok=True)
        pixels, _ = draw(radiograph.anatomy, radiograph.exposure, radiograph.findings, size=64)
        name = NAMES[number % len(NAMES)].format(f"{radiograph.patient:03d}", radiograph.number)
        Image.fromarray(pixels).save(folder / name)
    first, second = sorted((root / "normal").glob("*.png"))[:2]
    shutil.copy(first, root / "Effusion" / "Copy of image 7.png")
    shutil.copy(second, root / "normal" / "P999_1.png")
    (root / "normal" / "P200_1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    (root / "Effusion" / "P201_1.jpg").touch()
    for name in ("normal/Thumbs.db", "normal/.DS_Store", "notes.txt"):
        (root / name).write_text("x")
    (root / "masks").mkdir()
    shutil.copy(first, root / "masks" / "m.png")
    return root


def without_numbers(text: str) -> str:
    """Return messages without their numbers, in which one and several look alike."""
    return re.sub(r"\d+ (\w+?)s?\b", r"# \1", " ".join(text.split()))


@pytest.mark.slow
def test_the_walk_through_your_own_folder(
    mine: Path, composed: Callable[..., DictConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    page = (DOCS / "start" / "own_folder.md").read_text().replace("\\\n  ", "")
    caplog.set_level(logging.INFO, logger="cxrlab")
    runs = iter(range(9))

    def run(*options: str, root: Path = mine) -> None:
        settings = [
            "data.num_workers=0",
            "data.image_size=64",
            "images=false",
            f"run_dir={tmp_path}/{next(runs)}",
        ]
        prepare(composed(*options, f"data.root={root}", *settings, config_name="prepare"))

    cfg = composed("data=auto", f"data.root={mine}", f"run_dir={tmp_path}/auto", config_name="prepare")
    assert prepare(cfg) is None
    proposed = re.search(r"'(data\.reader\.patient_pattern=.*?)':", caplog.messages[-1])
    assert proposed
    assert f"cxrlab prepare data=folder data.root=/data/mine '{proposed[1]}'" in page

    run("data=folder")
    with pytest.raises(DataError, match=r"does not match 1 of \d+ file names.*Copy of image 7\.png"):
        run("data=folder", proposed[1])
    (mine / "Effusion" / "Copy of image 7.png").unlink()
    run("data=folder", proposed[1])

    (tmp_path / "sheet").mkdir()
    shutil.copytree(mine, tmp_path / "sheet" / "pictures")
    images = [path.relative_to(mine).as_posix() for path in sorted((mine / "normal").glob("P0*"))[:20]]
    rows = [[image, f"P{n // 2}", n % 2] for n, image in enumerate(images)]
    pd.DataFrame(rows, columns=["file", "MRN", "effusion"]).to_csv(
        tmp_path / "sheet" / "sheet.csv", index=False
    )
    table = ["data=table", "data.reader.image_column=file", "data.reader.image_folder=pictures"]
    run(*table, "data.reader.patient_column=MRN", root=tmp_path / "sheet")

    audit = page[page.index("| message | what it was") : page.index("`audit.html` shows")]
    quoted = re.findall(r"^\| `([^`…;]+)", audit, flags=re.MULTILINE)
    assert len(quoted) == 9
    for message in quoted:
        if "differ in" not in message:  # which sexes are where is chance
            assert without_numbers(message) in without_numbers(caplog.text), message


def test_python_of_the_page_on_dicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("gdcm")
    pydicom = pytest.importorskip("pydicom")
    shutil.copy(pydicom.data.get_testdata_file("CT_small.dcm"), tmp_path / "image.dcm")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "howto" / "dicom.md").read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(block, names)
    assert (names["image"].pixels.shape, names["image"].mode) == ((128, 128), "MONOCHROME2")
    assert "modality CT" in names["image"].warning
