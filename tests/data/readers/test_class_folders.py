import logging
import re

import pytest

from cxrlab.data.readers.folders import scan
from cxrlab.errors import DataError, MissingFileError


def test_classes_below_parts(make_tree):
    root = make_tree("train/b/2.png", "train/a/1.JPG", "validation/a/3.jpeg", "Test/b/4.PNG", "valid/a/5.png")
    files = scan(root, None)
    assert files["image"].tolist() == [
        "Test/b/4.PNG",
        "train/a/1.JPG",
        "train/b/2.png",
        "valid/a/5.png",
        "validation/a/3.jpeg",
    ]
    assert files["part"].tolist() == ["test", "train", "train", "val", "val"]
    assert files["class"].tolist() == ["b", "a", "b", "a", "a"]
    assert files["file"].tolist() == ["4.PNG", "1.JPG", "2.png", "5.png", "3.jpeg"]


def test_classes_below_the_root(make_tree):
    files = scan(make_tree("b/1.png", "a/1.png"), ("a", "b"))
    assert files[["image", "part"]].to_numpy().tolist() == [["a/1.png", ""], ["b/1.png", ""]]


def test_hidden_and_other_files_are_passed_over(make_tree):
    root = make_tree("a/1.png", "a/._1.png", "b/1.png", "__MACOSX/a/1.png", ".cache/1.png")
    (root / "a/.DS_Store").touch()
    (root / "a/Thumbs.db").touch()
    assert scan(root, None)["image"].tolist() == ["a/1.png", "b/1.png"]


def test_an_empty_class_folder_is_named(make_tree):
    root = make_tree("train/a/1.png")
    (root / "train/b").mkdir()
    (root / "train/b/scan.tif").touch()
    message = rf"class folder {re.escape(str(root / 'train/b'))} holds no image .*it holds scan\.tif"
    with pytest.raises(DataError, match=message):
        scan(root, None)


def test_a_missing_class_folder_is_named(make_tree):
    root = make_tree("train/a/1.png", "train/b/1.png", "test/a/1.png")
    with pytest.raises(MissingFileError, match=r"test lacks the class folders \['b'\]; it holds a/"):
        scan(root, ("a", "b"))


def test_a_part_without_folders_is_named(make_tree):
    with pytest.raises(MissingFileError, match=r"train lacks class folders; it holds 1\.png"):
        scan(make_tree("train/1.png"), None)


@pytest.mark.parametrize("classes", [None, ("a", "b")])
def test_a_nested_root_is_suggested(make_tree, classes):
    root = make_tree("inner/train/a/1.png", "inner/train/b/1.png", "__MACOSX/train/a/1.png")
    with pytest.raises(MissingFileError, match=rf"Set data\.root={re.escape(str(root / 'inner'))}\.$"):
        scan(root, classes)


@pytest.mark.parametrize("classes", [None, ("a", "b")])
def test_nothing_is_suggested_where_nothing_fits(tmp_path, classes):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "papers").mkdir()
    with pytest.raises(
        MissingFileError, match=r"holds neither class folders.*it holds notes\.txt, papers/\.$"
    ):
        scan(tmp_path, classes)


def test_folders_beside_parts_are_mentioned(make_tree, caplog):
    root = make_tree("train/a/1.png", "train/b/1.png", "extra/a/1.png")
    with caplog.at_level(logging.WARNING):
        assert len(scan(root, None)) == 2
    assert "['extra'] are no parts and are left out" in caplog.messages[0]


def test_no_root(tmp_path):
    with pytest.raises(MissingFileError, match=r"data\.root=.*absent does not exist"):
        scan(tmp_path / "absent", None)
