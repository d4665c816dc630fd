"""Parts from a table: a published split, or the manifest of an earlier run."""

import logging
from pathlib import Path

import pandas as pd
import pytest

from cxrlab.data.manifest import Manifest
from cxrlab.data.splits import Split
from cxrlab.errors import DataError, MissingFileError

OPTIONS = {"val_fraction": 0.1, "test_fraction": 0.2, "seed": 0, "fold": None, "num_folds": 5}


def split_by(manifest, *, groups=None, **options):
    return Split(**options)(manifest, groups=groups)


@pytest.fixture
def manifest():
    """Twenty patients of two images, with names that tables tend to spoil."""
    patients = [f"{number:03d}" for number in range(20)]
    table = pd.DataFrame({"image": [f"a, b/00{i}é.png" for i in range(40)], "patient": sorted(patients * 2)})
    return Manifest(
        Path("/data"), table.assign(split="", **{"label/Mass": [float(i % 3 == 0) for i in range(40)]})
    )


def from_file(manifest, path, **options):
    return split_by(manifest, method="file", file=str(path), **OPTIONS | options)


def written(manifest, path, parts):
    pd.DataFrame({"part": parts, "image": manifest.table["image"]}).to_csv(path, index=False)
    return path


def test_the_manifest_of_a_run_gives_the_same_split(manifest, tmp_path):
    earlier = split_by(manifest, method="grouped", file=None, **OPTIONS | {"seed": 7})
    earlier.to_csv(tmp_path / "manifest.csv")
    mixed = Manifest(Path("/data"), manifest.table.sample(frac=1, random_state=0))
    assert from_file(mixed, tmp_path / "manifest.csv").fingerprint() == earlier.fingerprint()


def test_other_spellings_of_a_csv_are_read(manifest, tmp_path):
    """A byte order mark, CRLF, a column more, and an image that stands twice with the same part."""
    parts = ["train"] * 28 + ["val"] * 4 + ["test"] * 8
    table = pd.DataFrame({"image": manifest.table["image"], "finding": "x", "part": parts})
    table = pd.concat([table, table.head(3)])
    table.to_csv(tmp_path / "split.csv", index=False, encoding="utf-8-sig", lineterminator="\r\n")
    assert from_file(manifest, tmp_path / "split.csv").table["part"].tolist() == parts


def test_validation_is_drawn_where_the_file_has_none(manifest, tmp_path):
    path = written(manifest, tmp_path / "split.csv", ["train"] * 32 + ["test"] * 8)
    parts = from_file(manifest, path, val_fraction=0.25).table["part"]
    assert parts[32:].tolist() == ["test"] * 8
    assert parts[:32].value_counts().to_dict() == {"train": 24, "val": 8}


def test_names_beyond_the_data_set_are_left_out_with_a_warning(manifest, tmp_path, caplog):
    path = written(manifest, tmp_path / "split.csv", ["test"] * 8 + ["train"] * 24 + ["val"] * 8)
    some = manifest.rows(manifest.table.index >= 4)
    with caplog.at_level(logging.WARNING):
        parts = from_file(some, path).table["part"]
    assert parts.tolist() == ["test"] * 4 + ["train"] * 24 + ["val"] * 8
    assert (
        f"4 of the 40 images that {path} names are not in /data, for instance ['a, b/000é.png'" in caplog.text
    )


def test_an_image_that_the_file_does_not_name_is_rejected(manifest, tmp_path):
    path = tmp_path / "split.csv"
    table = manifest.table[["image"]].assign(part=["train"] * 24 + ["val"] * 8 + ["test"] * 8)
    table.drop([0, 5, 9, 30]).to_csv(path, index=False)
    words = r"does not name 4 of the 40 images of /data, for instance .*000é.*005é.*009é.*such as 'a, b/001é\.png'"
    with pytest.raises(DataError, match=words):
        from_file(manifest, path)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            ["train"] * 30 + ["valid"] * 4 + ["test"] * 6,
            r"has the parts \['valid'\], .*spelt train, val, test",
        ),
        (["train"] * 39 + [""], r"has the parts \[''\], for instance of \['a, b/0039é\.png'\]"),
        (["train"] * 40, r"puts no image of /data into the test part"),
        (["test"] * 40, r"puts no image of /data into the train part"),
        (["train"] * 31 + ["val"] * 5 + ["test"] * 4, r"1 patient is in both train and val: \[015\]"),
    ],
)
def test_parts_that_cannot_be_used_are_rejected(manifest, tmp_path, parts, message):
    with pytest.raises(DataError, match=message):
        from_file(manifest, written(manifest, tmp_path / "split.csv", parts))


def test_a_validation_part_of_absent_images_is_not_drawn_anew(manifest, tmp_path):
    path = written(manifest, tmp_path / "split.csv", ["val"] * 4 + ["train"] * 28 + ["test"] * 8)
    with pytest.raises(DataError, match=r"puts no image of /data into the val part"):
        from_file(manifest.rows(manifest.table.index >= 4), path)


def test_an_image_in_two_parts_is_rejected(manifest, tmp_path):
    path = tmp_path / "split.csv"
    table = manifest.table[["image"]].assign(part=["train"] * 24 + ["val"] * 8 + ["test"] * 8)
    pd.concat([table, table.head(1).assign(part="test")]).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"puts 1 images into two parts: \['a, b/000é\.png'\]"):
        from_file(manifest, path)


def test_files_that_are_no_such_table_are_rejected(manifest, tmp_path):
    path = tmp_path / "split.csv"
    with pytest.raises(MissingFileError, match=r"data\.split\.file=.*split\.csv is no file"):
        from_file(manifest, path)
    with pytest.raises(MissingFileError, match=r"such as the manifest\.csv of a run directory"):
        from_file(manifest, tmp_path)
    path.write_text("image,split\na.png,train\n")
    with pytest.raises(DataError, match=r"lacks the columns \['part'\]; it has \['image', 'split'\]"):
        from_file(manifest, path)
    for content in (b"", b"\x89PNG\r\n\x1a\n\xff\xfe\x00", b'image,part\n"a.png,train\n'):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"split\.csv cannot be read as a CSV"):
            from_file(manifest, path)
