import re
from dataclasses import replace

import numpy as np
import pytest

from cxrlab.errors import OutputError
from cxrlab.evaluation.evaluate import DataFacts
from cxrlab.evaluation.results import Caveat
from cxrlab.metrics import load_metrics, metric, register
from cxrlab.report import comparison_page
from cxrlab.report.comparison_page import write_comparison
from cxrlab.report.model_info import Session
from cxrlab.report.text import comparison_headline

EVIL = "<script>alert(1)</script>"
SESSION = Session(
    command=["python", "-m", "cxrlab.compare", "runs=[/home/jane/a,b]"], commit="c0ffee", seconds={"all": 3.0}
)


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(comparison_page, "_figures", lambda _: dict.fromkeys(comparison_page._DESCRIPTIONS))


def read(path):
    return path.read_text(encoding="utf-8")


def test_the_page_of_a_comparison(tmp_path, compared):
    comparison = compared(["Edema", "Mass"], models=("densenet121", EVIL))
    flags = [Caveat("images_left_out", None, "3 images are not in every table.")] * 2
    page = read(write_comparison(tmp_path, replace(comparison, flags=flags), SESSION, images=True))
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert re.findall(r'<a href="#([^"]+)"', page) == ["leaderboard", "differences", "further", "repeat"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "auroc_by_model.png", "differences.png", "leaderboard.png"
    ]  # fmt: skip
    assert page.count("data:image/svg+xml") == 3
    assert "/home/jane/a" in page
    assert page.count("3 images are not in every table.") == 1
    assert "By label: densenet121" in page


@pytest.mark.usefixtures("no_figures")
def test_without_images_models_are_numbered_and_no_name_is_in_it(tmp_path, compared):
    comparison = compared(
        ["Nodule/Mass"], models=("/home/jane/a b", "jane.csv", "outputs/2026-01-01"), data=DataFacts("jane")
    )
    flags = [Caveat("parts_differ", None, "The tables are of different parts, {'/home/jane/a b': 'val'}."),
             Caveat("note", None, "From /home/jane.")]  # fmt: skip
    page = read(write_comparison(tmp_path, replace(comparison, flags=flags), SESSION, images=False))
    assert "jane" not in page
    assert "outputs" not in page
    assert "cxrlab.compare" not in page
    assert set(re.findall(r"model \d", page)) == {"model 1", "model 2", "model 3"}
    assert "model 1 is better by" in page
    assert "of different parts" in page
    assert "c0ffee" in page
    assert "Nodule/Mass" not in page  # one label: nothing is told by label


@pytest.mark.usefixtures("no_figures")
def test_nothing_is_said_of_a_session_that_is_not_known(tmp_path, compared):
    page = read(write_comparison(tmp_path, compared(["Edema"]), None, images=True))
    assert 'href="#repeat"' not in page
    assert "By label" not in page


def test_the_headline(compared):
    comparison = compared(["Edema", "Mass"], models=("a", "b"))
    headline = comparison_headline(comparison)
    assert headline.startswith("On 240 images of 80 patients, a came first of 2 (AUROC 0.")
    assert "; of the one finding with enough patients). Compared with b, " in headline
    three = comparison_headline(compared(["Edema", "Nodule", "Mass"], models=("a", "b")))
    assert "; mean of 2 findings). Compared with b, " in three
    alone = replace(comparison, pairs=[])
    assert headline.startswith(comparison_headline(alone))
    unknown = replace(comparison, data=replace(comparison.data, patients=None))
    assert comparison_headline(unknown).startswith("On 240 images, ")


@pytest.mark.usefixtures("no_figures")
def test_a_folder_that_cannot_be_made_is_told(tmp_path, compared):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be written to .*file"):
        write_comparison(tmp_path / "file", compared(["Edema"]), None, images=True)


@pytest.fixture
def squared_error():
    @register
    @metric(title="Squared error", higher_is_better=False, needs="scores")
    def squared_error(scores, targets):
        return float(np.square(scores - targets).mean())

    yield squared_error
    load_metrics([])


@pytest.mark.usefixtures("no_figures", "squared_error")
def test_a_metric_of_ones_own_has_a_column_and_a_table_of_differences(tmp_path, compared):
    comparison = compared(["Edema"], models=("with its own", "metric"))
    page = read(write_comparison(tmp_path, comparison, None, images=False))
    assert comparison.models[0].metrics["squared_error"].value < 0.25
    assert "difference of Squared error" in page
    assert page.count("Squared error") >= 3  # the leaderboard's column, the title, the heading


@pytest.fixture
def alarms():
    @register
    @metric(title="Alarms", higher_is_better=False, needs="decisions")
    def alarms(decisions, targets):
        return float(decisions.mean())

    yield alarms
    load_metrics([])


@pytest.mark.usefixtures("no_figures", "alarms")
def test_a_metric_that_needs_decisions_is_shown_where_the_models_have_them(tmp_path, compared):
    models = ("with", "decisions")
    page = read(
        write_comparison(tmp_path, compared(["Edema"], models=models, threshold=0.5), None, images=True)
    )
    assert "<th>Alarms</th>" in re.sub(r"<th [^>]*>", "<th>", page)
    assert "difference of Alarms" in page
    assert "Alarms left out" not in page
    page = read(write_comparison(tmp_path, compared(["Edema"], models=models), None, images=True))
    assert "Alarms left out" in page
    assert "difference of Alarms" not in page


@pytest.mark.usefixtures("no_figures")
def test_further_tests_and_non_inferiority(tmp_path, compared):
    comparison = compared(["Edema", "Mass"], models=("first", "second"), threshold=0.3, margin=0.05)
    page = read(write_comparison(tmp_path, comparison, None, images=True))
    assert re.findall(r'<a href="#([^"]+)"', page) == [
        "leaderboard",
        "differences",
        "non_inferiority",
        "further",
    ]
    assert "first against second" in page
    assert "lies above \u22120.050, the margin that was given: a one-sided test at 2.5 %" in page
    assert page.count("<summary>By label: first against second</summary>") == 1
    assert "Edema: sensitivity" in page
    assert "first \u2212 second: Brier score" in page
    assert "Corrected together (Holm): means: the 4 tests of all metrics and pairs" in page
    assert "the words in the last column count the correction" in page.lower()
    without = read(write_comparison(tmp_path, compared(["Edema"], models=("a", "b")), None, images=True))
    assert "left out: 2 of 2 tables have no columns prediction/&lt;label&gt;" in without
    assert "Non-inferiority" not in without


@pytest.mark.usefixtures("no_figures")
def test_without_images_no_test_names_a_model(tmp_path, compared):
    comparison = compared(["Edema", "Mass"], models=("jane one", "jane two"), threshold=0.3, margin=0.05)
    page = read(write_comparison(tmp_path, comparison, None, images=False))
    assert "jane" not in page
    assert "model 1 against model 2" in page
