import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrlab.data.cache_worker import CacheSettings
from cxrlab.data.decode_files import decode_files
from cxrlab.data.inputs import ImageFile, image_inputs
from cxrlab.errors import DataError, MissingFileError

WAY = CacheSettings(16, 1, "stretch")


def draw(path: Path, grey: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 20), grey, np.uint8)).save(path)
    return path


def named(*names: object) -> list[str]:
    return [file.name for file in image_inputs([str(name) for name in names])]


def test_a_folder_gives_what_is_an_image_by_content_or_by_name_in_one_order(tmp_path):
    draw(tmp_path / "b.png")
    draw(tmp_path / "a" / "z.png").rename(tmp_path / "a" / "no_suffix")
    (tmp_path / "a" / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "notes.txt").write_text("no image")
    draw(tmp_path / ".hidden.png")
    draw(tmp_path / "__MACOSX" / "c.png")
    expected = [str(tmp_path / name) for name in ("a/cut.jpg", "a/no_suffix", "b.png")]
    assert named(tmp_path) == expected
    assert named(tmp_path) == named(tmp_path)


def test_a_link_that_leads_round_is_followed_once(tmp_path):
    draw(tmp_path / "a.png")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert named(tmp_path) == [str(tmp_path / "a.png")]


def test_a_table_names_images_from_its_own_folder(tmp_path):
    draw(tmp_path / "images" / "a.png")
    table = tmp_path / "list.csv"
    table.write_text("patient,file\n1,images/a.png\n2,images/gone.png\n")
    files = list(image_inputs([str(table)]))
    assert [file.path for file in files] == [tmp_path / "images/a.png", tmp_path / "images/gone.png"]
    decoded = list(decode_files(files, [WAY], num_workers=0))
    assert [bool(file.images) for file in decoded] == [True, False]
    assert "gone.png cannot be read" in decoded[1].error


def test_a_table_without_images_names_its_columns(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("patient,label\n1,0\n")
    with pytest.raises(DataError, match=r"list.csv has no column that names images: .*patient, label"):
        named(table)


def test_an_archive_is_read_without_being_unpacked_and_reaches_nothing_outside(tmp_path):
    outside = draw(tmp_path / "outside.png", 200).read_bytes()
    inside = draw(tmp_path / "inside.png", 50)
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(inside, "../outside.png")
        file.write(inside, "deep/a.png")
        file.writestr("readme.txt", "no image")
        file.writestr("__MACOSX/._a.png", "junk")
    before = sorted(tmp_path.iterdir())
    files = list(image_inputs([str(archive)]))
    assert [file.member for file in files] == ["../outside.png", "deep/a.png"]
    decoded = list(decode_files(files, [WAY], num_workers=0))
    assert {int(file.images[0].pixels[0, 0, 0]) for file in decoded} == {50}
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "outside.png").read_bytes() == outside


def test_a_member_that_unpacks_to_too_much_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("cxrlab.data.inputs._MOST_BYTES", 1000)
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(100_000))
    with pytest.raises(DataError, match=r"a.png has more than 1,000 bytes once it is unpacked"):
        next(image_inputs([str(archive)])).read()


def test_a_damaged_archive_is_named(tmp_path):
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", b"7" * 1000)
    data = bytearray(archive.read_bytes())
    data[40:60] = bytes(20)
    archive.write_bytes(data)
    (decoded,) = decode_files(image_inputs([str(archive)]), [WAY], num_workers=0)
    assert "a.png cannot be unpacked" in decoded.error


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_damaged_member_costs_no_other(tmp_path, kind):
    draw(tmp_path / "good.png", 9)
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w", kind) as file:
        file.writestr("a.png", np.random.default_rng(0).integers(0, 9, 5000, np.uint8).tobytes())
        file.write(tmp_path / "good.png", "b.png")
    data = bytearray(archive.read_bytes())
    data[60:90] = bytes(reversed(data[60:90]))
    archive.write_bytes(data)
    damaged, good = decode_files(image_inputs([str(archive)]), [WAY], num_workers=0)
    assert "a.png cannot be " in damaged.error  # unpacked; bzip2 tells it as the system would
    assert int(good.images[0].pixels[0, 0, 0]) == 9


def test_a_script_without_a_guard_decodes_in_processes_too(tmp_path):
    draw(tmp_path / "a.png", 7)
    script = tmp_path / "script.py"
    script.write_text(
        "from cxrlab.data.cache_worker import CacheSettings\n"
        "from cxrlab.data.decode_files import decode_files\n"
        "from cxrlab.data.inputs import image_inputs\n"
        f"files = image_inputs([{str(tmp_path / 'a.png')!r}])\n"
        "print([len(file.images) for file in decode_files(files, [CacheSettings(8, 1, 'pad')], num_workers=2)])\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout == "[1]\n", done.stderr


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"input=.*gone: there is no such file or folder"):
        named(tmp_path / "gone")


def test_a_name_stands_on_one_line(tmp_path):
    draw(tmp_path / "two\nlines.png")
    (name,) = named(tmp_path)
    assert "\n" not in name


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (decoded,) = decode_files([ImageFile("pipe.png", tmp_path / "pipe.png")], [WAY], num_workers=0)
    assert "it is no file" in decoded.error


@pytest.mark.parametrize("num_workers", [0, 2])
def test_files_come_in_their_order_whatever_is_wrong_with_some(tmp_path, num_workers):
    paths = []
    for number in range(40):
        path = tmp_path / f"{number:02d}.png"
        draw(path, number)
        if number % 7 == 3:
            path.write_bytes(b"garbage")
        paths.append(path)
    files = [ImageFile(path.name, path) for path in paths]
    decoded = list(decode_files(iter(files), [WAY, CacheSettings(8, 3, "pad")], num_workers=num_workers))
    assert [file.file for file in decoded] == files
    for number, file in enumerate(decoded):
        if number % 7 == 3:
            assert not file.images
            assert f"{number:02d}.png" in file.error
        else:
            assert [image.pixels.shape for image in file.images] == [(1, 16, 16), (3, 8, 8)]
            assert int(file.images[0].pixels[0, 0, 0]) == number


def test_files_are_not_read_far_ahead(tmp_path):
    draw(tmp_path / "a.png")
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield ImageFile("a.png", tmp_path / "a.png")

    decoded = decode_files(endless(), [WAY], num_workers=1)
    for _ in range(3):
        next(decoded)
    decoded.close()
    assert len(asked) < 40


def test_a_file_that_ends_its_process_costs_no_other_file(tmp_path):
    paths = [draw(tmp_path / f"{number}.png", number) for number in range(6)]
    files = [ImageFile(path.name, path) for path in paths]
    files.insert(3, _Deadly("deadly.png", tmp_path / "deadly.png"))
    decoded = list(decode_files(files, [WAY], num_workers=2))
    assert [file.file.name for file in decoded] == [file.name for file in files]
    assert [bool(file.images) for file in decoded] == [True] * 3 + [False] + [True] * 3
    assert "crashes the program that decodes it" in decoded[3].error


class _Deadly(ImageFile):
    def read(self) -> bytes:
        os.kill(os.getpid(), 9)
        return b""
