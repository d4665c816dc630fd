import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlab.data.audit.run_audit import audit
from cxrlab.data.image_statistics import Appearance, measure
from cxrlab.data.manifest import Manifest
from cxrlab.errors import OutputError
from cxrlab.report.audit_page import animate, file_names, sample_rows, strip, write_audit_page

EVIL = "<script>alert(1)</script>"


def planted():
    """A small set with a duplicate across parts, an empty and an unreadable image, and names that bite."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 1, 32, 32), dtype=np.uint8)
    pixels[3] = 0
    table = pd.DataFrame(
        {
            "image": [f"secret/{EVIL}{row}.png" for row in range(40)],
            "patient": [f"patient-{row // 2}" for row in range(40)],
            "split": "",
            "part": ["train"] * 21 + ["test"] * 19,
            "covariate/age": np.linspace(20, 80, 40),
            f"covariate/{EVIL}": EVIL,
            "label/Edema": [0.0, 1.0] * 20,
            f"label/{EVIL}": [0.0, 0.0, 1.0, 1.0] * 10,
        }
    )
    facts = pd.DataFrame([measure(image) for image in pixels], columns=list(Appearance._fields))
    facts = facts.assign(
        error="", warning="", digest="", width=32, height=32, mode="L", depth=8, levels=200, polarity=0.8
    )
    facts.loc[5, "error"] = "secret/5.png is broken"
    manifest = Manifest(Path("/secret/root"), table, name=EVIL)
    pairs = pd.DataFrame({"one": [0, 5], "other": [30, 6]})
    report = audit(
        manifest, facts, identical=[[1, 2]], pairs=pairs, missing=["secret/x"], extra=["secret/y"], raw=None
    )
    return report, manifest, pixels, facts


def test_the_page_stands_alone_is_escaped_and_shows_the_pictures(tmp_path):
    report, manifest, pixels, facts = planted()
    write_audit_page(report, manifest, pixels, facts, tmp_path / "audit.html", images=True)
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "src=" in page
    assert page.count('src="data:image/') == page.count("src=")
    # Two pairs (that of the unreadable image is left out), two labels and none, and the strip of the empty image.
    assert page.count("data:image/jpeg") == 2 + 3 + 1
    assert page.count("data:image/png") == 6
    assert {path.name for path in tmp_path.glob("*.gif")} == {
        "Edema.gif", "script_alert_1_script.gif", "none_of_the_labels.gif"
    }  # fmt: skip
    assert 'href="Edema.gif"' in page
    assert "patient-10" in page
    assert "secret/5.png is broken" in page
    assert "/secret/root" not in page


@pytest.mark.parametrize(("negative", "name"), [("Uninfected", "Uninfected"), ("", "no_Edema")])
def test_images_without_the_one_label_are_shown_and_called_by_their_name(tmp_path, negative, name):
    report, manifest, pixels, facts = planted()
    manifest = replace(manifest.select_labels(["Edema"]), negative=negative)
    write_audit_page(report, manifest, pixels, facts, tmp_path / "audit.html", images=True)
    assert {path.name for path in tmp_path.glob("*.gif")} == {"Edema.gif", f"{name}.gif"}
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    shown = page[page.index(f"<b>{name.replace('_', ' ')}</b>") :].partition("</figcaption>")[0]
    rows = [int(number) for number in re.findall(r"(\d+)\.png", shown)]
    assert len(rows) == 8
    assert not manifest.targets[rows].any()


def test_without_images_the_folder_s_name_is_left_out_and_a_given_one_is_shown(tmp_path):
    report, manifest, pixels, facts = planted()
    report = replace(report, data=replace(report.data, name="DOE_JANE_1970"))
    path = tmp_path / "audit.html"
    for is_named in (True, False):
        write_audit_page(report, manifest, pixels, facts, path, images=False, is_named=is_named)
        assert ("DOE_JANE_1970" in path.read_text(encoding="utf-8")) is is_named


def test_without_images_no_picture_name_or_patient_is_in_it(tmp_path):
    report, manifest, pixels, facts = planted()
    write_audit_page(report, manifest, pixels, facts, tmp_path / "audit.html", images=False)
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "secret" not in page
    assert "patient-" not in page
    assert "data:image/jpeg" not in page
    assert list(tmp_path.iterdir()) == [tmp_path / "audit.html"]
    assert "1 file cannot be read." in page


def test_the_page_of_an_unsplit_set_with_one_label(tmp_path):
    _, manifest, pixels, facts = planted()
    table = manifest.table[["image", "patient", "split", "label/Edema"]]
    single = Manifest(Path("/data"), table)
    none = pd.DataFrame({"one": [], "other": []}, dtype=int)
    report = audit(single, facts, identical=[], pairs=none, missing=0, extra=[], raw=None)
    write_audit_page(report, single, pixels, facts, tmp_path / "audit.html", images=True)
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "<title>Audit of a data set</title>" in page
    assert "one population" not in page
    assert page.count("data:image/png") == 3


def test_a_folder_that_is_not_there_is_told(tmp_path):
    report, manifest, pixels, facts = planted()
    with pytest.raises(OutputError, match="nowhere"):
        write_audit_page(report, manifest, pixels, facts, tmp_path / "nowhere" / "audit.html", images=True)


def manifest(patients: list[str], present: list[float]) -> Manifest:
    images = [f"{row}.png" for row in range(len(patients))]
    return Manifest(
        Path("/data"),
        pd.DataFrame({"image": images, "patient": patients, "split": "", "label/Edema": present}),
    )


def test_the_sample_is_seeded_and_of_many_patients():
    data = manifest(["a"] * 30 + ["b", "c", "d"], [1.0] * 32 + [0.0])
    rows = np.flatnonzero(data.targets[:, 0] == 1)
    chosen = sample_rows(data, rows, count=5, seed=3)
    assert chosen == sample_rows(data, rows, count=5, seed=3)
    assert chosen != sample_rows(data, rows, count=5, seed=4)
    assert {30, 31} < set(chosen[:3])
    assert len(set(chosen)) == 5
    assert 32 not in chosen
    assert sample_rows(data, rows[:0], count=5, seed=3) == []


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
