import re

import pytest

from cxrlab.errors import OutputError
from cxrlab.report import explanation_page
from cxrlab.report.explanation_page import write_explanation
from cxrlab.report.model_info import Panel

EVIL = "<script>alert('1')</script>"
SESSION = {
    "command": ["python", "-m", "cxrlab.explain", "run=outputs/jane/2026-01-01"],
    "versions": {"cxrlab": "0.1.0"},
    "commit": "c0ffee",
    "hardware": {"cores": 2},
    "seconds": {"everything": 3.0},
}
SECRETS = ("jane", "00013_001", "secret")


def panels(count=3, findings=("Mass", EVIL), size=2000):
    return [
        Panel(finding=finding, outcome="FN", probability=0.25, target=1.0, image=f"secret/00013_001_{n}.png",
              jpeg=b"\xff" * size)
        for finding in findings
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def write(tmp_path, explanation_numbers):
    def function(images=True, shown=None, **numbers):
        found = explanation_numbers(("Mass", EVIL), **numbers)
        shown = panels() if shown is None else shown
        page = write_explanation(
            tmp_path, "Heatmaps of /data/jane/x", found, shown, shown[:1], SESSION, labels=["Mass", EVIL], images=images
        )  # fmt: skip
        return page.read_text()

    return function


def test_the_page_shows_heatmaps_and_checks_and_stands_alone(write, tmp_path):
    page = write(flags=[{"kind": "shortcut", "message": f"Beware of {EVIL}."}])
    assert page.count("data:image/jpeg") == 6 + 1  # and the example
    assert "Miss: present, predicted 0.25." in page
    assert "Do they point?" in page
    assert "Beware of &lt;script&gt;" in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "pointing.png", "randomization.png", "faithfulness.png",
    }  # fmt: skip
    assert "They are also in panels/." in page


def test_without_images_no_picture_name_or_path_is_anywhere(write):
    page = write(
        images=False,
        flags=[{"kind": "unusable_boxes", "message": "1 box: Mass in secret/00013_001.png has no area."}],
    )
    assert "data:image/jpeg" not in page
    assert not [secret for secret in SECRETS if secret in page]
    assert "Do they point?" in page


def test_a_page_without_checks_says_so(tmp_path):
    page = write_explanation(
        tmp_path, "Heatmaps", None, panels(), [], SESSION, labels=["Mass"], images=True
    ).read_text()
    assert "6 heatmaps, not checked." in page
    assert "Do they point?" not in page


def test_more_than_there_is_room_for_is_counted_and_findings_take_turns(write, tmp_path, monkeypatch):
    monkeypatch.setattr(explanation_page, "_MOST_BYTES", 600_000)
    page = write(shown=panels(count=100, size=4000))
    assert len(page.encode()) < 600_000
    shown = page.count("<b>Miss: present")
    assert 10 < shown < 200
    assert f"{200 - shown} heatmaps more would not have fitted" in page
    counts = [len(part.split("<b>Miss: present")) for part in page.split("<h3>")[1:3]]
    assert abs(counts[0] - counts[1]) <= 1


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="The page cannot be written to"):
        write_explanation(tmp_path / "file" / "x", "Heatmaps", None, [], [], SESSION, labels=[], images=True)
