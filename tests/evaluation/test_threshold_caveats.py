"""What is said of thresholds that were chosen on few patients, or at the edge of a class."""

from dataclasses import replace

import numpy as np
import pytest

from cxrlab.evaluation.operating_point import Thresholds, from_validation, given
from cxrlab.evaluation.threshold_caveats import threshold_caveats
from cxrlab.metrics.margin import ThresholdBasis

SOUND = ThresholdBasis(0.2, 0.6, 50, 90, 40, 60)


def flags(*basis: ThresholdBasis, values: tuple[float, ...] = ()) -> list:
    names = ("Edema", "Mass", "Hernia")[: len(basis)]
    chosen = np.array(values or [0.4] * len(basis))
    return threshold_caveats(names, Thresholds(chosen, "youden", "validation", basis), 20)


def test_a_threshold_with_margin_and_patients_has_none():
    assert flags(SOUND) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positive_patients": 19}, "50 images with the finding, of 19 patients"),
        ({"negative_patients": 19}, "90 images without it, of 19 patients"),
        (
            {"positives": 12, "positive_patients": None, "negative_patients": None},
            "12 images with the finding",
        ),
    ],
)
def test_few_patients_of_either_class_are_flagged(changes: dict, words: str):
    (flag,) = flags(replace(SOUND, **changes))
    assert (flag.kind, flag.label) == ("few_threshold_positives", "Edema")
    assert f"The threshold of Edema ({words}) was chosen on few validation images." in flag.message
    assert "have more validation images" in flag.message


@pytest.mark.parametrize(
    ("basis", "words"),
    [
        (replace(SOUND, low=0.35, high=0.45), "Edema (0.4, and from 0.35 to 0.45 only)"),
        (replace(SOUND, low=0.39, high=0.99), "Edema (0.4, at the end of 0.39 to 0.99)"),
    ],
)
def test_narrow_and_one_sided_margins_are_flagged(basis: ThresholdBasis, words: str):
    (flag,) = flags(basis)
    assert (flag.kind, flag.label) == ("narrow_margin", "Edema")
    assert words in flag.message
    assert "evaluation.threshold=midpoint" in flag.message


def test_several_labels_share_a_sentence():
    few = replace(SOUND, positive_patients=3)
    (flag,) = flags(few, SOUND, few)
    assert flag.label is None
    assert flag.message.startswith("2 thresholds were chosen on few validation images: Edema (")
    assert "Mass" not in flag.message


def test_what_was_given_or_not_chosen_is_not_flagged():
    assert threshold_caveats(["Edema"], given(0.5, 1), 20) == []
    assert threshold_caveats(["Edema"], None, 20) == []
    nothing = ThresholdBasis(None, None, 0, 90, 0, 60)  # one class only: there is a caveat for that
    assert flags(nothing, values=(np.nan,)) == []


def test_thresholds_of_a_validation_part_know_their_images(make_predictions, make_settings):
    validation = make_predictions(part="val")
    thresholds, _ = from_validation(validation, make_settings())
    for column, basis in enumerate(thresholds.basis):
        positives = validation.targets[:, column] == 1
        assert basis.positives == positives.sum()
        assert basis.positive_patients == len(np.unique(validation.patients[positives]))
        assert basis.low < thresholds.values[column] < basis.high
    assert from_validation(validation, make_settings(threshold=0.3))[0].basis == ()
