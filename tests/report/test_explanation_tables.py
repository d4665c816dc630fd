import pytest

from cxrlab.report import explanation_tables

METHODS = ("gradcam", "layercam")
SOURCES = ("gradcam", "layercam", "random: gradcam", "random: layercam", "box_frequency", "image_centre",
           "uniform_chance")  # fmt: skip


def cell(estimate):
    return (f"{estimate['value']:.2f}", f"{estimate['low']:.2f} to {estimate['high']:.2f}")


def test_beside_each_method_stand_random_weights_and_what_never_saw_the_image(explanation_numbers):
    numbers = explanation_numbers()
    table = explanation_tables.pointing_table(numbers)
    assert table.columns == [
        "finding", "cases", "method", "points at it", "random weights", "box-frequency map", "image centre",
        "uniform chance", "minus box-frequency map", "in words",
    ]  # fmt: skip
    assert [(row.name, row.cells[1].text) for row in table.rows] == [
        (name, method)
        for name in ("Mass", "Edema", "mean of the findings")
        for method in ("Grad-CAM", "LayerCAM")
    ]
    assert [row.strong for row in table.rows] == [False] * 4 + [True] * 2
    for number, row in enumerate(table.rows):
        finding, method = ("Mass", "Edema", "macro")[number // 2], METHODS[number % 2]
        found = numbers["pointing"]["findings"][finding]
        shown = (method, f"random: {method}", *SOURCES[4:])
        assert [tuple(one) for one in row.cells[2:7]] == [cell(found[one]["pointing"]) for one in shown]
        difference = numbers["pointing"]["differences"][method]
        assert tuple(row.cells[7]) == cell(difference["box_frequency"][finding])
        assert row.cells[8].text == f"words of {finding}"
    assert [row.cells[0].text for row in table.rows] == ["9", "9", "10", "10", "19", "19"]


def test_of_one_finding_there_is_no_mean(explanation_numbers):
    numbers = explanation_numbers(["Mass"], ["gradcam"])
    assert [row.name for row in explanation_tables.pointing_table(numbers).rows] == ["Mass"]
    for _, table in explanation_tables.overlap_tables(numbers):
        assert {row.name for row in table.rows} == {"Mass"}


def test_methods_stand_against_random_weights_and_the_first_against_the_others(explanation_numbers):
    numbers = explanation_numbers()
    pointing = numbers["pointing"]
    table = explanation_tables.difference_table(numbers)
    assert table.columns == ["difference", "Mass", "Edema", "mean of the findings"]
    expected = {
        "Grad-CAM minus the same with random weights": pointing["differences"]["gradcam"]["random_network"],
        "LayerCAM minus the same with random weights": pointing["differences"]["layercam"]["random_network"],
        "Grad-CAM minus LayerCAM": pointing["against_first"]["layercam"],
    }
    assert [row.name for row in table.rows] == list(expected)
    for row, found in zip(table.rows, expected.values(), strict=True):
        assert [tuple(one) for one in row.cells] == [cell(found[name]) for name in ("Mass", "Edema", "macro")]
    del pointing["against_first"]  # as runs of earlier versions have it
    assert len(explanation_tables.difference_table(numbers).rows) == 2


@pytest.mark.parametrize(
    ("low", "high", "name"),
    [
        (0.0, 0.005, "0 % to 0.5 % of the image"),
        (0.07, 1.0, "7 % to 100 % of the image"),
        (0.29, 0.575, "29 % to 57.5 % of the image"),
    ],
)
def test_sizes_have_the_digits_that_they_need(low, high, name, explanation_numbers):
    numbers = explanation_numbers()
    numbers["pointing"]["sizes"][0] |= {"from": low, "to": high}
    assert explanation_tables.size_table(numbers).rows[0].name == name


def test_without_boxes_nothing_is_told_of_places(explanation_numbers):
    numbers = explanation_numbers([])
    assert explanation_tables.difference_table(numbers) is None
    assert explanation_tables.pointing_table(numbers) is None
    assert explanation_tables.size_table(numbers) is None
    assert explanation_tables.overlap_tables(numbers) == []


def test_overlaps_of_all_sources_at_all_levels(explanation_numbers):
    numbers = explanation_numbers()
    (iou_title, iou), (iobb_title, iobb) = explanation_tables.overlap_tables(numbers)
    assert (iou_title.endswith("IoU"), iobb_title.endswith("IoBB")) == (True, True)
    for key, table in (("iou", iou), ("iobb", iobb)):
        assert table.columns[3:10] == [f"above 0.{tenth}" for tenth in range(1, 8)]
        assert len(table.rows) == 3 * len(SOURCES)
        found = numbers["pointing"]["findings"]["Edema"]["box_frequency"]
        row = next(one for one in table.rows if one.name == "Edema" and "frequency" in one.cells[0].text)
        expected = [found[name] for name in (key, *(f"{key}@0.{tenth}" for tenth in range(1, 8)))]
        assert [tuple(one) for one in row.cells[1:9]] == [cell(one) for one in expected]
    assert iou.columns[-1] == "energy inside"
    assert tuple(row.cells[-1]) != tuple(iou.rows[0].cells[-1])


def test_sizes_are_shares_of_the_image(explanation_numbers):
    numbers = explanation_numbers()
    table = explanation_tables.size_table(numbers)
    assert [row.name for row in table.rows] == ["0 % to 1 % of the image", "1 % to 100 % of the image"]
    assert table.columns[3:] == [explanation_tables.source_names(numbers)[source] for source in SOURCES]
    for row, size in zip(table.rows, numbers["pointing"]["sizes"], strict=True):
        assert [one.text for one in row.cells[:2]] == ["5", "4"]
        assert [tuple(one) for one in row.cells[2:]] == [cell(size["pointing"][one]) for one in SOURCES]


def test_what_is_not_known_is_a_dash(explanation_numbers):
    numbers = explanation_numbers(["Mass"], ["gradcam"])
    nothing = {"value": None, "low": None, "high": None}
    numbers["pointing"]["findings"]["Mass"]["box_frequency"]["pointing"] = nothing
    (row,) = explanation_tables.pointing_table(numbers).rows
    assert row.cells[4].text == "\u2013"


def test_areas_under_the_curves_stand_beside_a_random_order(explanation_numbers):
    numbers = explanation_numbers()
    table = explanation_tables.faithfulness_table(numbers)
    assert [row.name for row in table.rows] == ["Grad-CAM", "LayerCAM", "random order"]
    assert [table.rows[2].cells[place].text for place in (1, 3)] == ["\u2013", "\u2013"]
    area = numbers["faithfulness"]["methods"]["layercam"]["insertion"]["area"]
    assert table.rows[1].cells[2].text == f"{area['value']:.3f}"


@pytest.mark.parametrize(("methods", "is_there"), [(["gradcam"], False), (["gradcam", "layercam"], True)])
def test_methods_agree_where_there_are_two(methods, is_there, explanation_numbers):
    table = explanation_tables.agreement_table(explanation_numbers(methods=methods))
    assert (table is not None) == is_there
    if table is not None:
        assert table.rows[0].name == "Grad-CAM and LayerCAM"


def test_shares_stand_above_those_of_an_even_map_and_high_ones_are_marked(explanation_numbers):
    numbers = explanation_numbers()
    numbers["shortcuts"]["unlike"] = [{"method": "layercam", "zone": "corners"}]
    table = explanation_tables.shortcut_table(numbers)
    assert [row.cells[0].text for row in table.rows] == ["Mass", "Edema", "all"] * 2 + [""]
    assert [row.mark for row in table.rows] == ["", "", "", "", "", "High: corners", ""]
    assert [one.text for one in table.rows[-1].cells[1:]] == ["0.54", "0.19", "0.09"]
    numbers["shortcuts"]["areas"]["outside"] = None  # no image has lungs
    table = explanation_tables.shortcut_table(numbers)
    assert [one.text for one in table.rows[-1].cells[1:]] == ["\u2013", "0.19", "0.09"]
    macro = numbers["shortcuts"]["methods"]["gradcam"]["macro"]
    assert tuple(table.rows[2].cells[1]) == cell(macro["outside"])
