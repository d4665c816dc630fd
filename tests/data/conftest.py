"""Tiny seeded copies of the data sets, with their real folders, file names, headers and quirks."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NIH_HEADERS = {
    "v2020": "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]",
    "2017": "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],",
}
NIH_FINDINGS = ("No Finding", "Effusion", "Pleural_Thickening|Hernia", "Infiltration", "No Finding")


def write_image(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(path)


def nih_rows(edition: str, num_patients: int) -> list[str]:
    rows = []
    for patient in range(1, num_patients + 1):
        for visit in range(1 + patient % 3):
            finding = NIH_FINDINGS[(patient + visit) % len(NIH_FINDINGS)]
            age = f"{40 + visit:03d}Y" if edition == "2017" else f"{40 + visit}"
            view, sex = ("AP", "F") if patient % 2 else ("PA", "M")
            name = f"{patient:08d}_{visit:03d}.png"
            rows.append(f"{name},{finding},{visit},{patient},{age},{sex},{view},2500,2048,0.168,0.168")
    return [row + "," for row in rows] if edition == "2017" else rows


@pytest.fixture
def make_nih(tmp_path: Path) -> Callable[..., Path]:
    """Write ChestX-ray14 with 30 patients, 60 images; the last 10 patients are the official test part."""

    def make(*, edition: str = "v2020", gz: bool = False, numbered: bool = False, lists: bool = True) -> Path:
        root, rng = tmp_path / "nih", np.random.default_rng(0)
        rows = nih_rows(edition, 30)
        names = [row.split(",")[0] for row in rows]
        for index, name in enumerate(names):
            folder = f"images_{1 + index % 12:03d}/images" if numbered else "images"
            write_image(root / folder / name, rng)
        text = "\n".join([NIH_HEADERS[edition], *rows]) + "\n"
        table = root / ("Data_Entry_2017_v2020.csv" if edition == "v2020" else "Data_Entry_2017.csv")
        if gz:
            Path(f"{table}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            table.write_text(text)
        if lists:
            (root / "train_val_list.txt").write_text("\n".join(n for n in names if n < "00000021"))
            (root / "test_list.txt").write_text("\n".join(n for n in names if n >= "00000021"))
        (root / "BBox_List_2017.csv").write_text(
            "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
            "00000025_000.png,Infiltrate,256.0,512.0,128.0,64.0,,,\n"
            "00000026_000.png,Effusion,0.0,0.0,1024.0,102.4,,,\n"
            "00099999_000.png,Mass,1.0,1.0,1.0,1.0,,,\n"
        )
        return root

    return make


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., Path]:
    """Write so many different images of 48 x 48 pixels into a folder: 000.png, 001.png …."""

    def make(count: int, *, name: str = "images") -> Path:
        rng = np.random.default_rng(count)
        root = tmp_path / name
        root.mkdir()
        for number in range(count):
            pixels = rng.integers(0, 256, (48, 48), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"{number:03d}.png")
        return root

    return make


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[..., Path]:
    """Write images at the paths given, below a folder."""

    def make(*paths: str, root: str = "tree") -> Path:
        rng = np.random.default_rng(0)
        for path in paths:
            write_image(tmp_path / root / path, rng)
        return tmp_path / root

    return make


@pytest.fixture
def pneumonia_root(make_tree: Callable[..., Path]) -> Path:
    return make_tree(
        "train/NORMAL/IM-0131-0001.jpeg",
        "train/NORMAL/IM-0666-0001-0002.jpeg",
        "train/NORMAL/NORMAL2-IM-0479-0001.jpeg",
        "train/NORMAL/NORMAL2-IM-0479-0001-0002.jpeg",
        "train/PNEUMONIA/person1_bacteria_1.jpeg",
        "train/PNEUMONIA/person1_bacteria_2.jpeg",
        "train/PNEUMONIA/person1037_virus_1714_2.jpeg",
        "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
        "val/PNEUMONIA/person1946_bacteria_4874.jpeg",
        "test/NORMAL/IM-0131-0001.jpeg",
        "test/PNEUMONIA/person1_virus_6.jpeg",
        root="chest_xray",
    )
