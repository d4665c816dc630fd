import re

from cxrlab.report.figures.style import new_figure, styled
from cxrlab.report.html import inline, save_figures

NAMES = {"one": "A figure of <b>", "two": "Another"}


def drawn():
    with styled():
        figure = new_figure(5, 2)
        figure.subplots().plot([0, 1])
    return {"one": figure}


def test_a_figure_becomes_an_element_and_one_not_drawn_none():
    elements = inline(drawn(), NAMES)
    assert elements["two"] is None
    assert re.match(r'<div style="min-width:312px"><svg ', elements["one"])
    assert "A figure of &lt;b&gt;" in elements["one"]


def test_figures_are_written_and_those_of_an_earlier_page_removed(tmp_path):
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "two.png").write_bytes(b"old")
    (folder / "mine.txt").write_text("kept", encoding="utf-8")
    figures = drawn()
    inline(figures, NAMES)
    save_figures(folder, figures, NAMES)
    assert sorted(path.name for path in folder.iterdir()) == ["mine.txt", "one.png"]
    assert (folder / "one.png").read_bytes().startswith(b"\x89PNG")
