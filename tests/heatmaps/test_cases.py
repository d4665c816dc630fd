import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from torch import Tensor

from cxrlab.data.manifest import Manifest
from cxrlab.heatmaps.cases import (
    Case,
    all_heatmaps,
    batches,
    case_table,
    choose_cases,
    heatmaps,
    pick_cases,
    read,
)
from cxrlab.heatmaps.methods.cam import Pair

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


CASES: list[Pair] = [(7, 0), (7, 1), (3, 0), (5, 2), (5, 0), (3, 1), (0, 0)]


class CountedImages:
    """Images of 4 by 4 pixels whose value is their row, and which rows were read together."""

    def __init__(self) -> None:
        self.read: list[list[int]] = []

    def __getitem__(self, rows: list[int]) -> npt.NDArray[np.uint8]:
        self.read.append(list(rows))
        return np.array(rows, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 4, 4), dtype=np.uint8)


def by_row_and_label(images: Tensor, pairs: Sequence[Pair]) -> Tensor:
    """Heatmaps whose value is ten times the image's row, and the label."""
    return torch.stack([10.0 * images[image, 0].float() + label for image, label in pairs])


@pytest.mark.parametrize("num_images", [1, 2, 3, 4, 9])
def test_a_batch_holds_as_many_cases_as_are_of_so_many_images(num_images: int) -> None:
    found = list(batches(CASES, num_images))
    assert [case for batch in found for case in batch] == CASES
    sizes = [len({row for row, _ in batch}) for batch in found]
    assert max(sizes) <= num_images
    for batch, following in itertools.pairwise(found):  # no batch could have taken one more case
        rows = {row for row, _ in batch}
        assert len(rows) == num_images
        assert following[0][0] not in rows


def test_batches_are_those_of_the_example_by_hand() -> None:
    assert list(batches(CASES, 2)) == [CASES[:3], CASES[3:6], CASES[6:]]
    assert list(batches([], 2)) == []


def test_a_batch_that_was_given_stays_as_it_is() -> None:
    stream = batches(CASES, 1)
    first = next(stream)
    list(stream)
    assert first == CASES[:2]


def test_each_image_is_read_once_and_cases_count_them() -> None:
    images = CountedImages()
    found, pairs = read(images, CASES)
    assert images.read == [[7, 3, 5, 0]]
    assert found.dtype == torch.uint8
    assert found[:, 0, 0, 0].tolist() == [7, 3, 5, 0]
    assert pairs == [(0, 0), (0, 1), (1, 0), (2, 2), (2, 0), (1, 1), (3, 0)]


@pytest.mark.parametrize("title", ["", "Some maps"])
@pytest.mark.parametrize("num_images", [1, 2, 9])
def test_heatmaps_come_in_the_order_of_the_cases(
    num_images: int, title: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = CountedImages()
    found = list(heatmaps(by_row_and_label, images, CASES, num_images=num_images, title=title))
    assert [one.shape for one in found] == [(4, 4)] * len(CASES)
    assert [float(one[0, 0]) for one in found] == [10 * row + label for row, label in CASES]
    assert max(len(rows) for rows in images.read) <= num_images
    printed = capsys.readouterr()
    assert printed.out == ""
    assert (title in printed.err) == (printed.err != "" or not title)


def test_images_are_read_when_they_are_needed() -> None:
    images = CountedImages()
    stream = heatmaps(by_row_and_label, images, CASES, num_images=1, title="")
    assert images.read == []
    next(stream)
    assert images.read == [[7]]


def test_all_heatmaps_are_one_tensor() -> None:
    found = all_heatmaps(by_row_and_label, CountedImages(), CASES, num_images=2, title="")
    assert found.shape == (len(CASES), 4, 4)
    assert found[:, 2, 1].tolist() == [10 * row + label for row, label in CASES]


def test_no_cases_have_no_heatmaps() -> None:
    assert list(heatmaps(by_row_and_label, CountedImages(), [], num_images=2, title="")) == []
