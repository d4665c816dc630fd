import gzip
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrlab.data.readers import nih
from cxrlab.data.readers.nih import LABELS, read_table
from cxrlab.errors import DataError, MissingFileError


@pytest.mark.parametrize("edition", ["v2020", "2017"])
@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("numbered", [False, True])
def test_reads_every_edition_and_layout(make_nih, edition, gz, numbered, caplog):
    root = make_nih(edition=edition, gz=gz, numbered=numbered)
    manifest = nih.read(root)
    assert (len(manifest), manifest.num_listed, manifest.name, manifest.root) == (60, 60, "nih", root)
    assert manifest.covariates == ["view", "sex", "age"]
    assert all((root / image).is_file() for image in manifest.table["image"])
    row = manifest.table.set_index("patient").loc["27"]
    assert (row["covariate/view"], row["covariate/sex"], row["covariate/age"]) == ("AP", "F", 40.0)
    assert not caplog.records


def test_findings_become_labels_in_the_published_order(make_nih):
    manifest = nih.read(make_nih())
    assert manifest.labels[:3] == ["Atelectasis", "Cardiomegaly", "Effusion"]
    assert manifest.labels[-2:] == ["Pleural_Thickening", "Hernia"]
    of = {row["image"]: manifest.targets[index] for index, row in manifest.table.iterrows()}
    assert of["images/00000001_000.png"].tolist() == [0, 0, 1] + [0] * 11
    assert of["images/00000001_001.png"].tolist() == [0] * 12 + [1, 1]
    assert of["images/00000004_000.png"].sum() == 0


def test_official_lists_give_the_split(make_nih):
    table = nih.read(make_nih()).table
    assert set(table["split"][table["patient"].astype(int) <= 20]) == {"train"}
    assert set(table["split"][table["patient"].astype(int) > 20]) == {"test"}


def test_without_lists_there_is_no_split(make_nih):
    assert set(nih.read(make_nih(lists=False)).table["split"]) == {""}


@pytest.mark.parametrize(("gone", "there"), [("test", "train_val"), ("train_val", "test")])
def test_one_list_of_two_is_rejected(make_nih, gone, there):
    root = make_nih()
    (root / f"{gone}_list.txt").unlink()
    with pytest.raises(MissingFileError, match=rf"holds {there}_list\.txt but not {gone}_list\.txt"):
        nih.read(root)


def test_an_image_in_both_lists_is_rejected(make_nih):
    root = make_nih()
    (root / "test_list.txt").write_text("00000001_000.png\n00000030_000.png\n")
    with pytest.raises(DataError, match=r"1 images are in both official lists .*00000001_000"):
        nih.read(root)


def test_boxes_are_fractions_on_images_that_are_there(make_nih):
    root = make_nih()
    boxes = nih.read(root).boxes
    assert boxes.iloc[0].tolist() == ["images/00000025_000.png", "Infiltration", 0.25, 0.5, 0.125, 0.0625]
    assert len(boxes) == 2
    (root / "images/00000025_000.png").unlink()
    assert nih.read(root).boxes["label"].tolist() == ["Effusion"]
    (root / "BBox_List_2017.csv").unlink()
    assert nih.read(root).boxes.empty


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("00000025_000.png,Cold,1,2,3,4", "Cold"),
        ("00000025_000.png,Mass,1,2,x,4", "not in numbers: .*x"),
    ],
)
def test_faulty_boxes_are_rejected(make_nih, line, message):
    root = make_nih()
    (root / "BBox_List_2017.csv").write_text(f"Image Index,Finding Label,Bbox [x,y,w,h]\n{line}\n")
    with pytest.raises(DataError, match=message):
        nih.read(root)


def test_a_box_beyond_the_image_is_left_out_and_named(make_nih):
    root = make_nih()
    lines = ["Image Index,Finding Label,Bbox [x,y,w,h]", "00000025_000.png,Mass,1,2,2000,4"]
    (root / "BBox_List_2017.csv").write_text("\n".join([*lines, "00000025_000.png,Mass,1,2,20,4"]))
    manifest = nih.read(root)
    assert len(manifest.boxes) == 1
    (told,) = manifest.unusable_boxes
    assert told.startswith("Mass in images/00000025_000.png lies outside the image")


def test_boxes_with_too_few_columns_are_rejected(make_nih):
    root = make_nih()
    (root / "BBox_List_2017.csv").write_text("Image Index,Finding Label\n00000025_000.png,Mass\n")
    with pytest.raises(DataError, match="have 2 columns"):
        nih.read(root)


def test_pngs_directly_in_numbered_folders_are_found(make_nih):
    root = make_nih(numbered=True)
    for folder in root.glob("images_*/images"):
        for path in folder.iterdir():
            path.rename(folder.parent / path.name)
        folder.rmdir()
    assert nih.read(root).table["image"].iloc[0] == "images_001/00000001_000.png"


def test_missing_images_are_left_out_with_a_warning(make_nih, caplog):
    root = make_nih()
    (root / "images/00000001_000.png").unlink()
    (root / "images/00000030_000.png").unlink()
    with caplog.at_level(logging.WARNING):
        manifest = nih.read(root)
    assert (len(manifest), manifest.num_listed) == (58, 60)
    message = caplog.messages[0]
    assert message.startswith("2 of 60 images listed in ")
    assert "for instance ['00000001_000.png', '00000030_000.png']; using the 58 that are there" in message


def test_fewer_than_50_images_are_rejected(make_nih):
    root = make_nih()
    for path in sorted((root / "images").iterdir())[:11]:
        path.unlink()
    with pytest.raises(DataError, match=r"49 of the 60 images .* at least 50 .*00000001_000\.png"):
        nih.read(root)


def test_files_that_the_table_does_not_list_are_passed_over(make_nih):
    root = make_nih()
    for name in ("99999999_000.png", "._00000001_000.png", "notes.txt"):
        (root / "images" / name).write_bytes(b"")
    assert len(nih.read(root)) == 60


def test_no_root(tmp_path):
    with pytest.raises(MissingFileError, match=r"data\.root=.*absent does not exist"):
        nih.read(tmp_path / "absent")


def test_no_table(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labels.csv").touch()
    with pytest.raises(
        MissingFileError, match=r"Data_Entry_2017_v2020\.csv.* it holds images/, labels\.csv\."
    ):
        nih.read(tmp_path)


def test_no_image_folder(make_nih):
    root = make_nih()
    (root / "images").rename(root / "pictures")
    with pytest.raises(MissingFileError, match=r"neither images/ nor images_001/.* pictures/"):
        nih.read(root)


@pytest.mark.real_data
def test_real_subset(real_data: Path):
    manifest = nih.read(real_data / "nih")
    assert (len(manifest), manifest.num_listed) == (300, 112120)
    assert manifest.table["patient"].nunique() == 300
    assert manifest.table["split"].value_counts().to_dict() == {"train": 262, "test": 38}
    assert (manifest.targets.sum(axis=0) > 0).all()
    assert set(manifest.boxes["image"]) <= set(manifest.table["image"])


@pytest.mark.real_data
def test_real_lists_and_boxes_of_all_images(real_data: Path):
    names = nih.read_table(real_data / "nih/Data_Entry_2017_v2020.csv.gz")[0]["image"]
    assert nih.read_lists(real_data / "nih", names).value_counts().to_dict() == {
        "train": 86524,
        "test": 25596,
    }
    boxes = nih.read_boxes(real_data / "nih/BBox_List_2017.csv", dict(zip(names, names, strict=True)))
    assert (len(boxes), boxes["image"].nunique()) == (984, 880)
    ends = boxes[["x", "y"]].to_numpy() + boxes[["width", "height"]].to_numpy()
    assert ends.max() <= 1


HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"


def write(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "Data_Entry_2017.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_ages_are_years_in_both_editions(tmp_path):
    rows = [
        f"{i}.png,No Finding,0,{i},{age},M,PA"
        for i, age in enumerate(["58", "058Y", "018M", "146D", "414", ""])
    ]
    ages = read_table(write(tmp_path, *rows))[0]["covariate/age"]
    np.testing.assert_allclose(ages, [58, 58, 1.5, 0.4, np.nan, np.nan], atol=0.001)


def test_an_age_that_is_none_is_rejected(tmp_path):
    with pytest.raises(DataError, match=r"'Patient Age' of .* holds \['old'\]"):
        read_table(write(tmp_path, "1.png,No Finding,0,1,old,M,PA"))


def test_patients_stay_text(tmp_path):
    assert read_table(write(tmp_path, "1.png,No Finding,0,0007,58,M,PA"))[0]["patient"].tolist() == ["0007"]


@pytest.mark.parametrize("findings", ["Mass|Cold", "mass", ""])
def test_an_unknown_finding_is_named(tmp_path, findings):
    path = write(tmp_path, "1.png,Mass,0,1,58,M,PA", f"2.png,{findings},0,1,58,M,PA")
    with pytest.raises(DataError, match=r"'Finding Labels' of .* is none of the 14") as error:
        read_table(path)
    assert repr(findings) in str(error.value)


def test_a_missing_column_is_named_with_those_there(tmp_path):
    path = write(tmp_path, "1.png,Mass,1", header="Image Index,Finding Labels,Patient")
    with pytest.raises(
        DataError, match=r"lacks the columns \['Patient ID', .*it has \['Image Index', .*'Patient'\]"
    ):
        read_table(path)


@pytest.mark.parametrize(
    ("row", "column"), [(",Mass,0,1,58,M,PA", "Image Index"), ("1.png,Mass,0,,58,M,PA", "Patient ID")]
)
def test_an_empty_name_or_patient_is_rejected(tmp_path, row, column):
    with pytest.raises(DataError, match=f"1 rows of .* nothing in the column '{column}'"):
        read_table(write(tmp_path, row))


@pytest.mark.parametrize("header", [HEADER, HEADER + ",", "\ufeff" + HEADER])
def test_commas_at_the_end_of_rows_shift_nothing(tmp_path, header):
    table, _ = read_table(write(tmp_path, "1.png,Mass,0,7,58,M,PA,", header=header))
    assert table.iloc[0, :5].tolist() == ["1.png", "7", "PA", "M", 58.0]


@pytest.mark.parametrize(
    "content", [b"", b"\x1f\x8b broken", gzip.compress(b"Image Index\n1.png\n" * 99, mtime=0)[:-9]]
)
def test_a_damaged_table_is_rejected(tmp_path, content):
    path = tmp_path / "Data_Entry_2017.csv.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"Data_Entry_2017\.csv\.gz cannot be read"):
        read_table(path)


def test_what_was_listed_is_kept_for_the_audit(tmp_path):
    path = write(tmp_path, "1.png,No Finding|Mass,0,7,412,M,PA", "2.png,No Finding,0,8,058Y,F,AP")
    table, raw = read_table(path)
    assert table["covariate/age"].isna().tolist() == [True, False]
    assert table["label/Mass"].tolist() == [1.0, 0.0]
    assert raw.to_dict("list") == {
        "image": ["1.png", "2.png"], "findings": ["No Finding|Mass", "No Finding"], "age": [412.0, 58.0],
    }  # fmt: skip


@pytest.mark.real_data
def test_real_table(real_data: Path):
    table, _ = read_table(real_data / "nih/Data_Entry_2017_v2020.csv.gz")
    assert (len(table), table["patient"].nunique()) == (112120, 30805)
    labels = table[[f"label/{name}" for name in LABELS]]
    # Counts of the findings as Wang et al. publish them with the data.
    published = [11559, 2776, 13317, 19894, 5782, 6331, 1431, 5302, 4667, 2303, 2516, 1686, 3385, 227]
    assert labels.sum().astype(int).tolist() == published
    assert (labels.sum(axis=1) == 0).sum() == 60361
    assert pd.api.types.is_float_dtype(table["covariate/age"])


def renamed(root: Path, **names: str) -> Path:
    """Give files the names that Kaggle's copies have, ``__`` standing for a dot."""
    for old, new in names.items():
        (root / old.replace("__", ".")).rename(root / new)
    return root


def test_the_224_px_copy_of_kaggle_is_read_as_it_is(make_nih, caplog):
    root = renamed(
        make_nih(edition="2017"),
        train_val_list__txt="train_val_list_NIH.txt",
        test_list__txt="test_list_NIH.txt",
        BBox_List_2017__csv="BBox_List_2017_Official_NIH.csv",
        images="images-224",
    )
    (root / "inner").mkdir()
    (root / "images-224").rename(root / "inner/images-224")
    (root / "inner").rename(root / "images-224")
    manifest = nih.read(root)
    assert manifest.table["image"].iloc[0].startswith("images-224/images-224/")
    assert set(manifest.table["split"]) == {"train", "test"}
    assert len(manifest.boxes) == 2
    assert not caplog.records


def test_the_sample_of_kaggle_is_read_as_it_is(make_nih, caplog):
    """It holds its images twice; ages are written 041Y and patients with zeros."""
    root = renamed(make_nih(edition="2017", lists=False), Data_Entry_2017__csv="sample_labels.csv")
    (root / "BBox_List_2017.csv").unlink()
    (root / "sample/sample").mkdir(parents=True)
    (root / "images").rename(root / "sample/images")
    manifest = nih.read(root)
    assert manifest.table["image"].iloc[0] == "sample/images/00000001_000.png"
    assert manifest.table["covariate/age"].min() == 40
    assert not caplog.records
    (root / "sample/sample/images").mkdir()
    for path in sorted((root / "sample/images").iterdir())[:3]:
        (root / "sample/sample/images" / path.name).write_bytes(path.read_bytes())
    assert nih.read(root).table.equals(manifest.table)
    assert "3 images of" in caplog.text
    assert "stand in two folders, for instance sample/images/00000001_000.png" in caplog.text


def test_lists_and_boxes_may_be_compressed(make_nih):
    root = make_nih()
    expected = nih.read(root)
    for name in ("train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"):
        path = root / name
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    manifest = nih.read(root)
    assert manifest.table.equals(expected.table)
    assert manifest.boxes.equals(expected.boxes)
    (root / "test_list.txt.gz").write_bytes(b"\x1f\x8bcut off")
    with pytest.raises(DataError, match=r"test_list\.txt\.gz cannot be read"):
        nih.read(root)


def test_files_that_look_like_ours_and_are_not_read_are_named(make_nih, caplog):
    root = make_nih()
    for name in ("train_list.txt", "Data_Entry_2017.csv", "bbox_train.csv", "README.txt"):
        (root / name).touch()
    nih.read(root)
    (message,) = caplog.messages
    assert (
        "also holds Data_Entry_2017.csv, bbox_train.csv, train_list.txt, which data=nih does not use"
        in message
    )
    assert "README" not in message


def test_a_root_one_folder_up_or_down_is_hinted_at(make_nih):
    root = make_nih()
    with pytest.raises(MissingFileError, match=rf"Set data\.root={root}\."):
        nih.read(root.parent)
    with pytest.raises(MissingFileError, match=rf"Set data\.root={root}\."):
        nih.read(root / "images")


def test_the_published_numbers_are_compared(make_nih, caplog):
    with caplog.at_level(logging.INFO):
        manifest = nih.read(make_nih(), published={"images": 112120, "patients": 30805})
    assert manifest.published is not None
    assert "nih: a part of the set: 60 of 112,120 images." in caplog.messages
