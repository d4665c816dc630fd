from dataclasses import replace

import pandas as pd
import pytest

from cxrlab.data.flow import FlowStep
from cxrlab.evaluation.cohort import manifest_cohort
from cxrlab.report.cohort_section import (
    characteristics_table,
    cohort_section,
    disjoint,
    label_table,
    unknown_labels,
)
from cxrlab.report.figures.flow import flow
from cxrlab.report.model_info import ModelInfo
from cxrlab.report.section import PageContext


@pytest.fixture
def cohort():
    table = pd.DataFrame(
        {
            "image": list("abcdefgh"),
            "patient": ["1", "1", "2", "3", "4", "4", "5", "6"],
            "part": ["train"] * 4 + ["val"] * 2 + ["test"] * 2,
            "covariate/sex": ["F", "F", "M", "F", "M", "M", "F", None],
            "covariate/age": [40.0, 42, 30, 55.5, 61, 61, 70, 18],
            "label/Edema": [1, 0, 1, None, 0, 1, 1, 0],
        }
    )
    cohort = manifest_cohort(table, evaluated={"test": 2})
    steps = [FlowStep("missing", 1), FlowStep("filter", 3, 2, "view=PA"), FlowStep("unreadable", 0, 0)]
    return replace(cohort, listed=12, steps=steps)


def cells(table):
    return {row.name: [(cell.text, cell.small) for cell in row.cells] for row in table.rows}


def texts(figure):
    return [text.get_text().strip() for text in figure.axes[0].texts if text.get_text()]


def test_the_table_has_a_column_a_part(cohort):
    table = characteristics_table(cohort)
    assert list(table.columns) == ["", "training", "validation", "test"]
    shown = cells(table)
    assert shown["images"] == [("4", ""), ("2", ""), ("2", "")]
    assert shown["sex F (patients)"] == [("2", "66.7 %"), ("0", "0.0 %"), ("1", "50.0 %")]
    assert shown["sex unknown (patients)"] == [("0", "0.0 %"), ("0", "0.0 %"), ("1", "50.0 %")]
    assert shown["age, median and quartiles (patients)"][0] == ("41", "35.5 to 48.2")
    assert shown["age, range"] == [("30 to 55.5", ""), ("61 to 61", ""), ("18 to 70", "")]
    assert cells(label_table(cohort))["Edema"][0] == ("2", "66.7 % of 3, 2 patients, 1 unknown")


def test_that_no_patient_is_in_two_parts_is_said_only_where_it_was_counted(cohort):
    assert disjoint(cohort) == (
        "No patient is in two parts: checked for all 6 patients of training, validation and test."
    )
    assert disjoint(replace(cohort, shared_patients=1)).startswith("1 patient is in more than one of")
    assert disjoint(replace(cohort, shared_patients=2)).startswith("2 patients are in more than one of")
    assert "could not be checked" in disjoint(replace(cohort, shared_patients=None))
    assert disjoint(replace(cohort, parts=cohort.parts[:1])) == ""


def test_unknown_labels_are_counted_by_part(cohort):
    assert unknown_labels(cohort).startswith("Labels that are unknown: training 1 of 4. They are left out of")
    known = replace(cohort, labels=[replace(row, unknown=0) for row in cohort.labels])
    assert unknown_labels(known) == "Every label is known of every image."


def test_the_flow_shows_every_count(cohort):
    drawn = texts(flow(cohort))
    for line in ("12 images", "Left out: 4 images", "1 not on disk", "3 filtered out", "view=PA",
                 "2 patients have none left", "0 could not be read", "8 images of 6 patients",
                 "Training", "Validation", "Test", "evaluated here", "1 without a known label"):  # fmt: skip
        assert line in drawn


def test_no_text_of_the_flow_leaves_its_box_or_the_figure(cohort):
    figure = flow(cohort)
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = [patch.get_window_extent() for patch in axes.patches]
    for text in axes.texts:
        extent = text.get_window_extent()
        if text.get_text():
            assert any(
                box.x0 <= extent.x0 and extent.x1 <= box.x1 and box.y0 <= extent.y0 and extent.y1 <= box.y1
                for box in boxes
            ), text.get_text()
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width + 0.5 for box in boxes)
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])


def test_one_part_alone_needs_no_drawing(cohort):
    assert flow(replace(cohort, listed=None, parts=cohort.parts[:1])) is None
    assert flow(replace(cohort, parts=cohort.parts[:1])) is not None


def test_of_predictions_the_page_says_what_is_not_recorded(evaluated):
    result = evaluated(["Edema"])
    context = PageContext(result, ModelInfo(), images=True)
    html = str(cohort_section(context))
    assert "is not recorded here" in html
    assert context.figures == {"flow": None}
    assert cohort_section(PageContext(replace(result, cohort=None), ModelInfo(), images=True)) is None


def test_the_section_counts_what_the_json_counts(evaluated, cohort):
    result = replace(evaluated(["Edema"]), cohort=cohort)
    context = PageContext(result, ModelInfo(), images=True)
    html = str(cohort_section(context))
    assert context.figures["flow"] is not None
    parts = result.to_json()["cohort"]["parts"]
    assert [part["images"] for part in parts] == [4, 2, 2]
    assert "No patient is in two parts" in html
