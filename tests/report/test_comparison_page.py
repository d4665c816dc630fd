import re

import pytest

from cxrlab.errors import OutputError
from cxrlab.report import comparison_page
from cxrlab.report.comparison_page import headline, write_comparison

EVIL = "<script>alert(1)</script>"
SESSION = {
    "command": ["python", "-m", "cxrlab.compare", "runs=[/home/jane/a,b]"],
    "commit": "c0ffee",
    "seconds": {"all": 3.0},
}


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(comparison_page, "_figures", lambda *_: {})


def read(path):
    return path.read_text(encoding="utf-8")


def test_the_page_of_a_comparison(tmp_path, sample_comparison):
    numbers = sample_comparison(["Edema", "Mass"], models=("densenet121", EVIL))
    page = read(write_comparison(tmp_path, numbers, SESSION, images=True))
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert re.findall(r'<a href="#([^"]+)"', page) == ["leaderboard", "differences", "repeat"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "auroc_by_model.png", "differences.png", "leaderboard.png"
    ]  # fmt: skip
    assert page.count("<svg") == 3
    assert "/home/jane/a" in page
    assert "3 images that not all models evaluated were left out." in page
    assert "By label: densenet121" in page


@pytest.mark.usefixtures("no_figures")
def test_without_images_no_path_is_in_it(tmp_path, sample_comparison):
    numbers = sample_comparison(
        ["Nodule/Mass"], models=("/home/jane/a b", "jane.csv", "outputs/2026-01-01/12-00-00")
    )
    numbers["pairs"][0]["description"] = "/home/jane/a b is better than jane.csv by 0.1"
    numbers["flags"] = [
        {"kind": "left_out", "label": None, "message": "3 images of /home/jane/a b were left out."}
    ]
    page = read(write_comparison(tmp_path, numbers, SESSION, images=False))
    assert "jane" not in page
    assert "outputs/2026-01-01/12-00-00" in page
    assert len(set(re.findall(r"model \d", page))) == 2
    assert "is better than model" in page
    assert page.count("left out") == 1
    assert "Nodule/Mass" not in page  # one label: nothing is told by label


@pytest.mark.usefixtures("no_figures")
def test_nothing_is_said_of_a_session_that_is_not_known(tmp_path, sample_comparison):
    page = read(write_comparison(tmp_path, sample_comparison(["Edema"]), None, images=True))
    assert 'href="#repeat"' not in page
    assert "By label" not in page


def test_the_headline(sample_comparison):
    numbers = sample_comparison(["Edema", "Mass"], models=("a", "b"))
    best, other = (model["name"] for model in numbers["models"])
    told = headline(numbers)
    assert told.startswith(f"On 600 images of 380 patients, {best} came first (AUROC 0.")
    assert "; mean of 2 findings). Compared with " + other in told
    numbers["pairs"] = []
    assert told.startswith(headline(numbers))
    numbers["data"]["patients"] = None
    assert headline(numbers).startswith("On 600 images, ")


@pytest.mark.usefixtures("no_figures")
def test_a_folder_that_cannot_be_made_is_told(tmp_path, sample_comparison):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot be written to .*file"):
        write_comparison(tmp_path / "file", sample_comparison(["Edema"]), None, images=True)
