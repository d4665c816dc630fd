import pytest

from cxrlab.data.readers._paths import check_root, listing
from cxrlab.errors import MissingFileError


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
