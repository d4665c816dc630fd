"""The page, its tables and its figures, of what the checks find on a small case."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxrlab.errors import OutputError
from cxrlab.evaluation.evaluate import evaluate
from cxrlab.heatmaps.checks import check_heatmaps
from cxrlab.heatmaps.results import ExplanationResult, FlaggedZone, HeatmapFlag, UnusableBoxes
from cxrlab.heatmaps.settings import CHECKS, METHODS, TRAINING_CHECKS
from cxrlab.heatmaps.task import ExplainTask
from cxrlab.metrics.bootstrap import MACRO, Estimate
from cxrlab.metrics.predictions import DataFacts, PredictionTable
from cxrlab.metrics.settings import EvaluationSettings
from cxrlab.report import explanation_page, explanation_tables
from cxrlab.report.evaluation_page import write_report
from cxrlab.report.explanation_page import headline, not_made, protocol, write_explanation
from cxrlab.report.figures import explanation as figures
from cxrlab.report.figures.explanation import DESCRIPTIONS, explanation_figures
from cxrlab.report.formatting import bounds, number
from cxrlab.report.model_info import ModelInfo, Panel

MakeTask = Callable[..., ExplainTask]
METHOD_PAIR = ("gradcam", "layercam")
SOURCES = (
    "gradcam", "layercam", "random: gradcam", "random: layercam", "box_frequency", "image_centre", "uniform_chance",
)  # fmt: skip
FINDINGS = ("Mass", "Edema", MACRO)
EVIL = "<script>alert('1')</script>"
SESSION: dict[str, Any] = {
    "command": ["python", "-m", "cxrlab.explain", "run=outputs/jane/2026-01-01"],
    "versions": {"cxrlab": "0.1.0"},
    "commit": "c0ffee",
    "hardware": {"cores": 2},
    "seconds": {"everything": 3.0},
}
SECRETS = ("jane", "00013_001", "secret")


def boxes_of(findings: Sequence[str], count: int = 10) -> list[tuple[int, str, float, float, float, float]]:
    """Boxes of three sizes, at places that differ from image to image."""
    places = np.random.default_rng(0).random((count * len(findings), 2)) * 0.5
    rows = [(row, finding) for finding in findings for row in range(count)]
    sides = (0.08, 0.15, 0.4)
    return [
        (row, finding, float(x), float(y), sides[row % 3], sides[row % 3])
        for (row, finding), (x, y) in zip(rows, places, strict=True)
    ]


@pytest.fixture(scope="module")
def task_of(make_task: MakeTask) -> Callable[..., ExplainTask]:
    def function(findings: Sequence[str], methods: Sequence[str] = METHOD_PAIR) -> ExplainTask:
        return make_task([(1, 1)] * 10, boxes_of(findings), methods=list(methods))

    return function


@pytest.fixture(scope="module")
def result(task_of: Callable[..., ExplainTask]) -> ExplanationResult:
    """Of two boxed findings and two methods, by all checks."""
    return check_heatmaps(task_of(["Mass", "Edema"]))[0]


@pytest.fixture(scope="module")
def single(task_of: Callable[..., ExplainTask]) -> ExplanationResult:
    """Of one boxed finding and one method."""
    return check_heatmaps(task_of(["Mass"], ["gradcam"]))[0]


@pytest.fixture(scope="module")
def unboxed(task_of: Callable[..., ExplainTask]) -> ExplanationResult:
    """Of no box, by the checks at the end of a training."""
    return check_heatmaps(task_of([]), TRAINING_CHECKS)[0]


def cell(estimate: Estimate, digits: int = 2) -> tuple[str, str]:
    return number(estimate.value, digits), bounds(estimate, digits)


def test_beside_each_method_stand_random_weights_and_what_never_saw_the_image(
    result: ExplanationResult,
) -> None:
    table = explanation_tables.pointing_table(result)
    assert table is not None
    assert result.pointing is not None
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
    for place, row in enumerate(table.rows):
        finding, method = FINDINGS[place // 2], METHOD_PAIR[place % 2]
        sources = result.pointing.findings[finding]
        shown = (method, f"random: {method}", *SOURCES[4:])
        assert [tuple(shown_cell) for shown_cell in row.cells[2:7]] == [
            cell(sources[source]["pointing"]) for source in shown
        ]
        difference = result.pointing.differences[method].box_frequency[finding]
        assert tuple(row.cells[7]) == cell(difference)
        assert row.cells[8].text == difference.description
    assert [row.cells[0].text for row in table.rows] == ["10", "10", "10", "10", "20", "20"]


def test_of_one_finding_there_is_no_mean(single: ExplanationResult) -> None:
    table = explanation_tables.pointing_table(single)
    assert table is not None
    assert [row.name for row in table.rows] == ["Mass"]
    for _, overlap in explanation_tables.overlap_tables(single):
        assert {row.name for row in overlap.rows} == {"Mass"}


def test_methods_stand_against_random_weights_and_the_first_against_the_others(
    result: ExplanationResult,
) -> None:
    pointing, table = result.pointing, explanation_tables.difference_table(result)
    assert pointing is not None
    assert table is not None
    assert table.columns == ["difference", "Mass", "Edema", "mean of the findings"]
    expected = {
        "Grad-CAM minus the same with random weights": pointing.differences["gradcam"].random_network,
        "LayerCAM minus the same with random weights": pointing.differences["layercam"].random_network,
        "Grad-CAM minus LayerCAM": pointing.against_first["layercam"],
    }
    assert [row.name for row in table.rows] == list(expected)
    for row, differences in zip(table.rows, expected.values(), strict=True):
        assert [tuple(shown) for shown in row.cells] == [cell(differences[name]) for name in FINDINGS]


def test_overlaps_of_all_sources_at_all_levels(result: ExplanationResult) -> None:
    assert result.pointing is not None
    (iou_title, iou), (iobb_title, iobb) = explanation_tables.overlap_tables(result)
    assert (iou_title.endswith("IoU"), iobb_title.endswith("IoBB")) == (True, True)
    for key, table in (("iou", iou), ("iobb", iobb)):
        assert table.columns[3:10] == [f"above 0.{tenth}" for tenth in range(1, 8)]
        assert len(table.rows) == 3 * len(SOURCES)
        estimates = result.pointing.findings["Edema"]["box_frequency"]
        row = next(line for line in table.rows if line.name == "Edema" and "frequency" in line.cells[0].text)
        expected = [estimates[name] for name in (key, *(f"{key}@0.{tenth}" for tenth in range(1, 8)))]
        assert [tuple(shown) for shown in row.cells[1:9]] == [cell(estimate) for estimate in expected]
    energy = result.pointing.findings["Mass"]["gradcam"]["energy"]
    assert iou.columns[-1] == "energy inside"
    assert tuple(iou.rows[0].cells[-1]) == cell(energy)


def test_sizes_are_shares_of_the_image(result: ExplanationResult) -> None:
    assert result.pointing is not None
    table = explanation_tables.size_table(result)
    assert table is not None
    assert [row.name for row in table.rows] == [
        "0 % to 1 % of the image", "1 % to 3 % of the image", "10 % to 100 % of the image"
    ]  # fmt: skip
    assert table.columns[3:] == [explanation_tables.source_names(result)[source] for source in SOURCES]
    for row, size in zip(table.rows, result.pointing.sizes, strict=True):
        assert [shown.text for shown in row.cells[:2]] == [str(size.cases), str(size.patients)]
        assert [tuple(shown) for shown in row.cells[2:]] == [cell(size.pointing[name]) for name in SOURCES]


@pytest.mark.parametrize(
    ("low", "high", "name"),
    [
        (0.0, 0.005, "0 % to 0.5 % of the image"),
        (0.07, 1.0, "7 % to 100 % of the image"),
        (0.29, 0.575, "29 % to 57.5 % of the image"),
    ],
)
def test_sizes_have_the_digits_that_they_need(
    low: float, high: float, name: str, result: ExplanationResult
) -> None:
    assert result.pointing is not None
    sizes = [replace(result.pointing.sizes[0], from_=low, to=high)]
    changed = replace(result, pointing=replace(result.pointing, sizes=sizes))
    table = explanation_tables.size_table(changed)
    assert table is not None
    assert table.rows[0].name == name


def test_without_boxes_nothing_is_told_of_places(unboxed: ExplanationResult) -> None:
    assert explanation_tables.difference_table(unboxed) is None
    assert explanation_tables.pointing_table(unboxed) is None
    assert explanation_tables.size_table(unboxed) is None
    assert explanation_tables.overlap_tables(unboxed) == []


def test_areas_under_the_curves_stand_beside_a_random_order(result: ExplanationResult) -> None:
    assert result.faithfulness is not None
    table = explanation_tables.faithfulness_table(result.faithfulness, result.methods)
    assert [row.name for row in table.rows] == ["Grad-CAM", "LayerCAM", "random order"]
    assert [table.rows[2].cells[place].text for place in (1, 3)] == ["\u2013", "\u2013"]
    insertion = result.faithfulness.methods["layercam"].insertion
    assert tuple(table.rows[1].cells[2]) == cell(insertion.area, 3)
    assert insertion.difference is not None
    assert tuple(table.rows[1].cells[3]) == cell(insertion.difference, 3)


def test_methods_agree_where_there_are_two(result: ExplanationResult, single: ExplanationResult) -> None:
    assert result.agreement is not None
    assert single.agreement is not None
    table = explanation_tables.agreement_table(result.agreement, result.methods)
    assert table is not None
    assert table.rows[0].name == "Grad-CAM and LayerCAM"
    assert explanation_tables.agreement_table(single.agreement, single.methods) is None


def test_shares_stand_above_those_of_an_even_map_and_high_ones_are_marked(result: ExplanationResult) -> None:
    assert result.shortcuts is not None
    areas: dict[str, float | None] = {"outside": 0.54, "border": 0.19, "corners": 0.09}
    shortcuts = replace(result.shortcuts, unlike=[FlaggedZone("layercam", "corners")], areas=areas)
    table = explanation_tables.shortcut_table(shortcuts, result.methods)
    assert [row.cells[0].text for row in table.rows] == ["Mass", "Edema", "all"] * 2 + [""]
    assert [row.mark for row in table.rows] == ["", "", "", "", "", "High: corners", ""]
    assert [shown.text for shown in table.rows[-1].cells[1:]] == ["0.54", "0.19", "0.09"]
    macro = shortcuts.methods["gradcam"][MACRO]
    assert tuple(table.rows[2].cells[2]) == cell(macro["border"])
    no_lungs = replace(shortcuts, areas={**areas, "outside": None})
    table = explanation_tables.shortcut_table(no_lungs, result.methods)
    assert [shown.text for shown in table.rows[-1].cells[1:]] == ["\u2013", "0.19", "0.09"]


def legend_of(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def points_of(axes: Axes) -> list[tuple[float, float]]:
    """Return where the marks of the points are: those of a container's first line."""
    return [
        (round(float(x), 6), round(float(y), 6))
        for container in axes.containers
        for x, y in zip(*container[0].get_data(), strict=True)
    ]


def test_each_figure_is_described(result: ExplanationResult, unboxed: ExplanationResult) -> None:
    assert list(explanation_figures(result)) == list(DESCRIPTIONS)
    assert explanation_figures(unboxed) == {}


def test_every_source_has_a_point_for_every_finding(result: ExplanationResult) -> None:
    assert result.pointing is not None
    figure = explanation_figures(result)["pointing"]
    (axes,) = figure.axes
    assert legend_of(figure) == [
        "Grad-CAM", "LayerCAM", "Grad-CAM, random weights", "LayerCAM, random weights", "box-frequency map",
        "image centre", "uniform chance",
    ]  # fmt: skip
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Mass", "Edema", "mean of the findings"]
    expected = {
        (place, round(estimates["pointing"].value or 0.0, 6))
        for place, finding in enumerate(FINDINGS)
        for estimates in result.pointing.findings[finding].values()
    }
    assert {(round(y), x) for x, y in points_of(axes)} == expected
    assert len(points_of(axes)) == 3 * 7


def test_no_two_sources_look_the_same() -> None:
    looks = {
        tuple(sorted(figures._look(list(METHODS), source).items()))
        for source in [*METHODS, *(f"random: {method}" for method in METHODS), *SOURCES[4:]]
    }
    assert len(looks) == 2 * len(METHODS) + 3


def test_what_is_not_defined_has_no_point(task_of: Callable[..., ExplainTask]) -> None:
    explain_task = task_of(["Mass"], ["gradcam"])
    boxes = explain_task.manifest.boxes.head(1)  # of a single patient there is no map of others' boxes
    alone = replace(explain_task, manifest=replace(explain_task.manifest, boxes=boxes))
    result, _ = check_heatmaps(alone, ["pointing"])
    figure = explanation_figures(result)["pointing"]
    assert "box-frequency map" not in legend_of(figure)
    assert len(points_of(figure.axes[0])) == 4
    table = explanation_tables.pointing_table(result)
    assert table is not None
    assert table.rows[0].cells[4].text == "\u2013"


def test_the_curves_of_random_weights_start_at_the_trained_network(result: ExplanationResult) -> None:
    assert result.randomization is not None
    layercam = result.randomization.methods["layercam"]
    without_first = replace(layercam, ssim=[Estimate(None), *layercam.ssim[1:]])
    randomization = replace(
        result.randomization, methods={**result.randomization.methods, "layercam": without_first}
    )
    ranks, ssim = explanation_figures(replace(result, randomization=randomization))["randomization"].axes
    steps = ["trained", *randomization.steps]
    assert [text.get_text() for text in ranks.get_xticklabels()] == steps
    for line, likeness in zip(ranks.lines[:2], randomization.methods.values(), strict=True):
        values = [estimate.value for estimate in likeness.rank_correlation]
        assert np.asarray(line.get_ydata()).tolist() == pytest.approx([1.0, *values])
    assert np.asarray(ssim.lines[1].get_xdata()).tolist() == [0, *range(2, len(steps))]


def test_the_curves_of_deletion_and_insertion(single: ExplanationResult) -> None:
    assert single.faithfulness is not None
    figure = explanation_figures(single)["faithfulness"]
    assert legend_of(figure) == ["Grad-CAM", "random order"]
    for axes, kind in zip(figure.axes, ("deletion", "insertion"), strict=True):
        assert kind in axes.get_title(loc="left") + axes.get_title()
        for line, curves in zip(axes.lines, single.faithfulness.methods.values(), strict=True):
            assert np.asarray(line.get_xdata()).tolist() == single.faithfulness.shares
            assert np.asarray(line.get_ydata()).tolist() == getattr(curves, kind).curve


def test_the_headline_names_the_method_beside_all_that_it_must_beat(
    result: ExplanationResult, single: ExplanationResult
) -> None:
    assert result.pointing is not None
    text = headline(result)
    estimates = result.pointing.findings[MACRO]
    for source in ("gradcam", "random: gradcam", "box_frequency", "image_centre", "uniform_chance"):
        assert cell(estimates[source]["pointing"])[0] in text
    assert text.startswith("Grad-CAM points at the finding")
    assert "(mean of 2 findings)" in text
    assert text.endswith(
        f"Grad-CAM is {result.pointing.differences['gradcam'].box_frequency[MACRO].description}."
    )
    assert "mean of" not in headline(single)


def test_without_boxes_nobody_can_say(unboxed: ExplanationResult, result: ExplanationResult) -> None:
    text = headline(unboxed)
    assert "nobody can say whether the heatmaps point" in text
    assert text.endswith("What can be said without boxes: whether they lie on the lungs.")
    all_checks = headline(replace(unboxed, checks=CHECKS))
    assert all_checks.endswith("whether they depend on the model, and whether they lie on the lungs.")
    assert protocol(unboxed) == ""
    assert headline(replace(result, pointing=None)).endswith("was not checked.")


def test_checks_that_were_not_made_are_named_with_the_way_to_make_them() -> None:
    assert not_made(CHECKS) == ""
    text = not_made(TRAINING_CHECKS)
    assert "model randomisation, insertion and deletion, agreement of the methods" in text
    assert "checks=randomization,faithfulness,agreement" in text


def test_the_protocol_is_stated(result: ExplanationResult) -> None:
    assert result.pointing is not None
    assert result.pointing.thresholds is not None
    text = protocol(result)
    assert text.startswith("20 cases: every image with a box of a finding")
    assert "chosen on the boxes of other patients, in 5 folds" in text
    assert "no farther" not in text
    assert "95 % intervals" in text
    thresholds = replace(result.pointing.thresholds, on="validation", cases=30, folds=None)
    pointing = replace(result.pointing, thresholds=thresholds, tolerance=0.05)
    text = protocol(replace(result, pointing=pointing))
    assert "was chosen on 30 cases of the validation part, by the mean IoU" in text
    assert "or no farther from it than 5.0 % of the image's side" in text


def panels(count: int = 3, findings: Sequence[str] = ("Mass", EVIL), size: int = 2000) -> list[Panel]:
    return [
        Panel(finding=finding, outcome="FN", probability=0.25, target=1.0, image=f"secret/00013_001_{n}.png",
              jpeg=b"\xff" * size)
        for finding in findings
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def write(tmp_path: Path, result: ExplanationResult) -> Callable[..., str]:
    def function(images: bool = True, shown: list[Panel] | None = None, **changes: Any) -> str:
        shown = panels() if shown is None else shown
        page = write_explanation(
            tmp_path, "Heatmaps of nih", replace(result, **changes), shown, shown[:1], SESSION, images=images,
        )  # fmt: skip
        return page.read_text()

    return function


def test_the_page_shows_heatmaps_and_checks_and_stands_alone(
    write: Callable[..., str], tmp_path: Path
) -> None:
    page = write(flags=[HeatmapFlag("shortcut", f"Beware of {EVIL}.")])
    assert page.count("data:image/jpeg") == 6 + 1  # and the example
    assert "False negative: present, predicted 0.25." in page
    assert "Mass: present, predicted 0.25." in page
    assert "Do they point at the findings?" in page
    assert "s mean grey in place of pixels" in page
    assert "mean of 2 networks" in page
    assert "Beware of &lt;script&gt;" in page
    assert "<script" not in page
    assert "Not checked here" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "pointing.png", "randomization.png", "faithfulness.png",
    }  # fmt: skip
    assert "They are also in panels/." in page


def test_the_page_of_a_part_of_the_checks_says_what_was_left_out(
    tmp_path: Path, unboxed: ExplanationResult
) -> None:
    page = write_explanation(tmp_path, "Heatmaps", unboxed, panels(), [], SESSION, images=True).read_text()
    assert "Not checked here: model randomisation" in page
    assert "Do they lie where no lung is?" in page
    assert "Do they point at the findings?" not in page
    assert "Do they depend on the model?" not in page


def test_without_images_no_picture_name_or_path_is_anywhere(
    write: Callable[..., str], result: ExplanationResult
) -> None:
    assert result.pointing is not None
    unusable = UnusableBoxes(1, ["Mass in secret/00013_001.png has no area"])
    flag = HeatmapFlag("unusable_boxes", "1 box could not be used, such as Mass in secret/00013_001.png.")
    page = write(images=False, flags=[flag], pointing=replace(result.pointing, unusable=unusable))
    assert "data:image/jpeg" not in page
    assert "1 box could not be used." in page
    assert not [secret for secret in SECRETS if secret in page]
    assert "Do they point at the findings?" in page


def test_a_page_without_checks_says_so(tmp_path: Path) -> None:
    page = write_explanation(tmp_path, "Heatmaps", None, panels(), [], SESSION, images=True).read_text()
    assert "6 heatmaps, not checked." in page
    assert "Do they point at the findings?" not in page


def test_what_is_no_known_positive_is_not_called_one(
    write: Callable[..., str], result: ExplanationResult
) -> None:
    assert result.faithfulness is not None
    assert "of 4 positives." in write()
    some = replace(result.faithfulness, positives=3)
    assert "of 4 cases, 3 of them known to be positive." in write(faithfulness=some)
    none = replace(result.faithfulness, positives=0)
    assert "of 4 cases, none of them known to be positive." in write(faithfulness=none)


def test_without_lungs_the_page_says_so(write: Callable[..., str], result: ExplanationResult) -> None:
    assert result.shortcuts is not None
    areas = {**result.shortcuts.areas, "outside": None}
    page = write(shortcuts=replace(result.shortcuts, regions_found=0.1, areas=areas))
    assert "Two lungs were found in 10 % of them, too few to say what lies outside" in page


def test_more_than_there_is_room_for_is_counted_and_findings_take_turns(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    most = len(write(shown=[]).encode()) + 300_000
    monkeypatch.setattr(explanation_page, "_MOST_BYTES", most)
    page = write(shown=panels(count=100, size=4000))
    assert len(page.encode()) < most
    shown = page.count("<b>False negative: present")
    assert 10 < shown < 200
    assert f"{200 - shown} heatmaps more would not have fitted" in page
    counts = [len(part.split("<b>False negative: present")) for part in page.split("<h3>")[1:3]]
    assert abs(counts[0] - counts[1]) <= 1


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="The page cannot be written to"):
        write_explanation(tmp_path / "file" / "x", "Heatmaps", None, [], [], SESSION, images=True)


@pytest.mark.parametrize("images", [True, False])
def test_the_section_stands_on_the_page_of_an_evaluation(
    images: bool, result: ExplanationResult, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    table = PredictionTable(
        images=np.array([f"{row}.png" for row in range(40)], dtype=object),
        patients=np.arange(40),
        labels=("Mass", "Edema"),
        targets=generator.integers(0, 2, (40, 2)).astype(float),
        probabilities=generator.random((40, 2)),
        part="test",
    )
    evaluation = evaluate(
        table,
        settings=EvaluationSettings(num_resamples=100, calibration="none"),
        thresholds=None,
        calibrator=None,
        data=DataFacts("drawn"),
    )
    flags = [HeatmapFlag("shortcut", "Much heat at the border."), HeatmapFlag("empty", "Many are empty.")]
    model_info = ModelInfo(explanation=replace(result, flags=flags), examples=panels()[:1])
    page = write_report(tmp_path, evaluation, model_info, images=images).read_text()
    assert '<section id="explanation">' in page
    assert "Do they point at the findings?" in page
    assert (
        page.count("Much heat at the border.") == 3
    )  # at the top of the page, in the section, and on the card
    assert page.count("Many are empty.") == 1
    assert ("data:image/jpeg" in page) == images
    assert (tmp_path / "figures" / "pointing.png").is_file()
