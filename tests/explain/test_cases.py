from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrlab.data.manifest import Manifest
from cxrlab.explain.cases import Case, case_table, choose_cases

LABELS = ["Edema", "Mass"]
NAN = float("nan")


def manifest(num_images: int, boxes: list[tuple[int, str]] | None = None) -> Manifest:
    table = pd.DataFrame(
        {
            "image": [f"{row}.png" for row in range(num_images)],
            "patient": [str(row) for row in range(num_images)],
            "split": "",
            "label/Edema": 1.0,
            "label/Mass": 0.0,
        }
    )
    lines = [(f"{row}.png", label, 0.1, 0.2, 0.3, 0.4) for row, label in boxes or []]
    columns = ["image", "label", "x", "y", "width", "height"]
    return Manifest(Path("/data"), table, pd.DataFrame(lines, columns=columns))


def cases_of(predictions: list[tuple[int, list[float], list[float]]]) -> pd.DataFrame:
    rows = np.array([row for row, _, _ in predictions])
    probabilities = np.array([values for _, values, _ in predictions], dtype=np.float32)
    targets = np.array([values for _, _, values in predictions], dtype=np.float32)
    return case_table(rows, probabilities, targets, LABELS)


def test_case_table_names_the_outcome() -> None:
    cases = cases_of([(7, [0.5, 0.49], [1, 1]), (3, [0.9, 0.1], [0, 0]), (5, [0.9, 0.1], [NAN, NAN])])
    assert tuple(cases.columns) == Case._fields
    assert cases["row"].tolist() == [3, 3, 5, 5, 7, 7]
    assert cases["finding"].tolist() == LABELS * 3
    assert cases["label"].tolist() == [0, 1] * 3
    assert cases["outcome"].tolist() == ["FP", "TN", "unknown", "unknown", "TP", "FN"]


def test_a_row_that_was_predicted_twice_counts_once() -> None:
    cases = cases_of([(3, [0.9, 0.1], [0, 0]), (3, [0.8, 0.1], [0, 0])])
    assert cases["row"].tolist() == [3, 3]
    assert cases["probability"].tolist() == pytest.approx([0.9, 0.1])


def test_positives_with_a_box_come_first_then_the_most_probable() -> None:
    cases = cases_of(
        [(row, [probability, 0.1], [1, 0]) for row, probability in enumerate([0.6, 0.9, 0.7, 0.8])]
    )
    boxes = [(2, "Edema"), (3, "Mass")]  # the box of another label does not count
    chosen = choose_cases(cases, manifest(4, boxes), images_per_label=3, num_errors=0)
    assert chosen == [(2, 0), (1, 0), (3, 0)]


def test_each_label_has_its_positives_and_unknown_ones_are_none() -> None:
    cases = cases_of([(0, [0.9, 0.8], [1, 1]), (1, [0.95, 0.9], [NAN, NAN]), (2, [0.7, 0.9], [1, 0])])
    chosen = choose_cases(cases, manifest(3), images_per_label=1, num_errors=0)
    assert chosen == [(0, 0), (0, 1)]


def test_errors_are_the_most_confident_of_both_kinds_in_turn() -> None:
    cases = cases_of(
        [
            (0, [0.01, 0.0], [1, 0]),  # misses
            (1, [0.02, 0.0], [1, 0]),
            (2, [0.40, 0.0], [1, 0]),
            (3, [0.70, 0.8], [0, 0]),  # false alarms
            (4, [0.99, 0.9], [1, 1]),  # right
            (5, [0.99, 0.9], [NAN, NAN]),
        ]
    )
    chosen = choose_cases(cases, manifest(6), images_per_label=0, num_errors=4)
    assert chosen == [(0, 0), (3, 1), (1, 0), (3, 0)]
    assert len(choose_cases(cases, manifest(6), images_per_label=0, num_errors=99)) == 5


def test_an_error_that_is_chosen_as_a_positive_is_not_chosen_again() -> None:
    cases = cases_of([(0, [0.1, 0.0], [1, 0]), (1, [0.2, 0.0], [1, 0])])
    chosen = choose_cases(cases, manifest(2, [(0, "Edema")]), images_per_label=1, num_errors=5)
    assert chosen == [(0, 0), (1, 0)]


def test_the_choice_is_plain_integers() -> None:
    cases = cases_of([(0, [0.1, 0.0], [1, 0]), (1, [0.9, 0.0], [1, 0])])
    chosen = choose_cases(cases, manifest(2), images_per_label=1, num_errors=1)
    assert {type(number) for pair in chosen for number in pair} == {int}


def test_nothing_predicted_gives_nothing_to_draw() -> None:
    cases = case_table(
        np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), LABELS
    )
    assert choose_cases(cases, manifest(2), images_per_label=1, num_errors=1) == []
