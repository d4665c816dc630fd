import pytest

from cxrlab.heatmaps.methods.names import METHODS
from cxrlab.report.figures.explanation import DESCRIPTIONS, explanation_figures


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_each_figure_is_described(explanation_numbers):
    assert list(explanation_figures(explanation_numbers())) == list(DESCRIPTIONS)


def test_without_boxes_there_is_no_figure_of_places(explanation_numbers):
    assert list(explanation_figures(explanation_numbers([]))) == ["randomization", "faithfulness"]


def points_of(axes):
    """Return where the marks of the points are: those of a container's first line."""
    return [
        (round(float(x), 6), round(float(y), 6))
        for container in axes.containers
        for x, y in zip(*container[0].get_data(), strict=True)
    ]


def test_every_source_has_a_point_for_every_finding(explanation_numbers):
    numbers = explanation_numbers()
    figure = explanation_figures(numbers)["pointing"]
    (axes,) = figure.axes
    assert legend_of(figure) == [
        "Grad-CAM", "LayerCAM", "Grad-CAM, random weights", "LayerCAM, random weights", "box-frequency map",
        "image centre", "uniform chance",
    ]  # fmt: skip
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["Mass", "Edema", "mean of the findings"]
    expected = {
        (place, round(one["pointing"]["value"], 6))
        for place, found in enumerate(numbers["pointing"]["findings"].values())
        for one in found.values()
    }
    assert {(round(y), x) for x, y in points_of(axes)} == expected
    assert len(points_of(axes)) == 3 * 7


def test_no_two_sources_look_the_same(explanation_numbers):
    (axes,) = explanation_figures(explanation_numbers(methods=list(METHODS)))["pointing"].axes
    marks = [container[0] for container in axes.containers]
    looks = {(one.get_marker(), one.get_color(), one.get_markerfacecolor()) for one in marks}
    assert len(looks) == 2 * len(METHODS) + 3


def test_what_is_not_known_has_no_point(explanation_numbers):
    numbers = explanation_numbers(["Mass"], ["gradcam"])
    for found in numbers["pointing"]["findings"].values():
        found["box_frequency"]["pointing"] = {"value": None, "low": None, "high": None}
    figure = explanation_figures(numbers)["pointing"]
    assert "box-frequency map" not in legend_of(figure)
    assert len(points_of(figure.axes[0])) == 4


def test_the_curves_of_random_weights_start_at_the_trained_network(explanation_numbers):
    numbers = explanation_numbers()
    numbers["randomization"]["methods"]["layercam"]["ssim"][1]["value"] = None
    figure = explanation_figures(numbers)["randomization"]
    ranks, ssim = figure.axes
    assert [text.get_text() for text in ranks.get_xticklabels()] == ["trained", "head", "stage 1", "stem"]
    found = numbers["randomization"]["methods"]
    for line, method in zip(ranks.lines[:2], found, strict=True):
        values = [one["value"] for one in found[method]["rank_correlation"]]
        assert line.get_ydata().tolist() == pytest.approx([1.0, *values])
    assert ssim.lines[1].get_xdata().tolist() == [0, 1, 3]  # a step without a value is left out


def test_the_curves_of_deletion_and_insertion(explanation_numbers):
    numbers = explanation_numbers(methods=["gradcam"])
    figure = explanation_figures(numbers)["faithfulness"]
    assert legend_of(figure) == ["Grad-CAM", "random order"]
    for axes, kind in zip(figure.axes, ("deletion", "insertion"), strict=True):
        assert axes.get_title(loc="left") + axes.get_title() != ""
        for line, one in zip(axes.lines, numbers["faithfulness"]["methods"].values(), strict=True):
            assert line.get_xdata().tolist() == numbers["faithfulness"]["shares"]
            assert line.get_ydata().tolist() == one[kind]["curve"]
