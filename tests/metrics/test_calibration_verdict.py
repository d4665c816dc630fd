from dataclasses import replace

import pytest

from cxrlab.metrics.bootstrap import Estimate
from cxrlab.metrics.calibration import Reliability, describe_calibration


def numbers(bias, spiegelhalter, is_calibrated):
    def around(low, high):
        return Estimate((low + high) / 2, low, high)

    nothing = Estimate(None)
    return Reliability(nothing, nothing, around(*bias), around(*spiegelhalter), None, is_calibrated, [])


FINE = numbers((-0.1, 0.1), (-0.1, 0.1), True)
AFTER = "after Platt scaling fitted on validation"


@pytest.mark.parametrize(
    ("predicted", "classes", "treatment", "words"),
    [
        (FINE, (50, 50), AFTER, f"calibrated {AFTER}"),
        (FINE, (50, 50), "", "calibrated"),
        (FINE, (9, 50), AFTER, "cannot be evaluated: fewer than 10 positives"),
        (FINE, (50, 9), "", "cannot be evaluated: fewer than 10 negatives"),
        (replace(FINE, is_calibrated=None), (50, 50), "", "cannot be evaluated: nothing varies between resamples"),
        (numbers((0.2, 0.22), (-1, 1), False), (50, 50), "", "too high by 0.21 on average"),
        (numbers((-0.0022, -0.002), (1, 2), False), (50, 50), AFTER, f"too low by 0.0021 on average, {AFTER}"),
        (numbers((2e-5, 2.2e-5), (1, 2), False), (50, 50), "", "too high by 0.000021 on average"),
        (numbers((-1, 1), (1, 2), False), (50, 50), "", "not calibrated: high ones too high and low ones too low"),
        (numbers((-1, 1), (-2, -1), False), (50, 50), "", "not calibrated: high ones too low and low ones too high"),
    ],
)  # fmt: skip
def test_the_words_say_what_is_wrong(predicted, classes, treatment, words):
    assert describe_calibration(predicted, classes, 10, treatment) == words
