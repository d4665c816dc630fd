import os
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


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_a_worker_that_is_killed_is_an_error_that_names_the_file(
    tmp_path: Path, large_root: Path, dying_decoder, name: str
):
    dying_decoder(f"os.kill(os.getpid(), signal.{name})")
    cache = opened(tmp_path / "cache", large_root)
    with pytest.raises(DataError, match=rf"was killed by {name} at .*150 é.png.*start again"):
        fill(cache, np.arange(COUNT), num_workers=2, shows_progress=False)
    fill(cache, np.arange(COUNT), num_workers=0, shows_progress=False)
    check_pixels(cache)


def test_a_fault_of_the_program_in_a_worker_is_told_as_it_is(tmp_path: Path, large_root: Path, dying_decoder):
    dying_decoder("raise ZeroDivisionError('a fault of ours')")
    cache = opened(tmp_path / "cache", large_root)
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
