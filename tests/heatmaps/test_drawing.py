import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from cxrlab.data.manifest import Manifest
from cxrlab.errors import DataError, OutputError
from cxrlab.heatmaps.cases import Case, case_table
from cxrlab.heatmaps.drawing import Box, Drawn, draw_panels, num_sides, panel, write_gallery

STRIP, GAP = 26, 4


def grey(size: int = 256, channels: int = 1) -> Tensor:
    return torch.full((channels, size, size), 120, dtype=torch.uint8)


def draw(
    image: Tensor,
    heatmap: Tensor | dict[str, Tensor],
    *,
    finding: str = "Edema",
    probability: float = 0.25,
    target: float = 1.0,
    boxes: tuple[Box, ...] = (),
) -> Image.Image:
    heatmaps = heatmap if isinstance(heatmap, dict) else {"Grad-CAM": heatmap}
    return panel(image, heatmaps, finding=finding, probability=probability, target=target, boxes=boxes)


def sides(picture: Image.Image) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    pixels = np.asarray(picture)[STRIP:]
    width = (pixels.shape[1] - GAP) // 2
    return pixels[:, :width], pixels[:, width + GAP :]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "shown"), [(64, 256), (256, 256), (300, 300)])
def test_a_small_radiograph_is_enlarged(channels: int, size: int, shown: int) -> None:
    picture = draw(grey(size, channels), torch.zeros(size, size))
    assert picture.mode == "RGB"
    assert picture.size == (2 * shown + GAP, shown + STRIP)
    left, right = sides(picture)
    assert (left == 120).all()
    assert (right == 120).all()


def test_cold_areas_show_the_radiograph_and_hot_ones_the_colour() -> None:
    heatmap = torch.linspace(0, 1, 256).expand(256, 256)
    left, right = sides(draw(grey(), heatmap))
    assert (left == 120).all()
    change = np.abs(right[128].astype(int) - 120).max(axis=-1)
    assert change[:5].max() <= 3
    assert change[-5:].min() > 80
    assert np.median(change[:64]) < np.median(change[64:128]) < np.median(change[192:])


def test_a_coarse_heatmap_is_stretched() -> None:
    heatmap = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    _, right = sides(draw(grey(64), heatmap))
    assert (right[:40, :40] == 120).all()
    assert right[-1, -1].tolist() != [120, 120, 120]


def test_a_box_is_outlined_on_both_sides() -> None:
    for side in sides(draw(grey(), torch.zeros(256, 256), boxes=((0.25, 0.5, 0.25, 0.25),))):
        marked = (side != 120).any(axis=-1)
        rows, columns = np.nonzero(marked)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (128, 192, 64, 128)
        assert not marked[140, 80]


def test_a_box_at_the_border_stays_visible() -> None:
    left, _ = sides(draw(grey(), torch.zeros(256, 256), boxes=((0.5, 0.5, 0.5, 0.5),)))
    assert (left[200, 255] != 120).any()
    assert (left[255, 200] != 120).any()


def test_the_strip_says_finding_probability_and_target() -> None:
    def strip(finding: str = "Edema", probability: float = 0.25, target: float = 1.0) -> bytes:
        picture = draw(grey(), torch.zeros(2, 2), finding=finding, probability=probability, target=target)
        return picture.crop((0, 0, 516, STRIP)).tobytes()

    strips = {strip(target=1.0), strip(target=0.0), strip(target=math.nan)}
    strips |= {strip(probability=0.26), strip(finding="Mass")}
    assert len(strips) == 5
    assert strip(probability=0.251) == strip(probability=0.249)  # two decimals


@pytest.mark.parametrize("finding", ["A name that is longer than the picture is wide " * 3, "", "结核"])
def test_any_name_fits(finding: str) -> None:
    picture = draw(grey(), torch.zeros(2, 2), finding=finding)
    number = np.asarray(picture)[:STRIP, -200:]
    plain = np.asarray(draw(grey(), torch.zeros(2, 2), finding=""))[:STRIP, -200:]
    assert (number == plain).all()


def test_an_empty_map_is_called_so() -> None:
    empty, cold = torch.zeros(2, 2), torch.full((2, 2), 1e-6)
    strips = [draw(grey(), heatmap).crop((0, 0, 516, STRIP)).tobytes() for heatmap in (empty, cold)]
    assert strips[0] != strips[1]


def test_several_methods_stand_side_by_side_under_their_names() -> None:
    hot, cold = torch.ones(4, 4), torch.zeros(4, 4)
    picture = draw(grey(), {"Grad-CAM": hot, "Occlusion": cold}, boxes=((0.25, 0.5, 0.25, 0.25),))
    assert picture.size == (3 * 256 + 2 * GAP, 256 + 2 * STRIP)
    pixels = np.asarray(picture)
    columns = [pixels[2 * STRIP :, start : start + 256] for start in (0, 256 + GAP, 2 * (256 + GAP))]
    assert columns[0][0, 0].tolist() == [120, 120, 120]
    assert columns[1][0, 0].tolist() != [120, 120, 120]
    assert columns[2][0, 0].tolist() == [120, 120, 120]
    for column in columns:
        assert column[128, 80].tolist() == [0, 255, 255]  # the box, on every side
    names = pixels[STRIP : 2 * STRIP]
    for start in (0, 256 + GAP, 2 * (256 + GAP)):
        assert (names[:, start : start + 256] > 128).any()


def test_the_name_of_a_method_says_whether_its_map_is_empty() -> None:
    def names(heatmaps: dict[str, Tensor]) -> list[bytes]:
        strip = draw(grey(), heatmaps).crop((0, STRIP, 3 * 256 + 2 * GAP, 2 * STRIP))
        return [strip.crop((start, 0, start + 256, STRIP)).tobytes() for start in (260, 520)]

    hot, empty = torch.ones(2, 2), torch.zeros(2, 2)
    both, second = names({"A": hot, "B": hot}), names({"A": hot, "B": empty})
    assert both[0] == second[0]
    assert both[1] != second[1]
    captions = [
        draw(grey(), {"A": hot, "B": heatmap}).crop((0, 0, 3 * 256 + 2 * GAP, STRIP)).tobytes()
        for heatmap in (hot, empty)
    ]
    assert captions[0] == captions[1]  # which says nothing of a map where there are several


def test_a_name_longer_than_a_side_is_cut() -> None:
    hot = torch.ones(2, 2)
    long = draw(grey(), {"a very long name of a method " * 5: hot, "B": hot})
    plain = draw(grey(), {"A": hot, "B": hot})
    assert long.size == plain.size
    strips = [np.asarray(picture)[STRIP : 2 * STRIP] for picture in (long, plain)]
    start = 2 * (256 + GAP)
    assert (strips[0][:, start - GAP :] == strips[1][:, start - GAP :]).all()
    assert (strips[0][:, : 256 + GAP] == strips[1][:, : 256 + GAP]).all()
    assert (strips[0][:, 400 : start - GAP] > 128).any()  # as much of it as there is room for


@pytest.mark.parametrize("size", [64, 256, 320, 512])
@pytest.mark.parametrize("num_methods", [1, 2, 3, 4, 5, 8])
def test_the_sides_of_a_panel_are_counted(num_methods: int, size: int) -> None:
    heatmaps = {str(number): torch.zeros(2, 2) for number in range(num_methods)}
    assert num_sides(draw(grey(size), heatmaps)) == num_methods + 1


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
