import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrlab.data import cache, cache_worker
from cxrlab.data.cache import DONE, EMPTY, UNREADABLE, CacheSettings, ImageCache, fill, open_cache
from cxrlab.data.decode import RESIZES, ImageAccessError, decode
from cxrlab.errors import DataError, MissingFileError, MissingPackageError, OutputError, UserError

SETTINGS = CacheSettings(image_size=32, channels=1, resize="stretch")
ALL = np.arange


@pytest.fixture
def root(make_images: Callable[..., Path]) -> Path:
    return make_images(6)


def opened(tmp_path: Path, root: Path, settings: CacheSettings = SETTINGS) -> ImageCache:
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    return open_cache(tmp_path / "cache", root, files, settings, "set")


def filled(tmp_path: Path, root: Path, settings: CacheSettings = SETTINGS) -> ImageCache:
    cache = opened(tmp_path, root, settings)
    fill(cache, ALL(len(cache.files)), num_workers=0, shows_progress=False)
    return cache


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_cached_image_is_the_fresh_one_to_the_bit(tmp_path: Path, root: Path, resize: str, channels: int):
    cache = filled(tmp_path, root, CacheSettings(40, channels, resize))
    for row, file in enumerate(cache.files):
        fresh = decode(root / file, image_size=40, channels=channels, resize=resize)  # type: ignore[arg-type]
        np.testing.assert_array_equal(cache.pixels()[row], fresh)


@pytest.mark.real_data
def test_real_images_are_cached_to_the_bit(tmp_path: Path, real_data: Path):
    folders = ("nih_fullres/images", "chest_xray_fullres/PNEUMONIA", "dicom")
    files = [f"{folder}/{path.name}" for folder in folders for path in sorted((real_data / folder).iterdir())]
    cache = open_cache(tmp_path, real_data, files, CacheSettings(224, 1, "pad"), "real")
    fill(cache, ALL(len(files)), num_workers=0, shows_progress=False)
    assert (cache.facts()["state"] == DONE).all()
    for row, file in enumerate(files):
        fresh = decode(real_data / file, image_size=224, channels=1, resize="pad")
        np.testing.assert_array_equal(cache.pixels()[row], fresh)


def test_the_same_files_have_the_same_cache_and_are_decoded_once(tmp_path: Path, root: Path):
    cache = filled(tmp_path, root)
    again = opened(tmp_path, root)
    assert again.folder == cache.folder
    assert fill(again, ALL(6), num_workers=0, shows_progress=False) == 0


@pytest.mark.parametrize(
    "settings",
    [CacheSettings(33, 1, "stretch"), CacheSettings(32, 3, "stretch"), CacheSettings(32, 1, "pad")],
)
def test_other_settings_have_another_cache(tmp_path: Path, root: Path, settings: CacheSettings):
    first, other = filled(tmp_path, root), opened(tmp_path, root, settings)
    assert first.folder != other.folder
    assert first.folder.is_dir()


@pytest.mark.parametrize("damage", ["pixels.npy", "facts.npy", "files.json"])
@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, root: Path, damage: str, how: str):
    cache = filled(tmp_path, root)
    path = cache.folder / damage
    path.unlink() if how == "missing" else path.write_bytes(path.read_bytes()[:150])
    again = filled(tmp_path, root)
    assert again.folder == cache.folder
    assert (again.facts()["state"] == DONE).all()
    np.testing.assert_array_equal(
        again.pixels()[3], decode(root / again.files[3], image_size=32, channels=1, resize="stretch")
    )


def test_another_cache_that_is_damaged_does_not_matter(tmp_path: Path, root: Path, make_images):
    (filled(tmp_path, root).folder / "files.json").write_text("{")
    assert len(filled(tmp_path, make_images(4, name="other")).files) == 4


def test_what_was_cut_off_while_it_was_made_is_removed(tmp_path: Path, root: Path):
    cache = opened(tmp_path, root)
    left = cache.folder.with_name(f".{cache.folder.name}-12345678")
    cache.folder.rename(left)
    opened(tmp_path, root)
    assert not left.exists()


def test_the_same_files_under_another_name_share_the_cache(tmp_path: Path, root: Path):
    first = filled(tmp_path, root)
    other = open_cache(tmp_path / "cache", root, first.files, SETTINGS, "a/b")
    assert other.folder == first.folder


def test_a_read_only_cache_that_is_complete_is_used(tmp_path: Path, root: Path):
    cache = filled(tmp_path, root)
    for path in (*cache.folder.iterdir(), cache.folder, cache.folder.parent):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        again = opened(tmp_path, root)
        assert fill(again, ALL(6), num_workers=0, shows_progress=False) == 0
        assert again.pixels().shape == (6, 1, 32, 32)
    finally:
        cache.folder.parent.chmod(0o755)
        cache.folder.chmod(0o755)


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path: Path, root: Path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot be written to .*cache.*data.cache_dir"):
        opened(tmp_path, root)


def test_the_table_says_what_each_file_is(tmp_path: Path, root: Path):
    Image.new("RGBA", (30, 20)).save(root / "z.png")
    table = filled(tmp_path, root).table(np.array([6, 0]))
    assert table[["width", "height", "mode", "error"]].values.tolist() == [
        [30, 20, "RGBA", ""],
        [48, 48, "L", ""],
    ]
    assert table["digest"].str.len().tolist() == [32, 32]


def test_the_description_can_be_read_by_anyone(tmp_path: Path, root: Path):
    cache = opened(tmp_path, root)
    described = json.loads((cache.folder / "files.json").read_text())
    assert described["files"] == list(cache.files)
    assert (described["image_size"], described["channels"], described["resize"]) == (32, 1, "stretch")


def test_a_file_that_changes_gives_another_cache_and_leaves_the_old_one(tmp_path: Path, root: Path):
    old = filled(tmp_path, root)
    before = old.pixels()[2].copy()
    Image.fromarray(np.full((50, 50), 77, dtype=np.uint8)).save(root / old.files[2])
    new = filled(tmp_path, root)
    assert new.folder != old.folder
    assert np.unique(new.pixels()[2]).tolist() == [77]
    np.testing.assert_array_equal(opened_again(old).pixels()[2], before)
    os.utime(root / old.files[0], ns=(1, 1))
    assert len(opened(tmp_path, root).missing(ALL(6))) == 6


def opened_again(cache: ImageCache) -> ImageCache:
    return ImageCache(cache.folder, cache.root, cache.files, cache.settings)


def test_a_folder_with_the_same_relative_name_is_another(tmp_path: Path, make_images, monkeypatch):
    caches = []
    for number, name in ((5, "one"), (6, "two")):
        (tmp_path / name).mkdir()
        make_images(number, name=f"{name}/data")
        monkeypatch.chdir(tmp_path / name)
        files = sorted(path.name for path in Path("data").iterdir())
        caches.append(open_cache(tmp_path / "cache", Path("data"), files, SETTINGS, "set"))
        fill(caches[-1], ALL(len(files)), num_workers=0, shows_progress=False)
    assert caches[0].folder != caches[1].folder
    assert (caches[0].facts()["state"] == DONE).all()


def test_a_disk_that_is_too_small_is_told_before_anything_is_decoded(tmp_path: Path, root: Path, monkeypatch):
    cache_of = opened(tmp_path, root)
    monkeypatch.setattr(cache, "_num_free", lambda _: 5000)
    with pytest.raises(OutputError, match=r"needs [\d,]+ bytes; 5,000 are free there.*data.cache_dir"):
        fill(cache_of, ALL(6), num_workers=0, shows_progress=False)
    assert len(cache_of.missing(ALL(6))) == 6


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_disk_that_fills_up_meanwhile_is_told(tmp_path: Path, root: Path, num_workers: int):
    cache_of = opened(tmp_path, root)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Below the pixels of the third image: a write beyond it fails, as on a full disk; workers inherit it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2500, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot be written.*needs [\d,]+ bytes; .*data.cache_dir"):
            fill(cache_of, ALL(6), num_workers=num_workers, shows_progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_damaged_images_are_found_by_a_sample_and_decoded_again(tmp_path: Path, root: Path, caplog):
    cache_of = filled(tmp_path, root)
    cache_of.pixels("r+")[[1, 4]] = 0
    again = opened(tmp_path, root)
    with caplog.at_level("WARNING", logger="cxrlab"):
        assert fill(again, ALL(6), num_workers=0, shows_progress=False) == 2
    assert "2 images" in caplog.text
    assert not len(again.damaged(ALL(6)))
    fresh = decode(root / again.files[4], image_size=32, channels=1, resize="stretch")
    np.testing.assert_array_equal(again.pixels()[4], fresh)


def exchange(one: Path, other: Path, *, how: str) -> None:
    """Put one image's content in the place of another of the same size, with its time, as a tool does."""
    status = other.stat()
    if how == "written in place":
        other.write_bytes(one.read_bytes())
    elif how == "renamed":  # rsync -t, unzip
        part = other.with_suffix(".part")
        part.write_bytes(one.read_bytes())
        part.replace(other)
    else:
        other.unlink()
        os.link(one, other)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def uncompressed(tmp_path: Path) -> Path:
    """Twelve images of one size and time, as bitmaps have it."""
    folder = tmp_path / "bitmaps"
    folder.mkdir()
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (20, 24), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:02d}.png", "BMP")
        os.utime(folder / f"{number:02d}.png", ns=(10**18, 10**18))
    return folder


@pytest.mark.parametrize("how", ["written in place", "renamed", "linked"])
def test_exchanged_files_of_the_same_size_and_time_are_decoded_again(
    tmp_path: Path, uncompressed: Path, how: str, caplog
):
    old = filled(tmp_path, uncompressed)
    before = old.pixels().copy()
    exchange(uncompressed / "03.png", uncompressed / "07.png", how=how)
    new = opened(tmp_path, uncompressed)
    assert new.folder == old.folder
    assert fill(new, ALL(12), num_workers=0, shows_progress=False) == 1
    assert "1 images below" in caplog.text
    assert "are others than were decoded, with the same names, sizes and times" in caplog.text
    np.testing.assert_array_equal(new.pixels()[7], before[3])
    assert fill(opened(tmp_path, uncompressed), ALL(12), num_workers=0, shows_progress=False) == 0


def test_exchanged_files_are_noticed_where_no_file_system_says_so(
    tmp_path: Path, uncompressed: Path, monkeypatch
):
    monkeypatch.setattr(cache_worker, "changed_at", lambda path: 7)
    monkeypatch.setattr(cache, "_stamp", lambda path: (1, 1, 7))
    filled(tmp_path, uncompressed)
    contents = [path.read_bytes() for path in sorted(uncompressed.iterdir())]
    for path, content in zip(sorted(uncompressed.iterdir()), contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)
    assert fill(opened(tmp_path, uncompressed), ALL(12), num_workers=0, shows_progress=False) == 12


def test_files_that_were_only_touched_are_read_once_and_not_decoded(
    tmp_path: Path, uncompressed: Path, monkeypatch
):
    filled(tmp_path, uncompressed)
    for path in uncompressed.iterdir():
        path.chmod(0o640)
    assert fill(opened(tmp_path, uncompressed), ALL(12), num_workers=0, shows_progress=False) == 0
    read = []
    digest = cache._digest
    monkeypatch.setattr(cache, "_digest", lambda path: read.append(path) or digest(path))
    monkeypatch.setattr(cache, "_NUM_CHECKED", 1)
    assert fill(opened(tmp_path, uncompressed), ALL(12), num_workers=0, shows_progress=False) == 0
    assert len(read) == 1


def test_a_copy_of_the_data_set_with_other_pictures_is_another(tmp_path: Path, uncompressed: Path):
    filled(tmp_path, uncompressed)
    copy = tmp_path / "elsewhere" / "bitmaps"
    shutil.copytree(uncompressed, copy)
    exchange(copy / "01.png", copy / "02.png", how="renamed")
    assert fill(opened(tmp_path, copy), ALL(12), num_workers=0, shows_progress=False) == 1


def test_an_unreadable_file_that_was_mended_is_tried_again(tmp_path: Path, uncompressed: Path):
    good = (uncompressed / "04.png").read_bytes()
    status = (uncompressed / "04.png").stat()
    for content, state in ((bytes(len(good)), UNREADABLE), (good, DONE)):
        (uncompressed / "04.png").write_bytes(content)
        os.utime(uncompressed / "04.png", ns=(status.st_atime_ns, status.st_mtime_ns))
        assert filled(tmp_path, uncompressed).facts()["state"][4] == state


def damage(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


@pytest.mark.parametrize("num_bytes", [1, 3000])
def test_zeroed_pixels_are_decoded_again(tmp_path: Path, large_root: Path, num_bytes: int):
    cache_of = opened_large(tmp_path, large_root)
    fill(cache_of, np.arange(COUNT), num_workers=0, shows_progress=False)
    row_start = 128 + 201 * 64 * 64 + 700  # an image that no sample of a few takes
    with (cache_of.folder / "pixels.npy").open("rb") as file:
        file.seek(row_start)
        old = file.read(num_bytes)
    damage(cache_of.folder / "pixels.npy", row_start, bytes(byte ^ 255 for byte in old))
    again = opened_large(tmp_path, large_root)
    assert fill(again, np.arange(COUNT), num_workers=0, shows_progress=False) == 1
    check_pixels(again)


def test_bits_that_rot_are_noticed_the_next_day(tmp_path: Path, root: Path, monkeypatch):
    cache_of = filled(tmp_path, root)
    path = cache_of.folder / "pixels.npy"
    real = cache._stamps_of
    stamps = real(cache_of)
    damage(path, 128 + 2 * 32 * 32, bytes(500))
    monkeypatch.setattr(cache, "_stamps_of", lambda _: stamps)  # a failing disk leaves the times
    assert fill(opened(tmp_path, root), ALL(6), num_workers=0, shows_progress=False) == 0
    now = time.time()
    monkeypatch.setattr(cache.time, "time", lambda: now + 25 * 3600)
    assert fill(opened(tmp_path, root), ALL(6), num_workers=0, shows_progress=False) == 1


@pytest.mark.parametrize("name", ["facts.npy", "pixels.npy", "both"])
def test_facts_or_pixels_of_another_run_are_made_anew(tmp_path: Path, root: Path, make_images, name: str):
    mine = filled(tmp_path, root)
    rng = np.random.default_rng(5)
    other_root = tmp_path / "others"
    other_root.mkdir()
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (48, 48), dtype=np.uint8)).save(other_root / f"{number}.png")
    other = filled(tmp_path, other_root)
    for file in ("facts.npy", "pixels.npy") if name == "both" else (name,):
        shutil.copyfile(other.folder / file, mine.folder / file)
    again = filled(tmp_path, root)
    for row, file in enumerate(again.files):
        fresh = decode(root / file, image_size=32, channels=1, resize="stretch")
        np.testing.assert_array_equal(again.pixels()[row], fresh)
    assert (again.facts()["state"] == DONE).all()


@pytest.mark.parametrize("state", [UNREADABLE, EMPTY, 1, 77])
def test_states_that_were_changed_are_made_anew(tmp_path: Path, root: Path, state: int):
    filled(tmp_path, root).facts("r+")["state"][:] = state
    again = filled(tmp_path, root)
    assert (again.facts()["state"] == DONE).all()


@pytest.mark.parametrize("content", ["{}", "[]", "[1, 2]", "null", '"text"', '{"version": 2}'])
def test_a_description_that_says_something_else_makes_the_cache_anew(
    tmp_path: Path, root: Path, content: str
):
    old = filled(tmp_path, root)
    (old.folder / "files.json").write_text(content)
    again = filled(tmp_path, root)
    assert again.folder == old.folder
    assert json.loads((again.folder / "files.json").read_text())["files"] == list(again.files)
    (again.folder / "checked.json").write_text(content)
    assert fill(opened(tmp_path, root), ALL(6), num_workers=0, shows_progress=False) == 0


@pytest.mark.parametrize("name", ["pixels.npy", "facts.npy"])
def test_a_file_that_is_cut_while_it_is_filled_leaves_no_zeros(
    tmp_path: Path, large_root: Path, monkeypatch, name: str
):
    cache_of = opened_large(tmp_path, large_root)
    decoding, cuts = cache._here, iter([True])

    def cutting(*arguments):
        for number, count in enumerate(decoding(*arguments)):
            if number == 4 and next(cuts, False):
                path = cache_of.folder / name
                os.truncate(path, path.stat().st_size // 10)
            yield count

    monkeypatch.setattr(cache, "_here", cutting)
    fill(cache_of, np.arange(COUNT), num_workers=0, shows_progress=False)
    check_pixels(cache_of)


def test_a_disk_that_forgets_is_an_error_that_says_what_to_do(tmp_path: Path, root: Path, monkeypatch):
    monkeypatch.setattr(cache_worker.RowFile, "write", lambda self, row, values: None)
    with pytest.raises(OutputError, match=r"does not hold what is written to it.*data\.cache_dir"):
        filled(tmp_path, root)


def test_a_cache_that_is_cut_while_it_is_read_is_an_error_and_no_signal(tmp_path: Path, root: Path):
    cache_of = filled(tmp_path, root)
    assert cache_of.images[[5, 0]].shape == (2, 1, 32, 32)
    os.truncate(cache_of.folder / "pixels.npy", 3000)
    assert cache_of.images[[0]].shape == (1, 1, 32, 32)
    with pytest.raises(OutputError, match=r"pixels\.npy cannot be read: the file was cut while.*Start again"):
        cache_of.images[[0, 5]]
    assert filled(tmp_path, root).images[[5]].any()


def test_a_disk_must_have_room_to_spare(tmp_path: Path, root: Path, monkeypatch):
    cache_of = opened(tmp_path, root)
    monkeypatch.setattr(cache, "_num_free", lambda _: 2**26)
    with pytest.raises(OutputError, match=r"needs [\d,]+ bytes; 67,108,864 are free there"):
        fill(cache_of, ALL(6), num_workers=0, shows_progress=False)


LARGE = CacheSettings(image_size=64, channels=1, resize="stretch")
COUNT = 300
# Fills a cache in a process of its own, to be killed; prints how many images it decoded.
SCRIPT = """
import signal, sys, numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from pathlib import Path
from cxrlab.data.cache import CacheSettings
from cxrlab.data.cache import open_cache
from cxrlab.data.cache import fill
folder, root, workers = sys.argv[1:]
files = sorted(path.name for path in Path(root).iterdir())
cache = open_cache(Path(folder), Path(root), files, CacheSettings(64, 1, "stretch"), "set")
print(fill(cache, np.arange(len(files)), num_workers=int(workers), shows_progress=False))
"""


@pytest.fixture(scope="module")
def large_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of 256 x 256 pixels: enough work to be killed in."""
    from PIL import Image

    root = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (256, 256), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number:03d} é.png", compress_level=1)
    return root


def opened_large(folder: Path, root: Path) -> ImageCache:
    return open_cache(folder, root, sorted(path.name for path in root.iterdir()), LARGE, "set")


def start(folder: Path, root: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(folder), str(root), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check_pixels(cache: ImageCache) -> None:
    assert (cache.facts()["state"] == DONE).all()
    for row, file in enumerate(cache.files):
        fresh = decode(cache.root / file, image_size=64, channels=1, resize="stretch")
        np.testing.assert_array_equal(cache.pixels()[row], fresh, err_msg=file)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_filling_goes_on_where_it_was(tmp_path: Path, large_root: Path, workers: int):
    process = start(tmp_path, large_root, workers)
    done = 0
    while done < 40 and process.poll() is None:
        time.sleep(0.01)
        for path in tmp_path.glob("set-*/facts.npy"):
            done = int((np.load(path, mmap_mode="r")["state"] == DONE).sum())
    process.kill()
    process.communicate()
    time.sleep(0.3)  # its workers end with the chunk that they have
    cache = opened_large(tmp_path, large_root)
    left = len(cache.missing(np.arange(COUNT)))
    assert 0 < left <= COUNT - 40, "it was killed too late or too early to show anything"
    assert fill(cache, np.arange(COUNT), num_workers=0, shows_progress=False) == left
    check_pixels(cache)


def test_two_processes_that_start_together_fill_it_once(tmp_path: Path, large_root: Path):
    processes = [start(tmp_path, large_root, 1) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted(int(out) for out, _ in outputs) == [0, COUNT]
    check_pixels(opened_large(tmp_path, large_root))


def test_only_the_rows_asked_for_are_decoded(tmp_path: Path, large_root: Path):
    cache = opened_large(tmp_path, large_root)
    assert fill(cache, np.array([5, 9]), num_workers=0, shows_progress=False) == 2
    assert np.flatnonzero(cache.facts()["state"] == DONE).tolist() == [5, 9]
    assert fill(cache, np.array([9, 11]), num_workers=0, shows_progress=False) == 1


def test_unreadable_images_are_recorded_and_only_absent_ones_tried_again(
    tmp_path: Path, make_images: Callable[..., Path]
):
    root = make_images(3)
    (root / "000.png").write_bytes(b"")
    (root / "001.png").write_text("no image")
    cache = open_cache(tmp_path / "c", root, ["000.png", "001.png", "002.png", "gone.png"], LARGE, "set")
    assert fill(cache, np.arange(4), num_workers=0, shows_progress=False) == 4
    assert (cache.facts()["state"] == [UNREADABLE, UNREADABLE, DONE, EMPTY]).all()
    table = cache.table(np.arange(4))
    assert "000.png" in table["error"][0]
    assert "001.png" in table["error"][1]
    assert table["error"][2] == ""
    assert "gone.png" in table["error"][3]
    assert fill(cache, np.arange(4), num_workers=0, shows_progress=False) == 1


def test_ctrl_c_stops_the_workers_and_keeps_what_is_done(tmp_path: Path, large_root: Path):
    process = start(tmp_path, large_root, 2)
    while not any(
        (np.load(path, mmap_mode="r")["state"] == DONE).sum() > 20
        for path in tmp_path.glob("set-*/facts.npy")
    ):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    cache = opened_large(tmp_path, large_root)
    fill(cache, np.arange(COUNT), num_workers=0, shows_progress=False)
    check_pixels(cache)


def test_the_root_may_be_read_only(tmp_path: Path, make_images: Callable[..., Path]):
    root = make_images(3)
    root.chmod(0o555)
    try:
        cache = open_cache(tmp_path / "c", root, ["000.png"], LARGE, "set")
        assert fill(cache, np.arange(1), num_workers=0, shows_progress=False) == 1
    finally:
        root.chmod(0o755)


def test_the_progress_says_how_fast_it_goes(tmp_path: Path, make_images: Callable[..., Path], capsys):
    root = make_images(64)
    cache = open_cache(tmp_path / "c", root, sorted(p.name for p in root.iterdir()), LARGE, "set")
    fill(cache, np.arange(64), num_workers=0)
    shown = capsys.readouterr()
    assert "Decoding images" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_a_worker_that_is_killed_is_an_error_that_names_the_file(
    tmp_path: Path, large_root: Path, dying_decoder, name: str
):
    dying_decoder(f"os.kill(os.getpid(), signal.{name})")
    cache = opened_large(tmp_path / "cache", large_root)
    with pytest.raises(DataError, match=rf"was killed by {name} at .*150 é.png.*start again"):
        fill(cache, np.arange(COUNT), num_workers=2, shows_progress=False)
    fill(cache, np.arange(COUNT), num_workers=0, shows_progress=False)
    check_pixels(cache)


def test_a_worker_that_dies_once_is_no_fault_of_its_file(
    tmp_path: Path, large_root: Path, dying_decoder, caplog
):
    flag = tmp_path / "died"
    dying_decoder(
        f"(open({str(flag)!r}, 'x'), os.kill(os.getpid(), signal.SIGSEGV)) if not os.path.exists({str(flag)!r}) else 0"
    )
    cache = opened_large(tmp_path / "cache", large_root)
    assert fill(cache, np.arange(COUNT), num_workers=2, shows_progress=False) == COUNT
    assert "was killed by SIGSEGV at" in caplog.text
    assert "What is left is tried once more" in caplog.text
    check_pixels(cache)


def test_a_fault_of_the_program_in_a_worker_is_told_as_it_is(tmp_path: Path, large_root: Path, dying_decoder):
    dying_decoder("raise ZeroDivisionError('a fault of ours')")
    cache = opened_large(tmp_path / "cache", large_root)
    with pytest.raises(ZeroDivisionError, match="a fault of ours") as caught:
        fill(cache, np.arange(COUNT), num_workers=2, shows_progress=False)
    assert "cache_worker.py" in str(caught.value.__cause__)  # the worker's own traceback


@pytest.fixture
def dying_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have the workers, which are new processes, run a statement when they come to the image 150."""

    def install(statement: str) -> None:
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(
            "import os, signal, sys, importlib.abc\n"
            "class Finder(importlib.abc.MetaPathFinder):\n"
            "    def find_spec(self, name, path, target=None):\n"
            "        if name != 'cxrlab.data.cache_worker': return None\n"
            "        sys.meta_path.remove(self)\n"
            "        from cxrlab.data import decode\n"
            "        original = decode.read_image\n"
            "        def read_image(path, **options):\n"
            f"            if path.name.startswith('150'): {statement}\n"
            "            return original(path, **options)\n"
            "        decode.read_image = read_image\n"
            "sys.meta_path.insert(0, Finder())\n"
        )
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    return install


def test_workers_end_when_the_main_process_is_killed(tmp_path: Path, large_root: Path):
    process = start(tmp_path, large_root, 2)
    children: list[int] = []
    while len(children) < 2:
        assert process.poll() is None
        time.sleep(0.05)
        children = children_of(process.pid)
    process.kill()
    process.communicate()
    for _ in range(100):
        if not any(Path(f"/proc/{child}").exists() for child in children):
            return
        time.sleep(0.1)
    pytest.fail(f"{children} live on")


def children_of(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    if not listed.exists():
        pytest.skip("this system does not list the children of a process")
    return [int(child) for child in listed.read_text().split()]


def test_a_script_without_a_guard_is_not_started_by_its_workers(tmp_path: Path, large_root: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "cache"), str(large_root), "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(COUNT)), done.stderr


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (MissingPackageError("DICOM files need pydicom"), EMPTY),
        (ImageAccessError("Input/output error"), EMPTY),
        (MissingFileError("There is no image"), EMPTY),
        (DataError("it is empty"), UNREADABLE),
    ],
)
def test_what_may_pass_is_tried_again(tmp_path: Path, root: Path, monkeypatch, error: UserError, state: int):
    def read_image(path: Path, **_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(cache_worker, "read_image", read_image)
        images = filled(tmp_path, root)
    assert (images.facts()["state"] == state).all()
    assert (images.table(ALL(6))["error"] == str(error)).all()
    assert fill(images, ALL(6), num_workers=0, shows_progress=False) == (6 if state == EMPTY else 0)
