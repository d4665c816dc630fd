import io
import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.lines import Line2D
from PIL import Image

from cxrlab.errors import OutputError
from cxrlab.report.figures.style import legend, new_figure, styled
from cxrlab.report.html import inline_svg, png, save_png

NAMES = [
    "<script>alert(1)</script>",
    "$x$",
    "a_b",
    "_hidden",
    "\\alpha",
    "Плеврит é",
    "胸水",
    "\U0001f9a0",
    "100 %",
    "x & y",
]


def figure_of(names):
    """Names stand wherever a figure may have them: titles, axes, ticks, a legend, a note."""
    with styled():
        figure = new_figure(5, 4)
        axes = figure.subplots()
        axes.fill_between(
            [0, len(names)], [0, 1], [1, 2], alpha=0.3
        )  # cut off at the axes: needs a clip path
        axes.plot(range(len(names)), "o")
        axes.set_xlim(0.5, None)
        axes.set_yticks(range(len(names)), names)
        axes.set(title=names[0], xlabel=names[-1])
        legend(figure, [(Line2D([], []), name) for name in names], loc="outside right upper")
        return figure


def parsed(svg):
    return ElementTree.fromstring(svg)


def test_names_are_shown_letter_by_letter():
    root = parsed(inline_svg(figure_of(NAMES), "roc", "A curve."))
    texts = ["".join(element.itertext()).strip() for element in root.iter("text")]
    # Each in the legend and at a tick, the first as the title and the last as the name of an axis too.
    wanted = Counter([*NAMES, *NAMES, NAMES[0], NAMES[-1]])
    assert {name: texts.count(name) for name in NAMES} == wanted
    assert not {"script", "style", "metadata", "image"} & {element.tag for element in root.iter()}


def test_nothing_runs_and_nothing_is_loaded():
    svg = inline_svg(figure_of(NAMES), "roc", 'He said "1 < 2" & <b>')
    assert svg.startswith("<svg ")
    assert "<script" not in svg
    assert "http" not in svg
    assert "xmlns" not in svg
    assert "<!" not in svg
    assert "<?" not in svg
    assert "<style" not in svg
    assert not re.search(r"\son\w+=", svg)
    assert parsed(svg).get("aria-label") == 'He said "1 < 2" & <b>'
    assert parsed(svg).get("role") == "img"


def test_two_figures_of_a_page_share_no_id_and_every_reference_is_met():
    elements = {name: parsed(inline_svg(figure_of(NAMES), name, "A curve.")) for name in ("roc", "pr")}
    ids = {name: {element.get("id") for element in root.iter()} - {None} for name, root in elements.items()}
    assert not ids["roc"] & ids["pr"]
    for name, root in elements.items():
        text = ElementTree.tostring(root, encoding="unicode")
        references = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
        assert len(references) > 3
        assert references <= ids[name]
        assert all(one.startswith(f"{name}-") for one in ids[name])


def test_the_same_figure_gives_the_same_element_before_and_after_its_png():
    first, second = figure_of(NAMES), figure_of(NAMES)
    drawn = inline_svg(first, "roc", "A curve.")
    png(second)
    assert inline_svg(second, "roc", "A curve.") == drawn
    assert inline_svg(first, "roc", "A curve.") == drawn


def test_it_scales_down_and_keeps_its_texts():
    root = parsed(inline_svg(figure_of(["a", "b"]), "roc", "A curve."))
    assert root.get("width") is None
    assert root.get("height") is None
    assert root.get("viewBox") == "0 0 360 288"
    assert "max-width:480px" in root.get("style")
    assert all("sans-serif" in element.get("style") for element in root.iter("text"))


@pytest.mark.parametrize("name", ["", "1st", "a b", 'a"b', "é", "a\n"])
def test_a_name_that_is_no_id_is_rejected(name):
    with pytest.raises(ValueError, match="cannot begin an id"):
        inline_svg(figure_of(["a", "b"]), name, "A curve.")


def test_a_png_is_whole_sharp_and_of_the_settings_of_the_style(tmp_path):
    save_png(figure_of(NAMES), tmp_path / "a.png")
    picture = Image.open(tmp_path / "a.png")
    assert picture.size == (750, 600)
    pixels = np.asarray(picture.convert("L"))
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all()
    assert (pixels < 128).mean() > 0.01
    assert Image.open(io.BytesIO(png(figure_of(NAMES), 100))).size == (500, 400)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(OutputError, match="nowhere"):
        save_png(figure_of(["a", "b"]), tmp_path / "nowhere" / "a.png")
