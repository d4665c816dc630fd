"""Descriptions to start from, and data sets that are recognised, of folders that somebody else filled."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cxrlab.data.guess import guess
from cxrlab.data.readers import table
from cxrlab.data.recognise import recognise

Tree = Callable[..., Path]


def settings(root: Path) -> dict:
    """The reader's settings of the file that is written of a folder."""
    guessed = guess(root)
    assert guessed is not None
    text = "\n".join(guessed.lines).replace("???", "null")
    return yaml.safe_load(text)["reader"]


def rows(root: Path, name: str, *lines: str) -> None:
    (root / name).write_text("\n".join(lines) + "\n")


def test_paths_with_a_prefix_and_a_patient_in_them(make_tree: Tree):
    root = make_tree("train/patient01/a.png", "train/patient01/b.png", "train/patient02/c.png")
    paths = ["patient01/a.png", "patient01/b.png", "patient02/c.png"]
    rows(root, "l.csv", "Path,Mass", *(f"Set-v1/train/{path},{n % 2}" for n, path in enumerate(paths)))
    found = settings(root)
    assert (found["image_column"], found["path_prefix"]) == ("Path", r"Set\-v1/")
    assert found["patient_pattern"] == r"patient(\d+)"
    manifest = table.read(root, **found)
    assert manifest.table["patient"].nunique() == 2
    assert len(manifest) == 3


def test_masks_are_not_taken_for_the_images(make_tree: Tree):
    root = make_tree(*(f"{folder}/{n}_x.png" for folder in ("masks", "pictures") for n in range(3)))
    rows(root, "labels.csv", "id;finding", "0_x;sick", "1_x;well", "2_x;sick")
    found = settings(root)
    assert (found["image_folder"], found["image_suffix"]) == ("pictures", ".png")
    assert found["classes"] == {"columns": "finding"}
    manifest = table.read(root, **found)
    assert manifest.labels == ["sick", "well"]


def test_tables_by_part_and_columns_that_are_no_findings(make_tree: Tree):
    root = make_tree(*(f"images/{n}.png" for n in range(6)))
    for part, numbers in (("train", (0, 1, 2)), ("dev", (3, 4)), ("test", (5,))):
        lines = [f"{n}.png,P{n // 2},{n % 2},{n % 2},{n % 2}" for n in numbers]
        rows(root, f"my_{part}.csv", "file,subject_id,Edema,male,fold", *lines)
    found = settings(root)
    assert found["tables"] == {"train": "my_train.csv", "val": "my_dev.csv", "test": "my_test.csv"}
    assert found["labels"] == ["Edema"]
    assert found["patient_column"] == "subject_id"
    manifest = table.read(root, **found)
    assert manifest.table["split"].value_counts().to_dict() == {"train": 3, "val": 2, "test": 1}


def test_records_of_json(make_tree: Tree):
    root = make_tree("a.png", "b.png", "c.png")
    records = [{"file": f"{name}.png", "patient": name, "Edema": n % 2} for n, name in enumerate("abc")]
    (root / "labels.json").write_text(json.dumps(records))
    found = settings(root)
    assert (found["tables"], found["image_column"], found["labels"]) == ("labels.json", "file", ["Edema"])
    assert len(table.read(root, **found)) == 3


def test_images_without_a_table_and_tables_without_images(make_tree: Tree, tmp_path: Path):
    root = make_tree("scans/P1_sick.png", "scans/P2_well.png")
    found = settings(root)
    assert found["files"] == "scans/*.png"
    guessed = guess(root)
    assert guessed is not None
    assert "derive.finding.pattern" in guessed.needed[0]
    (tmp_path / "alone").mkdir()
    rows(tmp_path / "alone", "labels.csv", "image,Edema", "x.png,1")
    assert settings(tmp_path / "alone")["image_column"] is None


def test_a_folder_of_classes_has_no_description(make_tree: Tree):
    for tree in ("{}/1.png", "train/{}/1.png", "{}/images/1.png"):
        root = make_tree(*(tree.format(name) for name in ("sick", "well")), root=tree.replace("/", "_"))
        guessed = guess(root)
        assert guessed is not None
        assert guessed.classes == ["sick", "well"]


def test_nothing_is_nothing(tmp_path: Path):
    (tmp_path / "readme.txt").write_text("hello")
    assert guess(tmp_path) is None


def test_a_large_folder_takes_no_longer(tmp_path: Path):
    """Neither every image nor every folder of a patient is looked at."""
    (tmp_path / "images").mkdir()
    for number in range(5_000):
        (tmp_path / "images" / f"{number:05d}.png").touch()
    for number in range(500):
        (tmp_path / f"patient{number:05d}").mkdir()
    rows(
        tmp_path,
        "labels.csv",
        "image,patient,Edema",
        *(f"{n:05d}.png,{n // 3},{n % 2}" for n in range(5_000)),
    )
    start = time.perf_counter()
    assert (
        recognise(tmp_path, {"set": {"_target_": "cxrlab.data.readers.table.read", "tables": "x.csv"}}) == []
    )
    assert settings(tmp_path)["image_folder"] == "images"
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize(
    ("line", "is_found"),
    [("1 a b.png positive cohen", True), ("a.png", False), ("images/a b c d", True)],
)
def test_lines_without_a_header_are_told_by_their_form(line: str, is_found: bool, tmp_path: Path):
    rows(tmp_path, "train.txt", line, line)
    reader = {
        "_target_": "cxrlab.data.readers.table.read",
        "tables": "train.txt",
        "columns": r"(?P<number>\S+) (?P<image>.+) (?P<class>\S+) (?P<source>\S+)",
    }
    assert bool(recognise(tmp_path, {"set": reader})) == is_found


def test_a_table_is_told_by_its_columns_whatever_its_name(tmp_path: Path):
    rows(tmp_path, "train.csv", '\ufeff"image_id";"Class Name"', "a;b")
    reader = {
        "_target_": "cxrlab.data.readers.table.read",
        "tables": "train.csv.gz",
        "image_column": "image_id",
        "patient_column": None,
        "classes": {"columns": "class name"},
    }
    (found,) = recognise(tmp_path, {"set": reader})
    assert (found.option, found.root) == ("set", tmp_path)
    reader["image_column"] = "file"
    assert recognise(tmp_path, {"set": reader}) == []


def test_class_folders_below_are_found_with_the_folder_to_name(make_tree: Tree):
    root = make_tree(
        *(f"archive/{part}/{name}/1.png" for part in ("train", "test") for name in ("Normal", "TB"))
    )
    guessed = guess(root)
    assert guessed is not None
    assert (guessed.classes, guessed.root, guessed.lines) == (["Normal", "TB"], root / "archive", [])


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (("P01 chest (1).png", "p01-2.jpg", "P02_1.PNG", "P03.png"), r"^([A-Za-z]+[0-9]+)"),
        (("0017-1.png", "0017-2.png", "18_1.png"), r"^([0-9]+)[^0-9.]"),
        (("1.png", "2.png", "3.png"), None),
        (("P01.png", "P02.png", "P03.png"), None),  # one file each: nothing to keep together
        (("scan1_a.png", "scan1_b.png", "scan1_c.png"), None),  # one for all
        (("P01_1.png", "P01_2.png", "P02_1.png", "copy.png"), None),
    ],
)
def test_what_finds_the_patient_in_names_of_files_in_class_folders(
    make_tree: Tree, names: tuple[str, ...], pattern: str | None
):
    root = make_tree(
        "b/._P9_1.png", "b/masks/M1_1.png", *(f"{'ab'[n % 2]}/{name}" for n, name in enumerate(names))
    )
    guessed = guess(root)
    assert guessed is not None
    assert guessed.patient_pattern == pattern
    assert guessed.name in names


def test_folders_of_patients_are_no_classes(make_tree: Tree):
    guessed = guess(make_tree("set/p1/1.png", "set/p2/2.png"))
    assert guessed is not None
    assert guessed.classes == []


def test_a_description_is_yaml_before_it_is_filled_in(make_tree: Tree):
    guessed = guess(make_tree("CXR/MCU_1_0.png", "CXR/MCU_2_1.png"))
    assert guessed is not None
    assert yaml.safe_load("\n".join(guessed.lines))["reader"]["derive"]["finding"]["pattern"] == "???"


def test_dicom_without_suffix_and_numbers_as_names(make_tree: Tree):
    root = make_tree(*(f"numbers/{n}.png" for n in range(8)))
    rows(root, "l.csv", "id,TB", *(f"{n},{n % 2}" for n in range(8)))
    assert (settings(root)["image_column"], settings(root)["image_folder"]) == ("id", "numbers")
    for name in "ab":
        (root / "dicom" / name).mkdir(parents=True)
        (root / "dicom" / name / "IM1").write_bytes(bytes(128) + b"DICM" + bytes(100))
    rows(root, "l.csv", "file,TB", "a/IM1,0", "b/IM1,1")
    assert (settings(root)["image_column"], settings(root)["image_folder"]) == ("file", "dicom")


def test_corners_of_boxes_are_no_findings(make_tree: Tree):
    root = make_tree(*(f"{n}a.png" for n in range(4)))
    rows(
        root,
        "l.csv",
        "file,class,xmin,y1",
        *(f"{n}a.png,{'mass' if n % 2 else 'none'},1,0" for n in range(4)),
    )
    found = settings(root)
    assert "labels" not in found
    assert found["classes"] == {"columns": "class"}


def test_images_of_one_name_in_the_folders_of_two_parts(make_tree: Tree):
    root = make_tree("train/1.png", "train/2.png", "test/1.png", "test/2.png")
    for part in ("train", "test"):
        rows(root, f"{part}.csv", "file,TB", "1.png,0", "2.png,1")
    found = settings(root)
    assert sorted(found["image_folder"]) == ["test", "train"]
    manifest = table.read(root, **found)
    assert manifest.table["image"].tolist() == ["train/1.png", "train/2.png", "test/1.png", "test/2.png"]
    assert manifest.table["split"].tolist() == ["train", "train", "test", "test"]


def test_the_words_of_a_real_sheet_are_written_with_their_counts(make_tree: Tree, caplog):
    words = [
        "normal",
        "NAD",
        "no acute findings",
        "",
        "Pneumonia",
        "PNEUMONIA",
        "RLL pneumonia",
        "pneumonia?",
    ]
    root = make_tree(*(f"images/{n}.png" for n in range(16)))
    cells = [f"{n}.png,P{n},{words[n % 8]}" for n in range(16)]
    rows(root, "list.csv", "image,patient,Finding", *cells)
    guessed = guess(root)
    assert guessed is not None
    assert guessed.needed == [
        "what the words of 'Finding' mean: (empty), NAD, PNEUMONIA, Pneumonia, RLL pneumonia, no acute findings, "
        "... and 2 more"
    ]
    text = "\n".join(guessed.lines)
    assert "    # (empty): 2, unknown; if an empty cell means no finding: data.reader.blank=negative" in text
    assert "    #  RLL pneumonia: RLL pneumonia  # 2; like PNEUMONIA?" in text
    assert yaml.safe_load(text)["reader"]["classes"] == {"columns": "Finding"}
    manifest = table.read(root, **settings(root))
    assert manifest.labels == ["PNEUMONIA", "pneumonia?", "RLL pneumonia"]
    assert "'RLL pneumonia' looks like 'PNEUMONIA'" in caplog.text
    assert "'pneumonia?' looks like 'PNEUMONIA'" in caplog.text
    opened = "\n".join(
        line.replace("#", "", 1) if line.startswith(("    #words:", "    #  ")) else line
        for line in guessed.lines
    )
    found = yaml.safe_load(opened)["reader"]
    assert found["classes"]["words"] == {
        "NAD": None, "PNEUMONIA": "PNEUMONIA", "RLL pneumonia": "RLL pneumonia", "no acute findings": None,
        "normal": None, "pneumonia?": "pneumonia?",
    }  # fmt: skip
    found["classes"]["words"] |= {"RLL pneumonia": "PNEUMONIA", "pneumonia?": "PNEUMONIA"}
    assert table.read(root, **found).labels == ["PNEUMONIA"]
