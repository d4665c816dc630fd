from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrlab.data.boxes import framed
from cxrlab.data.dataset import FileImages, image_files, manifest_of
from cxrlab.data.decode import decode
from cxrlab.errors import ConfigError, DataError, MissingFileError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an image of an even grey, or of noise, and return its path."""

    def function(name: str, width: int = 8, height: int = 8, grey: int | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
        Image.fromarray(noise if grey is None else np.full_like(noise, grey)).save(path)
        return path

    return function


def read(paths: list[Path], image_size: int = 8, channels: int = 1, resize: str = "stretch") -> FileImages:
    return FileImages(paths, image_size=image_size, channels=channels, resize=resize)


def test_images_are_in_the_order_of_the_files(write: Write) -> None:
    paths = [write(f"{grey}.png", grey=grey) for grey in (30, 10, 20)]
    images = read(paths)
    pixels = images[[0, 1, 2]]
    assert (pixels.shape, pixels.dtype) == ((3, 1, 8, 8), np.uint8)
    assert pixels[:, 0, 0, 0].tolist() == [30, 10, 20]
    assert images[[2, 0, 2]][:, 0, 5, 5].tolist() == [20, 30, 20]
    assert images[np.array([1])].shape == (1, 1, 8, 8)
    assert images[[]].shape == (0, 1, 8, 8)


def test_what_is_done_to_the_images_given_out_does_not_stay(write: Write) -> None:
    images = read([write("a.png", grey=7)])
    images[[0]][:] = 0
    assert (images[[0]] == 7).all()


def test_a_file_may_be_named_twice(write: Write) -> None:
    path = write("a.png", grey=7)
    assert read([path, path])[[0, 1]].shape == (2, 1, 8, 8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
def test_images_are_decoded_as_those_of_a_data_set(write: Write, resize: str, channels: int) -> None:
    paths = [write("wide.png", width=24, height=10), write("tall.jpg", width=9, height=20)]
    images = read(paths, image_size=12, channels=channels, resize=resize)
    expected = [decode(path, image_size=12, channels=channels, resize=resize) for path in paths]
    np.testing.assert_array_equal(images[[0, 1]], np.stack(expected))
    assert images.resize == resize


def test_the_facts_are_the_sizes_of_the_files(write: Write) -> None:
    images = read([write("wide.png", width=24, height=10), write("tall.png", width=9, height=20)])
    assert images.facts.to_dict("list") == {"width": [24, 9], "height": [10, 20]}


def test_boxes_can_be_taken_to_the_frame_of_the_images(write: Write) -> None:
    # A white box in a wide image that padding makes square: it is where its fractions say.
    path = write("wide.png", width=64, height=32, grey=0)
    pixels = np.zeros((32, 64), dtype=np.uint8)
    pixels[8:24, 16:32] = 255
    Image.fromarray(pixels).save(path)
    manifest = manifest_of([path], ["Mass"])
    line = manifest.boxes.reindex([0]).assign(
        image=str(path), label="Mass", x=0.25, y=0.25, width=0.25, height=0.5
    )
    images = read([path], image_size=64, resize="pad")
    moved = framed(type(manifest)(manifest.root, manifest.table, line), images).boxes.iloc[0]
    left, top = round(64 * moved["x"]), round(64 * moved["y"])
    right, bottom = left + round(64 * moved["width"]), top + round(64 * moved["height"])
    expected = np.zeros((64, 64), dtype=bool)
    expected[top:bottom, left:right] = True
    np.testing.assert_array_equal(images[[0]][0, 0] > 127, expected)


def test_a_file_that_is_gone_is_named(write: Write, tmp_path: Path) -> None:
    paths = [write("a.png"), tmp_path / "gone.png"]
    with pytest.raises(MissingFileError, match=r"^There is no image .*gone\.png\.$"):
        read(paths)


def test_the_first_of_several_that_are_gone_is_named(write: Write, tmp_path: Path) -> None:
    gone = [tmp_path / f"gone{number}.png" for number in range(3)]
    with pytest.raises(MissingFileError, match=r"^There is no image .*gone0\.png and 2 others\.$"):
        read([write("a.png"), *gone])


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="There is no image"):
        read([tmp_path])


def test_a_file_that_is_no_image_is_named(write: Write, tmp_path: Path) -> None:
    notes = tmp_path / "notes.png"
    notes.write_text("no image")
    with pytest.raises(DataError, match=r"notes\.png \(8 bytes\) cannot be read"):
        read([write("a.png"), notes])


def test_an_unknown_rule_is_rejected(write: Write) -> None:
    with pytest.raises(ConfigError, match="squash"):
        read([write("a.png")], resize="squash")


def test_nothing_is_printed_where_tables_go(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    read([write("a.png")])
    assert capsys.readouterr().out == ""


def test_files_keep_their_order_and_are_listed_once(write: Write) -> None:
    first, second = write("b.png"), write("a.png")
    named = [str(first), str(second), str(first)]
    assert image_files(named) == [first, second]


def test_a_named_file_need_not_look_like_an_image(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "0001"
    path.write_bytes(write("a.png").read_bytes())
    assert image_files([str(path)]) == [path]


def test_a_folder_gives_the_images_below_it_sorted(write: Write, tmp_path: Path) -> None:
    names = ["z.PNG", "b.jpg", "a.jpeg", "deep/er/c.png"]
    paths = [write(f"mine/{name}") for name in names]
    for name in ("d.dcm", "e.dicom", "notes.txt", "table.csv"):
        (tmp_path / "mine" / name).write_bytes(b"")
    (tmp_path / "mine" / "folder.png").mkdir()
    found = image_files([str(tmp_path / "mine")])
    assert found == sorted(found)
    assert set(found) == {*paths, tmp_path / "mine" / "d.dcm", tmp_path / "mine" / "e.dicom"}


def test_files_and_folders_may_be_mixed(write: Write, tmp_path: Path) -> None:
    last, *inside = write("one.png"), write("mine/a.png"), write("mine/b.png")
    named = [str(inside[1]), str(tmp_path / "mine"), str(last)]
    assert image_files(named) == [inside[1], inside[0], last]


def test_a_tilde_is_the_home(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("home/a.png")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert image_files(["~/a.png"]) == [path]


def test_what_is_neither_file_nor_folder_is_named(write: Write, tmp_path: Path) -> None:
    with pytest.raises(
        MissingFileError, match=r"images names .*gone\.png: there is no such file or folder\."
    ):
        image_files([str(write("a.png")), str(tmp_path / "gone.png")])


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(
        MissingFileError, match=rf"images names {tmp_path}: there is no \.png, \.jpg, .* file in"
    ):
        image_files([str(tmp_path)])


def test_no_names_give_no_files() -> None:
    assert image_files([]) == []


def test_of_files_nothing_is_known_and_each_is_its_own_patient() -> None:
    paths = [Path("mine") / name for name in ("b.png", "a.png", "NA")]
    manifest = manifest_of(paths, ["Mass", "Edema"])
    names = [str(path) for path in paths]
    assert manifest.labels == ["Mass", "Edema"]
    assert manifest.table["image"].tolist() == manifest.table["patient"].tolist() == names
    assert manifest.targets.shape == (3, 2)
    assert np.isnan(manifest.targets).all()
    assert not len(manifest.boxes)
    assert manifest.unusable_boxes == ()
    assert manifest.name == "image files"


def test_the_paths_of_a_manifest_lead_to_the_files(write: Write) -> None:
    path = write("a.png")
    manifest = manifest_of([path], ["Mass"])
    assert manifest.root / manifest.table["image"][0] == path


def test_a_manifest_rejects_a_file_that_stands_twice(write: Write) -> None:
    path = write("a.png")
    with pytest.raises(DataError, match=r"a\.png"):
        manifest_of([path, path], ["Mass"])
