import json
import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrlab.data import cache
from cxrlab.data.cache import DONE, CacheSettings, ImageCache, fill, open_cache
from cxrlab.data.decode import RESIZES, decode
from cxrlab.errors import OutputError

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
