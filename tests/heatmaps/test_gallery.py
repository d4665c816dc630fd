import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from cxrlab.data.manifest import Manifest
from cxrlab.errors import DataError, OutputError
from cxrlab.heatmaps.cases import Case, case_table
from cxrlab.heatmaps.drawing import Drawn, draw_panels, write_gallery

LABELS = ["Edema", "Lung/Opacity 结节"]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    table = pd.DataFrame({"image": ["a/0.png", "1.png", "2.png"], "patient": ["p", "q", "r"], "split": ""})
    table = table.assign(**{f"label/{name}": 1.0 for name in LABELS})
    boxes = pd.DataFrame(
        [("1.png", "Edema", 0.5, 0.5, 0.25, 0.25)], columns=["image", "label", "x", "y", "width", "height"]
    )
    return Manifest(tmp_path, table, boxes)


@pytest.fixture
def cases() -> pd.DataFrame:
    probabilities = np.array([[0.9, 0.2], [0.8, 0.3], [0.7, 0.4]], dtype=np.float32)
    return case_table(np.arange(3), probabilities, np.ones((3, 2), dtype=np.float32), LABELS)


def read_image(row: int) -> Tensor:
    return torch.full((1, 32, 32), 50 * row, dtype=torch.uint8)


def no_heat(images: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    assert len(images) <= 2
    return torch.zeros(len(pairs), 32, 32)


def drawn(case: Case, picture: Image.Image) -> Drawn:
    return Drawn(case, picture, {})


def test_every_case_has_its_own_image_and_box(manifest: Manifest, cases: pd.DataFrame) -> None:
    panels = list(
        draw_panels(cases, manifest, read_image=read_image, explain={"Grad-CAM": no_heat}, num_images=2)
    )
    assert [(case.row, case.label) for case, _, _ in panels] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]
    for case, picture, _ in panels:
        pixels = np.asarray(picture)[26:, :256]
        assert pixels[0, 0].tolist() == [50 * case.row] * 3
        assert (pixels != 50 * case.row).any() == (case.row == 1 and case.finding == "Edema")


def test_an_image_that_cannot_be_read_is_left_out_and_named(
    manifest: Manifest, cases: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    def read(row: int) -> Tensor:
        if row == 1:
            raise DataError("The image 1.png (3 bytes) cannot be read: cut short.")
        return read_image(row)

    with caplog.at_level(logging.WARNING):
        panels = list(
            draw_panels(cases, manifest, read_image=read, explain={"Grad-CAM": no_heat}, num_images=2)
        )
    assert [case.row for case, _, _ in panels] == [0, 0, 2, 2]
    assert "No heatmap of Edema, Lung/Opacity 结节: The image 1.png (3 bytes) cannot be read" in caplog.text


def test_each_method_gets_the_images_of_its_cases_once(manifest: Manifest, cases: pd.DataFrame) -> None:
    explained: list[tuple[int, int]] = []

    def bright(images: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
        assert len(images) == len({image for image, _ in pairs})
        explained.append((len(images), len(pairs)))
        return torch.stack([images[image, 0].float() / 255 + label / 10 for image, label in pairs])

    explain = {"Grad-CAM": no_heat, "Occlusion": bright}
    panels = list(draw_panels(cases, manifest, read_image=read_image, explain=explain, num_images=2))
    assert explained == [(2, 4), (1, 2)]
    assert len(panels) == 6
    for case, picture, heatmaps in panels:
        assert list(heatmaps) == ["Grad-CAM", "Occlusion"]
        assert not heatmaps["Grad-CAM"].any()
        assert picture.width == 3 * 256 + 2 * 4
        assert heatmaps["Occlusion"][0, 0].item() == pytest.approx(50 * case.row / 255 + case.label / 10)


def test_the_gallery_has_safe_names_and_an_index(
    manifest: Manifest, cases: pd.DataFrame, tmp_path: Path
) -> None:
    panels = draw_panels(cases, manifest, read_image=read_image, explain={"Grad-CAM": no_heat}, num_images=2)
    folder = tmp_path / "new" / "gallery"
    write_gallery(folder, panels, manifest)
    index = pd.read_csv(folder / "index.csv")
    assert list(index.columns) == ["file", "image", "finding", "probability", "target", "outcome"]
    assert index["file"].tolist()[:2] == ["Edema_0_TP.png", "Lung_Opacity_结节_0_FN.png"]
    assert index["finding"].tolist() == LABELS * 3
    assert index["image"].tolist() == ["a/0.png"] * 2 + ["1.png"] * 2 + ["2.png"] * 2
    assert index["probability"].tolist() == pytest.approx([0.9, 0.2, 0.8, 0.3, 0.7, 0.4])
    assert {path.name for path in folder.iterdir()} == {*index["file"], "index.csv"}
    with Image.open(folder / "Edema_0_TP.png") as picture:
        assert picture.size == (516, 282)


def test_findings_of_like_names_have_files_of_their_own(manifest: Manifest, tmp_path: Path) -> None:
    findings = ["Lung/Opacity", "Lung Opacity", "lung_opacity", "x" * 90, "x" * 91]
    picture = Image.new("RGB", (4, 4))
    panels = [
        drawn(Case(0, place, finding, 0.5, 1.0, "TP"), picture)
        for place, finding in enumerate([*findings, findings[0]])
    ]
    write_gallery(tmp_path, panels[:5], manifest)
    index = pd.read_csv(tmp_path / "index.csv")
    assert index["finding"].tolist() == findings
    assert len({name.casefold() for name in index["file"]}) == 5
    assert {path.name for path in tmp_path.glob("*.png")} == set(index["file"])
    assert index["file"][0] == "Lung_Opacity_0_TP.png"
    write_gallery(tmp_path, panels[:1], manifest)
    assert [path.name for path in tmp_path.glob("*.png")] == ["Lung_Opacity_0_TP.png"]


def test_a_second_gallery_replaces_the_first_and_nothing_else(manifest: Manifest, tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 4))
    first = Case(0, 0, "Edema", 0.9, 1.0, "TP")
    write_gallery(tmp_path, [drawn(first, picture)], manifest)
    for name in ("mine.png", "Edema_7_unknown.png"):
        (tmp_path / name).touch()
    write_gallery(tmp_path, [drawn(first._replace(probability=0.1, outcome="FN"), picture)], manifest)
    assert {path.name for path in tmp_path.iterdir()} == {"Edema_0_FN.png", "index.csv", "mine.png"}


def test_a_folder_that_cannot_be_written_to_is_named(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"could not be written to .*file.*callbacks\.heatmaps=null"):
        write_gallery(tmp_path / "file" / "gallery", [], manifest)


def test_a_full_disk_is_an_output_error(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    panels = [drawn(Case(0, 0, "Edema", 0.9, 1.0, "TP"), Image.new("RGB", (4, 4)))]
    with pytest.raises(OutputError, match="No space left on device"):
        write_gallery(tmp_path, panels, manifest)
