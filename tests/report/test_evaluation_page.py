import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup

from cxrlab.data.audit import Finding
from cxrlab.errors import OutputError
from cxrlab.evaluation.baselines import BaselineResult, BaselineRow, BaselineValue, Fitted
from cxrlab.evaluation.evaluate import DataFacts
from cxrlab.evaluation.results import EvaluatedData
from cxrlab.heatmaps.results import ExplainedData, ExplanationResult, HeatmapFlag, IntervalLevel
from cxrlab.heatmaps.settings import ExplanationSettings
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.report import (
    SECTIONS,
    Section,
    decision_section,
    evaluation_page,
    figure_html,
    paragraph_html,
    subgroup_section,
)
from cxrlab.report.evaluation_page import write_report
from cxrlab.report.figures import calibration
from cxrlab.report.figures.style import new_figure, styled
from cxrlab.report.model_info import (
    ModelInfo,
    NetworkInfo,
    Panel,
    Session,
    TrainingData,
    run_model_info,
    without_names,
)

EVIL = "<script>alert('1')</script>\" onload=\"x"
LABELS = ("Edema", "Nodule/Mass", EVIL)
# Simulated names of people, folders, files, images and patients.
SECRETS = ("jane", "Doe", "p-007", "00013_001", ".png", "secret", "hospital_x", "outputs/")
JPEG = b"\xff\xd8" + bytes(range(256)) * 40


def panels():
    cases = (("FP", 0.9, 0.0), ("FN", 0.1, 1.0), ("TP", 0.99, 1.0), ("TN", 0.2, 0.0))
    return [
        Panel(finding=label, outcome=outcome, probability=p, target=target, image=f"p-007/00013_001{EVIL}.png", jpeg=JPEG)
        for label in LABELS
        for outcome, p, target in cases
    ]  # fmt: skip


def model_info(**changes):
    finding = Finding("near_duplicates", "warning", "2 images, one of them secret.png, are nearly the same.", 2,
                      images=["p-007/00013_001.png"], patients=["p-007"], details=["secret"])  # fmt: skip
    session = {"command": ["python", "-m", "cxrlab.train", "data=table", "data.root=/data/jane Doe/x", "+data.split.file=secret.csv"],
               "versions": {"cxrlab": "0.1.0", EVIL: "1"}, "commit": "c0ffee", "hardware": {"cores": 2}, "seconds": {"fit": 3.0},
               "data": {"name": "hospital_x", "fingerprint": "f00d", "split": {"method": "file", "file": "secret.csv"}}}  # fmt: skip
    evaluation = {
        "command": ["python", "-m", "cxrlab.evaluate", "run=outputs/jane/2026-01-01"],
        "seconds": {"everything": 9.0},
    }
    values = dict(
        title="resnet10t on /data/hospital_x", kind="run", networks=[NetworkInfo("resnet10t")],
        trained_on=TrainingData(name="hospital_x", parts={"train": (840, 280), "val": (120, 40)}),
        config={"data": {"root": "/data/jane Doe/x", "image_size": 64}, "evil": EVIL},
        audit=[finding], provenance=Session.from_json(session), resumed=[Session.from_json(session)],
        evaluated=Session.from_json(evaluation), panels=panels(), notes=[EVIL],
        metrics=pd.DataFrame({"epoch": np.arange(3), "train/loss": [3.0, 2.0, 1.0], "val/auroc": [0.6, 0.7, 0.8]}),
        network=b"the network", inputs=b"radiographs",
    )  # fmt: skip
    return ModelInfo(**values | changes)


def named(result):
    """Put names wherever a result may have one."""
    groups = [replace(row, group=f"{row.group}{EVIL}") for row in result.subgroups]
    return replace(result, subgroups=groups, baselines=baselines())


def baselines():
    """Two baselines, one within the model's reach; a covariate may have any name."""
    value = BaselineValue(Estimate(0.85, 0.8, 0.9), Estimate(0.9, 0.86, 0.94), Estimate(0.05, -0.01, 0.11))
    fitted = Fitted("training", 90, 30, 120)
    rows = [
        BaselineRow("covariates", ["view", EVIL], 0.1, fitted, dict.fromkeys(LABELS, value), value, True),
        BaselineRow("margin", [], 0.1, fitted, {LABELS[0]: value}, value, False),
    ]
    return BaselineResult(rows, {"features": "the images could not be read"}, 0.7, 1.0)


@pytest.fixture(scope="module")
def result(evaluated):
    data = DataFacts(f"hospital_x{EVIL}", "official", "f00d")
    notes = ["Labels come from /data/jane/labels.csv.", EVIL]
    return named(evaluated(LABELS, data=data, notes=notes, source="/data/jane Doe/x/secret.csv"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory, result):
    """The same report with and without images."""
    root = tmp_path_factory.mktemp("report")
    for images in (True, False):
        write_report(root / str(images), result, model_info(), images=images)
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


def anchors(page):
    return re.findall(r'<a href="#([^"]+)"', page)


@pytest.mark.parametrize("images", ["True", "False"])
def test_the_page_stands_alone_and_is_escaped(folders, images):
    page = read(folders / images)
    assert "&lt;script&gt;" in page
    parsed = Attributes(page)
    assert not parsed.elements & {"script", "iframe", "object", "embed", "form", "svg"}
    assert [name for name, _ in parsed.attributes if name.startswith("on")] == []
    fetched = [
        value for name, value in parsed.attributes if name.rpartition(":")[2] in ("src", "href", "srcset")
    ]
    assert [value for value in fetched if not value.startswith(("data:", "#"))] == []
    assert "url(" not in page
    assert "@import" not in page
    assert len(page.encode()) < 5_000_000


def test_baselines_say_what_they_reach_what_they_are_of_and_why_others_are_not_there(folders):
    section = read(folders / "False").split('<section id="baselines"')[1].split("</section>")[0]
    words = " ".join(re.sub(r"<[^>]+>", " ", section).split())
    assert "reaches an AUROC of 0.850; the model 0.900: difference 0.050 (\u22120.010 to 0.110)." in words
    assert "Fitted on 90 images of 30 patients of the training part, drawn by patient from 120." in words
    assert "found in 70 % of the images" in words
    assert "Left out: simple features (the images could not be read)." in words
    assert words.count("flagged") == 1


@pytest.mark.parametrize("images", ["True", "False"])
def test_every_section_that_has_something_to_show_has_its_place_in_the_contents(folders, images):
    page = read(folders / images)
    ids = re.findall(r'<section id="([^"]+)"', page)
    absent = {"explanation", "external", "interventions", "readers"} | (
        {"heatmaps"} if images == "False" else set()
    )
    expected = [section for section in SECTIONS if section.id not in absent]
    assert ids == anchors(page) == [section.id for section in expected]
    assert base64.b64encode(b"the network").decode() in page
    assert (base64.b64encode(b"radiographs").decode() in page) == (images == "True")
    headings = re.findall(r"<h2>([^<]+)</h2>", page)
    assert headings == [section.title for section in expected]


def test_the_page_with_images_shows_them_and_names_them(folders):
    page = read(folders / "True")
    assert page.count("data:image/jpeg;base64,") == 3 * len(LABELS)
    assert "p-007/00013_001" in page
    assert "data.root=/data/jane Doe/x" in page
    assert "<dt>data.image_size</dt><dd>64</dd>" in page
    assert "python -m cxrlab.evaluate" in page
    assert "Labels come from /data/jane/labels.csv." in page
    assert "Audit: 1 warning" in page
    assert "c0ffee" in page


def test_without_images_no_picture_name_patient_path_or_command_is_anywhere(folders):
    page, card = read(folders / "False"), read(folders / "False", "model_card.md")
    for text in (page, card):
        assert "data:image/jpeg" not in text
        assert [secret for secret in SECRETS if secret in text] == []
        assert "Nodule/Mass" in text
    assert "cxrlab.train" not in page
    assert "image_size" not in page
    assert "near duplicates: 2" in page
    assert "(report.images=false)" in page
    assert "c0ffee" in page


def test_the_model_card_never_holds_a_name(folders):
    card = read(folders / "True", "model_card.md")
    assert card.startswith("# Model card: resnet10t\n")
    assert [secret for secret in SECRETS if secret in card] == []
    page = read(folders / "True")
    assert [secret for secret in SECRETS if secret in page[page.index('<section id="card"') :]] == []
    assert "<script" not in card
    assert "&lt;script&gt;" in card
    assert "## Intended use\n" in card
    assert card.endswith("\n")
    assert "\n\n\n" not in card


@pytest.mark.parametrize("name", ["checklist_claim.md", "checklist_tripod_ai.md"])
def test_checklists_never_hold_a_name(name, folders):
    filled_in = read(folders / "True", name)
    assert [secret for secret in SECRETS if secret in filled_in.replace("figures/flow.png", "")] == []
    assert "<script" not in filled_in


def test_public_data_keep_their_name(evaluated):
    result, info = without_names(
        evaluated(["Edema"]), model_info(trained_on=TrainingData(name="nih", parts={}))
    )
    assert result.data.name == info.trained_on.name == "nih"
    assert info.notes == [EVIL]


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("is_named", [True, False])
def test_a_folder_s_name_is_left_out_and_a_given_one_is_shown(is_named, tmp_path, evaluated):
    name = "DoeJane1970"
    result = evaluated(["Edema"], data=DataFacts(name, "grouped", "c0ffee", is_named))
    trained_on = TrainingData(name=name, parts={"train": (10, 5)}, is_named=is_named)
    session = Session.from_json({"data": {"name": name, "is_named": is_named, "fingerprint": "c0ffee"}})
    info = model_info(trained_on=trained_on, provenance=session, resumed=[session])
    write_report(tmp_path, result, info, images=False)
    for file in ("report.html", "model_card.md"):
        assert (name in read(tmp_path, file)) is is_named
    assert "data.name=" in read(tmp_path)


def test_results_hold_no_folder_above_a_run(evaluated):
    source = "/home/jane/secret/outputs/12-00-00/predictions/test.csv"
    assert EvaluatedData.of(evaluated_table(), DataFacts("nih"), source).source == "predictions/test.csv"
    both = f"{source}, {source}"
    assert "jane" not in EvaluatedData.of(evaluated_table(), DataFacts("nih"), both).source


def evaluated_table():
    frame = pd.DataFrame({"image": ["a"], "target/Edema": [1.0], "probability/Edema": [0.5]})
    return PredictionTable.from_frame(frame, "a table")


def test_the_figures_lie_beside_the_page(folders):
    names = sorted(path.stem for path in (folders / "False" / "figures").iterdir())
    assert names == [
        "auroc_by_label", "confusion", "forest", "learning_curves", "net_benefit",
        "precision_recall", "reliability", "roc"
    ]  # fmt: skip
    page = read(folders / "False")
    assert page.count("data:image/svg+xml;base64,") == len(names)
    alts = re.findall(r'<img src="data:image/svg[^"]+" alt="([^"]*)"', page)
    assert len(set(alts)) == len(names)
    assert all(alts)
    assert sorted(path.name for path in (folders / "False").iterdir()) == [
        "checklist_claim.md", "checklist_tripod_ai.md", "figures", "model_card.md", "report.html"
    ]  # fmt: skip


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes seconds, and these tests are about words."""
    for module, names in (
        (evaluation_page.performance, ("roc", "precision_recall", "auroc_by_label", "confusion")),
        (calibration, ("reliability",)),
        (decision_section, ("decision_curves",)),
        (subgroup_section.groups, ("forest",)),
        (evaluation_page.learning, ("draw_learning_curves",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda *_: None)


@pytest.mark.usefixtures("no_figures")
def test_parts_without_data_are_left_out_or_say_why(tmp_path, evaluated):
    result = evaluated(
        ["Edema"], validation=False, patients=False, missing=["Edema"], part="", data=DataFacts("theirs")
    )
    result = replace(result, subgroups=[], gaps=[])
    page = read(write_report(tmp_path, result, ModelInfo(), images=True).parent)
    assert anchors(page) == ["cohort", "labels", "calibration", "operating-points", "confusion", "card"]
    assert page.count("What needs a threshold, such as sensitivity") >= 2
    assert "nothing was fitted to correct them" in page
    assert "no AUROC could be computed" in page
    assert "<title>Evaluation on theirs</title>" in page


@pytest.mark.usefixtures("no_figures")
def test_heatmaps_beyond_the_budget_are_counted(tmp_path, result, monkeypatch):
    write_report(tmp_path, result, model_info(panels=()), images=True)
    room = 5 * len(JPEG) * 4 // 3
    monkeypatch.setattr(evaluation_page, "_MOST_BYTES", (tmp_path / "report.html").stat().st_size + room)
    page = read(write_report(tmp_path, result, model_info(), images=True).parent)
    shown = page.count("data:image/jpeg")
    assert 0 < shown < 5
    assert f"{9 - shown} heatmaps more would not have fitted" in page
    assert len(page.encode()) <= evaluation_page._MOST_BYTES


@pytest.mark.usefixtures("no_figures")
def test_a_note_that_is_also_a_caveat_is_told_once(tmp_path, evaluated):
    result = evaluated(["Edema"], notes=["Beware."])
    page = read(write_report(tmp_path, result, ModelInfo(notes=["Beware."]), images=True).parent)
    assert page.count("<li>Beware.</li>") == 2  # above, and in the model card


@pytest.mark.usefixtures("no_figures")
def test_a_folder_that_cannot_be_made_is_told(tmp_path, result):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be written to .*file"):
        write_report(tmp_path / "file", result, model_info(), images=True)


@pytest.mark.usefixtures("no_figures")
def test_sections_of_ones_own_stand_in_the_page_and_its_contents(tmp_path, evaluated):
    def drawn(context):
        with styled():
            figure = new_figure(3, 2)
            figure.subplots().plot([0, 1])
        plain = figure_html(figure, alt="without a file")
        return Markup("\n").join([context.figure("mine", figure, alt=EVIL), plain, paragraph_html(EVIL)])

    own = [
        Section("drawn", "My figure", drawn, after="labels"),
        Section("words", EVIL, lambda context: f"{EVIL} {context.images}"),
        Section("nothing", "Nothing", lambda context: None),
    ]
    page = read(write_report(tmp_path, evaluated(["Edema"]), ModelInfo(), images=False, sections=own).parent)
    ids = anchors(page)
    assert ids[ids.index("labels") + 1] == "drawn"
    assert "words" in ids
    assert "nothing" not in ids
    assert "<script" not in page
    assert page.count("data:image/svg+xml;base64,") == 2
    assert "<p>&lt;script&gt;" in page
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["mine.png"]


@pytest.mark.usefixtures("no_figures")
def test_what_the_checks_of_heatmaps_found_is_a_section(tmp_path, evaluated):
    flags = [HeatmapFlag("shortcut", "Heat at the border."), HeatmapFlag("pointing", "Not shown for Mass.")]
    explanation = ExplanationResult(
        data=ExplainedData(), checks=[], methods={"gradcam": "Grad-CAM"}, labels=["Edema"], images=3,
        interval=IntervalLevel(0.95, 100), settings=ExplanationSettings(), flags=flags,
    )  # fmt: skip
    checked = model_info(explanation=explanation, examples=panels()[:1], panels=())
    for images in (True, False):
        page = read(write_report(tmp_path, evaluated(["Edema"]), checked, images=images).parent)
        assert "explanation" in anchors(page)
        top = page[: page.index("<main>")]
        assert [flag.message in top for flag in flags] == [True, False]
        assert "Not shown for Mass." in page
        assert ("data:image/jpeg" in page) == images


def test_what_a_run_says_of_itself(tmp_path):
    session = {"started": "2026-01-01", "data": {"name": "nih", "fingerprint": "f00", "split": {"method": "official"}},
               "network": {"parameters": 1234, "trainable": 1000}}  # fmt: skip
    config = {
        "data": {"image_size": 64, "channels": 1},
        "model": {"backbone": "resnet10t", "pretrained": True},
    }
    assert run_model_info(tmp_path, {}, panels=(), notes=()).networks == [NetworkInfo("a network")]
    (tmp_path / "provenance.json").write_text(json.dumps({"sessions": [session, session]}), encoding="utf-8")
    (tmp_path / "manifest.csv").write_text(
        "image,patient,part\na,1,train\nb,1,train\nc,2,val\n", encoding="utf-8"
    )
    (tmp_path / "audit.json").write_text(
        json.dumps({"findings": [{"kind": "k", "severity": "note", "message": "m", "count": 1}]}),
        encoding="utf-8",
    )
    info = run_model_info(tmp_path, config, panels=(), notes=["A note."])
    assert info.networks == [NetworkInfo("resnet10t", 64, 1, 1234, 1000)]
    assert info.trained_on == TrainingData(
        name="nih",
        parts={"train": (2, 1), "val": (1, 1), "test": (0, 0)},
        split="official",
        fingerprint="f00",
    )
    assert info.audit == [Finding("k", "note", "m", 1)]
    assert len(info.resumed) == 1
    assert list(info.sessions) == ["Training", "Training, resumed (1)", "Evaluation"]
