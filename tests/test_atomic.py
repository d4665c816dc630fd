from pathlib import Path

import pytest

from cxrlab.files import replacing, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "table.csv"
    write_text(path, "old — é")
    with pytest.raises(OSError, match="disk full"), replacing(path) as temporary:
        temporary.write_text("new")
        raise OSError("disk full")
    assert path.read_text(encoding="utf-8") == "old — é"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_replaced_at_the_end(tmp_path: Path):
    path = tmp_path / "table.csv"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == tmp_path
    assert path.read_text() == "new"
