from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrlab.data.manifest import Manifest
from cxrlab.heatmaps.cases import Case, case_table, choose_cases, pick_cases

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


def cases_of(
    predictions: list[tuple[int, list[float], list[float]]], thresholds: list[float] | None = None
) -> pd.DataFrame:
    rows = np.array([row for row, _, _ in predictions])
    probabilities = np.array([values for _, values, _ in predictions], dtype=np.float32)
    targets = np.array([values for _, _, values in predictions], dtype=np.float32)
    given = None if thresholds is None else np.array(thresholds)
    return case_table(rows, probabilities, targets, LABELS, given)


def test_case_table_names_the_outcome() -> None:
    cases = cases_of([(7, [0.5, 0.49], [1, 1]), (3, [0.9, 0.1], [0, 0]), (5, [0.9, 0.1], [NAN, NAN])])
    assert tuple(cases.columns) == (*Case._fields, "confidence")
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
    chosen = choose_cases(cases, manifest(4, boxes), images_per_label=3, errors_per_label=0)
    assert chosen == [(2, 0), (1, 0), (3, 0)]


def test_each_label_has_its_positives_and_unknown_ones_are_none() -> None:
    cases = cases_of([(0, [0.9, 0.8], [1, 1]), (1, [0.95, 0.9], [NAN, NAN]), (2, [0.7, 0.9], [1, 0])])
    chosen = choose_cases(cases, manifest(3), images_per_label=1, errors_per_label=0)
    assert chosen == [(0, 0), (0, 1)]


def test_outcomes_are_at_the_labels_own_thresholds() -> None:
    predictions = [(0, [0.2, 0.6], [1, 1]), (1, [0.19, 0.4], [0, 0]), (2, [0.3, 0.5], [0, 1])]
    cases = cases_of(predictions, [0.2, NAN])
    # float32's 0.2 lies above the double 0.2; without a threshold of its own a label has 0.5.
    assert cases["outcome"].tolist() == ["TP", "TP", "TN", "TN", "FP", "TP"]
    assert cases_of(predictions, [NAN, NAN])["outcome"].tolist() == cases_of(predictions)["outcome"].tolist()


def test_a_threshold_in_single_precision_calls_its_own_probability() -> None:
    values = np.array([[0.1, 0.7]], dtype=np.float32)
    for probabilities in (values, values.astype(np.float64)):
        for thresholds in (values[0], values[0].astype(np.float64)):
            cases = case_table(np.arange(1), probabilities, np.ones((1, 2)), LABELS, thresholds)
            assert cases["outcome"].tolist() == ["TP", "TP"]


def test_confidence_is_the_share_of_the_way_from_the_threshold_to_certainty() -> None:
    predictions = [(0, [1.0, 0.9], [0, 0]), (1, [0.0, 0.2], [1, 1]), (2, [0.6, 0.8], [0, 1])]
    cases = cases_of(predictions, [0.2, 0.8])
    assert cases["confidence"].tolist() == pytest.approx([1, 0.5, 1, 0.75, 0.5, 0], abs=1e-6)


def test_confidence_is_defined_for_thresholds_at_the_ends() -> None:
    predictions = [(0, [0.0, 1.0], [0, 1]), (1, [0.5, 0.5], [0, 1]), (2, [1.0, 0.0], [0, 1])]
    cases = cases_of(predictions, [0.0, 1.0])
    assert cases["outcome"].tolist() == ["FP", "TP", "FP", "FN", "FP", "FN"]
    assert cases["confidence"].tolist() == [0, 0, 0.5, 0.5, 1, 1]
    # A threshold may lie above every probability.
    cases = cases_of(predictions, [np.inf, np.inf])
    assert set(cases["outcome"]) == {"TN", "FN"}
    assert np.isfinite(cases["confidence"]).all()


def test_errors_are_each_labels_most_confident_of_both_kinds_in_turn() -> None:
    cases = cases_of(
        [
            (0, [0.01, 0.0], [1, 0]),  # misses of Edema
            (1, [0.02, 0.3], [1, 1]),  # and one of Mass
            (2, [0.40, 0.0], [1, 0]),
            (3, [0.70, 0.8], [0, 0]),  # false alarms of both
            (4, [0.99, 0.9], [1, 1]),  # right
            (5, [0.99, 0.9], [NAN, NAN]),
            (6, [0.00, 0.9], [0, 0]),  # one of Mass
        ]
    )
    chosen = choose_cases(cases, manifest(7), images_per_label=0, errors_per_label=3)
    assert chosen == [(0, 0), (3, 0), (1, 0), (6, 1), (1, 1), (3, 1)]
    assert len(choose_cases(cases, manifest(7), images_per_label=0, errors_per_label=99)) == 7


def test_the_threshold_decides_which_error_is_the_worst() -> None:
    predictions = [(0, [0.02, 0], [1, 0]), (1, [0.9, 0], [0, 0]), (2, [0.04, 0], [0, 0])]
    options = {"images_per_label": 0, "errors_per_label": 3}
    at_half = choose_cases(cases_of(predictions), manifest(3), **options)
    assert at_half == [(0, 0), (1, 0)]
    at_three_percent = choose_cases(cases_of(predictions, [0.03, 0.5]), manifest(3), **options)
    assert at_three_percent == [(1, 0), (0, 0), (2, 0)]


def test_hits_stand_beside_errors_label_by_label() -> None:
    cases = cases_of([(0, [0.9, 0.8], [1, 1]), (1, [0.8, 0.9], [0, 0]), (2, [0.3, 0.2], [1, 1])])
    chosen = choose_cases(cases, manifest(3), images_per_label=1, errors_per_label=2)
    assert chosen == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]
    outcomes = pick_cases(cases, chosen)["outcome"].tolist()
    assert outcomes == ["TP", "FP", "FN", "TP", "FP", "FN"]


def test_pairs_are_picked_in_their_order_and_unknown_ones_drop_out() -> None:
    cases = cases_of([(0, [0.9, 0.8], [1, 1]), (1, [0.8, 0.9], [0, 0])])
    picked = pick_cases(cases, [(1, 1), (7, 0), (0, 0)])
    assert list(zip(picked["row"], picked["label"], strict=True)) == [(1, 1), (0, 0)]
    assert picked["probability"].tolist() == pytest.approx([0.9, 0.9])
    assert pick_cases(cases, []).empty


def test_an_error_that_is_chosen_as_a_positive_is_not_chosen_again() -> None:
    cases = cases_of([(0, [0.1, 0.0], [1, 0]), (1, [0.2, 0.0], [1, 0])])
    chosen = choose_cases(cases, manifest(2, [(0, "Edema")]), images_per_label=1, errors_per_label=5)
    assert chosen == [(0, 0), (1, 0)]


def test_the_choice_is_plain_integers() -> None:
    cases = cases_of([(0, [0.1, 0.0], [1, 0]), (1, [0.9, 0.0], [1, 0])])
    chosen = choose_cases(cases, manifest(2), images_per_label=1, errors_per_label=1)
    assert {type(number) for pair in chosen for number in pair} == {int}


def test_nothing_predicted_gives_nothing_to_draw() -> None:
    cases = case_table(
        np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), LABELS
    )
    assert choose_cases(cases, manifest(2), images_per_label=1, errors_per_label=1) == []
