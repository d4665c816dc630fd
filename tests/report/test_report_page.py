import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cxrlab.errors import OutputError
from cxrlab.report import evaluation_page
from cxrlab.report.evaluation_page import write_report
from cxrlab.report.model_info import ModelInfo, Panel, TrainingData

EVIL = "<script>alert('1')</script>\" onload=\"x"
LABELS = ("Edema", "Nodule/Mass", EVIL)
SECRETS = ("jane", "Doe", "p-007", "00013_001", ".png", "secret", "hospital_x")
JPEG = b"\xff\xd8" + bytes(range(256)) * 40


def panels():
    cases = (("FP", 0.9, 0.0), ("FN", 0.1, 1.0), ("TP", 0.99, 1.0), ("TN", 0.2, 0.0))
    return [
        Panel(finding=label, outcome=outcome, probability=p, target=target, image=f"p-007/00013_001{EVIL}.png", jpeg=JPEG)
        for label in LABELS
        for outcome, p, target in cases
    ]  # fmt: skip


def model_info():
    found = {"severity": "warning", "message": "2 images are nearly the same.", "kind": "near", "count": 2, "images": ["p-007/00013_001.png"],
             "patients": ["p-007"], "details": ["secret"]}  # fmt: skip
    session = {"command": ["python", "-m", "cxrlab.train", "data=table", "data.root=/data/jane Doe/x", "+data.split.file=secret.csv"],
               "versions": {"cxrlab": "0.1.0", EVIL: "1"}, "commit": "c0ffee", "hardware": {"cores": 2}, "seconds": {"fit": 3.0},
               "data": {"name": "table", "fingerprint": "f00d", "split": {"method": "file", "file": "secret.csv"}}}  # fmt: skip
    evaluated = {
        "command": ["python", "-m", "cxrlab.evaluate", "run=outputs/jane/2026-01-01"],
        "seconds": {"everything": 9.0},
    }
    return ModelInfo(
        title="resnet10t on /data/hospital_x", kind="run", network="resnet10t",
        trained_on=TrainingData(name="table", parts={"train": (840, 280), "val": (120, 40)}),
        config={"data": {"root": "/data/jane Doe/x", "image_size": 64}, "evil": EVIL},
        audit={"findings": [found]}, provenance=session, evaluated=evaluated, panels=panels(),
        metrics=pd.DataFrame({"epoch": np.arange(3), "train/loss": [3.0, 2.0, 1.0], "val/auroc": [0.6, 0.7, 0.8]}),
        notes=["Labels come from /data/jane/labels.csv.", EVIL],
    )  # fmt: skip


@pytest.fixture(scope="module")
def numbers(sample_numbers):
    numbers = sample_numbers(LABELS)
    numbers["data"] |= {"name": EVIL, "source": "/data/jane Doe/x/secret.csv"}
    for row in numbers["subgroups"]:
        row["group"] = f"{row['group']}{EVIL}"
    return numbers


@pytest.fixture(scope="module")
def folders(tmp_path_factory, numbers, sample_curves):
    """The same report with images, for speed without figures, and without images."""
    root, curves = tmp_path_factory.mktemp("report"), sample_curves(LABELS)
    write_report(root / "False", numbers, curves, model_info(), images=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation_page, "report_figures", lambda *_: {})
        write_report(root / "True", numbers, curves, model_info(), images=True)
    return root


class Attributes(HTMLParser):
    """All attributes of a page, and the names of its elements."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.attributes = set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.attributes += attrs


def read(folder, name="report.html"):
    return (folder / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("images", ["True", "False"])
def test_the_page_stands_alone_and_is_escaped(folders, images):
    page = read(folders / images)
    assert "&lt;script&gt;" in page
    found = Attributes(page)
    assert not found.elements & {"script", "iframe", "object", "embed", "form"}
    assert [name for name, _ in found.attributes if name.startswith("on")] == []
    fetched = [
        value for name, value in found.attributes if name.rpartition(":")[2] in ("src", "href", "srcset")
    ]
    assert [value for value in fetched if not value.startswith(("data:", "#"))] == []
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page
    assert len(page.encode()) < 5_000_000


def test_every_anchor_has_its_place(folders):
    page = read(folders / "False")
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    anchors = re.findall(r'<a href="#([^"]+)"', page)
    assert anchors == [
        "audit",
        "labels",
        "curves",
        "calibration",
        "confusion",
        "subgroups",
        "learning",
        "repeat",
        "card",
    ]
    assert "heatmaps" in re.findall(r'<a href="#([^"]+)"', read(folders / "True"))
    assert set(anchors) <= set(ids)
    places = [page.index(f'id="{anchor}"') for anchor in anchors]
    assert places == sorted(places)


def test_the_page_with_images_shows_them_and_names_them(folders):
    page = read(folders / "True")
    assert page.count("data:image/jpeg;base64,") == 3 * len(LABELS)
    assert "p-007/00013_001" in page
    assert "data.root=/data/jane Doe/x" in page
    assert "python -m cxrlab.evaluate" in page
    assert "Audit: 1 warning" in page
    assert "c0ffee" in page


def test_without_images_no_picture_name_patient_or_path_is_anywhere(folders):
    page, card = read(folders / "False"), read(folders / "False", "model_card.md")
    for text in (re.sub(r"model_card\.md|audit\.json", "", page), card):
        assert "data:image/jpeg" not in text
        assert [secret for secret in SECRETS if secret in text] == []
        assert "Nodule/Mass" in text
    assert "data.root=\u2026" in page
    assert "heatmaps" not in re.findall(r'<a href="#([^"]+)"', page)
    assert "python -m cxrlab.train data=table" in page


def test_the_model_card_never_holds_a_path(folders):
    card = read(folders / "True", "model_card.md")
    assert card.startswith("# Model card: resnet10t on \u2026\n")
    assert [secret for secret in SECRETS if secret in card] == []
    assert "<script" not in card
    assert "&lt;script&gt;" in card
    assert "## Intended use\n" in card
    assert card.endswith("\n")
    assert "\n\n\n" not in card


def test_the_figures_lie_beside_the_page(folders):
    names = sorted(path.stem for path in (folders / "False" / "figures").iterdir())
    assert names == [
        "auroc_by_label",
        "confusion",
        "forest",
        "learning_curves",
        "precision_recall",
        "reliability",
        "roc",
    ]
    assert read(folders / "False").count("<svg") == len(names)
    assert sorted(path.name for path in (folders / "False").iterdir()) == [
        "figures",
        "model_card.md",
        "report.html",
    ]


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes seconds, and these tests are about words."""
    monkeypatch.setattr(evaluation_page, "report_figures", lambda *_: {})


@pytest.mark.usefixtures("no_figures")
def test_parts_without_data_are_left_out_or_say_why(tmp_path, sample_numbers, sample_curves):
    numbers = sample_numbers(["Edema"], validation=False) | {"subgroups": [], "gaps": [], "published": None}
    numbers["data"] |= {"patients": None, "part": "", "split": None, "fingerprint": None}
    numbers["interval"]["unit"] = "image"
    numbers["macro"] = {name: {"value": None, "low": None, "high": None} for name in numbers["macro"]}
    page = read(write_report(tmp_path, numbers, sample_curves(["Edema"]), ModelInfo(), images=True).parent)
    assert re.findall(r'<a href="#([^"]+)"', page) == ["labels", "calibration", "confusion", "card"]
    assert page.count("What needs a threshold, such as sensitivity") >= 2
    assert "nothing was fitted to correct them" in page
    assert "no AUROC could be computed" in page
    assert "<title>Evaluation on nih</title>" in page


@pytest.mark.usefixtures("no_figures")
def test_heatmaps_beyond_the_budget_are_counted(tmp_path, numbers, sample_curves, monkeypatch):
    write_report(tmp_path, numbers, sample_curves(LABELS), model_info(), images=False)
    room = 5 * len(JPEG) * 4 // 3
    monkeypatch.setattr(evaluation_page, "_MOST_BYTES", (tmp_path / "report.html").stat().st_size + room)
    page = read(write_report(tmp_path, numbers, sample_curves(LABELS), model_info(), images=True).parent)
    shown = page.count("data:image/jpeg")
    assert 0 < shown < 5
    assert f"{9 - shown} heatmaps more would not have fitted" in page
    assert len(page.encode()) <= evaluation_page._MOST_BYTES


@pytest.mark.usefixtures("no_figures")
def test_a_note_that_is_also_a_flag_is_told_once(tmp_path, sample_numbers, sample_curves):
    numbers = sample_numbers(["Edema"])
    numbers["flags"] = [{"kind": "note", "label": None, "message": "Beware."}]
    page = read(
        write_report(
            tmp_path, numbers, sample_curves(["Edema"]), ModelInfo(notes=["Beware."]), images=True
        ).parent
    )
    assert page.count("<li>Beware.</li>") == 2  # above, and in the model card


@pytest.mark.usefixtures("no_figures")
def test_a_folder_that_cannot_be_made_is_told(tmp_path, numbers, sample_curves):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be written to .*file"):
        write_report(tmp_path / "file", numbers, sample_curves(LABELS), model_info(), images=True)


def test_what_the_checks_of_heatmaps_found_is_a_section(
    tmp_path, sample_numbers, sample_curves, explanation_numbers
):
    from dataclasses import replace

    flags = [
        {"kind": "shortcut", "message": "Heat at the border."},
        {"kind": "randomization", "message": "Hardly depends on what was learnt."},
        {"kind": "pointing", "message": "Not shown for Mass."},
    ]
    checked = replace(model_info(), explanation=explanation_numbers(flags=flags), examples=panels()[:1])
    numbers = sample_numbers(LABELS)
    for name, one, is_there in (("with", checked, True), ("without", model_info(), False)):
        write_report(tmp_path / name, numbers, sample_curves(LABELS), one, images=True)
        page = read(tmp_path / name)
        assert ("Are the heatmaps to be trusted?" in page) == is_there
        assert (tmp_path / name / "figures" / "pointing.png").is_file() == is_there
        top = page[: page.index("<main>")]
        assert [flag["message"] in top for flag in flags] == [is_there, is_there, False]
        assert ("Not shown for Mass." in page) == is_there
    write_report(tmp_path / "bare", numbers, sample_curves(LABELS), checked, images=False)
    assert "data:image/jpeg" not in read(tmp_path / "bare")
