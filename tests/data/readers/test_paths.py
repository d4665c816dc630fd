import os
from pathlib import Path

import pandas as pd
import pytest

from cxrlab.data.readers._paths import check_root, compiled, listing, paths_under_root, present
from cxrlab.errors import ConfigError, DataError, MissingFileError


def paths(*cells: str, folder: str = "", prefix: str | None = None, suffix: str = "") -> list[str]:
    column = pd.Series(cells, index=range(2, 2 + len(cells)))
    return paths_under_root(column, folder=folder, prefix=prefix, suffix=suffix, path=Path("x.csv")).tolist()


@pytest.mark.parametrize("cell", ["a/b.png", "./a/b.png", "a//b.png", "a\\b.png", "a/./b.png"])
def test_one_file_has_one_spelling(cell):
    assert paths(cell) == ["a/b.png"]


def test_folder_prefix_and_suffix():
    assert paths("b.png", folder="images/small/") == ["images/small/b.png"]
    assert paths("b", suffix=".png") == ["b.png"]
    small = "CheXpert-v1.0-small/train/b.jpg"
    assert paths(small, "train/CheXpert-v1.0/b.jpg", prefix=r"CheXpert-v1\.0(-small)?/") == [
        "train/b.jpg",
        "train/CheXpert-v1.0/b.jpg",
    ]
    assert paths("/home/jo/data/a.png", "D:\\data\\b.png", prefix=r"(/home/jo/data|D:/data)/") == [
        "a.png",
        "b.png",
    ]


def test_names_with_blanks_dots_and_letters_of_any_script_stay():
    names = ["Röntgen 1/Ärm..el.png", "..a.png", "a...png", "胸/1.png"]
    assert paths(*names) == names


@pytest.mark.parametrize(
    "cell", ["../x.png", "a/../../x.png", "a/..", "..\\x.png", "/etc/x.png", "C:\\x.png", "C:x"]
)
def test_a_path_outside_the_root_is_rejected(cell):
    with pytest.raises(
        DataError, match=r"1 rows of x\.csv name an image outside data\.root, .* in line 3"
    ) as error:
        paths("a.png", cell)
    assert repr(cell) in str(error.value)


def test_what_is_left_of_a_path_may_not_lead_outside_either():
    with pytest.raises(DataError, match="outside"):
        paths("data/../x.png", prefix="data/")


@pytest.mark.parametrize("cell", ["", "data/"])
def test_a_row_without_an_image_is_rejected(cell):
    with pytest.raises(DataError, match=r"1 rows of x\.csv name no image, .* in line 3"):
        paths("a.png", cell, prefix="data/")


@pytest.mark.parametrize("folder", ["..", "/data", "images/../.."])
def test_the_folder_lies_under_the_root(folder):
    with pytest.raises(ConfigError, match=r"image_folder=.* must be a folder under data\.root"):
        paths("a.png", folder=folder)


def test_a_broken_pattern_is_named():
    with pytest.raises(ConfigError, match=r"some\.key=\( is no regular expression"):
        compiled("(", "some.key")


@pytest.mark.parametrize("more", [0, 20])
def test_which_are_there_whether_a_folder_is_listed_or_not(tmp_path, more):
    (tmp_path / "a").mkdir()
    names = [f"a/{number}.png" for number in range(more)]
    for name in ["a/x.png", "y.png", *names]:
        (tmp_path / name).touch()
    wanted = ["a/x.png", "a/z.png", "y.png", "b/x.png", "y.png/x.png", *names]
    assert present(tmp_path, wanted).tolist() == [True, False, True, False, False, *[True] * more]


@pytest.mark.parametrize("more", [0, 20])
def test_folders_and_files_behind_symbolic_links_are_there(make_tree, tmp_path, more):
    root, elsewhere = make_tree("y.png"), make_tree("x.png", "z.png", root="elsewhere")
    (root / "linked").symlink_to(elsewhere)
    (root / "one.png").symlink_to(elsewhere / "x.png")
    (root / "broken.png").symlink_to(elsewhere / "absent.png")
    names = [f"{number}.png" for number in range(more)]
    for name in names:
        (root / name).touch()
    wanted = ["linked/x.png", "one.png", "broken.png", *names]
    assert present(root, wanted).tolist() == [True, True, False, *[True] * more]


def test_a_folder_that_cannot_be_listed_is_an_error_not_an_absence(tmp_path, monkeypatch):
    def denied(folder: str) -> None:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match=r"images of .*/a cannot be listed: .*Permission denied"):
        present(tmp_path, [f"a/{number}.png" for number in range(20)])


def test_a_folder_passes(tmp_path):
    check_root(tmp_path)


def test_no_root(tmp_path):
    with pytest.raises(MissingFileError, match=r"data\.root=.*absent does not exist"):
        check_root(tmp_path / "absent")


def test_a_file_is_no_root(tmp_path):
    (tmp_path / "nih.zip").touch()
    with pytest.raises(MissingFileError, match=r"data\.root=.*nih\.zip is a file"):
        check_root(tmp_path / "nih.zip")


def test_listing(tmp_path):
    assert listing(tmp_path) == "nothing"
    (tmp_path / "b").mkdir()
    (tmp_path / "a.csv").touch()
    assert listing(tmp_path) == "a.csv, b/"
    assert listing(tmp_path, most=1) == "a.csv and 1 more"
