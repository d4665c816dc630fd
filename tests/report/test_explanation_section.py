import re

import pytest

from cxrlab.report.explanation_page import headline, protocol, section
from cxrlab.report.figures.explanation import explanation_figures
from cxrlab.report.html import Redaction
from cxrlab.report.model_info import Panel


def test_the_headline_names_the_method_beside_all_that_it_must_beat(explanation_numbers):
    numbers = explanation_numbers()
    text = headline(numbers)
    found = numbers["pointing"]["findings"]["macro"]
    for source in ("gradcam", "random: gradcam", "box_frequency", "image_centre", "uniform_chance"):
        assert f"{found[source]['pointing']['value']:.2f}" in text
    assert text.startswith("Grad-CAM points at the finding")
    assert "(mean of 2 findings)" in text
    assert text.endswith("Grad-CAM is words of macro.")
    assert "mean of" not in headline(explanation_numbers(["Mass"]))


def test_without_boxes_nobody_can_say(explanation_numbers):
    numbers = explanation_numbers([])
    assert "nobody can say whether the heatmaps point" in headline(numbers)
    assert protocol(numbers) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "was chosen on 30 cases of the validation part, by the mean IoU"),
        (
            {"thresholds": {"on": "other patients", "folds": 5}},
            "chosen on the boxes of other patients, in 5 folds",
        ),
        ({"tolerance": 0.05}, "or no farther from it than 5.0 % of the image's side"),
    ],
)
def test_the_protocol_is_stated(changes, words, explanation_numbers):
    numbers = explanation_numbers()
    numbers["pointing"] |= changes
    text = protocol(numbers)
    assert words in text
    assert text.startswith("19 cases: every image with a box of a finding")
    assert ("no farther" in text) == ("tolerance" in changes)
    assert "95 % intervals" in text


def test_what_a_page_shows(explanation_numbers):
    numbers = explanation_numbers(flags=[{"kind": "shortcut", "message": "Heat of images/1.png is high."}])
    example = Panel(
        finding="Mass", outcome="TP", probability=0.9, target=1.0, image="images/1.png", jpeg=b"\xff"
    )
    shown = section(numbers, explanation_figures(numbers), [example], Redaction([], active=True))
    assert shown["flags"] == ["Heat of … is high."]
    assert set(shown["figures"]) == {"pointing", "randomization", "faithfulness"}
    assert [one.words for one in shown["examples"]] == ["Mass: present, predicted 0.90."]
    assert len(shown["differences"].rows) == 3
    assert shown["missing"] == "the image's mean grey"
    assert "mean of 3 networks" in shown["randomization"]
    assert "in 90 % of them" in shown["shortcuts_of"]
    bare = section(explanation_numbers([]), {}, [], Redaction([], active=False))
    assert bare["pointing"] is bare["sizes"] is bare["differences"] is None


def test_what_is_no_known_positive_is_not_called_one(explanation_numbers):
    numbers = explanation_numbers()

    def told():
        shown = section(numbers, explanation_figures(numbers), [], Redaction([], active=False))
        keys = ("faithfulness_of", "randomization", "shortcuts_of")
        return [re.split(r"[.]|, mean", shown[key])[0] for key in keys]

    assert told() == ["8 positives", "8 positives", "20 positives"]
    for check in ("randomization", "faithfulness", "shortcuts"):
        numbers[check]["positives"] = 5
    assert told() == [f"{count} cases, 5 of them known to be positive" for count in (8, 8, 20)]
    numbers["faithfulness"]["positives"] = 0
    assert told()[0] == "8 cases, none of them known to be positive"


def test_without_lungs_the_page_says_so(explanation_numbers):
    numbers = explanation_numbers()
    numbers["shortcuts"] |= {"regions_found": 0.1}
    numbers["shortcuts"]["areas"]["outside"] = None
    shown = section(numbers, explanation_figures(numbers), [], Redaction([], active=False))
    assert "Two lungs were found in 10 % of them, too few to say what lies outside" in shown["shortcuts_of"]
