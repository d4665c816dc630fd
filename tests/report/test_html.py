import base64
import io
import re
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup
from matplotlib.lines import Line2D
from PIL import Image

from cxrlab.errors import OutputError
from cxrlab.report.figures.style import legend, new_figure, styled
from cxrlab.report.html import (
    data_uri,
    figure_html,
    inline,
    markdown,
    pages,
    paragraph_html,
    part,
    plain_markdown,
    png,
    save_figures,
    save_png,
    svg,
    table_html,
)
from cxrlab.report.tables import Cell, Row, Table

EVIL = "<script>alert('x')</script>\" onload=\"y"
NAMES = ["<script>alert(1)</script>", "$x$", "a_b", "_hidden", "\\alpha", "Плеврит é", "胸水", "\U0001f9a0",
         "100 %", "x & y"]  # fmt: skip


def figure_of(names):
    """Names stand wherever a figure may have them: titles, axes, ticks, a legend."""
    with styled():
        figure = new_figure(5, 4)
        axes = figure.subplots()
        axes.plot(range(len(names)), "o")
        axes.set_yticks(range(len(names)), names)
        axes.set(title=names[0], xlabel=names[-1])
        legend(figure, [(Line2D([], []), name) for name in names], loc="outside right upper")
        return figure


def test_a_page_escapes_what_it_is_given():
    text = pages().from_string('<p title="{{ name }}">{{ name }}</p>').render(name=EVIL)
    assert "<script" not in text
    assert 'onload="' not in text


def test_an_imported_macro_escapes_too():
    source = (
        "{% import 'parts.html.jinja' as parts %}{{ parts.facts([(name, name)]) }}{{ parts.flags([name]) }}"
    )
    text = pages().from_string(source).render(name=EVIL)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 3


def test_markdown_shows_names_as_they_are_and_on_one_line():
    name = "a_b*c* [x](http://y) `z` | <img src=q>\n\n# big"
    text = markdown().from_string("- {{ name }}\n- {{ number }}").render(name=name, number=3)
    assert text == ("- a\\_b\\*c\\* \\[x\\](http://y) \\`z\\` \\| &lt;img src=q&gt; \\# big\n- 3")


def test_what_is_no_text_passes():
    assert plain_markdown(None) is None
    assert plain_markdown(Markup("*")) == "*"


def test_what_a_section_of_ones_own_is_made_of_escapes_every_text():
    table = Table([EVIL], [Row(EVIL, [Cell(EVIL, EVIL)], mark=EVIL)], caption=EVIL)
    frame = pd.DataFrame({EVIL: [0.12345, 1.0]}, index=pd.Index([EVIL, "b"], name="label"))
    figure = figure_html(figure_of(["a", "b"]), alt=EVIL, caption=EVIL)
    for element in (
        paragraph_html(EVIL),
        table_html(table),
        table_html(frame),
        figure,
        part("points", EVIL, [EVIL]),
    ):
        assert isinstance(element, Markup)
        assert "<script" not in element
        assert "&lt;script&gt;" in element
        assert 'onload="' not in element
    assert "<td>0.123</td>" in table_html(frame)


def test_a_figure_is_an_image_whose_texts_stay_texts():
    element = figure_html(figure_of(NAMES), alt="A curve.", caption="How it bends.", name="roc")
    (source,) = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]+)"', element)
    assert 'alt="A curve."' in element
    assert 'width="480" height="384" style="min-width:312px"' in element
    assert "<figcaption>How it bends.</figcaption>" in element
    root = ElementTree.fromstring(base64.b64decode(source))
    texts = ["".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]
    # Each in the legend and at a tick, the first as the title and the last as the name of an axis too.
    wanted = Counter([*NAMES, *NAMES, NAMES[0], NAMES[-1]])
    assert {name: texts.count(name) for name in NAMES} == wanted


def test_the_same_figure_gives_the_same_bytes_before_and_after_its_png():
    first, second = figure_of(NAMES), figure_of(NAMES)
    drawn = svg(first, "roc")
    png(second)
    assert svg(second, "roc") == drawn
    assert svg(first, "roc") == drawn


def test_figures_that_were_not_drawn_are_none():
    elements = inline({"one": figure_of(["a", "b"])}, {"one": "A figure of <b>", "two": "Another"})
    assert elements["two"] is None
    assert "A figure of &lt;b&gt;" in elements["one"]
    assert part("figure", elements["two"], "nothing") == ""


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


def test_figures_are_written_and_those_of_an_earlier_page_removed(tmp_path):
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "two.png").write_bytes(b"old")
    (folder / "mine.txt").write_text("kept", encoding="utf-8")
    save_figures(folder, {"one": figure_of(["a", "b"]), "two": None})
    assert sorted(path.name for path in folder.iterdir()) == ["mine.txt", "one.png"]


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(OutputError, match="nowhere"):
        save_png(figure_of(["a", "b"]), tmp_path / "nowhere" / "a.png")


def test_a_picture_stands_in_the_page_itself():
    assert data_uri(b"abc", "jpeg") == "data:image/jpeg;base64,YWJj"
