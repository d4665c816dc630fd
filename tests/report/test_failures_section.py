from dataclasses import replace

import pytest

from cxrlab.evaluation.failures import FailureAnalysis, FailurePattern
from cxrlab.metrics.bootstrap import Estimate
from cxrlab.report import failures_section as section
from cxrlab.report.model_info import ModelInfo
from cxrlab.report.section import PageContext
from cxrlab.report.tables import Cell


def pattern(**changes):
    values = dict(
        label="Edema", error="missed", by="view", group="AP", images=120, patients=80,
        rate=Estimate(0.6, 0.5, 0.7), others=Estimate(0.2, 0.1, 0.3), p=1e-6, p_holm=2e-4,
    )  # fmt: skip
    return FailurePattern(**values | changes)


def test_a_row_has_both_shares_and_the_corrected_p():
    row = section.pattern_table([pattern()]).rows[0]
    assert row.name == "Edema"
    assert list(row.cells) == [
        Cell("missed"),
        Cell("view AP"),
        Cell("0.600", "0.500 to 0.700"),
        Cell("0.200", "0.100 to 0.300"),
        Cell("120", "of 80 patients"),
        Cell("below 0.001"),
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Edema is missed in 60.0 % of images with view AP and in 20.0 % of the others"),
        (
            {"error": "false positive", "by": "co-finding", "group": "without Mass"},
            "Edema is falsely positive in 60.0 % of images without Mass and in 20.0 % of the others",
        ),
        (
            {"by": "box", "group": "up to 0.021"},
            "Edema is missed in 60.0 % of images with box up to 0.021 of the image and in 20.0 % of the others",
        ),
    ],
)
def test_a_pattern_in_words(changes, words):
    assert section.pattern_words(pattern(**changes)) == words


def test_the_summary_says_how_many_were_compared_and_what_was_not():
    everything = ["co-finding", "view", "brightness", "contrast", "box"]
    one = section.summary(FailureAnalysis(40, everything, [pattern()]))
    assert one.startswith("1 pattern is shown among 40 comparisons (by co-finding, view, brightness")
    assert one.endswith(
        "The clearest: Edema is missed in 60.0 % of images with view AP and in 20.0 % of the others."
    )
    none = section.summary(FailureAnalysis(40, ["view"], []))
    assert none.startswith(
        "No pattern shown among 40 comparisons (by view); errors need not be spread evenly."
    )
    assert none.endswith("Not compared, for want of images or boxes: brightness and contrast, size of boxes.")
    assert "20 patients each" in section.summary(FailureAnalysis(0, [], []))


def test_what_is_more_than_a_few_is_folded_and_without_threshold_nothing_is_shown(evaluated):
    result = evaluated(["Edema", "Mass"])
    assert result.failures.num_tests > 0
    many = FailureAnalysis(40, ["view"], [pattern(group=f"<{place}>") for place in range(9)])
    context = PageContext(replace(result, failures=many), ModelInfo(), images=True)
    body = section.failures_section(context)
    assert "Further patterns" in body
    assert body.index("&lt;5&gt;") < body.index("Further patterns") < body.index("&lt;6&gt;")
    without = evaluated(["Edema", "Mass"], validation=False)
    assert section.failures_section(PageContext(without, ModelInfo(), images=True)) is None
