"""Numbers as a reader sees them: 0.988 (0.971 to 0.996), and a dash for what is undefined."""

import math

from cxrlab.metrics.bootstrap import Estimate

DASH = "\u2013"
MINUS = "\u2212"


def number(value: float | None, digits: int = 3) -> str:
    r"""Return a number with a true minus sign; a dash for None and NaN.

    Example:
        >>> number(0.98765)
        '0.988'
        >>> print(ascii(number(-0.5, 2)), ascii(number(None)))
        '\u22120.50' '\u2013'
    """
    if value is None or math.isnan(value):
        return DASH
    text = f"{value:.{digits}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def bounds(estimate: Estimate, digits: int = 3) -> str:
    """Return an interval without its value; nothing where there is none.

    Example:
        >>> bounds(Estimate(0.9, 0.85, 0.94)), bounds(Estimate(1.0))
        ('0.850 to 0.940', '')
    """
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{number(estimate.low, digits)} to {number(estimate.high, digits)}"


def interval(estimate: Estimate, digits: int = 3) -> str:
    """Return a value with its interval.

    Example:
        >>> interval(Estimate(0.988, 0.971, 0.996))
        '0.988 (0.971 to 0.996)'
    """
    around = bounds(estimate, digits)
    value = number(estimate.value, digits)
    return f"{value} ({around})" if around else value


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share in percent.

    Example:
        >>> percent(0.9876)
        '98.8 %'
    """
    return DASH if value is None else f"{number(100 * value, digits)} %"


def level(value: float) -> str:
    """Return the coverage of intervals.

    Example:
        >>> level(0.95), level(0.999)
        ('95 %', '99.9 %')
    """
    return f"{100 * value:.4g} %"


def count(value: int | None) -> str:
    """Return a count with commas.

    Example:
        >>> count(22433)
        '22,433'
    """
    return DASH if value is None else f"{value:,}"


def counted(value: int, noun: str) -> str:
    """Return a count with its noun.

    Example:
        >>> counted(1, "image"), counted(240, "patient")
        ('1 image', '240 patients')
    """
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def p(value: float | None) -> str:
    """Return a p-value; never 0.

    Example:
        >>> p(0.0304), p(0.00001)
        ('0.030', 'below 0.001')
    """
    return "below 0.001" if value is not None and value < 0.001 else number(value)


def seconds(value: float) -> str:
    """Return a duration.

    Example:
        >>> seconds(3.25), seconds(754), seconds(9000)
        ('3.2 s', '12.6 min', '2.5 h')
    """
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"
