"""Whether probabilities are calibrated, in words."""

from typing import Any

import numpy as np

from cxrlab.evaluation.reliability import holds_zero

METHODS = {
    "temperature": "temperature scaling",
    "temperature_by_label": "temperature scaling by label",
    "platt": "Platt scaling",
}


def calibration_verdict(
    numbers: dict[str, Any], classes: tuple[int, int], min_positives: int, treatment: str
) -> str:
    """Return a phrase such as "calibrated after Platt scaling fitted on validation".

    "Calibrated" means that the images show no departure; the intervals tell how large one may still be.

    Args:
        numbers: Of :func:`~cxrlab.evaluation.reliability.reliability_numbers`.
        classes: Number of positives and of negatives.
        min_positives: Fewer of either allow no verdict.
        treatment: What was done to the probabilities, or "".

    Example:
        >>> bias = {"value": 0.2134, "low": 0.2, "high": 0.23}
        >>> sign = {"value": 0.1, "low": 0.0, "high": 0.2}
        >>> numbers = {"bias": bias, "spiegelhalter": sign, "is_calibrated": False}
        >>> calibration_verdict(numbers, (50, 50), 10, "")
        'too high by 0.21 on average'
    """
    for count, name in zip(classes, ("positives", "negatives"), strict=True):
        if count < min_positives:
            return f"cannot be judged: fewer than {min_positives} {name}"
    if numbers["is_calibrated"] is None:
        return "cannot be judged: nothing varies between resamples"
    if numbers["is_calibrated"]:
        return f"calibrated {treatment}".rstrip()
    return ", ".join(part for part in (_fault(numbers), treatment) if part)


def _fault(numbers: dict[str, Any]) -> str:
    bias, spiegelhalter = numbers["bias"], numbers["spiegelhalter"]
    if not holds_zero(bias):
        size = np.format_float_positional(abs(bias["value"]), precision=2, fractional=False, trim="k")
        return f"too {'high' if bias['value'] > 0 else 'low'} by {size} on average"
    if spiegelhalter["value"] > 0:
        return "not calibrated: high ones too high and low ones too low"
    return "not calibrated: high ones too low and low ones too high"
