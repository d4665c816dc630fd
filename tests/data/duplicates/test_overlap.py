import io
import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from cxrlab.data.cache import CacheSettings
from cxrlab.data.dataset import Dataset, cached, without_unreadable
from cxrlab.data.duplicates.overlap import find_shared, find_shared_patients, read_other
from cxrlab.data.manifest import Manifest
from cxrlab.errors import DataError, MissingFileError

NUM_IMAGES = 12
SETTINGS = CacheSettings(image_size=96, channels=1, resize="stretch")
COLUMNS = ["image", "part", "other_image", "other_part", "distance", "difference", "mirrored", "inverted"]


def picture(seed: int, size: int = 160) -> Image.Image:
    """A smooth picture that is like no other: a resize keeps it."""
    field = np.random.default_rng(seed).integers(0, 256, (10, 10), dtype=np.uint8)
    return Image.fromarray(field).resize((size, size), Image.Resampling.BICUBIC)


def table_of(names: list[str], part: str) -> pd.DataFrame:
    patients = [f"P{number}" for number in range(len(names))]
    return pd.DataFrame({"image": names, "patient": patients, "split": "", "part": part, "label/Edema": 1.0})


def decoded(manifest: Manifest, tmp_path: Path) -> Dataset:
    files = manifest.table["image"].tolist()
    images = cached(manifest, SETTINGS, cache_dir=tmp_path / "cache", num_workers=0, files=files)
    return without_unreadable(manifest, images, "skip")


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Twelve pictures of 160 pixels."""
    root, names = tmp_path / "ours", [f"{number:02d}.png" for number in range(NUM_IMAGES)]
    root.mkdir()
    for number, name in enumerate(names):
        picture(number).save(root / name)
    manifest = Manifest(root, table_of(names, "train"), name="ours")
    return decoded(manifest, tmp_path)


def other_of(root: Path, **pictures: bytes | Image.Image) -> Manifest:
    """A data set of the pictures given by name, in its test part."""
    root.mkdir(exist_ok=True)
    for name, content in pictures.items():
        if isinstance(content, bytes):
            (root / f"{name}.png").write_bytes(content)
        else:
            content.save(root / f"{name}.png")
    return Manifest(root, table_of([f"{name}.png" for name in pictures], "test"), name="theirs")


def jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def test_the_copies_of_an_image_in_another_data_set_are_found(data: Dataset, tmp_path: Path):
    mirrored = ImageOps.mirror(picture(7)).resize((300, 260))
    other = other_of(
        tmp_path / "theirs",
        another=picture(100, 210),
        reencoded=jpeg(picture(3).resize((110, 110))),
        same=(data.manifest.root / "05.png").read_bytes(),
        mirrored=mirrored,
        inverted=ImageOps.invert(picture(9)).resize((200, 200)),
    )
    found = find_shared(data, decoded(other, tmp_path))
    assert list(found) == [*COLUMNS, "identical"]
    assert found["identical"].tolist() == [True, False, False, False]
    assert (found["part"] == "train").all()
    assert (found["other_part"] == "test").all()
    rows = found.set_index("other_image")
    assert rows["image"].to_dict() == {
        "same.png": "05.png", "reencoded.png": "03.png", "mirrored.png": "07.png", "inverted.png": "09.png",
    }  # fmt: skip
    assert rows.index[rows["mirrored"]].tolist() == ["mirrored.png"]
    assert rows.index[rows["inverted"]].tolist() == ["inverted.png"]
    assert rows["difference"]["same.png"] == pytest.approx(0, abs=1e-4)
    assert found["difference"][1:].is_monotonic_increasing


def test_bytes_that_stand_there_twice_are_found_twice(data: Dataset, tmp_path: Path):
    content = (data.manifest.root / "02.png").read_bytes()
    found = find_shared(data, decoded(other_of(tmp_path / "theirs", one=content, two=content), tmp_path))
    assert found["other_image"].tolist() == ["one.png", "two.png"]
    assert found["image"].tolist() == ["02.png"] * 2
    assert found["identical"].all()


def test_another_data_set_that_shares_nothing_gives_an_empty_table(data: Dataset, tmp_path: Path):
    found = find_shared(
        data, decoded(other_of(tmp_path / "theirs", a=picture(200), b=picture(201)), tmp_path)
    )
    assert found.empty
    assert list(found) == [*COLUMNS, "identical"]


def test_what_cannot_be_read_of_the_other_is_left_out(data: Dataset, tmp_path: Path, caplog):
    other = other_of(
        tmp_path / "theirs", broken=b"no image", same=(data.manifest.root / "05.png").read_bytes()
    )
    with caplog.at_level(logging.WARNING, logger="cxrlab"):
        found = find_shared(data, decoded(other, tmp_path))
    assert found["other_image"].tolist() == ["same.png"]
    assert found["image"].tolist() == ["05.png"]
    assert "1 of 2 images cannot be read" in caplog.text


def test_only_the_rows_that_this_data_set_uses_count(data: Dataset, tmp_path: Path):
    """The rows of the cache are not those of the manifest, where a filter left images out."""
    mask = np.arange(NUM_IMAGES) % 2 == 1
    fewer = data.select(mask)
    contents = {f"n{number}": (data.manifest.root / f"{number:02d}.png").read_bytes() for number in (4, 9)}
    found = find_shared(fewer, decoded(other_of(tmp_path / "theirs", **contents), tmp_path))
    assert found[["image", "other_image"]].to_numpy().tolist() == [["09.png", "n9.png"]]


@pytest.fixture
def other_run(tmp_path: Path) -> Path:
    """A run directory whose images lie elsewhere."""
    manifest = other_of(tmp_path / "images", a=picture(0), b=picture(1))
    folder = tmp_path / "run"
    folder.mkdir()
    manifest.to_csv(folder / "manifest.csv")
    (folder / "audit.json").write_text(json.dumps({"root": str(manifest.root)}))
    return folder


def test_a_run_knows_where_its_images_are(other_run: Path, tmp_path: Path):
    for path in (other_run, other_run / "manifest.csv"):
        other = read_other(path, None)
        assert (other.root, other.name) == (tmp_path / "images", "images")
        assert other.table["image"].tolist() == ["a.png", "b.png"]
        assert other.table["part"].tolist() == ["test", "test"]


def test_a_root_that_is_given_goes_before_the_run_s(other_run: Path, tmp_path: Path):
    (tmp_path / "images").rename(tmp_path / "moved")
    assert read_other(other_run, tmp_path / "moved").root == tmp_path / "moved"
    with pytest.raises(
        MissingFileError, match=r"there is no image .*images/a\.png\. Set against_root=<folder>"
    ):
        read_other(other_run, None)


def test_a_manifest_that_is_not_there_is_named(tmp_path: Path):
    for path, named in ((tmp_path / "none.csv", "none.csv"), (tmp_path, "manifest.csv")):
        with pytest.raises(MissingFileError, match=rf"against=.*{named}: there is no such file"):
            read_other(path, None)


@pytest.mark.parametrize("beside", [None, "{}"])
def test_a_manifest_alone_needs_its_root(other_run: Path, beside: str | None):
    (other_run / "audit.json").unlink()
    if beside is not None:
        (other_run / "audit.json").write_text(beside)
    with pytest.raises(MissingFileError, match=r"no audit.json beside it says .*Set against_root=<folder>"):
        read_other(other_run, None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"against=.*manifest\.csv cannot be read"),
        (b"\xff\xfe\x00i\x00m\x00a", r"against=.*manifest\.csv cannot be read"),
        (b"Image,Patient\na.png,1\n", r"lacks the columns \['image', 'patient', 'split'\]"),
        (b"image,patient,split,label/Edema\na.png,1,,7\n", "labels are 1"),
    ],
)
def test_a_file_that_is_no_manifest_is_rejected(other_run: Path, content: bytes, words: str):
    (other_run / "manifest.csv").write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_other(other_run, None)


def test_a_manifest_without_an_image_is_rejected(tmp_path: Path):
    (tmp_path / "manifest.csv").write_text("image,patient,split,part,label/A\n")
    with pytest.raises(DataError, match=r"manifest.csv lists no image"):
        read_other(tmp_path / "manifest.csv", tmp_path)


def test_an_audit_that_cannot_be_read_tells_no_root(tmp_path: Path):
    (tmp_path / "manifest.csv").write_text("image,patient,split,part,label/A\na.png,1,,train,1\n")
    for text in ("{", "[]", "{}"):
        (tmp_path / "audit.json").write_text(text)
        with pytest.raises(MissingFileError, match=r"Set against_root=<folder>"):
            read_other(tmp_path / "manifest.csv", None)


def test_images_outside_the_folder_are_rejected(tmp_path: Path):
    (tmp_path / "a.png").touch()
    for name in ("../a.png", str(tmp_path / "a.png")):
        (tmp_path / "manifest.csv").write_text(f"image,patient,split,part,label/A\n{name},1,,train,1\n")
        with pytest.raises(DataError, match=r"names files outside its folder"):
            read_other(tmp_path / "manifest.csv", tmp_path / "root")


def test_patients_of_the_same_id_are_found_in_any_spelling(tmp_path):
    rows = table_of(["a.png", "b.png", "c.png"], "train")
    ours = Manifest(tmp_path, rows.assign(patient=["0001", "P7", "x"]))
    theirs = Manifest(tmp_path, rows.assign(patient=["1.0", "p7", "y"]))
    assert find_shared_patients(ours, theirs) == ["0001", "P7"]
    unknown = Manifest(tmp_path, rows.assign(patient=rows["image"]))
    assert find_shared_patients(unknown, unknown) == []
