import numpy as np
import pytest

from cxrlab.errors import ConfigError
from cxrlab.evaluation.operating_point import from_validation, given, threshold_source
from cxrlab.metrics.calibration import fit_calibrator
from cxrlab.metrics.thresholds import choose_thresholds


def test_thresholds_and_calibration_are_those_of_the_validation_part(make_predictions, make_settings):
    validation = make_predictions(part="val")
    thresholds, calibrator = from_validation(validation, make_settings())
    expected = choose_thresholds(validation.probabilities, validation.targets, "youden")
    np.testing.assert_array_equal(thresholds.values, expected)
    assert (thresholds.rule, thresholds.source) == ("youden", "validation")
    fitted = fit_calibrator(validation.probabilities, validation.targets, "platt", "validation")
    np.testing.assert_array_equal(calibrator.slopes, fitted.slopes)


def test_a_number_is_given_and_not_chosen(make_predictions, make_settings):
    thresholds, calibrator = from_validation(
        make_predictions(), make_settings(threshold=0.3, calibration="none")
    )
    assert thresholds.values.tolist() == [0.3, 0.3]
    assert thresholds.source == "given"
    assert calibrator is None
    assert threshold_source("sensitivity@0.9", "validation") == "validation"


def test_a_given_threshold_is_a_probability():
    assert given(0.25, 3).values.tolist() == [0.25] * 3
    with pytest.raises(ConfigError, match=r"threshold=1.5 must be a probability"):
        given(1.5, 3)
