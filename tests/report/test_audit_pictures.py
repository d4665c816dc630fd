import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlab.data.manifest import Manifest
from cxrlab.report.audit_page import animate, file_names, sample_rows, strip


def manifest(patients: list[str], present: list[float]) -> Manifest:
    images = [f"{row}.png" for row in range(len(patients))]
    return Manifest(
        Path("/data"),
        pd.DataFrame({"image": images, "patient": patients, "split": "", "label/Edema": present}),
    )


def test_the_sample_is_of_the_label_seeded_and_of_many_patients():
    data = manifest(["a"] * 30 + ["b", "c", "d"], [1.0] * 32 + [0.0])
    rows = np.arange(33)
    chosen = sample_rows(data, "Edema", rows, count=5, seed=3)
    assert chosen == sample_rows(data, "Edema", rows, count=5, seed=3)
    assert chosen != sample_rows(data, "Edema", rows, count=5, seed=4)
    assert {30, 31} < set(chosen[:3])
    assert len(set(chosen)) == 5
    assert 32 not in chosen
    assert sample_rows(data, "Edema", np.array([32]), count=5, seed=3) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_a_strip_holds_the_images_in_the_order_asked_for(channels):
    pixels = np.stack([np.full((channels, 32, 32), 50 * row, np.uint8) for row in range(5)])
    sheet = np.asarray(Image.open(io.BytesIO(strip(pixels, [4, 0, 2], side=64))).convert("L")).astype(int)
    assert sheet.shape == (64, 3 * 68 - 4)
    assert [abs(sheet[32, place] - grey) <= 2 for place, grey in ((32, 200), (100, 0), (168, 100))] == [
        True
    ] * 3


def test_an_animation_has_the_first_hundred_images_and_stays_below_two_megabytes(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (120, 1, 128, 128), dtype=np.uint8)
    animate(pixels, list(range(120)), tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 100
        assert gif.size == (112, 112)
        assert gif.info["loop"] == 0
    assert (tmp_path / "a.gif").stat().st_size < 2e6  # noise: the worst there is


def test_coloured_images_keep_their_colour(tmp_path):
    pixels = np.zeros((2, 3, 32, 32), np.uint8)
    pixels[:, 0] = 200
    animate(pixels, [0, 1], tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.convert("RGB").getpixel((5, 5)) == (200, 0, 0)


def test_file_names_are_safe_and_different():
    names = file_names(["../../etc/passwd", "Edema", "edema", "<b>", "", "..", "é"])
    assert all("/" not in name and "." not in name and name for name in names.values())
    assert len({name.lower() for name in names.values()}) == len(names)
    assert names["Edema"] == "Edema"
