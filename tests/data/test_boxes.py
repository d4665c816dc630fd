import gzip
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

from cxrlab.data.boxes import framed, read_boxes
from cxrlab.data.dataset import FileImages
from cxrlab.data.manifest import BOX_COLUMNS, Manifest
from cxrlab.errors import DataError, MissingFileError

Line = tuple[str, str, float, float, float, float]

HEADER = ",".join(BOX_COLUMNS)


def manifest(images: Sequence[str], lines: Sequence[Line] = ()) -> Manifest:
    """Images, each of a patient of its own, with the labels Mass, Edema and NA, and boxes."""
    table = pd.DataFrame({"image": images, "patient": images, "split": ""})
    for name in ("Mass", "Edema", "NA"):
        table[f"label/{name}"] = 1.0
    return Manifest(Path("/data"), table, pd.DataFrame(lines, columns=list(BOX_COLUMNS)))


def written(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "boxes.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_the_boxes_of_a_table_take_the_place_of_the_manifest_s(tmp_path: Path) -> None:
    given = manifest(["b/1.png", "b/2.png"], [("b/1.png", "Edema", 0.1, 0.1, 0.1, 0.1)])
    path = written(tmp_path, "b/2.png,Mass,0.25,0.5,0.5,0.25", "b/1.png,Mass,0,0,1,1")
    found = read_boxes(path, given)
    assert list(found.boxes) == list(BOX_COLUMNS)
    assert found.boxes.to_numpy().tolist() == [
        ["b/2.png", "Mass", 0.25, 0.5, 0.5, 0.25],
        ["b/1.png", "Mass", 0, 0, 1, 1],
    ]
    assert found.unusable_boxes == ()
    pd.testing.assert_frame_equal(found.table, given.table)
    assert given.boxes["label"].tolist() == ["Edema"]


def test_columns_may_stand_in_any_order_among_others(tmp_path: Path) -> None:
    path = written(tmp_path, "4,Mass,reader A,0.1,0.2,0.3,a.png", header="height,label,who,x,y,width,image")
    with pytest.raises(DataError, match="None of the 1 boxes|No box of"):
        read_boxes(path, manifest(["a.png"]))
    path.write_text(path.read_text().replace("4,Mass", "0.4,Mass"))
    found = read_boxes(path, manifest(["a.png"])).boxes
    assert list(found) == list(BOX_COLUMNS)
    assert found.iloc[0].tolist() == ["a.png", "Mass", 0.1, 0.2, 0.3, 0.4]


def test_an_image_goes_by_its_path_or_by_its_bare_name_where_no_other_has_it(tmp_path: Path) -> None:
    images = ["1.png", "b/1.png", "b/2.png", "b/c/3.png", "4.png"]
    names = ["1.png", "b/1.png", "2.png", "3.png", "b/c/3.png", "4.png", "c/3.png"]
    path = written(tmp_path, *(f"{name},Mass,0.1,0.1,0.2,0.2" for name in names))
    found = read_boxes(path, manifest(images))
    # "1.png" is a path itself; "c/3.png" is neither a path under the root nor a bare name.
    assert found.boxes["image"].tolist() == [
        "1.png", "b/1.png", "b/2.png", "b/c/3.png", "b/c/3.png", "4.png"
    ]  # fmt: skip
    assert found.unusable_boxes == ("Mass in c/3.png is of an image or label that is not at hand",)


def test_a_bare_name_that_two_images_have_is_none_of_them(tmp_path: Path) -> None:
    path = written(tmp_path, "1.png,Mass,0.1,0.1,0.2,0.2", "2.png,Mass,0.1,0.1,0.2,0.2")
    found = read_boxes(path, manifest(["a/1.png", "b/1.png", "b/2.png"]))
    assert found.boxes["image"].tolist() == ["b/2.png"]
    assert found.unusable_boxes == ("Mass in 1.png is of an image or label that is not at hand",)


def test_names_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    path = written(
        tmp_path, "0012,Mass,0.1,0.1,0.2,0.2", "1e3,NA,0.1,0.1,0.2,0.2", "nan,Mass,0.1,0.1,0.2,0.2"
    )
    found = read_boxes(path, manifest(["0012", "1e3", "nan"]))
    assert found.boxes["image"].tolist() == ["0012", "1e3", "nan"]
    assert found.boxes["label"].tolist() == ["Mass", "NA", "Mass"]


def test_boxes_that_cannot_be_used_are_left_out_and_told(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "a.png,Mass,0.1,0.2,0.3,0.4",
        "a.png,Edema,100,200,30,40",
        "b.png,Mass,0.1,0.2,0,0.4",
        "b.png,Mass,,0.2,0.3,0.4",
        "b.png,Edema,left,0.2,0.3,0.4",
        "b.png,Edema,0.5,0.2,0.3,0.4",
        "c.png,Edema,0.5,0.2,0.3,0.4",
        "b.png,Cold,7,7,7,7",
    )
    found = read_boxes(path, manifest(["a.png", "b.png"]))
    assert found.boxes[["image", "label"]].to_numpy().tolist() == [["a.png", "Mass"], ["b.png", "Edema"]]
    assert found.boxes.index.tolist() == [0, 1]
    assert (found.boxes.dtypes[list(BOX_COLUMNS[2:])] == np.float64).all()
    assert found.unusable_boxes == (
        "Edema in a.png lies outside the image (x=100, y=200, width=30, height=40)",
        "Mass in b.png has no area (x=0.1, y=0.2, width=0, height=0.4)",
        "Mass in b.png has no place (x=nan, y=0.2, width=0.3, height=0.4)",
        "Edema in b.png has no place (x=nan, y=0.2, width=0.3, height=0.4)",
        "Edema in c.png is of an image or label that is not at hand",
        "Cold in b.png is of an image or label that is not at hand",
    )


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(MissingFileError, match=f"There is no table of boxes {path}"):
            read_boxes(path, manifest(["a.png"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"The table .*boxes\.csv cannot be read: it is empty"),
        (b"\xff\xfe\x00\x01\x02", r"The table .* cannot be read: it is damaged UTF-16"),
        (b"image,label\na.png,Mass\nb.png,Mass,1,2,3\n", "Line 3 of .* has 5 cells where the header has 2"),
        (b"image,label,x,y\na.png,Mass,0,0\n", r"lack the columns \['width', 'height'\]; they have \['image',"),
        (
            b"image,label,x,y,width,height\na.png,Cold,0,0,1,1\nc.png,Mass,0,0,1,1\n",
            r"None of the 2 boxes of .*boxes\.csv is of an image and a label at hand: its labels are "
            r"\['Cold', 'Mass'\], those of the data \['Mass', 'Edema', 'NA'\]",
        ),
        (b"image,label,x,y,width,height\n", "None of the 0 boxes of .*"),
        (
            b"image,label,x,y,width,height\na.png,Mass,10,20,30,40\na.png,Mass,50,60,70,80\n",
            r"No box of .*boxes\.csv can be used, for instance Mass in a\.png has no place .*taken as pixels",
        ),
    ],
)  # fmt: skip
def test_a_table_of_no_use_is_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "boxes.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_boxes(path, manifest(["a.png"]))


RSNA = ("patientId,x,y,width,height,Target", "a,,,,,0", "b,20,10,40,20,1", "b,100,10,40,20,1")
VINDR = ("image_id,class_name,rad_id,x_min,y_min,x_max,y_max", "a,No finding,R1,,,,", "b,Mass,R2,20,10,60,30")
NIH = ("Image Index,Finding Label,Bbox [x,y,w,h],,,", "b.png,Mass,20,10,40,20,,,")


@pytest.mark.parametrize("lines", [RSNA, VINDR, NIH])
def test_the_tables_of_public_sets_are_read_in_pixels(tmp_path: Path, lines: Sequence[str]) -> None:
    for name in ("a", "b"):
        Image.new("L", (200, 100)).save(tmp_path / f"{name}.png")
    given = replace(manifest(["a.png", "b.png"]).select_labels(["Mass"]), root=tmp_path)
    found = read_boxes(written(tmp_path, *lines[1:], header=lines[0]), given)
    assert found.boxes.iloc[0].tolist() == ["b.png", "Mass", 0.1, 0.1, 0.2, 0.2]
    assert not any("a.png" in text for text in found.unusable_boxes)


def test_boxes_in_a_packed_table(tmp_path: Path) -> None:
    path = written(tmp_path, "a.png;Mass;0.1;0.2;0.3;0.4", header=HEADER.replace(",", ";"))
    path.with_name("boxes.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert read_boxes(path, manifest(["a.png"])).boxes["x"].tolist() == [0.1]


@dataclass
class SizedImages:
    """Images of which only the sizes of their files are known."""

    resize: str
    sizes: list[tuple[int, int]]

    @property
    def facts(self) -> pd.DataFrame:
        return pd.DataFrame(self.sizes, columns=["width", "height"])

    def __getitem__(self, rows: list[int], /) -> npt.NDArray[np.uint8]:
        raise NotImplementedError


def test_stretched_images_leave_the_boxes_as_they_are() -> None:
    given = manifest(["a.png"], [("a.png", "Mass", 0.1, 0.2, 0.3, 0.4)])
    assert framed(given, SizedImages("stretch", [(200, 100)])) is given
    none = manifest(["a.png"])
    assert framed(none, SizedImages("crop", [(200, 100)])) is none


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
@pytest.mark.parametrize(("width", "height"), [(320, 200), (200, 320), (256, 256), (301, 299)])
def test_a_box_lies_where_its_finding_is_in_the_decoded_image(
    tmp_path: Path, resize: str, width: int, height: int
) -> None:
    # In pixels: one finding in the middle, one that a crop cuts, one in the corner, most of which may be lost.
    places = {
        "middle.png": (width // 2 - 20, height // 2 - 30, 50, 40),
        "edge.png": (width // 2 - 60, height // 2 - 60, width // 2 + 50, height // 2 + 50),
        "corner.png": (width - 90, height - 70, 90, 70),
    }
    lines: list[Line] = []
    for name, (x, y, wide, high) in places.items():
        pixels = np.zeros((height, width), dtype=np.uint8)
        pixels[y : y + high, x : x + wide] = 255
        Image.fromarray(pixels).save(tmp_path / name)
        lines.append((name, "Mass", x / width, y / height, wide / width, high / height))
    paths = [tmp_path / name for name in places]
    images = FileImages(paths, image_size=100, channels=1, resize=resize)

    boxes = framed(manifest(list(places), lines), images).boxes

    assert boxes["image"].tolist() == list(places)
    for row, box in enumerate(boxes[["x", "y", "width", "height"]].to_numpy(float)):
        is_bright = images[[row]][0, 0] > 127
        for start, length, axis in ((box[0], box[2], 0), (box[1], box[3], 1)):
            bright = np.flatnonzero(is_bright.any(axis=axis))
            # Padding starts at a whole pixel, which may be half a pixel off, and an edge is bright from half on.
            assert 100 * start == pytest.approx(bright[0], abs=1.5)
            assert 100 * (start + length) == pytest.approx(bright[-1] + 1, abs=1.5)


def test_every_image_has_its_own_frame_and_its_boxes_keep_their_order() -> None:
    lines: list[Line] = [
        ("b.png", "Mass", 0.0, 0.0, 1.0, 1.0),
        ("a.png", "Edema", 0.5, 0.5, 0.25, 0.5),
        ("c.png", "Mass", 0.25, 0.0, 0.5, 0.125),
        ("b.png", "Edema", 0.5, 0.25, 0.5, 0.5),
    ]
    images = SizedImages("pad", [(200, 100), (100, 400), (300, 300)])
    boxes = framed(manifest(["a.png", "b.png", "c.png"], lines), images).boxes
    assert boxes.to_numpy().tolist() == [
        ["b.png", "Mass", 0.375, 0.0, 0.25, 1.0],
        ["a.png", "Edema", 0.5, 0.5, 0.25, 0.25],
        ["c.png", "Mass", 0.25, 0.0, 0.5, 0.125],
        ["b.png", "Edema", 0.5, 0.25, 0.125, 0.5],
    ]


def test_what_a_crop_cuts_off_is_cut_off_the_box_or_takes_it_along() -> None:
    lines: list[Line] = [
        ("a.png", "Mass", 0.125, 0.25, 0.25, 0.5),  # half of it left of the square
        ("a.png", "Mass", 0.0, 0.0, 0.25, 1.0),  # beside it
        ("a.png", "Mass", 0.0, 0.0, 1.0, 1.0),
        ("a.png", "Mass", 0.75, 0.0, 0.25, 1.0),  # beside it on the right
    ]
    given = manifest(["a.png"], lines)
    found = framed(given, SizedImages("crop", [(200, 100)]))
    assert found.boxes[["x", "y", "width", "height"]].to_numpy().tolist() == [
        [0.0, 0.25, 0.25, 0.5],
        [0.0, 0.0, 1.0, 1.0],
    ]
    assert found.boxes.index.tolist() == [0, 1]
    assert len(given.boxes) == 4
    assert found.unusable_boxes == ("Mass in a.png lies outside the square that data.resize=crop keeps",) * 2


def test_boxes_of_images_that_are_not_in_the_manifest_have_no_frame() -> None:
    lines: list[Line] = [
        ("gone.png", "Mass", 0.0, 0.0, 0.5, 0.5),
        ("a.png", "Mass", 0.0, 0.0, 1.0, 1.0),
    ]
    boxes = framed(manifest(["a.png"], lines), SizedImages("pad", [(200, 100)])).boxes
    assert boxes.to_numpy().tolist() == [["a.png", "Mass", 0.0, 0.25, 1.0, 0.5]]
