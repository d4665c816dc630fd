import pytest

from cxrlab.metrics.bootstrap import Estimate
from cxrlab.report import formatting

UNDEFINED = Estimate(None)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.9996, 3, "1.000"),
        (-0.0001, 3, "0.000"),
        (-0.0006, 3, "\u22120.001"),
        (float("nan"), 3, "\u2013"),
        (2, 0, "2"),
    ],
)
def test_a_number_is_rounded_and_never_minus_zero(value, digits, text):
    assert formatting.number(value, digits) == text


def test_what_is_undefined_is_a_dash():
    texts = (
        formatting.interval(UNDEFINED), formatting.percent(None), formatting.count(None), formatting.p(None)
    )  # fmt: skip
    assert set(texts) == {"\u2013"}
    assert formatting.bounds(UNDEFINED) == ""


def test_a_value_without_interval_stands_alone():
    assert formatting.interval(Estimate(1.0)) == "1.000"


def test_a_p_value_is_never_0():
    assert formatting.p(0.0) == "below 0.001"
    assert formatting.p(0.001) == "0.001"
