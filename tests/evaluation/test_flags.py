from dataclasses import replace

import numpy as np
import pytest

from cxrlab.evaluation.caveats import caveats
from cxrlab.evaluation.operating_point import given


def kinds(flags):
    return [(one.kind, one.label) for one in flags]


def test_a_sound_test_has_no_reservation(make_predictions, make_settings):
    table = make_predictions()
    assert caveats(table, given(0.5, 2), make_settings()) == []


@pytest.mark.parametrize("part", ["train", "val"])
def test_parts_that_were_chosen_on_are_named(part, make_predictions, make_settings):
    flags = caveats(make_predictions(part=part), given(0.5, 2), make_settings())
    assert kinds(flags) == [(f"{part}_part", None)]


def test_unknown_patients_are_said_loudly(make_predictions, make_settings):
    table = make_predictions()
    table = replace(table, patients=np.arange(len(table)), patient_names=None)
    (flag,) = caveats(table, given(0.5, 2), make_settings())
    assert flag.kind == "patients_unknown"
    assert "too narrow" in flag.message


def test_few_positives_and_one_class_are_told_apart(make_predictions, make_settings):
    table = make_predictions(("Edema", "Mass", "Hernia"))
    targets = table.targets.copy()
    targets[:, 1] = 0.0
    targets[:, 2] = 0.0
    targets[:9, 2] = 1.0
    flags = caveats(replace(table, targets=targets), given(0.5, 3), make_settings())
    assert kinds(flags) == [("one_class", "Mass"), ("few_positives", "Hernia")]
    assert "only 9 positives" in flags[1].message
    targets[:10, 2] = 1.0
    flags = caveats(replace(table, targets=targets), given(0.5, 3), make_settings())
    assert kinds(flags) == [("one_class", "Mass")]


def test_a_threshold_that_is_missing_is_named(make_predictions, make_settings):
    table = make_predictions()
    assert kinds(caveats(table, None, make_settings())) == [("no_threshold", None)]
    one = replace(given(0.5, 2), values=np.array([0.5, np.nan]), source="validation")
    assert kinds(caveats(table, one, make_settings())) == [("no_threshold", "Mass")]
