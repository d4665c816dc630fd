import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cxrlab.data.cache import DONE, EMPTY, UNREADABLE, CacheSettings, ImageCache, fill, open_cache
from cxrlab.data.decode import decode
from cxrlab.errors import DataError

SETTINGS = CacheSettings(image_size=64, channels=1, resize="stretch")
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


def opened(folder: Path, root: Path) -> ImageCache:
    return open_cache(folder, root, sorted(path.name for path in root.iterdir()), SETTINGS, "set")


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
    cache = opened(tmp_path, large_root)
    left = len(cache.missing(np.arange(COUNT)))
    assert 0 < left <= COUNT - 40, "it was killed too late or too early to show anything"
    assert fill(cache, np.arange(COUNT), num_workers=0, shows_progress=False) == left
    check_pixels(cache)


def test_pixels_that_a_power_cut_lost_are_decoded_again(tmp_path: Path, large_root: Path):
    cache = opened(tmp_path, large_root)
    fill(cache, np.arange(COUNT), num_workers=0, shows_progress=False)
    cache.unfinished_path.touch()
    cache.pixels("r+")[[7, 200]] = 0
    assert fill(cache, np.arange(COUNT), num_workers=0, shows_progress=False) == 2
    assert not cache.unfinished_path.exists()
    check_pixels(cache)


def test_two_processes_that_start_together_fill_it_once(tmp_path: Path, large_root: Path):
    processes = [start(tmp_path, large_root, 1) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted(int(out) for out, _ in outputs) == [0, COUNT]
    check_pixels(opened(tmp_path, large_root))


def test_only_the_rows_asked_for_are_decoded(tmp_path: Path, large_root: Path):
    cache = opened(tmp_path, large_root)
    assert fill(cache, np.array([5, 9]), num_workers=0, shows_progress=False) == 2
    assert np.flatnonzero(cache.facts()["state"] == DONE).tolist() == [5, 9]
    assert fill(cache, np.array([9, 11]), num_workers=0, shows_progress=False) == 1


def test_unreadable_images_are_recorded_and_only_absent_ones_tried_again(
    tmp_path: Path, make_images: Callable[..., Path]
):
    root = make_images(3)
    (root / "000.png").write_bytes(b"")
    (root / "001.png").write_text("no image")
    cache = open_cache(tmp_path / "c", root, ["000.png", "001.png", "002.png", "gone.png"], SETTINGS, "set")
    assert fill(cache, np.arange(4), num_workers=0, shows_progress=False) == 4
    assert (cache.facts()["state"] == [UNREADABLE, UNREADABLE, DONE, EMPTY]).all()
    table = cache.table(np.arange(4))
    assert "000.png" in table["error"][0]
    assert "001.png" in table["error"][1]
    assert table["error"][2] == ""
    assert "gone.png" in table["error"][3]
    assert fill(cache, np.arange(4), num_workers=0, shows_progress=False) == 1


@pytest.fixture
def crashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have the workers kill themselves by a signal when they come to the image 150."""

    def install(name: str) -> None:
        script = tmp_path / "worker.py"
        script.write_text(
            "import os, signal, sys\nfrom pathlib import Path\nfrom cxrlab.data import cache_worker as worker\n"
            "original = worker.read_image\n"
            "def read_image(path, **options):\n"
            f"    if path.name.startswith('150'): os.kill(os.getpid(), signal.{name})\n"
            "    return original(path, **options)\n"
            "worker.read_image = read_image\n"
            "worker.main(Path(sys.argv[-2]), Path(sys.argv[-1]))\n"
        )
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))

    return install


def test_a_file_that_crashes_the_decoder_counts_as_unreadable(tmp_path: Path, large_root: Path, crashing):
    crashing("SIGSEGV")
    cache = opened(tmp_path / "cache", large_root)
    fill(cache, np.arange(COUNT), num_workers=2, shows_progress=False)
    assert np.flatnonzero(cache.facts()["state"] != DONE).tolist() == [150]
    assert "the decoder crashed on it (SIGSEGV)" in cache.table(np.array([150]))["error"][0]
    assert fill(cache, np.arange(COUNT), num_workers=2, shows_progress=False) == 0


def test_a_worker_that_is_killed_is_an_error_that_names_the_file(tmp_path: Path, large_root: Path, crashing):
    crashing("SIGKILL")
    cache = opened(tmp_path / "cache", large_root)
    with pytest.raises(DataError, match=r"killed by SIGKILL at .*150 é.png.*Start again to go on"):
        fill(cache, np.arange(COUNT), num_workers=2, shows_progress=False)
    fill(cache, np.arange(COUNT), num_workers=0, shows_progress=False)
    check_pixels(cache)


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
    cache = opened(tmp_path, large_root)
    fill(cache, np.arange(COUNT), num_workers=0, shows_progress=False)
    check_pixels(cache)


def test_the_root_may_be_read_only(tmp_path: Path, make_images: Callable[..., Path]):
    root = make_images(3)
    root.chmod(0o555)
    try:
        cache = open_cache(tmp_path / "c", root, ["000.png"], SETTINGS, "set")
        assert fill(cache, np.arange(1), num_workers=0, shows_progress=False) == 1
    finally:
        root.chmod(0o755)


def test_the_progress_says_how_fast_it_goes(tmp_path: Path, make_images: Callable[..., Path], capsys):
    root = make_images(64)
    cache = open_cache(tmp_path / "c", root, sorted(p.name for p in root.iterdir()), SETTINGS, "set")
    fill(cache, np.arange(64), num_workers=0)
    shown = capsys.readouterr()
    assert "Decoding images" in shown.err
    assert shown.out == ""
