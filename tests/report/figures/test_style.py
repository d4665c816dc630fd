from itertools import combinations

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from cxrlab.metrics.bootstrap import Estimate
from cxrlab.report.figures import calibration, groups, performance
from cxrlab.report.figures.style import (
    COLOURS,
    SEQUENTIAL,
    legend,
    new_figure,
    points,
    shown,
    small_multiples,
    styled,
    whiskers,
)
from cxrlab.report.html import png


def luminance(colour) -> float:
    red, green, blue = matplotlib.colors.to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


@pytest.mark.parametrize(
    ("name", "width", "lines", "expected"),
    [
        ("Edema", 28, 3, "Edema"),
        ("Pleural effusion", 8, 2, "Pleural\neffusion"),
        ("abcdefghij", 5, 1, "ab…ij"),
        ("bell\x07 half \ud800", 28, 1, "bell\ufffd half \ufffd"),
        ("  ", 28, 1, "(no name)"),
        (3, 28, 1, "3"),
        ("$x$ \\a_b", 28, 1, "$x$ \\a_b"),
        ("胸水", 28, 1, "胸水"),
    ],
)
def test_names_are_broken_shortened_and_freed_of_what_xml_rejects(name, width, lines, expected):
    assert shown(name, width, lines) == expected


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_a_long_name_keeps_its_end_within_its_lines(lines):
    name = "model=densenet121,optimizer.lr=0.0001,data.image_size=320,seed=" * 5
    ends = {shown(f"{name}{seed}", 24, lines) for seed in range(3)}
    assert len(ends) == 3
    for text in ends:
        assert text.count("\n") == lines - 1
        assert max(map(len, text.split("\n"))) <= 24


def test_whiskers_reach_to_the_bounds_and_stay_away_where_there_are_none():
    estimates = [Estimate(0.5, 0.4, 0.7), Estimate(1.0)]
    np.testing.assert_allclose(whiskers(estimates), [[0.1, 0.0], [0.2, 0.0]])
    # A value outside its percentile interval is drawn, with no whisker of negative length.
    assert whiskers([Estimate(0.5, 0.6, 0.7)])[0] == [0.0]


def test_points_stand_at_their_values():
    axes = new_figure(3, 3).subplots()
    drawn = points(axes, [Estimate(0.5, 0.4, 0.7)], [2.0])
    assert drawn.lines[0].get_xydata().tolist() == [[0.5, 2.0]]
    np.testing.assert_allclose(drawn.lines[2][0].get_segments()[0], [[0.4, 2.0], [0.7, 2.0]])


def test_a_name_with_an_underscore_stays_in_the_legend():
    figure = new_figure(3, 3)
    lines = figure.subplots().plot([0, 1], [[0, 1], [1, 0]])
    drawn = legend(figure, [(lines[0], "_first"), (lines[1], "second")])
    assert [text.get_text().strip() for text in drawn.get_texts()] == ["_first", "second"]


@pytest.mark.parametrize(
    ("count", "shape"), [(1, (1, 1)), (3, (1, 3)), (5, (2, 4)), (14, (4, 4)), (30, (8, 4))]
)
def test_small_multiples_number_the_outer_axes_only(count, shape):
    with styled():
        figure, panels = small_multiples([f"label {number}" for number in range(count)])
    columns = shape[1]
    assert len(panels) == len(figure.axes) == count
    grid = panels[0].get_subplotspec().get_gridspec()
    assert (grid.nrows, grid.ncols) == shape
    for number, axes in enumerate(panels):
        ticks = axes.xaxis.get_major_ticks()[0], axes.yaxis.get_major_ticks()[0]
        has_one_below = number + columns < count
        assert [tick.label1.get_visible() for tick in ticks] == [not has_one_below, number % columns == 0]


def test_longer_titles_make_a_higher_figure():
    flat, _ = small_multiples(["a"] * 5)
    high, _ = small_multiples(["a", "b\nc\nd", "e", "f", "g"])
    assert high.get_figheight() > flat.get_figheight()
    assert high.get_figwidth() == flat.get_figwidth()


def test_the_style_reads_names_as_they_are_and_leaves_no_trace():
    before = dict(matplotlib.rcParams)
    with styled():
        assert not matplotlib.rcParams["text.parse_math"]
        assert matplotlib.rcParams["axes.grid"]
    assert dict(matplotlib.rcParams) == before


def test_colours_differ_and_the_map_goes_from_light_to_dark():
    assert len(set(COLOURS)) == 7
    brightness = [luminance(matplotlib.colormaps[SEQUENTIAL](share)) for share in np.linspace(0, 1, 50)]
    assert (np.diff(brightness) < 0).all()


LONG = [
    "Enlarged cardiomediastinum with widening of the upper part, seen twice",
    "_b $x$",
    "<i>c</i>",
    "胸水",
    "e" * 60,
]
DRAWN = {
    "roc": performance.roc,
    "precision_recall": performance.precision_recall,
    "auroc_by_label": performance.auroc_by_label,
    "reliability": calibration.reliability,
    "confusion": performance.confusion,
    "forest": groups.forest,
}
DRAWN_OF_MODELS = {
    "leaderboard": groups.leaderboard,
    "differences": groups.differences,
    "auroc_by_model": groups.auroc_by_model,
}


@pytest.fixture
def boxes(monkeypatch):
    """The boxes, in pixels, of the texts that are drawn when a figure is saved."""
    drawn, draw = {}, Text.draw

    def spy(text, renderer):
        draw(text, renderer)
        if text.get_visible() and text.get_text().strip():
            drawn[text] = text.get_window_extent(renderer)

    monkeypatch.setattr(Text, "draw", spy)
    return drawn


@pytest.mark.parametrize("name", [*DRAWN, *DRAWN_OF_MODELS])
@pytest.mark.parametrize(
    "labels", [pytest.param(LONG[:3], marks=pytest.mark.slow), LONG], ids=["three", "five"]
)
def test_texts_of_every_figure_are_inside_it_and_apart(name, labels, boxes, evaluated, compared):
    if name in DRAWN:
        figure = DRAWN[name](evaluated(labels))
    else:
        models = ["a", "b" * 80, "model=resnet50,optimizer.lr=0.001,seed=1"]
        figure = DRAWN_OF_MODELS[name](compared(labels, models=models))
    png(figure, 100)
    boxes.clear()  # those of the layout's first draft
    png(figure, 100)
    assert len(boxes) > 3
    for text, box in boxes.items():
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert inside, text.get_text()
    for (one, box), (other, second) in combinations(boxes.items(), 2):
        across = min(box.x1, second.x1) - max(box.x0, second.x0)
        above = min(box.y1, second.y1) - max(box.y0, second.y0)
        assert min(across, above) <= 1, (one.get_text(), other.get_text())
